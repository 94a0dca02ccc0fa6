"""Persons: which subjects are scans of the same person, as far as names show it.

If scans of one person are in training and in test data, a classifier can recognise the person and
any label looks predictable. So names that are known to identify persons set the label
`participant`; for names that only may identify persons, a note tells the user.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from vitaepp.data.splits import split_word
from vitaepp.data.storetable import PARTICIPANT
from vitaepp.ingest.layouts.cohort import Cohort
from vitaepp.system.progress import counted

_DATE = r"(?:19|20)\d\d(?:[-_.]?(?:0[1-9]|1[0-2])(?:[-_.]?(?:0[1-9]|[12]\d|3[01]))?)?"
_VISIT = (
    r"(?:ses|session|visit|timepoint|tp|week|month|year|day)[-_ ]?[a-z]?\d+"
    r"|baseline|bl|follow[-_ ]?up[-_ ]?\d*|fu\d*|pre[-_]?op|post[-_]?op|pre[-_]?treatment"
    r"|post[-_]?treatment|test[-_]?retest|retest"
)
_FRAME = r"(?:frame|slice)[-_ ]?[a-z]?\d+"

#: Names that identify persons: a description for the user, and a pattern; its first group is the
#: person.
KNOWN = (
    ("BraTS's number before the time point", re.compile(r"\b(BraTS-[A-Z]+-\d{5})-\d{3}\b", re.I)),
    ("ADNI's number", re.compile(r"(?<!\d)(\d{3}_S_\d{4,5})(?!\d)")),
    ("TCGA's barcode", re.compile(r"(TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4})(?![A-Z0-9])", re.I)),
    ("OASIS's number", re.compile(r"(OAS\d{5}|OAS[12]_\d{4})(?=_)", re.I)),
)

#: A person and a date, a visit or a frame; the second group is a visit in words.
DATED = re.compile(rf"^(.*?[^\W_])[-_/ .]+(?:{_DATE}|({_VISIT})|{_FRAME})(?![^\W_])", re.I | re.S)

#: A name with a number and then another number or letter, which may count the scans of a person.
LIKELY = re.compile(r"(.*\d.*?)[-_/ .]+(?:[a-z]{0,5}\d{1,3}|[a-z]|left|right)", re.I | re.S)

#: A name with a number, and what a system adds to the name of a second file.
COPY = re.compile(r"(.*\d.*?)[-_ ]*(?:\(\d+\)|\bcopy)", re.I | re.S)

#: A number, such as every folder may give its own persons, and how many of them each folder has,
#: and what share of them is in all folders, if each does.
SHORT_NUMBER, MANY_NUMBERS, SHARED = re.compile(r"\D{0,4}\d{1,3}"), 4, 0.8

#: A name with a number and then a word, which may be a view or a phase of a person's scans.
LAST_WORD = re.compile(r"(.*\d.*?)[-_/ .]+([^\W\d_]+)", re.S)


def recurs_among(times: int, files: int) -> bool:
    """Whether a word that occurs so often among files may be one of the few that each person has.

    Three persons with four views each have three files of a view; as many different words as
    this, or one more, may be views, more are names.

    >>> recurs_among(3, 12), recurs_among(2, 12)
    (True, False)
    """
    return times > 1 and files <= times * (times + 1)


def names_visit_or_side(word: str) -> bool:
    """Whether a word names a visit or a side of the body, which differ among a person's scans.

    >>> names_visit_or_side("baseline"), names_visit_or_side("left"), names_visit_or_side("flair")
    (True, True, False)
    """
    return re.fullmatch(rf"{_VISIT}|{_FRAME}|left|right|[lr]h?", word, re.I) is not None


def with_persons(cohort: Cohort) -> Cohort:
    """A cohort with the label `participant`, if its subjects' names identify persons.

    If the names only may identify persons, a note is added. A cohort that has the label keeps it.
    """
    if cohort.kind == "arrays" or any(PARTICIPANT in s.labels for s in cohort.subjects):
        return cohort
    names = [subject.subject for subject in cohort.subjects]
    for how, pattern in KNOWN:
        persons = {name: match[1] for name in names if (match := pattern.search(name))}
        if _group_names(persons, names):
            return _with_participants(cohort, persons, how)
    persons, how, doubtful = _dated(names)
    if persons:
        cohort = _with_participants(cohort, persons, how)
    elif likely := _likely(names):
        number = len(set(likely.values()))
        note = f"{len(likely)} subjects may be scans of {counted(number, 'person')}, by their names"
        return _in_doubt(cohort, note)
    if doubtful:
        note = "names of persons occur in several folders, with other dates or visits"
        return _in_doubt(cohort, note)
    return cohort


def _with_participants(cohort: Cohort, persons: Mapping[str, str], how: str) -> Cohort:
    subjects = tuple(
        replace(s, labels={**s.labels, PARTICIPANT: persons.get(s.subject, s.subject)})
        for s in cohort.subjects
    )
    note = f"{PARTICIPANT}, whose scans evaluate keeps together: {how}"
    return replace(cohort, subjects=subjects, notes=(*cohort.notes, note))


def _in_doubt(cohort: Cohort, what: str) -> Cohort:
    note = (
        f"{what}; evaluate counts each as a person, unless a column {PARTICIPANT} of `labels` says "
        "otherwise"
    )
    return replace(cohort, notes=(*cohort.notes, note))


def _dated(names: Sequence[str]) -> tuple[dict[str, str], str, bool]:
    """The persons of names with dates or visits, and of names that are such a person's.

    Folders of splits and classes are no part of a person's name, if no two scans would then have
    the same person and visit. If two would, each folder numbers its own persons; it may do so, too,
    if nearly the same short numbers are in each.

    Returns:
        The persons by name, how they were found, and whether some occur in several folders that
        may be sites as well as classes.
    """
    how, doubtful = "the part before the date or visit", False
    found = {name: match for name in names if (match := DATED.search(name))}
    found = {name: match for name, match in found.items() if _without_splits(match[1])}
    persons = _grouped(names, found, str)
    for inside in (_without_splits, _last):
        merged = _grouped(names, found, inside)
        if not merged or _number(merged, names) >= _number(persons, names):
            continue
        folders = {_without_splits(match[1]).rpartition("/")[0] for match in found.values()}
        if inside is _last and len(set(merged.values())) <= len(folders):
            continue  # a folder per person, and files that have one name
        if inside is _last and (
            not all(map(_has_digit, merged.values()))
            or any(map(_has_digit, folders))
            or _numbered_anew(found.values())
        ):
            doubtful = True
            continue
        persons = merged
        how = "the part before the date or visit, also where it occurs in several folders"
    if not _group_names(persons, names):
        beside = {person for name, person in persons.items() if name not in found}
        persons = {
            name: person
            for name, person in persons.items()
            if person in beside or (found[name][2] and _has_digit(person))
        }
        if _number(persons, names) in (1, len(names)):
            persons = {}
    return persons, how, doubtful


def _grouped(
    names: Sequence[str], found: Mapping[str, re.Match[str]], inside: Callable[[str], str]
) -> dict[str, str]:
    """The person of each name that has a date, or is a person's; empty if a visit occurs twice."""
    persons = {name: inside(match[1]) for name, match in found.items()}
    known = set(persons.values())
    persons |= {n: inside(n) for n in names if n not in found and inside(n) in known}
    visits = {(p, n[len(found[n][1]) :] if n in found else "") for n, p in persons.items()}
    return persons if len(visits) == len(persons) else {}


def _numbered_anew(found: Iterable[re.Match[str]]) -> bool:
    """Whether folders number their own persons: nearly the same short numbers are in each."""
    numbers: dict[str, set[str]] = defaultdict(set)
    for match in found:
        folder, _, person = _without_splits(match[1]).rpartition("/")
        numbers[folder].add(person)
    if not all(SHORT_NUMBER.fullmatch(n) for own in numbers.values() for n in own):
        return False
    least = min(map(len, numbers.values()))
    common = set.intersection(*numbers.values())
    return least >= MANY_NUMBERS and len(common) >= SHARED * least


def _number(persons: Mapping[str, str], names: Sequence[str]) -> int:
    return len({persons.get(name, name) for name in names})


def _without_splits(name: str) -> str:
    return "/".join(part for part in name.split("/") if not split_word(part))


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _has_digit(name: str) -> bool:
    return re.search(r"\d", name) is not None


def _likely(names: Sequence[str]) -> dict[str, str]:
    """The person of each name that may be one of several scans of a person; empty if none is."""
    likely = {name: match[1] for name in names if (match := LIKELY.fullmatch(name))}
    viewed = {name: match for name in names if (match := LAST_WORD.fullmatch(name))}
    times = Counter(match[2] for match in viewed.values())
    likely |= {n: m[1] for n, m in viewed.items() if recurs_among(times[m[2]], len(names))}
    # `p01_2` and `p01 (1)` beside `p01`.
    known = set(names)
    copied = {name: match[1] for name in names if (match := COPY.fullmatch(name))}
    second = {n: person for n, person in (likely | copied).items() if person in known}
    second |= {person: person for person in second.values()}
    likely |= second
    return likely if _group_names(likely, names) else second


def _group_names(persons: Mapping[str, str], names: Sequence[str]) -> bool:
    """Whether half of the names or more identify persons: several, and some with several scans."""
    several = 1 < len(set(persons.values())) < len(persons)
    return several and 2 * len(persons) >= len(names)
