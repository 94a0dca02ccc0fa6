"""The maps of `explain`: their numbers, and the panels of a few subjects."""

from __future__ import annotations

from typing import Any

from vitaepp.explanation.words import HEADS, caption
from vitaepp.presentation.drawing import data_uri
from vitaepp.reporting.contents import Explanation
from vitaepp.reporting.images import MOST_VOLUMES

#: The columns of the table: the number, its head, and how it is written.
_COLUMNS = (
    ("insertion", "Insertion", "+.2f"),
    ("deletion", "Deletion", "+.2f"),
    ("beats_random", "Beats random", ".0%"),
    ("untrained_correlation", "Random weights", ".2f"),
    ("lesion_auc", "Mask, AUC", ".2f"),
)


def explanation(result: Explanation, folder: str, budget: int) -> dict[str, Any]:
    """What the page shows of maps.

    Args:
        result: its files.
        folder: where it lies, in words.
        budget: bytes of images that it may take; the first panel is shown in any case.
    """
    facts = result.facts
    shown: list[Any] = []
    for told in facts["subjects"]:
        file = result.panels.get(str(told["subject"]))
        if file is None or len(shown) >= MOST_VOLUMES:
            continue
        content = file.read_bytes()
        budget -= len(content)
        if shown and budget < 0:
            break
        says = f"Maps of {told['subject']}. {'. '.join(caption(told))}."
        shown.append((str(told["subject"]), data_uri(content, "png"), says))
    used = [c for c in _COLUMNS if any(n.get(c[0]) is not None for n in facts["maps"].values())]
    rows = [
        (HEADS[name], ["–" if n.get(k) is None else format(n[k], how) for k, _, how in used])
        for name, n in facts["maps"].items()
    ]
    variance, position = facts["patch_maps"]["variance"], facts["patch_maps"]["position"]
    return {
        "place": folder,
        "explained": " or ".join(facts["explained"]),
        "taken_away": facts["taken_away"],
        "n": len(facts["subjects"]),
        "heads": [head for _, head, _ in used],
        "rows": rows,
        "variance": f"{sum(variance):.0%}",
        "position": "" if position[0] is None else f"{position[0]:.0%}",
        "panels": shown,
    }
