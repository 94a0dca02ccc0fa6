"""A manifest: a table that names the files of each subject."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vitaepp.errors import SourceError
from vitaepp.ingest.items import files_of
from vitaepp.ingest.layouts.cohort import Cohort, Kind, Source, SubjectFiles
from vitaepp.ingest.layouts.tables import (
    TABLE_SUFFIXES,
    as_objects,
    check_label_names,
    first_line,
    read_table,
    refuse_repeated,
)
from vitaepp.ingest.readers import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of

IMAGE_SUFFIXES = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES)


def manifest_cohort(source: Source) -> Cohort | None:
    """A CSV, TSV or XLSX with a column of paths a modality."""
    path = source.path
    if not path.is_file() or path.suffix.lower() not in TABLE_SUFFIXES:
        return None
    table = read_table(path)
    refuse_repeated(table["subject"], path)
    asked = set(source.asked or ())
    columns = [str(c) for c in table.columns if c not in ("subject", "mask", "split")]
    modalities = [c for c in columns if c in asked or _holds_images(table[c], path)]
    if not modalities:
        raise SourceError(
            f"{path.name}: no column holds image files (names that end in "
            f"{', '.join(IMAGE_SUFFIXES)}); found {', '.join(columns)}"
        )
    labels = [c for c in columns if c not in modalities]
    check_label_names(labels, path)
    folder = path.absolute().parent
    values = as_objects(table)
    subjects = []
    for row in values:
        files = {m: _path(folder, row[m]) for m in modalities if row[m] is not None}
        mask = row.get("mask")
        subjects.append(
            SubjectFiles(
                subject=row["subject"],
                files=files,
                mask=None if mask is None else _path(folder, mask),
                split="" if row.get("split") is None else str(row["split"]),
                labels={c: row[c] for c in labels},
            )
        )
    names = [p.name for s in subjects for p in s.files.values() if isinstance(p, Path)]
    pictures = sum(bool(suffix_of(n, PICTURE_SUFFIXES)) for n in names)
    if pictures not in (0, len(names)):
        raise SourceError(
            f"{path.name}: names both scans and pictures; a store holds one kind, so split it"
        )
    kind: Kind = "pictures" if pictures else "scans"
    return Cohort(
        "a manifest",
        kind,
        folder,
        tuple(subjects),
        tuple(modalities),
        left_out=tuple(_not_named(folder, subjects)),
    )


def _holds_images(column: pd.Series[Any], path: Path) -> bool:
    """Whether a column names image files, all of them or none.

    Raises:
        SourceError: only some of its values do.
    """
    values = column.dropna()
    named = values.map(lambda v: isinstance(v, str) and bool(suffix_of(v.strip(), IMAGE_SUFFIXES)))
    named = named.astype(bool)
    if named.any() and not named.all():
        raise SourceError(
            f"{path.name}: column {column.name} names images, but not in line "
            f"{first_line(~named)}; leave cells empty where there is none, and name files that "
            f"end in {', '.join(IMAGE_SUFFIXES)}"
        )
    return bool(named.any())


def _path(folder: Path, value: Any) -> Path:
    """A cell's path, as seen from the manifest's folder; Windows writes it with backslashes."""
    return folder / str(value).strip().replace("\\", "/")


def _not_named(folder: Path, subjects: Sequence[SubjectFiles]) -> Iterator[tuple[str, str]]:
    """Images beside those that a manifest names."""
    items = [item for s in subjects for item in (*s.files.values(), s.mask) if item is not None]
    named = {Path(os.path.normpath(file)) for item in items for file in files_of(item)}
    for parent in sorted({file.parent for file in named}):
        for file in sorted(parent.iterdir()) if parent.is_dir() else ():
            image = suffix_of(file.name, IMAGE_SUFFIXES) and not file.name.startswith(".")
            if image and file not in named:
                inside = file.is_relative_to(folder)
                told = file.relative_to(folder).as_posix() if inside else file.name
                yield told, "the manifest does not name it"
