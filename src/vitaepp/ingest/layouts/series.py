"""Which modality a DICOM series is: a table of patterns over its description.

The table `series.tsv` has three columns: the kind of scanner that a row is for (DICOM's Modality,
or `*`), a regular expression, and the modality, or `ignore`. The first row that is found in the
normalised description decides. A user's own table (CSV, TSV or XLSX) comes before the shipped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vitaepp.errors import SourceError
from vitaepp.ingest.layouts.tables import read_plain_table

SHIPPED = Path(__file__).with_name("series.tsv")

#: Instead of a modality: the series is left out.
IGNORE = "ignore"


@dataclass(frozen=True)
class SeriesRule:
    """One row of a table: which descriptions, of which kind of scanner, are which modality."""

    kind: str
    pattern: re.Pattern[str]
    modality: str


def series_rules(path: Path | None = None) -> tuple[SeriesRule, ...]:
    """The rules of a user's table, if one is given, and then the shipped ones.

    Raises:
        SourceError: the table cannot be read, lacks a column, or a pattern is no regular
            expression.
    """
    own = _rules(path) if path is not None else ()
    return (*own, *_rules(SHIPPED))


def modality_of(description: str, kind: str, rules: tuple[SeriesRule, ...]) -> str:
    """The modality of a series, `ignore`, or an empty string if no rule fits.

    >>> modality_of("AX T2 FLAIR", "MR", series_rules())
    'flair'
    >>> modality_of("T1post", "MR", series_rules())
    't1ce'
    """
    text = normalized(description)
    for rule in rules:
        if rule.kind in ("*", kind) and rule.pattern.search(text):
            return rule.modality
    return ""


def normalized(description: str) -> str:
    """A description in lower case and plain words, between spaces.

    `+c` becomes `post`, `t2*` becomes `t2 star`, and what is glued to t1, t2 or pd is split off.

    >>> normalized("Ax_T1post+C")
    ' ax t1 post post '
    >>> normalized("t2*_GRE")
    ' t2 star gre '
    """
    text = description.lower()
    text = re.sub(r"t2\s?\*", "t2 star ", text)
    text = re.sub(r"\+\s?(c|gd|gad\w*|km|contrast)\b", " post ", text)
    text = re.sub(r"[^a-z0-9]+", " ", text)
    text = re.sub(r"\b(t1|t2|pd)(?=[a-z])", r"\1 ", text)
    return f" {text.strip()} "


def _rules(path: Path) -> tuple[SeriesRule, ...]:
    if not path.is_file():
        raise SourceError(f"{path}: no such file")
    rules = []
    for line, row in enumerate(read_plain_table(path), 2):
        row = {name.lower(): value for name, value in row.items()}
        if not {"pattern", "modality"} <= row.keys():
            raise SourceError(f"{path.name}: has no columns pattern and modality")
        if not row["pattern"] or not row["modality"]:
            raise SourceError(f"{path.name}: line {line} lacks a pattern or a modality")
        try:
            pattern = re.compile(row["pattern"], re.IGNORECASE)
        except re.error:
            raise SourceError(
                f"{path.name}: line {line}: {row['pattern']} is no regular expression"
            ) from None
        rules.append(SeriesRule(row.get("kind", "").upper() or "*", pattern, row["modality"]))
    return tuple(rules)
