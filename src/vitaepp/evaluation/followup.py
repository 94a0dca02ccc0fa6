"""Times and events: who was followed for how long, from two columns of a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.arrays import Flags, Floats, Indices
from vitaepp.errors import EvaluationError, nearest
from vitaepp.system.extras import require
from vitaepp.system.progress import counted

#: What a cell of an event column may say, in small letters.
EVENT = frozenset({"1", "true", "yes", "y", "t", "dead", "died", "deceased", "death", "event"})
NO_EVENT = frozenset({"0", "false", "no", "n", "f", "alive", "living", "censored", "none"})

#: Of these words, those that do not say of what; and words in a column's name that say of none.
UNSAID = frozenset({"1", "true", "yes", "y", "t", "0", "false", "no", "n", "f"})
NO_EVENT_NAMES = frozenset(
    {"censor", "censored", "censoring", "alive", "living", "survived", "survivor", "lost"}
)


@dataclass(frozen=True)
class Survival:
    """Who was followed for how long, and whether the event came.

    Attributes:
        time: `(subject,)`, until the event or the end of follow-up, any unit, above zero.
        event: `(subject,)`, whether the event came; otherwise the subject is censored.
    """

    time: Floats
    event: Flags

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, rows: Any) -> Survival:
        """Those of some rows."""
        return Survival(self.time[rows], self.event[rows])

    def structured(self) -> Any:
        """As scikit-survival has it."""
        return require("sksurv.util", "survival", "survival needs").Surv.from_arrays(
            self.event, self.time
        )


def read_survival(table: pd.DataFrame, time: str, event: str) -> tuple[Indices, Survival]:
    """Take two columns of a table as survival.

    Args:
        table: one row a subject.
        time: column of times until the event or the end of follow-up, in any unit, above zero.
        event: column of 0 and 1, true and false, yes and no, dead and alive, event and censored.

    Returns:
        The rows where neither is empty, and what they hold.

    Raises:
        EvaluationError: no such column; a time that is negative, zero or no number; an event that
            is none of these words; events of one kind only.
    """
    for name in (time, event):
        if name not in table.columns:
            hint = nearest(name, [str(c) for c in table.columns if c not in ("subject", "split")])
            raise EvaluationError(f"no column {name!r} for survival; {hint}")
    times, events = (_texts(table[name]) for name in (time, event))
    rows = np.flatnonzero((times != "") & (events != ""))
    if not len(rows):
        raise EvaluationError(f"no subject has both {time!r} and {event!r}; both are needed")
    subjects = table["subject"].to_numpy() if "subject" in table else np.arange(len(table))
    numbers = pd.to_numeric(pd.Series(times[rows]), errors="coerce").to_numpy(np.float64)
    wrong = rows[~(np.isfinite(numbers) & (numbers > 0))]
    if len(wrong):
        first = wrong[0]
        raise EvaluationError(
            f"time {time!r}: {times[first]!r} of subject {subjects[first]} is no time above 0 "
            f"({counted(len(wrong), 'such subject')}); give the time from the image to the event "
            "or to the end of follow-up, or leave the cell empty"
        )
    words = np.array([_word(text) for text in events[rows]], object)
    unknown = rows[[word not in EVENT | NO_EVENT for word in words]]
    if len(unknown):
        first = unknown[0]
        raise EvaluationError(
            f"event {event!r}: {events[first]!r} of subject {subjects[first]} is neither an event "
            f"nor none ({counted(len(unknown), 'such subject')}); give 1 for an event and 0 for "
            "censored, or dead and alive"
        )
    happened = np.array([word in EVENT for word in words], np.bool_)
    if not happened.any():
        raise EvaluationError(
            f"event {event!r}: none of {counted(len(rows), 'subject')} has an event; survival "
            "needs some: check which value means the event"
        )
    if len(set(numbers)) == 1:
        raise EvaluationError(
            f"time {time!r}: all {counted(len(rows), 'subject')} have the same time "
            f"{numbers[0]:g}; survival needs times that differ"
        )
    return rows, Survival(numbers, happened)


def survival_doubts(survival: Survival, event: str, words: Sequence[str] = ()) -> list[str]:
    """What to ask about events that may not be meant as they are written, a line each.

    Args:
        survival: as `read_survival` gives it.
        event: the column, for the message.
        words: what it says of each subject, as `event_words` gives them.
    """
    lines = []
    if survival.event.all():
        lines.append(
            f"event {event!r}: all {counted(len(survival), 'subject')} have an event, none is "
            "censored; if some were without one at the end of follow-up, give these 0"
        )
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", event)
    named = {*re.findall(r"[a-z]+", spaced.lower())} & NO_EVENT_NAMES
    if named and {*words} <= UNSAID:
        yes = next((word for word in words if word in EVENT), "1")
        lines.append(
            f"event {event!r}: {yes} counts as an event, but the column is called {min(named)}; "
            "if it says who had none, turn it round"
        )
    if count := sum(word == "none" for word in words):
        lines.append(
            f"event {event!r}: 'none' ({counted(count, 'subject')}) counts as censored; if it "
            "means missing, leave these cells empty"
        )
    return lines


def event_words(column: pd.Series) -> list[str]:
    """What the cells of an event column say, in small letters; 1.0 is 1."""
    return [_word(text) for text in _texts(column)]


def _texts(column: pd.Series) -> npt.NDArray[np.object_]:
    """Cells as text, empty where they are missing."""
    cells = column.astype(object).where(column.notna(), "")
    texts = cells.astype(str).str.strip().to_numpy(object)
    return np.array(["" if t.lower() in ("nan", "na", "<na>") else t for t in texts], object)


def _word(text: str) -> str:
    """A cell of an event column in small letters, and 1.0 as 1."""
    word = text.casefold()
    return word[:-2] if word in ("0.0", "1.0") else word
