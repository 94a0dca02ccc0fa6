"""What maps are called, and their numbers in words: under a panel, on the terminal, in a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: The maps in the order in which they are shown, and what people call them.
HEADS = {
    "shapley": "Shapley values",
    "occlusion": "occlusion",
    "rollout": "attention rollout",
    "untrained": "Shapley, untrained",
    "patches": "patch features",
    "deviations": "less the mean here",
    "regions": "regions",
}


def caption(facts: Mapping[str, Any]) -> list[str]:
    """What stands under the maps of a subject, in a few lines.

    Args:
        told: of the subject, as in explain.json.
    """
    # A baseline that is 0 but for rounding is shown as 0.
    baseline = facts["baseline"] if abs(facts["baseline"]) > 1e-6 * abs(facts["total"]) else 0.0
    error = "" if facts["error"] is None else f"; standard error of a part {facts['error']:.2g}"
    head = (
        f"{facts['explained']}: {facts['total']:#.3g}. Shapley values (orange for, blue against) "
        f"sum to {facts['sum']:#.3g}, from {baseline:#.3g} on{error}"
    )
    return [head, *map_lines(facts["maps"])]


def map_lines(maps: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """A line a map.

    Args:
        maps: the numbers of `checks` by the maps' names, None where there is none.
    """
    return [f"{HEADS[name]}: {'; '.join(_in_words(numbers))}" for name, numbers in maps.items()]


def _in_words(numbers: Mapping[str, float | None]) -> Iterable[str]:
    if numbers["insertion"] is not None and numbers["deletion"] is not None:
        yield (
            f"insertion {numbers['insertion']:+.2f}, deletion {numbers['deletion']:+.2f} SD over "
            "random orders"
        )
    if numbers["beats_random"] is not None:
        yield f"better than {numbers['beats_random']:.0%} of them"
    if numbers["untrained_correlation"] is not None:
        yield f"correlation with random weights {numbers['untrained_correlation']:.2f}"
    if numbers["lesion_auc"] is not None:
        yield f"AUC for the mask {numbers['lesion_auc']:.2f}"
