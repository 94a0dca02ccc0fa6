"""Whether a map means anything: what it does to the score, what is left of it without training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Flags, Floats, Indices, Numbers
from vitaepp.explanation.shapley import Game, Shapley, areas_of, curves_of, rank_correlation

#: What is measured of each map, in this order.
NUMBERS = (
    "insertion",
    "deletion",
    "beats_random",
    "untrained_correlation",
    "lesion_auc",
    "lesion_ratio",
)


def curve_numbers(game: Game, random: Shapley, spread: float, map_: Floats) -> dict[str, float]:
    """How much faster the score rises and falls in the order of a map than in random orders.

    The parts come, or go, by their value in the map, the highest first. The area under the curve
    is compared with the mean area of the random orders that the Shapley values were sampled with.

    Args:
        game: that the values of coalitions are taken from.
        random: its Shapley values.
        spread: what is one unit: the standard deviation of the score over subjects.
        map_: `(part,)`.

    Returns:
        `insertion` and `deletion`, gains over random orders in standard deviations of the score,
        above 0 where the map is better; and `beats_random`, the share of random orders that it is
        better than in both together. An order as good as the map counts half.

    Source:
        Petsiuk et al. 2018, RISE.
    """
    order = np.argsort(-map_, kind="stable")
    # Going in this order leaves the coalitions that coming in the reverse one makes.
    inserted, deleted = areas_of(curves_of(game, np.stack([order, order[::-1]])))
    mean, scale = random.areas.mean(), spread if spread > 0 else np.nan
    contrasts = random.areas.reshape(-1, 2) @ np.array([[1, -1], [-1, 1]])
    return {
        "insertion": float(inserted - mean) / scale,
        "deletion": float(mean - deleted) / scale,
        "beats_random": _share_below(float(inserted - deleted), contrasts),
    }


def _share_below(value: float, others: Floats) -> float:
    """How many others are less, and half of those that differ by rounding alone."""
    equal = np.abs(others - value) <= 1e-6 * max(abs(value), float(np.abs(others).max()))
    return float(np.mean(np.where(equal, 0.5, others < value)))


def lesion_numbers(map_: Numbers, lesion: Flags) -> dict[str, float]:
    """How far a map, whatever its sign, is higher inside a lesion than outside.

    Args:
        map_: a density, `(*space)`.
        lesion: `(*space)`, with voxels inside and outside.

    Returns:
        `lesion_auc`, the chance that a voxel inside has a higher value than one outside, 0.5 for a
        map that knows nothing; and `lesion_ratio`, the mean inside divided by that of the image.
    """
    from sklearn.metrics import roc_auc_score

    strength = np.abs(map_).astype(np.float64)
    mean = float(strength.mean())
    return {
        "lesion_auc": float(roc_auc_score(lesion.ravel(), strength.ravel())),
        "lesion_ratio": float(strength[lesion].mean()) / mean if mean > 0 else float("nan"),
    }


def of_maps(
    maps: Mapping[str, Floats],
    untrained: Mapping[str, Floats],
    voxels: Indices,
    lesion: Flags | None,
    game: Game,
    random: Shapley,
    spread: float,
) -> dict[str, dict[str, float]]:
    """All numbers of the maps of one subject, by their names.

    Args:
        maps: `(part,)` each.
        untrained: the same maps of the network with random weights, where there are such.
        voxels: `(*space)`, the part that each voxel belongs to.
        lesion: `(*space)`; None where the subject has none, or nothing else.
        game: that the values of coalitions are taken from.
        random: its Shapley values.
        spread: of the score over subjects.
    """
    sizes = np.bincount(voxels.ravel())
    scores = {}
    for name, values in maps.items():
        numbers = dict.fromkeys(NUMBERS, float("nan"))
        numbers |= curve_numbers(game, random, spread, values)
        if name in untrained:
            numbers["untrained_correlation"] = rank_correlation(values, untrained[name])
        if lesion is not None:
            numbers |= lesion_numbers((values / sizes)[voxels], lesion)
        scores[name] = numbers
    return scores


def averaged(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """The mean of each number over subjects, for each map; None where none has it."""
    means = table.groupby("map", sort=False)[list(NUMBERS)].mean()
    return {
        str(name): {k: None if np.isnan(row[k]) else float(row[k]) for k in NUMBERS}
        for name, row in means.to_dict("index").items()
    }
