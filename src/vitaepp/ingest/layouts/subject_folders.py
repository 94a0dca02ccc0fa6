"""One folder a subject, whose files are named by modality in whatever way.

    p01/T1.nii.gz, p01/flair_brain.nii.gz, p01/T1-post.nii.gz, p01/lesion_mask.nii.gz
    p02/MPRAGE/p02_20190101.nii.gz, p02/FLAIR/image.nii.gz

A modality is told by the words of a file's name, or of the folder around it (`modalities.WORDS`).
Of several files of one modality the one with the fewest words is taken, then the first in order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from vitaepp.ingest.layouts.cohort import (
    Cohort,
    Source,
    SubjectFiles,
    common_folder,
    split_of,
    stem,
    usual_modalities,
)
from vitaepp.ingest.layouts.modalities import modality_in
from vitaepp.ingest.readers import SCAN_SUFFIXES

#: Words that make a file a mask, and those that do so only alone.
MASK_WORDS = frozenset(("seg", "segm", "segmentation", "mask", "label", "labels", "roi", "gt"))
LONE_MASK_WORDS = frozenset(("lesion", "lesions", "tumor", "tumour"))

#: Words that make a mask one of the whole organ.
ORGAN_WORDS = frozenset(("brain", "head", "face"))

MASK = "mask"


@dataclass(frozen=True)
class _Named:
    """A file, its subject's folder, and what its name tells: a modality, `mask`, or nothing."""

    file: PurePosixPath
    folder: PurePosixPath
    what: str
    words: int

    @property
    def order(self) -> tuple[int, str]:
        """Plain names first."""
        return self.words, self.file.as_posix()


def subject_folders_cohort(source: Source) -> Cohort | None:
    """Folders that hold one file a modality; None where most hold several."""
    named = [_named(source, file) for file in source.ending_in(SCAN_SUFFIXES)]
    folders: dict[PurePosixPath, dict[str, list[_Named]]] = defaultdict(lambda: defaultdict(list))
    for file in named:
        if file.what:
            folders[file.folder][file.what].append(file)
    clashes = [f for f, files in folders.items() if any(map(_equally_plain, files.values()))]
    whats = {what for files in folders.values() for what in files} - {MASK}
    if not whats or 2 * len(clashes) > len(folders):
        return None
    keys = _keys(source, folders)
    left_out: dict[PurePosixPath, str] = {f.file: "its name tells no modality" for f in named}
    subjects = []
    for folder, files in folders.items():
        first = {what: min(several, key=lambda f: f.order) for what, several in files.items()}
        for what, several in files.items():
            for other in several:
                left_out[other.file] = f"another {what}; {first[what].file.name} is taken"
        mask = first.pop(MASK, None)
        if not first and mask is not None:
            left_out[mask.file] = "a mask without an image"
            continue
        subjects.append(
            SubjectFiles(
                subject=keys[folder],
                files={what: source.path / f.file for what, f in first.items()},
                mask=None if mask is None else source.path / mask.file,
                split=split_of(folder),
            )
        )
        for file in (*first.values(), *([] if mask is None else [mask])):
            del left_out[file.file]
    return Cohort(
        "one folder a subject",
        "scans",
        source.path.absolute(),
        tuple(subjects),
        usual_modalities(subjects),
        left_out=tuple((file.as_posix(), why) for file, why in left_out.items()),
    )


def _named(source: Source, file: PurePosixPath) -> _Named:
    name, folder = stem(file.name), file.parent
    if modality_in(folder.name) and folder.name:
        name, folder = f"{folder.name}_{name}", folder.parent
    words = _words(name)
    # What a file shares with its folder is the subject's name.
    own = [w for w in words if w not in _words(folder.name or source.path.absolute().name)]
    if MASK_WORDS.intersection(own) or (len(own) == 1 and LONE_MASK_WORDS.intersection(own)):
        what = "" if ORGAN_WORDS.intersection(own) else MASK
    else:
        what = modality_in("_".join(own))
    return _Named(file, folder, what, len(own))


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]


def _equally_plain(several: list[_Named]) -> bool:
    """Whether it is chance which of some files is the first."""
    words = sorted(file.words for file in several)
    return len(words) > 1 and words[0] == words[1]


def _keys(source: Source, folders: Mapping[PurePosixPath, object]) -> dict[PurePosixPath, str]:
    """Folders below the one that holds all, without last parts that are the same for all."""
    base = common_folder([folder / "file" for folder in folders])
    if len(folders) == 1:
        return {base: base.name or source.path.absolute().name}
    parts = {folder: folder.relative_to(base).parts for folder in folders}
    while len(_last(parts.values())) == 1 and min(map(len, parts.values())) > 1:
        parts = {folder: part[:-1] for folder, part in parts.items()}
    return {folder: "/".join(part) or base.name for folder, part in parts.items()}


def _last(parts: Iterable[tuple[str, ...]]) -> set[str]:
    return {part[-1] for part in parts if part}
