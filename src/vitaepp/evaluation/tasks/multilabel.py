"""Several labels of two classes each, in the same folds: a classifier for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Floats, Indices, Numbers
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.bootstrap import mean_of_defined, weighted_score
from vitaepp.evaluation.choice import Loss
from vitaepp.evaluation.scores import fold_scores
from vitaepp.evaluation.tasks.base import Fitted, Target, Tested, Training
from vitaepp.evaluation.tasks.classification import Classification


@dataclass(frozen=True)
class _Several:
    """A classifier a label."""

    each: Sequence[Fitted]

    @property
    def strength(self) -> list[float]:
        """What was chosen for each label."""
        return [float(np.mean(fitted.strength)) for fitted in self.each]

    @property
    def loss(self) -> Loss:
        """The mean over labels of what was lost with it."""
        return tuple(np.mean([fitted.loss for fitted in self.each], axis=0).round(9).tolist())

    def decision(self, features: Numbers) -> Floats:
        """Scores, `(subject, label)`, above zero where the label is there."""
        return np.stack([fitted.decision(features) for fitted in self.each], axis=1)


class Multilabel(Target):
    """Several columns of two classes, of which the last in order is positive.

    A subject with an empty cell in one of the columns is left out.
    """

    task = "multilabel"
    stratum = "rarest label"

    def __init__(self, table: pd.DataFrame, label: str) -> None:
        names = [name.strip() for name in label.split(",") if name.strip()]
        if len(names) < 2 or len(set(names)) < len(names):
            raise EvaluationError(
                f"label {label!r}: task multilabel takes two or more different columns with commas "
                "between them"
            )
        single = [Classification(table, name) for name in names]
        for name, one in zip(names, single, strict=True):
            if len(one.classes) != 2:
                raise EvaluationError(
                    f"label {name!r} has {len(one.classes)} classes; task multilabel takes columns "
                    "of two, such as 0 and 1"
                )
        rows = set(single[0].rows).intersection(*(one.rows for one in single))
        self.name, self.rows = ",".join(names), np.array(sorted(rows), np.intp)
        self.missing = len(table) - len(self.rows)
        self._without = {
            name: len(table) - len(o.rows) for name, o in zip(names, single, strict=True)
        }
        if not rows:
            raise EvaluationError(f"label {label!r}: no subject has a value in all columns")
        labelled = table.iloc[self.rows]
        self.single = [Classification(labelled, name) for name in names]
        self.codes = np.stack([one.strata for one in self.single], axis=1)
        self.strata = _strata(self.codes)

    @property
    def classes(self) -> Sequence[Any]:
        """The labels."""
        return [one.name for one in self.single]

    @property
    def lacking(self) -> str:
        """A subject that lacks one label is left out: how many lack which."""
        each = (f"{name}: {count}" for name, count in self._without.items() if count)
        return f"lack a label ({', '.join(each)})"

    def doubts(self) -> list[str]:
        """Those of each label."""
        return [doubt for one in self.single for doubt in one.doubts()]

    def default_protocol(self, split: bool) -> str:
        """As of classes."""
        return "linear" if split else "svm"

    def require_train_and_test(self, train: Indices, test: Indices) -> None:
        """Every class of every label in both parts."""
        for one in self.single:
            one.require_train_and_test(train, test)

    def require_members(self, folds: int, persons: Persons) -> None:
        """Persons enough of each class of each label."""
        for one in self.single:
            one.require_members(folds, persons)

    def scored(self, train: Indices, test: Indices) -> bool:
        """Whether a part has every class of every label."""
        return all(one.scored(train, test) for one in self.single)

    def facts(self, used: Indices) -> dict[str, Any]:
        """How many subjects have each label, and by which class of its column."""
        counts = self.codes[used].sum(axis=0).tolist()
        return {
            "members": dict(zip(self.classes, counts, strict=True)),
            "positives": {one.name: one.classes[1] for one in self.single},
        }

    def fit(self, protocol: str, part: Training) -> Any:
        """The classifier of the protocol, for each label."""
        return _Several([one.fit(protocol, part) for one in self.single])

    def learn(self, fitted: Fitted, part: Training) -> list[Any]:
        """Of each label the thresholds and probabilities."""
        assert isinstance(fitted, _Several)
        each = zip(self.single, fitted.each, strict=True)
        return [one.learn(classifier, part) for one, classifier in each]

    def clinical(self, tested: Tested) -> dict[str, Any]:
        """Of each label, in `labels`, what there is of one alone."""
        labels = {}
        for i, one in enumerate(self.single):
            learned = [each[i] for each in tested.learned]
            of_label = replace(tested, decision=tested.decision[:, i], learned=learned)
            labels[one.name] = one.clinical(of_label)
        return {"labels": labels}

    def of_other(self, table: pd.DataFrame) -> Multilabel:
        """The same columns of another cohort."""
        other = Multilabel(table, self.name)
        for one in self.single:
            one.of_other(table)
        return other

    def truth(self) -> pd.DataFrame:
        """A column a label, 1 where it is there."""
        columns = {f"label:{one.name}": one.strata for one in self.single}
        names = np.array(self.classes, object)
        text = [" ".join(names[row == 1]) or "none" for row in self.codes]
        return pd.DataFrame({"label": text, **columns})

    @staticmethod
    def rescored(truth: pd.DataFrame, decision: Floats, classes: Sequence[Any]) -> dict[str, float]:
        """The mean over labels of AUC, sensitivity, specificity and accuracy."""
        each = [
            fold_scores(truth[f"label:{name}"].to_numpy(np.intp), decision[:, i])
            for i, name in enumerate(classes)
        ]
        return {metric: float(np.mean([one[metric] for one in each])) for metric in each[0]}

    @staticmethod
    def weighted(
        metric: str, truth: pd.DataFrame, decision: Floats, classes: Sequence[Any], weights: Floats
    ) -> Floats:
        """The same, of the labels that have both classes in a resample."""
        each = [
            weighted_score(truth[f"label:{n}"].to_numpy(np.intp), decision[:, i], weights, metric)
            for i, n in enumerate(classes)
        ]
        return mean_of_defined(np.stack(each, axis=-1))


def _strata(codes: Indices) -> Indices:
    """Groups for balanced folds: subjects by the rarest of the labels that they have."""
    rarity = codes.sum(axis=0)
    ranked = np.where(codes == 1, rarity, np.iinfo(np.intp).max)
    rarest = np.where(codes.any(axis=1), ranked.argmin(axis=1), codes.shape[1])
    return np.unique(rarest, return_inverse=True)[1].astype(np.intp)
