"""Participants: several images of one person never lie on both sides of a split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.participants import persons_of
from vitaepp.data.store import PARTICIPANT
from vitaepp.errors import EvaluationError
from vitaepp.system.progress import counted


def told_persons(metrics: Mapping[str, Any]) -> str:
    """How many persons stand behind how many subjects, in words.

    Args:
        metrics: content of a metrics.json.

    >>> told_persons({"n": 120, "persons": 60, "persons_by": "participant"})
    '120 subjects of 60 persons'
    >>> told_persons({"n": 120, "persons": 120, "persons_by": "subject"})
    '120 subjects; no column participant says whose they are'
    """
    subjects = counted(metrics["n"], "subject")
    if "persons" not in metrics:  # of an earlier version
        return subjects
    if metrics["persons_by"] != PARTICIPANT:
        return f"{subjects}; no column {PARTICIPANT} says whose they are"
    return f"{subjects} of {metrics['persons']:,} persons"


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
