"""Sections that are there only where their file is: `audit.json` and what other verbs write.

A verb's section is a function from the content of its file to a `Section`, entered in `FILES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from vitaepp.auditing.items import COUNTS
from vitaepp.presentation import numbers
from vitaepp.presentation.charts import Figure, dots_chart
from vitaepp.presentation.drawing import Style, data_uri
from vitaepp.presentation.names import CONTROLS
from vitaepp.reporting.images import webp
from vitaepp.system.progress import counted

#: Rows of a table on the page; the others are in the verb's own file.
MOST_ROWS = 20

#: Neighbours of a new scan that the page names.
NEAREST = 5


@dataclass(frozen=True)
class Picture:
    """A picture that a verb has drawn.

    Attributes:
        title: above it.
        says: what it shows, below the title and for screen readers.
        source: data URI.
        width: in pixels.
        height: in pixels.
    """

    title: str
    says: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        title: its head.
        intro: a sentence or two on how to read it.
        lines: a table, its head first; empty for none.
        lights: a traffic light for each line below the head: `green`, `yellow` or `red`.
        figures: charts.
        pictures: drawn by the verb.
        doubts: a line for each label whose results are to be checked.
    """

    title: str
    intro: str
    lines: Sequence[Sequence[str]] = ()
    lights: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    pictures: Sequence[Picture] = ()
    doubts: Mapping[str, str] = field(default_factory=dict)


Make = Callable[[Any, Path], Section]


def audit(content: Any, _folder: Path) -> Section:
    """What `vitaepp audit` found."""
    lines = [("Question", "Score", "Verdict", "In words")]
    lights = []
    for item in content:
        value, metric = float(item["score"]), item.get("metric") or ""
        score = f"{value:,.{0 if metric in COUNTS else 3}f} {metric}".strip()
        if item.get("interval"):
            score += f" {numbers.interval(*item['interval'])}"
        lines.append((str(item["what"]), score, str(item["verdict"]), str(item["sentence"])))
        lights.append(str(item["verdict"]))
    intro = (
        "Whether the label could be told by a shortcut: a fact that is not the disease. All p are "
        "corrected for the number of questions (Holm)."
    )
    label, reds = content[0].get("label") if content else None, lights.count("red")
    answers = f"the audit has {counted(reds, 'red answer')}, see Checks and explanations"
    doubts = {str(label): answers} if label is not None and reds else {}
    return Section("Audit", intro, lines, lights, doubts=doubts)


def neighbours(content: Any, folder: Path) -> Section:
    """What `vitaepp neighbours` found: similar subjects, and images that are there twice."""
    new, pairs = bool(content["new"]), int(content["near_duplicates"])
    whose = counted(content["queries"], "new scan" if new else "subject")
    intro = (
        f"For each of {whose}, the most similar of {content['n']:,} subjects"
        f"{_of_store(content)}, by the cosine of standardised features."
    )
    lines: list[tuple[str, ...]] = []
    if "precision" in content:
        columns = list(content["precision"])
        lines.append(("Features", *(f"nearest {k}" for k in columns)))
        sources = {"the encoder": content["precision"]}
        for name, control in content["controls"].items():
            sources[CONTROLS.get(name, name)] = control["precision"]
        for name, precision in sources.items():
            each = [precision[k] for k in columns]
            ends = [numbers.interval(one["low"], one["high"]) for one in each]
            cells = [f"{one['value']:.3f} {e}" for one, e in zip(each, ends, strict=True)]
            lines.append((name, *cells))
        chance = [f"{content['precision'][k]['chance']:.3f}" for k in columns]
        lines.append(("chance", *chance))
        intro += (
            " The table has the share of neighbours of the subject's own class of "
            f"{content['label']}, with 95 % intervals; a person's own other images are left out."
        )
    elif new:
        table = pd.read_csv(folder / "neighbours.csv", dtype=str, keep_default_na=False)
        lines.append(("Scan", "Most similar subjects, with their similarity"))
        for query, rows in list(table.groupby("query", sort=False))[:MOST_ROWS]:
            shown = []
            for row in rows.head(NEAREST).itertuples():
                label = f", {row.label!s}" if row.label else ""
                shown.append(f"{row.subject!s} ({float(str(row.similarity)):.2f}{label})")
            lines.append((str(query), ", ".join(shown)))
    twins = "No near-duplicates were found."
    if pairs:
        twins = (
            f"{counted(pairs, 'pair')} may be the same image twice: look at them before you trust "
            "a result, and see near_duplicates.csv."
        )
    pictures = [
        _picture(
            folder / "neighbours.png",
            "The most similar subjects",
            "in each line a scan and its most similar subjects, with the similarity of each",
        ),
        _picture(
            folder / "near_duplicates.png",
            "Near-duplicates",
            "pairs of images that may be the same, side by side",
        ),
    ]
    return Section(
        "Similar subjects", f"{intro} {twins}", lines, pictures=[p for p in pictures if p]
    )


def qc(content: Any, folder: Path) -> Section:
    """What `vitaepp qc` found: scans that are unlike the others."""
    limit, flagged = float(content["limit"]), int(content["flagged"])
    table = pd.read_csv(folder / "qc.csv", dtype={"subject": str, "reason": str})
    x, y = (table[f"{name}_deviation"].to_numpy(float) for name in ("distance", "error"))
    by_error = bool(pd.notna(y).any())
    measures = "what their features have that those of the others lack (distance)"
    if by_error:
        measures += ", or by how well hidden patches are filled in (error)"
    intro = (
        f"{flagged:,} of {counted(int(content['n']), 'scan')}{_of_store(content)} "
        f"{'is' if flagged == 1 else 'are'} unlike the others: farther than {limit:g} robust "
        f"standard deviations from the store's median by {measures}. About one in a thousand is "
        "flagged by chance. A flag is a reason to look at a scan, not to remove it."
    )
    odd = table[table["flagged"]]
    order = (-odd[["distance_deviation", "error_deviation"]].abs().max(axis=1)).argsort()
    odd = odd.iloc[order.to_numpy()]
    lines = [("Scan", "Reason")] if len(odd) else []
    lines += list(zip(odd["subject"], odd["reason"].fillna(""), strict=True))[:MOST_ROWS]
    if len(odd) > MOST_ROWS:
        intro += f" The {MOST_ROWS} oddest are listed; qc.csv has all."
    figures = []
    if by_error:
        tips = [
            f"{subject} · distance {a:+.1f}, error {b:+.1f}"
            for subject, a, b in zip(table["subject"], x, y, strict=True)
        ]
        drawing = dots_chart(
            x,
            y,
            [int(f) for f in table["flagged"]],
            tips,
            limits=(limit, limit),
            says=f"Deviation of each scan's distance and error; {flagged} of {len(table)} flagged",
            x_name="deviation of the distance",
            y_name="deviation of the error",
        )
        legend = [(Style("dot", 0), "like the others"), (Style("dot", 1), "flagged")]
        columns = ["subject", "distance_deviation", "error_deviation", "flagged"]
        values = [columns, *table[columns].to_numpy().tolist()]
        note = "in robust standard deviations from the median; dotted: the limits"
        if drawing is not None:
            figures.append(
                Figure("Odd scans", note, drawing, legend[: 2 if flagged else 1], values)
            )
    says = "the oddest first, each with its distance and error as in qc.csv"
    page = _picture(folder / "flagged.png", "Flagged scans", says)
    return Section("Odd scans", intro, lines, figures=figures, pictures=[page] if page else [])


def _of_store(content: Mapping[str, Any]) -> str:
    """Which store a result is of; an older one does not tell."""
    store = content.get("store")
    return f" of the store {store}" if store else ""


def _picture(file: Path, title: str, says: str) -> Picture | None:
    """A verb's picture; None where it has drawn none."""
    if not file.is_file():
        return None
    try:
        with Image.open(file, formats=["PNG"]) as opened:
            page = opened.convert("RGB")
    except (SyntaxError, Image.DecompressionBombError) as error:  # Pillow's for damaged files
        raise ValueError(f"{file.name}: {error}") from None
    return Picture(title, says, data_uri(webp(page), "webp"), page.width, page.height)


#: The function of each file, in the order of the page.
FILES: dict[str, Make] = {"audit.json": audit, "neighbours.json": neighbours, "qc.json": qc}
