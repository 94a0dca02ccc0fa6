"""Tables: manifests and label files, and joining labels to a cohort by subject."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Sequence
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from vitaepp.errors import SourceError, one_line
from vitaepp.ingest.readers import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of
from vitaepp.progress import say
from vitaepp.store import RESERVED_COLUMNS

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")

#: What a workbook's parts may hold when decompressed; a million rows take a fifth of it.
MOST_WORKBOOK = 1 << 30

#: What a column of subjects may be called, in lower case; the first that is there is taken.
SUBJECT_COLUMNS = ("subject", "subject_id", "participant_id", "patient")


def join_labels(
    table: pd.DataFrame, labels: str | os.PathLike[str], unlabelled: Sequence[Any] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """Add the columns of a label table to a cohort's table, by subject.

    Its subjects may be written as file names. A `split` column fills the split where the
    layout gives none.

    Args:
        table: `subject`, `split` and the layout's own labels.
        labels: CSV, TSV or XLSX with a `subject` column.
        unlabelled: values that stand for a missing label.

    Returns:
        The table with the new columns, and the subjects that have no row in the label table.

    Raises:
        SourceError: not readable, no `subject` column, a subject twice, a column that a store or
            the table has already, or no subject in common.
    """
    path = Path(labels)
    fresh = read_table(path)
    suffixes = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES)
    known = set(table["subject"])
    fresh["subject"] = [
        s if s in known else s.removesuffix(suffix_of(s, suffixes)) for s in fresh["subject"]
    ]
    refuse_repeated(fresh["subject"], path)
    if "split" in fresh and not table["split"].any():
        table = table.drop(columns="split")
        fresh["split"] = fresh["split"].fillna("").astype(str)
    names = [str(c) for c in fresh.columns if c != "subject"]
    check_label_names([n for n in names if n != "split" or "split" in table], path)
    both = [n for n in names if n in table.columns]
    if both:
        raise SourceError(f"{path.name}: column {both[0]}: the source has labels of this name")
    if not known & set(fresh["subject"]):
        raise SourceError(
            f"{path.name}: no subject in common with the source; it names subjects like "
            f"{fresh['subject'].iloc[0]!r}, the source {table['subject'].iloc[0]!r}"
            if len(fresh)
            else f"{path.name}: has no rows"
        )
    unknown = sum(s not in known for s in fresh["subject"])
    if unknown:
        say(f"{path.name}: {unknown} rows name no subject of the source; they are not used")
    for name in names:
        fresh[name] = _whole(fresh[name].mask(fresh[name].isin(list(unlabelled))))
    whole = {c: "Int64" for c in fresh.columns if fresh[c].dtype.kind in "iu"}
    joined = table.merge(fresh.astype(whole), on="subject", how="left", validate="one_to_one")
    if "split" in names:
        joined["split"] = joined["split"].fillna("")
    missing = [s for s in table["subject"] if s not in set(fresh["subject"])]
    return joined, missing


def read_table(path: Path, subject_columns: Sequence[str] = SUBJECT_COLUMNS) -> pd.DataFrame:
    """A CSV, TSV or the first sheet of an XLSX, with a complete column `subject`, read as text.

    Args:
        path: of the table.
        subject_columns: what the column may be called, in any case.

    Raises:
        SourceError: missing, not readable, without a column of subjects, or with an empty one.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file")
    name = _subject_column([str(c) for c in _read(path, rows=0).columns], subject_columns, path)
    table = _read(path, text=(name, "split", "mask"))
    table.columns = [str(c) for c in table.columns]
    table = table.rename(columns={name: "subject"}).apply(_whole)
    table = table[table.notna().any(axis=1)]  # spreadsheets leave rows that hold nothing
    _check_subjects(table["subject"], path)
    table["subject"] = table["subject"].str.strip()
    return table


def first_line(found: pd.Series[bool]) -> int:
    """The first line of a table's file for which something is true."""
    return int(found[found].index[0]) + 2


def _check_subjects(subjects: pd.Series[Any], path: Path) -> None:
    if subjects.isna().any():
        raise SourceError(f"{path.name}: line {first_line(subjects.isna())} has no subject")
    dates = subjects.str.fullmatch(r"\d{4}-\d\d-\d\d 00:00:00")
    if dates.any():
        raise SourceError(
            f"{path.name}: line {first_line(dates)}: the subject is a date; spreadsheets make "
            "dates of names such as 3-5, format the column as text"
        )


def read_plain_table(path: Path) -> list[dict[str, str]]:
    """Rows of a table that comes with a data set, all as text; empty where a value is missing.

    Raises:
        SourceError: not readable.
    """
    table = _read(path, text="all")
    plain = table.astype(object).where(table.notna(), "")
    plain.columns = [str(name).strip() for name in plain.columns]
    return [dict(zip(plain.columns, map(str.strip, row), strict=True)) for row in plain.to_numpy()]


def _whole(column: pd.Series[Any]) -> pd.Series[Any]:
    """Integers that became floats because some are missing are integers again."""
    known = column.dropna()
    whole = column.dtype.kind == "f" and np.isfinite(known).all() and (known == known.round()).all()
    if whole and 0 < len(known) < len(column):
        return column.astype("Int64")
    return column


def _subject_column(names: list[str], allowed: Sequence[str], path: Path) -> str:
    for wanted in allowed:
        found = [n for n in names if n.strip().lower() == wanted]
        if len(found) > 1:
            raise SourceError(f"{path.name}: columns {' and '.join(found)} both name subjects")
        if found:
            return found[0]
    raise SourceError(f"{path.name}: has no column {allowed[0]}; found {', '.join(names)}")


def _read(
    path: Path, rows: int | None = None, text: Literal["all"] | tuple[str, ...] = ()
) -> pd.DataFrame:
    suffix = path.suffix.lower()
    dtype: Any = str if text == "all" else dict.fromkeys(text, str)
    if suffix in (".xls", ".ods"):
        raise SourceError(f"{path.name}: is not read; save it as .xlsx or .csv")
    try:
        if suffix == ".xlsx":
            table = _read_workbook(path, dtype, rows)
        else:
            lines = _text(path).lstrip("\r\n")
            separator, decimal = _separator(lines, suffix)
            table = pd.read_csv(
                StringIO(lines),
                sep=separator,
                decimal=decimal,
                dtype=dtype,
                skipinitialspace=True,
                skip_blank_lines=False,  # so that rows know their lines
                nrows=rows,
            )
    except (ValueError, OSError) as error:
        kind = suffix[1:].upper() if suffix in TABLE_SUFFIXES else "CSV"
        raise SourceError(f"{path.name}: not a readable {kind}: {one_line(error)}") from None
    # Spreadsheets leave columns that hold nothing.
    nameless = [c for c in table.columns if str(c).startswith("Unnamed:") and table[c].isna().all()]
    return table.drop(columns=nameless).apply(_days)


def _text(path: Path) -> str:
    """What a text file says: in UTF-8, as spreadsheets save it (Windows-1252), or in UTF-16."""
    data = path.read_bytes()
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return data.decode("utf-16")
    if b"\0" in data:
        raise ValueError("it is no text")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError("its text is neither UTF-8 nor Windows-1252; save it as UTF-8")


def _separator(lines: str, suffix: str) -> tuple[str, str]:
    """What separates columns, and what decimals; a .csv may be one with semicolons or tabs."""
    if suffix == ".tsv":
        return "\t", "."
    head = lines.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    # Where semicolons separate, decimals mostly have a comma, but not everywhere.
    comma = separator == ";" and re.search(r"(?m)(^|;)-?\d+,\d+(;|\r?$)", lines)
    return separator, "," if comma else "."


def _sheet(path: Path) -> str:
    """The sheet of a workbook that holds subjects, or the first.

    Raises:
        SourceError: several hold subjects.
    """
    heads = pd.read_excel(path, None, nrows=0, engine="openpyxl")
    held = [
        str(name)
        for name, head in heads.items()
        if any(str(c).strip().lower() in SUBJECT_COLUMNS for c in head.columns)
    ]
    if len(held) > 1:
        raise SourceError(
            f"{path.name}: sheets {' and '.join(held)} both name subjects; keep one of them"
        )
    return held[0] if held else str(next(iter(heads)))


def _days(column: pd.Series[Any]) -> pd.Series[Any]:
    """Dates of a spreadsheet as text, 2021-03-05; other values as they are."""
    if column.dtype.kind not in "MO":
        return column
    return column.astype(object).map(_day, na_action="ignore")


def _day(value: Any) -> Any:
    return value.strftime("%Y-%m-%d") if isinstance(value, date) else value


def _read_workbook(path: Path, dtype: Any, rows: int | None) -> pd.DataFrame:
    try:
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > MOST_WORKBOOK:
                raise ValueError(f"its parts hold over {MOST_WORKBOOK} bytes, as a bomb's do")
        with warnings.catch_warnings():  # about styles and forms, which are not looked at
            warnings.simplefilter("ignore")
            return pd.read_excel(path, _sheet(path), dtype=dtype, nrows=rows, engine="openpyxl")
    except (ValueError, OSError, MemoryError, SourceError):
        raise
    except Exception as error:  # a damaged workbook may raise anything
        raise ValueError(one_line(error)) from None


def as_objects(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain dictionaries, None where a value is missing."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in plain.to_dict("records")]


def check_label_names(names: Iterable[str], path: Path) -> None:
    """Refuse label columns whose names a store or the embeddings use themselves."""
    for name in names:
        if name in RESERVED_COLUMNS:
            raise SourceError(
                f"{path.name}: column {name}: a store keeps its own column of this name; rename it"
            )
        if re.fullmatch(r"f\d+", name):
            raise SourceError(
                f"{path.name}: column {name}: embeddings call their features so; rename it"
            )


def say_missing(name: str, without: Sequence[str], of: int) -> None:
    """Tell the user which subjects a table has no row for.

    Args:
        name: of the table.
        without: subjects that it does not list.
        of: number of subjects.
    """
    if without:
        shown = ", ".join(without[:3]) + (", …" if len(without) > 3 else "")
        say(f"{name}: no row for {len(without)} of {of} subjects ({shown}); their labels are empty")


def refuse_repeated(subjects: pd.Series[Any], path: Path) -> None:
    """Refuse a table that names a subject twice."""
    counts = subjects.value_counts()
    if len(counts) and counts.iloc[0] > 1:
        raise SourceError(
            f"{path.name}: subject {counts.index[0]} is there {counts.iloc[0]} times; "
            "give one row a subject"
        )
