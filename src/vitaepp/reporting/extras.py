"""Sections that are there only where their file is: `audit.json` and what other verbs write.

A verb's section is a function from the content of its file to a `Section`, entered in `FILES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitaepp.presentation import numbers
from vitaepp.presentation.charts import Figure


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        title: its head.
        intro: a sentence or two on how to read it.
        lines: a table, its head first; empty for none.
        lights: a traffic light for each line below the head: `green`, `yellow` or `red`.
        figures: charts.
    """

    title: str
    intro: str
    lines: Sequence[Sequence[str]] = ()
    lights: Sequence[str] = ()
    figures: Sequence[Figure] = ()


Make = Callable[[Any, Path], Section]


def audit(content: Any, _folder: Path) -> Section:
    """What `vitaepp audit` found."""
    lines = [("Question", "Score", "Verdict", "In words")]
    lights = []
    for item in content:
        score = f"{float(item['score']):.3g} {item.get('metric') or ''}".strip()
        if item.get("interval"):
            score += f" {numbers.interval(*item['interval'])}"
        lines.append((str(item["what"]), score, str(item["verdict"]), str(item["sentence"])))
        lights.append(str(item["verdict"]))
    intro = "Whether the label could be told by a shortcut: a fact that is not the disease."
    return Section("Audit", intro, lines, lights)


#: The function of each file, in the order of the page.
FILES: dict[str, Make] = {"audit.json": audit}
