"""Layouts: what kind of SOURCE this is, which subjects it holds, and where their files are.

`recognise` tries the known layouts in order. A new one is a function from a `Source` to a `Cohort`
or None, entered in `LAYOUTS` with the words that tell a user what would have been recognised.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pandas as pd

from vitaepp.errors import SourceError, nearest, one_line
from vitaepp.ingest.readers import (
    PICTURE_SUFFIXES,
    SCAN_SUFFIXES,
    NpzArray,
    npz_keys,
    suffix_of,
)
from vitaepp.store import RESERVED_COLUMNS

#: The name of the one image of a subject, where a layout has no modalities.
SINGLE = "image"

SPLITS = ("train", "val", "valid", "validation", "test")
MASK_FOLDERS = ("labels", "masks")
GRADES = ("HGG", "LGG")

#: Modalities in the order in which they become channels; BraTS up to 2020, then since 2021.
KNOWN_MODALITIES = (
    *("flair", "t1", "t1ce", "t1gd", "t2"),
    *("t2f", "t1n", "t1c", "t2w"),
    *("t1w", "pd", "adc", "dwi", "swi", "ct", "pet"),
)
MASK_NAMES = ("seg", "mask")

Kind = Literal["scans", "pictures", "arrays"]


@dataclass(frozen=True)
class ArrayItem:
    """One image of a `.npz`: an array's name there, and an index into it."""

    file: Path
    key: str
    index: int


@dataclass(frozen=True)
class SubjectFiles:
    """One subject of a source.

    Attributes:
        subject: unique key.
        files: where each modality is; one that the subject lacks is absent.
        mask: segmentation of the same space, if any.
        split: `train`, `val`, `test` or whatever the source says; may be empty.
        labels: values of label columns that the layout itself gives.
    """

    subject: str
    files: Mapping[str, Path | ArrayItem]
    mask: Path | None = None
    split: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cohort:
    """What a source holds.

    Attributes:
        layout: what it was recognised as, for messages.
        kind: how its images are read: scans (3D, physical space), pictures (2D), arrays (.npz).
        root: folder that recorded paths are relative to.
        subjects: in the order of the store.
        modalities: that most subjects have, in order; `image` alone where a layout has none.
    """

    layout: str
    kind: Kind
    root: Path
    subjects: tuple[SubjectFiles, ...]
    modalities: tuple[str, ...] = (SINGLE,)

    @property
    def has_masks(self) -> bool:
        """Whether most subjects have a mask."""
        return 2 * sum(s.mask is not None for s in self.subjects) > len(self.subjects)

    def table(self) -> pd.DataFrame:
        """Subject, split and the layout's own label columns; one row a subject."""
        rows = [{"subject": s.subject, "split": s.split, **s.labels} for s in self.subjects]
        return pd.DataFrame(rows, dtype=object)

    def choose(self, asked: Sequence[str] | None) -> tuple[str, ...]:
        """The modalities to use, in order: those asked for, or the layout's.

        Raises:
            SourceError: one that no subject has, or one named twice.
        """
        if asked is None:
            return self.modalities
        known = {m for s in self.subjects for m in s.files}
        for name in asked:
            if name not in known:
                raise SourceError(f"modality {name}: no subject has it; {nearest(name, known)}")
        if not asked or len(set(asked)) < len(asked):
            raise SourceError(f"modalities {','.join(asked)}: give each once, and at least one")
        return tuple(asked)


@dataclass(frozen=True)
class Source:
    """A path that a user gave, and what lies below it.

    Attributes:
        path: file or folder.
        asked: modalities that the user named, if any.
    """

    path: Path
    asked: tuple[str, ...] | None = None

    @cached_property
    def files(self) -> tuple[PurePosixPath, ...]:
        """Every file below a folder, relative to it, sorted; without what systems leave behind."""
        found, seen = [], set()
        for folder, below, names in os.walk(self.path, followlinks=True):
            if (real := os.path.realpath(folder)) in seen:
                below.clear()
                continue
            seen.add(real)
            below[:] = sorted(d for d in below if not _is_junk(d))
            inside = PurePosixPath(Path(folder).relative_to(self.path).as_posix())
            found += [inside / name for name in sorted(names) if not _is_junk(name)]
        return tuple(found)

    def ending_in(self, suffixes: tuple[str, ...]) -> list[PurePosixPath]:
        """The files of some types."""
        return [f for f in self.files if suffix_of(f.name, suffixes)]


def recognise(source: str | os.PathLike[str], modalities: Sequence[str] | None = None) -> Cohort:
    """Find out what a source is, and list its subjects.

    Args:
        source: manifest CSV, folder in a known layout, or .npz.
        modalities: names that the user asked for; in a manifest they may name columns.

    Raises:
        SourceError: nothing there, no known layout, or a broken manifest.
    """
    path = Path(source)
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    described = Source(path, tuple(modalities) if modalities is not None else None)
    for _, layout in LAYOUTS:
        cohort = layout(described)
        if cohort is not None:
            _refuse_duplicates(cohort, path)
            return cohort
    wanted = "; ".join(what for what, _ in LAYOUTS)
    raise SourceError(f"{path}: no images found; looked for {wanted}")


def join_labels(
    table: pd.DataFrame, labels: str | os.PathLike[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Add the columns of a label CSV to a cohort's table, by subject.

    The CSV's subjects may be written as file names. A `split` column fills the split where the
    layout gives none.

    Args:
        table: `subject`, `split` and the layout's own labels.
        labels: CSV with a `subject` column.

    Returns:
        The table with the new columns, and the subjects that have no row in the CSV.

    Raises:
        SourceError: not readable, no `subject` column, a subject twice, a column that a store or
            the table has already, or no subject in common.
    """
    path = Path(labels)
    fresh = _read_csv(path)
    suffixes = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES)
    known = set(table["subject"])
    fresh["subject"] = [
        s if s in known else s.removesuffix(suffix_of(s, suffixes)) for s in fresh["subject"]
    ]
    _refuse_repeated(fresh["subject"], path)
    if "split" in fresh and not table["split"].any():
        table = table.drop(columns="split")
        fresh["split"] = fresh["split"].fillna("").astype(str)
    names = [str(c) for c in fresh.columns if c != "subject"]
    _check_label_names([n for n in names if n != "split" or "split" in table], path)
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
    whole = {c: "Int64" for c in fresh.columns if fresh[c].dtype.kind in "iu"}
    joined = table.merge(fresh.astype(whole), on="subject", how="left", validate="one_to_one")
    if "split" in names:
        joined["split"] = joined["split"].fillna("")
    missing = [s for s in table["subject"] if s not in set(fresh["subject"])]
    return joined, missing


def _manifest(source: Source) -> Cohort | None:
    path = source.path
    if not path.is_file() or path.suffix.lower() not in (".csv", ".tsv"):
        return None
    table = _read_csv(path)
    _refuse_repeated(table["subject"], path)
    asked = set(source.asked or ())
    columns = [str(c) for c in table.columns if c not in ("subject", "mask", "split")]
    modalities = [c for c in columns if c in asked or _holds_images(table[c])]
    if not modalities:
        raise SourceError(
            f"{path.name}: no column holds image files (names that end in "
            f"{', '.join((*SCAN_SUFFIXES, *PICTURE_SUFFIXES))}); found {', '.join(columns)}"
        )
    labels = [c for c in columns if c not in modalities]
    _check_label_names(labels, path)
    folder = path.absolute().parent
    values = _as_objects(table)
    subjects = []
    for row in values:
        files = {m: folder / str(row[m]).strip() for m in modalities if row[m] is not None}
        mask = row.get("mask")
        subjects.append(
            SubjectFiles(
                subject=row["subject"],
                files=files,
                mask=None if mask is None else folder / str(mask).strip(),
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
    return Cohort("a manifest", kind, folder, tuple(subjects), tuple(modalities))


def _medmnist(source: Source) -> Cohort | None:
    path = source.path
    if not path.is_file() or path.suffix.lower() != ".npz":
        return None
    keys = npz_keys(path)
    splits = [s for s in ("train", "val", "test") if f"{s}_images" in keys]
    if not splits:
        raise SourceError(
            f"{path.name}: has none of the arrays train_images, val_images, test_images; "
            f"found {', '.join(keys)}"
        )
    subjects: list[SubjectFiles] = []
    for split in splits:
        images = NpzArray(path, f"{split}_images")
        labels = (
            _npz_labels(path, f"{split}_labels", len(images)) if f"{split}_labels" in keys else {}
        )
        subjects += [
            SubjectFiles(
                f"{split}_{i:05d}",
                {SINGLE: ArrayItem(path, images.key, i)},
                split=split,
                labels={name: values[i] for name, values in labels.items()},
            )
            for i in range(len(images))
        ]
    return Cohort("a .npz with MedMNIST's keys", "arrays", path.absolute().parent, tuple(subjects))


def _images_and_masks(source: Source) -> Cohort | None:
    for suffixes in (SCAN_SUFFIXES, PICTURE_SUFFIXES):
        files = source.ending_in(suffixes)
        base = _common_folder(files)
        if base.name == "images":
            base = base.parent
        images = _below(base / "images", files)
        if not images:
            continue
        masks: dict[str, PurePosixPath] = {}
        for folder in MASK_FOLDERS:
            masks |= {_stem(f.relative_to(base / folder)): f for f in _below(base / folder, files)}
        subjects = []
        for file in images:
            inside = file.relative_to(base / "images")
            mask = masks.get(_stem(inside))
            subjects.append(
                SubjectFiles(
                    subject=_stem(inside),
                    files={SINGLE: source.path / file},
                    mask=None if mask is None else source.path / mask,
                    split=_split_of(inside),
                )
            )
        kind: Kind = "scans" if suffixes is SCAN_SUFFIXES else "pictures"
        what = "a folder of images with masks" if masks else "a folder of images"
        return Cohort(what, kind, source.path.absolute(), tuple(subjects))
    return None


def _brats(source: Source) -> Cohort | None:
    folders: dict[PurePosixPath, dict[str, PurePosixPath]] = {}
    for file in source.ending_in(SCAN_SUFFIXES):
        # The name of SOURCE itself counts where it is one subject's folder.
        folder = file.parent.name or source.path.absolute().name
        match = re.fullmatch(rf"{re.escape(folder)}[_-](.+)", _stem(file.name), re.IGNORECASE)
        if match:
            folders.setdefault(file.parent, {})[match[1]] = file
    shared = Counter(name for names in folders.values() for name in names)
    # One folder of numbered scans is named alike, but its numbers are no modalities.
    modalities = {
        name
        for name, count in shared.items()
        if name.lower() in (*KNOWN_MODALITIES, *MASK_NAMES) or (count > 1 and not name.isdigit())
    }
    subjects = []
    for parent, named in folders.items():
        files = {m: source.path / f for m, f in named.items() if m in modalities}
        masks = [files.pop(m) for m in list(files) if m.lower() in MASK_NAMES]
        if files:
            grade = [part for part in parent.parts if part in GRADES]
            subjects.append(
                SubjectFiles(
                    subject=parent.name or source.path.absolute().name,
                    files=files,
                    mask=masks[0] if masks else None,
                    split=_split_of(parent),
                    labels={"grade": grade[0]} if grade else {},
                )
            )
    if not subjects:
        return None
    return Cohort(
        "folders in BraTS naming",
        "scans",
        source.path.absolute(),
        tuple(subjects),
        _usual_modalities(subjects),
    )


def _scans(source: Source) -> Cohort | None:
    files = source.ending_in(SCAN_SUFFIXES)
    # One level too high, masks would be taken for subjects.
    names = {f.as_posix() for f in files}
    for file in (f for f in files if f.parent.name == "images"):
        masks = [file.parent.with_name(n) / file.name for n in MASK_FOLDERS]
        if any(m.as_posix() in names for m in masks):
            raise SourceError(
                f"{source.path}: holds images and masks of equal names in "
                f"{file.parent.parent}; prepare {source.path / file.parent.parent} instead"
            )
    subjects = [
        SubjectFiles(_stem(f), {SINGLE: source.path / f}, split=_split_of(f)) for f in files
    ]
    root = source.path.absolute()
    return Cohort("a folder of scans", "scans", root, tuple(subjects)) if subjects else None


def _pictures(source: Source) -> Cohort | None:
    files = source.ending_in(PICTURE_SUFFIXES)
    if not files:
        return None
    base = _common_folder(files)
    while any(part in SPLITS for part in base.parts):
        base = base.parent
    inside = [f.relative_to(base) for f in files]
    classes = [[p for p in f.parts[:-1] if p not in SPLITS][:1] for f in inside]
    subjects = [
        SubjectFiles(
            subject=_stem(name),
            files={SINGLE: source.path / file},
            split=_split_of(name),
            labels={"label": label[0]} if label else {},
        )
        for file, name, label in zip(files, inside, classes, strict=True)
    ]
    what = "image folders by class" if any(classes) else "a folder of pictures"
    return Cohort(what, "pictures", source.path.absolute(), tuple(subjects))


#: Layouts in the order in which they are tried, each with what it looks for.
LAYOUTS: tuple[tuple[str, Callable[[Source], Cohort | None]], ...] = (
    ("a manifest (CSV with a subject column and a column of paths a modality)", _manifest),
    ("a .npz with MedMNIST's keys (train_images, …)", _medmnist),
    ("images/ beside labels/ or masks/", _images_and_masks),
    ("one folder a subject in BraTS naming (<subject>/<subject>_t1.nii.gz, …)", _brats),
    (f"scans ({', '.join(SCAN_SUFFIXES)})", _scans),
    (f"pictures, as train/CLASS/*.jpeg ({', '.join(PICTURE_SUFFIXES)})", _pictures),
)


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _stem(name: str | PurePosixPath) -> str:
    """A relative path without the image suffix.

    >>> _stem("train/a.b.nii.gz")
    'train/a.b'
    """
    text = str(name)
    return text.removesuffix(suffix_of(text, (*SCAN_SUFFIXES, *PICTURE_SUFFIXES)))


def _split_of(path: PurePosixPath) -> str:
    return next((part for part in path.parts if part in SPLITS), "")


def _below(folder: PurePosixPath, files: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    return [f for f in files if f.is_relative_to(folder)]


def _common_folder(files: Sequence[PurePosixPath]) -> PurePosixPath:
    if not files:
        return PurePosixPath()
    return PurePosixPath(os.path.commonpath([f.parent for f in files]))


def _usual_modalities(subjects: Sequence[SubjectFiles]) -> tuple[str, ...]:
    """Modalities that more than half of the subjects have, in the usual order of channels."""
    counts = Counter(m for s in subjects for m in s.files)
    usual = [m for m, count in counts.items() if 2 * count > len(subjects)]
    rank = {m: i for i, m in enumerate(KNOWN_MODALITIES)}
    order = sorted(usual or counts, key=lambda m: (rank.get(m.lower(), len(rank)), m))
    return tuple(order)


def _npz_labels(path: Path, key: str, length: int) -> dict[str, list[Any]]:
    array = NpzArray(path, key)
    if len(array) != length:
        raise SourceError(f"{path.name}: {key} has {len(array)} rows for {length} images")
    values = np.stack(list(array)).reshape(length, -1) if length else np.empty((0, 1))
    columns = values.T.tolist()
    if len(columns) == 1:
        return {"label": columns[0]}
    return {f"label_{i}": column for i, column in enumerate(columns)}


def _read_csv(path: Path) -> pd.DataFrame:
    """A CSV (or TSV) with a complete `subject` column, which is read as text."""
    if not path.is_file():
        raise SourceError(f"{path}: no such file")
    try:
        table = pd.read_csv(
            path,
            sep="\t" if path.suffix.lower() == ".tsv" else ",",
            dtype={"subject": str, "split": str, "mask": str},
            encoding="utf-8-sig",
            skipinitialspace=True,
        )
    except (ValueError, OSError) as error:
        raise SourceError(f"{path.name}: not a readable CSV: {one_line(error)}") from None
    if "subject" not in table:
        found = ", ".join(str(c) for c in table.columns)
        raise SourceError(f"{path.name}: has no column subject; found {found}")
    if table["subject"].isna().any():
        line = int(table["subject"].isna().to_numpy().argmax()) + 2
        raise SourceError(f"{path.name}: line {line} has no subject")
    table["subject"] = table["subject"].str.strip()
    for name in table.columns:
        column = table[name]
        if column.dtype.kind == "f" and column.isna().any() and column.notna().any():
            whole = column.dropna()
            if (whole == whole.round()).all():
                table[name] = column.astype("Int64")
    return table


def _as_objects(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain dictionaries, None where a value is missing."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in plain.to_dict("records")]


def _holds_images(column: pd.Series[Any]) -> bool:
    values = column.dropna()
    suffixes = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES)
    return len(values) > 0 and all(
        isinstance(v, str) and suffix_of(v.strip(), suffixes) for v in values
    )


def _check_label_names(names: Iterable[str], path: Path) -> None:
    for name in names:
        if name in RESERVED_COLUMNS:
            raise SourceError(
                f"{path.name}: column {name}: a store keeps its own column of this name; rename it"
            )
        if re.fullmatch(r"f\d+", name):
            raise SourceError(
                f"{path.name}: column {name}: embeddings call their features so; rename it"
            )


def _refuse_repeated(subjects: pd.Series[Any], path: Path) -> None:
    counts = subjects.value_counts()
    if len(counts) and counts.iloc[0] > 1:
        raise SourceError(
            f"{path.name}: subject {counts.index[0]} is there {counts.iloc[0]} times; "
            "give one row a subject"
        )


def _refuse_duplicates(cohort: Cohort, path: Path) -> None:
    counts = Counter(s.subject for s in cohort.subjects)
    for subject, count in counts.items():
        if count > 1:
            raise SourceError(
                f"{path}: {count} files or folders are named {subject}; rename them, or list them "
                "in a manifest"
            )
    if not cohort.subjects:
        raise SourceError(f"{path}: holds no subject")
