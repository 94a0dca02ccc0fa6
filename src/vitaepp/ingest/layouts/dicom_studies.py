"""Whose images DICOM files are: studies, the subjects they make, and the persons behind these.

Ids tell studies apart, but bad anonymisers give several persons one. Folders are then believed.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import combinations, product
from pathlib import PurePosixPath

from vitaepp.ingest.layouts.cohort import common_folder
from vitaepp.ingest.readers import DicomHeader

Headers = Mapping[PurePosixPath, DicomHeader]

#: Folders of one person's studies, by their names: a date, a year or the number of a visit.
DATED = re.compile(
    r"(?i)(?<!\d)(19|20)\d\d(?!\d)|(?<!\d)(19|20)\d{6}(?!\d)|\d{1,2}[-_.]\d{1,2}[-_.](19|20)?\d\d"
    r"|^(base ?line|bl|follow\W?up|fu|visit|vis|ses|session|time ?point|tp|scan|exam|study|pre|post"
    r"|week|month|day|year|[mvty])\W?\d*$"
)


def study_keys(
    headers: Headers, modality: Callable[[DicomHeader], str]
) -> dict[PurePosixPath, str]:
    """Which study each file is of: by its id, and by the folder where persons share an id.

    Args:
        headers: of the files.
        modality: tells what a series is; empty or `ignore` if it is nothing of use.
    """
    by_uid: dict[str, list[PurePosixPath]] = defaultdict(list)
    for file, header in headers.items():
        # Without an id, folders at the top are the studies.
        by_uid[header.study or f"/{file.parts[0] if len(file.parts) > 1 else ''}"].append(file)
    keys: dict[PurePosixPath, str] = {}
    for uid, files in by_uid.items():
        persons = _persons(files, headers, modality)
        for folder, own in persons.items():
            keys |= dict.fromkeys(own, f"{uid} {folder}" if len(persons) > 1 else uid)
    return keys


def _persons(
    files: Sequence[PurePosixPath], headers: Headers, modality: Callable[[DicomHeader], str]
) -> dict[PurePosixPath, list[PurePosixPath]]:
    """The files of one study by the folders of those who share its id."""
    top = common_folder(files)
    children: dict[str, list[PurePosixPath]] = defaultdict(list)
    for file in files:
        inside = file.relative_to(top).parts
        children[inside[0] if len(inside) > 1 else ""].append(file)
    groups = [[headers[file] for file in own] for own in children.values()]
    if "" in children or not _are_persons(groups, modality):
        return {top: list(files)}
    return {f: own for c in children.values() for f, own in _persons(c, headers, modality).items()}


def _are_persons(
    folders: Sequence[Sequence[DicomHeader]], modality: Callable[[DicomHeader], str]
) -> bool:
    """Whether folders of one study's id hold several persons.

    They do if each has a patient, or a date, of its own; if one image's id is in two of them, as
    copies are gone; if the same series is in each, in the same place; if two of them hold the same
    two modalities.
    """
    if len(folders) < 2:
        return False
    for told in ("patient", "date"):
        own = [{getattr(h, told) for h in folder} - {""} for folder in folders]
        if all(len(one) == 1 for one in own) and len(set.union(*own)) == len(own):
            return True
    known = [[h for h in folder if modality(h)] for folder in folders]
    images: list[set[Hashable]] = [
        {(h.series, h.instance, h.description, h.slices) for h in folder if h.instance}
        for folder in known
    ]
    if _shared(images):
        return True
    # Diffusion series are sorted by b-value, and their ids stay the same.
    places: list[set[Hashable]] = [
        {(h.series, h.description, h.slices) for h in folder if modality(h) != "dwi"}
        for folder in known
    ]
    if all(places) and all(place & _shared(places) for place in places):
        return True
    return bool(_shared(set(combinations(sorted({modality(h) for h in f}), 2)) for f in known))


def _shared(sets: Iterable[set[Hashable]]) -> set[Hashable]:
    """What is in more than one of the sets."""
    counts = Counter(item for one in sets for item in one)
    return {item for item, count in counts.items() if count > 1}


def subject_folders(
    studies: Mapping[PurePosixPath, str],
) -> tuple[dict[PurePosixPath, PurePosixPath], dict[PurePosixPath, int]]:
    """The folder of the subject that each file is of.

    One study is the whole source. Else each folder at the top is a subject; where it holds several
    studies, each of these is.

    Args:
        studies: the key of each file's study.

    Returns:
        Folders by file, without those of studies that share a folder; and the folders in which
        they do, with how many studies each holds.
    """
    tops: dict[str, dict[str, list[PurePosixPath]]] = defaultdict(lambda: defaultdict(list))
    for file, key in studies.items():
        tops[file.parts[0] if len(file.parts) > 1 else ""][key].append(file)
    deep = all(len(file.parts) > 2 for file in studies)
    if len(set(studies.values())) == 1 and not (len(tops) == 1 and deep):
        return dict.fromkeys(studies, PurePosixPath()), {}
    folders: dict[PurePosixPath, PurePosixPath] = {}
    mixed = {}
    for top, by_key in tops.items():
        groups = list(by_key.values())
        own = [_own_folder(i, groups) for i in range(len(groups))]
        if len(groups) == 1 and top:
            own = [PurePosixPath(top)]
        if all(
            a.name and (i == j or not a.is_relative_to(b))
            for (i, a), (j, b) in product(enumerate(own), repeat=2)
        ):
            for folder, files in zip(own, groups, strict=True):
                folders |= dict.fromkeys(files, folder)
        else:
            mixed[PurePosixPath(top)] = len(groups)
    return folders, mixed


def _own_folder(i: int, groups: Sequence[Sequence[PurePosixPath]]) -> PurePosixPath:
    """The highest folder that holds all files of a group and none of another."""
    others = [file for j, group in enumerate(groups) if j != i for file in group]
    folder = common_folder(groups[i])
    while folder.name and not any(f.is_relative_to(folder.parent) for f in others):
        folder = folder.parent
    return folder


def persons_of(
    subjects: Mapping[PurePosixPath, str],
) -> tuple[dict[PurePosixPath, str], list[PurePosixPath]]:
    """The person behind each subject, where a folder holds several studies of one.

    It does if all of them name one patient, whom no other folder has, or their folders have the
    names of dates or visits. It does not if each names another patient. Of the source itself
    neither is sure.

    Args:
        subjects: folders of subjects, and the patient that each names, if it does.

    Returns:
        Persons by subject, the folder's path; and the folders of which it cannot be told.
    """
    by_folder: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for folder in subjects:
        by_folder[folder.parent].append(folder)
    persons: dict[PurePosixPath, str] = {}
    unsure = []
    for parent, folders in by_folder.items():
        patients = [subjects[folder] for folder in folders]
        if len(folders) < 2 or (all(patients) and len(set(patients)) == len(patients)):
            continue
        others = {patient for folder, patient in subjects.items() if folder.parent != parent}
        one = all(patients) and len(set(patients)) == 1
        dated = all(DATED.search(folder.name) for folder in folders)
        if parent.name and (dated or (one and patients[0] not in others)):
            persons |= dict.fromkeys(folders, parent.as_posix())
        elif parent.name or (one and dated):
            unsure.append(parent)
    return persons, unsure
