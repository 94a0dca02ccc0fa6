"""What a task is to an evaluation: whom it can be asked of, what is fitted, how it is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Floats, Indices, Numbers
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.bootstrap import Score, bootstrap_folds
from vitaepp.evaluation.choice import Loss
from vitaepp.evaluation.measures import TASKS, Measures


@runtime_checkable
class Fitted(Protocol):
    """A model that was fitted on training rows."""

    @property
    def strength(self) -> float:
        """What was chosen on held-out training rows: C of a classifier, alpha of a ridge, k."""

    @property
    def loss(self) -> Loss:
        """What was lost there with it, by which candidates are chosen; less is better."""

    def decision(self, features: Numbers) -> Floats:
        """Scores of rows of features, `(subject,)` or `(subject, output)`."""


@dataclass(frozen=True)
class Constant:
    """One decision for all subjects: what the training part says to one who has no features.

    Attributes:
        value: a score, or `(class,)` one a class.
    """

    value: float | Floats
    strength: None = None
    loss: Loss = ()

    def decision(self, features: Numbers) -> Floats:
        """Scores, `(subject,)` or `(subject, class)`."""
        return np.array(np.broadcast_to(self.value, (len(features), *np.shape(self.value))))


@dataclass(frozen=True)
class Training:
    """A training part: what a model is fitted on, and where all that is chosen is chosen.

    Attributes:
        rows: positions of its subjects among the labelled.
        features: `(row, feature)`.
        persons: `(row,)`, whose rows stay together.
        seed: draws held-out parts.
        pca: reduce the features first, as for raw intensities.
    """

    rows: Indices
    features: Numbers
    persons: Persons
    seed: int
    pca: bool = False

    @property
    def how(self) -> dict[str, Any]:
        """The keywords that all models have."""
        return {"seed": self.seed, "pca": self.pca, "persons": self.persons}


@dataclass(frozen=True)
class Tested:
    """All tested subjects of an evaluation, each by a model that did not see it.

    Attributes:
        rows: their positions among the labelled.
        fold: `(row,)`, in which each was tested.
        decision: `(row,)` or `(row, class)`.
        persons: `(row,)`, the person of each.
        learned: of each fold, what `Target.learn` gave.
        seed: of resamples.
        unlearned: why, where `learned` is empty.
    """

    rows: Indices
    fold: Indices
    decision: Floats
    persons: Persons
    learned: Sequence[Any] = ()
    seed: int = 0
    unlearned: str = ""


class Target(ABC):
    """What is predicted of the labelled subjects of a table.

    Attributes:
        task: its name in `measures.TASKS`.
        name: the column, or the columns joined by commas.
        rows: the rows of the table that are labelled.
        strata: `(labelled,)`, codes over which folds are balanced.
        missing: how many subjects have no label.
        stratum: what one of the strata is called.
    """

    task: ClassVar[str]
    stratum: ClassVar[str] = "class"
    name: str
    rows: Indices
    strata: Indices
    missing: int

    @property
    def measures(self) -> Measures:
        """What is measured."""
        return TASKS[self.task]

    @property
    def classes(self) -> Sequence[Any]:
        """The classes, or the labels of several; empty where a number is predicted."""
        return ()

    @property
    def lacking(self) -> str:
        """What those lack that are left out, as the end of a sentence."""
        return f"have no {self.name}"

    def doubts(self) -> list[str]:
        """What to ask about labels that may not be meant as they are written, a line each."""
        return []

    def doubts_outside(self, other: Any) -> list[str]:
        """What to ask about the same target of another cohort, a line each."""
        return list(other.doubts())

    def default_protocol(self, split: bool) -> str:
        """The model that is fitted, unless another is asked for.

        Args:
            split: whether the table gives train and test parts.
        """
        return "linear"

    @abstractmethod
    def require_train_and_test(self, train: Indices, test: Indices) -> None:
        """Refuse a train and test split that does not allow to fit and to score.

        Raises:
            EvaluationError: naming what is missing where.
        """

    @abstractmethod
    def require_members(self, folds: int, persons: Persons) -> None:
        """Refuse labels that are too few for cross-validation.

        Raises:
            EvaluationError: naming what there is and what is needed.
        """

    def scored(self, train: Indices, test: Indices) -> bool:
        """Whether a part can be tested alone, as one site of several."""
        return len(test) > 1

    @abstractmethod
    def facts(self, used: Indices) -> dict[str, Any]:
        """What metrics.json holds of the labels beside the classes: `members`, …"""

    @abstractmethod
    def fit(self, protocol: str, part: Training) -> Fitted:
        """Fit on training rows; everything that is chosen is chosen among them.

        Args:
            protocol: `svm`, `linear` or `knn`.
            part: what it is fitted on.
        """

    def usual(self, train: Indices) -> Constant:
        """What is decided without features: the most frequent class of training rows, or the mean.

        Raises:
            EvaluationError: the task has no such decision.
        """
        raise EvaluationError(f"task {self.task} needs features; give a column or more")

    def learn(self, fitted: Fitted, part: Training) -> Any:
        """What the training part says beside the model, as a threshold; for `clinical`."""
        return None

    def clinical(self, tested: Tested) -> dict[str, Any] | None:
        """What people report beside the metrics, JSON throughout; None where it is nothing.

        Args:
            tested: all subjects that were tested, in one fold or another.
        """
        return None

    @abstractmethod
    def truth(self) -> pd.DataFrame:
        """The columns of predictions.parquet that hold what is true, a row a labelled subject."""

    @abstractmethod
    def of_other(self, table: pd.DataFrame) -> Target:
        """The same target of another cohort.

        Raises:
            EvaluationError: its columns are missing or hold something else.
        """

    def scores(
        self, test: Indices, decision: Floats, fitted_to: Target, train: Indices
    ) -> dict[str, float]:
        """The metrics of a tested part.

        Args:
            test: positions among the labelled.
            decision: what a model says of them.
            fitted_to: the target of the cohort that the model was fitted to, mostly this one.
            train: positions there.
        """
        return self.rescored(self.truth().iloc[test], decision, self.classes)

    @staticmethod
    @abstractmethod
    def rescored(truth: pd.DataFrame, decision: Floats, classes: Sequence[Any]) -> dict[str, float]:
        """Metrics of rows of predictions.parquet, as far as these rows alone give them.

        Args:
            truth: with the columns of `truth`.
            decision: `(row,)` or `(row, output)`.
            classes: of the target.
        """

    @staticmethod
    @abstractmethod
    def weighted(
        metric: str, truth: pd.DataFrame, decision: Floats, classes: Sequence[Any], weights: Floats
    ) -> Floats:
        """A metric of rows of predictions.parquet with each there as often as its weight says.

        Args:
            metric: one of `measures`.
            truth: with the columns of `truth`.
            decision: `(row,)` or `(row, output)`.
            classes: of the target.
            weights: `(resample, row)`, counts.

        Returns:
            `(resample,)`; NaN where the rows do not give it.
        """

    def intervals(self, tested: Tested, metrics: Sequence[str]) -> dict[str, Any]:
        """95 % bootstrap intervals, had other persons been tested; models stay as they are.

        Args:
            tested: all tested subjects.
            metrics: of which, names of `measures`.

        Returns:
            Of each metric `low`, `high` and `level`; None where it can be taken in no resample.
        """
        truth = self.truth().iloc[tested.rows]
        parts = [np.flatnonzero(tested.fold == k) for k in np.unique(tested.fold)]

        def score(metric: str, rows: Indices) -> Score:
            known = truth.iloc[rows], tested.decision[rows], self.classes
            return lambda weights: self.weighted(metric, *known, weights)

        intervals = {}
        for metric in metrics:
            folds = [(rows, score(metric, rows)) for rows in parts]
            interval = bootstrap_folds(folds, tested.persons, seed=tested.seed)
            intervals[metric] = None if interval is None else asdict(interval)
        return intervals
