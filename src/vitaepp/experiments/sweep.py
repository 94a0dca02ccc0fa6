"""Sweeps: experiments that a user writes as a file of variants.

title: Learning rates          # optional
base: {optim.epochs: 40}       # optional: settings of all variants
seeds: 3                       # optional
variants:
  lr-1e-3: {optim.lr: 1e-3}    # the first one is what the others are compared with
  lr-3e-4: {optim.lr: 3e-4}
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitaepp.errors import RecipeError, nearest
from vitaepp.experiments.catalogue import EXPERIMENTS, Experiment, Variant, find
from vitaepp.recipe.recipe import resolve
from vitaepp.recipe.values import read_mapping, read_text_file

_PARTS = ("title", "base", "seeds", "variants")


@dataclass(frozen=True)
class Plan:
    """What is to be run: an experiment, and what its file says beside the variants.

    Attributes:
        experiment: shipped, or read from a file.
        base: settings of all variants, by name; None for a shipped experiment.
        seeds: repetitions.
    """

    experiment: Experiment
    base: Mapping[str, Any] | None = None
    seeds: int = 1


def read_experiment(name: str | os.PathLike[str]) -> Plan:
    """A shipped experiment by its name, or the one in a file.

    Raises:
        RecipeError: there is none, or the file says something that cannot be.
    """
    path = Path(name)
    if not path.is_file() and path.suffix not in (".yaml", ".yml"):
        return Plan(find(str(name)))
    if not path.is_file():
        raise RecipeError(f"{path}: no such file; an experiment is a file of variants or a name")
    values = read_mapping(read_text_file(path), str(path))
    for part in values:
        if part not in _PARTS:
            raise RecipeError(f"{path}: unknown entry {part}; {nearest(str(part), _PARTS)}")
    if path.stem in EXPERIMENTS:
        raise RecipeError(
            f"{path}: {path.stem} is the name of a shipped experiment; name the file otherwise"
        )
    base = _settings(values.get("base"), f"{path}: base")
    seeds = values.get("seeds", 1)
    if type(seeds) is not int or seeds < 1:
        raise RecipeError(f"{path}: seeds={seeds}: give a whole number of at least 1")
    variants = _variants(path, values.get("variants"), base)
    title = str(values.get("title") or f"Sweep {path.stem}")
    return Plan(Experiment(path.stem, title, "classification", variants), base, seeds)


def _variants(path: Path, values: Any, base: Mapping[str, Any]) -> tuple[Variant, ...]:
    if not isinstance(values, Mapping) or not values:
        raise RecipeError(
            f"{path}: variants: write one or more as NAME: {{SETTING: VALUE}}, for example "
            "fast: {optim.lr: 1e-3}"
        )
    recipe, variants = resolve(None, base, where=f"{path}: base"), []
    first = str(next(iter(values)))
    for key, settings in values.items():
        name = str(key)
        if not re.fullmatch(r"[\w.+=-]+", name):
            raise RecipeError(
                f"{path}: variant {name!r}: a name has letters, digits and - _ . + = only, because "
                "it names a folder"
            )
        where = f"{path}: variant {name}"
        changes = _settings(settings, where)
        resolve(recipe, changes, where=where)
        variants.append(Variant(name, name, changes, "" if name == first else first))
    return tuple(variants)


def _settings(values: Any, where: str) -> dict[str, Any]:
    if values is not None and not isinstance(values, Mapping):
        raise RecipeError(f"{where}: write settings as SETTING: VALUE, found {values!r}")
    return {str(name): value for name, value in (values or {}).items()}
