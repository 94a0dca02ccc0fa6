"""A manifest: a table that names the files of each subject."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from vitaepp.errors import SourceError
from vitaepp.ingest.items import Item
from vitaepp.ingest.layouts.cohort import Cohort, Kind, Source, SubjectFiles
from vitaepp.ingest.layouts.dicom import DICOM_SUFFIXES, series_item
from vitaepp.ingest.layouts.tables import (
    TABLE_SUFFIXES,
    as_objects,
    check_label_names,
    read_table,
    refuse_repeated,
)
from vitaepp.ingest.readers import PICTURE_SUFFIXES, SCAN_SUFFIXES, npy_axes, suffix_of


def manifest_cohort(source: Source) -> Cohort | None:
    """A CSV, TSV or XLSX with a column of paths a modality."""
    path = source.path
    if not path.is_file() or path.suffix.lower() not in TABLE_SUFFIXES:
        return None
    table = read_table(path)
    refuse_repeated(table["subject"], path)
    asked = set(source.asked or ())
    folder = path.absolute().parent
    columns = [str(c) for c in table.columns if c not in ("subject", "mask", "split")]
    modalities = [c for c in columns if c in asked or _holds_images(table[c], folder)]
    if not modalities:
        raise SourceError(
            f"{path.name}: no column holds image files (names that end in "
            f"{', '.join((*SCAN_SUFFIXES, *PICTURE_SUFFIXES))}, or folders of DICOM files); found "
            f"{', '.join(columns)}"
        )
    labels = [c for c in columns if c not in modalities]
    check_label_names(labels, path)
    values = as_objects(table)
    subjects = []
    for row in values:
        files = {m: _item(folder / str(row[m]).strip()) for m in modalities if row[m] is not None}
        mask = row.get("mask")
        subjects.append(
            SubjectFiles(
                subject=row["subject"],
                files=files,
                mask=None if mask is None else _item(folder / str(mask).strip()),
                split="" if row.get("split") is None else str(row["split"]),
                labels={c: row[c] for c in labels},
            )
        )
    names = [p for s in subjects for p in s.files.values() if isinstance(p, Path)]
    pictures = sum(map(_is_picture, names))
    if pictures not in (0, len(names)):
        raise SourceError(
            f"{path.name}: names both scans and pictures; a store holds one kind, so split it"
        )
    kind: Kind = "pictures" if pictures else "scans"
    return Cohort("a manifest", kind, folder, tuple(subjects), tuple(modalities))


def _is_picture(path: Path) -> bool:
    if path.suffix.lower() == ".npy":
        return npy_axes(path) == 2
    return bool(suffix_of(path.name, PICTURE_SUFFIXES))


def _item(path: Path) -> Item:
    """A file, or the DICOM series of a folder or file."""
    if not path.is_dir() and not suffix_of(path.name, DICOM_SUFFIXES):
        return path
    return series_item(path) or path


def _holds_images(column: pd.Series[Any], folder: Path) -> bool:
    values = column.dropna()
    suffixes = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES, *DICOM_SUFFIXES)
    return len(values) > 0 and all(
        isinstance(v, str) and (suffix_of(v.strip(), suffixes) or _is_series(folder / v.strip()))
        for v in values
    )


def _is_series(folder: Path) -> bool:
    return folder.is_dir() and series_item(folder) is not None
