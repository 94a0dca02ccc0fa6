"""Recipes: what is read is what is meant, and what is wrong is named."""

import pytest
import torch
import yaml

from vitaepp.errors import RecipeError
from vitaepp.recipe.recipe import (
    Recipe,
    changed_settings,
    describe_settings,
    resolve,
    shipped_recipes,
)
from vitaepp.recipe.sections import EdgeSettings, LossSettings


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
        ("optim.epochs=many", r"optim\.epochs='many': .*whole number"),
        ("optim.epochs=0", r"optim\.epochs=0: .*at least 1"),
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


@pytest.mark.parametrize("name", ["lr", "weight_decay", "betas"])
@pytest.mark.parametrize("value", [-1.0, 0.0, 0.5, 1.0, 1.5])
def test_what_the_optimiser_would_refuse_is_refused_as_a_setting(name, value):
    """torch is the reference, but for a learning rate of 0, with which nothing is trained."""
    given = (0.9, value) if name == "betas" else value

    def taken(make, **how):
        try:
            return bool(make(**how))
        except ValueError:  # a RecipeError is one
            return False

    expected = taken(torch.optim.AdamW, params=[torch.zeros(1)], **{name: given})
    expected &= (name, value) != ("lr", 0)
    assert taken(Recipe.parse, values={f"optim.{name}": given}) == expected


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "optim:\n  lr: 1\nseed: 1\noptim:\n  epochs: 3\n",
            "optim is given twice, again in line 4",
        ),
        ("optim: {lr: 1, lr: 2}", "lr is given twice, again in line 1"),
        ("optim.epochs: 3\noptim: {epochs: 2}", "optim.epochs is given twice"),
        ("seed: 010", "line 1: YAML reads 010 as 8; write a number without leading zeros"),
        ("data: {split: 1:30}", "YAML reads 1:30 as 90; .* a text in quotes"),
        ("optim: {epochs: true}", "optim.epochs=True: give a number"),
        ("loss: {edge: {weight: on}}", "loss.edge.weight=True: give a number"),
        ("model: {patch_size: [8, yes]}", "model.patch_size=.*: give a number"),
    ],
)
def test_what_yaml_would_change_without_a_word_is_refused(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        Recipe.load(tmp_path / "r.yaml")


@pytest.mark.parametrize("number", ["2e0", "2", "2E0", "2e+0", "20e-1", ".2e1", "2.0"])
def test_a_file_and_a_setting_read_a_number_alike(tmp_path, number):
    names = [
        setting.name
        for setting in describe_settings()
        if isinstance(setting.default, int) and not isinstance(setting.default, bool)
    ]
    assert "optim.epochs" in names
    for name in names:
        (tmp_path / "r.yaml").write_text(f"{name}: {number}")
        assert resolve(tmp_path / "r.yaml") == resolve(settings=f"{name}={number}"), name
    (tmp_path / "r.yaml").write_text("data: {split: 1e1}")  # a text
    assert Recipe.load(tmp_path / "r.yaml").data.split == "1e1"


def test_every_setting_is_described_and_every_shipped_recipe_loads():
    assert all(setting.description for setting in describe_settings())
    assert "demo" in shipped_recipes()
    for name in shipped_recipes():
        Recipe.load(name)


def test_a_precision_is_a_name_though_yaml_takes_it_for_a_number():
    assert Recipe.load(settings=["trainer.precision=32"]).trainer.precision == "32"


def weights(recipe):
    loss = recipe.loss
    return loss.edge.weight, loss.perceptual.weight, loss.contrastive.weight


PAPERS, NONE = (10.0, 0.01, 1.0), (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("began", "settings", "found", "name"),
    [
        ([], [], PAPERS, "ViT-AE++"),
        ([], ["method=vitae"], NONE, "ViT-AE"),
        (["method=vitae"], ["method=vitae++"], PAPERS, "ViT-AE++"),
        (["method=vitae"], ["optim.epochs=3"], NONE, "ViT-AE"),
        (["loss.edge.weight=3"], ["method=vitae++"], (3.0, 0.01, 1.0), "ViT-AE++"),
        (["loss.edge.weight=3"], ["method=vitae"], NONE, "ViT-AE"),
        ([], ["method=vitae", "loss.edge.weight=10"], (10.0, 0.0, 0.0), "ViT-AE + L_edge"),
        ([], ["loss.edge.weight=10", "method=vitae"], (10.0, 0.0, 0.0), "ViT-AE + L_edge"),
        (["method=vitae", "loss.edge.weight=10"], ["method=vitae"], NONE, "ViT-AE"),
        (
            ["method=vitae", "loss.edge.weight=3"],
            ["method=vitae++"],
            (3.0, 0.01, 1.0),
            "ViT-AE++",
        ),
        ([], ["loss.contrastive.weight=0"], (10.0, 0.01, 0.0), "ViT-AE + L_edge + L_per"),
        (
            [],
            ["method=vitae", "loss.contrastive.weight=1", "loss.reconstruction.weight=0"],
            (0.0, 0.0, 1.0),
            "ViT + L_CL",
        ),
        (["method=vitae"], ["method=simsiam"], NONE, "SimSiam"),
        (["method=simsiam"], ["method=vitae"], NONE, "ViT-AE"),
        (["method=simsiam"], ["method=vitae++"], PAPERS, "ViT-AE++"),
    ],
)
def test_a_method_and_its_weights_agree_wherever_they_come_from(
    tmp_path, began, settings, found, name
):
    Recipe.load(settings=began).save(tmp_path / "recipe.yaml")
    for recipe in (
        Recipe.load(tmp_path / "recipe.yaml", settings),
        Recipe.load(settings=began).with_settings(settings),
    ):
        recipe.save(tmp_path / "again.yaml")
        assert weights(recipe) == found
        assert recipe.name == name
        assert Recipe.load(tmp_path / "again.yaml") == recipe
        assert Recipe.load(settings=changed_settings(recipe)) == recipe
        if recipe.method in ("vitae", "vitae++"):
            assert (recipe.method == "vitae++") == (name == "ViT-AE++")


class Further(LossSettings):
    ssim: EdgeSettings = EdgeSettings(weight=0)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ("method=vitae++", "ViT-AE++ + L_ssim"),
        ("loss.perceptual.weights=none", "ViT-AE++ without L_per + L_ssim"),
        ("method=vitae", "ViT-AE + L_ssim"),
        (["method=vitae", "loss.edge.weight=10"], "ViT-AE + L_edge + L_ssim"),
    ],
)
def test_a_term_that_is_not_the_papers_is_in_the_name(settings, name):
    recipe = Recipe.load(settings=settings)
    for weight, expected in ((2.0, name), (0.0, recipe.name)):
        loss = Further(**dict(recipe.loss), ssim=EdgeSettings(weight=weight))
        assert recipe.model_copy(update={"loss": loss}).name == expected


@pytest.mark.parametrize(
    ("weights", "terms", "decoder"),
    [
        ((1, 0.01, 10, 1), {"reconstruction", "perceptual", "edge", "contrastive"}, True),
        ((0, 0, 0, 1), {"contrastive"}, False),
        ((0, 0, 10, 0), {"edge"}, True),
        ((0, 1, 0, 0), {"perceptual"}, True),
        ((0, 0, 0, 0), set(), False),
    ],
)
def test_all_terms_but_the_contrastive_one_need_a_decoder(weights, terms, decoder):
    names = ("reconstruction", "perceptual", "edge", "contrastive")
    loss = LossSettings.model_validate(
        {name: {"weight": w} for name, w in zip(names, weights, strict=True)}
    )
    assert (loss.terms, loss.needs_decoder) == (terms, decoder)
    if loss.perceptual.weight:
        blind = loss.perceptual.model_copy(update={"weights": "none"})
        blind = loss.model_copy(update={"perceptual": blind})
        assert blind.terms == terms - {"perceptual"}
        assert blind.needs_decoder == (len(terms) > 1)


def test_a_resolved_recipe_that_contradicts_itself_is_named_by_its_weights(tmp_path):
    """Such recipes were written before a method's name and its weights were one thing."""
    text = Recipe().to_yaml().replace("method: vitae++", "method: vitae")
    (tmp_path / "recipe.yaml").write_text(text)
    assert Recipe.load(tmp_path / "recipe.yaml").method == "vitae++"
    loss = {term: {"weight": 0} for term in ("edge", "perceptual", "contrastive")}
    assert Recipe.parse({"method": "vitae++", "loss": loss}).method == "vitae"


@pytest.mark.parametrize("setting", describe_settings(), ids=lambda setting: setting.name)
def test_a_default_is_read_as_it_is_shown(setting):
    if setting.default is not None:
        assert Recipe.load(settings=f"{setting.name}={setting.typed}") == Recipe()


def test_changes_leave_their_neighbours(tmp_path):
    recipe = Recipe.load(
        settings=["loss.edge.blur=2", "loss.perceptual.slices=3", "prepare.window=ct=lung"]
    )
    changed = recipe.changed(
        seed=4, loss={"edge": {"weight": 3}}, prepare={"window": {"pet": (1.0, 2.0)}}
    )
    assert (changed.seed, changed.loss.edge.weight, changed.loss.edge.blur) == (4, 3, 2)
    assert changed.loss.perceptual == recipe.loss.perceptual
    assert changed.prepare.window == {"pet": (1.0, 2.0)}  # a value, not a group
    assert recipe.changed(optim=Recipe().optim) == recipe
    assert weights(recipe.changed(method="vitae")) == NONE
    with pytest.raises(RecipeError, match=r"unknown setting loss\.egde; did you mean"):
        recipe.changed(loss={"egde": {"weight": 3}})


def test_a_size_stands_for_width_depth_and_heads_unless_these_are_given_with_it():
    own = Recipe.load(settings=["model.size=tiny", "model.embed_dim=48", "model.num_heads=2"])
    assert (own.model.size, own.model.embed_dim, own.model.num_heads) == ("tiny", 48, 2)
    small = resolve(own, ["model.size=small", "model.num_heads=4"])
    assert (small.model.size, small.model.embed_dim, small.model.num_heads) == ("small", None, 4)
    assert resolve("demo", "model.size=base").model.depth is None
    assert own.with_settings("model.depth=3").model.embed_dim == 48


@pytest.mark.parametrize(
    "settings",
    [
        ["optim.epochs=3", "loss.edge.weight=2"],
        {"optim": {"epochs": 3}, "loss": {"edge": {"weight": 2}}},
        {"optim.epochs": 3, "loss": {"edge.weight": 2}, "model": None},
    ],
)
def test_settings_are_the_same_however_they_are_given(tmp_path, settings):
    found = resolve("demo", settings)
    assert (found.optim.epochs, found.optim.batch_size, found.loss.edge.weight) == (3, 8, 2)
    if isinstance(settings, dict):
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(settings))
        assert resolve(tmp_path / "r.yaml") == resolve(settings=settings)


@pytest.mark.parametrize(
    "text", ["no", "yes", "on", "off", "null", "~x", "2020-01-01", "1e3", "0123", "1_0", "a: b"]
)
def test_texts_are_taken_as_they_were_typed(text):
    recipe = Recipe.load(settings=[f"data.split={text}", f"prepare.modalities={text},t1"])
    assert recipe.data.split == text
    assert recipe.prepare.modalities == (text, "t1")
    assert Recipe.load(settings=[f"data.split='{text}'"]).data.split == text
    assert recipe.with_settings(["data.split="]).data.split is None


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("seed=0123", 123),
        ("optim.epochs=1e3", 1000),
        ("optim.clip_norm=null", None),
        ("optim.clip_norm=", None),
        ("optim.betas=[0.8, 9e-1]", (0.8, 0.9)),
        ("views.second.scale=.05", 0.05),
        ("loss.perceptual.slices=all", "all"),
        ("loss.perceptual.slices=2", 2),
        ("loss.reconstruction.normalize_targets=yes", True),
        ("loss.reconstruction.normalize_targets=off", False),
        ("data.cache=none", "none"),
        ("trainer.precision=16", "16"),
        ("prepare.statistics=null", None),
        ("prepare.modalities=[t1, no]", ("t1", "no")),
        ("prepare.window={ct: [40, 4e2]}", {"ct": (40.0, 400.0)}),
    ],
)
def test_other_values_are_read_as_their_setting_wants_them(setting, value):
    found = Recipe.load(settings=setting)
    for part in setting.partition("=")[0].split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("loss", [[1], "x", {"edge": 3}, {"edge": {"weight": "x"}}])
def test_a_preset_over_what_is_no_group_is_refused_in_one_line(loss):
    with pytest.raises(RecipeError, match=r"^recipe: loss"):
        Recipe.parse({"method": "vitae", "loss": loss})
