"""Where prepare's settings come from: a recipe, or a run whose store the new one is to be like."""

from __future__ import annotations

import json
import os
from pathlib import Path

from vitaepp.data.storeinfo import StoreInfo
from vitaepp.errors import RecipeError
from vitaepp.recipe.recipe import Recipe
from vitaepp.recipe.sections import PrepareSettings

#: Settings that say where in a source things are, and not how a store's images are made.
OF_SOURCE = ("layout", "mask_pattern", "classes")


def prepare_settings(recipe: str | os.PathLike[str]) -> tuple[PrepareSettings, bool]:
    """The settings of a recipe, and whether it is a run's.

    Of a run they are what its store was prepared with, by its encoder or else its recipe, so that
    new scans become like those of its training.

    Args:
        recipe: a shipped recipe's name, a YAML file, a run folder, or the encoder folder of one.

    Raises:
        RecipeError: none of these.
    """
    folder = Path(recipe)
    config, own = folder / "config.json", folder / "recipe.yaml"
    if own.is_file():
        config = folder / "encoder" / "config.json"
    elif not config.is_file():
        if folder.is_dir():
            raise RecipeError(f"{folder}: neither a run nor an encoder; --recipe takes RUN")
        return Recipe.load(recipe).prepare, False
    begun = Recipe.load(own if own.is_file() else None)
    plain = begun.changed(prepare=dict.fromkeys(OF_SOURCE))
    prepared = _prepared(config) if config.is_file() else None
    if prepared is None and not own.is_file():
        raise RecipeError(
            f"{config}: does not tell how its store was prepared; give its run folder"
        )
    return (plain if prepared is None else plain.changed(prepare=prepared.settings)).prepare, True


def _prepared(config: Path) -> StoreInfo | None:
    """How the store of an encoder's training was prepared; None where an older one is silent."""
    try:
        values = json.loads(config.read_text(encoding="utf-8")).get("prepared")
        return StoreInfo.parse(values) if values else None
    except (ValueError, AttributeError, TypeError):
        raise RecipeError(f"{config}: not an encoder's; give the folder of a run") from None
