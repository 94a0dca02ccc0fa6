"""Persons: which subjects are scans of the same person, as far as names show it.

If scans of one person are in training and in test data, a classifier can recognise the person and
any label looks predictable. So names that are known to identify persons set the label
`participant`; for names that only may identify persons, a note tells the user.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vitaepp.data.store import PARTICIPANT
from vitaepp.ingest.layouts.cohort import Cohort

_DATE = r"(?:19|20)\d\d(?:[-_.]?(?:0[1-9]|1[0-2])(?:[-_.]?(?:0[1-9]|[12]\d|3[01]))?)?"
_VISIT = (
    r"(?:ses|session|visit|timepoint|tp|week|month|year|day|frame|slice)[-_ ]?[a-z]?\d+"
    r"|baseline|bl|follow[-_ ]?up[-_ ]?\d*|fu\d*|pre[-_]?op|post[-_]?op|pre[-_]?treatment"
    r"|post[-_]?treatment|test[-_]?retest|retest"
)

#: Names that identify persons: a description for the user, and a pattern; its first group is the
#: person.
KNOWN = (
    ("BraTS's number before the time point", re.compile(r"\b(BraTS-[A-Z]+-\d{5})-\d{3}\b", re.I)),
    ("ADNI's number", re.compile(r"(?<!\d)(\d{3}_S_\d{4,5})(?!\d)")),
    ("TCGA's barcode", re.compile(r"(TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4})(?![A-Z0-9])", re.I)),
    ("OASIS's number", re.compile(r"(OAS\d{5}|OAS[12]_\d{4})(?=_)", re.I)),
    (
        "the part before the date or visit",
        re.compile(rf"^(.*?[^\W_])[-_/ .]+(?:{_DATE}|{_VISIT})(?![^\W_])", re.I | re.S),
    ),
)

#: A name with a number and then another number or letter, which may count the scans of a person.
LIKELY = re.compile(r"(.*\d.*?)[-_/ .]+(?:[a-z]{0,5}\d{1,3}|[a-z]|left|right)", re.I | re.S)

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
    return re.fullmatch(rf"{_VISIT}|left|right|[lr]h?", word, re.I) is not None


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
            subjects = tuple(
                replace(s, labels={**s.labels, PARTICIPANT: persons.get(s.subject, s.subject)})
                for s in cohort.subjects
            )
            note = f"{PARTICIPANT}, whose scans evaluate keeps together: {how}"
            return replace(cohort, subjects=subjects, notes=(*cohort.notes, note))
    likely = {name: match[1] for name in names if (match := LIKELY.fullmatch(name))}
    viewed = {name: match for name in names if (match := LAST_WORD.fullmatch(name))}
    times = Counter(match[2] for match in viewed.values())
    likely |= {n: m[1] for n, m in viewed.items() if recurs_among(times[m[2]], len(names))}
    if _group_names(likely, names):
        note = (
            f"{len(likely)} subjects may be scans of {len(set(likely.values()))} persons, by their "
            f"names; evaluate counts each as a person, unless a column {PARTICIPANT} of `labels` "
            "says otherwise"
        )
        return replace(cohort, notes=(*cohort.notes, note))
    return cohort


def _group_names(persons: Mapping[str, str], names: Sequence[str]) -> bool:
    """Whether half of the names or more identify persons: several, and some with several scans."""
    several = 1 < len(set(persons.values())) < len(persons)
    return several and 2 * len(persons) >= len(names)
