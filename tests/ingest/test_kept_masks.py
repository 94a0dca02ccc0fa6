"""Masks that are kept: on the voxels of their images, with their labels, whole or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

from tests.data.test_geometry import grids
from tests.ingest.layouts.test_decathlon import decathlon, nnunet
from tests.ingest.sources.test_remote import memory, remote_files  # noqa: F401
from tests.ingest.test_lesions import RAMP, as_mask
from tests.ingest.test_real_data import unpack
from tests.ingest.trees import mask, picture, scan
from tests.ingest.workers.test_killed import files_of
from vitaepp.data.inspection import inspect
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.data.storetable import OF_MASKS, Failure
from vitaepp.errors import StoreError
from vitaepp.ingest.layouts import SubjectFiles
from vitaepp.ingest.lesions import FILLED, IGNORE_LABEL, LOST, RENAMED, SOFT, kept_labels
from vitaepp.ingest.new_scans import one_image
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.readers.items import GivenItem
from vitaepp.ingest.subject import CUT_MASK, made
from vitaepp.ingest.task import ImageSpec, Task

#: Where the lesion is, in mm.
LESION = np.array([6.0, -9.0, 4.0])


def affine_of(codes, spacing, angles):
    """An affine of these axis codes, turned, with the world's origin inside of its scan."""
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    axes = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (1, 1, 1))
    affine[:3, :3] = turned @ np.linalg.inv(axes)[:3, :3] * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((shape_of(spacing) - 1) / 2)
    return affine


def shape_of(spacing):
    return np.ceil(70 / np.array(spacing)).astype(int)


def labelled(spacing, affine):
    """A ball around the lesion of labels 1 (left half) and 4 (right half)."""
    places = np.moveaxis(np.indices(shape_of(spacing)), 0, -1)
    world = nib.affines.apply_affine(affine, places)
    inside = np.linalg.norm(world - LESION, axis=-1) <= 9
    return (np.where(world[..., 0] < LESION[0], 1, 4) * inside).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "own"),
    [
        (("RAS", (1, 1, 1), (0, 0, 0)), None),
        (("LPS", (1, 1, 2), (0, 0, 0)), None),
        (("PIR", (1.5, 1, 1.2), (10, -20, 30)), None),
        (("RAS", (1, 1, 1), (0, 0, 0)), ("LAI", (2, 1.3, 1), (0, 0, 0))),
        (("LPI", (1, 2, 1), (5, 15, -25)), ("SRP", (1.1, 0.9, 3), (-10, 0, 20))),
    ],
)
@pytest.mark.parametrize("center", ["image", "mask"])
def test_a_mask_lands_where_its_image_does(tmp_path, image, own, center):
    (_, spacing, _), affine = image, affine_of(*image)
    values = (1000 * (labelled(spacing, affine) > 0)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "i.nii.gz")
    spacing = (own or image)[1]
    affine = affine_of(*(own or image))
    there = labelled(spacing, affine)
    nib.save(nib.Nifti1Image(there, affine), tmp_path / "m.nii.gz")
    (tmp_path / "m.csv").write_text("subject,t1,mask\na,i.nii.gz,m.nii.gz\n")
    made = prepare(
        tmp_path / "m.csv",
        tmp_path / "s",
        **{**ASKED, "size": 40, "spacing": 1.1, "center": center},
        keep_masks=True,
    )
    assert not made.failures
    store = Store(tmp_path / "s")
    kept = store.masks[0]
    assert kept.dtype == np.uint8
    # Every voxel has the label of the mask's voxel that it lies in, by nibabel's affines.
    crop = store.table.affine[0].reshape(4, 4)
    world = nib.affines.apply_affine(crop, np.moveaxis(np.indices(kept.shape), 0, -1))
    index = nib.affines.apply_affine(np.linalg.inv(affine), world)
    nearest = np.rint(index).astype(int)
    within = ((nearest >= 0) & (nearest < there.shape)).all(-1)
    wanted = np.zeros(kept.shape, np.uint8)
    wanted[within] = there[tuple(nearest[within].T)]
    clear = (np.abs(np.abs(index - nearest) - 0.5) > 1e-3).all(-1)  # not halfway between two
    assert clear.mean() > 0.3
    np.testing.assert_array_equal(kept[clear], wanted[clear])
    assert set(np.unique(kept)) == {0, 1, 4}
    distance = np.subtract(center_of_mass(kept > 0), center_of_mass(store[0][0]))
    assert np.linalg.norm(distance) < 0.5


@settings(max_examples=15, deadline=None, derandomize=True)
@given(grids(), st.integers(1, 255), st.floats(0.6, 1.5), st.data())
def test_an_image_of_labels_ends_as_its_mask_does(grid, label, factor, data):
    values = np.zeros(grid.size, np.uint8)
    corner = [data.draw(st.integers(0, n - 2)) for n in grid.size]
    values[tuple(slice(c, c + max(2, n // 3)) for c, n in zip(corner, grid.size, strict=True))] = (
        label
    )
    given = GivenItem(values, grid.affine, "image")
    spacing = (factor * float(grid.spacing.min()),) * 3
    info = StoreInfo(("image",), (24, 24, 24), spacing, "float16", "mask", masks=True)
    spec = ImageSpec(info, "", Path(), "scans", ("image",))
    found = made(spec, Task(SubjectFiles("a", {"image": given}, given), None, None))
    assert not isinstance(found, Failure)
    image, kept = found[0][0], found[2]
    # Where the image is not between two labels, it is the mask's.
    clear = (image < 1) | (image > 254)
    assert clear.any()
    np.testing.assert_array_equal(np.rint(image[clear] / 255) * label, kept[clear])


@pytest.mark.parametrize(
    ("values", "kept", "notes"),
    [
        ([0, 1, 2, 4], [0, 1, 2, 4], ()),
        ([0, 2, 0, 2], [0, 2, 0, 2], ()),
        ([0, 255, 0, 255], [0, 255, 0, 255], ()),
        ([0, 1, 2, 255], [0, 1, 2, 255], (IGNORE_LABEL.format(255),)),
        ([0, 1, 2, 65535], [0, 1, 2, 255], (IGNORE_LABEL.format(65535),)),
        ([0.0, 3.0, 1.0], [0, 3, 1], ()),
        ([0, 0, 0], [0, 0, 0], ()),
        ([0.0, 1.0000001, 4.0000004], [0, 1, 4], ()),
        ([-1e-6, 0.99999, 2.0], [0, 1, 2], ()),
        ([1, 2, 2], [1, 2, 2], (FILLED,)),
        ([1, 1, 1], [1, 1, 1], (FILLED,)),
        ([0, 65535, 0], [0, 255, 0], (RENAMED.format(65535, 255),)),
        ([0, 1000, 0], [0, 1, 0], (RENAMED.format(1000, 1),)),
        ([*range(20), 255], [*range(20), 255], (IGNORE_LABEL.format(255),)),
        ([0.0, 0.2, 0.5, 0.7, 1.0], [0, 0, 0, 1, 1], (LOST,)),
        (RAMP, RAMP > 127.5, (SOFT,)),
    ],
)
def test_labels_are_kept_and_a_soft_mask_becomes_its_lesion(values, kept, notes):
    found, _, told = kept_labels(as_mask(values), {})
    assert found.dtype == np.uint8
    assert found[:, 0, 0].tolist() == np.asarray(kept, int).tolist()
    assert told == notes


@pytest.mark.parametrize("values", [[0, -1, 0], [-1, -1], [1000, 1000], [0, 1, 1000]])
def test_other_labels_are_refused(values):
    with pytest.raises(ValueError, match=f"^labels from {min(values)} to {max(values)}$"):
        kept_labels(as_mask(values), {})


def several(root, *values):
    """Scans whose masks have these values in a voxel each."""
    for i, own in enumerate(values):
        scan(root / f"{i}.nii.gz", seed=i)
        mask = np.zeros((10, 12, 9), np.uint16)
        mask[4, 5, 2 : 2 + len(own)] = own
        scan(root / f"{i}_seg.nii.gz", values=mask)
    return root


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([(1,), (255,), (1,)], "2 subjects only label 1, 1 subject only label 255: if that is"),
        ([(4,), (1000,)], "1 subject only label 1, 1 subject only label 4: if that is"),
        ([(1,), (2,), (1, 2)], None),
        ([(1,), (1,)], None),
        ([(1, 255), (4, 255), (1, 4)], None),
        ([(1, 255), (255,)], "beside small values; it is all that 1 subject of 2 "),
        ([(1, 255), (65535,)], "beside small values; it is all that 1 subject of 2 "),
    ],
)
def test_masks_of_unlike_labels_are_told_in_a_line(tmp_path, capsys, values, told):
    prepare(several(tmp_path / "x", *values), tmp_path / "s", keep_masks=True, **ASKED)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("masks:")]
    assert len(lines) == bool(told)
    assert told is None or told in lines[0]


def test_what_is_to_be_ignored_is_no_label(tmp_path):
    source = several(tmp_path / "x", (1, 4, 255), (255,), ())
    prepare(source, tmp_path / "s", keep_masks=True, **ASKED)
    store = Store(tmp_path / "s")
    assert (store.mask_labels, store.ignored) == ({1: "1", 4: "4"}, (255,))
    assert store.labelled(range(3)).sum(axis=(1, 2, 3)).tolist() == [2, 0, 0]
    assert sorted(np.unique(store.read_masks(range(3)))) == [0, 1, 4, 255]
    assert "labels 1, 4; 255 is ignored" in inspect(store.path)
    # A source may name it, or name 255 something else.
    named = nnunet(tmp_path / "nnunet", labels={"background": 0, "x": 2, "ignore": 1})
    prepare(named, tmp_path / "n", modalities="t1", keep_masks=True, **ASKED)
    assert (Store(tmp_path / "n").mask_labels, Store(tmp_path / "n").ignored) == ({}, (1,))
    store.info = replace(store.info, mask_names=((255, "vessel"),))
    assert Store.ignored.func(store) == ()


def test_crops_are_centred_without_what_the_source_calls_ignore(tmp_path):
    values = np.zeros((20, 20, 20), np.uint8)
    values[4:6, 5, 5], values[16, 16, 5:16] = 1, 2
    stores = {}
    for name in ("ignore", "rim"):
        root = nnunet(tmp_path / name, labels={"background": 0, "x": 1, name: 2})
        for case in ("case_a", "case_b"):
            for channel in range(2):
                scan(root / "imagesTr" / f"{case}_{channel:04d}.nii.gz", shape=values.shape)
            scan(root / "labelsTr" / f"{case}.nii.gz", values=values)
        for keep_masks in (False, True):
            out = tmp_path / f"{name}-{keep_masks}"
            asked = {**ASKED, "center": "mask", "modalities": "t1", "keep_masks": keep_masks}
            made = prepare(root, out, **asked)
            # All of the lesion is in the crop, and what is to be ignored is no part of it.
            assert (CUT_MASK in made.notes) == (keep_masks and name == "rim")
            stores[name, keep_masks] = Store(out)
        assert np.array_equal(stores[name, True].read([0]), stores[name, False].read([0]))
        checksums = [{*stores[name, kept].table["checksum"]} for kept in (True, False)]
        assert checksums[0] == checksums[1]
    with pytest.raises(StoreError, match=r"label 2 of its masks is ignore, and rim in this source"):
        prepare(
            tmp_path / "rim",
            tmp_path / "ignore-False",
            **ASKED | {"center": "mask", "modalities": "t1"},
        )
    kept = stores["ignore", True]
    assert np.argwhere(kept.labelled([0])[0]).mean(axis=0) == pytest.approx([3.5] * 3, abs=0.51)
    assert {*stores["rim", True].table["checksum"]}.isdisjoint(kept.table["checksum"])


def cohort(root, with_mask="ab", last="c"):
    for i, name in enumerate(("a", "b", last)):
        scan(root / f"{name}.nii.gz", seed=i)
        if name in with_mask:
            mask(root / f"{name}_seg.nii.gz", at=(4 + i, 5, 4))
    return root


ASKED = {"size": 8, "spacing": 1, "center": "image", "workers": 1}


def test_labels_that_do_not_fit_fail_in_one_line(tmp_path):
    cohort(tmp_path / "x")
    values = np.zeros((10, 12, 9), np.int16)
    values[3, 4, 5], values[6, 7, 5] = 17, 2035
    scan(tmp_path / "x" / "b_seg.nii.gz", values=values)
    (failure,) = prepare(tmp_path / "x", tmp_path / "s", keep_masks=True, **ASKED).failures
    assert failure.subject == "b"
    assert failure.reason == (
        "b_seg.nii.gz: the mask has labels from 0 to 2035; kept masks need labels from 0 to 255: "
        "change the labels, or prepare without `keep_masks`"
    )


def test_a_subject_without_a_mask_has_zeros_and_it_is_said(tmp_path, capsys):
    prepare(cohort(tmp_path / "x"), tmp_path / "s", keep_masks=True, **ASKED)
    store = Store(tmp_path / "s")
    assert [int(m.sum()) for m in np.asarray(store.masks)] == [1, 1, 0]
    assert store.masks.shape == (3, 8, 8, 8)
    assert "masks: 1 of 3 subjects have none; zero in the store" in capsys.readouterr().err
    assert "masks       2 of 3 subjects; labels 1" in inspect(store.path)
    assert store.masked.tolist() == [True, True, False]
    assert store.mask_labels == {1: "1"}
    masks = store.read_masks([2, 0])
    assert (masks.dtype, masks.shape) == (np.uint8, (2, 8, 8, 8))
    np.testing.assert_array_equal(masks, np.asarray(store.masks)[[2, 0]])
    assert store.read_masks([]).shape == (0, 8, 8, 8)
    (store.path / "masks.zarr/c/1/0/0/0").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"masks\.zarr/c/1, of subject .*, is damaged"):
        store.read_masks([1])


def test_none_are_kept_unless_asked_for(tmp_path):
    prepare(cohort(tmp_path / "x"), tmp_path / "s", **ASKED)
    store = Store(tmp_path / "s")
    assert (store.has_masks, store.masks, store.mask_labels) == (False, None, {})
    assert not store.masked.any()
    assert not (tmp_path / "s" / "masks.zarr").exists()
    assert not {*OF_MASKS} & {*store.table.columns}
    with pytest.raises(StoreError, match="s: keeps no masks; prepare its source with `keep_masks`"):
        store.read_masks([0])


def test_what_is_added_to_a_store_is_kept_in_the_same_way(tmp_path, capsys):
    store = tmp_path / "s"
    prepare(cohort(tmp_path / "x"), store, keep_masks=True, **ASKED)
    # Without the option: the store goes on as it was begun.
    mask(tmp_path / "x" / "b_seg.nii.gz", at=(6, 7, 5))  # changed, its image is not
    made = prepare(cohort(tmp_path / "x", with_mask="d", last="d"), store, **ASKED)
    assert (made.prepared, made.skipped) == (2, 2)
    assert "another image" not in capsys.readouterr().err
    assert Store(store).masked.tolist() == [True, True, False, True]
    assert list(Store(store).table.subject) == ["a", "b", "c", "d"]
    found = [np.argwhere(m).tolist() for m in np.asarray(Store(store).masks)]
    corner = np.linalg.inv(Store(store).table.affine[0].reshape(4, 4))
    wanted = [(4, 5, 4), (6, 7, 5), None, (6, 5, 4)]
    assert found == [
        [] if at is None else [np.rint(nib.affines.apply_affine(corner, at)).astype(int).tolist()]
        for at in wanted
    ]
    prepare(tmp_path / "x", tmp_path / "plain", **ASKED)
    with pytest.raises(StoreError, match="masks no there, yes asked"):
        prepare(tmp_path / "x", tmp_path / "plain", keep_masks=True, **ASKED)


def test_masks_of_pictures_are_scaled_with_them(tmp_path):
    values = np.zeros((20, 16, 3), np.uint8)
    values[5:10, 8:16] = 3
    for folder in ("images", "labels"):
        picture(tmp_path / "x" / folder / "0.png")
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(values[..., 0]), str(tmp_path / "x/labels/0.png"))
    prepare(tmp_path / "x", tmp_path / "s", size=40, keep_masks=True, workers=1)
    kept = Store(tmp_path / "s").masks[0]
    wanted = np.zeros((40, 40), np.uint8)
    wanted[10:20, 4 + 16 : 4 + 32] = 3  # twice as large, centred
    np.testing.assert_array_equal(kept, wanted)


def test_behind_a_url_they_are_the_same(tmp_path, memory):  # noqa: F811
    source = cohort(tmp_path / "x")
    prepare(source, tmp_path / "s", keep_masks=True, **ASKED)
    prepare(source, "memory://bucket/s", keep_masks=True, **ASKED)
    assert remote_files(memory, "bucket/s") == {
        n: b for n, b in files_of(tmp_path / "s").items() if (tmp_path / "s" / n).is_file()
    }
    np.testing.assert_array_equal(Store("memory://bucket/s").masks, Store(tmp_path / "s").masks)


def test_a_store_whose_masks_are_gone_says_so(tmp_path):
    prepare(cohort(tmp_path / "x"), tmp_path / "s", keep_masks=True, **ASKED)
    (tmp_path / "s" / "masks.zarr").rename(tmp_path / "gone")
    with pytest.raises(StoreError, match=r"masks\.zarr is missing or damaged"):
        _ = Store(tmp_path / "s").masks


def test_whether_masks_are_kept_makes_stores_no_less_alike(tmp_path):
    from vitaepp.data.storeinfo import unlike

    prepare(cohort(tmp_path / "x"), tmp_path / "s", keep_masks=True, **ASKED)
    prepare(tmp_path / "x", tmp_path / "t", **ASKED)
    one, other = Store(tmp_path / "s"), Store(tmp_path / "t")
    assert unlike(one.info, other.info) == []
    assert one.fingerprint() == other.fingerprint()
    np.testing.assert_array_equal(one.read(range(3)), other.read(range(3)))
    assert isinstance(one.table, pd.DataFrame)


def test_names_of_labels_are_those_of_the_source(tmp_path):
    store = tmp_path / "s"
    edema = decathlon(tmp_path / "decathlon", modality={"0": "T1"})
    prepare(edema, store, keep_masks=True, **ASKED)
    assert Store(store).mask_labels == {1: "edema"}
    assert json.loads((store / "store.json").read_text())["mask_names"] == [[1, "edema"]]
    assert "labels 1 edema" in inspect(store)
    assert Store(store).to_dict()["mask_labels"] == {1: "edema"}
    # A source without names adds to the store; one with another name for the label does not.
    scan(tmp_path / "z.nii.gz")
    seven = np.zeros((10, 12, 9), np.uint8)
    seven[5, 6, 4] = 7
    scan(tmp_path / "z_seg.nii.gz", values=seven)
    (tmp_path / "m.csv").write_text("subject,t1,mask\nz,z.nii.gz,z_seg.nii.gz\n")
    prepare(tmp_path / "m.csv", store, **ASKED)
    assert Store(store).mask_labels == {1: "edema", 7: "7"}
    other = nnunet(tmp_path / "nnunet", labels={"background": 0, "x": 1, "whole": [1, 2]})
    with pytest.raises(StoreError, match="label 1 of its masks is edema, and x in this source"):
        prepare(other, store, modalities="t1", **ASKED)
    prepare(other, tmp_path / "t", modalities="t1", keep_masks=True, **ASKED)
    assert Store(tmp_path / "t").mask_labels == {1: "x"}


def test_a_palette_gives_labels_and_colours_are_refused(tmp_path):
    values = np.zeros((24, 24), np.uint8)
    values[4:10, 6:20], values[12:20, 3:9], values[0, :] = 1, 2, 255
    for name in ("a", "b"):
        picture(tmp_path / "x" / "images" / f"{name}.png", shape=(24, 24))
    (labels := tmp_path / "x" / "labels").mkdir()
    coloured = Pillow.fromarray(values)
    coloured.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, *(252 * [0]), 224, 224, 192])
    coloured.save(labels / "a.png")
    coloured.convert("RGB").save(labels / "b.png")
    made = prepare(tmp_path / "x", tmp_path / "s", size=24, keep_masks=True, workers=1)
    assert [f.reason.partition(";")[0] for f in made.failures] == [
        "labels/b.png: the mask has colours"
    ]
    store = Store(tmp_path / "s")
    np.testing.assert_array_equal(store.read_masks([0])[0], values)
    assert store.mask_labels == {1: "1", 2: "2"}
    assert store.ignored == (255,)


def test_a_mask_that_is_cut_off_is_told(tmp_path):
    scan(tmp_path / "x" / "a.nii.gz")
    mask(tmp_path / "x" / "a_seg.nii.gz", at=(slice(2), slice(2), slice(2)))
    made = prepare(tmp_path / "x", tmp_path / "s", keep_masks=True, **{**ASKED, "size": 6})
    assert made.notes[CUT_MASK] == 1
    assert Store(tmp_path / "s").masked.all()
    assert Store(tmp_path / "s").mask_labels == {}


def test_new_scans_need_no_mask_that_could_be_kept(tmp_path):
    prepare(cohort(tmp_path / "x", with_mask="abc"), tmp_path / "s", keep_masks=True, **ASKED)
    info = Store(tmp_path / "s").info
    scan(tmp_path / "bad.nii.gz", values=np.indices((10, 12, 9)).sum(axis=0).astype(np.int16) * 99)
    given = {"image": tmp_path / "x" / "a.nii.gz", "mask": tmp_path / "bad.nii.gz"}
    assert one_image(replace(info, center="mask"), given).image.shape == (1, 8, 8, 8)
    np.testing.assert_array_equal(one_image(info, given).image, Store(tmp_path / "s").read([0])[0])


def test_real_masks_keep_their_volumes(data, tmp_path):
    source = unpack(data / "hippocampus.zip", tmp_path, lambda n: "_00" in n) / "hippocampus"
    # At their own spacing voxels are copied; at another one volumes are about the same.
    for spacing, off in ((1.0, 0.0), (0.9, 0.03)):
        made = prepare(
            source, tmp_path / f"{spacing}", size=(48, 64, 48), spacing=spacing, keep_masks=True
        )
        assert (made.failures, made.notes.get(CUT_MASK)) == ((), None)
        store = Store(tmp_path / f"{spacing}")
        assert store.masked.all()
        assert [*store.mask_labels] == [1, 2]
        for label in (1, 2):
            there = [
                np.count_nonzero(np.asarray(nib.load(file).dataobj) == label)
                for file in (source / "labels" / f"{s}.nii.gz" for s in store.table.subject)
            ]
            kept = np.count_nonzero(store.read_masks(range(len(store))) == label) * spacing**3
            assert kept == pytest.approx(sum(there), rel=off)
