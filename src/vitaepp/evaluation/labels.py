"""Labels: a column of the embeddings as classes, or a line that says why it cannot be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Indices
from vitaepp.data.labels import may_be_missing, written_alike
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError, nearest
from vitaepp.system.progress import counted

#: A column of numbers with more distinct values than this may be a measurement, not classes.
MOST_NUMERIC_CLASSES = 10

Class = int | float | str


@dataclass(frozen=True)
class Labels:
    """Which rows are labelled, and with what.

    Attributes:
        name: the column.
        rows: rows of the table that have a label.
        codes: index into `classes` of each of these rows.
        classes: the values in sort order, numbers by size and text by alphabet; with two, the
            second is the positive one.
        missing: number of rows without a label.
    """

    name: str
    rows: Indices
    codes: Indices
    classes: tuple[Class, ...]
    missing: int

    def with_positive(self, positive: str | None) -> Labels:
        """The same labels, with another of two classes as the positive one, the second.

        Raises:
            EvaluationError: no such class, or more than two.
        """
        if positive is None:
            return self
        names = [str(c) for c in self.classes]
        if positive not in names:
            raise EvaluationError(
                f"label {self.name!r} has no class {positive!r}; {nearest(positive, names)}"
            )
        if len(names) != 2:
            raise EvaluationError(
                f"label {self.name!r} has {len(names)} classes, each of which is held against the "
                "rest; a positive class can be chosen of two"
            )
        if positive == names[1]:
            return self
        return replace(self, classes=self.classes[::-1], codes=1 - self.codes)

    @property
    def values(self) -> list[Class]:
        """The label of each labelled row."""
        return [self.classes[code] for code in self.codes]


def read_labels(table: pd.DataFrame, name: str) -> Labels:
    """Take a column of a table as classes.

    Empty cells, empty text and non-finite numbers are missing labels.

    Args:
        table: one row a subject, with `subject`, `split` and label columns.
        name: the column that is asked for.

    Raises:
        EvaluationError: no such column, one class only, or a continuous quantity.
    """
    values = [_plain(value) for value in label_column(table, name).tolist()]
    rows = np.array([i for i, value in enumerate(values) if value is not None], dtype=np.intp)
    given = [value for value in values if value is not None]
    if not given:
        raise EvaluationError(
            f"label {name!r} is empty for all {len(values)} subjects; give a table that has it as "
            "`labels`"
        )
    if any(isinstance(value, str) for value in given):
        given = [str(value) for value in given]
    classes = tuple(sorted(set(given)))
    if len(classes) == 1:
        raise EvaluationError(
            f"label {name!r} has one class only ({classes[0]!r} for "
            f"{counted(len(given), 'labelled subject')}, all of them); a classifier needs two or "
            "more: choose another column"
        )
    if _looks_continuous(classes, len(given)):
        middle = float(np.median([float(value) for value in given]))
        raise EvaluationError(
            f"label {name!r} looks continuous ({len(classes)} different values in {len(given)} "
            f"subjects); `evaluate` with `task=regression` predicts its "
            f"value; for classes, add a column of them, for example {name} above {middle:.4g} or "
            "not"
        )
    code = {value: i for i, value in enumerate(classes)}
    codes = np.array([code[value] for value in given], dtype=np.intp)
    return Labels(name, rows, codes, classes, len(values) - len(given))


def label_column(table: pd.DataFrame, name: str) -> pd.Series:
    """A label column of a table.

    Raises:
        EvaluationError: naming the nearest column there is.
    """
    columns = [str(c) for c in table.columns if c not in ("subject", "split")]
    if name not in columns:
        hint = nearest(name, columns) if columns else "the embeddings have none"
        hint += "" if hint.endswith("?") else ";"
        raise EvaluationError(
            f"no label column {name!r}; {hint} `labels` joins a table with more by subject"
        )
    return table[name]


def doubts(labels: Labels) -> list[str]:
    """What to ask about classes that may not be meant as they are written, a line each.

    These are words for a missing value, and classes that differ in case, accents or digits alone.
    """
    lines = []
    counts = np.bincount(labels.codes, minlength=len(labels.classes))
    for name, count in zip(labels.classes, counts.tolist(), strict=True):
        if isinstance(name, str) and may_be_missing(name):
            lines.append(
                f"label {labels.name!r}: {name!r} ({counted(count, 'subject')}) counts as a class; "
                "if it means missing, leave these cells empty"
            )
    for code, count in _codes_for_missing(labels.classes, counts.tolist()):
        lines.append(
            f"label {labels.name!r}: {code} ({counted(count, 'subject')}) counts as a class; if it "
            "means missing, leave these cells empty"
        )
    for names in written_alike(labels.classes):
        shown = " and ".join(repr(str(name)) for name in names)
        lines.append(
            f"label {labels.name!r}: {shown} are {len(names)} classes here; if they are one, "
            "write them alike"
        )
    return lines


def group_doubts(column: str, groups: Iterable[Any]) -> list[str]:
    """What to ask about sites or scanners that may not be meant as they are written.

    They differ in case, accents or digits alone, or are words for a missing value.

    >>> group_doubts("site", ["Ulm", "ulm", "Bern"])
    ["column 'site': 'Ulm' and 'ulm' are 2 groups here; if they are one, write them alike"]
    >>> group_doubts("site", ["Ulm", "Bern", "unknown"])
    ["column 'site': 'unknown' counts as a group; if it means missing, leave these cells empty"]
    """
    different = sorted(set(map(str, groups)))
    return [
        *(
            f"column {column!r}: {' and '.join(map(repr, names))} are {len(names)} groups here; if "
            "they are one, write them alike"
            for names in written_alike(different)
        ),
        *(
            f"column {column!r}: {name!r} counts as a group; if it means missing, leave these "
            "cells empty"
            for name in different
            if may_be_missing(name)
        ),
    ]


def _codes_for_missing(classes: Sequence[Class], counts: Sequence[int]) -> list[tuple[Class, int]]:
    """Classes that are numbers apart from all others, as tables write a missing value.

    Among numbers, and among words with a place on a scale as `_place` says, those that
    `codes_among` says; among other words any, but a 0 to 6 that may be a stage or a blood group.
    """
    numbers = {
        c: n
        for c, n in zip(classes, counts, strict=True)
        if re.fullmatch(r"[+-]?\d+(\.0+)?", str(c))
    }
    words = [str(c) for c in classes if c not in numbers and not may_be_missing(str(c))]
    places = {place for w in words if (place := _place(w)) is not None}
    if len(words) < max(2, len(numbers)) or len(places) > 1:
        codes = codes_among({*map(float, numbers), *places})
        return [(c, numbers[c]) for c in sorted(numbers, key=float) if float(c) in codes]
    if places or all(re.fullmatch(r"[a-eo]|ab", w, re.I) for w in words):
        return [(c, n) for c, n in numbers.items() if not re.fullmatch(r"[0-6](\.0+)?", str(c))]
    return list(numbers.items())


def _place(word: str) -> float | None:
    """Where a grade stands on its scale; None for a word that is none.

    >>> [_place(w) for w in ("IIIB", "Stage IV", "T2a", "++", "3+", "3+4", "-0.5", "high")]
    [3.0, 4.0, 2.0, 2.0, 3.0, 7.0, -0.5, None]
    """
    if re.fullmatch(r"-\d+(\.\d+)?", word):
        return float(word)
    if roman := re.fullmatch(r"(?:.*[\W_])?([ivx]+)[a-d]?\d?", word, re.I):
        values = ["ivx".index(letter) for letter in roman[1].lower()]
        signed = (-1 if value < max(values[i:]) else 1 for i, value in enumerate(values))
        return float(sum(s * (1, 5, 10)[v] for s, v in zip(signed, values, strict=True)))
    parts = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", word)]
    if not parts:
        return float(word.count("+")) or None
    return sum(parts) if "+" in word else parts[0]


def codes_among(numbers: Iterable[int | float]) -> list[int | float]:
    """Which of some different whole numbers stand apart, as codes for a missing value do.

    At either end it is those with a step to the others that is wider than any between these: any
    number below 0, and at the upper end those of nines, eights or sevens, as 9, 88 or 98. A lone
    number below 0 is one as well, but not several that go on in such steps or whose opposites are
    there, as they are of a scale. Two others are left at least.

    >>> codes_among([-4, -1, 0, 1]), codes_among([0, 1, 88, 99]), codes_among([0, 1, 2, 9])
    ([-4, -1], [88, 99], [9])
    >>> codes_among([-2, -1, 0, 1, 2]), codes_among([0, 3, 6, 9]), codes_among([6, 7, 9])
    ([], [], [])
    >>> codes_among([-9, -2, -1, 0, 1, 2]), codes_among([-2, -1, 1, 2, 9])
    ([-9], [9])
    """
    ordered = sorted(numbers)
    below = [n for n in ordered if n < 0]
    rest = ordered[len(below) :]
    if len(rest) < 2:
        return []
    least = next((k for k in range(2, len(rest)) if all(map(_is_upper_code, rest[k:]))), len(rest))
    above: list[int | float] = []
    for k in range(least, len(rest)):
        usual = _widest_step(rest[:k])
        few = rest[0] <= 1 or rest[k] > 9  # scores begin at 0 or 1; grades of 6 to 10 do not
        if rest[k] - rest[k - 1] > usual and (few or rest[k] - rest[k - 1] > 2):
            rest, above = rest[:k], rest[k:]
            break
    together = len(below) > 0 and rest[0] - below[-1] <= _widest_step(rest)
    least = next((k for k in range(len(below), 0, -1) if -below[k - 1] not in rest), 0)
    paired = len(below) - least
    if paired < 2 or not (together or paired == sum(n > 0 for n in rest)):
        least = len(below)  # no opposites, or a gap to the others and opposites of some alone
    scale = [*below, *rest]
    usual = _widest_step(scale[least:])
    cut = next((k for k in range(least, 0, -1) if scale[k] - scale[k - 1] > usual), 0)
    below = below if len(below) - cut == 1 else below[:cut]
    return [*below, *above]


def _is_upper_code(number: int | float) -> bool:
    return re.fullmatch(r"9*[789]|9+6|7+|8+", f"{number:.0f}") is not None


def _widest_step(ordered: Sequence[int | float]) -> int | float:
    return max((b - a for a, b in pairwise(ordered)), default=0)


def told_order(labels: Labels) -> str:
    """What to say of classes that are numbers, as scores are; empty for any other, and for two."""
    if len(labels.classes) < 3 or not all(isinstance(c, int) for c in labels.classes):
        return ""
    first, second, *_, last = labels.classes
    shown = ", ".join(map(str, labels.classes))
    return (
        f"label {labels.name!r}: its classes {shown} are taken as unordered, as names and not as "
        f"a scale: {first} taken for {last} is as wrong as {first} taken for {second}"
    )


def require_members(labels: Labels, at_least: int, persons: Persons) -> None:
    """Refuse labels where a class has too few persons to be split over the folds.

    Args:
        labels: of all labelled subjects.
        at_least: persons that each class needs.
        persons: `(subject,)`, whose each is.

    Raises:
        EvaluationError: naming the class, its members and what is needed.
    """
    counts = [len(np.unique(persons[labels.codes == c])) for c in range(len(labels.classes))]
    few = int(np.argmin(counts))
    if counts[few] < at_least:
        who = "subject" if len(np.unique(persons)) == len(persons) else "participant"
        folds = f", or ask for {counts[few]} folds (`folds={counts[few]}`)"
        raise EvaluationError(
            f"label {labels.name!r}: class {labels.classes[few]!r} has "
            f"{counted(counts[few], who)}, but the folds need at least {at_least} of each class; "
            f"join classes, label more {who}s"
            f"{folds if counts[few] > 2 else ''}"
        )


def require_in_both(labels: Labels, train: Indices, test: Indices) -> None:
    """Refuse a train and test split where a class is missing from one of them.

    Args:
        labels: of all labelled subjects.
        train: positions among them.
        test: likewise.

    Raises:
        EvaluationError: naming the split and the class.
    """
    for split, rows, at_least in (("train", train, 2), ("test", test, 1)):
        counts = np.bincount(labels.codes[rows], minlength=len(labels.classes))
        if not counts.any():
            raise EvaluationError(
                f"no subject labelled {labels.name!r} is in split {split!r}; protocol linear needs "
                "train and test, without them use svm"
            )
        few = int(counts.argmin())
        if counts[few] < at_least:
            raise EvaluationError(
                f"label {labels.name!r}: class {labels.classes[few]!r} has "
                f"{counted(int(counts[few]), 'subject')} in split {split!r}, and needs at least "
                f"{at_least}; split the classes evenly, or "
                "use protocol svm"
            )


def _plain(value: Any) -> Class | None:
    """A cell as a plain integer, number or text; None where it is missing."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            return None
        return int(value) if float(value).is_integer() else float(value)
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    text = str(value).strip()
    return text or None


def _looks_continuous(classes: Sequence[Class], n: int) -> bool:
    if any(isinstance(value, str) for value in classes) or len(classes) <= MOST_NUMERIC_CLASSES:
        return False
    fractional = any(isinstance(value, float) for value in classes)
    return fractional or len(classes) > n / 5
