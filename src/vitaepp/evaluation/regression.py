"""Values, such as a volume or an age: linear models and their scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitaepp.data.arrays import Floats, Indices, Numbers
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.bootstrap import LEVEL, Interval, ratio
from vitaepp.evaluation.choice import Loss, choose
from vitaepp.evaluation.front import front
from vitaepp.evaluation.measures import TASKS

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Kind = Literal["ridge", "svr"]

#: Strengths that are tried, the strongest first: alpha of the ridge, for standardised features. C
#: of the support vector regression, divided by the number of features as for the SVM.
GRID: dict[Kind, tuple[float, ...]] = {
    "ridge": tuple(10.0**i for i in range(6, -3, -1)),
    "svr": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
}

#: Errors below this share of the values' deviation cost the support vector regression nothing.
EPSILON = 0.1


@dataclass(frozen=True)
class FittedRegression:
    """A regression fitted on the whole training part.

    Attributes:
        model: the scikit-learn pipeline.
        strength: that was chosen: alpha of a ridge, C of a support vector regression.
        loss: on held-out training rows, with this strength.
    """

    model: Pipeline
    strength: float
    loss: Loss = ()

    def decision(self, features: Numbers) -> Floats:
        """Predicted values, `(subject,)`, in the unit of those that were fitted."""
        return np.asarray(self.model.predict(features.astype(np.float64, copy=False)), np.float64)


def fit_regression(
    features: Numbers,
    values: Floats,
    *,
    seed: int,
    pca: bool = False,
    persons: Persons | None = None,
    kind: Kind = "ridge",
) -> FittedRegression:
    """Choose the strength on held-out parts of the training rows, then refit on all of them.

    The criterion is what each model minimises: the squared error for `ridge`, the absolute error
    for `svr`. Of equally good values the strongest regularisation wins.

    Args:
        features: `(subject, feature)`, training rows only.
        values: `(subject,)`, any unit.
        seed: draws the held-out parts.
        pca: reduce the features by PCA first, as for raw intensities.
        persons: `(subject,)`, the person of each; unset, every subject is another person.
        kind: `ridge`, or `svr`, a linear support vector regression.

    Raises:
        EvaluationError: a value is not finite, or all are the same.
    """
    if not np.isfinite(values).all():
        raise EvaluationError("a value to fit on is not finite; leave its subject out")
    if not np.ptp(values) > 0:
        raise EvaluationError(f"all {len(values)} values to fit on are the same; nothing to learn")
    x: Floats = features.astype(np.float64, copy=False)

    def losses(inner: Indices, held: Indices) -> list[float]:
        if not np.ptp(values[inner]) > 0:
            return [float("nan")] * len(GRID[kind])
        models = _fit_grid(kind, x[inner], values[inner], GRID[kind], pca)
        errors = [np.abs(one.decision(x[held]) - values[held]) for one in models]
        return [
            float(np.mean(e**2 if kind == "ridge" else e)) / float(np.var(values)) for e in errors
        ]

    strata = np.zeros(len(values), np.intp)
    best, loss = choose(GRID[kind], losses, strata, seed=seed, persons=persons)
    return replace(_fit_grid(kind, x, values, (best,), pca)[0], loss=loss)


def regression_scores(truth: Floats, predicted: Floats) -> dict[str, float]:
    """Errors in the label's own unit, and how much of its variation is explained.

    R² is against the mean of these subjects; it is NaN where they are all the same, and so are
    correlations with what is constant.

    >>> round(regression_scores(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))["mae"], 3)
    0.333
    """
    once = np.ones((1, len(truth)))
    names = TASKS["regression"].names
    return {metric: float(weighted(metric, truth, predicted, once)[0]) for metric in names}


def weighted(metric: str, truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    """A score with each subject there as often as its weight says.

    Args:
        metric: a name that `regression_scores` gives.
        truth: `(subject,)`.
        predicted: `(subject,)`.
        weights: `(resample, subject)`, counts.

    Returns:
        `(resample,)`; NaN where it is not defined.

    Raises:
        ValueError: it is no such metric.
    """
    if metric in ("mae", "rmse"):
        errors = np.abs(predicted - truth)
        if metric == "mae":
            return _mean(errors, weights)
        return np.sqrt(_mean(errors**2, weights))
    if metric == "r2":
        variance = _variance(truth, weights)
        return 1 - ratio(_mean((predicted - truth) ** 2, weights), variance)
    if metric == "pearson":
        return _correlation(truth, predicted, weights)
    if metric != "spearman":
        raise ValueError(f"no bootstrap of {metric!r}")
    ranks = (_weighted_ranks(truth, weights), _weighted_ranks(predicted, weights))
    return _correlation(*ranks, weights)


def error_intervals(
    truth: Floats, predicted: Floats, folds: Indices, persons: Persons
) -> dict[str, Interval | None]:
    """95 % intervals of MAE, RMSE and R², means over folds, had other persons been tested.

    The infinitesimal jackknife: how much a score changes with the weight of each person. The
    intervals are symmetric on the logarithm of the error; that of R² is 1 - R². A bootstrap would
    draw few different values into a small fold, where R² falls far below 0. Models are not fitted
    anew.

    Args:
        truth: `(subject,)`, any unit.
        predicted: `(subject,)`, in this unit.
        folds: `(subject,)`, in which each was tested.
        persons: `(subject,)`, the person of each.

    Returns:
        None where no fold defines the score, or where there are not more persons than folds.

    Source:
        Efron and Tibshirani 1993, chapter 21.

    Example:
        >>> truth, rows = np.array([1.0, 2.0, 4.0, 8.0]), np.arange(4)
        >>> found = error_intervals(truth, truth + 1, 0 * rows, rows)
        >>> found["mae"], found["r2"].low < 0.86 < found["r2"].high
        (Interval(low=1.0, high=1.0, level=0.95), True)
    """
    from scipy.stats import t

    _, who = np.unique(persons, return_inverse=True)
    found: dict[str, Interval | None] = {}
    for metric in ("mae", "rmse", "r2"):
        errors, influence = [], np.zeros(len(truth))
        for fold in np.unique(folds):
            rows = folds == fold
            error, each = _error(metric, truth[rows], predicted[rows])
            if np.isfinite(error):
                errors.append(error)
                influence[rows] = each
        free = len(np.unique(persons)) - len(errors)
        if not errors or free < 1:
            found[metric] = None
            continue
        error = float(np.mean(errors))
        of_persons = np.bincount(who, influence / len(errors))
        deviation = float(np.sqrt(np.sum(of_persons**2) * (free + len(errors)) / free))
        reach = float(np.exp(t.ppf((1 + LEVEL) / 2, free) * deviation / error)) if error else 1.0
        low, high = error / reach, error * reach
        low, high = (1 - high, 1 - low) if metric == "r2" else (low, high)
        found[metric] = Interval(low, high, LEVEL)
    return found


def _error(metric: str, truth: Floats, predicted: Floats) -> tuple[float, Floats]:
    """The error of a fold, and its derivative by the weight of each subject.

    Of R² the error is 1 - R²; NaN where all values are the same.
    """
    errors = np.abs(predicted - truth)
    if metric == "mae":
        mean = float(errors.mean())
        return mean, (errors - mean) / len(errors)
    squares = errors**2
    mean = float(squares.mean())
    if metric == "rmse":
        root = mean**0.5
        return root, (squares - mean) / (2 * max(root, 1e-300) * len(squares))
    centred = (truth - truth.mean()) ** 2
    variance = float(_variance(truth, np.ones((1, len(truth))))[0])
    if not variance > 0:
        return float("nan"), np.zeros(len(truth))
    relative = mean / variance
    return relative, (squares - relative * centred) / (variance * len(truth))


def _mean(values: Floats, weights: Floats) -> Floats:
    return ratio((weights * values).sum(axis=1), weights.sum(axis=1))


def _variance(values: Floats, weights: Floats) -> Floats:
    """Of values `(subject,)` or `(resample, subject)`; exactly zero where they are all the same."""
    centred = values - _mean(values, weights)[:, None]
    scale = np.abs(values).max(initial=0.0)
    variance = _mean(centred**2, weights)
    return np.where(variance > (1e-12 * scale) ** 2, variance, 0.0)


def _correlation(one: Floats, other: Floats, weights: Floats) -> Floats:
    a, b = (v - _mean(v, weights)[:, None] for v in (one, other))
    spread = np.sqrt(_variance(one, weights) * _variance(other, weights))
    enough = (weights > 0).sum(axis=1) > 2
    return np.where(enough, ratio(_mean(a * b, weights), spread), np.nan)


def _weighted_ranks(values: Floats, weights: Floats) -> Floats:
    """Mid-ranks of values of which each is there as often as its weight says."""
    _, rank, sizes = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(rank, kind="stable")
    below = np.zeros((len(weights), len(values) + 1))
    np.cumsum(weights[:, order], axis=1, out=below[:, 1:])
    ends = np.cumsum(sizes)
    return (below[:, (ends - sizes)[rank]] + below[:, ends[rank]]) / 2


def _fit_grid(
    kind: Kind, features: Floats, values: Floats, grid: tuple[float, ...], pca: bool
) -> list[FittedRegression]:
    """A model for each strength; what comes before it is the same and fitted once."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    steps = front(features, pca=pca)
    reduced = steps.fit_transform(features)
    fitted = []
    for strength in grid:
        if kind == "ridge":
            regressor: Any = Ridge(alpha=strength)
        else:
            strength = strength / reduced.shape[1]
            svr = SVR(kernel="linear", C=strength, epsilon=EPSILON, cache_size=500)
            regressor = TransformedTargetRegressor(svr, transformer=StandardScaler())
        regressor.fit(reduced, values)
        fitted.append(
            FittedRegression(Pipeline([*steps.steps, ("regressor", regressor)]), strength)
        )
    return fitted
