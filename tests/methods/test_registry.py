"""The registry of methods: facts and classes belong together, and no other file lists methods."""

import pytest

from vitaepp.errors import RecipeError
from vitaepp.methods import Method, build_method
from vitaepp.methods.registry import CLASSES
from vitaepp.methods.vitaepp import ViTAE
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe

SMALL = ("model.embed_dim=24", "model.depth=1", "model.num_heads=2", "model.patch_size=8")
SMALL += ("model.decoder_embed_dim=24", "model.decoder_depth=1", "model.decoder_num_heads=2")
SMALL += ("simsiam.projection_dim=16", "mocov3.hidden_dim=16", "mocov3.projection_dim=16")


def test_every_method_has_a_class():
    assert CLASSES.keys() == METHODS.keys()
    assert all(issubclass(CLASSES[key], ViTAE) == facts.masked for key, facts in METHODS.items())


@pytest.mark.parametrize("key", METHODS)
def test_a_recipe_builds_what_it_names(key):
    recipe = Recipe.load(settings=(*SMALL, f"method={key}"))
    method = build_method(recipe, 1, (16, 16))
    assert type(method) is CLASSES[key]
    assert isinstance(method, Method)
    assert (recipe.name, method.smallest_batch) == (
        METHODS[key].title,
        METHODS[key].smallest_batch,
    )


@pytest.mark.parametrize("value", ["mae", "5", "[vitae, simsiam]", ""])
def test_an_unknown_method_is_refused_with_the_known(value):
    with pytest.raises(RecipeError, match=r"method=.*'vitae\+\+', 'vitae', 'simsiam' or 'mocov3'"):
        Recipe.load(settings=[f"method={value}"])
