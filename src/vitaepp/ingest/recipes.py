"""Where prepare's settings come from: a recipe, or a run whose store the new one is to be like."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitaepp.data.runfolder import RunFolder
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.errors import RecipeError, nearest
from vitaepp.recipe.recipe import Recipe, resolve
from vitaepp.recipe.sections import OF_SOURCE, PrepareSettings, marked
from vitaepp.system.files import read_json


def prepare_settings(
    recipe: str | os.PathLike[str] | None,
    settings: PrepareSettings | Mapping[str, Any] | str | Sequence[str],
    changes: Mapping[str, Any],
) -> tuple[PrepareSettings, bool, bool]:
    """What to prepare with, whether it comes from a run, and whether its modalities do.

    Args:
        recipe: a shipped recipe's name, a YAML file, a run folder, or the encoder folder of one.
        settings: settings of a recipe that replace its own.
        changes: settings of `prepare` by their own names, which come last; None for unset ones.

    Raises:
        RecipeError: none of these is a recipe, or a setting is unknown or does not fit.
    """
    begun, of_run = _begun(recipe)
    if isinstance(settings, PrepareSettings):
        settings = {"prepare": settings}
    given = {k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in changes.items()}
    given = {name: value for name, value in given.items() if value is not None}
    known = PrepareSettings.model_fields
    for name in changes.keys() - known.keys():
        raise RecipeError(f"prepare: no setting or argument {name}; {nearest(name, known)}")
    chosen = resolve(resolve(begun, settings), {"prepare": given}, where="prepare").prepare
    if of_run and "window" not in given:
        # The run's own, of which some modalities may not be asked for.
        kept = {m: w for m, w in (chosen.window or {}).items() if m in (chosen.modalities or ())}
        chosen = chosen.model_copy(update={"window": kept or None})
    typed = resolve(resolve(None, settings), {"prepare": given}).prepare.modalities
    return chosen, of_run, of_run and typed is None


def _begun(recipe: str | os.PathLike[str] | None) -> tuple[Recipe, bool]:
    """A recipe, and whether it is a run's: then its settings are those of the run's store.

    They come from the run's encoder or else its recipe, so that new scans become like those of its
    training.
    """
    folder = Path(recipe or "")
    config, own = folder / "config.json", folder / "recipe.yaml"
    if recipe is None:
        return Recipe(), False
    if own.is_file():
        config = folder / "encoder" / "config.json"
    elif not config.is_file():
        if folder.is_dir():
            raise RecipeError(f"{folder}: neither a run nor an encoder; `recipe` takes one of them")
        return resolve(recipe), False
    prepared = _prepared(config) if config.is_file() else None
    if prepared is None and not own.is_file():
        raise RecipeError(
            f"{config}: does not tell how its store was prepared; give its run folder"
        )
    plain = {n: PrepareSettings.model_fields[n].default for n in marked(PrepareSettings, OF_SOURCE)}
    of_store = {} if prepared is None else prepared.settings
    begun = RunFolder(folder).recipe() if own.is_file() else None
    return resolve(begun, {"prepare": plain | of_store}), True


def _prepared(config: Path) -> StoreInfo | None:
    """How the store of an encoder's training was prepared; None where an older one is silent."""
    try:
        values = read_json(config).get("prepared")
        return StoreInfo.parse(values) if values else None
    except (ValueError, AttributeError, TypeError):
        raise RecipeError(f"{config}: not an encoder's; give the folder of a run") from None
