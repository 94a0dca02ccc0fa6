"""Intensities: what becomes 0 and 255, by choice, and back."""

import json
import re
import tarfile

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from tests.conftest import LIGHT
from tests.ingest.trees import picture, scan, volume
from vitaepp.data.inspection import inspect
from vitaepp.data.store import Store
from vitaepp.errors import RecipeError, RunError, StoreError
from vitaepp.evaluation.reconstruction import reconstruct
from vitaepp.ingest.intensities import body, check_window, foreground_percentiles, zero_surrounds
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.subject import FEW_LEVELS
from vitaepp.recipe.fields import WINDOWS
from vitaepp.recipe.recipe import Recipe
from vitaepp.recipe.sections import PrepareSettings
from vitaepp.training.pretrain import pretrain


def head(background: float = 0.0, shape=(12, 12, 12)) -> np.ndarray:
    """A block of tissue, a few bright voxels in it, and constant background around."""
    rng = np.random.default_rng(0)
    values = np.full(shape, background, np.float32)
    inner = tuple(slice(n // 4, n - n // 4) for n in shape)
    values[inner] = background + 100 + 20 * rng.random(values[inner].shape)
    values[shape[0] // 2, shape[1] // 2, 4:6] = background + 5000
    return values


def prepared(tmp_path, values, **settings):
    scan(tmp_path / "x" / "a.nii.gz", values=values)
    store = tmp_path / f"s{len(list(tmp_path.iterdir()))}"
    result = prepare(tmp_path / "x", store, size=12, **settings)
    return result.failures[0].reason if result.failures else Store(store)


def test_percentiles_are_numpys_and_beyond_is_clipped(tmp_path):
    values = head()
    store = prepared(tmp_path, values, clip="2,98")
    low, high = np.percentile(values, [2, 98])
    assert store.table.intensity_min[0][0] == pytest.approx(low)
    assert store.table.intensity_max[0][0] == pytest.approx(high)
    wanted = 255 * (values.astype(float).clip(low, high) - low) / (high - low)
    np.testing.assert_allclose(store.read([0])[0, 0], wanted, atol=0.1)


def test_a_bright_spot_squeezes_the_rest_unless_it_is_clipped(tmp_path):
    plain = prepared(tmp_path, head()).read([0])[0, 0]
    clipped = prepared(tmp_path, head(), clip=(0, 99), statistics="foreground").read([0])[0, 0]
    tissue = head()[3:9, 3:9, 3:9] < 1000
    assert plain[3:9, 3:9, 3:9][tissue].max() < 10
    assert np.ptp(clipped[3:9, 3:9, 3:9][tissue].astype(float)) > 200


@pytest.mark.parametrize("background", [0.0, 40.0, -1000.0])
def test_statistics_of_the_foreground_do_not_see_how_much_background_there_is(tmp_path, background):
    tight = head(background)
    wide = np.pad(tight, 8, constant_values=background)
    assert body(wide).sum() == body(tight).sum() == 6**3
    results = [
        prepared(tmp_path, values, clip=(5, 95), statistics="foreground")
        for values in (tight, wide)
    ]
    lows, highs = ({s.table[c][0][0] for s in results} for c in ("intensity_min", "intensity_max"))
    assert len(lows) == len(highs) == 1
    assert background + 100 < highs.pop() < background + 120
    # Only where it is 0 is it known which dark voxels are of the body.
    assert lows.pop() == background if background else lows.pop() > 100
    assert np.percentile(wide, 95) < np.percentile(tight, 95)  # which the whole scan's do


def test_foreground_is_what_is_not_zero_where_zero_surrounds_the_scan():
    values = head()
    values[5, 5, 5] = 3  # dark, but of the body: no threshold would keep it
    assert zero_surrounds(values)
    assert foreground_percentiles(values, values, 0.0, 100.0) == (3, 5000)
    noisy = values + np.random.default_rng(1).integers(1, 6, values.shape)
    assert not zero_surrounds(noisy)
    assert not body(noisy)[5, 5, 5]
    assert not body(noisy)[0].any()
    assert foreground_percentiles(noisy, noisy, 0.0, 100.0)[0] == noisy.min()


def test_the_brain_of_a_real_t1_is_body_not_only_its_fat(data, tmp_path):
    with tarfile.open(data / "glioma_dicom_3.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    series = next(p for p in tmp_path.rglob("*T1prereg*") if p.is_dir())
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series))
    values = sitk.GetArrayFromImage(sitk.ReadImage(names)).T
    inside = body(values)
    _, across, along = (n // 2 for n in values.shape[::-1])
    middle = (slice(along - 60, along + 60), slice(across - 60, across + 60), 11)
    assert inside[middle].mean() > 0.85  # all but the ventricles
    assert 0.4 < inside.mean() < 0.6
    low, high = foreground_percentiles(values, values, 0.5, 99.5)
    brain = np.median(values[middle])
    assert 0.2 < (brain - low) / (high - low) < 0.8


@pytest.mark.parametrize(("window", "ends"), [("lung", (-1350, 150)), ("40,400", (-160, 240))])
def test_windows_of_ct_are_the_same_for_every_scan(tmp_path, window, ends):
    values = ct(noise=60)[18:30, 18:30, :12]
    store = prepared(tmp_path, values, window=[f"image={window}"])
    assert (store.table.intensity_min[0][0], store.table.intensity_max[0][0]) == ends
    wanted = 255 * (values.astype(float).clip(*ends) - ends[0]) / (ends[1] - ends[0])
    np.testing.assert_allclose(store.read([0])[0, 0], wanted, atol=0.1)
    told = f"image {ends[0]} to {ends[1]}"
    assert f"{told} became 0 to 255" in inspect(store.path)


def test_a_window_is_for_its_own_modality_and_percentiles_for_the_others(tmp_path):
    scan(tmp_path / "ct.nii.gz", values=volume() - 500)
    scan(tmp_path / "pet.nii.gz", values=volume(1))
    (tmp_path / "m.csv").write_text("subject,ct,pet\na,ct.nii.gz,pet.nii.gz\n")
    prepare(tmp_path / "m.csv", tmp_path / "s", size=8, window={"ct": (0, 900)}, clip=(1, 99))
    row = Store(tmp_path / "s").table.iloc[0]
    assert (row.intensity_min[0], row.intensity_max[0]) == (-450, 450)
    ends = (row.intensity_min[1], row.intensity_max[1])
    assert ends == tuple(np.percentile(volume(1), (1, 99)))
    with pytest.raises(RecipeError, match=r"`window`: no modality mr here; known are ct"):
        prepare(tmp_path / "m.csv", tmp_path / "t", size=8, window={"mr": "lung"})


def test_what_leaves_nothing_is_refused_by_name(tmp_path):
    reason = prepared(tmp_path, head(), window={"image": (9000, 100)})
    assert reason.startswith("a.nii.gz: its intensities, 0 to 5000, lie outside the window")
    mostly_background = np.pad(head(), 20)
    reason = prepared(tmp_path, mostly_background, clip=(1, 90))
    assert reason == (
        "a.nii.gz: percentiles 1 and 90 of its volume are both 0; clip less, or compute them over "
        "the foreground"
    )
    two_valued = np.pad(np.ones((6, 6, 6), np.uint8), 3)
    reason = prepared(tmp_path, two_valued, statistics="foreground")
    assert "percentiles 0 and 100 of its foreground are both 1" in reason
    assert "every voxel has the same value" in prepared(tmp_path, np.ones((9, 9, 9)), clip=(1, 99))
    values = head()
    values[0, 0, 0] = np.nan
    assert "NaN or infinite" in prepared(tmp_path, values, clip=(1, 99))


def ct(noise=12, padding=None, chest=False, air=-1000, offset=0):
    """A head, or a chest, in Hounsfield units: air, skin, bone, brain or lung."""
    rng = np.random.default_rng(0)
    at = np.moveaxis(np.indices((48, 48, 48)), 0, -1) / 23.5 - 1
    r = np.linalg.norm(at / [0.65, 0.8, 0.7], axis=-1)
    values = np.full(r.shape, float(air))
    for edge, value in ((1, -90), (0.95, 45), *((0.8, -830),) * chest):
        values[r < edge] = value
    spine = np.linalg.norm(at[..., :2] / 0.15, axis=-1) < 1
    bone = spine if chest else (r > 0.9) & (r < 0.95)
    values[bone] = 900
    values = np.maximum(values + rng.normal(0, noise, r.shape), -1024)
    if padding is not None:
        values[np.linalg.norm(at[..., :2], axis=-1) > 1] = padding
    return (values + offset).round().astype(np.int16)


@pytest.mark.parametrize("window", sorted(WINDOWS))
@pytest.mark.parametrize("chest", [False, True])
@pytest.mark.parametrize("more", [{}, {"padding": -3024}, {"noise": 60}, {"air": -1024}])
def test_every_window_is_taken_for_ct_in_hounsfield_units(window, chest, more):
    center, width = WINDOWS[window]
    check_window(ct(chest=chest, **more), (center - width / 2, center + width / 2), "x")


@pytest.mark.parametrize(
    ("values", "window", "told"),
    [
        (ct(offset=1024), "brain", r"foreground, .* lies above the window 0 to 80"),
        (ct(offset=1024), "lung", r"foreground, .* lies above the window -1350 to 150"),
        (ct(offset=1024, noise=60), "abdomen", r"foreground, .* lies above"),
        (ct(offset=1024, chest=True), "lung", r"foreground, .* lies above"),
        (10 * head().clip(0, 200), "mediastinum", r"100% of its foreground, .* lies above"),
        (np.r_[ct()[:-1], np.full((1, 48, 48), -90)].clip(-1000) - 2500, "abdomen", "lie outside"),
        (np.where(np.indices((48,) * 3).sum(0) < 3, 500, ct() - 2500), "abdomen", "lies below"),
        (ct() + 2000, "abdomen", "its intensities, 9.. to 29.., lie outside the window"),
    ],
)
def test_a_window_of_another_unit_is_refused_with_the_measured_range(
    tmp_path, values, window, told
):
    reason = prepared(tmp_path, values.astype(np.int16), window=[f"image={window}"])
    assert re.search(told, reason)
    assert f"{values.min():g} to {values.max():g}" in reason
    assert reason.endswith(
        "a window is in the scan's own unit (Hounsfield for CT): give one that contains these "
        "values, or use `clip=0.5,99.5`"
    )
    assert "\n" not in reason


def test_a_crop_in_which_a_window_leaves_nothing_is_refused(tmp_path):
    # Fractions inside of a window, one grey; nothing but a voxel in the crop.
    fractions = np.random.default_rng(0).random((12, 12, 12)).astype(np.float32)
    told = "all voxels of its crop have one value; -1350 to 150 is shown, the scan is 0.00"
    assert told in prepared(tmp_path, fractions, window=["image=lung"])
    values = ct()
    values[18:30, 18:30, 18:30] = 200
    values[24, 24, 24] = 40
    assert "all voxels of its crop have one value; 0 to 80 is shown, the scan is -10" in prepared(
        tmp_path, values, window=["image=brain"], spacing=1, center="image"
    )


@pytest.mark.parametrize("value", [1e30, -1e9])
def test_one_voxel_far_beyond_all_others_is_told(tmp_path, value):
    values = head().astype(np.float64)
    assert [*prepared(tmp_path / "before", values).table.prepare_notes[0]] == []
    values[2, 2, 2] = value
    assert [*prepared(tmp_path / "with", values).table.prepare_notes[0]] == [f"image: {FEW_LEVELS}"]
    assert [*prepared(tmp_path / "clipped", values, clip=(0.5, 99.5)).table.prepare_notes[0]] == []
    # Where the crop does not hold it, nothing is left.
    scan(tmp_path / "y" / "a.nii.gz", values=np.pad(values, ((0, 40), (0, 0), (0, 0)), "wrap"))
    (failure,) = prepare(tmp_path / "y", tmp_path / "s", size=4, workers=1).failures
    assert f"to {values.max():g}" in failure.reason


def test_a_drawing_in_black_and_white_has_its_two_levels_and_no_note(tmp_path):
    values = np.zeros((12, 12, 12), np.float32)
    values[5:7, 5:7, 5] = 3
    assert [*prepared(tmp_path, values).table.prepare_notes[0]] == []


def test_choices_are_part_of_the_store_and_none_leaves_it_as_it_was(tmp_path):
    scan(tmp_path / "x" / "a.nii.gz", values=head())
    prepare(tmp_path / "x", tmp_path / "s", size=8, clip=(1, 99))
    assert Store(tmp_path / "s").info.clip == (1.0, 99.0)
    assert prepare(tmp_path / "x", tmp_path / "s", size=8, clip=(1, 99)).skipped == 1
    for other in ({}, {"clip": (2, 99)}, {"clip": (1, 99), "statistics": "foreground"}):
        with pytest.raises(StoreError, match="different store"):
            prepare(tmp_path / "x", tmp_path / "s", size=8, **other)
    # A store from before there were such choices is the store of none of them.
    prepare(tmp_path / "x", tmp_path / "old", size=8)
    file = tmp_path / "old" / "store.json"
    facts = json.loads(file.read_text())
    for name in ("clip", "window", "statistics"):
        assert facts.pop(name) is None
    file.write_text(json.dumps(facts))
    assert prepare(tmp_path / "x", tmp_path / "old", size=8).skipped == 1


def test_8_bit_pictures_keep_their_values_unless_percentiles_are_asked_for(tmp_path):
    picture(tmp_path / "x" / "a" / "0.png", shape=(12, 12))
    picture(tmp_path / "x" / "a" / "1.png", seed=1, shape=(12, 12), colour=True)
    prepare(tmp_path / "x", tmp_path / "s", size=12, clip=(10, 90))
    row = Store(tmp_path / "s").table.iloc[1]
    values = np.random.default_rng(1).integers(0, 255, (12, 12, 3))
    # One range for the three colours, so that their relation stays.
    assert row.intensity_min.tolist() == pytest.approx([np.percentile(values, 10)] * 3)
    assert row.intensity_max.tolist() == pytest.approx([np.percentile(values, 90)] * 3)


def test_settings_are_read_from_words_and_checked():
    settings = PrepareSettings(window={"ct": "bone", "x": "40,80"}, clip="0.5,99.5")
    assert settings.window == {"ct": WINDOWS["bone"], "x": (40.0, 80.0)}
    assert settings.clip == (0.5, 99.5)
    recipe = Recipe.load(settings=["prepare.window={ct: lung}", "prepare.clip=[1, 99]"])
    assert recipe.prepare.window == {"ct": WINDOWS["lung"]}
    assert recipe.with_settings([]) == recipe
    for bad, what in (
        ("prepare.clip=[99, 1]", "the lower one first"),
        ("prepare.clip=[0, 101]", "from 0 to 100"),
        ("prepare.window={ct: longue}", "did you mean lung"),
        ("prepare.window={ct: [40, 0]}", "more than 0"),
        ("prepare.window=lung", "write modality=window"),
        ("prepare.statistics=body", "foreground"),
    ):
        with pytest.raises(RecipeError, match=what) as caught:
            Recipe.load(settings=[bad])
        assert "\n" not in str(caught.value)


def test_a_run_remembers_them_and_a_reconstruction_is_in_the_scans_own_unit(tmp_path):
    values = np.random.default_rng(0).integers(-1000, 1000, (16, 16, 16)).astype(np.int16)
    for name in "ab":
        scan(tmp_path / "x" / f"{name}.nii.gz", values=values)
    prepare(tmp_path / "x", tmp_path / "s", size=16, window={"image": (0, 1000)})
    settings = (*LIGHT, "optim.epochs=1", "model.mask_ratio=0.5")
    run = pretrain(tmp_path / "s", tmp_path / "run", settings=settings)
    assert Recipe.load(run / "recipe.yaml").prepare.window == {"image": (0.0, 1000.0)}
    reconstruct(run, tmp_path / "s", tmp_path / "out")
    found = nib.load(tmp_path / "out" / "a_image.nii.gz").get_fdata()
    close = np.abs(found - values.clip(-500, 500)) < 0.3
    assert close.mean() >= 0.5  # the visible half, to the precision of float16
    prepare(tmp_path / "x", tmp_path / "plain", size=16)
    with pytest.raises(RunError, match=r"began with prepare\.window="):
        pretrain(tmp_path / "plain", run, resume=True)
