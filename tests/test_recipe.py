"""Recipes: what is read is what is meant, and what is wrong is named."""

import pytest

from vitaepp.errors import RecipeError
from vitaepp.recipe import Recipe, describe_settings, shipped_recipes


def test_defaults_are_the_papers():
    recipe = Recipe.load()
    assert (recipe.model.size, recipe.model.patch_size, recipe.model.mask_ratio) == (
        "base",
        (8,),
        0.75,
    )
    loss = recipe.loss
    assert (loss.perceptual.weight, loss.edge.weight, loss.contrastive.weight) == (0.01, 10, 1)
    optim = recipe.optim
    assert (optim.epochs, optim.batch_size, optim.base_lr) == (1000, 4, 1e-3)
    assert (optim.betas, optim.weight_decay) == ((0.9, 0.95), 0.05)


def test_a_written_recipe_reads_back_the_same(tmp_path):
    recipe = Recipe.load("demo", ["prepare.size=96,96,64", "loss.perceptual.slices=all", "seed=3"])
    recipe.save(tmp_path / "r.yaml")
    assert Recipe.load(tmp_path / "r.yaml") == recipe
    assert recipe.prepare.size == (96, 96, 64)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.epoch=3", r"unknown setting optim\.epoch; did you mean optim\.epochs\?"),
        ("optim=3", r"unknown setting optim; it is a group, of optim\.epochs"),
        ("optim.epochs", r"write name=value"),
        ("optim.epochs=many", r"optim\.epochs='many': .*integer"),
        ("optim.epochs=0", r"optim\.epochs=0: .*greater than or equal to 1"),
        ("model.size=huge", r"model\.size='huge': .*tiny"),
        ("model.mask_ratio=1.5", r"model\.mask_ratio=1\.5: .*less than 1"),
        ("loss.perceptual.slices=none", r"loss\.perceptual\.slices"),
        ("optim.base_lr=.inf", r"optim\.base_lr"),
    ],
)
def test_what_is_wrong_with_a_setting_is_one_line(setting, message):
    with pytest.raises(RecipeError, match=message) as error:
        Recipe.load(settings=[setting])
    assert "\n" not in str(error.value)


def test_numbers_in_scientific_notation_are_numbers():
    assert Recipe.load(settings=["optim.base_lr=1e-2"]).optim.base_lr == 0.01


def test_what_is_not_a_recipe_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe 'dmeo'.*did you mean demo"):
        Recipe.load("dmeo")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(RecipeError, match="a recipe is a mapping"):
        Recipe.load(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(RecipeError, match="not valid YAML"):
        Recipe.load(tmp_path / "broken.yaml")
    (tmp_path / "typo.yaml").write_text("optim:\n  epoch: 3\n")
    with pytest.raises(RecipeError, match=r"unknown setting optim\.epoch; did you mean"):
        Recipe.load(tmp_path / "typo.yaml")


def test_every_setting_is_described_and_every_shipped_recipe_loads():
    assert all(text for _, _, text in describe_settings())
    assert "demo" in shipped_recipes()
    for name in shipped_recipes():
        Recipe.load(name)


def test_a_precision_is_a_name_though_yaml_takes_it_for_a_number():
    assert Recipe.load(settings=["trainer.precision=32"]).trainer.precision == "32"
