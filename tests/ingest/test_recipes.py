"""Each recipe of the paper's data sets runs on a small tree in the official layout."""

from importlib import resources

import pytest

from tests.conftest import TINY
from tests.ingest import official
from vitaepp.data.loading import training_rows
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.store import Store
from vitaepp.errors import RecipeError
from vitaepp.ingest.prepare import prepare
from vitaepp.recipe.recipe import Recipe, shipped_recipes
from vitaepp.training.pretrain import pretrain


def egd(root):
    source = official.egd(root)
    official.EGD_LABELS.to_excel(source / "Genetic_and_Histological_labels.xlsx", index=False)
    return source


#: Recipe, its tree, channels, side, subjects in all and to train on, weights of the VGG.
SETS = [
    ("brats", official.brats2020, 4, 96, 4, 4, "imagenet"),
    ("egd", egd, 4, 96, 6, 2, "imagenet"),
    ("chest_xray", official.chest_xray, 1, 224, 10, 6, "imagenet"),
    ("cifar10", official.cifar10, 3, 32, 24, 20, "random"),
    ("cifar100", official.cifar100, 3, 32, 18, 12, "random"),
    ("tiny_imagenet", official.tiny_imagenet, 3, 64, 20, 12, "random"),
    ("tiny_imagenet100", official.tiny_imagenet, 3, 64, 15, 9, "random"),
]


@pytest.mark.parametrize(("name", "tree", "channels", "side", "count", "trained", "vgg"), SETS)
def test_a_recipe_prepares_and_trains(tmp_path, name, tree, channels, side, count, trained, vgg):
    recipe = Recipe.load(name)
    assert recipe.prepare.size == (side,)
    assert recipe.loss.perceptual.weights == vgg
    assert (recipe.method, recipe.model.size, recipe.optim.epochs) == ("vitae++", "base", 1000)
    assert all(side % patch == 0 for patch in recipe.model.patch_size)
    # Large images are made smaller, for speed; the small tree has four classes, not 200.
    smaller = {96: 16, 224: 32, 64: 16}.get(side, side)
    small = recipe.changed(prepare={"size": smaller})
    if recipe.prepare.classes is not None:
        assert recipe.prepare.classes == 100
        small = recipe.changed(prepare={"classes": 3})
    source = tree(tmp_path / "raw")
    result = prepare(source, tmp_path / "store", settings=small.prepare, workers=1)
    assert (result.prepared, result.failures) == (count, ())
    store = Store(tmp_path / "store")
    assert len(store.info.modalities) == channels
    assert len(training_rows(store, recipe.data)) == trained
    quick = [s for s in TINY if "patch_size" not in s and "epochs" not in s]
    quick += ["optim.epochs=1", "loss.perceptual.weights=random"]
    run = pretrain(store.path, tmp_path / "run", recipe=name, settings=quick)
    assert RunFolder(run).encoder.is_dir()


def test_a_recipe_of_some_classes_is_not_trained_on_a_store_of_more(tmp_path):
    source = official.tiny_imagenet(tmp_path / "raw")
    prepare(source, tmp_path / "store", size=16, workers=1)
    recipe = Recipe.load("tiny_imagenet100", ["prepare.classes=3"])
    with pytest.raises(RecipeError, match=r"prepare\.classes=3: .* has 4 classes"):
        pretrain(tmp_path / "store", tmp_path / "run", recipe=recipe)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_says_what_it_costs_and_gives(name):
    text = (resources.files("vitaepp.recipe") / "shipped" / f"{name}.yaml").read_text(
        encoding="utf-8"
    )
    head = text[: text.index("\nmethod:")]
    for word in ("# Command: vitaepp", "# Cost:", "# Gives:"):
        assert word in head
    if name != "demo":
        assert "# Paper:" in head
        for verb in ("download", "prepare", "pretrain", "embed", "evaluate"):
            assert f"vitaepp {verb} " in head
        assert f"--recipe {name}\n" in head
    assert max(map(len, text.splitlines())) <= 100
