"""CSV, TSV and XLSX files as tables of text, numbers and missing values."""

from __future__ import annotations

import re
import unicodedata
import warnings
import zipfile
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Sequence
from datetime import date
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from vitaepp.errors import SourceError, one_line
from vitaepp.system.extras import require
from vitaepp.system.progress import say

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")

#: Most bytes of a decompressed workbook; a million rows need a fifth of it.
MOST_WORKBOOK = 1 << 30

#: Names of a column of subjects, in lower case; the first that a table has is used.
SUBJECT_COLUMNS = ("subject", "subject_id", "participant_id", "patient")

#: The only texts that count as a missing value.
MISSING = ("", "NA", "N/A", "NaN", "n/a", "nan")


def read_plain_table(path: Path) -> list[dict[str, str]]:
    """The rows of a data set's own table, all values as text; a missing value is an empty text.

    Raises:
        SourceError: the table cannot be read.
    """
    table = read_cells(path, text="all")
    plain = table.astype(object).where(table.notna(), "")
    return [dict(zip(plain.columns, row, strict=True)) for row in plain.to_numpy()]


def read_cells(
    path: Path,
    text: Literal["all"] | tuple[str, ...],
    subject_columns: Sequence[str] = SUBJECT_COLUMNS,
) -> pd.DataFrame:
    """Read a table as it is, without blanks around column names and texts.

    Args:
        path: file of the table.
        text: columns, in lower case, that are always read as text.
        subject_columns: names of a column of subjects, in lower case; they identify the sheet to
            read in a workbook.

    Raises:
        SourceError: the table cannot be read, or two columns have the same name.
    """
    suffix = path.suffix.lower()
    if suffix in (".xls", ".ods"):
        raise SourceError(f"{path.name}: this format is not read; save it as .xlsx or .csv")
    sheets = partial(_read_workbook, subject_columns=subject_columns)
    read = sheets if suffix == ".xlsx" else _read_lines
    try:
        table = read(path, text)
        if long := _long_numbers(table):
            # As numbers they would lose digits, so they are read as names.
            table = read(path, "all" if text == "all" else (*text, *map(str.lower, long)))
    except SourceError:
        raise
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        kind = suffix[1:].upper() if suffix in TABLE_SUFFIXES else "CSV"
        raise SourceError(f"{path.name}: not a readable {kind}: {one_line(error)}") from None
    # Spreadsheets often contain empty columns.
    nameless = [c for c in table.columns if c.startswith("Unnamed:") and table[c].isna().all()]
    table = table.drop(columns=nameless)
    return table.apply(lambda column: _cleaned(_days(column), text))


def first_line(rows: pd.Series[bool]) -> int:
    """The line in a table's file of the first row whose value is true."""
    return int(rows[rows].index[0]) + 2


def composed(name: str) -> str:
    """Text with composed accents (Unicode NFC); macOS decomposes accents in file names."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def whole_numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    """Restore integers that became floats because some values are missing."""
    known = column.dropna()
    whole = column.dtype.kind == "f" and np.isfinite(known).all() and (known == known.round()).all()
    if whole and 0 < len(known) < len(column):
        return column.astype("Int64")
    return column


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
            index_col=False,  # otherwise a line with an extra cell would shift all columns
            dtype=_types(names, text),
            keep_default_na=False,
            na_values=MISSING,
            skipinitialspace=True,
            skip_blank_lines=False,  # so that rows know their lines
            low_memory=False,  # otherwise parts of one column might differ in type
        )

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table = read(names)
            _say_thousands(lines, path, table, separator, decimal)
            return table
        except pd.errors.ParserWarning:
            table = read([*names, beyond := f"Unnamed: {len(names)}"])
    if table[beyond].notna().any():
        line = first_line(table[beyond].notna())
        raise ValueError(f"line {line} has more cells than there are columns")
    return table


def _say_thousands(
    lines: str, path: Path, table: pd.DataFrame, separator: str, decimal: str
) -> None:
    """Ask about numbers such as 1.234 beside 900, which may be thousands.

    Only where columns are separated by semicolons, as where a comma or a point may part thousands.
    """
    written = re.compile(rf"[1-9]\d{{0,2}}{re.escape(decimal)}\d{{3}}")
    if separator != ";" or not written.search(lines):
        return
    raw = pd.read_csv(StringIO(lines), sep=separator, dtype=str, index_col=False, header=0)
    for name, (_, cells) in zip(table.columns, raw.items(), strict=False):
        if table[name].dtype.kind != "f":
            continue
        texts = cells.dropna().str.strip()
        parted = texts[texts.str.contains(decimal, regex=False)]
        if 0 < len(parted) < len(texts) and parted.str.fullmatch(written.pattern).all():
            say(
                f"{path.name}: column {name}: {parted.iloc[0]} is read as "
                f"{parted.iloc[0].replace(decimal, '.')}; if it is thousands, write it without the "
                "mark"
            )


def _text(path: Path) -> str:
    """The content of a text file in UTF-8, UTF-16, or Windows-1252, which spreadsheets write."""
    data = path.read_bytes()
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return data.decode("utf-16")
    if b"\0" in data:
        raise ValueError("it is not text")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError("its text is neither UTF-8 nor Windows-1252; save it as UTF-8")


def _separator(lines: str, suffix: str) -> tuple[str, str]:
    """The separators of columns and of decimals; a .csv may have semicolons or tabs."""
    if suffix == ".tsv":
        return "\t", "."
    head = lines.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    # With semicolons, decimals usually have a comma, but not always.
    comma = separator == ";" and re.search(r'(?m)(^|;)"?-?\d+,\d+"?(;|\r?$)', lines)
    return separator, "," if comma else "."


def _column_names(head: pd.DataFrame, path: Path) -> list[str]:
    """The names in a table's first row, without blanks around them; empty names get a number."""
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
    """Columns with whole numbers that are too long for a float, as used in columns with gaps."""
    long = []
    for name in table.columns:
        column = table[name].dropna()
        if column.dtype.kind in "iuf":
            values = column[np.isfinite(column)]
            if len(values) and values.abs().max() > 2**53 and (values == values.round()).all():
                long.append(str(name))
        elif column.dtype == object and column.map(lambda v: type(v) is int).any():
            long.append(str(name))  # they have more than 64 bits
    return long


def _days(column: pd.Series[Any]) -> pd.Series[Any]:
    """Turn dates of a spreadsheet into text such as 2021-03-05; keep other values."""
    if column.dtype.kind not in "MO" or isinstance(column.dtype, pd.StringDtype):
        return column
    return column.astype(object).map(
        lambda value: value.strftime("%Y-%m-%d") if isinstance(value, date) else value,
        na_action="ignore",
    )


def _cleaned(column: pd.Series[Any], text: Literal["all"] | tuple[str, ...]) -> pd.Series[Any]:
    """Remove blanks around texts; texts that then mean a missing value become missing."""
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


def _read_workbook(
    path: Path, text: Literal["all"] | tuple[str, ...], subject_columns: Sequence[str]
) -> pd.DataFrame:
    require("openpyxl", "xlsx", f"{path.name}: an Excel table needs")
    try:
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > MOST_WORKBOOK:
                raise ValueError(f"it has over {MOST_WORKBOOK} bytes when decompressed")
        with warnings.catch_warnings():  # openpyxl warns about styles and forms, which are not used
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
                _report_lacking(path, sheet)
            return table
    except (ValueError, OSError, MemoryError, SourceError):
        raise
    except Exception as error:  # a damaged workbook may raise any exception
        raise ValueError(one_line(error)) from None


def _sheet(book: pd.ExcelFile, path: Path, subject_columns: Sequence[str]) -> str:
    """The sheet of a workbook with a column of subjects, or the first sheet.

    Raises:
        SourceError: several sheets have a column of subjects.
    """
    heads = pd.read_excel(book, None, nrows=0)
    sheets = [
        str(name)
        for name, head in heads.items()
        if any(str(c).strip().lower() in subject_columns for c in head.columns)
    ]
    if len(sheets) > 1:
        raise SourceError(
            f"{path.name}: sheets {' and '.join(sheets)} both name subjects; keep one of them"
        )
    return sheets[0] if sheets else str(next(iter(heads)))


def _may_lack_values(path: Path) -> bool:
    """Whether any sheet of a workbook has formulas or errors, by a fast search of its text."""
    with zipfile.ZipFile(path) as parts:
        sheets = [n for n in parts.namelist() if re.fullmatch(r"xl/worksheets/.*\.xml", n)]
        return any(re.search(rb'<(?:\w+:)?f[ >/]|t="e"', parts.read(name)) for name in sheets)


def _report_lacking(path: Path, sheet: str) -> None:
    """Report cells that count as missing because a formula has no value, or an error as value."""
    from openpyxl import load_workbook

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
            f"{lacking[0]}) and count as missing; open the file in a spreadsheet program and save "
            "it"
        )
    if errors:
        say(f"{path.name}: {len(errors)} cells hold errors (first {errors[0]}); they are missing")
