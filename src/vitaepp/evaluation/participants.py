"""Participants: several images of one person never lie on both sides of a split."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.errors import EvaluationError
from vitaepp.store import PARTICIPANT

Persons = npt.NDArray[np.intp]


def persons_of(table: pd.DataFrame) -> Persons:
    """A number for the person of each subject, `(subject,)`.

    Subjects with one value of `participant` are one person. Where the column is missing or empty,
    every subject is another.

    Args:
        table: `subject` and label columns, one row a subject.
    """
    own = pd.Series([("subject", s) for s in table["subject"]], index=table.index, dtype=object)
    if PARTICIPANT in table:
        given = table[PARTICIPANT]
        own = own.mask(given.notna(), given.map(str))
    # By first appearance, so that a table without participants counts 0, 1, 2, …
    return np.asarray(pd.factorize(own)[0], np.intp)


def require_apart(table: pd.DataFrame, rows: dict[str, npt.NDArray[Any]]) -> None:
    """Refuse a split that has one person on both sides.

    Args:
        table: one row a subject.
        rows: of `train` and of `test`.

    Raises:
        EvaluationError: naming a subject of either side.
    """
    persons = persons_of(table)
    both = np.intersect1d(persons[rows["train"]], persons[rows["test"]])
    if len(both):
        subjects = table["subject"].to_numpy()
        first, second = (
            subjects[side[persons[side] == both[0]][0]] for side in (rows["train"], rows["test"])
        )
        raise EvaluationError(
            f"{first} in train and {second} in test are of one participant ({len(both)} such); "
            "give all images of a participant one split"
        )
