"""Settings without effect: those that are told are those that change nothing."""

import pytest
import torch

from tests.conftest import LIGHT
from vitaepp.methods import build_method
from vitaepp.recipe.effect import given_names, without_effect
from vitaepp.recipe.recipe import Recipe, describe_settings
from vitaepp.training.pretrain import pretrain
from vitaepp.views.draws import Draws

SMALL = (*LIGHT, "simsiam.projection_dim=16", "mocov3.hidden_dim=16", "mocov3.projection_dim=16")

BASES = {
    "vitae++": ("loss.edge.weight=10", "loss.contrastive.weight=1"),
    "vitae": ("method=vitae",),
    "simsiam": ("method=simsiam",),
    "mocov3": ("method=mocov3",),
    "resnet": ("method=simsiam", "model.backbone=resnet18", "model.pool=mean"),
    "size": ("views.keep=size",),
    "whole": ("views.first.crop=1", "loss.perceptual.weights=none"),
    "cohort": ("views.normalize=cohort", "views.cohort_mean=0.4", "views.cohort_std=0.3"),
}

CHANGES = (
    "model.mask_ratio=0.5",
    "model.drop_path=0.5",
    "model.decoder_depth=2",
    "model.patch_size=4",
    "loss.reconstruction.patches=all",
    "loss.edge.blur=1",
    "loss.edge.decay=none",
    "loss.perceptual.axis=0",
    "loss.contrastive.norm=none",
    "simsiam.projection_dim=8",
    "mocov3.temperature=0.5",
    "views.cohort_mean=0.2",
    "views.first.crop=0.9",
    "views.first.rotation=50",
    "views.first.aspect=3",
    "views.second.scale=0.5",
    "views.second.noise=1",
)


def loss(recipe):
    method = build_method(recipe, 1, (16, 16)).train()
    images = 255 * torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return method(images, Draws(0, 0, range(4)), progress=0.5).loss.item()


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_what_is_told_changes_nothing_and_all_else_does(base):
    recipe = Recipe.load(settings=(*SMALL, *base))
    before = loss(recipe)
    for change in CHANGES:
        name, _, value = change.partition("=")
        changed = recipe.with_settings(change)
        lines = list(without_effect(changed, {name}))
        assert bool(lines) == (loss(changed) == before), (change, lines)
        assert all(f": {name}={value}" in line and " no effect" in line for line in lines)


def test_a_line_lists_what_was_given_and_nothing_else():
    settings = ("method=simsiam", "model.mask_ratio=0.5", "loss.edge.weight=3", "optim.lr=1")
    (line,) = without_effect(Recipe.load(settings=settings), given_names(None, settings))
    assert line == "method=simsiam: model.mask_ratio=0.5, loss.edge.weight=3 have no effect"
    sides = ("views.keep=side", "views.first.flip=all")
    (line,) = without_effect(Recipe.load(settings=sides), given_names(None, sides))
    assert line.endswith("are not mirrored, whatever views.first.flip=all says")
    for size, axis in (("8,8", 0), ("8,8,8", 1)):
        other = ("views.keep=side", f"views.first.flip={axis}", f"prepare.size={size}")
        assert not list(without_effect(Recipe.load(settings=other), {"views.first.flip"}))
    everything = {setting.name for setting in describe_settings()}
    assert not list(
        without_effect(
            Recipe(),
            everything
            - {"views.cohort_mean", "views.cohort_std"}
            - {name for name in everything if name.startswith(("simsiam.", "mocov3."))},
        )
    )


def test_what_somebody_gave(tmp_path):
    file, whole = tmp_path / "mine.yaml", tmp_path / "whole.yaml"
    file.write_text("method: simsiam\nmodel: {mask_ratio: 0.5, drop_path: 0.0}\n")
    assert given_names(file, "seed=1") == {"method", "model.mask_ratio", "seed"}
    assert given_names({"model": {"mask_ratio": 0.5}}, ()) == {"model.mask_ratio"}
    # Of another method than it was written for, of a run, or shipped: nobody typed it for this.
    assert given_names(file, "method=mocov3") == {"method"}
    Recipe.load(file).save(whole)
    for recipe in (None, "demo", Recipe.load(file), whole, Recipe.load(file).model_dump()):
        assert given_names(recipe, "seed=1") == {"seed"}


def test_pretrain_says_it_once(make_store, tmp_path, capsys):
    settings = (*SMALL, "method=simsiam", "optim.epochs=1", "model.mask_ratio=0.5")
    pretrain(make_store(subjects=4).path, tmp_path / "run", settings=settings)
    said = [line for line in capsys.readouterr().err.splitlines() if "no effect" in line]
    assert len(said) == 1
    assert "model.mask_ratio=0.5" in said[0]
    assert "simsiam.projection_dim" not in said[0]
