"""Persons: which subjects are scans of one person, where names show it.

A person whose scans stand on both sides of a split makes any label look predictable. So names that
are known to tell a person set the label `participant`; names that may are told.
"""

from __future__ import annotations

import re
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

#: Names that tell a person: how, for a user to read, and a pattern whose first group is the person.
KNOWN = (
    ("BraTS's number before the time point", re.compile(r"\b(BraTS-[A-Z]+-\d{5})-\d{3}\b", re.I)),
    ("ADNI's number", re.compile(r"(?<!\d)(\d{3}_S_\d{4,5})(?!\d)")),
    ("TCGA's barcode", re.compile(r"(TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4})(?![A-Z0-9])", re.I)),
    ("OASIS's number", re.compile(r"(OAS\d{5}|OAS[12]_\d{4})(?=_)", re.I)),
    (
        "what stands before the date or visit",
        re.compile(rf"^(.*?[^\W_])[-_/ .]+(?:{_DATE}|{_VISIT})(?![^\W_])", re.I | re.S),
    ),
)

#: A name with a number, and after it another number or letter, which may count a person's scans.
LIKELY = re.compile(r"(.*\d.*?)[-_/ .]+(?:[a-z]{0,5}\d{1,3}|[a-z]|left|right)", re.I | re.S)


def tells_scans_apart(word: str) -> bool:
    """Whether a word tells one scan of a person from another: a visit, or a side of the body.

    >>> tells_scans_apart("baseline"), tells_scans_apart("left"), tells_scans_apart("flair")
    (True, True, False)
    """
    return re.fullmatch(rf"{_VISIT}|left|right|[lr]h?", word, re.I) is not None


def with_persons(cohort: Cohort) -> Cohort:
    """A cohort with the label `participant` where names tell whose scans its subjects are.

    Where names only may tell, a note says so. A cohort that has the label keeps it.
    """
    if cohort.kind == "arrays" or any(PARTICIPANT in s.labels for s in cohort.subjects):
        return cohort
    names = [subject.subject for subject in cohort.subjects]
    for how, pattern in KNOWN:
        persons = {name: match[1] for name in names if (match := pattern.search(name))}
        if _tells(persons, names):
            subjects = tuple(
                replace(s, labels={**s.labels, PARTICIPANT: persons.get(s.subject, s.subject)})
                for s in cohort.subjects
            )
            told = f"{PARTICIPANT}, whom evaluate never splits: {how}"
            return replace(cohort, subjects=subjects, notes=(*cohort.notes, told))
    likely = {name: match[1] for name in names if (match := LIKELY.fullmatch(name))}
    if _tells(likely, names):
        told = (
            f"{len(likely)} subjects may be scans of {len(set(likely.values()))} persons, by their "
            f"names; evaluate takes each for a person, unless a column {PARTICIPANT} of `labels` "
            "says whose it is"
        )
        return replace(cohort, notes=(*cohort.notes, told))
    return cohort


def _tells(persons: Mapping[str, str], names: Sequence[str]) -> bool:
    """Whether at least half of the names tell a person, and several persons, some of several."""
    several = 1 < len(set(persons.values())) < len(persons)
    return several and 2 * len(persons) >= len(names)
