"""Intervals for the difference between two methods, by resampling the subjects.

Differences are always first minus second. What an interval is conditional on stands in the
docstrings, and in docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vitaepp.data.arrays import Flags, Floats, Indices
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError, nearest
from vitaepp.evaluation.measures import TASKS
from vitaepp.evaluation.scores import predicted_codes

#: Resamples of a bootstrap; the ends of a 95 % interval then vary by a few hundredths of its width.
RESAMPLES = 2000

#: Of every interval.
LEVEL = 0.95

#: Counts (resamples × subjects) that are held at once, so that memory does not grow with either.
CHUNK = 1_000_000


#: A score of the subjects of a fold, of how often each is there in each resample, `(resample,
#: subject)`: `(resample,)`.
Score = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Interval:
    """A confidence interval, from `low` to `high`."""

    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Predictions:
    """What one method says of the tested subjects, in one repetition of an evaluation.

    Attributes:
        subjects: `(row,)`, a number for each subject, 0 … N-1, the same in every repetition.
        folds: `(row,)`, the fold in which it was tested.
        codes: `(row,)`, its true class, 0 … K-1.
        scores: decision scores, `(row,)` for two classes and `(row, class)` for more.
    """

    subjects: Indices
    folds: Indices
    codes: Indices
    scores: Floats


def bootstrap_difference(
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    metric: str,
    *,
    persons: Persons | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A confidence interval of the difference of a metric, had other persons been tested.

    Percentile bootstrap: each resample draws, within each class, as many persons as there are, with
    replacement, each with all its subjects. It is paired: both methods get the same resample, and a
    subject is there equally often in every repetition. The metric is taken in each fold with a
    subject's count as its weight, and the differences are averaged over folds and repetitions, as
    the evaluation averages. A fold where a resample has no subject of a class that the metric needs
    takes no part in that resample. Encoders and classifiers are not trained anew: the interval is
    conditional on them.

    Args:
        first: one entry a repetition (a seed).
        second: the same repetitions of the other method, row by row the same subjects and folds.
        metric: a name that `scores.fold_scores` gives.
        persons: of each subject by its number; unset, every subject is another person.
        resamples: how many.
        seed: of the resamples.

    Raises:
        EvaluationError: an unknown metric, or predictions that do not belong together.

    Source:
        Efron and Tibshirani 1993, chapter 13.

    Example:
        >>> rows, codes = np.arange(40), np.arange(40) % 2
        >>> good = Predictions(rows, rows // 20, codes, codes - 0.5)
        >>> blind = Predictions(rows, rows // 20, codes, np.zeros(40))
        >>> bootstrap_difference([good], [blind], "auc")
        Interval(low=0.5, high=0.5, level=0.95)
    """
    known = TASKS["classification"].names
    if metric not in known:
        raise EvaluationError(f"no metric {metric!r}; {nearest(metric, known)}")
    codes = _codes_of_subjects(first, second)
    differences = np.concatenate(
        [
            _mean_difference(first, second, metric, w)
            for w in resampled_persons(codes, persons, resamples, seed)
        ]
    )
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        raise EvaluationError(f"no fold has subjects enough to resample its {metric}")
    return percentiles(differences)


def bootstrap_folds(
    folds: Sequence[tuple[Indices, Score]],
    persons: Persons,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """A confidence interval of a score within folds, averaged over them, had others been tested.

    Each resample draws as many persons as there are, with replacement, each with all its subjects.
    A fold where the score is not defined takes no part in that resample.

    Args:
        folds: of each the numbers of its subjects, and the score of these.
        persons: of each subject by its number.
        resamples: how many.
        seed: of the resamples.

    Returns:
        None where the score can be taken in no resample.

    Source:
        Efron and Tibshirani 1993, chapter 13.

    Example:
        >>> def share_of_first(weights):
        ...     return ratio(weights[:, 0], weights.sum(axis=1))
        >>> bootstrap_folds([(np.arange(1), share_of_first)], np.arange(6))
        Interval(low=1.0, high=1.0, level=0.95)
    """
    drawn = []
    for weights in resampled_persons(np.zeros(len(persons), np.intp), persons, resamples, seed):
        scores = [score(weights[:, subjects]) for subjects, score in folds]
        drawn.append(mean_of_defined(np.stack(scores, axis=-1)))
    values = np.concatenate(drawn)
    values = values[np.isfinite(values)]
    return percentiles(values) if len(values) else None


def weighted_score(codes: Indices, decision: Floats, weights: Floats, metric: str) -> Floats:
    """A metric of `scores.fold_scores` with each subject there as often as its weight says.

    Args:
        codes: `(subject,)`, true classes.
        decision: `(subject,)` or `(subject, class)`.
        weights: `(resample, subject)`, counts.
        metric: a name that it gives.

    Returns:
        `(resample,)`. With more than two classes, of the classes that the metric can be taken of;
        NaN where there is none.

    Raises:
        ValueError: it is no such metric.

    Example:
        >>> once, twice = np.ones(4), np.array([1.0, 1.0, 2.0, 0.0])
        >>> decision = np.array([-2.0, 0.5, 0.4, 3.0])
        >>> weighted_score(np.array([0, 0, 1, 1]), decision, np.stack([once, twice]), "auc")
        array([0.75, 0.5 ])
    """
    predicted = predicted_codes(decision)
    if metric == "accuracy":
        return share(weights, predicted == codes, np.ones(len(codes), np.bool_))
    columns = decision[:, None] if decision.ndim == 1 else decision

    def of_class(c: int, column: int) -> Floats:
        if metric == "auc":
            return weighted_auc(codes == c, columns[:, column], weights)
        if metric == "sensitivity":
            return share(weights, predicted == c, codes == c)
        if metric == "specificity":
            return share(weights, predicted != c, codes != c)
        raise ValueError(f"no bootstrap of {metric!r}")

    if decision.ndim == 1:
        return of_class(1, 0)
    return mean_of_defined(np.stack([of_class(c, c) for c in range(columns.shape[1])], axis=-1))


def weighted_auc(positive: Flags, score: Floats, weights: Floats) -> Floats:
    """How often a positive outscores a negative, each pair as often as the product of weights.

    From sorted scores, in memory of the size of the weights: a positive beats the weight of the
    negatives below it, and half of those at its own score.

    Args:
        positive: `(subject,)`.
        score: `(subject,)`.
        weights: `(resample, subject)`, counts.

    Returns:
        `(resample,)`; NaN where a resample has one class only.
    """
    _, rank, sizes = np.unique(score, return_inverse=True, return_counts=True)
    order = np.argsort(rank, kind="stable")
    below = np.zeros((len(weights), len(score) + 1))
    np.cumsum(weights[:, order] * ~positive[order], axis=1, out=below[:, 1:])
    ends = np.cumsum(sizes)
    rank = rank[positive]
    beaten = (below[:, (ends - sizes)[rank]] + below[:, ends[rank]]) / 2
    weight = weights[:, positive]
    return ratio((weight * beaten).sum(axis=1), weight.sum(axis=1) * below[:, -1])


def share(weights: Floats, right: Flags, among: Flags) -> Floats:
    """The weight of those `among` the subjects who are right, as a share of all `among`.

    Args:
        weights: `(resample, subject)`, counts.
        right: `(subject,)`.
        among: `(subject,)`.

    Returns:
        `(resample,)`; NaN where there is none among them.
    """
    return ratio(weights @ (right & among).astype(np.float64), weights @ among.astype(np.float64))


def ratio(above: Floats, below: Floats) -> Floats:
    """The quotient of each resample, `(resample,)`; NaN where the divisor is not above zero."""
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)


def mean_of_defined(values: Floats) -> Floats:
    """Mean over the last axis of what is no NaN, and NaN where nothing is left."""
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1).astype(float))


def _mean_difference(
    first: Sequence[Predictions], second: Sequence[Predictions], metric: str, weights: Floats
) -> Floats:
    """Difference of the metric for each resample, the mean over folds and repetitions."""
    folds = []
    for one, other in zip(first, second, strict=True):
        for fold in np.unique(one.folds):
            rows = one.folds == fold
            count = weights[:, one.subjects[rows]]
            a, b = (
                weighted_score(p.codes[rows], p.scores[rows], count, metric) for p in (one, other)
            )
            folds.append(a - b)
    return mean_of_defined(np.stack(folds, axis=-1))


def resampled_counts(codes: Indices, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each subject is in each resample, `(resample, subject)`, some resamples at a time.

    Each class draws from numbers of its own, so that the resamples of one do not depend on another,
    nor on how many are drawn at a time.
    """
    members = [np.flatnonzero(codes == c) for c in np.unique(codes)]
    draws = [np.random.default_rng([seed, c]) for c in range(len(members))]
    step = max(1, CHUNK // len(codes))
    for start in range(0, resamples, step):
        n = min(step, resamples - start)
        counts = np.empty((n, len(codes)))
        for rows, draw in zip(members, draws, strict=True):
            drawn = draw.integers(len(rows), size=(n, len(rows)))
            drawn += np.arange(n)[:, None] * len(rows)
            counts[:, rows] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(n, -1)
        yield counts


def resampled_persons(
    strata: Indices, persons: Persons | None, resamples: int, seed: int
) -> Iterator[Floats]:
    """How often each subject is in each resample of persons, `(resample, subject)`.

    A person is drawn with all its subjects, within the persons whose subjects are of the same
    strata. With one subject a person these are `resampled_counts`.

    Args:
        strata: `(subject,)`, classes; zeros where there are none.
        persons: `(subject,)`, the person of each; unset, every subject is another person.
        resamples: how many.
        seed: of the resamples.
    """
    if persons is None or len(np.unique(persons)) == len(persons):
        yield from resampled_counts(strata, resamples, seed)
        return
    _, who = np.unique(persons, return_inverse=True)
    has = np.zeros((who.max() + 1, strata.max() + 1), np.bool_)
    has[who, strata] = True
    _, kinds = np.unique(has, axis=0, return_inverse=True)
    for counts in resampled_counts(kinds.ravel(), resamples, seed):
        yield counts[:, who]


def _codes_of_subjects(first: Sequence[Predictions], second: Sequence[Predictions]) -> Indices:
    """The class of each subject, after it is sure that all predictions belong together."""
    if not first or len(first) != len(second):
        raise EvaluationError(
            f"{len(first)} repetitions against {len(second)}: a paired bootstrap needs the same, "
            "at least one"
        )
    codes = np.empty(len(first[0].subjects), np.intp)
    codes[np.argsort(first[0].subjects).argsort()] = first[0].codes
    for one, other in zip(first, second, strict=True):
        for name in ("subjects", "folds", "codes"):
            if not np.array_equal(getattr(one, name), getattr(other, name)):
                raise EvaluationError(f"predictions of two methods differ in their {name}")
        if not np.array_equal(np.sort(one.subjects), np.arange(len(codes))):
            raise EvaluationError(
                f"subjects must be 0 … {len(codes) - 1}, each once in every repetition"
            )
        if not np.array_equal(one.codes, codes[one.subjects]):
            raise EvaluationError("a subject's class differs between repetitions")
    return codes


def percentiles(values: Floats) -> Interval:
    """The interval that holds a share `LEVEL` of values, with as many below as above it."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), LEVEL)


def normal_quantile() -> float:
    """How many standard errors an interval of `LEVEL` reaches to each side."""
    from scipy.stats import norm

    return float(norm.ppf((1 + LEVEL) / 2))
