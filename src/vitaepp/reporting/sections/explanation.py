"""The maps of `explain`: their numbers, and every slice of a few subjects with each map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any

from vitaepp.explanation.words import HEADS, caption
from vitaepp.reporting.contents import Explanation
from vitaepp.reporting.images import explained, grouped, sheets

#: The columns of the table: the number, its head, and how it is written.
_COLUMNS = (
    ("insertion", "Insertion", "+.2f"),
    ("deletion", "Deletion", "+.2f"),
    ("beats_random", "Beats random", ".0%"),
    ("untrained_correlation", "Random weights", ".2f"),
    ("lesion_auc", "Mask, AUC", ".2f"),
)


def explanation(
    result: Explanation,
    folder: str,
    spacing: Sequence[float] | None,
    directed: bool,
    budget: int,
) -> dict[str, Any]:
    """What the page shows of maps.

    Args:
        result: its files.
        folder: where it lies, in words.
        spacing: of the voxels, for true proportions; None takes voxels as cubes.
        directed: whether the axes of volumes run to the patient's right, front and head.
        budget: bytes of images that it may take; the first subject is shown in any case.
    """
    facts = result.facts
    made, broken = sheets(result.volumes, spacing, directed, budget, explained)
    used = [c for c in _COLUMNS if any(n.get(c[0]) is not None for n in facts["maps"].values())]
    rows = [
        (HEADS[name], [_cell(n.get(k), _of_subjects(facts, name, k), how) for k, _, how in used])
        for name, n in facts["maps"].items()
    ]
    variance, position = facts["patch_maps"]["variance"], facts["patch_maps"]["position"]
    model = facts.get("model") or {}
    return {
        "place": folder,
        "explained": " or ".join(facts["explained"]),
        "model": model.get("file") or "",
        "caveat": facts.get("caveat") or "",
        "taken_away": facts["taken_away"],
        "store": facts.get("store") or "",
        "n": len(facts["subjects"]),
        "heads": [head for _, head, _ in used],
        "rows": rows,
        "variance": f"{sum(variance):.0%}",
        "position": "" if position[0] is None else f"{position[0]:.0%}",
        "subjects": grouped(made),
        "captions": {str(subject["subject"]): caption(subject) for subject in facts["subjects"]},
        "broken": [f"{folder}/{line}" for line in broken],
    }


def _of_subjects(facts: Mapping[str, Any], name: str, number: str) -> list[float]:
    """A number of a map, of each subject that has it."""
    values = (subject["maps"].get(name, {}).get(number) for subject in facts["subjects"])
    return [value for value in values if value is not None]


def _cell(mean: float | None, values: Sequence[float], how: str) -> str:
    """A mean over subjects, with its sample deviation where there are several."""
    if mean is None:
        return "–"
    return f"{mean:{how}}" + (f" ± {stdev(values):{how[-3:]}}" if len(values) > 1 else "")
