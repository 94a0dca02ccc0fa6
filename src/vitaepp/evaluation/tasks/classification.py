"""Classes: a linear SVM, a linear probe or nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Floats, Indices, Numbers
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.bootstrap import weighted_score
from vitaepp.evaluation.choice import Loss
from vitaepp.evaluation.classifier import fit
from vitaepp.evaluation.clinical import clinical_report
from vitaepp.evaluation.knn import fit_knn
from vitaepp.evaluation.labels import (
    doubts,
    read_labels,
    require_in_both,
    require_members,
    told_order,
)
from vitaepp.evaluation.scores import fold_scores
from vitaepp.evaluation.tasks.base import Constant, Fitted, Target, Tested, Training
from vitaepp.evaluation.thresholds import learn, refits


@dataclass(frozen=True)
class Reversed:
    """A classifier of two classes whose positive one is the first."""

    fitted: Fitted

    @property
    def strength(self) -> float:
        """What was chosen."""
        return self.fitted.strength

    @property
    def loss(self) -> Loss:
        """What was lost with it."""
        return self.fitted.loss

    def decision(self, features: Numbers) -> Floats:
        """Scores, above zero for the first class."""
        return -self.fitted.decision(features)


class Classification(Target):
    """Classes of one column.

    Attributes:
        labels: the classes in sort order, on which classifiers are fitted, so that the choice of
            the positive class changes what numbers are called, and none of them.
        shown: the same with the positive class second.
    """

    task = "classification"

    def __init__(self, table: pd.DataFrame, label: str, positive: str | None = None) -> None:
        self.labels = read_labels(table, label)
        self.shown = self.labels.with_positive(positive)
        self.chosen = positive is not None
        self.name, self.rows, self.strata = label, self.labels.rows, self.labels.codes
        self.missing = self.labels.missing

    @property
    def classes(self) -> Sequence[Any]:
        """In sort order; of two, the positive one is the second."""
        return self.shown.classes

    def doubts(self) -> list[str]:
        """Words for a missing value among the classes, and classes that look alike."""
        return doubts(self.labels)

    def order(self) -> str:
        """What to say of classes that are numbers; empty for others."""
        return told_order(self.labels)

    def default_protocol(self, split: bool) -> str:
        """The paper's: a linear probe on given parts, else an SVM in cross-validation."""
        return "linear" if split else "svm"

    def require_train_and_test(self, train: Indices, test: Indices) -> None:
        """Every class in both parts."""
        require_in_both(self.labels, train, test)

    def require_members(self, folds: int, persons: Persons) -> None:
        """Persons enough of each class."""
        # With two folds, a training part is half a class, and must itself be split once more.
        require_members(self.labels, folds if folds > 2 else 4, persons)

    def scored(self, train: Indices, test: Indices) -> bool:
        """Whether a part has every class, and leaves two of each to fit on."""
        counts = np.bincount(self.strata[train], minlength=len(self.labels.classes))
        return set(self.strata[test]) == set(self.strata) and bool(counts.min() > 1)

    def facts(self, used: Indices) -> dict[str, Any]:
        """The members of the classes, and the positive one."""
        classes = self.shown.classes
        counts = np.bincount(self.shown.codes[used], minlength=len(classes))
        return {
            "positive": classes[1] if len(classes) == 2 else None,
            "positive_by": "choice" if self.chosen else "the last in order",
            "members": {str(c): int(n) for c, n in zip(classes, counts, strict=True)},
        }

    def fit(self, protocol: str, part: Training) -> Fitted:
        """A linear SVM, a logistic regression or nearest neighbours."""
        codes = self.labels.codes[part.rows]
        if protocol == "knn":
            fitted: Fitted = fit_knn(part.features, codes, **part.how)
        else:
            fitted = fit(protocol, part.features, codes, **part.how)
        return fitted if self.shown.classes == self.labels.classes else Reversed(fitted)

    def usual(self, train: Indices) -> Constant:
        """The most frequent class of the training part; of equals the first."""
        members = np.bincount(self.shown.codes[train], minlength=len(self.classes))
        chosen = np.arange(len(members)) == members.argmax()
        return Constant(chosen.astype(np.float64) if len(chosen) > 2 else 2.0 * chosen[1] - 1.0)

    def learn(self, fitted: Fitted, part: Training) -> Any:
        """Thresholds and probabilities, from training subjects that were left out for it."""
        inner = fitted.fitted if isinstance(fitted, Reversed) else fitted
        decide = refits(inner, part.features, self.labels.codes[part.rows])  # type: ignore[arg-type]
        sign = -1 if isinstance(fitted, Reversed) else 1
        return learn(
            lambda rows, held: sign * decide(rows, held),
            self.shown.codes[part.rows],
            seed=part.seed,
            persons=part.persons,
        )

    def clinical(self, tested: Tested) -> dict[str, Any] | None:
        """Intervals, operating points, calibration and net benefit."""
        return clinical_report(
            self.shown.codes[tested.rows],
            tested.decision,
            tested.fold,
            [*filter(None, tested.learned)],  # without features, nothing is learned
            persons=tested.persons,
            classes=self.classes,
            seed=tested.seed,
            unlearned=tested.unlearned,
        )

    def of_other(self, table: pd.DataFrame) -> Classification:
        """The same classes of another cohort."""
        positive = str(self.classes[1]) if self.chosen else None
        other = type(self)(table, self.name, *([positive] if positive is not None else []))
        if [*map(str, other.classes)] != [*map(str, self.classes)]:
            inside, outside = (", ".join(map(str, c)) for c in (self.classes, other.classes))
            raise EvaluationError(
                f"label {self.name!r} has the classes {outside} outside, but {inside} inside; "
                "name them alike, or leave out subjects of other classes"
            )
        return other

    def truth(self) -> pd.DataFrame:
        """The class of each labelled subject, as text."""
        return pd.DataFrame({"label": [str(value) for value in self.labels.values]})

    @staticmethod
    def rescored(truth: pd.DataFrame, decision: Floats, classes: Sequence[Any]) -> dict[str, float]:
        """AUC, sensitivity, specificity and accuracy."""
        return fold_scores(codes_of(truth, classes), decision)

    @staticmethod
    def weighted(
        metric: str, truth: pd.DataFrame, decision: Floats, classes: Sequence[Any], weights: Floats
    ) -> Floats:
        """AUC, sensitivity, specificity and accuracy."""
        return weighted_score(codes_of(truth, classes), decision, weights, metric)


def codes_of(truth: pd.DataFrame, classes: Sequence[Any]) -> Indices:
    """The class of each row of predictions.parquet, as an index into the classes."""
    code = {str(c): i for i, c in enumerate(classes)}
    return np.array([code[t] for t in truth["label"]], np.intp)
