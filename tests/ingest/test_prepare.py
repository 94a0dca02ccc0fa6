"""prepare: from files on disk to a store that says where everything came from."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from tests.ingest.trees import brats, mask, picture, scan, volume
from vitaepp.data.store import Store
from vitaepp.data.storetable import Failure
from vitaepp.errors import RecipeError, SourceError, StoreError
from vitaepp.ingest.prepare import prepare
from vitaepp.recipe.sections import PrepareSettings


def rescaled(values: np.ndarray) -> np.ndarray:
    values = values.astype(float)
    return (values - values.min()) / (values.max() - values.min()) * 255


def files_of(store: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(store)): p.read_bytes()
        for p in sorted(store.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def test_a_cohort_of_scans_is_cropped_around_the_mask_and_can_be_put_back(tmp_path):
    source = brats(tmp_path / "source")
    (tmp_path / "labels.csv").write_text("subject,grade\na,1\nb,0\n")
    result = prepare(source, tmp_path / "s", size=6, labels=tmp_path / "labels.csv")
    assert (result.prepared, result.skipped, result.failures) == (3, 0, ())
    store = Store(tmp_path / "s")
    assert store.info.modalities == ("flair", "t1", "t1ce", "t2")
    assert store.info.center == "mask"
    assert store.info.spacing == (1.0, 1.0, 1.0)
    assert store.table.grade.tolist() == [1, 0, pd.NA]
    for row, record in enumerate(store.table.itertuples()):
        assert record.source[1] == f"{record.subject}/{record.subject}_t1.nii.gz"
        affine = np.reshape(record.affine, (4, 4))
        first = affine[:3, 3].astype(int)
        # The mask's one voxel is in the middle of the crop, to half a voxel.
        assert np.abs(first + 2.5 - [3 + row, 6, 4]).max() <= 0.5
        for channel, name in enumerate(store.info.modalities):
            file = source / record.subject / f"{record.subject}_{name}.nii.gz"
            values = np.pad(rescaled(nib.load(file).get_fdata()), 6)
            box = tuple(slice(f + 6, f + 12) for f in first)
            expected = values[box].astype(np.float32).astype(np.float16)
            assert np.array_equal(store.read([row])[0, channel], expected)
            assert record.intensity_min[channel] == nib.load(file).get_fdata().min()
            assert record.intensity_max[channel] == nib.load(file).get_fdata().max()


def test_modalities_on_grids_of_their_own_meet_in_space(tmp_path):
    where = np.array([3.0, -4.0, 5.0])

    def blob(path, affine, shape):
        world = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
        distance = np.linalg.norm(world - where, axis=-1)
        scan(path, values=(1000 * np.exp(-((distance / 4) ** 2))).astype(np.float32), affine=affine)

    one = np.diag([1.0, 1.0, 1.0, 1.0])
    one[:3, 3] = -20
    turned = np.array([[0, 0, 2.0, -20], [-1.5, 0, 0, 20], [0, 1.2, 0, -20], [0, 0, 0, 1]])
    blob(tmp_path / "x" / "s" / "s_t1.nii.gz", one, (44, 36, 48))
    blob(tmp_path / "x" / "s" / "s_t2.nii.gz", turned, (24, 40, 22))
    prepare(tmp_path / "x", tmp_path / "s", size=24, center="foreground", modalities="t2,t1")
    store = Store(tmp_path / "s")
    t2, t1 = store.read([0])[0].astype(float)
    np.testing.assert_allclose(t1, t2, atol=25)
    middle = nib.affines.apply_affine(
        np.reshape(store.table.affine[0], (4, 4)), np.unravel_index(t1.argmax(), t1.shape)
    )
    assert np.linalg.norm(middle - where) < 2


def test_beyond_the_volume_is_background_even_when_the_minimum_is_negative(tmp_path):
    scan(tmp_path / "x" / "ct.nii.gz", values=volume(shape=(6, 6, 6)) - 1000)
    prepare(tmp_path / "x", tmp_path / "s", size="10,6,6", center="image", dtype="uint8")
    image = Store(tmp_path / "s").read([0])[0, 0]
    assert image.dtype == np.uint8
    assert (image[:2] == 0).all()
    assert (image[-2:] == 0).all()
    expected = np.rint(rescaled(volume(shape=(6, 6, 6))))
    assert np.array_equal(image[2:-2], expected)


def test_nothing_of_a_header_but_geometry_and_no_absolute_path_reaches_the_store(tmp_path):
    secrets = [b"DOE^JANE", b"19700101", b"ID4711"]
    for name, values in (("a", volume()), ("b", np.full((5, 5, 5), 3, np.int16))):
        image = nib.Nifti1Image(values, np.eye(4))
        image.header["descrip"], image.header["db_name"] = secrets[0], secrets[1]
        image.header["aux_file"], image.header["intent_name"] = secrets[2], secrets[0]
        (tmp_path / "x").mkdir(exist_ok=True)
        image.to_filename(tmp_path / "x" / f"{name}.nii.gz")
    (tmp_path / "x" / "c.nii.gz").write_bytes(b"DOE^JANE")
    text = f"subject,mri\na,{tmp_path / 'x' / 'a.nii.gz'}\nb,x/b.nii.gz\nc,x/c.nii.gz\n"
    text += f"d,{tmp_path / 'elsewhere' / 'd.nii.gz'}\n"
    for outside in (tmp_path, tmp_path / "m"):
        outside.mkdir(exist_ok=True)
        (outside / "m.csv").write_text(text)
        path = tmp_path / f"store-{outside.name}"
        result = prepare(outside / "m.csv", path, size=8)
        assert {f.subject for f in result.failures} >= {"b", "d"}
        content = list(files_of(path).values())
        content.append(Store(path).table.to_csv().encode())
        content.append(repr(result.failures).encode())
        for secret in (*secrets, str(tmp_path).encode()):
            assert not any(secret in data for data in content)
    assert Store(tmp_path / "store-m").table.source[0].tolist() == ["a.nii.gz"]


def test_failing_subjects_are_named_and_the_rest_goes_on(tmp_path):
    source = brats(tmp_path / "x", subjects=list("abcdefg"))
    (source / "a" / "a_t1.nii.gz").write_bytes((source / "a" / "a_t1.nii.gz").read_bytes()[:900])
    (source / "b" / "b_t2.nii.gz").write_bytes(b"")
    (source / "c" / "c_seg.nii.gz").unlink()
    (source / "d" / "d_seg.nii.gz").write_bytes(b"x" * 400)
    mask(source / "e" / "e_seg.nii.gz", shape=(9, 12, 10))
    far = np.eye(4)
    far[:3, 3] = 500
    scan(source / "f" / "f_t1ce.nii.gz", affine=far)
    result = prepare(source, tmp_path / "s", size=6)
    assert result.prepared == 1
    failures = dict(pd.read_csv(tmp_path / "s" / "failures.csv").values)
    assert failures == {f.subject: f.reason for f in result.failures}
    expected = {
        "a": "a/a_t1.nii.gz: cannot be read: truncated",
        "b": "b/b_t2.nii.gz: the file is empty",
        "c": "has no mask",
        "d": "d/d_seg.nii.gz: cannot be read",
        "e": "e/e_seg.nii.gz: the mask is 9×12×10, but e/e_flair.nii.gz is 10×12×9",
        "f": "f/f_t1ce.nii.gz: lies entirely beside f/f_flair.nii.gz, by their headers; the affine",
    }
    assert list(failures) == list(expected)
    for subject, reason in expected.items():
        assert failures[subject].startswith(reason)
    # What is mended is prepared by the next call, and nothing else is.
    mask(source / "d" / "d_seg.nii.gz")
    again = prepare(source, tmp_path / "s", size=6)
    assert (again.prepared, again.skipped, len(again.failures)) == (1, 1, 5)
    assert list(Store(tmp_path / "s").table.subject) == ["g", "d"]


def test_images_that_do_not_meet_are_both_named_since_either_may_be_wrong(tmp_path):
    far, above = np.eye(4), np.eye(4)
    far[:3, 3], above[2, 3] = 500, 6
    names = ("flair", "t1", "t2")
    first = brats(tmp_path / "x", ("a",), names=names) / "a" / "a_flair.nii.gz"
    scan(first, affine=far)
    (told,) = prepare(tmp_path / "x", tmp_path / "s", size=6, center="image").failures
    assert told.reason == (
        "a/a_t1.nii.gz: lies entirely beside a/a_flair.nii.gz, by their headers; the affine of one "
        "of the two is wrong"
    )
    # Here both are right, and the crop is not where one of them is.
    slab = brats(tmp_path / "y", ("a",), names=names) / "a" / "a_t1.nii.gz"
    scan(slab, shape=(10, 12, 3), affine=above)
    mask(tmp_path / "y" / "a" / "a_seg.nii.gz", at=(5, 6, 1))
    (told,) = prepare(tmp_path / "y", tmp_path / "t", size=4).failures
    assert told.reason.startswith("a/a_t1.nii.gz: lies entirely outside the crop of a/a_flair.nii")


def test_a_manifest_with_a_missing_file_and_a_cohort_that_fails_as_a_whole(tmp_path):
    (tmp_path / "m.csv").write_text("subject,t1\na,nowhere/a.nii.gz\n")
    result = prepare(tmp_path / "m.csv", tmp_path / "s", size=6)
    assert result.failures == (Failure("a", "nowhere/a.nii.gz: no such file"),)
    assert (result.prepared, result.skipped) == (0, 0)
    with pytest.raises(StoreError, match="no subject is prepared"):
        Store(tmp_path / "s")


def test_an_unforeseen_error_in_one_subject_is_named_without_the_folder(tmp_path, monkeypatch):
    source = brats(tmp_path / "x")

    def explode(path, name, **_):
        if name.startswith("b/"):
            raise ZeroDivisionError(f"in\n{path}")
        return real(path, name, **_)

    from vitaepp.ingest import subject as module

    real = module.read_scan
    monkeypatch.setattr(module, "read_scan", explode)
    result = prepare(source, tmp_path / "s", size=6)
    assert result.failures == (Failure("b", "ZeroDivisionError: in b/b_flair.nii.gz"),)


def test_a_changed_file_is_noticed_and_other_settings_need_another_store(tmp_path):
    source = brats(tmp_path / "x")
    prepare(source, tmp_path / "s", size=6)
    before = Store(tmp_path / "s").read([0, 1, 2])
    scan(source / "b" / "b_t1.nii.gz", seed=99)
    result = prepare(source, tmp_path / "s", size=6)
    assert (result.prepared, result.skipped) == (1, 2)
    after = Store(tmp_path / "s").read([0, 1, 2])
    assert (before != after).any(axis=(1, 2, 3, 4)).tolist() == [False, True, False]
    for other in ({"size": 8}, {"size": 6, "center": "image"}, {"size": 6, "modalities": "t1"}):
        with pytest.raises(StoreError, match="different store"):
            prepare(source, tmp_path / "s", **other)


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        (["images.zarr/c/1"], 1),
        (["images.zarr/c/1/0/0/0/0"], 1),
        (["images.zarr/c/1/0/0/0/0", "masks.zarr/c/2/0/0/0"], 2),
        (["images.zarr/c/0", "masks.zarr/c/2"], 2),
        (["masks.zarr"], 3),
        (["images.zarr", "masks.zarr/zarr.json"], 3),
    ],
)
def test_subjects_whose_image_was_lost_are_prepared_again(tmp_path, capsys, lost, again):
    source = brats(tmp_path / "source")
    prepare(source, tmp_path / "s", size=6, keep_masks=True, workers=1)
    fresh = files_of(tmp_path / "s")
    for name in lost:
        path = tmp_path / "s" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = prepare(source, tmp_path / "s", size=6, workers=1)
    assert (result.prepared, result.skipped) == (again, 3 - again)
    assert f"lacks the images of {again} subject" in capsys.readouterr().err
    assert files_of(tmp_path / "s") == fresh


@pytest.mark.parametrize("name", ["table.parquet", "store.json"])
def test_what_cannot_be_mended_is_told_with_what_helps(tmp_path, name):
    source = brats(tmp_path / "source")
    prepare(source, tmp_path / "s", size=6, workers=1)
    (tmp_path / "s" / name).write_bytes(b"?")
    with pytest.raises(StoreError, match=f"{name} is damaged or not ours; prepare its source into"):
        prepare(source, tmp_path / "s", size=6, workers=1)


def test_8_bit_pictures_keep_their_values_and_their_colours(tmp_path):
    for i in range(3):
        picture(tmp_path / "grey" / "a" / f"{i}.png", seed=i, shape=(12, 12))
        picture(tmp_path / "rgb" / "a" / f"{i}.png", seed=i, shape=(12, 12), colour=i > 0)
    prepare(tmp_path / "grey", tmp_path / "g", size=12)
    grey = Store(tmp_path / "g")
    assert grey.info.modalities == ("grey",)
    expected = np.random.default_rng(1).integers(0, 255, (12, 12, 3)).astype(np.uint8)
    assert np.array_equal(grey.read([1])[0, 0], expected[..., 0])
    assert grey.table.intensity_max[0].tolist() == [255.0]
    prepare(tmp_path / "rgb", tmp_path / "r", size="12,16")
    colour = Store(tmp_path / "r")
    assert colour.info.modalities == ("red", "green", "blue")
    assert np.array_equal(colour.read([1])[0, :, :, 2:-2], expected.transpose(2, 0, 1))
    assert (colour.read([1])[0, :, :, :2] == 0).all()
    assert colour.table.source[1].tolist() == ["a/1.png"] * 3
    affine = np.reshape(colour.table.affine[1], (3, 3))
    assert (affine @ [0, 2, 1]).tolist() == [0, 0, 1]
    prepare(tmp_path / "rgb", tmp_path / "l", size=12, modalities="grey")
    luminance = Store(tmp_path / "l").read([1])[0, 0].astype(float)
    np.testing.assert_allclose(luminance, expected @ [0.299, 0.587, 0.114], atol=0.1)
    with pytest.raises(SourceError, match="pictures are grey or rgb"):
        prepare(tmp_path / "rgb", tmp_path / "n", modalities="gray,t1")


def test_pictures_with_a_spacing_are_cropped_in_pixels(tmp_path):
    picture(tmp_path / "x" / "images" / "a.png", shape=(20, 16))
    values = np.zeros((20, 16, 3), np.uint8)
    values[4, 11] = 255
    import SimpleITK as sitk

    (tmp_path / "x" / "masks").mkdir()
    sitk.WriteImage(
        sitk.GetImageFromArray(values, isVector=True), tmp_path / "x" / "masks" / "a.png"
    )
    prepare(tmp_path / "x", tmp_path / "s", size=5, spacing=1)
    expected = np.random.default_rng(0).integers(0, 255, (20, 16, 3))[2:7, 9:14, 0]
    assert np.array_equal(Store(tmp_path / "s").read([0])[0, 0], expected)
    with pytest.raises(RecipeError, match="give a spacing in pixels"):
        prepare(tmp_path / "x", tmp_path / "t", center="mask")


def test_pictures_of_many_sizes_fit_one(tmp_path):
    for i, shape in enumerate([(40, 30), (30, 60), (8, 8), (5, 3)]):
        picture(tmp_path / "x" / f"{i}.jpg", seed=i, shape=shape)
    prepare(tmp_path / "x", tmp_path / "s", size=16)
    store = Store(tmp_path / "s")
    for record in store.table.itertuples():
        affine = np.reshape(record.affine, (3, 3))
        assert affine[0, 0] == pytest.approx(affine[1, 1])
    assert store.read([0])[0, 0][:, :2].max() == 0
    assert (store.read(range(4)).max((1, 2, 3)) > 100).all()


@pytest.mark.parametrize("shape", [(9, 9, 9), (9, 9), (9, 9, 3)])
def test_medmnist_arrays_are_copied_at_their_own_size(tmp_path, shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (5, *shape)).astype(np.uint8)
    images[3] = 7
    labels = np.arange(5)[:, None]
    np.savez(
        tmp_path / "x.npz",
        train_images=images[:3],
        train_labels=labels[:3],
        test_images=images[3:],
        test_labels=labels[3:],
    )
    result = prepare(tmp_path / "x.npz", tmp_path / "s")
    assert [f.subject for f in result.failures] == ["test_00000"]
    assert "same value, 7" in result.failures[0].reason
    store = Store(tmp_path / "s")
    found = store.read(range(4))
    wanted = images[[0, 1, 2, 4]]
    wanted = wanted.transpose(0, 3, 1, 2) if shape[-1] == 3 else wanted[:, None]
    assert np.array_equal(found, wanted)
    assert store.table.label.tolist() == [0, 1, 2, 4]
    assert store.table.split.tolist() == ["train"] * 3 + ["test"]
    assert store.table.source[3][0] == "x.npz:test_images[1]"
    assert prepare(tmp_path / "x.npz", tmp_path / "s").skipped == 4


def test_settings_come_from_arguments_before_the_recipe_and_are_checked(tmp_path):
    source = brats(tmp_path / "x")
    recipe = PrepareSettings(size=(6,), modalities=("t1",), center="image")
    prepare(source, tmp_path / "s", settings=recipe, modalities=["t2", "t1"], spacing=(1, 1, 2))
    info = Store(tmp_path / "s").info
    assert info.modalities == ("t2", "t1")
    assert (info.size, info.spacing, info.center) == ((6, 6, 6), (1.0, 1.0, 2.0), "image")
    for bad in ({"size": "a"}, {"size": 0}, {"size": "6,6"}, {"spacing": -1}, {"center": "top"}):
        with pytest.raises(RecipeError, match=rf"`{next(iter(bad))}") as caught:
            prepare(source, tmp_path / "t", **bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="did you mean t1ce"):
        prepare(source, tmp_path / "t", modalities="t1cee")
    scan(tmp_path / "y" / "a.nii.gz")
    with pytest.raises(SourceError, match="without masks"):
        prepare(tmp_path / "y", tmp_path / "t", center="mask")
    assert not (tmp_path / "t").exists()


def test_subjects_without_labels_are_reported_in_one_line(tmp_path, capsys):
    (tmp_path / "l.csv").write_text("subject,g\na,1\n")
    prepare(brats(tmp_path / "x"), tmp_path / "s", size=4, labels=tmp_path / "l.csv")
    assert "l.csv: no row for 2 of 3 subjects (b, c)" in capsys.readouterr().err


def test_a_summary_tells_what_a_store_holds(tmp_path):
    source = brats(tmp_path / "x", subjects=list("abcd"))
    (source / "d" / "d_t1.nii.gz").write_bytes(b"x")
    (tmp_path / "l.csv").write_text("subject,g,age,split\na,1,3.5,train\nb,0,4,test\n")
    prepare(source, tmp_path / "s", size=6, labels=tmp_path / "l.csv")
    lines = Store(tmp_path / "s").summary().splitlines()
    told = {line[:11].strip(): line[11:].strip() for line in lines[1:]}
    assert told["subjects"] == "3"
    assert told["image"] == "6×6×6, spacing 1×1×1, around the mask, float16"
    assert told["modalities"] == "flair, t1, t1ce, t2"
    assert told["label g"] == "0: 1, 1: 1, 1 missing"
    assert told["split"] == "test: 1, train: 1, 1 missing"
    mean = Store(tmp_path / "s").read(range(3))[:, 1].astype(float).mean()
    assert told["t1"].startswith(f"intensity {mean:.1f} ±")
    assert told["failed"].startswith("1 subject,")
    assert told["d"].startswith("d/d_t1.nii.gz")
