"""Plain folders: images beside masks, scans, and pictures by split and class."""

from __future__ import annotations

from itertools import product
from pathlib import PurePosixPath

from vitaepp.errors import SourceError
from vitaepp.ingest.layouts.cohort import (
    MASK_FOLDERS,
    SINGLE,
    SPLITS,
    Cohort,
    Kind,
    Source,
    SubjectFiles,
    below,
    common_folder,
    split_of,
    stem,
)
from vitaepp.ingest.readers import PICTURE_SUFFIXES, SCAN_SUFFIXES


def images_and_masks_cohort(source: Source) -> Cohort | None:
    """A folder `images/` or `imagesTr/`, with masks of equal names beside it or without."""
    for suffixes, name in product((SCAN_SUFFIXES, PICTURE_SUFFIXES), MASK_FOLDERS):
        files = source.ending_in(suffixes)
        base = common_folder(files)
        if base.name == name:
            base = base.parent
        images = below(base / name, files)
        if not images:
            continue
        masks: dict[str, PurePosixPath] = {}
        for folder in MASK_FOLDERS[name]:
            masks |= {stem(f.relative_to(base / folder)): f for f in below(base / folder, files)}
        subjects = []
        for file in images:
            inside = file.relative_to(base / name)
            mask = masks.get(stem(inside))
            subjects.append(
                SubjectFiles(
                    subject=stem(inside),
                    files={SINGLE: source.path / file},
                    mask=None if mask is None else source.path / mask,
                    split=split_of(inside),
                )
            )
        alone = masks.keys() - {s.subject for s in subjects}
        kind: Kind = "scans" if suffixes is SCAN_SUFFIXES else "pictures"
        what = "a folder of images with masks" if masks else "a folder of images"
        return Cohort(
            what,
            kind,
            source.path.absolute(),
            tuple(subjects),
            left_out=tuple((masks[n].as_posix(), "a mask without an image") for n in alone),
        )
    return None


def scans_cohort(source: Source) -> Cohort | None:
    """Every scan below a folder, one a subject."""
    files = source.ending_in(SCAN_SUFFIXES)
    # One level too high, masks would be taken for subjects.
    names = {f.as_posix() for f in files}
    for file in (f for f in files if f.parent.name in MASK_FOLDERS):
        masks = [file.parent.with_name(n) / file.name for n in MASK_FOLDERS[file.parent.name]]
        if any(m.as_posix() in names for m in masks):
            raise SourceError(
                f"{source.path}: holds images and masks of equal names in "
                f"{file.parent.parent}; prepare {source.path / file.parent.parent} instead"
            )
    subjects = [SubjectFiles(stem(f), {SINGLE: source.path / f}, split=split_of(f)) for f in files]
    root = source.path.absolute()
    return Cohort("a folder of scans", "scans", root, tuple(subjects)) if subjects else None


def pictures_cohort(source: Source) -> Cohort | None:
    """Every picture below a folder; folders are splits and classes."""
    found = source.ending_in(PICTURE_SUFFIXES)
    files = _without_copies(source, found)
    if not files:
        return None
    base = common_folder(files)
    while any(part in SPLITS for part in base.parts):
        base = base.parent
    inside = [f.relative_to(base) for f in files]
    classes = [[p for p in f.parts[:-1] if p not in SPLITS][:1] for f in inside]
    subjects = [
        SubjectFiles(
            subject=stem(name),
            files={SINGLE: source.path / file},
            split=split_of(name),
            labels={"label": label[0]} if label else {},
        )
        for file, name, label in zip(files, inside, classes, strict=True)
    ]
    what = "image folders by class" if any(classes) else "a folder of pictures"
    names = tuple(sorted({str(s.labels["label"]) for s in subjects if s.labels}))
    root = source.path.absolute()
    copies = tuple((f.as_posix(), "a copy of another") for f in set(found) - set(files))
    return Cohort(what, "pictures", root, tuple(subjects), classes=names, left_out=copies)


def _without_copies(source: Source, files: list[PurePosixPath]) -> list[PurePosixPath]:
    """Files less those of a folder that holds itself again, as Kaggle's chest_xray does."""
    known = set(files)
    outermost = source.path.absolute().name
    kept = []
    for file in files:
        parts = (outermost, *file.parts)
        twice = next((i for i in range(1, len(parts) - 1) if parts[i] == parts[i - 1]), None)
        if twice is not None:
            above = PurePosixPath(*parts[1:twice], *parts[twice + 1 :])
            if above in known and _size(source, above) == _size(source, file):
                continue
        kept.append(file)
    return kept


def _size(source: Source, file: PurePosixPath) -> int:
    return (source.path / file).stat().st_size
