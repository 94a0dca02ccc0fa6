"""Tables: manifests and label files, and joining labels to a cohort by subject."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
import zipfile
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from vitaepp.data.splits import canonical_splits, split_word
from vitaepp.data.store import PARTICIPANT, RESERVED_COLUMNS
from vitaepp.data.suffixes import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of
from vitaepp.errors import SourceError, one_line
from vitaepp.system.extras import require
from vitaepp.system.progress import say

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")

#: What a workbook's parts may hold when decompressed; a million rows take a fifth of it.
MOST_WORKBOOK = 1 << 30

#: What a column of subjects may be called, in lower case; the first that is there is taken.
SUBJECT_COLUMNS = ("subject", "subject_id", "participant_id", "patient")

#: What else a column of persons may be called, in lower case, beside one of subjects.
PERSON_COLUMNS = ("participant_id", "patient_id", "person_id", "subject_id")

#: Columns with a meaning of their own, in any case.
OWN_COLUMNS = ("split", "mask", PARTICIPANT)

#: What stands for a missing value, and nothing else does.
MISSING = ("", "NA", "N/A", "NaN", "n/a", "nan")

#: Words that others may mean by a missing value, in lower case; here they are values, and told.
DOUBTFUL = frozenset(
    (
        *("none", "null", "nil", "nan", "-nan", "na", "n/a", "n.a.", "<na>", "missing"),
        *("unknown", "#na", "#n/a", "#div/0!", "#value!", "-", "--", "---", "\u2013", "\u2014"),
        *(".", "?"),
    )
)


def join_labels(
    table: pd.DataFrame,
    labels: str | os.PathLike[str],
    unlabelled: Sequence[Any] = (),
    *,
    id_column: str | None = None,
    whose: str = "the source",
    replacing: bool = False,
) -> tuple[pd.DataFrame, list[str]]:
    """Add the columns of a label table to another, by subject.

    Its subjects may be written as file names, with accents composed or not, and as numbers without
    the zeros that they begin with. A `split` column fills the split where the layout gives none;
    a `participant` column replaces the layout's.

    Args:
        table: `subject`, `split` and the layout's own labels.
        labels: CSV, TSV or XLSX with a column of subjects.
        unlabelled: values that stand for a missing label.
        id_column: what the column of subjects is called. Unset: one of `SUBJECT_COLUMNS`.
        whose: what the table is of, for messages.
        replacing: columns that the table has already are those of the label table afterwards, and
            told where they differ; else they are refused.

    Returns:
        The table with the new columns, and the subjects that have no row in the label table.

    Raises:
        SourceError: not readable, no column of subjects, a subject twice or that may be one of
            several, a split that is not the layout's, a column that a store or the table has
            already, or no subject in common.
    """
    path = Path(labels)
    fresh = read_table(path, SUBJECT_COLUMNS if id_column is None else (id_column.lower(),))
    fresh["subject"] = as_known(table["subject"].tolist(), fresh["subject"].tolist(), path)
    refuse_repeated(fresh["subject"], path)
    known = set(table["subject"].tolist())
    listed = set(fresh["subject"].tolist())
    if not known & listed:
        raise SourceError(
            f"{path.name}: no subject in common with {whose}; it names subjects like "
            f"{fresh['subject'].iloc[0]!r}, {whose} {table['subject'].iloc[0]!r}; if they are in "
            "another column, name it with --id-column"
            if len(fresh)
            else f"{path.name}: has no rows"
        )
    unknown = len(listed - known)
    if unknown:
        say(f"{path.name}: {unknown} rows name no subject of {whose}; they are not used")
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
        raise SourceError(f"{path.name}: column {both[0]}: {whose} has labels of this name")
    before, table = table, table.drop(columns=both)
    fresh = as_labels(by_subject, names, path).reset_index()
    for name in names:
        fresh[name] = _whole(fresh[name].mask(fresh[name].isin(list(unlabelled))))
    whole = {c: "Int64" for c in fresh.columns if fresh[c].dtype.kind in "iu"}
    joined = table.merge(fresh.astype(whole), on="subject", how="left", validate="one_to_one")
    for name in both:
        if count := count_other(before[name], joined[name]):
            say(f"{path.name}: {name} is another than in {whose} for {count} subjects; it is taken")
    missing = [s for s in table["subject"].tolist() if s not in listed]
    return joined, missing


def count_other(before: pd.Series[Any], after: pd.Series[Any]) -> int:
    """How many values of two columns differ, row by row; two that are missing are the same."""
    old, new = (c.astype(object).where(c.notna(), None).tolist() for c in (before, after))
    return sum(a != b for a, b in zip(old, new, strict=True))


def _with_splits(table: pd.DataFrame, given: pd.Series[Any], path: Path) -> pd.DataFrame:
    """A cohort's table with the splits of a label table, where the layout gives none."""
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
    """The subjects of a table as a source writes them; those that it lacks stay as they are.

    A subject is itself, or its name with or without the suffix of a file and with its accents
    composed or not. What is left may be a number that lacks the zeros the source's begins with, or
    ends in `.0`: it is joined where no other subject, on either side, is the same number.

    Raises:
        SourceError: a subject of the table may be any of several of the source.
    """
    source, found = list(known), list(named)
    there = set(source)
    if there.issuperset(found):
        return found
    suffixes = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES)
    forms = _grouped(source, composed)
    for i, name in enumerate(found):
        if name not in there:
            name = name.removesuffix(suffix_of(name, suffixes))
            same = {name} if name in there else forms.get(composed(name), {name})
            found[i] = _only(same, name, path)
    numbers, own = _grouped(source, _number), _grouped(found, _number)
    taken, joined = set(found), {}
    for name in dict.fromkeys(found):
        number = _number(name)
        same = numbers.get(number, set()) if number and name not in there else set()
        if same - taken:
            joined[name] = _only(same if len(own[number]) == 1 else same | {name}, name, path)
    if joined:
        first, theirs = next(iter(joined.items()))
        say(
            f"{path.name}: {len(joined)} subjects are joined by their number, as {first} to "
            f"{theirs}; spreadsheets drop the zeros that a number begins with"
        )
    return [joined.get(name, name) for name in found]


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[key(name)].add(name)
    return dict(groups)


def _only(candidates: set[str], name: str, path: Path) -> str:
    if len(candidates) > 1:
        raise SourceError(
            f"{path.name}: subject {name} may be any of {', '.join(sorted(candidates))}; write it "
            "as the source does"
        )
    return next(iter(candidates))


def composed(name: str) -> str:
    """Text in the one form that has accents composed; macOS names its files in the other."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _number(name: str) -> str:
    """The whole number that a name is, without zeros before it; empty if it is none."""
    digits = re.fullmatch(r"0*([0-9]+?)(\.0+)?", name)
    return digits[1] if digits else ""


def read_table(path: Path, subject_columns: Sequence[str] = SUBJECT_COLUMNS) -> pd.DataFrame:
    """A CSV, TSV or the first sheet of an XLSX, with a complete column `subject`, read as text.

    The columns `split`, `mask` and `participant` may be written in any case. Words for splits
    become `train`, `val` and `test`. A second column of subjects that names several rows alike is
    one of participants, and told.

    Args:
        path: of the table.
        subject_columns: what the column may be called, in any case.

    Raises:
        SourceError: missing, not readable, without a column of subjects, or with an empty one; or
            a column is there twice.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; name a table, as CSV, TSV or XLSX")
    text = (*SUBJECT_COLUMNS, *PERSON_COLUMNS, *subject_columns, *OWN_COLUMNS)
    table = _read(path, text, subject_columns)
    name = _subject_column([str(c) for c in table.columns], subject_columns, path)
    if name != "subject" and "subject" in table:
        raise SourceError(
            f"{path.name}: has columns {name} and subject, and {name} is to name subjects; rename "
            "or remove the other"
        )
    table = table.rename(columns={name: "subject"}).apply(_whole)
    for own in OWN_COLUMNS:
        found = [c for c in table.columns if c.lower() == own]
        if len(found) > 1:
            raise SourceError(f"{path.name}: columns {' and '.join(found)}: keep one of them")
        table = table.rename(columns=dict.fromkeys(found, own))
    table = table[table.notna().any(axis=1)]  # spreadsheets leave rows that hold nothing
    _check_subjects(table["subject"], path)
    if "split" in table:
        table["split"] = _splits(table["split"], path)
    if PARTICIPANT not in table:
        table = _with_participants(table, path)
    return table


def _splits(column: pd.Series[Any], path: Path) -> pd.Series[Any]:
    """Words for splits in their one form; others stay, and are told."""
    split_of = {word: split_word(word) for word in column.dropna().unique()}
    other = column.map(split_of) == ""
    if other.any():
        words = ", ".join(repr(word) for word in list(column[other].unique())[:3])
        say(
            f"{path.name}: column split: {words} (first in line {first_line(other)}) is no word "
            f"for train, val or test; the {int(other.sum())} rows keep it, and are in none of them"
        )
    taken: dict[str, list[str]] = defaultdict(list)
    for word, split in split_of.items():
        taken[split].append(word)
    for split, written in taken.items():
        if split and written != [split]:
            say(f"{path.name}: column split: {', '.join(map(repr, written))} is taken as {split}")
    return canonical_splits(column)


def _with_participants(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A table whose second column of subjects, if any, is one of participants, too."""
    for name in (c for c in table.columns if c.lower() in PERSON_COLUMNS):
        persons, rows = table[name].nunique(), int(table[name].notna().sum())
        if 1 < persons < rows:
            say(
                f"{path.name}: column {name} is taken as {PARTICIPANT}: {persons} persons in "
                f"{rows} rows"
            )
            return table.assign(**{PARTICIPANT: table[name]})
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
    rounded = subjects.str.fullmatch(r"[0-9]([.,][0-9]+)?E\+[0-9]{2,}")
    if rounded.any():
        raise SourceError(
            f"{path.name}: line {first_line(rounded)}: the subject is a number that a spreadsheet "
            "rounded; format the column as text, and enter it again"
        )


def read_plain_table(path: Path) -> list[dict[str, str]]:
    """Rows of a table that comes with a data set, all as text; empty where a value is missing.

    Raises:
        SourceError: not readable.
    """
    table = _read(path, text="all")
    plain = table.astype(object).where(table.notna(), "")
    return [dict(zip(plain.columns, row, strict=True)) for row in plain.to_numpy()]


def _whole(column: pd.Series[Any]) -> pd.Series[Any]:
    """Integers that became floats because some are missing are integers again."""
    known = column.dropna()
    whole = column.dtype.kind == "f" and np.isfinite(known).all() and (known == known.round()).all()
    if whole and 0 < len(known) < len(column):
        return column.astype("Int64")
    return column


def _subject_column(names: list[str], allowed: Sequence[str], path: Path) -> str:
    for wanted in allowed:
        found = [n for n in names if n.lower() == wanted]
        if len(found) > 1:
            raise SourceError(f"{path.name}: columns {' and '.join(found)} both name subjects")
        if found:
            return found[0]
    usual = tuple(allowed) == SUBJECT_COLUMNS
    hint = "; if another column names them, give it with --id-column" if usual else ""
    wanted = " or ".join(filter(None, (", ".join(allowed[:-1]), allowed[-1])))
    raise SourceError(f"{path.name}: has no column {wanted}; found {', '.join(names)}{hint}")


def _read(
    path: Path,
    text: Literal["all"] | tuple[str, ...],
    subject_columns: Sequence[str] = SUBJECT_COLUMNS,
) -> pd.DataFrame:
    """A table as it stands, its columns and texts without blanks around them.

    Args:
        path: of the table.
        text: columns, in lower case, that stay text, whatever they hold.
        subject_columns: in lower case, by one of which a sheet of a workbook is told.

    Raises:
        SourceError: not readable, or two columns of one name.
    """
    suffix = path.suffix.lower()
    if suffix in (".xls", ".ods"):
        raise SourceError(f"{path.name}: is not read; save it as .xlsx or .csv")
    sheets = partial(_read_workbook, subject_columns=subject_columns)
    read = sheets if suffix == ".xlsx" else _read_lines
    try:
        table = read(path, text)
        if long := _long_numbers(table):
            # As numbers they would lose digits; what is so long is a name.
            table = read(path, "all" if text == "all" else (*text, *map(str.lower, long)))
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        kind = suffix[1:].upper() if suffix in TABLE_SUFFIXES else "CSV"
        raise SourceError(f"{path.name}: not a readable {kind}: {one_line(error)}") from None
    # Spreadsheets leave columns that hold nothing.
    nameless = [c for c in table.columns if c.startswith("Unnamed:") and table[c].isna().all()]
    table = table.drop(columns=nameless)
    return table.apply(lambda column: _cleaned(_days(column), text))


def _read_lines(path: Path, text: Literal["all"] | tuple[str, ...]) -> pd.DataFrame:
    lines = _text(path).lstrip("\r\n")
    separator, decimal = _separator(lines, path.suffix.lower())
    front: dict[str, Any] = {"header": None, "nrows": 1, "dtype": str, "na_filter": False}
    head = pd.read_csv(StringIO(lines), sep=separator, skipinitialspace=True, **front)
    names = _column_names(head, path)

    def read(names: list[str]) -> pd.DataFrame:
        return pd.read_csv(
            StringIO(lines),
            sep=separator,
            decimal=decimal,
            header=0,
            names=names,
            index_col=False,  # or lines with a cell too many would shift all columns
            dtype=_types(names, text),
            keep_default_na=False,
            na_values=MISSING,
            skipinitialspace=True,
            skip_blank_lines=False,  # so that rows know their lines
            low_memory=False,  # or parts of one column might differ in type
        )

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return read(names)
        except pd.errors.ParserWarning:
            table = read([*names, beyond := f"Unnamed: {len(names)}"])
    if table[beyond].notna().any():
        line = first_line(table[beyond].notna())
        raise ValueError(f"line {line} has more cells than there are columns")
    return table


def _column_names(head: pd.DataFrame, path: Path) -> list[str]:
    """The names in a table's first row, without blanks around them; empty ones get a number."""
    given = [composed(str(cell).strip()) for cell in head.to_numpy().ravel()]
    for name, count in Counter(filter(None, given)).items():
        if count > 1:
            raise SourceError(
                f"{path.name}: {count} columns are called {name}; rename or remove one"
            )
    return [name or f"Unnamed: {i}" for i, name in enumerate(given)]


def _types(names: Sequence[str], text: Literal["all"] | tuple[str, ...]) -> dict[str, type]:
    return {name: str for name in names if text == "all" or name.lower() in text}


def _long_numbers(table: pd.DataFrame) -> list[str]:
    """Columns of whole numbers too long for a float, which a column with gaps would be."""
    found = []
    for name in table.columns:
        column = table[name].dropna()
        if column.dtype.kind in "iuf":
            values = column[np.isfinite(column)]
            if len(values) and values.abs().max() > 2**53 and (values == values.round()).all():
                found.append(str(name))
        elif column.dtype == object and column.map(lambda v: type(v) is int).any():
            found.append(str(name))  # beyond 64 bits
    return found


def _cleaned(column: pd.Series[Any], text: Literal["all"] | tuple[str, ...]) -> pd.Series[Any]:
    """Texts without blanks around them, and missing where that makes them so."""
    if isinstance(column.dtype, pd.StringDtype):
        clean = column.str.strip()
    elif column.dtype == object:
        clean = column.map(lambda v: v.strip() if isinstance(v, str) else v, na_action="ignore")
    else:
        return column
    if clean.equals(column):
        return column
    clean = clean.mask(clean.isin(MISSING))
    if not _types([str(column.name)], text):
        numbers = pd.to_numeric(clean, errors="coerce")
        clean = numbers if (numbers.notna() == clean.notna()).all() else clean
    return clean


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


def _sheet(book: pd.ExcelFile, path: Path, subject_columns: Sequence[str]) -> str:
    """The sheet of a workbook that holds subjects, or the first.

    Raises:
        SourceError: several hold subjects.
    """
    heads = pd.read_excel(book, None, nrows=0)
    held = [
        str(name)
        for name, head in heads.items()
        if any(str(c).strip().lower() in subject_columns for c in head.columns)
    ]
    if len(held) > 1:
        raise SourceError(
            f"{path.name}: sheets {' and '.join(held)} both name subjects; keep one of them"
        )
    return held[0] if held else str(next(iter(heads)))


def _days(column: pd.Series[Any]) -> pd.Series[Any]:
    """Dates of a spreadsheet as text, 2021-03-05; other values as they are."""
    if column.dtype.kind not in "MO" or isinstance(column.dtype, pd.StringDtype):
        return column
    return column.astype(object).map(_day, na_action="ignore")


def _day(value: Any) -> Any:
    return value.strftime("%Y-%m-%d") if isinstance(value, date) else value


def _read_workbook(
    path: Path, text: Literal["all"] | tuple[str, ...], subject_columns: Sequence[str]
) -> pd.DataFrame:
    require("openpyxl", "xlsx", f"{path.name}: an Excel table needs")
    try:
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > MOST_WORKBOOK:
                raise ValueError(f"its parts hold over {MOST_WORKBOOK} bytes, as a bomb's do")
        with warnings.catch_warnings():  # about styles and forms, which are not looked at
            warnings.simplefilter("ignore")
            with pd.ExcelFile(path, engine="openpyxl") as book:
                sheet = _sheet(book, path, subject_columns)
                head = pd.read_excel(book, sheet, header=None, nrows=1, na_filter=False)
                names = _column_names(head, path)
                table = pd.read_excel(
                    book,
                    sheet,
                    names=names,
                    dtype=_types(names, text),
                    keep_default_na=False,
                    na_values=MISSING,
                )
            if _may_lack_values(path):
                _tell_lacking(path, sheet)
            return table
    except (ValueError, OSError, MemoryError, SourceError):
        raise
    except Exception as error:  # a damaged workbook may raise anything
        raise ValueError(one_line(error)) from None


def _may_lack_values(path: Path) -> bool:
    """Whether any sheet of a workbook has formulas or errors; a look at its text, which is fast."""
    with zipfile.ZipFile(path) as parts:
        sheets = [n for n in parts.namelist() if re.fullmatch(r"xl/worksheets/.*\.xml", n)]
        return any(re.search(rb'<(?:\w+:)?f[ >/]|t="e"', parts.read(name)) for name in sheets)


def _tell_lacking(path: Path, sheet: str) -> None:
    """Tell which cells are missing because a formula has no value, or one that is an error."""
    from openpyxl import load_workbook  # type: ignore[import-untyped]

    lacking: list[str] = []
    errors: list[str] = []
    books = [load_workbook(path, read_only=True, data_only=values) for values in (False, True)]
    for formulas, values in zip(*(book[sheet].iter_rows() for book in books), strict=False):
        for formula, value in zip(formulas, values, strict=False):
            if formula.data_type == "f" and value.value is None:
                lacking.append(formula.coordinate)
            elif value.data_type == "e":
                errors.append(f"{value.coordinate}, {value.value}")
    for book in books:
        book.close()
    if lacking:
        say(
            f"{path.name}: {len(lacking)} cells hold formulas without their values (first "
            f"{lacking[0]}) and count as missing; open it in a spreadsheet program and save it"
        )
    if errors:
        say(f"{path.name}: {len(errors)} cells hold errors (first {errors[0]}), and are missing")


def as_objects(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain dictionaries, None where a value is missing."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in plain.to_dict("records")]


def as_labels(table: pd.DataFrame, names: Sequence[str], path: Path) -> pd.DataFrame:
    """The label columns of a table, ready for a store.

    Text has its accents composed. Words that others may mean by a missing value are values, and
    told.

    Raises:
        SourceError: a name that a store or the embeddings use themselves.
    """
    for name in names:
        if name in RESERVED_COLUMNS:
            raise SourceError(
                f"{path.name}: column {name}: a store keeps its own column of this name; rename it"
            )
        if re.fullmatch(r"f\d+", name):
            raise SourceError(
                f"{path.name}: column {name}: embeddings call their features so; rename it"
            )
    labels = table[list(names)].copy()
    doubtful = []
    for name in names:
        if pd.api.types.is_numeric_dtype(labels[name].dtype):
            continue
        counts = labels[name].value_counts()
        texts = [v for v in counts.index if isinstance(v, str)]
        doubtful += [f"{v!r} in {name} ({counts[v]} rows)" for v in texts if v.lower() in DOUBTFUL]
        if not all(map(str.isascii, texts)):
            labels[name] = labels[name].map(
                lambda v: composed(v) if isinstance(v, str) else v, na_action="ignore"
            )
    if doubtful:
        shown = ", ".join(doubtful[:3]) + (", …" if len(doubtful) > 3 else "")
        say(f"{path.name}: {shown}: a value like others; where it means missing, empty the cells")
    return labels


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
    """Refuse a table that names a subject twice, letter by letter."""
    counts = subjects.value_counts()
    if len(counts) and counts.iloc[0] > 1:
        raise SourceError(
            f"{path.name}: subject {counts.index[0]} is there {counts.iloc[0]} times; "
            "give one row a subject"
        )
