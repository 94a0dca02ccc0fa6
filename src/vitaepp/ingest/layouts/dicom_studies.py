"""To whom DICOM files belong: their studies, the subjects of these, and the persons behind them.

Study ids distinguish studies. Bad anonymisers give several persons one id; then folders decide.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import combinations, product
from pathlib import PurePosixPath

from vitaepp.data.splits import split_word
from vitaepp.data.storetable import PARTICIPANT
from vitaepp.ingest.layouts.cohort import common_folder
from vitaepp.ingest.layouts.names import words
from vitaepp.ingest.readers.dicom_header import DicomHeader

Headers = Mapping[PurePosixPath, DicomHeader]

#: Names of folders that hold one of a person's studies: a date, a year or the number of a visit.
DATED = re.compile(
    r"(?i)(?<!\d)(19|20)\d\d(?!\d)|(?<!\d)(19|20)\d{6}(?!\d)|\d{1,2}[-_.]\d{1,2}[-_.](19|20)?\d\d"
    r"|^(base ?line|bl|follow\W?up|fu|visit|vis|ses|session|time ?point|tp|scan|exam|study|pre|post"
    r"|week|month|day|year|[mvty])\W?\d*$"
)

#: What anonymisers write in place of every name or number.
NOBODY = re.compile(
    r"((anon|anonym|anonymous|anonymi[sz]ed|de ?identified)( patient)?|unknown|none|no name|removed"
    r"|redacted|hidden|n a|na|null|name|id|patient|subject|test|x+|0+)?"
)

BIRTH = re.compile(r"(18|19|20)\d{6}")

#: A patient whom more studies name than this, and more than half of all, is an anonymiser's word.
MOST_STUDIES = 10

#: A name without any number that more studies have than this is that of a group, such as CONTROL.
MOST_BY_NAME = 3

#: All that an anonymiser left of a patient: a number that another site may have given, too.
SHORT_NUMBER = re.compile(r"\D{0,3}\d{1,4}")

_SAY_SO = f"say so in a {PARTICIPANT} column (`labels`)"


def study_keys(
    headers: Headers, modality: Callable[[DicomHeader], str]
) -> dict[PurePosixPath, str]:
    """The study of each file: by its id, and also by its folder if several persons share the id.

    Args:
        headers: the header of each file.
        modality: returns the modality of a header; empty if it is unknown or ignored.
    """
    by_uid: dict[str, list[PurePosixPath]] = defaultdict(list)
    for file, header in headers.items():
        # Without an id, each folder at the top is a study.
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
    """The files of one study id, grouped by the folders of the persons who share it."""
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
    """Whether folders that share one study id hold several persons.

    They do if each folder names its own patient, or its own date. They also do if two folders hold
    an image of the same id (copies are already removed), if every folder holds the same series at
    the same position, or if two folders hold the same two modalities.
    """
    if len(folders) < 2:
        return False
    for field in ("patient", "date"):
        values = [{getattr(h, field) for h in folder} - {""} for folder in folders]
        if all(len(one) == 1 for one in values) and len(set.union(*values)) == len(values):
            return True
    known = [[h for h in folder if modality(h)] for folder in folders]
    images: list[set[Hashable]] = [
        {(h.series, h.instance, h.description, h.slices) for h in folder if h.instance}
        for folder in known
    ]
    if _shared(images):
        return True
    # One diffusion series may be sorted into folders by b-value, so that its id occurs in each.
    series: list[set[Hashable]] = [
        {(h.series, h.description, h.slices) for h in folder if modality(h) != "dwi"}
        for folder in known
    ]
    if all(series) and all(one & _shared(series) for one in series):
        return True
    return bool(_shared(set(combinations(sorted({modality(h) for h in f}), 2)) for f in known))


def _shared(sets: Iterable[set[Hashable]]) -> set[Hashable]:
    """The items that are in more than one of the sets."""
    counts = Counter(item for one in sets for item in one)
    return {item for item, count in counts.items() if count > 1}


def subject_folders(
    studies: Mapping[PurePosixPath, str],
) -> tuple[dict[PurePosixPath, PurePosixPath], dict[PurePosixPath, int]]:
    """The folder of the subject of each file.

    If there is only one study, the source is one subject. Otherwise each folder at the top is a
    subject; if it holds several studies, each study is a subject.

    Args:
        studies: the key of each file's study.

    Returns:
        The folder of the subject by file, without studies that share one folder; and the folders
        that several studies share, with the number of studies.
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
    """The highest folder that holds all files of a group and none of another group."""
    others = [file for j, group in enumerate(groups) if j != i for file in group]
    folder = common_folder(groups[i])
    while folder.name and not any(f.is_relative_to(folder.parent) for f in others):
        folder = folder.parent
    return folder


def persons_of(
    subjects: Mapping[PurePosixPath, str],
) -> tuple[dict[PurePosixPath, str], list[str]]:
    """Find studies of one person, by their folders and by the patients that they name.

    A folder holds studies of one person if all of them name one patient, who occurs in no other
    folder, or if their folders are named after dates or visits. It does not if each study names its
    own patient. The source's own folder is never taken for a person. Studies in different folders
    are of one person if they name the same patient.

    Args:
        subjects: the folder of each subject, and the patient that it names (may be empty).

    Returns:
        The person (the path of a folder) by subject, for those that have several subjects; and
        notes for the user.
    """
    by_folder: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for folder in subjects:
        by_folder[folder.parent].append(folder)
    identities = {folder: identity(patient) for folder, patient in subjects.items()}
    told = telling(identities)
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
        elif (parent.name or (one and dated)) and not all(told[folder] for folder in folders):
            unsure.append(parent)
    notes = []
    if persons:
        notes.append(
            f"{PARTICIPANT}: the folder above each study, if it holds several; if they are not of "
            f"one person, {_SAY_SO}"
        )
    if unsure:
        notes.append(
            f"{PARTICIPANT}: {len(unsure)} folders hold several studies; if they are of one "
            f"person, {_SAY_SO}"
        )
    persons, more = same_persons(identities, persons)
    return persons, notes + more


def identity(patient: str) -> str:
    """What a patient's name, id and date of birth tell, without what anonymisers write.

    >>> identity("DOE^Jane^^\\nP 7\\n19500101") == identity("Doe^Jane\\nP-7\\n19500101")
    True
    >>> identity("ANONYMOUS\\n000\\n19500101"), identity("XXXX^XXXX\\nPatient^Anonymous")
    ('', '')
    """
    known = [*filter(None, _told(patient))]
    return "\n".join(known) if not all(map(BIRTH.fullmatch, known)) else ""


def _told(patient: str) -> list[str]:
    """Name, id and date of birth; empty where an anonymiser left nothing."""
    told = []
    for line in patient.split("\n"):
        known = words(line)
        nobody = NOBODY.fullmatch(" ".join(known)) or all(map(NOBODY.fullmatch, known))
        told.append("" if nobody else " ".join(known))
    return told


def are_several(patients: Iterable[str]) -> bool:
    """Whether two of them differ in name and in id, as far as both tell them.

    >>> are_several(["DOE^Jane\\nP7\\n", "Doe^Jane\\n\\n19500101"])
    False
    >>> are_several(["DOE^Jane\\nP7\\n", "ROE^John\\nP8\\n"])
    True
    """
    told = [[field.replace(" ", "") for field in _told(p)[:2]] for p in patients]
    for one, other in combinations(told, 2):
        same = [a == b for a, b in zip(one, other, strict=False) if a and b]
        if same and not any(same):
            return True
    return False


def telling(identities: Mapping[PurePosixPath, str]) -> dict[PurePosixPath, str]:
    """Identities without those that an anonymiser gave to everybody, or to all of a group."""
    counts = Counter(identities.values())
    most = max(len(identities) // 2, MOST_STUDIES)

    def tells(who: str) -> bool:
        limit = most if re.search(r"\d", who) else MOST_BY_NAME
        return counts[who] < len(identities) and counts[who] <= limit

    return {subject: who if tells(who) else "" for subject, who in identities.items()}


def same_persons(
    identities: Mapping[PurePosixPath, str], persons: Mapping[PurePosixPath, str]
) -> tuple[dict[PurePosixPath, str], list[str]]:
    """Join subjects that name the same patient.

    Args:
        identities: whom each subject names; empty if nobody.
        persons: the person of subjects for whom it is known; joined if a patient has several.

    Returns:
        The person by subject, the first subject's own path if it is not known; and notes.
    """
    told = telling(identities)
    groups: dict[str, list[PurePosixPath]] = defaultdict(list)
    for subject in sorted(told):
        if told[subject]:
            groups[told[subject]].append(subject)
    joined = dict(persons)
    apart = _numbered_apart(groups)
    several = [
        group
        for who, group in groups.items()
        if who not in apart and len({joined.get(s, s) for s in group}) > 1
    ]
    for group in several:
        known = sorted({joined[subject] for subject in group if subject in joined})
        person = known[0] if known else group[0].as_posix()
        if known:
            joined |= {subject: person for subject, own in joined.items() if own in known}
        joined |= dict.fromkeys(group, person)
    notes = []
    if apart:
        notes.append(
            f"{PARTICIPANT}: {len(apart)} numbers of patients occur in several folders, which may "
            f"each number their own; each counts as a person; if they are one, {_SAY_SO}"
        )
    if several:
        notes.append(
            f"{PARTICIPANT}: {sum(map(len, several))} subjects are scans of {len(several)} "
            f"persons, by the patients that the headers name; if they are not, {_SAY_SO}"
        )
    untold = [subject for subject, who in told.items() if not who]
    if 0 < len(untold) < len(told) and (several or any(identities[s] for s in untold)):
        notes.append(
            f"{PARTICIPANT}: the headers of {len(untold)} subjects name no patient, or one that "
            f"most of them name; where folders do not tell, each counts as a person; if some are "
            f"not, {_SAY_SO}"
        )
    return joined, notes


def _numbered_apart(groups: Mapping[str, Sequence[PurePosixPath]]) -> set[str]:
    """Short numbers that occur once in each of several folders of several patients, as of sites."""
    in_folder: dict[str, set[str]] = defaultdict(set)
    folders: dict[str, list[str]] = {}
    for who, group in groups.items():
        folders[who] = [_first_folder(subject) for subject in group]
        for folder in folders[who]:
            in_folder[folder].add(who)
    return {
        who
        for who, own in folders.items()
        if SHORT_NUMBER.fullmatch(who)
        and 1 < len(own) == len(set(own))
        and all(len(in_folder[folder]) > 1 for folder in own)
    }


def _first_folder(subject: PurePosixPath) -> str:
    return next((part for part in subject.parts if not split_word(part)), "")
