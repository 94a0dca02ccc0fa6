"""What a layout does not take of what looks like images, each file with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vitaepp.ingest.items import files_of
from vitaepp.ingest.layouts.cohort import Cohort, Source
from vitaepp.ingest.readers import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of

#: Ends of names of images in formats that may not be read here.
FOREIGN_SUFFIXES = (
    *(".nii.bz2", ".nii.xz", ".nii.zst", ".mgz", ".mgh", ".mnc", ".mif", ".mif.gz", ".gipl"),
    *(".par", ".rec", ".dcm", ".ima", ".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".hdr", ".npy"),
    *(".czi", ".svs", ".ndpi", ".gif", ".webp"),
)

ALL_SUFFIXES = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES, *FOREIGN_SUFFIXES)


def with_left_out(cohort: Cohort, source: Source) -> Cohort:
    """A cohort that accounts for every image of its source: taken, or left out with a reason."""
    told = dict(cohort.left_out)
    for path, why in (*_rare_modalities(cohort, source), *_unused_files(cohort, source)):
        told.setdefault(path, why)
    return replace(cohort, left_out=tuple(sorted(told.items())))


def told_left_out(cohort: Cohort) -> str:
    """One line for the user: how many files are left out, and for example which.

    Args:
        cohort: with something left out.
    """
    path, why = cohort.left_out[0]
    number = len(cohort.left_out)
    others = ", …" if number > 1 else ""
    return f"{number} left out ({path}: {why}{others}); prepare --dry-run lists all, with reasons"


def _rare_modalities(cohort: Cohort, source: Source) -> Iterator[tuple[str, str]]:
    """Images of modalities that are no channels, as most subjects lack them."""
    if source.asked is not None:
        return
    counts = Counter(m for s in cohort.subjects for m in s.files)
    for subject in cohort.subjects:
        for modality, item in subject.files.items():
            if modality not in cohort.modalities:
                why = f"modality {modality}: {counts[modality]} of {len(cohort.subjects)} subjects "
                for file in files_of(item):
                    yield _relative(file, source.path), f"{why}have it; --modalities may ask for it"


def _unused_files(cohort: Cohort, source: Source) -> Iterator[tuple[str, str]]:
    """Images that no subject has."""
    used = {
        file
        for subject in cohort.subjects
        for item in (*subject.files.values(), *([] if subject.mask is None else [subject.mask]))
        for file in files_of(item)
    }
    unused = [f for f in source.ending_in(ALL_SUFFIXES) if source.path / f not in used]
    # A header and its voxels may be two files of one name.
    names = {_without_suffix(file) for file in used} if unused else set()
    for file in unused:
        foreign = not suffix_of(file.name, (*SCAN_SUFFIXES, *PICTURE_SUFFIXES))
        if not (foreign and _without_suffix(source.path / file) in names):
            yield file.as_posix(), _reason(cohort, file.name)


def _without_suffix(file: Path) -> str:
    return str(file).removesuffix(suffix_of(file.name, ALL_SUFFIXES))


def _reason(cohort: Cohort, name: str) -> str:
    if suffix_of(name, SCAN_SUFFIXES):
        return f"does not fit {cohort.layout}" if cohort.kind == "scans" else "a scan"
    if suffix_of(name, PICTURE_SUFFIXES):
        return f"does not fit {cohort.layout}" if cohort.kind == "pictures" else "a picture"
    return "its format is not read; convert it to NIfTI"


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
