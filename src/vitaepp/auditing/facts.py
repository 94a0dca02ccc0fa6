"""Facts: what is known of subjects besides their images and the label, in a form to ask about.

They are columns whose names say that they tell where and how a scan was made or of whom it is, what
a store's table says of the files, and how much of each stored image is empty border.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.arrays import Flags, Floats, Indices
from vitaepp.data.participants import Persons
from vitaepp.data.splits import canonical_splits
from vitaepp.data.store import Store
from vitaepp.data.storetable import PARTICIPANT, RESERVED_COLUMNS
from vitaepp.errors import EvaluationError, nearest
from vitaepp.evaluation.labels import MOST_NUMERIC_CLASSES

#: Words of a column's name, by what such a column tells.
WORDS = {
    "site": "site center centre hospital institution institute clinic country",
    "scanner": "scanner manufacturer vendor model device station coil kernel protocol sequence "
    "software",
    "technique": "field tesla kvp mas exposure",
    "year": "year date",
    "age": "age",
    "sex": "sex gender",
    "person": "weight height bmi race ethnicity",
    "view": "view projection position laterality",
    "grid": "spacing thickness resolution pixel",
}

#: Kinds that cannot be missing from an audit without a word.
EXPECTED = ("site", "scanner", "year", "age", "sex")

#: Kinds whose numbers are codes.
CODES = ("site", "scanner", "sex")

#: Kinds whose numbers keep their order, however few they are.
ORDERED = ("year", "age")

#: Differences of sizes, spacings and intensity ranges up to this share of them are the rounding of
#: headers, and no difference.
ROUNDING = 1e-3

#: Share of subjects with one number above which the others cannot be ranked well.
MOST_ALIKE = 0.9

#: Persons that a class needs, as many as there are folds.
FEWEST = 5

Border = Indices


@dataclass(frozen=True, eq=False)
class Fact:
    """One thing that is known of subjects.

    Attributes:
        name: in a sentence: `site`, `original size`.
        columns: a row a subject, in the order of the cohort's table. A column of numbers (float) or
            of classes (text); missing where it is not known.
        size: one number a subject that stands for several columns, its name in a sentence; None
            where there is one column only.
    """

    name: str
    columns: pd.DataFrame
    size: pd.Series[Any] | None = None

    @property
    def is_classes(self) -> bool:
        """Whether it is told by a classifier, not by a regression."""
        return not pd.api.types.is_numeric_dtype(self.columns.iloc[:, 0])

    @property
    def known(self) -> Flags:
        """Of which subjects it is known, `(subject,)`."""
        return np.asarray(self.columns.notna().all(axis=1), np.bool_)


@dataclass(frozen=True)
class Facts:
    """The facts that an audit can use, and those that it cannot.

    Attributes:
        usable: the facts.
        silent: what cannot be used, and why, in words.
        constant: what is the same for all, and so no shortcut.
        unused: columns whose names do not say that they tell how a scan was made, or of whom.
    """

    usable: list[Fact]
    silent: list[str]
    constant: list[str]
    unused: list[str]


def facts_of(
    table: pd.DataFrame,
    store: Store,
    border: Border,
    persons: Persons,
    label: str,
    metadata: Sequence[str] = (),
) -> Facts:
    """Find what is known of the subjects of a table.

    Args:
        table: the subjects of the embeddings: the columns of their labels and of the store.
        store: where their images are.
        border: voxels of empty border, `(subject, axis)`.
        persons: `(subject,)`, whose each is.
        label: the column that is predicted, which is no fact.
        metadata: columns that are facts whatever they are called.

    Raises:
        EvaluationError: `metadata` names a column that is not there, or the label.
    """
    own = [str(c) for c in table.columns if c not in RESERVED_COLUMNS and c != PARTICIPANT]
    for name in metadata:
        if name == label:
            raise EvaluationError(f"`metadata`: {name} is the label; name other columns")
        if name not in own:
            raise EvaluationError(f"`metadata`: no column {name!r}; {nearest(name, own)}")
    kinds = {name: kind_of(name) for name in own if name != label}
    facts = [
        Fact(name, pd.DataFrame({name: _typed(table[name], kind)}))
        for name, kind in kinds.items()
        if kind or name in metadata
    ]
    facts += _of_store(table, store, border)
    varied, silent, constant = [], [], []
    for fact in facts:
        left, why = usable(fact, persons)
        if left is not None:
            varied.append(left)
        elif why:
            silent.append(f"{fact.name} ({why})")
        elif fact.name in kinds and table[fact.name].nunique() > 1:
            silent.append(f"{fact.name} (its values are too close to be told apart)")
        else:
            constant.append(fact.name)
    missing = [kind for kind in EXPECTED if kind not in kinds.values()]
    silent += [f"{kind} (no column)" for kind in missing]
    if "source_size" not in table:
        silent.append("original size and spacing (the store is of an earlier version)")
    unused = [name for name, kind in kinds.items() if not kind and name not in metadata]
    return Facts(varied, silent, constant, unused)


def kind_of(name: str) -> str:
    """What a column tells by its name; empty where the name does not say.

    >>> kind_of("ScannerModel"), kind_of("age_at_scan"), kind_of("stage"), kind_of("date_of_death")
    ('scanner', 'age', '', '')
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    words = set(re.findall(r"[a-z]+", spaced.lower()))
    if words & {"death", "event", "relapse", "progression", "outcome"}:
        return ""
    return next((kind for kind, names in WORDS.items() if words & set(names.split())), "")


def cut(fact: Fact) -> pd.Series[Any]:
    """A fact as subgroups: its classes, or the thirds of its numbers; missing where unknown."""
    values = fact.columns.iloc[:, 0] if fact.size is None else fact.size
    if fact.is_classes:
        return values
    known = values.dropna()
    ends = np.unique(np.quantile(known, [1 / 3, 2 / 3, 1], method="inverted_cdf"))
    if len(ends) == 1:  # most have the greatest
        ends = np.union1d(known[known < ends[0]].nlargest(1), ends)
    third = pd.Series(np.searchsorted(ends, values), index=values.index)
    spans = values.groupby(third).agg(["min", "max"]).map("{:.6g}".format)
    names = {i: " to ".join(dict.fromkeys(span)) for i, *span in spans.itertuples()}
    return third.map(names).astype(object).where(values.notna(), None)


def _typed(column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    """A column as numbers, or as classes; empty texts are missing."""
    values = column.map(lambda v: v.strip() or None if isinstance(v, str) else v)
    if kind == "year":
        values = _months(values).map(_in_years, na_action="ignore")
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    numbers = numbers.where(np.isfinite(numbers))
    if kind == "grid":
        numbers = pd.Series(_alike(np.asarray(numbers, np.float64)), index=numbers.index)
    is_numeric = bool((numbers.notna() == values.notna()).all()) and values.dtype != bool
    many = numbers.nunique() > (2 if kind in ORDERED else MOST_NUMERIC_CLASSES)
    if is_numeric and many and kind not in CODES:
        return numbers
    classes = numbers if is_numeric and kind not in CODES else values
    return classes.map(_as_class, na_action="ignore").astype(object)


def _as_class(value: object) -> str:
    """The name of a class, with all digits of a code; a column with gaps has 3.0 for 3.

    >>> _as_class(1234567.0), _as_class(2.5), _as_class("VB17")
    ('1234567', '2.5', 'VB17')
    """
    return f"{value + 0.0:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _alike(values: Floats) -> Floats:
    """Numbers of which those are one that only the rounding of headers tells apart.

    The least begins a group, and so does the next that is more than `ROUNDING` above the beginning:
    the sizes of photographs, each close to the next, do not become one. A group's number is its
    median in six digits.

    Args:
        values: `(subject,)` or `(subject, axis)`, each axis on its own; NaN where unknown.
    """
    if values.ndim > 1:
        return np.stack([_alike(column) for column in values.T], axis=1)
    ordered = np.sort(values[np.isfinite(values)])
    beginnings, medians = [], []
    while len(ordered):
        end = ordered[0] + ROUNDING * abs(ordered[0])
        count = int(np.searchsorted(ordered, end, side="right"))
        beginnings.append(ordered[0])
        medians.append(float(f"{ordered[count // 2]:.6g}"))
        ordered = ordered[count:]
    group = np.searchsorted(beginnings, values, side="right") - 1
    return np.where(np.isfinite(values), np.array([*medians, np.nan])[group], np.nan)


def _months(values: pd.Series[Any]) -> pd.Series[Any]:
    """A column of months such as 07.2020, which a table has as the number 7.202, as texts."""
    if values.dtype.kind != "f":
        return values
    texts = values.map("{:.4f}".format, na_action="ignore")
    months = r"([1-9]|1[0-2])\.(19|20)\d\d"
    return texts if all(re.fullmatch(months, text) for text in texts.dropna()) else values


def _in_years(value: object) -> object:
    """A date in years, to the month where it gives one; other values as they are.

    >>> [_in_years(date) for date in (2019.25, "2019-07-05", "20190705", "5.7.2019", "07/2019")]
    [2019.25, 2019.5, 2019.5, 2019.5, 2019.5]
    >>> _in_years("5/7/2019")  # nobody knows which is the month
    2019.0
    """
    with suppress(ValueError):
        if 1900 <= float(str(value)) <= 2100:
            return float(str(value))
    compact = r"(?<!\d)((?:19|20)\d\d)(0[1-9]|1[0-2])[0-3]\d(?:\d{6})?(?!\d)"
    text = re.sub(compact, r"\1-\2", str(value))
    year = re.search(r"(?<!\d)(19|20)\d\d(?!\d)", text)
    if year is None:
        return value
    after = re.match(r"[-/.:](\d\d?)(?!\d)", text[year.end() :])
    before = re.search(r"(?<![\d./-])(?:\d\d?\.)?(\d\d?)[./-]$", text[: year.start()])
    part = after or before
    month = 1 if part is None else int(part[1])
    return float(year[0]) + (round((month - 1) / 12, 2) if 1 <= month <= 12 else 0.0)


def _of_store(table: pd.DataFrame, store: Store, border: Border) -> list[Fact]:
    """What a store says of the files and of how it prepared them."""
    info, index = store.info, table.index
    axes = ("x", "y", "z") if info.ndim == 3 else ("row", "column")
    planes = border.sum(axis=1), "empty planes in all"
    facts = [_measured("empty border", border, axes, index, *planes)]
    for name, column, product in (
        ("original size", "source_size", "the number of voxels"),
        ("original spacing", "source_spacing", "the volume of a voxel"),
    ):
        if column in table:
            rows = [list(v) if len(v) else [np.nan] * info.ndim for v in table[column]]
            values = _alike(np.array(rows, float))
            facts.append(_measured(name, values, axes, index, values.prod(axis=1), product))
    low, high = (np.array(table[f"intensity_{end}"].tolist(), float) for end in ("min", "max"))
    width = _alike(np.where(high > low, high - low, np.nan))
    present = np.ones(width.shape, bool)
    if "modality_present" in table:  # an earlier version had only whole subjects
        present = np.array(table["modality_present"].tolist(), bool)
    # Its logarithm, as ranges differ by factors. Of modalities that all have, so that it is known.
    whole = np.asarray(present.all(axis=0), np.bool_)
    names = [m for m, all_have in zip(info.modalities, whole, strict=True) if all_have]
    if names:
        values = np.log10(width[:, whole])
        mean = values.mean(axis=1), "the mean of the modalities"
        facts.append(_measured("intensity range", values, names, index, *mean))
    for modality, has in zip(info.modalities, present.T, strict=True):
        if not has.all():
            facts.append(_classes(f"missing {modality}", np.where(has, "no", "yes"), index))
    centre = table["crop_center"] if "crop_center" in table else pd.Series("", index=index)
    facts.append(_classes("centre of the crop", centre.to_numpy(object), index))
    notes_of = table.get("prepare_notes", pd.Series(dtype=object))
    for note in sorted({n for notes in notes_of for n in notes}):
        has = ["yes" if note in notes else "no" for notes in notes_of]
        facts.append(_classes(f"note {note!r}", np.array(has, object), index))
    suffixes = [_suffix(next((s for s in source if s), "")) for source in table["source"]]
    facts.append(_classes("file format", np.array(suffixes, object), index))
    splits = canonical_splits(table["split"])
    if splits.nunique() > 1:
        facts.append(_classes("split", splits.where(splits != "", None).to_numpy(object), index))
    return facts


def _suffix(source: str) -> str:
    return "".join(PurePosixPath(source).suffixes[-2:]).lower() or "none"


def _measured(
    name: str,
    values: npt.NDArray[Any],
    axes: Sequence[str],
    index: Any,
    size: npt.NDArray[Any],
    size_name: str,
) -> Fact:
    columns = pd.DataFrame(values.astype(float), columns=list(axes), index=index)
    several = pd.Series(size.astype(float), index=index, name=size_name)
    return Fact(name, columns, several if columns.shape[1] > 1 else None)


def _classes(name: str, values: npt.NDArray[Any], index: Any) -> Fact:
    return Fact(name, pd.DataFrame({name: pd.Series(values, index=index, dtype=object)}))


def usable(fact: Fact, persons: Persons) -> tuple[Fact | None, str]:
    """A fact without rare classes and constant columns, or why nothing can be asked of it.

    No reason is given where it is the same for all. A number that nearly all have is asked as two
    classes, it and any other.

    Args:
        fact: a row a subject.
        persons: `(subject,)`, the person of each.
    """
    columns = fact.columns
    if fact.is_classes:
        values = columns.iloc[:, 0]
        counts = pd.Series(persons, index=values.index).groupby(values).nunique()
        if len(counts) < 2:
            return None, "" if values.notna().all() else "known of too few"
        common = counts[counts >= FEWEST].index
        if len(common) < 2:
            return None, f"no two classes have {FEWEST} participants each"
        return Fact(fact.name, columns.where(columns.isin(common), None)), ""
    known = columns[fact.known]
    if len(np.unique(persons[fact.known])) < 4 * FEWEST:
        return None, f"known of fewer than {4 * FEWEST} participants"
    varied = [c for c in columns if known[c].nunique() > 1]
    if not varied:
        return None, ""
    shares = {c: float(known[c].value_counts(normalize=True).iloc[0]) for c in varied}
    if min(shares.values()) > MOST_ALIKE:
        usual = columns[varied].mode().iloc[0]
        alike = np.where((columns[varied] == usual).all(axis=1), "usual", "other")
        classes = pd.Series(alike, index=columns.index, dtype=object).where(fact.known, None)
        return usable(Fact(fact.name, classes.to_frame(fact.name)), persons)
    varied = [c for c in varied if shares[c] <= MOST_ALIKE]
    size = fact.size if len(varied) > 1 else None
    return Fact(fact.name, columns[varied], size), ""
