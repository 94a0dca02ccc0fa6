"""Which class trains each method of `recipe/methods.py`, and how it is built from a recipe.

A new method takes an entry there, one here, and a file with its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vitaepp.errors import RecipeError
from vitaepp.methods.base import Method
from vitaepp.methods.mocov3 import MoCoV3
from vitaepp.methods.simsiam import SimSiam
from vitaepp.methods.vitaepp import ViTAE
from vitaepp.nn.patches import patch_grid
from vitaepp.nn.transformer import SIZES
from vitaepp.recipe.fields import per_axis
from vitaepp.recipe.methods import CONTRASTIVE, METHODS
from vitaepp.recipe.recipe import Recipe
from vitaepp.views.transforms import flipped_axes

CLASSES: dict[str, type[Method]] = {
    "vitae++": ViTAE,
    "vitae": ViTAE,
    "simsiam": SimSiam,
    "mocov3": MoCoV3,
}


def build_method(
    recipe: Recipe, channels: int, image_size: Sequence[int], rgb: bool = False
) -> Method:
    """The recipe's method with freshly initialised weights, the same for the same seed.

    The backbone is initialised first. The same seed then gives the same backbone, whatever is built
    around it, and the untrained control is the network that training started from.

    Args:
        recipe: every setting.
        channels: modalities of the images.
        image_size: voxels per axis.
        rgb: the three channels are colours of one image.

    Raises:
        RecipeError: settings that do not fit the images or each other.
    """
    shape = backbone_shape(recipe, channels, image_size)
    if recipe.views.modality_dropout and (channels == 1 or rgb):
        raise RecipeError(
            f"views.modality_dropout={recipe.views.modality_dropout}: these images have one "
            "modality, which cannot be spared; set it to 0"
        )
    for view in (recipe.views.first, recipe.views.second):
        flipped_axes(view.flip, len(image_size))
    known = recipe.views.cohort
    if known is not None and not all(len(values) == channels for values in known):
        raise RecipeError(
            f"views.cohort_mean and views.cohort_std have {len(known[0])} and {len(known[1])} "
            f"values, but the images have {channels} channels"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return CLASSES[recipe.method](recipe, shape, rgb)


def backbone_shape(recipe: Recipe, channels: int, image_size: Sequence[int]) -> dict[str, Any]:
    """What a recipe's backbone is built from, for the images of a store.

    Raises:
        RecipeError: settings that do not fit the images or each other.
    """
    model = recipe.model
    shape: dict[str, Any] = {"in_channels": channels, "image_size": tuple(image_size)}
    if model.backbone == "vit":
        width, depth, heads = SIZES[model.size]
        patch_size = per_axis(model.patch_size, len(image_size), "model.patch_size")
        try:
            patch_grid(image_size, patch_size)
        except RecipeError as error:
            raise RecipeError(
                f"{error}; prepare with another `size`, or set another model.patch_size"
            ) from None
        return shape | {
            "patch_size": patch_size,
            "embed_dim": model.embed_dim or width,
            "depth": model.depth or depth,
            "num_heads": model.num_heads or heads,
        }
    if METHODS[recipe.method].masked:
        others = " or ".join(f"method={key}" for key in CONTRASTIVE)
        raise RecipeError(
            f"model.backbone={model.backbone}: {recipe.method} hides patches, which takes "
            f"model.backbone=vit; a ResNet is trained by {others}"
        )
    if "cls" in model.pool:
        raise RecipeError(
            f"model.pool={model.pool}: {model.backbone} has no CLS token; set model.pool=mean"
        )
    return shape
