"""The table of an audit: its items, their traffic lights, and the files that hold them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from vitaepp.presentation import tables
from vitaepp.presentation.numbers import interval, p_value
from vitaepp.system.files import write_json, write_text
from vitaepp.system.results import ResultFiles

Verdict = Literal["green", "yellow", "red"]

#: Metrics that count something.
COUNTS = ("participants", "pairs across a split", "questions")

VERDICTS: tuple[Verdict, ...] = ("green", "yellow", "red")

#: What `audit` writes. Who finds audit.json takes the folder for complete.
FILES = ResultFiles(
    "audit",
    {
        "audit.json": ("what", "score", "verdict", "sentence"),
        "audit.csv": (*("what", "score", "verdict", "sentence", "(metric|n|p|p_holm|low|high)?"),),
        "duplicates.csv": (
            *("both sides", "found by", "(bits|correlation|distance)?"),
            "((participant of |label of |tested in, )?(first|second))?",
        ),
    },
    last=("audit.json",),
    unsigned=("audit.md",),
)


@dataclass(frozen=True)
class Item:
    """One question and its answer.

    Attributes:
        what: the question, in a few words.
        score: a number that answers it, of the kind that `metric` names.
        verdict: `green`, `yellow` or `red`.
        sentence: the answer in words.
        more: `metric`, `p`, `p_holm`, `interval`, `n` and what else was measured.
    """

    what: str
    score: float
    verdict: Verdict
    sentence: str
    more: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The item as audit.json has it."""
        first = {"what": self.what, "score": self.score, "verdict": self.verdict}
        return {**first, "sentence": self.sentence, **self.more}


@dataclass(frozen=True)
class Audit:
    """All answers of an audit, in the order of audit.json.

    Attributes:
        items: one a question.
        path: of the audit.json that they are in; None before they are saved.
    """

    items: tuple[Item, ...]
    path: Path | None = None

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, what: str) -> Item:
        for item in self.items:
            if item.what == what:
                return item
        raise KeyError(what)

    def __repr__(self) -> str:
        counts = (f"{sum(i.verdict == v for i in self.items)} {v}" for v in reversed(VERDICTS))
        return f"Audit({', '.join(counts)})"

    def __str__(self) -> str:
        lines = [cells[:-1] for cells in self._cells()]
        sentences = [f"- {item.verdict}: {item.sentence}" for item in self.items]
        return "\n".join([tables.aligned(lines), "", *sentences])

    def _repr_html_(self) -> str:
        return tables.html(self._cells(), repr(self))

    def to_frame(self) -> pd.DataFrame:
        """One row an item, unrounded."""
        rows = []
        for item in self.items:
            low, high = item.more.get("interval") or (None, None)
            numbers = {k: item.more.get(k) for k in ("metric", "n", "p", "p_holm")}
            row = {"what": item.what, "score": item.score, **numbers, "low": low, "high": high}
            rows.append(row | {"verdict": item.verdict, "sentence": item.sentence})
        return pd.DataFrame(rows)

    def to_json(self) -> list[dict[str, Any]]:
        """The content of audit.json."""
        return [item.to_json() for item in self.items]

    def save(self, folder: str | os.PathLike[str], duplicates: pd.DataFrame | None = None) -> Audit:
        """Write audit.json, audit.md and audit.csv.

        Args:
            folder: is made where missing.
            duplicates: a row a pair, for duplicates.csv; without them an earlier one is removed.

        Returns:
            The same audit, which knows its path now.
        """
        folder = Path(folder)
        with FILES.written(folder) as staged:
            write_text(staged / "audit.csv", self.to_frame().to_csv(index=False))
            write_text(staged / "audit.md", tables.markdown(self._cells(), numbers=False) + "\n")
            if duplicates is not None:
                write_text(staged / "duplicates.csv", duplicates.to_csv(index=False))
            write_json(staged / "audit.json", self.to_json())
        return Audit(self.items, folder / "audit.json")

    def _cells(self) -> list[list[str]]:
        lines = [["", "verdict", "score", "95 % interval", "p (Holm)", "n", "in words"]]
        for item in self.items:
            ends, p = item.more.get("interval"), item.more.get("p_holm")
            digits = 0 if item.more.get("metric") in COUNTS else 3
            cells = [
                f"{item.score:.{digits}f} {item.more.get('metric', '')}".strip(),
                interval(*ends) if ends else "",
                "" if p is None else p_value(p),
                str(item.more.get("n", "")),
            ]
            lines.append([item.what, item.verdict, *cells, item.sentence])
        return lines


def joined(words: Sequence[str]) -> str:
    """Words as a sentence lists them.

    >>> joined(["site"]), joined(["site", "age", "sex"])
    ('site', 'site, age and sex')
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
