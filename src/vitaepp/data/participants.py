"""Participants: which subjects of a table are images of one person."""

from __future__ import annotations

import unicodedata

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Indices
from vitaepp.data.store import PARTICIPANT

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


def no_participant(table: pd.DataFrame) -> pd.Series[bool]:
    """Which subjects of a table with a column `participant` have none there."""
    return table[PARTICIPANT].map(_name, na_action="ignore").replace("", None).isna()


def _name(value: object) -> str:
    return unicodedata.normalize("NFC", str(value).strip())
