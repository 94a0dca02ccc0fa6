"""Files named after their modality, in any style: one folder per subject, or side by side.

    p01/T1.nii.gz, p01/flair_brain.nii.gz, p01/T1-post.nii.gz
    p02/MPRAGE/p02_20190101.nii.gz, p02/FLAIR/image.nii.gz
    p01_T1.nii.gz, p01_FLAIR.nii.gz, p02_T1.nii.gz, or T1/p01.nii.gz, FLAIR/p01.nii.gz

The words of a file's name, or of its folder's name, decide the modality (`names.WORDS`). If a
subject has several files of one modality, one with its own mask is used, then the file with the
fewest words in its name, then the first in alphabetical order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from vitaepp.ingest.layouts.cohort import PLAINER, Cohort, Source, SubjectFiles, common_folder
from vitaepp.ingest.layouts.names import (
    is_organ_mask,
    modality_in,
    says_modality,
    split_of,
    stem,
    words,
)
from vitaepp.ingest.layouts.pairing import OF_MASK, closest

#: What names such as GE's may mean otherwise.
PERHAPS_VISITS = (
    "T1_FLAIR is taken for a T1 and T2_FLAIR for a FLAIR; if T1 and T2 are visits, name files and "
    "persons in a manifest"
)


@dataclass(frozen=True)
class _Named:
    """A file, its subject, the modality by its name (may be empty), and its number of words."""

    file: PurePosixPath
    owner: PurePosixPath
    modality: str
    words: int

    @property
    def order(self) -> tuple[int, str]:
        """Sort key: plain names come first."""
        return self.words, self.file.as_posix()


#: The files of each subject, by modality.
_Subjects = Mapping[PurePosixPath, Mapping[str, Sequence[_Named]]]


def subject_folders_cohort(source: Source) -> Cohort | None:
    """Folders with one file per modality; None if most folders hold several."""
    named = [_by_folder(source, file) for file in source.images("scans")]
    subjects = _subjects(named)
    if not any(subjects.values()) or not _mostly(map(_is_clear, subjects.values())):
        return None
    return _cohort(source, "one folder per subject", named, subjects, _keys(source, subjects))


def named_files_cohort(source: Source) -> Cohort | None:
    """Scans with names that differ only in the modality; None if most subjects have one file."""
    named = [_by_name(file) for file in source.images("scans")]
    subjects = _subjects(named)
    several = (len(files) > 1 and _is_clear(files) for files in subjects.values())
    if not _mostly(several):
        return None
    keys = {owner: owner.as_posix() for owner in subjects}
    return _cohort(source, "files named after subject and modality", named, subjects, keys)


def _by_folder(source: Source, file: PurePosixPath) -> _Named:
    name, folder = stem(file.name), file.parent
    if modality_in(folder.name):
        name, folder = f"{folder.name}_{name}", folder.parent
    # Words that a file's name shares with its folder are the subject's name.
    of_folder = words(folder.name or source.path.absolute().name)
    parts = re.findall(r"[\W_]*[^\W_]+(?:[\W_]+$)?", name)
    own = [part for part in parts if words(part)[0] not in of_folder]
    return _Named(file, folder, modality_in("".join(own)), len(own))


def _by_name(file: PurePosixPath) -> _Named:
    name = stem(file.name)
    # Separators between the words of the subject's name are kept.
    parts = re.findall(r"[^A-Za-z0-9]*[A-Za-z0-9]+", name)
    plain = [re.sub(r"[^a-z0-9]", "", part.lower().replace("+c", "post")) for part in parts]
    said = says_modality(plain)
    rest = [part for part, of_modality in zip(parts, said, strict=True) if not of_modality]
    by_folder = modality_in(file.parent.name)
    folder = file.parent.parent if by_folder else file.parent
    subject = "".join(rest).lstrip("_-. ")
    modality = modality_in(name) or by_folder
    return _Named(file, folder / subject, modality if subject else "", len(parts))


def _subjects(named: Iterable[_Named]) -> _Subjects:
    """The files of each subject, by modality."""
    subjects: dict[PurePosixPath, dict[str, list[_Named]]] = defaultdict(lambda: defaultdict(list))
    for file in named:
        if file.modality:
            subjects[file.owner][file.modality].append(file)
    return subjects


def _is_clear(files: Mapping[str, Sequence[_Named]]) -> bool:
    """Whether every modality has one file with fewer words in its name than all others."""
    words = [sorted(file.words for file in several) for several in files.values()]
    return not any(len(several) > 1 and several[0] == several[1] for several in words)


def _mostly(true: Iterable[bool]) -> bool:
    values = list(true)
    return 2 * sum(values) > len(values)


def _cohort(
    source: Source,
    layout: str,
    named: Iterable[_Named],
    subjects: _Subjects,
    keys: Mapping[PurePosixPath, str],
) -> Cohort:
    left_out = dict.fromkeys(named, "its name contains no modality")
    masks = _masks_below(source)
    made = []
    for owner, files in subjects.items():
        everything = [file.file for several in files.values() for file in several]
        masked = {image for mask in masks.get(owner, ()) for image in closest(mask, everything)}
        first = {}
        for modality, several in files.items():
            first[modality] = min(several, key=lambda f: (f.file not in masked, f.order))
            plainest = min(several, key=lambda f: f.order)
            why = PLAINER if first[modality] is plainest else OF_MASK
            left_out |= dict.fromkeys(several, f"another {modality}; {why}")
        for file in first.values():
            del left_out[file]
        made.append(
            SubjectFiles(
                subject=keys[owner],
                files={m: source.path / f.file for m, f in first.items()},
                split=split_of(owner),
            )
        )
    notes = [PERHAPS_VISITS] if any(map(_may_be_visits, made)) else []
    return source.cohort(
        layout, made, left_out={f.file: why for f, why in left_out.items()}, notes=tuple(notes)
    )


def _may_be_visits(subject: SubjectFiles) -> bool:
    """Whether a T1 and a FLAIR are named T1 FLAIR and T2 FLAIR, as are two visits with a FLAIR."""
    said = [set(words(stem(str(subject.files.get(m, ""))))) for m in ("t1", "flair")]
    return {"t1", "flair"} <= said[0] and {"t2", "flair"} <= said[1]


def _masks_below(source: Source) -> Mapping[PurePosixPath, Sequence[PurePosixPath]]:
    """The masks below each folder, without those of the brain."""
    masks: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for mask in sorted(source.masks["scans"]):
        for folder in mask.parents if not is_organ_mask(stem(mask.name)) else ():
            masks[folder].append(mask)
    return masks


def _keys(source: Source, folders: Iterable[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Paths of folders below their common folder, without last parts that all of them share."""
    base = common_folder([folder / "file" for folder in folders])
    parts = {folder: folder.relative_to(base).parts for folder in folders}
    while len({part[-1:] for part in parts.values()}) == 1 and min(map(len, parts.values())) > 1:
        parts = {folder: part[:-1] for folder, part in parts.items()}
    alone = base.name or source.path.absolute().name
    return {folder: "/".join(part) or alone for folder, part in parts.items()}
