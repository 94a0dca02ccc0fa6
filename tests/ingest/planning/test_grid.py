"""The grid of a store: the paper's where it fits, and otherwise what the headers say."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ingest.trees import mask, picture, scan
from vitaepp.data.geometry import Grid
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.ingest.new_scans import new_images
from vitaepp.ingest.planning.grid import _sides, _size, _spacing, _whole, alike, target_spacing
from vitaepp.ingest.planning.spec import spec_in_words
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.subject import CUT_OFF
from vitaepp.ingest.task import ImageSpec
from vitaepp.recipe.sections import PrepareSettings

SPEC = ImageSpec(
    StoreInfo(("image",), (96, 96, 96), (1.0, 1.0, 1.0), "float16", "image"),
    Path("store"),
    Path(),
    "scans",
    ("image",),
)


def info(source, **settings):
    return prepare(source, dry_run=True, workers=1, **settings).dry_run.spec.info


def write(folder, shapes, spacing=(1, 1, 1)):
    for i, shape in enumerate(shapes):
        scan(folder / f"{i}.nii", shape=shape, affine=np.diag([*spacing, 1.0]))
    return folder


def with_masks(folder, shapes, spacing=(1, 1, 1)):
    write(folder, shapes, spacing)
    for i, shape in enumerate(shapes):
        mask(folder / f"{i}_mask.nii", shape=shape, affine=np.diag([*spacing, 1.0]))
    return folder


def test_around_masks_the_default_stays_where_it_fits(tmp_path):
    made = info(with_masks(tmp_path, [(100, 97, 96)] * 3))
    assert (made.size, made.spacing) == ((96, 96, 96), (1, 1, 1))


def test_around_masks_thick_slices_keep_the_papers_spacing(tmp_path):
    made = info(with_masks(tmp_path, [(140, 150, 22)], spacing=(0.7, 0.7, 5)))
    assert (made.size, made.spacing) == ((96, 96, 96), (1, 1, 1))


@given(
    st.lists(st.tuples(*[st.integers(4, 400)] * 3), min_size=1, max_size=4),
    st.sampled_from([(1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (0.1, 0.1, 0.1)]),
)
def test_without_masks_every_scan_is_held_whole_within_the_budget(shapes, spacing):
    grids = [Grid(shape, np.diag([*spacing, 1.0])) for shape in shapes]
    made = _whole(SPEC, grids, PrepareSettings())[0].info
    extents = np.max([np.array(shape) * spacing for shape in shapes], axis=0)
    assert (np.array(made.size) * made.spacing >= extents - 0.01).all()
    assert np.prod(made.size) <= 96**3
    assert all(side % 8 == 0 for side in made.size)
    # A twentieth finer would need more voxels than the budget, unless it is the usual spacing.
    usual = _spacing(grids, (1.0, 1.0, 1.0))[0]
    if made.spacing != usual:
        finer = np.array(made.spacing) - np.array(usual) / 20
        assert np.prod(_sides(extents / (finer + 0.001 * np.array(usual)))) > 0.99 * 96**3


def test_a_whole_head_is_kept_and_a_crop_that_cuts_it_off_is_told(tmp_path):
    head = np.zeros((193, 220, 143), np.int16)
    head[20:170, 20:200, 10:130] = np.random.default_rng(0).integers(400, 900, (150, 180, 120))
    scan(tmp_path / "x" / "a.nii", values=head)
    whole = prepare(tmp_path / "x", tmp_path / "s", workers=1)
    store = Store(tmp_path / "s")
    assert store.info.spacing == (2.0,) * 3
    assert store.info.size == (104, 112, 72)
    assert whole.notes == {}
    cut = prepare(tmp_path / "x", tmp_path / "t", size=96, workers=1)
    assert cut.notes == {CUT_OFF: 1}
    assert prepare(tmp_path / "x", tmp_path / "u", size="160,192,136", workers=1).notes == {}


def test_a_lesion_that_a_sample_of_voxels_misses_is_cut_off_as_any_other(tmp_path):
    lesion = np.zeros((157, 189, 136), np.uint8)
    lesion[10:12, 10:12, 10:12] = lesion[79:81, 94:96, 67:69] = 1  # of every third voxel, none
    scan(tmp_path / "x" / "a.nii", values=lesion)
    made = prepare(tmp_path / "x", tmp_path / "s", size=32, spacing=2, center="image", workers=1)
    assert made.notes == {CUT_OFF: 1}


def test_small_images_get_a_size_that_holds_them(tmp_path):
    made = info(write(tmp_path, [(35, 50, 36), (31, 42, 40), (33, 44, 26)]))
    assert made.size == (40, 56, 40)
    given_spacing = info(tmp_path, spacing=2)
    assert given_spacing.size == (24, 32, 24)  # 35 / 2 = 17.5 voxels


@given(
    st.lists(st.tuples(*[st.integers(4, 120)] * 3), min_size=1, max_size=6),
    st.permutations(range(3)),
)
def test_size_holds_all_but_a_few_and_wastes_less_than_a_patch(shapes, order):
    grids = [Grid(tuple(shape[a] for a in order), np.eye(4)) for shape in shapes]
    size, _ = _size(grids, (1.0, 1.0, 1.0), 96)
    for side, most in zip(size, np.max([g.size for g in grids], axis=0), strict=True):
        assert side % 8 == 0
        assert 16 <= side <= 96
        assert min(most, 96) <= side < max(most, 9) + 8


def test_orientation_does_not_change_the_choice(tmp_path):
    straight = write(tmp_path / "a", [(35, 50, 20)])
    turned = np.array([[0, 0, -1, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    scan(tmp_path / "b" / "0.nii", shape=(50, 20, 35), affine=turned)
    assert info(straight).size == info(tmp_path / "b").size == (40, 56, 24)


def test_images_far_from_a_millimetre_get_their_own_spacing(tmp_path):
    made = info(write(tmp_path / "mouse", [(60, 50, 40)] * 3, spacing=(0.1, 0.1, 0.12)))
    assert made.spacing == (0.1, 0.1, 0.12)
    assert made.size == (64, 56, 40)
    assert info(tmp_path / "mouse", spacing=1).spacing == (1, 1, 1)
    far = info(write(tmp_path / "pet", [(30, 30, 30)], spacing=(4, 4, 4)))
    assert far.spacing == (4, 4, 4)


def test_target_spacing_is_nnunets():
    same = np.tile([0.7, 0.8, 0.9], (5, 1))
    sizes = np.tile([200, 200, 160], (5, 1))
    assert target_spacing(same, sizes).tolist() == [0.7, 0.8, 0.9]
    # Thick slices, and few: the thinner tenth decides, as in nnU-Net's planner.
    thick = np.column_stack([np.full(11, 0.5), np.full(11, 0.5), np.linspace(2, 7, 11)])
    few = np.tile([300, 300, 20], (11, 1))
    assert target_spacing(thick, few).tolist() == [0.5, 0.5, 2.5]
    # As thick, but many: the median stays.
    many = np.tile([300, 300, 200], (11, 1))
    assert target_spacing(thick, many).tolist() == [0.5, 0.5, 4.5]


def test_pictures_are_not_blown_up(tmp_path):
    for i in range(3):
        picture(tmp_path / "small" / f"{i}.png", seed=i, shape=(30, 64))
        picture(tmp_path / "large" / f"{i}.png", seed=i, shape=(300, 240))
    assert info(tmp_path / "small").size == (32, 64)
    assert info(tmp_path / "large").size == (224, 224)


def test_what_is_given_is_not_touched(tmp_path, capsys):
    source = write(tmp_path / "scans", [(20, 20, 20)] * 2)
    made = info(source, size=(8, 8, 8), spacing=(3, 3, 3))
    assert (made.size, made.spacing) == ((8, 8, 8), (3, 3, 3))
    prepare(source, tmp_path / "store", size=8, spacing=3, workers=1)
    assert "prepare.size=" not in capsys.readouterr().err
    prepare(source, tmp_path / "other", workers=1)
    told = "prepare.size=24,24,24: without masks every scan is kept whole"
    assert told in capsys.readouterr().err


def test_a_store_that_was_begun_keeps_its_grid(tmp_path):
    source = write(tmp_path / "scans", [(20, 20, 20)] * 2)
    prepare(source, tmp_path / "store", workers=1)
    scan(source / "large.nii", shape=(60, 60, 60))
    assert info(source).size == (64, 64, 64)
    result = prepare(source, tmp_path / "store", workers=1)
    assert (result.prepared, result.skipped) == (1, 2)
    assert Store(tmp_path / "store").info.size == (24, 24, 24)


def test_headers_that_cannot_be_read_leave_the_default(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"x" * 400)
    assert info(tmp_path).size == (96, 96, 96)


@pytest.mark.parametrize("voxel", [1000.0, 0.001])
@pytest.mark.parametrize("masked", [False, True])
def test_one_scan_in_another_unit_fails_and_leaves_the_others_as_they_are(
    tmp_path, capsys, voxel, masked
):
    make = with_masks if masked else write
    alone = make(tmp_path / "alone", [(20, 22, 18)] * 5)
    prepare(alone, tmp_path / "a", workers=1)
    capsys.readouterr()
    source = make(tmp_path / "scans", [(20, 22, 18)] * 5)
    affine = np.diag([voxel, voxel, voxel, 1.0])
    wrong = scan(source / "wrong.nii", shape=(20, 22, 18), affine=affine)
    if masked:
        mask(source / "wrong_mask.nii", shape=(20, 22, 18), affine=affine)
    result = prepare(source, tmp_path / "b", workers=1)
    (failure,) = result.failures
    assert failure.subject == "wrong"
    assert f"{voxel:g}×{voxel:g}×{voxel:g} mm by its header, the crop's 1×1×1 mm" in failure.reason
    assert f"most reach about 22 mm: wrong, {22 * voxel:.4g} mm" in capsys.readouterr().err
    one, other = Store(tmp_path / "a"), Store(tmp_path / "b")
    assert one.info == other.info
    assert np.array_equal(one.read(range(5)), other.read(range(5)))
    if not masked:
        (new,) = new_images(one.info, wrong)
        assert "check the unit and affine" in new.reason


def test_a_second_modality_in_another_unit_fails_too(tmp_path):
    for name, voxel in (("t1", 1.0), ("t2", 0.001)):
        affine = np.diag([voxel, voxel, voxel, 1.0])
        affine[:3, 3] = 5 * (1 - voxel)
        scan(tmp_path / "x" / "p" / f"p_{name}.nii", shape=(20, 20, 20), affine=affine)
    (failure,) = prepare(tmp_path / "x", tmp_path / "s", workers=1).failures
    assert "p_t2.nii: its 20×20×20 voxels together are less than 2" in failure.reason


def test_mixed_but_plausible_cohorts_are_counted_whole():
    spans = {"brain": (180, 220, 180), "patch": (32, 32, 32), "body": (500, 500, 1900)}
    grids = {name: Grid(shape, np.eye(4)) for name, shape in spans.items()}
    assert alike(grids) == ([*grids.values()], "")
    assert alike({}) == ([], "")


@pytest.mark.parametrize("size", [None, 16])
def test_real_scans(data, tmp_path, size):
    import zipfile

    with zipfile.ZipFile(data / "hippocampus.zip") as archive:
        names = [n for n in archive.namelist() if n.endswith(".nii.gz")][:12]
        archive.extractall(tmp_path, names)
    made = info(tmp_path, size=size)
    assert made.spacing == (1, 1, 1)
    assert made.size == (16, 16, 16) if size else all(24 <= n <= 64 for n in made.size)


@pytest.mark.parametrize(
    ("spacing", "told"), [((1.5, 0.8, 2), "1.5×0.8×2 mm"), ((1, 1, 2), "1×1×2 mm"), (1, "1 mm")]
)
def test_voxel_sizes_are_told_in_the_order_of_the_axes(tmp_path, spacing, told):
    write(tmp_path / "x", [(20, 20, 20)])
    spec = prepare(tmp_path / "x", dry_run=True, workers=1, spacing=spacing).dry_run.spec
    assert f"voxels of {told} around the image" in spec_in_words(spec)
