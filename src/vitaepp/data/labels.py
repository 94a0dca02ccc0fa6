"""Labels: the columns of a label table, joined to a cohort by subject."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.cells import SUBJECT_COLUMNS, composed, whole_numbers
from vitaepp.data.splits import canonical_splits
from vitaepp.data.storetable import PARTICIPANT, RESERVED_COLUMNS
from vitaepp.data.suffixes import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of
from vitaepp.data.tables import read_table, refuse_repeated
from vitaepp.errors import SourceError
from vitaepp.system.progress import say
from vitaepp.system.text import first_few

#: Words that may be meant as a missing value, in lower case, without blanks, dots and underscores.
DOUBTFUL = frozenset(
    (
        *("none", "null", "nil", "nan", "-nan", "na", "n/a", "<na>", "missing", "unknown", "unk"),
        *("nd", "n/d", "n/k", "nodata", "notknown", "notdone", "notavailable", "notapplicable"),
        *("notrecorded", "notreported", "notdetermined", "notassessed", "notmeasured"),
        *("#na", "#n/a", "#div/0!", "#value!", "-", "--", "---", "\u2013", "\u2014", "", "?"),
    )
)

#: What a word in lower case says, where several words say the same.
SAME_WORDS: dict[str, str | float] = {
    **dict.fromkeys(("true", "yes", "y"), 1.0),
    **dict.fromkeys(("false", "no", "n"), 0.0),
    **dict.fromkeys(("m", "male", "man"), "male"),
    **dict.fromkeys(("f", "female", "woman", "w"), "female"),
    **dict.fromkeys(("pos", "positive", "+"), "positive"),
    **dict.fromkeys(("neg", "negative", "-"), "negative"),
}


def may_be_missing(name: str) -> bool:
    """Whether a word may be meant as a missing value. It counts as a value, with a message.

    >>> may_be_missing("Not known"), may_be_missing("n.d."), may_be_missing("low")
    (True, True, False)
    """
    return re.sub(r"[\s._]", "", name.lower()) in DOUBTFUL


def written_alike(names: Iterable[Any]) -> list[list[Any]]:
    """Names that may be meant as one: they differ in case, accents, blanks or digits alone.

    >>> written_alike(["P1", "p1 ", "02", "2.0", "yes", 1, "other"])
    [['P1', 'p1 '], ['02', '2.0'], ['yes', 1]]
    """
    alike: dict[str | float, list[Any]] = defaultdict(list)
    for name in names:
        alike[meant(str(name))].append(name)
    return [same for same in alike.values() if len(same) > 1]


def meant(name: str) -> str | float:
    """What names have in common that are one, and written in several ways.

    >>> meant("007") == meant("7.0"), meant("P1") == meant("p1")
    (True, True)
    """
    plain = unicodedata.normalize("NFKC", " ".join(name.split())).casefold()
    if plain in SAME_WORDS:
        return SAME_WORDS[plain]
    try:
        return plain if "_" in plain else float(plain)
    except ValueError:
        return plain


def join_labels(
    table: pd.DataFrame,
    labels: str | os.PathLike[str],
    unlabelled: Sequence[Any] = (),
    *,
    id_column: str | None = None,
    origin: str = "the source",
    replacing: bool = False,
) -> tuple[pd.DataFrame, list[str]]:
    """Add the columns of a label table to another table, by subject.

    The label table may write subjects as file names, with composed or decomposed accents, and as
    numbers without leading zeros. Its `split` column is used for subjects without a split; its
    `participant` column replaces the layout's.

    Args:
        table: `subject`, `split` and the layout's own labels.
        labels: CSV, TSV or XLSX with a column of subjects.
        unlabelled: values that stand for a missing label.
        id_column: name of the column of subjects. Unset: one of `SUBJECT_COLUMNS`.
        origin: where the table comes from, for messages.
        replacing: whether columns of the label table replace columns of the same name; a message
            then says how many values differ. Otherwise such columns are refused.

    Returns:
        The table with the new columns, and the subjects without a row in the label table.

    Raises:
        SourceError: the label table cannot be read, has no column of subjects, or has no subject
            in common; a subject occurs twice or is ambiguous; a split differs from the layout's; or
            a store or the table already has a column of the same name.
    """
    path = Path(labels)
    fresh = read_table(path, SUBJECT_COLUMNS if id_column is None else (id_column.lower(),))
    fresh["subject"] = as_known(table["subject"].tolist(), fresh["subject"].tolist(), path)
    refuse_repeated(fresh["subject"], path)
    known = set(table["subject"].tolist())
    listed = set(fresh["subject"].tolist())
    if not known & listed:
        raise SourceError(
            f"{path.name}: no subject in common with {origin}; it names subjects like "
            f"{fresh['subject'].iloc[0]!r}, {origin} {table['subject'].iloc[0]!r}; if they are in "
            "another column, name it with `id_column`"
            if len(fresh)
            else f"{path.name}: has no rows"
        )
    unknown = len(listed - known)
    if unknown:
        say(f"{path.name}: {unknown} rows name no subject of {origin}; they are not used")
    by_subject = fresh.set_index("subject")
    if "split" in fresh:
        table = _with_splits(table, table["subject"].map(by_subject["split"]), path)
    if PARTICIPANT in fresh and PARTICIPANT in table:
        own = table["subject"].map(by_subject[PARTICIPANT])
        table = table.assign(**{PARTICIPANT: own.where(own.notna(), table[PARTICIPANT])})
        by_subject = by_subject.drop(columns=PARTICIPANT)
    by_subject = by_subject.drop(columns="split", errors="ignore")
    names = [str(c) for c in by_subject.columns]
    both = [n for n in names if n in table.columns]
    if both and not replacing:
        raise SourceError(f"{path.name}: column {both[0]}: {origin} already has this label")
    before, table = table, table.drop(columns=both)
    fresh = as_labels(by_subject, names, path).reset_index()
    for name in names:
        fresh[name] = whole_numbers(fresh[name].mask(fresh[name].isin(list(unlabelled))))
    whole = {c: "Int64" for c in fresh.columns if fresh[c].dtype.kind in "iu"}
    joined = table.merge(fresh.astype(whole), on="subject", how="left", validate="one_to_one")
    for name in both:
        if count := count_other(before[name], joined[name]):
            say(
                f"{path.name}: {name} differs from {origin} for {count} subjects; the table's "
                "values are used"
            )
    missing = [s for s in table["subject"].tolist() if s not in listed]
    return joined, missing


def count_other(before: pd.Series[Any], after: pd.Series[Any]) -> int:
    """How many values of two columns differ, row by row; two missing values count as equal."""
    old, new = (c.astype(object).where(c.notna(), None).tolist() for c in (before, after))
    return sum(a != b for a, b in zip(old, new, strict=True))


def _with_splits(table: pd.DataFrame, given: pd.Series[Any], path: Path) -> pd.DataFrame:
    """A cohort's table with the splits of a label table for subjects without a split."""
    own, given = table["split"].fillna("").astype(str), given.fillna("").astype(str)
    differ = (own != "") & (given != "") & (canonical_splits(own) != given)
    if differ.any():
        i = int(np.flatnonzero(differ)[0])
        raise SourceError(
            f"{path.name}: column split: {given.iloc[i]!r} for subject "
            f"{table['subject'].iloc[i]}, but the source says {own.iloc[i]!r}; keep one of the two"
        )
    return table.assign(split=own.where(own != "", given))


def as_known(known: Iterable[str], named: Iterable[str], path: Path) -> list[str]:
    """Translate a table's subjects into the source's spelling; subjects it lacks are unchanged.

    A subject matches if the names are equal without the suffix of a file and with composed accents.
    A remaining subject may be a number that lost its leading zeros or got a `.0`; it matches if no
    other subject of the source or the table is the same number.

    Args:
        known: the subjects of the source.
        named: the subjects of the table.
        path: file of the table, for messages.

    Raises:
        SourceError: a subject of the table matches several subjects of the source.
    """
    source, listed = list(known), list(named)
    in_source = set(source)
    if in_source.issuperset(listed):
        return listed
    suffixes = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES)
    forms = _grouped(source, composed)
    for i, name in enumerate(listed):
        if name not in in_source:
            name = name.removesuffix(suffix_of(name, suffixes))
            same = {name} if name in in_source else forms.get(composed(name), {name})
            listed[i] = _only(same, name, path)
    numbers, own = _grouped(source, _number), _grouped(listed, _number)
    matched, joined = set(listed), {}
    for name in dict.fromkeys(listed):
        number = _number(name)
        same = numbers.get(number, set()) if number and name not in in_source else set()
        if same - matched:
            joined[name] = _only(same if len(own[number]) == 1 else same | {name}, name, path)
    if joined:
        first, theirs = next(iter(joined.items()))
        say(
            f"{path.name}: {len(joined)} subjects are joined by number, such as {first} to "
            f"{theirs}; spreadsheets drop leading zeros"
        )
    return [joined.get(name, name) for name in listed]


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[key(name)].add(name)
    return dict(groups)


def _only(candidates: set[str], name: str, path: Path) -> str:
    if len(candidates) > 1:
        raise SourceError(
            f"{path.name}: subject {name} may be any of {', '.join(sorted(candidates))}; spell it "
            "as the source does"
        )
    return next(iter(candidates))


def _number(name: str) -> str:
    """The name without leading zeros if it is a whole number, else an empty string."""
    digits = re.fullmatch(r"0*([0-9]+?)(\.0+)?", name)
    return digits[1] if digits else ""


def as_labels(table: pd.DataFrame, names: Sequence[str], path: Path) -> pd.DataFrame:
    """The label columns of a table in the form of a store.

    Accents are composed. Words that may be meant as a missing value count as values, and a message
    says so.

    Raises:
        SourceError: a store or the embeddings use a column of this name themselves.
    """
    for name in names:
        if name in RESERVED_COLUMNS:
            raise SourceError(
                f"{path.name}: column {name}: a store has its own column of this name; rename it"
            )
        if re.fullmatch(r"f\d+", name):
            raise SourceError(
                f"{path.name}: column {name}: features of embeddings have such names; rename it"
            )
    labels = table[list(names)].copy()
    doubtful = []
    for name in names:
        if pd.api.types.is_numeric_dtype(labels[name].dtype):
            continue
        counts = labels[name].value_counts()
        texts = [v for v in counts.index if isinstance(v, str)]
        doubtful += [f"{v!r} in {name} ({counts[v]} rows)" for v in texts if may_be_missing(v)]
        if not all(map(str.isascii, texts)):
            labels[name] = labels[name].map(
                lambda v: composed(v) if isinstance(v, str) else v, na_action="ignore"
            )
    if doubtful:
        say(
            f"{path.name}: {first_few(doubtful)}: counted as a label; if it means missing, leave "
            "these cells empty"
        )
    return labels


def say_missing(name: str, without: Sequence[str], total: int) -> None:
    """Report the subjects for which a table has no row.

    Args:
        name: name of the table.
        without: the subjects that it does not list.
        total: number of subjects.
    """
    if without:
        say(
            f"{name}: no row for {len(without)} of {total} subjects ({first_few(without)}); their "
            "labels are empty"
        )
