"""Settings that depend on the images or the machine, settled when a training starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo, alike
from vitaepp.errors import RecipeError
from vitaepp.nn.vgg import known_weights
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe, resolve
from vitaepp.recipe.sections import OF_IMAGES, PrepareSettings, marked
from vitaepp.system.progress import counted
from vitaepp.system.text import as_typed

#: Images that are read at a time.
BLOCK = 64


def prepare_not_used(recipe: Recipe, info: StoreInfo) -> str:
    """A line about what a recipe says of `prepare` and a store is not; empty if it is all of it.

    Args:
        recipe: to train with.
        info: of the store, which is trained on as it is.
    """
    have, asked_for, there = info.settings, [], []
    for name in marked(PrepareSettings, OF_IMAGES):
        wanted, is_ = getattr(recipe.prepare, name), have.get(name)
        if wanted in (None, PrepareSettings.model_fields[name].default):
            continue
        if name in ("size", "spacing") and len(wanted) == 1:
            wanted *= info.ndim
        if name == "modalities" and wanted == ("rgb",):
            continue  # whose channels are the colours
        if not alike(wanted, is_):
            asked_for.append(f"prepare.{name}={as_typed(getattr(recipe.prepare, name))}")
            there.append(f"{name} {as_typed(is_)}")
    if not asked_for:
        return ""
    return (
        f"the recipe's {', '.join(asked_for)} {'is' if len(asked_for) == 1 else 'are'} not used: "
        f"the store was prepared with {', '.join(there)}"
    )


def settled(
    recipe: Recipe, store: Store, rows: Sequence[int], processes: int = 1
) -> tuple[Recipe, tuple[str, ...]]:
    """A recipe that says the same on every machine, and lines that tell what was settled.

    The length in updates becomes epochs, `auto` weights of VGG become what is there, and with
    `views.normalize=cohort` mean and deviation are taken from the images that are trained on.

    Args:
        recipe: every setting.
        store: what is trained on.
        rows: of the store, those that are trained on.
        processes: that share the batches.

    Raises:
        RecipeError: of the cohort's mean and deviation, one is given.
    """
    changes: dict[str, Any] = {}
    lines = []
    weights = known_weights(recipe.loss.perceptual.weights)
    if weights != recipe.loss.perceptual.weights:
        changes["loss.perceptual.weights"] = weights
    optim = recipe.optim
    if optim.updates is not None:
        each = updates_per_epoch(recipe, len(rows), processes)
        epochs = math.ceil(optim.updates / each)
        changes["optim.epochs"] = epochs
        lines.append(
            f"optim.updates={optim.updates}: {counted(epochs, 'epoch')} of "
            f"{counted(each, 'update')}"
        )
    views = recipe.views
    if views.normalize == "cohort" and views.cohort is None:
        for given, other in (("cohort_mean", "cohort_std"), ("cohort_std", "cohort_mean")):
            if getattr(views, given) is not None:
                raise RecipeError(
                    f"views.{given}={as_typed(getattr(views, given))}: give views.{other}, too, or "
                    "neither, which takes both from the images"
                )
        found = dict(
            zip(("cohort_mean", "cohort_std"), channel_statistics(store, rows), strict=True)
        )
        changes |= {f"views.{name}": values for name, values in found.items()}
        shown = (
            f"views.{name}={as_typed([float(f'{v:.4g}') for v in values])}"
            for name, values in found.items()
        )
        lines.append(
            f"views.normalize=cohort: {' and '.join(shown)}, those of {counted(len(rows), 'image')}"
        )
    return resolve(recipe, changes), tuple(lines)


def updates_per_epoch(recipe: Recipe, images: int, processes: int = 1) -> int:
    """How often the weights are changed in one pass over the images."""
    whole, rest = divmod(images, recipe.optim.batch_size * processes)
    steps = whole + (rest >= METHODS[recipe.method].smallest_batch)
    return max(1, math.ceil(steps / recipe.optim.accumulate))


def channel_statistics(
    store: Store, rows: Sequence[int]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all voxels of images, in [0, 1].

    Args:
        store: prepared store.
        rows: which images; one that lacks a channel does not count for it.
    """
    channels = len(store.info.modalities)
    sums, squares, counts = (np.zeros(channels) for _ in range(3))
    present = store.present[list(rows)]
    done = 0
    for images in store.batches(BLOCK, rows):
        values = images.reshape(*images.shape[:2], -1).astype(np.float64) / 255
        there = present[done : done + len(images)]
        done += len(images)
        sums += (values.sum(axis=2) * there).sum(axis=0)
        squares += (np.square(values).sum(axis=2) * there).sum(axis=0)
        counts += there.sum(axis=0) * values.shape[2]
    mean = sums / np.maximum(counts, 1)
    std = np.sqrt(np.maximum(squares / np.maximum(counts, 1) - mean**2, 0))
    return tuple(mean.tolist()), tuple(std.tolist())
