"""A manifest: a table that names the files of each subject."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from vitaepp.data.cells import SUBJECT_COLUMNS, TABLE_SUFFIXES, composed, first_line
from vitaepp.data.labels import as_labels
from vitaepp.data.suffixes import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of
from vitaepp.data.tables import as_objects, read_table, refuse_repeated
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts.cohort import Cohort, Kind, Source, SubjectFiles
from vitaepp.ingest.layouts.dicom_series import DICOM_SUFFIXES, item_at, series_item
from vitaepp.ingest.layouts.masks import look_like_masks
from vitaepp.ingest.layouts.names import is_mask_name
from vitaepp.ingest.readers.arrays import npy_axes
from vitaepp.ingest.readers.items import Item, own_files, place_of

IMAGE_SUFFIXES = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES)

#: Share of images that are named after their subjects where a manifest goes by that.
USUALLY = 0.7

#: Of fewer subjects than this, names are compared over all columns together.
FEW = 4


def manifest_cohort(source: Source) -> Cohort | None:
    """A CSV, TSV or XLSX with a column of paths for each modality."""
    path = source.path
    if not path.is_file() or path.suffix.lower() not in TABLE_SUFFIXES:
        return None
    named = SUBJECT_COLUMNS if source.id_column is None else (source.id_column.lower(),)
    table = read_table(path, named)
    table["subject"] = table["subject"].map(composed)
    refuse_repeated(table["subject"], path)
    requested = set(source.requested or ())
    folder = path.absolute().parent
    columns = [str(c) for c in table.columns if c not in ("subject", "mask", "split")]
    modalities = [c for c in columns if c in requested or _holds_images(table[c], path)]
    if not modalities:
        raise SourceError(
            f"{path.name}: no column holds image files (names that end in "
            f"{', '.join(IMAGE_SUFFIXES)}, or folders of DICOM files); found {', '.join(columns)}"
        )
    masks = [c for c in modalities if is_mask_name(c) and c not in requested]
    if masks and ("mask" in table or len(masks) > 1 or len(masks) == len(modalities)):
        raise SourceError(
            f"{path.name}: by its name, column {masks[0]} holds masks; name the column of masks to "
            "centre on mask and remove others, or use it as an image with `modalities`"
        )
    if "mask" in table and table["mask"].notna().any() and not _holds_images(table["mask"], path):
        raise SourceError(
            f"{path.name}: column mask names no image files; correct it, or rename it"
        )
    modalities = [c for c in modalities if c not in masks]
    labels = [c for c in columns if c not in (*modalities, *masks)]
    table[labels] = as_labels(table, labels, path)
    values = as_objects(table)
    subjects = []
    for row in values:
        files = {m: item_at(_path(folder, row[m])) for m in modalities if row[m] is not None}
        mask = row.get(masks[0] if masks else "mask")
        subjects.append(
            SubjectFiles(
                subject=row["subject"],
                files=files,
                mask=None if mask is None else item_at(_path(folder, mask)),
                split="" if row.get("split") is None else str(row["split"]),
                labels={c: row[c] for c in labels},
            )
        )
    names = [p for s in subjects for p in s.files.values() if isinstance(p, Path)]
    pictures = sum(map(_is_picture, names))
    if pictures not in (0, len(names)):
        raise SourceError(
            f"{path.name}: names both scans and pictures; a store holds one kind, so make two "
            "manifests"
        )
    kind: Kind = "pictures" if pictures else "scans"
    return Cohort(
        "a manifest",
        kind,
        folder,
        tuple(_doubted(subjects, folder)),
        tuple(modalities),
        left_out=tuple(_not_named(folder, subjects)),
        notes=(
            *(f"masks: column {name}" for name in masks),
            *_perhaps_masks([m for m in modalities if m not in requested], subjects),
        ),
    )


def _is_picture(path: Path) -> bool:
    if path.suffix.lower() == ".npy":
        return npy_axes(path) == 2
    return bool(suffix_of(path.name, PICTURE_SUFFIXES))


def _holds_images(column: pd.Series[Any], path: Path) -> bool:
    """Whether all values of a column name image files.

    Raises:
        SourceError: only some of them do.
    """
    values = column.dropna().map(lambda value: str(value).strip())
    suffixes = (*IMAGE_SUFFIXES, *DICOM_SUFFIXES)
    files = values.map(lambda value: bool(suffix_of(value, suffixes))).astype(bool)
    named = files | values.map(lambda value: _is_series(_path(path.parent, value))).astype(bool)
    if files.any() and not named.all():
        raise SourceError(
            f"{path.name}: column {column.name} names images, but not in line "
            f"{first_line(~named)}; name files that end in {', '.join(IMAGE_SUFFIXES)}, or folders "
            "of DICOM files, and leave the cell empty if there is no image"
        )
    return bool(len(named) and named.all())


def _is_series(folder: Path) -> bool:
    return folder.is_dir() and series_item(folder) is not None


def _path(folder: Path, value: Any) -> Path:
    """The path in a cell, relative to the manifest's folder; backslashes of Windows are accepted.

    If there is no such file, the other Unicode forms of its accents are tried.
    """
    name = str(value).strip().replace("\\", "/")
    if name.isascii() or (folder / name).exists():
        return folder / name
    forms = [folder / unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    return next((path for path in forms if path.exists()), folder / name)


def _perhaps_masks(columns: Sequence[str], subjects: Sequence[SubjectFiles]) -> Iterator[str]:
    """What to say of columns that are used as images and hold what looks like masks."""
    for name in columns:
        pairs = []
        for files in (s.files for s in subjects):
            one, others = files.get(name), [i for m, i in files.items() if m != name]
            if isinstance(one, Path) and others and isinstance(others[0], Path):
                pairs.append((one, others[0]))
        if look_like_masks(name, pairs):
            yield (
                f"column {name} is used as an image, and holds few whole numbers as masks do; if "
                "it holds masks, call it mask"
            )


def _doubted(subjects: Sequence[SubjectFiles], folder: Path) -> Iterator[SubjectFiles]:
    """Subjects with what is to be asked: an image that is another's, too, or has another's name."""
    files = [(s.subject, column, own_files(item)) for s in subjects for column, item in _columns(s)]
    first = [(subject, column, own[0]) for subject, column, own in files if own]
    counts = Counter(os.path.normpath(file) for _, _, file in first)
    twice = {subject for subject, _, file in first if counts[os.path.normpath(file)] > 1}
    # In a column whose files are named after subjects, one that is not may be another's. A column
    # of few files tells little; there they are taken together.
    named: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for name, column, file in first:
        together = "" if len(subjects) < FEW else column
        named[together].append((name, _names(file, name, folder)))
    apart = set[str]()
    for each in named.values():
        if sum(after for _, after in each) >= USUALLY * len(each):
            apart |= {name for name, after in each if not after}
    for subject in subjects:
        doubts = list(subject.doubts)
        if subject.subject in twice:
            doubts.append(
                "an image is named more than once, by several subjects or columns; if that is a "
                "slip, correct the manifest"
            )
        if subject.subject in apart:
            doubts.append(
                "an image is not named after its subject, as the others are; if it is another's, "
                "correct the manifest"
            )
        yield replace(subject, doubts=tuple(doubts))


def _columns(subject: SubjectFiles) -> Iterator[tuple[str, Item]]:
    yield from subject.files.items()
    if subject.mask is not None:
        yield "mask", subject.mask


def _names(file: Path, subject: str, folder: Path) -> bool:
    """Whether a path has the name of a subject in it, as a whole word; 7 may be 007."""
    place, name = (unicodedata.normalize("NFC", t) for t in (place_of(file, folder), subject))
    word = f"0*{int(name)}" if name.isdecimal() else re.escape(name)
    ends = r"\d" if name.isdecimal() else r"[^\W_]"
    return re.search(rf"(?<!{ends}){word}(?!{ends})", place, re.IGNORECASE) is not None


def _not_named(folder: Path, subjects: Sequence[SubjectFiles]) -> Iterator[tuple[str, str]]:
    """Images in the same folders that the manifest does not name."""
    named = {Path(os.path.normpath(file)) for s in subjects for file in s.own_files}
    for parent in sorted({file.parent for file in named}):
        for file in sorted(parent.iterdir()) if parent.is_dir() else ():
            image = suffix_of(file.name, IMAGE_SUFFIXES) and not file.name.startswith(".")
            if image and file not in named:
                yield place_of(file, folder), "the manifest does not name it"
