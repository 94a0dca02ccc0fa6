"""Participants: which subjects of a table are images of one person."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Indices
from vitaepp.data.labels import may_be_missing, written_alike
from vitaepp.data.storetable import PARTICIPANT
from vitaepp.system.text import first_few

Persons = Indices


def persons_of(table: pd.DataFrame) -> Persons:
    """A number for the person of each subject, `(subject,)`.

    Subjects with one value of `participant` are one person, whether its accents are composed or
    not. Where the column is missing or empty, every subject is another.

    Args:
        table: `subject` and label columns, one row a subject.
    """
    own = pd.Series([("subject", s) for s in table["subject"]], index=table.index, dtype=object)
    if PARTICIPANT in table:
        given = table[PARTICIPANT].map(_name, na_action="ignore").replace("", None)
        own = own.mask(given.notna(), given)
    # By first appearance, so that a table without participants counts 0, 1, 2, …
    return np.asarray(pd.factorize(own)[0], np.intp)


def of_same_persons(table: pd.DataFrame, subjects: Iterable[str]) -> set[str]:
    """The subjects of a table that are of the same people as some of them, these among them.

    Args:
        table: `subject` and label columns, one row a subject.
        subjects: some of them.
    """
    persons, every = persons_of(table), table["subject"].astype(str)
    known = every.isin(list(subjects)).to_numpy()
    return set(every[np.isin(persons, persons[known])])


def no_participant(table: pd.DataFrame) -> pd.Series[bool]:
    """Which subjects of a table with a column `participant` have none there."""
    return table[PARTICIPANT].map(_name, na_action="ignore").replace("", None).isna()


def _name(value: object) -> str:
    return unicodedata.normalize("NFC", str(value).strip())


def participants_in(table: pd.DataFrame) -> set[str]:
    """The participants that a table names; empty without the column."""
    if PARTICIPANT not in table:
        return set()
    return {*table[PARTICIPANT].map(_name, na_action="ignore").dropna()} - {""}


def person_doubts(table: pd.DataFrame) -> list[str]:
    """What to ask about persons that may not be meant as they are written, a line each.

    These are participants, or without the column subjects, that differ in case, accents or zeros
    alone, and words for a missing value that make one participant of many.

    Args:
        table: `subject` and label columns, one row a subject.
    """
    column = PARTICIPANT if PARTICIPANT in table else "subject"
    names: Iterable[str] = participants_in(table) or set(map(str, table["subject"]))
    lines = []
    if pairs := sorted(sorted(same) for same in written_alike(sorted(names))):
        shown = first_few([" and ".join(same) for same in pairs])
        lines.append(
            f"column {column}: {shown} count as different people; if they are one, write them "
            "alike, or images of one person are trained on and tested"
        )
    if column == PARTICIPANT:
        counts = table[PARTICIPANT].map(_name, na_action="ignore").value_counts()
        for name in sorted(n for n in counts.index if may_be_missing(n) and counts[n] > 1):
            lines.append(
                f"column {column}: {name!r} ({counts[name]} subjects) counts as one person; if it "
                "means missing, leave these cells empty"
            )
    return lines
