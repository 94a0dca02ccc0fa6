"""Time to an event, which not everybody has had yet: Cox regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Floats, Indices
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
from vitaepp.evaluation import cox, followup, survival
from vitaepp.evaluation.tasks.base import Fitted, Target, Tested, Training
from vitaepp.evaluation.tasks.regression import (
    far_values,
    other_unit,
    require_persons,
    require_some,
)
from vitaepp.system.progress import counted


class Survival(Target):
    """The time to an event, or to the end of follow-up.

    Attributes:
        times: of the labelled subjects.
        words: what the column of events says of each.
    """

    task = "survival"
    stratum = "kind, with the event and censored,"

    def __init__(self, table: pd.DataFrame, time: str, event: str) -> None:
        self.rows, self.times = followup.read_survival(table, time, event)
        self.time, self.event = time, event
        self.words = followup.event_words(table[event].iloc[self.rows])
        self.name = f"{time}, {event}"
        self.missing = len(table) - len(self.rows)
        self.strata = self.times.event.astype(np.intp)

    def require_train_and_test(self, train: Indices, test: Indices) -> None:
        """Subjects and events in both parts."""
        require_some(self.name, train, test)
        if not self.times.event[test].any():
            raise EvaluationError(f"no subject in split 'test' has the event {self.event!r}")

    def require_members(self, folds: int, persons: Persons) -> None:
        """Persons, and an event in each fold."""
        require_persons(self.name, folds, persons)
        events = len(np.unique(persons[self.times.event]))
        if events < 2 * folds:
            raise EvaluationError(
                f"{self.event!r}: {counted(events, 'person')} with an event are too few for "
                f"{folds} folds, which need {2 * folds}; follow up longer, or ask for fewer `folds`"
            )

    def scored(self, train: Indices, test: Indices) -> bool:
        """Whether a pair of the part can be ordered, and events are left to fit on."""
        enough = self.times.event[train].sum() >= cox.EVENTS
        return len(test) > 1 and bool(self.times.event[test].any() and enough)

    def facts(self, used: Indices) -> dict[str, Any]:
        """How many events, and how long the follow-up was."""
        times = self.times[used]
        return {
            "time": self.time,
            "event": self.event,
            "events": int(times.event.sum()),
            "follow_up": {"median": float(np.median(times.time)), "most": float(times.time.max())},
        }

    def fit(self, protocol: str, part: Training) -> Fitted:
        """A Cox regression with ridge."""
        if protocol != "linear":
            raise EvaluationError(f"protocol {protocol} is not of task survival; use linear")
        times = self.times[part.rows]
        return cox.fit_survival(part.features, times.time, times.event, **part.how)

    def doubts(self) -> list[str]:
        """Whether events may be meant otherwise, and times that lie far from others."""
        far = far_values(self.times.time, f"time {self.time!r}")
        return [*followup.survival_doubts(self.times, self.event, self.words), *far]

    def doubts_outside(self, other: Survival) -> list[str]:
        """Those of the other cohort, and whether its times may have another unit."""
        unit = other_unit(self.times.time, other.times.time, f"time {self.time!r}")
        return [*other.doubts(), *unit]

    def learn(self, fitted: Fitted, part: Training) -> cox.Learned:
        """The times of the training part, its median risk and its baseline curve."""
        assert isinstance(fitted, cox.FittedSurvival)
        return fitted.learned(self.times[part.rows])

    def clinical(self, tested: Tested) -> dict[str, Any]:
        """The interval of the concordance, what is said over time, and the risk halves."""
        times, risk, fold = self.times[tested.rows], tested.decision, tested.fold
        middle = np.array([one.middle for one in tested.learned])[fold]
        return {
            "concordance": survival.concordance_interval(times, risk, fold, persons=tested.persons),
            "over_time": survival.over_time(tested.learned, times, risk, fold),
            "halves": survival.survival_halves(times, risk > middle, tested.persons),
        }

    def of_other(self, table: pd.DataFrame) -> Survival:
        """The same columns of another cohort."""
        return Survival(table, self.time, self.event)

    def truth(self) -> pd.DataFrame:
        """Time and event, and both as a text."""
        text = [
            f"event after {t:g}" if e else f"none until {t:g}"
            for t, e in zip(self.times.time, self.times.event, strict=True)
        ]
        columns = {"label": text, "time": self.times.time}
        return pd.DataFrame(columns | {"event": self.times.event.astype(np.intp)})

    def scores(
        self, test: Indices, decision: Floats, fitted_to: Target, train: Indices
    ) -> dict[str, float]:
        """Harrell's and Uno's concordance, and the time-dependent AUC."""
        assert isinstance(fitted_to, Survival)
        return survival.survival_scores(fitted_to.times[train], self.times[test], decision)

    @staticmethod
    def rescored(truth: pd.DataFrame, decision: Floats, classes: Sequence[Any]) -> dict[str, float]:
        """Harrell's concordance; the others need the training part."""
        return {"c_index": survival.concordance(_times(truth), decision)}

    @staticmethod
    def weighted(
        metric: str, truth: pd.DataFrame, decision: Floats, classes: Sequence[Any], weights: Floats
    ) -> Floats:
        """Harrell's concordance; NaN of the others, which need the training part."""
        if metric != "c_index":
            return np.full(len(weights), np.nan)
        return survival.weighted_concordance(_times(truth), decision, weights)


def _times(truth: pd.DataFrame) -> followup.Survival:
    return followup.Survival(truth["time"].to_numpy(np.float64), truth["event"].to_numpy(np.bool_))
