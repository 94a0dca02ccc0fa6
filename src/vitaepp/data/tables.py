"""Tables of subjects: manifests and label files with one row per subject."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vitaepp.data.cells import SUBJECT_COLUMNS, first_line, read_cells, whole_numbers
from vitaepp.data.splits import canonical_splits, split_word
from vitaepp.data.storetable import PARTICIPANT
from vitaepp.errors import SourceError
from vitaepp.system.progress import say

#: Names of a column of persons beside the column of subjects, in lower case.
PERSON_COLUMNS = ("participant_id", "patient_id", "person_id", "subject_id")

#: Columns with a fixed meaning; upper and lower case do not matter.
OWN_COLUMNS = ("split", "mask", PARTICIPANT)


def read_table(path: Path, subject_columns: Sequence[str] = SUBJECT_COLUMNS) -> pd.DataFrame:
    """Read a CSV, TSV or XLSX with one row per subject; the column `subject` is text and complete.

    The columns `split`, `mask` and `participant` may be written in upper or lower case. Words for
    splits become `train`, `val` and `test`. If a second column of subjects has repeated values, it
    is used as the participants, and a message says so.

    Args:
        path: file of the table.
        subject_columns: names that the column of subjects may have, in lower case.

    Raises:
        SourceError: the file is missing or cannot be read, there is no column of subjects or a
            subject is empty, or a column occurs twice.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; a table (CSV, TSV or XLSX) is needed")
    text = (*SUBJECT_COLUMNS, *PERSON_COLUMNS, *subject_columns, *OWN_COLUMNS)
    table = read_cells(path, text, subject_columns)
    name = _subject_column([str(c) for c in table.columns], subject_columns, path)
    if name != "subject" and "subject" in table:
        raise SourceError(
            f"{path.name}: has columns {name} and subject, but {name} was chosen to name subjects; "
            "rename or remove the other"
        )
    table = table.rename(columns={name: "subject"}).apply(whole_numbers)
    for own in OWN_COLUMNS:
        same = [c for c in table.columns if c.lower() == own]
        if len(same) > 1:
            raise SourceError(f"{path.name}: columns {' and '.join(same)}: keep one of them")
        table = table.rename(columns=dict.fromkeys(same, own))
    table = table[table.notna().any(axis=1)]  # spreadsheets often contain empty rows
    _check_subjects(table["subject"], path)
    if "split" in table:
        table["split"] = _splits(table["split"], path)
    if PARTICIPANT not in table:
        table = _with_participants(table, path)
    return table


def _subject_column(names: list[str], allowed: Sequence[str], path: Path) -> str:
    for wanted in allowed:
        same = [n for n in names if n.lower() == wanted]
        if len(same) > 1:
            raise SourceError(f"{path.name}: columns {' and '.join(same)} both name subjects")
        if same:
            return same[0]
    usual = tuple(allowed) == SUBJECT_COLUMNS
    hint = "; if another column names them, give it with `id_column`" if usual else ""
    wanted = " or ".join(filter(None, (", ".join(allowed[:-1]), allowed[-1])))
    raise SourceError(f"{path.name}: has no column {wanted}; found {', '.join(names)}{hint}")


def _check_subjects(subjects: pd.Series[Any], path: Path) -> None:
    if subjects.isna().any():
        raise SourceError(f"{path.name}: line {first_line(subjects.isna())} has no subject")
    dates = subjects.str.fullmatch(r"\d{4}-\d\d-\d\d 00:00:00")
    if dates.any():
        raise SourceError(
            f"{path.name}: line {first_line(dates)}: the subject is a date; spreadsheets turn "
            "names such as 3-5 into dates: format the column as text"
        )
    rounded = subjects.str.fullmatch(r"[0-9]([.,][0-9]+)?E\+[0-9]{2,}")
    if rounded.any():
        raise SourceError(
            f"{path.name}: line {first_line(rounded)}: the subject is a number that a spreadsheet "
            "rounded; format the column as text, and enter the subject again"
        )


def _splits(column: pd.Series[Any], path: Path) -> pd.Series[Any]:
    """Replace words for splits by `train`, `val` and `test`; report other words and keep them."""
    split_of = {word: split_word(word) for word in column.dropna().unique()}
    other = column.map(split_of) == ""
    if other.any():
        words = ", ".join(repr(word) for word in list(column[other].unique())[:3])
        say(
            f"{path.name}: column split: {words} (first in line {first_line(other)}) is not a word "
            f"for train, val or test; its {int(other.sum())} rows are in none of them"
        )
    words_of: dict[str, list[str]] = defaultdict(list)
    for word, split in split_of.items():
        words_of[split].append(word)
    for split, written in words_of.items():
        if split and written != [split]:
            say(f"{path.name}: column split: {', '.join(map(repr, written))} is used as {split}")
    return canonical_splits(column)


def _with_participants(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Use a second column of subjects, if it has repeated values, as the participants."""
    for name in (c for c in table.columns if c.lower() in PERSON_COLUMNS):
        persons, rows = table[name].nunique(), int(table[name].notna().sum())
        if 1 < persons < rows:
            say(
                f"{path.name}: column {name} is used as {PARTICIPANT}: {persons} persons in "
                f"{rows} rows"
            )
            return table.assign(**{PARTICIPANT: table[name]})
    return table


def refuse_repeated(subjects: pd.Series[Any], path: Path) -> None:
    """Refuse a table in which exactly the same subject occurs twice."""
    counts = subjects.value_counts()
    if len(counts) and counts.iloc[0] > 1:
        raise SourceError(
            f"{path.name}: subject {counts.index[0]} occurs {counts.iloc[0]} times; one row per "
            "subject is needed"
        )


def as_objects(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain dictionaries, with None for missing values."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in plain.to_dict("records")]
