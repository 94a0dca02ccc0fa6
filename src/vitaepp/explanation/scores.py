"""The number that a map attributes to parts of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Floats
from vitaepp.downstream.model import Model

Features = npt.NDArray[np.float32]

#: Strengths of the ridge regression that are tried.
ALPHAS = tuple(10.0**k for k in range(7))


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of features, one or several columns.

    Attributes:
        names: of the columns, for people.
        function: features `(image, feature)` to `(image, column)`.
        absent: `(feature,)`, the features of an image of which nothing is known.
        spread: `(column,)`, the standard deviation of each score over subjects.
    """

    names: tuple[str, ...]
    function: Callable[[Features], Floats]
    absent: Features
    spread: Floats

    def __call__(self, features: Features) -> Floats:
        """Scores, `(image, column)`."""
        return self.function(features)


def decision_of(model: Model, features: Features) -> Scores:
    """The decision score of a model: of the second of two classes, or of each of several.

    Args:
        model: whose cohort's mean stands in for what is not known.
        features: of subjects, over which scores vary.
    """

    def function(rows: Features) -> Floats:
        return model.classifier.decision(rows).reshape(len(rows), -1)

    classes = model.classes[1:] if len(model.classes) == 2 else model.classes
    names = tuple(f"decision score for {model.label} = {c}" for c in classes)
    absent = model.cohort.features.mean(axis=0, dtype=np.float64).astype(np.float32)
    return Scores(names, function, absent, function(features).std(axis=0))


def distance_in(features: Features) -> Scores:
    """The squared distance from the mean of subjects, in their variances, averaged over features.

    Args:
        features: of the subjects, at least two.
    """
    values = features.astype(np.float64)
    mean, variance = values.mean(axis=0), values.var(axis=0)
    # A feature that does not vary must not make every distance infinite.
    variance = np.maximum(variance, 1e-6 * variance.mean() or 1.0)

    def function(rows: Features) -> Floats:
        return ((rows - mean) ** 2 / variance).mean(axis=1, keepdims=True)

    name = "squared distance from the mean of the store's subjects, in variances"
    return Scores((name,), function, mean.astype(np.float32), function(features).std(axis=0))


def imitation(features: Features, scores: Scores, wanted: Floats) -> tuple[Scores, float]:
    """A ridge regression from the features of another encoder to the scores of the first.

    Args:
        features: of the other encoder.
        scores: of the first.
        wanted: `(image, column)`, the first's scores of the same subjects.

    Returns:
        Scores of the other encoder's features, and R² on subjects that were left out one by one.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = make_pipeline(StandardScaler(), RidgeCV(ALPHAS))
    regression.fit(features.astype(np.float64), wanted)

    def function(rows: Features) -> Floats:
        return regression.predict(rows.astype(np.float64)).reshape(len(rows), -1)

    variance = float(wanted.var(axis=0).mean())
    r2 = 1 + float(regression[-1].best_score_) / variance if variance > 0 else float("nan")
    absent = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    return Scores(scores.names, function, absent, scores.spread), r2
