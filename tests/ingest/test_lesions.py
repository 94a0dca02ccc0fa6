"""Which voxels of a mask are the lesion, and where they lie."""

import nibabel as nib
import numpy as np
import pytest

from tests.ingest.trees import mask, scan
from vitaepp.data.geometry import Grid
from vitaepp.data.store import Store
from vitaepp.errors import SourceError
from vitaepp.ingest.lesions import APART, FILLED, IGNORE_LABEL, LOST, NO_AFFINE, SOFT, lesion
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.readers.image import NO_FORM, Image
from vitaepp.ingest.subject import EMPTY_MASK, NO_LESION


def as_mask(values):
    values = np.asarray(values)[:, None, None]
    return Image(values, Grid(values.shape, np.eye(4)), True)


RAMP = np.linspace(0, 255, 52).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("values", "wanted", "expected", "notes"),
    [
        ([0, 1, 2, 4], None, [0, 1, 1, 1], ()),
        ([0, 1, 2, 4], (1, 4), [0, 1, 0, 1], ()),
        ([0, 1, 2, 4], (3,), [0, 0, 0, 0], ()),
        ([0, 255, 0, 255], None, [0, 1, 0, 1], ()),
        ([0, 1, 2, 255], None, [0, 1, 1, 0], (IGNORE_LABEL.format(255),)),
        ([0, 1, 2, 255], (255,), [0, 0, 0, 1], ()),
        ([0, 127, 128, 255], None, [0, 1, 1, 1], ()),
        ([0.0, 1.0, 2.0, 0.0], None, [0, 1, 1, 0], ()),
        (RAMP / 255, None, RAMP > 127.5, (SOFT,)),
        (RAMP / 637.5, None, RAMP > 127.5, (SOFT,)),
        (RAMP / 100, None, RAMP > 127.5, (LOST,)),  # labels 1 and 2, resampled linearly
        ([0.0, 0.4], None, [0, 1], (SOFT,)),
        ([0.0, 0.2, 0.5, 0.7, 1.0], None, [0, 0, 0, 1, 1], (LOST,)),
        ([0.0, 1.0039, 4.0157], None, [0, 0, 1], (LOST,)),  # 8 bits and a slope of 4/255
        ([0.0, 1.0000001, 4.0000004], (4,), [0, 0, 1], ()),
        ([0.0, 1.5e-5], None, [0, 1], (SOFT,)),  # the slope of an intensity image
        ([1, 2, 1], None, [1, 1, 1], (FILLED,)),
        ([-1, -1], None, [1, 1], (FILLED,)),
        ([1, 2, 255], None, [1, 1, 0], (FILLED, IGNORE_LABEL.format(255))),
        ([0.5, 0.6], None, [1, 1], (SOFT, FILLED)),
        (RAMP, None, RAMP > 127.5, (SOFT,)),
        ([*range(20), 255], None, [0] + 19 * [1] + [0], (IGNORE_LABEL.format(255),)),
        (np.arange(52), None, np.arange(52) > 0, ()),
        ([0, 0, 0], None, [0, 0, 0], ()),
        ([-1, 0, 1], None, [1, 0, 1], ()),
    ],
)
def test_which_values_are_the_lesion(values, wanted, expected, notes):
    inside, told = lesion(as_mask(values), {}, wanted)
    assert inside[:, 0, 0].tolist() == np.asarray(expected, bool).tolist()
    assert told == notes


@pytest.mark.parametrize(
    ("names", "expected", "notes"),
    [
        ({}, [0, 1, 1, 0], (IGNORE_LABEL.format(255),)),
        ({2: "Ignore"}, [0, 1, 0, 0], (IGNORE_LABEL.format(255),)),
        ({255: "ignore"}, [0, 1, 1, 0], ()),
        ({255: "vessel"}, [0, 1, 1, 1], ()),
        ({1: "core", 2: "rim"}, [0, 1, 1, 0], (IGNORE_LABEL.format(255),)),
    ],
)
def test_a_source_says_by_names_what_is_to_be_ignored(names, expected, notes):
    inside, told = lesion(as_mask([0, 1, 2, 255]), names)
    assert inside[:, 0, 0].tolist() == np.asarray(expected, bool).tolist()
    assert told == notes


def cohort(root, **last):
    """Three scans, each with a mask; the last mask is what is asked for."""
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = (30, -40, 10)
    for name in ("a", "b", "c"):
        scan(root / f"{name}.nii.gz", affine=affine)
        told = {"affine": affine, "at": (2, 9, 3)} | (last if name == "c" else {})
        mask(root / f"{name}_seg.nii.gz", **told)
    return affine


def prepared(root, tmp_path, **settings):
    result = prepare(root, tmp_path / "store", size=4, spacing=1, **settings)
    return result, Store(tmp_path / "store").table if result.prepared else None


def far(**more):
    affine = np.eye(4)
    affine[:3, 3] = 500
    return {"affine": affine, **more}


@pytest.mark.parametrize(
    ("last", "note"), [({"affine": np.eye(4)}, NO_AFFINE), (far(), APART)], ids=["none", "apart"]
)
def test_a_mask_without_a_usable_affine_lies_on_the_images_voxels(tmp_path, last, note):
    cohort(tmp_path / "x", **last)
    result, table = prepared(tmp_path / "x", tmp_path)
    assert not result.failures
    # All three are cut out around the same voxel.
    assert len({tuple(affine) for affine in table.affine}) == 1
    assert [list(notes) for notes in table.prepare_notes] == [[], [], [note]]
    assert result.notes == {note: 1}


def test_a_mask_with_neither_form_lies_on_the_images_voxels(tmp_path):
    cohort(tmp_path / "x")
    values = np.zeros((10, 12, 9), np.uint8)
    values[2, 9, 3] = 1
    nib.save(nib.Nifti1Image(values, None), tmp_path / "x" / "c_seg.nii.gz")
    result, table = prepared(tmp_path / "x", tmp_path)
    assert not result.failures
    assert len({tuple(affine) for affine in table.affine}) == 1
    assert result.notes == {f"mask: {NO_FORM}": 1, NO_AFFINE: 1}


def test_a_mask_without_the_wanted_values_says_what_it_holds(tmp_path):
    cohort(tmp_path / "x", at=None)
    _, table = prepared(tmp_path / "x", tmp_path, mask_values="9")
    held = NO_LESION.format("1", "9")
    assert [notes[0] for notes in table.prepare_notes] == [held, held, EMPTY_MASK]


def test_settings_without_effect_are_told(tmp_path, capsys):
    for name in ("a", "b"):
        scan(tmp_path / "x" / f"{name}.nii.gz")
    (tmp_path / "series.csv").write_text("pattern,modality\nx,t1\n")
    series = str(tmp_path / "series.csv")
    more = {"mask_pattern": "*_y.nii.gz", "series": series, "archive_gib": 1.0}
    result, _ = prepared(tmp_path / "x", tmp_path, mask_values="1", **more)
    told = [line for line in result.account.splitlines() if line.startswith("note")]
    assert [line.split(maxsplit=1)[1] for line in told][:4] == [
        "`mask_values` has no effect: crops are centred on the image, not on masks",
        "`mask_pattern` fits no file",
        "`series` has no effect: there are no DICOM series",
        "`archive_gib` has no effect: the source is not an archive",
    ]
    assert capsys.readouterr().err.count("has no effect") == 3


def test_masks_that_are_not_there_are_not_kept(tmp_path):
    scan(tmp_path / "x" / "a.nii.gz")
    with pytest.raises(SourceError, match="without masks: `keep_masks` has none to keep"):
        prepared(tmp_path / "x", tmp_path, keep_masks=True)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("last", [{"affine": np.eye(4)}, far()], ids=["none", "apart"])
def test_it_fails_where_the_shapes_differ(tmp_path, last):
    cohort(tmp_path / "x", **last, shape=(9, 12, 9))
    result, _ = prepared(tmp_path / "x", tmp_path)
    assert [f.subject for f in result.failures] == ["c"]
    assert "the mask is 9×12×9, but c.nii.gz is 10×12×9; its affine is wrong" in (
        result.failures[0].reason
    )


def test_an_empty_mask_falls_back_to_the_foreground_and_is_told(tmp_path):
    affine = cohort(tmp_path / "x", at=None)
    values = np.zeros((10, 12, 9), np.int16)
    values[7:9, 1:3, 5:7] = 900  # the foreground, far from the others' lesions
    scan(tmp_path / "x" / "c.nii.gz", values=values, affine=affine)
    result, table = prepared(tmp_path / "x", tmp_path)
    assert not result.failures
    assert list(table.crop_center) == ["mask", "mask", "foreground"]
    assert result.notes == {EMPTY_MASK: 1}
    center = table.affine[2].reshape(4, 4) @ [1.5, 1.5, 1.5, 1]
    np.testing.assert_allclose(center, affine @ [7.5, 1.5, 5.5, 1], atol=0.51)
    # Values that no mask has are the same as an empty mask.
    result, table = prepared(tmp_path / "x", tmp_path / "2", mask_values="3")
    assert list(table.crop_center) == ["foreground"] * 3


def test_crops_are_centred_on_the_chosen_values(tmp_path):
    scan(tmp_path / "x" / "a.nii.gz")
    values = np.zeros((10, 12, 9), np.uint8)
    values[2, 3, 4], values[7, 8, 5] = 1, 4
    scan(tmp_path / "x" / "a_seg.nii.gz", values=values)
    for wanted, voxel in (("1", (2, 3, 4)), ((4,), (7, 8, 5)), (None, (4.5, 5.5, 4.5))):
        folder = tmp_path / str(wanted)
        _, table = prepared(tmp_path / "x", folder, mask_values=wanted)
        np.testing.assert_allclose(
            (table.affine[0].reshape(4, 4) @ [1.5, 1.5, 1.5, 1])[:3], voxel, atol=0.51
        )
