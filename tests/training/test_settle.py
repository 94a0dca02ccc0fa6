"""What is settled when a training starts: length, weights of VGG, the cohort's intensities."""

import json
from itertools import product

import numpy as np
import pytest
import torch

from tests.conftest import TINY
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RecipeError
from vitaepp.methods import build_method
from vitaepp.methods.base import augmented_view
from vitaepp.nn.gradients import histograms
from vitaepp.nn.vgg import IMAGENET_URL
from vitaepp.recipe.recipe import INSTEAD, Recipe
from vitaepp.training.pretrain import pretrain
from vitaepp.training.settle import channel_statistics, prepare_not_used, settled
from vitaepp.views.draws import Draws
from vitaepp.views.transforms import channel_moments, standardize


@pytest.mark.parametrize(
    ("settings", "processes", "epochs"),
    [
        (("optim.batch_size=3",), 1, 25),  # 10 images: 4 updates
        (("optim.batch_size=3",), 2, 50),
        (("optim.batch_size=3", "optim.accumulate=2"), 1, 50),
        (("optim.batch_size=3", "method=simsiam"), 1, 34),  # its batch of one is left out
        (("optim.batch_size=64",), 1, 100),
    ],
)
def test_a_length_in_updates_becomes_whole_epochs(make_store, settings, processes, epochs):
    store = make_store(subjects=10)
    recipe = Recipe.load(settings=(*settings, "optim.updates=100"))
    found, notes = settled(recipe, store, range(10), processes)
    assert (found.optim.epochs, found.optim.updates) == (epochs, None)
    assert notes[0].startswith(f"optim.updates=100: {epochs} epochs of ")
    assert settled(found, store, range(10), processes) == (found, ())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ((), ""),
        (("prepare.size=16", "prepare.spacing=1,1,1", "prepare.modalities=t1,t2"), ""),
        (("prepare.spacing=1.0004",), ""),
        (
            ("prepare.size=96", "prepare.center=mask"),
            "the recipe's prepare.size=96, prepare.center=mask are not used: the store was "
            "prepared with size 16,16,16, center image",
        ),
        (
            ("prepare.modalities=t2",),
            "the recipe's prepare.modalities=t2 is not used: the store was prepared with "
            "modalities t1,t2",
        ),
    ],
)
def test_what_a_recipe_says_of_another_store_is_told(make_store, settings, told):
    info = make_store(subjects=1).info
    recipe = Recipe.load(settings=settings)
    assert prepare_not_used(recipe, info) == told
    assert prepare_not_used(recipe.changed(prepare=info.settings), info) == ""


def test_the_length_that_is_asked_for_last_holds():
    recipe = Recipe.load(settings=["optim.updates=100", "optim.lr=1", "optim.warmup_updates=3"])
    assert recipe.with_settings("optim.epochs=3").optim.updates is None
    assert recipe.with_settings("optim.base_lr=3").optim.lr is None
    assert recipe.with_settings("optim.warmup_epochs=3").optim.warmup_updates is None
    assert recipe.with_settings("seed=3").optim == recipe.optim


@pytest.mark.parametrize("name", INSTEAD)
@pytest.mark.parametrize("before", [(), ("this",), ("other",), ("this", "other")])
@pytest.mark.parametrize("last", ["this", "other"])
def test_of_several_settings_the_last_holds(name, before, last):
    texts = {"this": f"optim.{name}=3", "other": f"optim.{INSTEAD[name]}=4"}
    optim = Recipe.load(settings=[texts[which] for which in (*before, last)]).optim
    assert getattr(optim, INSTEAD[name]) == (4 if last == "other" else None)
    assert last == "other" or getattr(optim, name) == 3
    whole = Recipe.load(settings=texts["other"])
    assert Recipe.parse(whole.model_dump()) == whole


def test_weights_of_vgg_are_those_that_are_there(make_store, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    store = make_store(subjects=2)
    assert settled(Recipe(), store, [0])[0].loss.perceptual.weights == "none"
    assert settled(Recipe(), store, [0])[0].name == "ViT-AE++ without L_per"
    file = tmp_path / "hub" / "checkpoints" / IMAGENET_URL.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    assert settled(Recipe(), store, [0])[0].loss.perceptual.weights == "imagenet"
    asked = Recipe.load(settings="loss.perceptual.weights=random")
    assert settled(asked, store, [0])[0] == asked


def test_a_cohorts_statistics_are_numpys(make_store):
    store = make_store(subjects=7)
    rows = [5, 1, 3]
    mean, std = channel_statistics(store, rows)
    values = store.read(rows).astype(np.float64) / 255
    axes = (0, *range(2, values.ndim))
    np.testing.assert_allclose(mean, values.mean(axis=axes), rtol=1e-9)
    np.testing.assert_allclose(std, values.std(axis=axes), rtol=1e-6)


def test_what_is_said_of_a_cohort_is_what_its_settings_take(make_store):
    """Whoever copies the printed settings gets the same training, to the digits that they show."""
    store = make_store(subjects=4)
    asked = Recipe.load(settings="views.normalize=cohort")
    found, (line,) = settled(asked, store, range(4))
    copied = [word.rstrip(",") for word in line.split() if word.startswith("views.cohort_")]
    again, notes = settled(asked.with_settings(copied), store, range(4))
    np.testing.assert_allclose(again.views.cohort, found.views.cohort, rtol=1e-3)
    assert not notes
    for name in ("views.cohort_mean", "views.cohort_std"):
        with pytest.raises(RecipeError, match=rf"{name}=0\.1,0\.2: give views\.cohort_.*, too"):
            settled(asked.with_settings(f"{name}=0.1,0.2"), store, range(4))
        for wrong in ("101.4,98.01", "-0.1,0.2"):
            with pytest.raises(RecipeError, match=r"in \[0, 1\]: stored ones divided by 255"):
                Recipe.load(settings=f"{name}={wrong}")


def test_images_are_standardised_by_the_cohort_and_what_is_missing_stays_0():
    images = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    images[1, 1] = 0
    cohort = ((0.2, 0.4), (0.5, 2.0))
    z = standardize(images, "cohort", cohort)
    assert torch.allclose(z[0, 1], (images[0, 1] - 0.4) / 2, atol=1e-6)
    assert torch.allclose(z[2, 0], (images[2, 0] - 0.2) / 0.5, atol=1e-6)
    assert (z[1, 1] == 0).all()
    mean, std = channel_moments(images, "cohort", cohort)
    back = z * std + mean
    assert torch.allclose(back[0], images[0], atol=1e-6)
    with pytest.raises(RecipeError, match="the cohort's mean and deviation are not known"):
        standardize(images, "cohort")


def test_an_encoder_keeps_its_cohorts_statistics_and_embeds_with_them(make_store, tmp_path):
    store = make_store(subjects=6)
    names = [f"{s}" for s in store.table["subject"][:4]]
    settings = (*TINY, "method=vitae", "optim.epochs=1", "views.normalize=cohort")
    settings += ("model.pool=mean+cls", "model.pool_block=1")
    run = pretrain(store.path, tmp_path / "run", settings=settings, subjects=names)
    mean, std = channel_statistics(store, range(4))
    kept = json.loads((run / "encoder" / "config.json").read_text())
    np.testing.assert_allclose(kept["cohort"], [mean, std])
    encoder = Encoder.from_pretrained(run)
    untrained = Encoder.untrained(Recipe.load(run / "recipe.yaml"), store.info)
    assert untrained.config.cohort == encoder.config.cohort
    assert encoder.dim == untrained.dim == 2 * 48
    images = torch.from_numpy(store.read([5])).float() / 255
    shape = (1, -1, *(1,) * store.info.ndim)
    z = (images - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    backbone = encoder.backbone
    with torch.inference_mode():
        whole = backbone(z)  # all blocks
        backbone.blocks = backbone.blocks[:1]
        tokens = backbone(z)
    expected = torch.cat([tokens[:, 1:].mean(dim=1), tokens[:, 0]], dim=1).numpy()
    assert not torch.allclose(whole, tokens, atol=1e-2)
    found = Encoder.from_pretrained(run).embed(store, [5], precision="32")
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 32), (32, 16, 8)])
@pytest.mark.parametrize(
    "pool", ["mean", "cls", "mean+cls", "max+std", "grid", "grid+gridmax", "mean+gradients"]
)
def test_what_an_embedding_is_pooled_from(pool, size):
    recipe = Recipe.load(settings=(*TINY, "model.patch_size=4", f"model.pool={pool}"))
    backbone = build_method(recipe, 1, size).backbone
    image = torch.rand(2, 1, *size)
    with torch.inference_mode():
        tokens = backbone(image).numpy()
        found = backbone.features(image, pool).numpy()
    patches = tokens[:, 1:]
    volume = patches.reshape(2, *backbone.grid, -1)
    halves = [np.array_split(np.arange(n), 2) for n in backbone.grid]
    cells = [volume[np.ix_(range(2), *c)].reshape(2, -1, tokens.shape[2]) for c in product(*halves)]

    def joined(over):  # a feature's cells follow each other
        return np.stack([getattr(c, over)(1) for c in cells], 2).reshape(2, -1)

    parts = {
        "mean": patches.mean(1),
        "std": patches.std(1),
        "max": patches.max(1),
        "cls": tokens[:, 0],
        "grid": joined("mean"),
        "gridmax": joined("max"),
        "gradients": histograms(image).flatten(1).numpy(),
    }
    expected = np.concatenate([parts[p] for p in pool.split("+")], 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.shape[1] == backbone.width(pool)


@pytest.mark.parametrize(("pool", "said"), [("meen", "no pooling 'meen'"), ("max+max", "twice")])
def test_a_pooling_that_is_none(pool, said):
    with pytest.raises(RecipeError, match=said):
        Recipe.load(settings=(f"model.pool={pool}",))


@pytest.mark.parametrize("which", ["first", "second"])
def test_views_keep_what_a_label_may_be(which):
    ramp = (torch.arange(16.0) / 16).square().view(1, 1, 1, 16).expand(24, 1, 16, 16).contiguous()
    quiet = [f"views.{which}.{s}" for s in ("rotation=0", "log_gamma=0", "noise=0")]

    def view(*settings):
        views = Recipe.load(settings=[*quiet, *settings]).views
        return augmented_view(ramp, Draws(0, 0, range(24)), views, which, None)

    usual = standardize(ramp)
    rising = view("views.keep=side").diff(dim=3)[..., 4:-4] > 0
    assert rising.all()  # cropped, not mirrored
    assert not torch.allclose(view("views.keep=side"), usual, atol=0.1)
    mirrored = usual.flip(3)
    same = [
        torch.allclose(view, whole, atol=1e-4)
        for view, whole in zip(view("views.keep=size"), usual, strict=True)
    ]
    other = [
        torch.allclose(view, whole, atol=1e-4)
        for view, whole in zip(view("views.keep=size"), mirrored, strict=True)
    ]
    assert all(a != b for a, b in zip(same, other, strict=True))
    assert 4 < sum(other) < 20
    assert torch.allclose(view("views.keep=side,size"), usual, atol=1e-4)
