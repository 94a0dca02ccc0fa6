"""A dry run says what prepare would do, and writes nothing."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from tests.ingest.trees import brats, mask, picture, scan, volume
from vitaepp.data.store import Store
from vitaepp.errors import RecipeError
from vitaepp.ingest.planning.fingerprint import Intensities
from vitaepp.ingest.prepare import prepare


def dry_run(source, **settings):
    found = prepare(source, dry_run=True, workers=1, **settings).dry_run
    assert found is not None
    return found


def tree(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


def test_it_writes_nothing_and_needs_no_store(tmp_path):
    brats(tmp_path / "scans")
    before = tree(tmp_path)
    dry_run(tmp_path / "scans")
    prepare(tmp_path / "scans", tmp_path / "store", dry_run=True)
    assert tree(tmp_path) == before
    with pytest.raises(RecipeError, match="needs a store to make"):
        prepare(tmp_path / "scans")


def test_what_it_announces_is_what_prepare_makes(tmp_path):
    brats(tmp_path / "scans")
    found = dry_run(tmp_path / "scans", dtype="uint8")
    prepare(tmp_path / "scans", tmp_path / "store", dtype="uint8", workers=1)
    store = Store(tmp_path / "store")
    assert found.spec.info == store.info
    assert found.store_bytes == store.images[:].nbytes
    assert len(found.table) == len(store)


def test_missing_modalities_and_broken_files_are_named(tmp_path):
    root = brats(tmp_path, subjects=("ann", "bob", "cyd", "dan"))
    (root / "bob" / "bob_t2.nii.gz").unlink()
    (root / "cyd" / "cyd_t1.nii.gz").write_bytes(b"")
    (root / "dan" / "dan_flair.nii.gz").write_bytes(b"not a scan at all")
    found = dry_run(root)
    assert found.fingerprint.missing == {"t2": ("bob",)}
    assert [f.subject for f in found.fingerprint.unreadable] == ["cyd", "dan"]
    text = " ".join(str(found).split())
    assert "channel t2 3 of 4, such as ann/ann_t2.nii.gz" in text
    assert "t2 missing in bob" in text
    assert "cyd/cyd_t1.nii.gz: the file is empty" in text
    assert "would fail: 2 subjects" in text


def test_what_a_layout_leaves_out_is_told_with_its_reason(tmp_path):
    from dataclasses import replace

    scan(tmp_path / "a.nii")
    found = dry_run(tmp_path)
    out = (("b.doc", "no image"),) * 12
    text = str(replace(found, cohort=replace(found.cohort, left_out=out)))
    assert "left out 12 b.doc no image" in " ".join(text.split())
    assert "no image" in text
    assert "and 2 more" in text


@pytest.mark.parametrize("seed", range(4))
def test_geometry_agrees_with_nibabel(tmp_path, seed):
    rng = np.random.default_rng(seed)
    turn = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    shape, spacing = tuple(rng.integers(5, 15, 3).tolist()), rng.uniform(0.4, 3, 3)
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    scan(tmp_path / "a.nii.gz", shape=shape, affine=affine)
    image = nib.load(tmp_path / "a.nii.gz")
    (found,) = dry_run(tmp_path).fingerprint.headers
    assert found.orientation == "".join(nib.aff2axcodes(image.affine))
    ras = nib.as_closest_canonical(image)
    assert found.size == ras.shape
    assert found.spacing == pytest.approx(ras.header.get_zooms(), rel=1e-5)


def test_intensities_are_those_of_the_voxels(tmp_path):
    values = volume(3)
    scan(tmp_path / "a.nii", values=values)
    robust = tuple(np.percentile(values, [0.5, 99.5]).tolist())
    found = dry_run(tmp_path).fingerprint.intensities
    assert found == {"image": Intensities(float(values.min()), float(values.max()), robust, 1)}


def test_nothing_of_a_header_but_geometry_is_told(tmp_path):
    image = sitk.GetImageFromArray(volume())
    for key in ("descrip", "aux_file", "intent_name", "db_name"):
        image.SetMetaData(key, "DOE^JANE")
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    assert b"DOE^JANE" in (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii").write_bytes((tmp_path / "a.nii").read_bytes()[:400])
    text = str(dry_run(tmp_path))
    assert "DOE" not in text
    assert str(tmp_path) not in text


def test_pictures_and_arrays_have_no_spacing(tmp_path):
    for split in ("train", "test"):
        for label in ("ill", "well"):
            picture(tmp_path / "x" / split / label / f"{split}{label}.png")
    text = str(dry_run(tmp_path / "x"))
    assert "20×16 voxels" in text
    assert "spacing" not in text
    assert "test: 2, train: 2" in text
    assert "ill: 2, well: 2" in text
    images = np.random.default_rng(0).integers(0, 255, (12, 28, 28)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=np.arange(12)[:, None] % 2)
    found = dry_run(tmp_path / "a.npz")
    assert {g.size for g in found.fingerprint.headers} == {(28, 28)}
    assert found.fingerprint.intensities["image"].subjects == 8


def test_an_unknown_kind_of_item_is_read_whole(tmp_path, monkeypatch):
    from vitaepp.ingest import subject

    monkeypatch.setattr(subject, "read_grid", lambda *_, **__: None)
    scan(tmp_path / "a.nii", shape=(10, 12, 9))
    (found,) = dry_run(tmp_path).fingerprint.headers
    assert found.size == (10, 12, 9)


def test_masks_that_cannot_be_read_are_named(tmp_path):
    for name in ("a", "b"):
        scan(tmp_path / "images" / f"{name}.nii.gz")
        mask(tmp_path / "labels" / f"{name}.nii.gz")
    (tmp_path / "labels" / "b.nii.gz").write_bytes(b"x")
    (failure,) = dry_run(tmp_path).fingerprint.unreadable
    assert failure.subject == "b"
    assert "labels/b.nii.gz" in failure.reason


def test_processes_find_what_one_finds(tmp_path, monkeypatch):
    from vitaepp.ingest.workers import pool

    brats(tmp_path)
    alone = dry_run(tmp_path).fingerprint
    monkeypatch.setattr(pool, "SECONDS_WORTH_PROCESSES", -1.0)
    found = prepare(tmp_path, dry_run=True, workers=2).dry_run
    assert found is not None
    together = found.fingerprint
    assert sorted(map(str, together.headers)) == sorted(map(str, alone.headers))
    assert together.intensities == alone.intensities


def test_subjects_that_would_fail_for_what_they_lack_are_named(tmp_path):
    for name in ("a", "b", "c", "d"):
        scan(tmp_path / "images" / f"{name}.nii.gz")
        if name != "b":
            mask(tmp_path / "labels" / f"{name}.nii.gz")
    found = dry_run(tmp_path, spacing=1, size=8)
    made = prepare(tmp_path, tmp_path / "store", spacing=1, size=8, workers=1)
    assert found.fingerprint.unreadable == made.failures
    assert [(f.subject, "`center=foreground`" in f.reason) for f in made.failures] == [("b", True)]
    root = brats(tmp_path / "two", names=("t1", "t2"))
    (root / "a" / "a_t2.nii.gz").unlink()
    found = dry_run(root, modalities=["t2"])
    assert [f.subject for f in found.fingerprint.unreadable] == ["a"]
