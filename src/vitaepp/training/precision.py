"""The precision that a training computes in."""

from __future__ import annotations

from typing import Any

import torch

from vitaepp.recipe.recipe import Recipe
from vitaepp.system.devices import resolved_precision


def precision_of(recipe: Recipe, device: torch.device) -> str:
    """`32`, `bf16` or `16`: what a recipe asks for, or what the device is fastest in."""
    return resolved_precision(recipe.trainer.precision, device)


def lightning_precision(recipe: Recipe, device: torch.device) -> Any:
    """The same, as Lightning calls it."""
    names = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
    return names[precision_of(recipe, device)]
