"""Images of a source that are not used, each with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from vitaepp.data.suffixes import PICTURE_SUFFIXES, SCAN_SUFFIXES
from vitaepp.ingest.layouts.cohort import Cohort, Source
from vitaepp.ingest.layouts.dicom_series import DICOM_SUFFIXES
from vitaepp.ingest.readers.items import SeriesItem, own_files, place_of

#: Suffixes of image formats that cannot be read.
FOREIGN_SUFFIXES = (
    *(".nii.bz2", ".nii.xz", ".nii.zst", ".mnc", ".mif", ".mif.gz", ".gipl"),
    *(".par", ".rec", ".czi", ".svs", ".ndpi"),
)


def with_left_out(cohort: Cohort, source: Source) -> Cohort:
    """A cohort in which every image of its source is either used or left out with a reason."""
    reasons = dict(cohort.left_out)
    for path, why in (*_rare_modalities(cohort, source), *_unused_files(cohort, source)):
        reasons.setdefault(path, why)
    return replace(cohort, left_out=tuple(sorted(reasons.items())))


def left_out_in_words(cohort: Cohort) -> str:
    """One line for the user: how many files are left out, and one of them as an example.

    Args:
        cohort: one that leaves out at least one file.
    """
    path, why = cohort.left_out[0]
    number = len(cohort.left_out)
    if number == 1:
        return f"1 left out ({path}: {why})"
    return f"{number} left out ({path}: {why}, …); prepare `dry_run` lists more of them"


def _rare_modalities(cohort: Cohort, source: Source) -> Iterator[tuple[str, str]]:
    """Images of modalities that do not become channels, because most subjects lack them."""
    if source.requested is not None:
        return
    counts = Counter(m for s in cohort.subjects for m in s.files)
    for subject in cohort.subjects:
        for modality, item in subject.files.items():
            if modality not in cohort.modalities:
                why = f"modality {modality}: {counts[modality]} of {len(cohort.subjects)} subjects "
                yield place_of(item, source.path), f"{why}have it; `modalities` can include it"


def _unused_files(cohort: Cohort, source: Source) -> Iterator[tuple[str, str]]:
    """Images that belong to no subject."""
    items = [item for subject in cohort.subjects for item in subject.items]
    used = {file for item in items for file in own_files(item)}
    reasons = {"scans": "a scan", "pictures": "a picture", cohort.kind: f"not in {cohort.layout}"}
    candidates = {
        **dict.fromkeys(source.ending_in(FOREIGN_SUFFIXES), "its format is not read"),
        **dict.fromkeys(source.ending_in(PICTURE_SUFFIXES), reasons["pictures"]),
        **dict.fromkeys(source.ending_in(SCAN_SUFFIXES), reasons["scans"]),
    }
    # The layout of DICOM lists itself what it leaves out.
    if not any(isinstance(item, SeriesItem) for item in items):
        candidates |= dict.fromkeys(source.ending_in(DICOM_SUFFIXES), "DICOM beside other images")
    for file, reason in candidates.items():
        if source.path / file not in used:
            yield file.as_posix(), reason
