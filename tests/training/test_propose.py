"""Proposals for a training: the paper's settings where they fit, and what gives way where not."""

import json
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.conftest import TINY
from tests.ingest.trees import scan
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.errors import RecipeError
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.devices import Machine
from vitaepp.system.host import GIB
from vitaepp.training.footprint import Footprint, step_footprint
from vitaepp.training.plan import plan
from vitaepp.training.pretrain import pretrain
from vitaepp.training.propose import (
    CPU_FLOPS_PER_CORE,
    CPU_SECONDS,
    LEAST_UPDATES,
    MEMORY_SHARE,
    PATCHES,
    Images,
    propose_training,
    proposed_recipe,
)

SERVER = Machine(16, 128 * GIB, "a GPU", 80 * GIB, bf16=True)
LAPTOP = Machine(4, 16 * GIB)


def images(size, channels=1, spacing=None, trained=100) -> Images:
    names = tuple("abcdefgh"[:channels])
    return Images.of(StoreInfo(names, size, spacing, "float16", "image"), trained, trained)


def chosen(*args, given=(), recipe=None):
    choices = propose_training(*args, recipe or Recipe(), given)
    assert all(choice.reason for choice in choices)
    return {choice.name: choice.value for choice in choices}


@pytest.fixture
def footprints(monkeypatch):
    """Footprints that cost nothing to have: what each model takes, by its name."""
    sizes = {"base": 8, "small": 3, "tiny": 1, "light": 0.5}

    def traced(recipe, channels, image_size, *, bf16=False):
        scale = sizes[recipe.model.size]
        return Footprint(int(scale * GIB) // 4, int(scale * GIB) // 2, scale * 1e12)

    monkeypatch.setattr("vitaepp.training.propose.step_footprint", traced)


@pytest.mark.parametrize(
    ("size", "patch"),
    [
        ((96, 96, 96), 8),  # the paper
        ((48, 64, 48), 8),
        ((128, 128, 128), 16),
        ((28, 28, 28), 4),
        ((24, 24, 24), 4),
        # Our recipes for the paper's 2D sets.
        ((224, 224), 16),
        ((64, 64), 8),
        ((32, 32), 4),
        ((28, 28), 4),
        ((50, 50), 5),
    ],
)
def test_patches_suit_the_images(footprints, size, patch):
    got = chosen(images(size), SERVER)["model.patch_size"]
    assert got == [patch] * len(size)
    least, most = PATCHES[len(size)]
    assert least <= prod(n // p for n, p in zip(size, got, strict=True)) <= most


def test_patches_of_anisotropic_images_are_about_as_long_on_every_axis(footprints):
    spacing = (0.7, 0.7, 5.0)
    got = chosen(images((96, 96, 24), spacing=spacing), SERVER)["model.patch_size"]
    lengths = np.array(got) * spacing
    assert lengths.max() <= 2 * lengths.min()
    near = chosen(images((96, 96, 96), spacing=(1.0, 1.0, 1.5)), SERVER)
    assert near["model.patch_size"] == [8, 8, 8]


def test_the_papers_settings_where_they_fit(footprints):
    got = chosen(images((96, 96, 96), channels=4), SERVER)
    assert got == {
        "model.patch_size": [8, 8, 8],
        "model.mask_ratio": 0.75,
        "model.size": "base",
        "optim.epochs": 1000,
        "optim.batch_size": 4,
        "loss.contrastive.weight": 0.1,
        "optim.lr": 0.0004,
        "trainer.precision": "bf16",
    }


def test_less_memory_splits_the_batch_then_shrinks_the_model(footprints):
    cohort = images((96, 96, 96))
    for gigabytes, size, batch in (
        (30, "base", 4),
        (14, "base", 2),
        (8, "base", 1),
        (6, "small", 2),
    ):
        machine = Machine(8, 64 * GIB, "a GPU", gigabytes * GIB)
        got = chosen(cohort, machine)
        assert (got["model.size"], got["optim.batch_size"]) == (size, batch)
        assert got.get("optim.accumulate", 1) * batch == 4
        scale = {"base": 8, "small": 3}[size]
        assert scale * (0.25 + 0.5 * batch) <= MEMORY_SHARE["accelerator"] * gigabytes
        assert got["trainer.precision"] == "32"


def test_a_cpu_is_given_a_night(footprints):
    cohort = images((96, 96, 96), trained=50)
    for weights, slices in (("random", 1), ("none", None)):
        recipe = Recipe.load(settings=f"loss.perceptual.weights={weights}")
        got = chosen(cohort, LAPTOP, recipe=recipe)
        assert (got["model.size"], got.get("loss.perceptual.slices")) == ("light", slices)
    seconds = 0.5e12 * 50 * got["optim.epochs"] / (CPU_FLOPS_PER_CORE * LAPTOP.cores)
    assert 0.9 * CPU_SECONDS < seconds <= CPU_SECONDS
    # Of the two smallest, the larger if fewer epochs are enough updates.
    pictures = chosen(images((64, 64), trained=3200), Machine(1000, 16 * GIB))
    assert pictures["model.size"] == "tiny"
    assert LEAST_UPDATES <= 50 * pictures["optim.epochs"] < 50 * 1000
    few = chosen(images((96, 96, 96), trained=1), LAPTOP)
    assert (few["model.size"], few["optim.epochs"], few["optim.batch_size"]) == ("small", 1400, 1)
    assert chosen(images((96, 96, 96), trained=10**6), LAPTOP)["optim.epochs"] == 1


def test_a_small_cohort_is_passed_over_more_often(footprints):
    got = chosen(images((64, 64), trained=130), SERVER)  # three batches an epoch
    assert got["optim.batch_size"] * got["optim.accumulate"] == 64
    assert 3 * got["optim.epochs"] == pytest.approx(LEAST_UPDATES, rel=0.05)
    assert chosen(images((64, 64), trained=5000), SERVER)["optim.epochs"] == 1000
    given = {"optim.epochs"}
    assert "optim.epochs" not in chosen(images((64, 64), trained=130), SERVER, given=given)


def test_the_learning_rate_follows_batch_and_length_unless_it_is_given(footprints):
    def rate(batch, epochs, *settings, trained=1280):
        settings = (f"optim.batch_size={batch}", f"optim.epochs={epochs}", *settings)
        return proposed_recipe(images((64, 64), trained=trained), SERVER, settings)[0].optim.lr

    assert rate(16, 100) == 1e-3  # 8000 updates
    assert rate(256, 100) == 1e-3
    assert rate(4, 10) == rate(2, 10, "optim.accumulate=2") == 5e-4
    assert rate(4, 1000) == 2.1e-4  # 320,000 updates
    assert rate(4, 10, trained=4) == rate(64, 10, trained=4) == 5e-4  # no update sees more
    assert rate(4, 10, "optim.accumulate=100", trained=4) == 5e-4
    assert rate(8, 10, "optim.lr=0.3") == 0.3
    assert rate(8, 10, "optim.base_lr=0.3") is None
    by_updates = ("optim.batch_size=8", "optim.updates=160000")
    recipe, choices = proposed_recipe(images((64, 64), trained=1280), SERVER, by_updates)
    assert recipe.optim.lr == rate(8, 1000)
    assert (recipe.optim.updates, recipe.optim.epochs) == (160000, 1000)
    assert not {"optim.epochs", "optim.updates"} & {choice.name for choice in choices}


def test_windowed_images_are_standardised_by_the_cohort(footprints):
    info = replace(images((32, 32, 32)).info, window=(("a", -1000.0, 400.0),))
    windowed = Images.of(info, 100, 100)
    assert chosen(windowed, SERVER)["views.normalize"] == "cohort"
    assert "views.normalize" not in chosen(windowed, SERVER, given={"views.normalize"})
    both = Images.of(replace(info, modalities=("a", "b")), 100, 100)
    assert "views.normalize" not in chosen(both, SERVER)


def test_plan_leaves_out_what_may_change_the_label_when_asked_to(make_store, footprints):
    store = make_store(subjects=4)
    asked = plan(store.path, keep=("side", "size"), machine=SERVER)
    assert asked.recipe().views.keep == ("side", "size")
    assert "no crops and no scaling, which would change sizes" in asked.to_yaml()
    assert [c for c in asked.choices if c.name != "views.keep"] == [
        *plan(store.path, machine=SERVER).choices
    ]
    with pytest.raises(RecipeError, match=r"views\.keep"):
        plan(store.path, keep=("colour",), machine=SERVER)


def test_what_is_given_is_never_touched(footprints):
    settings = ["model.size=small", "optim.epochs=7", "model.mask_ratio=0.5", "model.patch_size=16"]
    recipe, choices = proposed_recipe(images((96, 96, 96), trained=1000), LAPTOP, settings)
    names = {choice.name for choice in choices}
    assert not names & {setting.partition("=")[0] for setting in settings}
    assert recipe.model.size == "small"
    assert (recipe.optim.epochs, recipe.model.mask_ratio) == (7, 0.5)
    assert recipe.model.patch_size == (16,)
    everything = {choice.name for choice in choices} | {s.partition("=")[0] for s in settings}
    assert propose_training(images((96, 96, 96)), LAPTOP, recipe, everything) == ()


def test_contrastive_baselines_keep_the_batch_that_they_need(footprints):
    small = Machine(8, 64 * GIB, "a GPU", 2 * GIB)
    got = chosen(images((96,) * 3), small, recipe=Recipe(method="simsiam"))
    assert got["optim.batch_size"] == 2
    assert "model.mask_ratio" not in got


def test_settings_that_do_not_fit_are_refused_as_ever():
    with pytest.raises(RecipeError, match="cannot be cut into patches of 7"):
        proposed_recipe(images((16, 16)), LAPTOP, ["model.patch_size=7"])
    with pytest.raises(RecipeError, match=r"did you mean optim\.epochs"):
        proposed_recipe(images((16, 16)), LAPTOP, ["optim.epoch=7"])


def test_footprint_counts_the_multiplications_of_a_transformer():
    """Against the textbook's count: two operations a weight and token, twice more backward."""
    settings = ("method=vitae", "model.embed_dim=64", "model.depth=3", "model.num_heads=4")
    settings += ("model.decoder_embed_dim=32", "model.decoder_depth=2", "model.patch_size=8")
    recipe = Recipe.load(settings=(*settings, "model.decoder_num_heads=4"))
    told = step_footprint(recipe, 2, (64, 64))
    patches, seen = 64, 16

    def blocks(depth, dim, tokens):
        return depth * (2 * 12 * dim**2 * tokens + 4 * dim * tokens**2)

    forward = blocks(3, 64, seen + 1) + blocks(2, 32, patches + 1)
    values = 2 * 8 * 8
    forward += 2 * seen * values * 64 + 2 * (seen + 1) * 64 * 32 + 2 * patches * 32 * values
    assert told.flops == pytest.approx(3 * forward, rel=0.1)
    parameters = 3 * (12 * 64**2) + 2 * (12 * 32**2) + values * 64 + 64 * 32 + 32 * values
    assert told.fixed == pytest.approx(16 * parameters, rel=0.15)


@pytest.mark.parametrize("method", ["vitae++", "vitae", "simsiam", "mocov3"])
def test_every_method_has_a_footprint(method):
    footprint = step_footprint(Recipe.load(settings=(*TINY, f"method={method}")), 2, (16, 16, 16))
    assert footprint.fixed > 0
    assert footprint.flops > 0


def test_memory_does_not_grow_with_the_slices_that_vgg_looks_at():
    every = ("loss.perceptual.channels=all", "loss.perceptual.slices=")
    few, all_ = (
        step_footprint(Recipe.load(settings=(*TINY, *every[:1], every[1] + n)), 2, (64, 64, 64))
        for n in ("16", "all")
    )
    assert all_.flops > 3 * few.flops
    assert all_.per_image < 1.2 * few.per_image


def test_footprint_grows_with_the_images_and_runs_nothing():
    light = TINY[:-2]
    small = step_footprint(Recipe.load(settings=light), 1, (32, 32, 32))
    large = step_footprint(Recipe.load(settings=light), 1, (256, 256, 256))
    assert small.fixed < large.fixed  # positions
    assert large.per_image > 256 * small.per_image
    assert large.memory(8) > 8 * large.per_image


@pytest.mark.slow
def test_memory_estimate_is_near_what_a_step_takes(tmp_path):
    benchmark = Path(__file__).parents[2] / "benchmarks" / "memory.py"
    case = "vitae tiny light 1×40×56×48 bf16"
    out = subprocess.run(
        [sys.executable, benchmark, "--alone", "--case", case, "--steps=2"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert 1 / 1.5 < json.loads(out.stdout)["ratio"] < 1.5


def test_plan_of_scans_is_a_recipe_that_runs(tmp_path, footprints):
    for i in range(4):
        scan(tmp_path / "scans" / f"{i}.nii.gz", seed=i, shape=(20, 24, 18))
    file = tmp_path / "proposed.yaml"
    proposal = plan(tmp_path / "scans", file, machine=LAPTOP)
    text = file.read_text()
    assert Recipe.load(file) == proposal.recipe()
    assert str(tmp_path) not in text
    # A reason stands above every setting.
    lines = [line.strip() for line in text.splitlines()]
    settings = [i for i, line in enumerate(lines) if line[0] != "#" and line[-1] != ":"]
    assert len(settings) == len(proposal.choices)
    assert all(lines[i - 1][0] == "#" for i in settings)

    from vitaepp.ingest.prepare import prepare

    store = tmp_path / "store"
    prepare(tmp_path / "scans", store, settings=Recipe.load(file).prepare, workers=1)
    assert Store(store).info.size == (24, 24, 24)
    again = plan(store, machine=LAPTOP).choices
    assert again == proposal.choices[-len(again) :]
    run = pretrain(store, tmp_path / "run", recipe=Recipe.load(file).changed(optim={"epochs": 2}))
    assert (run / "encoder" / "model.safetensors").is_file()


def test_pretrain_without_settings_says_and_keeps_what_it_chose(
    make_store, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("vitaepp.system.devices.Machine.here", classmethod(lambda cls: LAPTOP))
    store = make_store(subjects=4, size=(16, 16))
    run = pretrain(store.path, tmp_path / "run", settings=["optim.epochs=1", "model.size=tiny"])
    said = capsys.readouterr().err
    kept = Recipe.load(run / "recipe.yaml")
    assert kept.model.patch_size == (2, 2)
    assert "model.patch_size=2,2: 64 patches of 16×16" in said
    assert kept.trainer.precision == "32"
    # On another machine it goes on with what it began with.
    monkeypatch.setattr("vitaepp.system.devices.Machine.here", classmethod(lambda cls: SERVER))
    pretrain(store.path, tmp_path / "run", resume=True)
    assert yaml.safe_load((run / "recipe.yaml").read_text()) == kept.model_dump(mode="json")
