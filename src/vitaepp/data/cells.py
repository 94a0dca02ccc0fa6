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
from vitaepp.system.progress import counted, say

#: What a file has at least where thousands may be parted, by the separator of its columns.
_PARTED = {";": r"\d[.,]\d{3}", "\t": r"\d,\d", ",": r'" *[+-]?\d+,\d'}

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")

#: Most bytes of a decompressed workbook; a million rows need a fifth of it.
MOST_WORKBOOK = 1 << 30

#: Names of a column of subjects, in lower case; the first that a table has is used.
SUBJECT_COLUMNS = ("subject", "subject_id", "participant_id", "patient")

#: The only texts that count as a missing value.
MISSING = ("", "NA", "N/A", "NaN", "n/a", "nan")

#: Texts, in lower case, that are no number where numbers are needed, and no other word either.
NOT_FINITE = ("nan", "inf", "-inf")

#: A table, and lines on how its numbers were read.
Read = tuple[pd.DataFrame, list[str]]


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
        table, told = read(path, text)
        if long := _long_numbers(table):
            # As numbers they would lose digits, so they are read as names.
            table, told = read(path, "all" if text == "all" else (*text, *map(str.lower, long)))
    except SourceError:
        raise
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        kind = suffix[1:].upper() if suffix in TABLE_SUFFIXES else "CSV"
        raise SourceError(f"{path.name}: not a readable {kind}: {one_line(error)}") from None
    for line in told:
        say(f"{path.name}: {line}")
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


def _read_lines(path: Path, text: Literal["all"] | tuple[str, ...]) -> Read:
    lines = _text(path).lstrip("\r\n")
    separator, decimal = _separator(lines, path.suffix.lower())
    front: dict[str, Any] = {"header": None, "nrows": 1, "dtype": str, "na_filter": False}
    head = pd.read_csv(StringIO(lines), sep=separator, skipinitialspace=True, **front)
    names = _column_names(head, path)

    def read(types: type | dict[str, type]) -> pd.DataFrame:
        return pd.read_csv(
            StringIO(lines),
            sep=separator,
            decimal=decimal,
            header=0,
            names=names,
            index_col=False,  # otherwise a line with an extra cell would shift all columns
            dtype=types,
            keep_default_na=False,
            na_values=MISSING,
            skipinitialspace=True,
            skip_blank_lines=False,  # so that rows know their lines
            low_memory=False,  # otherwise parts of one column might differ in type
        )

    beyond = f"Unnamed: {len(names)}"
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table = read(_types(names, text))
        except pd.errors.ParserWarning:  # lines may end in separators
            names = [*names, beyond]
            table = read(_types(names, text))
    if beyond in names and table[beyond].notna().any():
        line = first_line(table[beyond].notna())
        raise ValueError(f"line {line} has more cells than there are columns")
    if not re.search(_PARTED[separator], lines):
        return table, []
    raw = read(str).drop(columns=[*_types(names, text)])
    marks = _decimal_marks(raw)
    # 1,234 alone may have three decimals, and 14.30 beside it be a time or a version.
    if decimal == "," and marks == "." and re.search(r"\d,\d{3}(,\d{3}|\.\d)", lines):
        decimal = "."  # commas are in thousands alone
        table = read(_types(names, text))
    return table, _read_thousands(table, raw, decimal, marks, separator == ";")


def _decimal_marks(raw: pd.DataFrame) -> str:
    """The decimal marks that numbers show, of `.,`: 52,97 shows one, 1,234 may be thousands."""
    cells = {cell for cell in raw.to_numpy().ravel() if isinstance(cell, str)}
    certain = (
        r"[+-]?(\d+{0}(\d{{1,2}}|\d{{4,}})|(0\d*|\d{{4,}}){0}\d{{3}}|\d{{1,3}}({1}\d{{3}})+{0}\d+)"
        r"([eE][+-]?\d+)?"
    )
    shown = {
        mark: re.compile(certain.format(re.escape(mark), re.escape(other)))
        for mark, other in (".,", ",.")
    }
    return "".join(m for m, one in shown.items() if any(one.fullmatch(c.strip()) for c in cells))


def _read_thousands(
    table: pd.DataFrame, raw: pd.DataFrame, decimal: str, marks: str, parts: bool
) -> list[str]:
    """Read numbers such as 11.594 as thousands where the file shows that they are; else ask.

    The file shows it by a decimal mark elsewhere (52,97), and the column by a number without marks
    (900), with several (1.234.567) or with decimals (1.594,5). Where countries with a decimal comma
    are likely, the file is enough: `512,512` in other files may be a pair.

    Args:
        table: as it was read; such columns become numbers.
        raw: columns that may hold numbers, as texts; missing where a cell is no text.
        decimal: the mark that the table was read with.
        marks: those that `_decimal_marks` finds.
        parts: whether thousands may well have a mark: columns have semicolons between them, or
            numbers of a workbook are texts.

    Returns:
        Lines to say.
    """
    lines = []
    for name, cells in raw.items():
        column, texts = table[name], cells.dropna().str.strip()
        numbers = pd.to_numeric(column[cells.isna()].dropna(), errors="coerce")
        if numbers.isna().any():
            continue
        is_word = texts.str.lower().isin([*map(str.lower, MISSING), *NOT_FINITE])
        words, texts = texts[is_word], texts[~is_word]
        plain = None
        if marks == decimal:
            plain = _grouped(texts, decimal, shown=len(numbers) > 0 or (parts and decimal == ","))
        # Texts with a point are taken as numbers where numbers are needed.
        mark = decimal if column.dtype.kind == "f" else "."
        alike = texts.str.contains(mark, regex=False).all() and not len(numbers)
        decimals = mark in marks and (not parts or (alike and mark == decimal))
        if plain is not None:
            table[name] = numbers.reindex(column.index).astype(float)
            table.loc[plain.index, name] = pd.to_numeric(plain)
            table.loc[words.index, name] = pd.to_numeric(words, errors="coerce")
            first = int(texts.str.contains(",.".replace(decimal, ""), regex=False).argmax())
            lines.append(
                f"column {name}: {texts.iloc[first]} is read as {plain.iloc[first]}: other numbers "
                f"have a decimal {'comma' if decimal == ',' else 'point'}"
            )
        elif (parts or marks) and not decimals and (asked := _question(texts, mark)):
            lines.append(f"column {name}: {asked}")
    return lines


def _grouped(texts: pd.Series[str], decimal: str, *, shown: bool) -> pd.Series[str] | None:
    """Numbers without the marks between their thousands, and with a decimal point.

    None where one is no number, where none has such a mark, and where all have one such as 1.234,
    unless it is shown that these are thousands.
    """
    other = ",.".replace(decimal, "")
    point, group = re.escape(decimal), re.escape(other)
    number = rf"[+-]?([1-9]\d{{0,2}}({group}\d{{3}})+|0|[1-9]\d*)({point}\d+)?"
    if not texts.str.fullmatch(number).all() or not texts.str.contains(other, regex=False).any():
        return None
    if not shown and texts.str.fullmatch(rf"\D?\d+{group}\d{{3}}").all():
        return None
    return texts.str.replace(other, "").str.replace(decimal, ".")


def _question(texts: pd.Series[str], mark: str) -> str:
    """What asks whether numbers such as 1.234, which are read as decimals, are thousands.

    Empty where none has the mark, or where one has another number of digits behind it.
    """
    parted = texts[texts.str.contains(mark, regex=False)]
    thousands = rf"[+-]?[1-9]\d{{0,2}}{re.escape(mark)}\d{{3}}"
    if (
        not len(parted)
        or not parted.str.fullmatch(thousands).all()
        or pd.to_numeric(texts.str.replace(mark, "."), errors="coerce").isna().any()
    ):
        return ""
    first = parted.iloc[0]
    shown = first.replace(mark, ".")
    return f"{first} is read as {shown}; if it is thousands, write it without the mark"


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
    comma = separator == ";" and re.search(r'(?m)(^|;)[ "]*[+-]?\d+,\d+[ "]*(;|\r?$)', lines)
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
) -> Read:
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
            # Any sheet has formulas or errors.
            told = _lacking(path, sheet) if _found(path, rb'<(?:\w+:)?f[ >/]|t="e"') else []
            if not _found(path, rb"<(?:\w+:)?t(?: [^>]*)?>\s*[+-]?\d{1,3}[.,]\d{3}"):
                return table, told
            # Numbers that are stored as texts, which pandas takes for numbers as in a CSV.
            with pd.ExcelFile(path, engine="openpyxl") as book:
                raw = pd.read_excel(
                    book,
                    sheet,
                    names=names,
                    dtype=object,
                    keep_default_na=False,
                    na_values=MISSING,
                )
            raw = raw.drop(columns=[*_types(names, text)])
            raw = raw.map(lambda value: value if isinstance(value, str) else None)
            marks = _decimal_marks(raw)
            decimal = marks if marks == "," else "."
            return table, [*told, *_read_thousands(table, raw, decimal, marks, True)]
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


def _found(path: Path, pattern: bytes) -> bool:
    """Whether the cells or texts of a workbook have a pattern, by a fast search of its XML."""
    with zipfile.ZipFile(path) as parts:
        names = r"xl/(worksheets/.*|sharedStrings)\.xml"
        sheets = [n for n in parts.namelist() if re.fullmatch(names, n)]
        return any(re.search(pattern, parts.read(name)) for name in sheets)


def _lacking(path: Path, sheet: str) -> list[str]:
    """Lines on cells that are missing because a formula has no value, or an error as value."""
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
    told = []
    if lacking:
        told.append(
            f"{counted(len(lacking), 'formula')} without a value (first in {lacking[0]}) counted "
            "as missing; open the file in a spreadsheet program and save it"
        )
    if errors:
        told.append(f"{counted(len(errors), 'error')} (first {errors[0]}) counted as missing")
    return told
