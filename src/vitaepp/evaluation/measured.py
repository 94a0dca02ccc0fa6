"""Sets of features in the folds: each is fitted on training parts and tested on the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.arrays import Floats
from vitaepp.data.participants import Persons
from vitaepp.evaluation.folds import Fold
from vitaepp.evaluation.measures import spread
from vitaepp.evaluation.question import Candidates, Question
from vitaepp.evaluation.result import PERSON, score_columns
from vitaepp.evaluation.tasks.base import Target, Tested
from vitaepp.system.progress import track


@dataclass(frozen=True)
class Measured:
    """One set of features: in each fold its scores, its decisions and what was chosen.

    Attributes:
        folds: the metrics of each.
        decisions: the scores of its test subjects.
        chosen: the strength of its model.
        learned: what its training part says beside the model, as thresholds.
        candidates: which of several its training part chose; "" of one alone.
    """

    folds: list[dict[str, float]] = field(default_factory=list)
    decisions: list[Floats] = field(default_factory=list)
    chosen: list[Any] = field(default_factory=list)
    learned: list[Any] = field(default_factory=list)
    candidates: list[str] = field(default_factory=list)

    def to_json(self, target: Target, parts: Sequence[Fold], persons: Persons) -> dict[str, Any]:
        """Its part of metrics.json."""
        mean, std = spread(self.folds)
        tested = np.concatenate([part.test for part in parts])
        fold = np.repeat(np.arange(len(parts)), [len(part.test) for part in parts])
        decision = np.concatenate(self.decisions)
        clinical = target.clinical(Tested(tested, fold, decision, persons[tested], self.learned))
        folds = [{k: v if np.isfinite(v) else None for k, v in f.items()} for f in self.folds]
        facts = {"folds": folds, "mean": mean, "std": std, "C": self.chosen}
        if any(self.candidates):
            facts["candidate"] = self.candidates
        return facts if clinical is None else facts | {"clinical": clinical}


def measure(
    question: Question,
    sets: Mapping[str, Sequence[Candidates]],
    parts: Sequence[Fold],
    seed: int,
    title: str | None,
    *,
    learn: bool = True,
) -> dict[str, Measured]:
    """Fit and test every set of features in every fold.

    Args:
        question: what is fitted.
        sets: `method` and the controls, by fold.
        parts: the folds.
        seed: draws held-out parts; the next of each next fold.
        title: what the progress says; None for no progress.
        learn: whether the training parts are asked for thresholds, too, which takes as long again.
    """
    measured = {name: Measured() for name in sets}
    jobs = [(name, k) for name in sets for k in range(len(parts))]
    told = jobs if title is None else track(jobs, title, len(jobs), unit="classifiers")
    for name, k in told:
        part, rows = parts[k], sets[name][k]
        model, decision, scores = question.tested(name, rows, part.train, part.test, seed + k)
        measured[name].folds.append(scores)
        measured[name].decisions.append(decision)
        measured[name].chosen.append(model.strength)
        measured[name].candidates.append(model.candidate)
        if learn:
            measured[name].learned.append(question.learn(model, rows, part.train, seed + k))
    return measured


def predicted(
    subjects: npt.NDArray[Any],
    people: Persons,
    target: Target,
    parts: list[Fold],
    measured: Mapping[str, Measured],
) -> pd.DataFrame:
    """The content of predictions.parquet: a row a tested subject.

    Args:
        subjects: `(labelled,)`, their names.
        people: `(labelled,)`, the person of each.
        target: what is predicted.
        parts: the folds.
        measured: the sets of features, in these folds.
    """
    tested = np.concatenate([p.test for p in parts])
    columns: dict[str, Any] = {
        "subject": subjects[tested],
        "fold": np.repeat(np.arange(len(parts)), [len(p.test) for p in parts]),
        **{str(name): values.to_numpy()[tested] for name, values in target.truth().items()},
    }
    if len(np.unique(people[tested])) < len(tested):  # resamples keep a person's subjects together
        columns[PERSON] = people[tested]
    for name, result in measured.items():
        scores = np.concatenate(result.decisions).reshape(len(tested), -1)
        names = score_columns(name, target.classes, target.task)
        columns |= dict(zip(names, scores.T, strict=True))
    return pd.DataFrame(columns)
