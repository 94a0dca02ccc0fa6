"""The verb: its files, what its numbers mean, and what it refuses."""

import errno
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.cli.conftest import vitaepp as command  # noqa: F401
from tests.conftest import encoder_like
from tests.explanation.conftest import AFFINE, PLANTED
from vitaepp.data.store import Store
from vitaepp.encoder.model import Encoder
from vitaepp.errors import ModelError, RunError, StoreError
from vitaepp.explanation.checks import averaged, curve_numbers, lesion_numbers
from vitaepp.explanation.explain import explain, explain_summary
from vitaepp.explanation.patchmaps import patch_maps
from vitaepp.explanation.pictures import columns_of, density, overlay, slice_of, strength_of
from vitaepp.explanation.shapley import shapley
from vitaepp.presentation.planes import planes
from vitaepp.recipe.recipe import Recipe

MAPS = ["shapley", "occlusion", "rollout", "untrained"]


@pytest.fixture(scope="module")
def of_bright(planted):
    """What `explain` makes of all subjects, and its folder."""
    out = planted / "explain"
    table = explain(
        planted / "encoder", planted / "store", out, model=planted / "model", subjects=6, pairs=2
    )
    return table, out


def test_the_maps_find_the_patch_that_makes_the_class(of_bright):
    table, out = of_bright
    found = [
        np.load(out / f"{subject}.npz")["shapley"].ravel() * (1 if int(subject[1:]) % 2 else -1)
        for subject in table["subject"].unique()
    ]
    assert np.mean(found, axis=0).argmax() == PLANTED
    means = averaged(table)
    assert means["shapley"]["insertion"] > 0.1
    assert means["shapley"]["deletion"] > 0.1
    assert means["shapley"]["beats_random"] > 0.9


def test_files_and_sums(of_bright):
    table, out = of_bright
    facts = json.loads((out / "explain.json").read_text())
    assert len(facts["subjects"]) == 6
    assert facts["explained"] == ["decision score for bright = 1"]
    assert facts["model"] == {"file": "model", "label": "bright", "classes": [0, 1]}
    assert (facts["parts"], facts["taken_away"]) == (16, "left out")
    for told in facts["subjects"]:
        assert told["sum"] == pytest.approx(told["total"] - told["baseline"], abs=1e-9)
        arrays = np.load(out / f"{told['subject']}.npz")
        assert arrays["shapley"].sum() == pytest.approx(told["sum"], abs=1e-4)
        assert set(np.unique(arrays["regions"])) <= set(range(1, 7))
    baselines = {told["baseline"] for told in facts["subjects"]}
    assert len(baselines) == 1
    assert list(table["map"].unique()) == MAPS
    again = pd.read_csv(out / "explain.csv")
    assert again["insertion"].to_numpy() == pytest.approx(table["insertion"].to_numpy())
    with Image.open(out / f"{table['subject'][0]}.png") as picture:
        assert picture.width > 8 * 100
    assert not list(out.glob("*.nii.gz"))
    assert explain_summary(table).splitlines()[0] == "6 subjects; means over them:"


def test_a_folder_holds_the_maps_of_the_last_call_alone(planted, tmp_path, caplog):
    encoder, store = planted / "encoder", planted / "store"
    (tmp_path / "notes.png").write_text("mine")
    np.savez(tmp_path / "other.npz", original=np.zeros(3))
    (tmp_path / "broken.npz").write_text("no archive")
    before = set(tmp_path.iterdir())
    explain(encoder, store, tmp_path, subjects=3, parts=4, pairs=1)
    first = set(tmp_path.iterdir()) - before
    (tmp_path / "explain.json").unlink()  # as if it had been interrupted
    table = explain(encoder, store, tmp_path, subjects=1, parts=4, pairs=1)
    (subject,) = table["subject"].unique()
    names = {"explain.csv", "explain.json", f"{subject}.npz", f"{subject}.png"}
    assert {file.name for file in set(tmp_path.iterdir()) - before} == names
    assert before <= set(tmp_path.iterdir())
    assert len(first) == 8
    assert "maps of 3 subjects from an earlier call are removed" in caplog.text
    assert "what is explained is the squared distance" in caplog.text
    explain(encoder, store, tmp_path, model=planted / "model", subjects=1, parts=4, pairs=1)
    assert (
        "the decision of the classifier in model on bright: its score for 1, against 0"
        in caplog.text
    )


@pytest.mark.parametrize("name", ["explain.json", "explain.csv", "{}.png", "{}.npz"])
def test_files_of_a_user_stay(planted, tmp_path, name):
    subject = Store(planted / "store").table["subject"].iloc[0]
    file = tmp_path / name.format(subject)
    file.write_text("mine")
    with pytest.raises(RunError, match="is there, and is no file of `explain`, or a damaged"):
        explain(planted / "encoder", planted / "store", tmp_path, subjects=None)
    assert [*tmp_path.iterdir()] == [file]
    assert file.read_text() == "mine"


def test_a_full_disk_leaves_the_earlier_maps(planted, tmp_path, monkeypatch):
    encoder, store = planted / "encoder", planted / "store"
    explain(encoder, store, tmp_path, subjects=2, parts=4, pairs=1)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("vitaepp.explanation.explain.write_json", full)
    with pytest.raises(OSError, match="No space"):
        explain(encoder, store, tmp_path, subjects=1, parts=4, pairs=2)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_same_seed_gives_the_same_values(planted, tmp_path, of_bright):
    options = {"model": planted / "model", "subjects": 1, "pairs": 2}
    table = explain(planted / "encoder", planted / "store", tmp_path / "x", **options)
    whole = of_bright[0].set_index(["subject", "map"])
    for record in table.to_dict("records"):
        before = whole.loc[record["subject"], record["map"]]
        assert record["insertion"] == pytest.approx(before["insertion"], abs=1e-4)


def test_volumes_land_where_they_came_from_and_lesions_are_compared(volumes, tmp_path):
    table = explain(
        volumes / "encoder", volumes / "store", tmp_path, subjects=None, parts=8, pairs=2
    )
    facts = json.loads((tmp_path / "explain.json").read_text())
    assert facts["model"] is None
    assert "distance from the mean" in facts["explained"][0]
    for name in (*MAPS, "shapley_error", "regions", "patches", "deviations"):
        scan = nib.load(tmp_path / f"v0_{name}.nii.gz")
        assert scan.shape[:3] == (16, 24, 16)
        assert np.allclose(scan.affine, AFFINE)
    density = nib.load(tmp_path / "v0_shapley.nii.gz").get_fdata()
    told = facts["subjects"][0]
    assert density.sum() == pytest.approx(told["total"] - told["baseline"], rel=1e-4)
    assert told["baseline"] == pytest.approx(0, abs=1e-6)
    with_lesion = table.groupby("subject")["lesion_auc"].count()
    assert with_lesion.to_dict() == {"v0": 4, "v1": 4, "v2": 4, "v3": 0}


def test_a_resnet_has_maps_without_patches(make_store, tmp_path):
    store = make_store(size=(32, 32), subjects=4)
    settings = ["method=simsiam", "model.backbone=resnet18", "model.pool=mean"]
    encoder = Encoder.untrained(Recipe.load(settings=settings), store.info)
    encoder.config = replace(encoder.config, prepared=store.info, method="simsiam", name="SimSiam")
    encoder.save(tmp_path / "encoder")
    table = explain(tmp_path / "encoder", store.path, tmp_path / "x", subjects=3, parts=4, pairs=1)
    facts = json.loads((tmp_path / "x" / "explain.json").read_text())
    assert facts["taken_away"] == "made grey"
    assert facts["caveat"].startswith("SimSiam was never trained on images with parts made grey")
    assert list(table["map"].unique()) == ["shapley", "occlusion", "untrained"]


def test_the_best_order_is_that_of_the_values_themselves():
    worth = np.array([3.0, -1.0, 0.5, 2.0])
    random = shapley(lambda s: s @ worth, 4, 8, 0)
    best = curve_numbers(lambda s: s @ worth, random, 2.0, worth)
    worst = curve_numbers(lambda s: s @ worth, random, 2.0, -worth)
    # Areas by hand: none, 3, 5, 5.5, 4.5; mean of random orders: half of the whole.
    assert best["insertion"] == pytest.approx(((3 + 5 + 5.5 + 4.5 / 2) / 4 - 4.5 / 2) / 2)
    assert best["insertion"] == pytest.approx(-worst["insertion"])
    assert best["deletion"] == pytest.approx(best["insertion"])
    assert (best["beats_random"], worst["beats_random"]) == (1, 0)


def test_a_score_that_nothing_changes_makes_no_order_better():
    random = shapley(lambda s: np.full(len(s), 0.3), 4, 8, 0)
    numbers = curve_numbers(lambda s: np.full(len(s), 0.3), random, 1.0, np.arange(4.0))
    assert numbers == {"insertion": 0, "deletion": 0, "beats_random": 0.5}


def test_a_map_of_the_lesion_itself_finds_it():
    lesion = np.zeros((4, 4), bool)
    lesion[:2, :2] = True
    assert lesion_numbers(-1.0 * lesion, lesion) == {"lesion_auc": 1, "lesion_ratio": 4}
    assert lesion_numbers(np.ones((4, 4)), lesion) == {"lesion_auc": 0.5, "lesion_ratio": 1}


def test_features_that_tell_the_place_alone_are_said_to():
    random = np.random.default_rng(0)
    place, own = random.normal(size=(1, 4, 4, 8)), random.normal(size=(6, 4, 4, 8))
    assert min(patch_maps(np.repeat(place, 6, axis=0), 0).position) > 0.99
    assert max(patch_maps(own, 0).position) < 0.3
    same = patch_maps(np.concatenate([own, own[:1]]), 0)
    assert np.array_equal(same.colours[0], same.colours[-1])
    assert np.array_equal(same.regions[0], same.regions[-1])
    assert (same.colours.min(), same.colours.max()) == (0, 1)
    assert patch_maps(own[:2], 0).deviations is None


@pytest.mark.parametrize("subjects", [1, 2, 4])
def test_a_network_with_one_place_an_image_has_fewer_components(subjects):
    """As a ResNet of a small image."""
    features = np.random.default_rng(0).normal(size=(subjects, 1, 1, 8))
    maps = patch_maps(features, 0)
    assert maps.colours.shape == (subjects, 1, 1, 3)
    assert len(maps.variance) == 3
    assert np.count_nonzero(maps.variance) == min(3, subjects - 1)


def test_for_is_warm_against_is_cold_and_nothing_is_the_image():
    image = np.full((1, 3), 100.0)
    warm, cold, nothing = overlay(image, np.array([[2.0, -2.0, 0.0]]))[0]
    assert warm[0] > warm[2]
    assert cold[0] < cold[2]
    assert nothing.tolist() == [100] * 3
    axial = planes(3, directed=True)[0]
    strength = np.zeros((2, 2, 9))
    strength[..., 3:6] = 1
    assert slice_of(axial, strength) == 4


def test_the_slice_shows_the_body_where_parts_beside_it_count_more():
    image = np.zeros((4, 4, 12), np.uint8)
    image[:2, :, 9] = 200
    parts = np.arange(3).reshape(1, 1, 3)
    arrays = {"image": image, "parts": parts, "shapley": np.array([[[5.0, -9.0, 1.0]]])}
    assert slice_of(planes(3, directed=True)[0], strength_of(arrays)) == 9
    nothing = strength_of(arrays | {"shapley": np.zeros((1, 1, 3))})
    assert slice_of(planes(3, directed=True)[0], nothing) == 9
    columns = columns_of(arrays)
    assert list(columns) == ["image", "Shapley values"]
    assert np.array_equal(columns["image"], image)
    # The voxels of a part are coloured by its value: against the score is blue.
    assert (
        columns["Shapley values"][..., 4:8, 2].min() > columns["Shapley values"][..., 4:8, 0].max()
    )
    assert density(arrays["shapley"], parts, image.shape).sum() == pytest.approx(-3)


def test_what_is_refused(planted, volumes, tmp_path, make_store):
    encoder, store = planted / "encoder", planted / "store"
    with pytest.raises(RunError, match=r"is a store; give a folder of its own"):
        explain(encoder, store, store)
    with pytest.raises(RunError, match=r"`parts=1`.*at least 2 parts"):
        explain(encoder, store, tmp_path / "x", parts=1)
    with pytest.raises(RunError, match=r"`parts=2`: .*of 4×4 patches the fewest are 4; give at"):
        explain(encoder, store, tmp_path / "x", parts=2)
    with pytest.raises(RunError, match="modality t1"):
        explain(encoder, volumes / "store", tmp_path / "x")
    other = encoder_like(Store(store))
    next(iter(other.backbone.parameters())).data += 1
    other.save(tmp_path / "other")
    with pytest.raises(ModelError, match="bright belongs to another encoder"):
        explain(tmp_path / "other", store, tmp_path / "x", model=planted / "model")
    alone = make_store(subjects=1)
    encoder_like(alone).save(tmp_path / "alone")
    with pytest.raises(StoreError, match="one subject cannot be compared"):
        explain(tmp_path / "alone", alone.path, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_command(planted, tmp_path, command):  # noqa: F811
    words = ["explain", planted / "encoder", planted / "store", "--out", tmp_path / "x"]
    status, shown, said = command(*words, "--subjects", 1, "--pairs", 1, "--parts", 4, "--json")
    assert status == 0
    assert set(json.loads(shown)) == set(MAPS)
    assert "without a fitted model" in said
