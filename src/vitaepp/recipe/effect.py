"""Which of the settings that somebody gave have no effect beside the others, and why."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from vitaepp.recipe.methods import METHODS, not_read
from vitaepp.recipe.recipe import Recipe, as_settings, flatten, said_by, shipped_recipes
from vitaepp.recipe.values import split_setting
from vitaepp.system.text import as_typed

#: What shapes a transformer, and has no meaning for a ResNet.
_OF_TRANSFORMERS = tuple(
    f"model.{name}"
    for name in ["size", "embed_dim", "depth", "num_heads", "patch_size", "pool_block", "drop_path"]
)

#: What `views.keep=size` leaves out of both views.
_OF_SIZE = tuple(
    f"views.{view}.{name}" for view in ("first", "second") for name in ("crop", "aspect", "scale")
)

#: How the names of settings begin that only `prepare` and pre-training read, and no fine-tuning.
_NOT_OF_TUNING = (
    *("prepare.", "method", "loss.", "simsiam.", "mocov3.", "data.split", "data.without_label"),
    *("views.second.", "views.modality_dropout", "trainer.watch", "trainer.replay"),
)

#: Those that the fine-tuning of a task does not read besides.
_NOT_OF_TASK: dict[str, tuple[str, ...]] = {
    "classification": ("finetune.width",),
    "regression": ("finetune.width", "finetune.class_weights"),
    "segmentation": ("finetune.mixup", "model.pool"),
}


def given_names(
    recipe: Recipe | Mapping[str, Any] | str | os.PathLike[str] | None,
    settings: str | Sequence[str],
) -> set[str]:
    """The settings that a person gave: as `name=value`, or in a recipe of their own.

    What a recipe says as the defaults do is not counted, and neither is one that names every
    setting, which a run has written. Where `method=...` is given, the recipe was written for
    another method, and is not counted.

    Args:
        recipe: as for `pretrain`.
        settings: `name=value`, one or several.
    """
    given = {split_setting(setting)[0] for setting in as_settings(settings)}
    if "method" in given or isinstance(recipe, Recipe | None) or str(recipe) in shipped_recipes():
        return given
    defaults, said = flatten(Recipe().model_dump()), said_by(recipe)
    if said.keys() >= defaults.keys():
        return given
    values = flatten(Recipe.load(recipe).model_dump())
    return given | {name for name in said if values.get(name) != defaults.get(name)}


def without_effect(
    recipe: Recipe, given: Collection[str], task: str | None = None
) -> Iterator[str]:
    """A line for each setting that leaves others without effect that a person gave.

    Args:
        recipe: every setting, as it is trained.
        given: names of the settings that were given.
        task: of a fine-tuning; unset, it is a pre-training.
    """
    values = flatten(recipe.model_dump())
    left = [name for name in values if name in given]
    values["task"] = task
    for cause, idle in _causes(recipe, left, task):
        names = [name for name in left if name in idle]
        left = [name for name in left if name not in idle]
        if names:
            listed = ", ".join(f"{name}={as_typed(values[name])}" for name in names)
            verb = "has" if len(names) == 1 else "have"
            yield f"{cause}={as_typed(values[cause])}: {listed} {verb} no effect"
    sides = _sides(recipe)
    flips = [
        name
        for name in left
        if name.endswith(".flip")
        and (values[name] in ("sides", "all") or not sides.isdisjoint(values[name]))
    ]
    if "side" in recipe.views.keep and flips:
        yield (
            f"views.keep={as_typed(recipe.views.keep)}: left and right are not mirrored, whatever "
            f"{' and '.join(f'{name}={as_typed(values[name])}' for name in flips)} says"
        )


def _sides(recipe: Recipe) -> set[int]:
    """The axis from left to right: a volume's first, a picture's second; both if it is unknown."""
    return {2: {1}, 3: {0}}.get(len(recipe.prepare.size or ()), {0, 1})


def tuned_by(recipe: Recipe, task: str) -> dict[str, Any]:
    """The settings of `finetune.*` that have an effect on the fine-tuning of a task."""
    values = recipe.finetune.model_dump(mode="json")
    names = [f"finetune.{name}" for name in values]
    idle = {name for _, part in _causes(recipe, names, task) for name in part}
    return {name: value for name, value in values.items() if f"finetune.{name}" not in idle}


def _causes(
    recipe: Recipe, names: Sequence[str], task: str | None
) -> Iterator[tuple[str, Collection[str]]]:
    """A setting or the task, and those of some settings that have no effect beside its value."""
    if task is None:
        yield "method", not_read(recipe.method, names)
    else:
        idle = (*_NOT_OF_TUNING, *_NOT_OF_TASK[task])
        yield "task", [name for name in names if name.startswith(idle)]
        if recipe.finetune.blocks == 0:
            yield "finetune.blocks", ("finetune.layer_decay",)
    if recipe.model.backbone != "vit":
        yield "model.backbone", _OF_TRANSFORMERS
    if "size" in recipe.views.keep:
        yield "views.keep", _OF_SIZE
    for view in ("first", "second"):
        low, _ = recipe.views.of(view).crop
        if low == 1:
            yield f"views.{view}.crop", (f"views.{view}.aspect",)
    if recipe.views.normalize != "cohort":
        yield "views.normalize", ("views.cohort_mean", "views.cohort_std")
    if task is not None or not METHODS[recipe.method].masked:
        return
    for term in type(recipe.loss).model_fields:
        weight = f"loss.{term}.weight"
        if not getattr(recipe.loss, term).weight:
            # Standardised targets are what the decoder predicts, whichever loss looks at it.
            kept = (weight, "loss.reconstruction.normalize_targets")
            yield weight, [n for n in names if n.startswith(f"loss.{term}.") and n not in kept]
    if recipe.loss.perceptual.weight and recipe.loss.perceptual.weights == "none":
        own = "loss.perceptual.weights"
        yield own, [n for n in names if n.startswith("loss.perceptual.") and n != own]
    if not recipe.loss.contrastive.weight:
        yield "loss.contrastive.weight", [n for n in names if n.startswith("views.second.")]
