"""Thresholds and probabilities that a training part decides, for its test part.

They come from decisions about subjects that a classifier did not see: `learn` and `refits`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vitaepp.data.arrays import Flags, Floats, Indices, Numbers
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError, one_line
from vitaepp.evaluation.calibration import Calibration
from vitaepp.evaluation.classifier import Fitted, outer_folds
from vitaepp.evaluation.knn import Neighbours
from vitaepp.evaluation.scores import one_against_rest

#: Folds of a training part that its own thresholds and probabilities come from.
INNER_FOLDS = 5

#: What a threshold is chosen for: the side that must reach a share, and the share. `balanced` has
#: the largest sum of sensitivity and specificity (Youden 1950).
GOALS: dict[str, tuple[str, float] | None] = {
    "balanced": None,
    "specificity_90": ("specificity", 0.90),
    "specificity_95": ("specificity", 0.95),
    "sensitivity_90": ("sensitivity", 0.90),
    "sensitivity_95": ("sensitivity", 0.95),
}


@dataclass(frozen=True)
class Threshold:
    """Where a score counts as positive: above `value`.

    Attributes:
        value: the threshold.
        sensitivity: that it reached on the subjects it was chosen on.
        specificity: likewise.
    """

    value: float
    sensitivity: float
    specificity: float


@dataclass(frozen=True)
class Learned:
    """What a training part decides for its test part.

    Attributes:
        calibration: from decisions to probabilities; None where it could not be learned.
        thresholds: for each of `GOALS` a threshold a class, or one for two classes.
        reason: why there is none of it.
    """

    calibration: Calibration | None = None
    thresholds: Mapping[str, Sequence[Threshold]] = field(default_factory=dict)
    reason: str = ""


def held_out_decisions(
    decide: Callable[[Indices, Indices], Floats],
    codes: Indices,
    *,
    seed: int,
    persons: Persons | None = None,
    folds: int = INNER_FOLDS,
) -> Floats:
    """Decisions of training rows by classifiers that did not see them.

    Args:
        decide: of training rows to fit on and of rows left out, the decisions of the latter, as
            `refits` makes it. It must not look at the test part of the outer fold, and it must fit
            with the strength that was chosen for this fold: scores of another have another scale,
            on which a threshold of theirs means something else.
        codes: `(subject,)`, classes of the training rows.
        seed: draws the folds.
        persons: `(subject,)`, whose rows stay together; unset, every subject is another person.
        folds: at most; fewer where a class has fewer persons.

    Returns:
        `(subject,)` for two classes, `(subject, class)` for more.

    Raises:
        EvaluationError: a class has one person only, or the folds cannot have every class each.
    """
    from sklearn import config_context

    who = np.arange(len(codes)) if persons is None else persons
    folds = min(folds, *(len(np.unique(who[codes == c])) for c in np.unique(codes)))
    if folds < 2:
        raise EvaluationError("a class of the training part has one participant only")
    fold_of = outer_folds(codes, folds=folds, seed=seed, persons=persons)
    tested = [np.flatnonzero(fold_of == k) for k in range(folds)]
    with config_context(skip_parameter_validation=True):  # as in `choose`
        each = [decide(np.flatnonzero(fold_of != k), rows) for k, rows in enumerate(tested)]
    decisions = np.empty((len(codes), *each[0].shape[1:]))
    for rows, one in zip(tested, each, strict=True):
        decisions[rows] = one
    return decisions


def refits(
    fitted: Fitted | Neighbours, features: Numbers, codes: Indices
) -> Callable[[Indices, Indices], Floats]:
    """Fit a classifier anew on some of its training rows, with the strength that was chosen.

    Args:
        fitted: on all training rows of a fold.
        features: `(subject, feature)`, of these rows.
        codes: `(subject,)`, their classes.

    Returns:
        Of rows to fit on and of rows left out, the decisions of the latter: what `learn` takes.
    """
    from sklearn.base import clone

    def decide(inner: Indices, held: Indices) -> Floats:
        model = clone(fitted.model).fit(features[inner].astype(np.float64), codes[inner])
        return replace(fitted, model=model).decision(features[held])

    return decide


def learn(
    decide: Callable[[Indices, Indices], Floats],
    codes: Indices,
    *,
    seed: int,
    persons: Persons | None = None,
) -> Learned:
    """Choose thresholds and fit probabilities, in the training part alone.

    Args:
        decide: as for `held_out_decisions`.
        codes: `(subject,)`, classes of the training rows.
        seed: draws the folds.
        persons: `(subject,)`, whose rows stay together.

    Returns:
        What `clinical_report` takes of each fold; where the training part is too small, nothing
        and the reason.
    """
    try:
        decisions = held_out_decisions(decide, codes, seed=seed, persons=persons, folds=INNER_FOLDS)
    except ValueError as error:  # also scikit-learn's, where an inner fold leaves too few rows
        return Learned(reason=f"nothing could be held out in the training part: {one_line(error)}")
    return learn_from(codes, decisions)


def learn_from(codes: Indices, decision: Floats) -> Learned:
    """Thresholds and probabilities from decisions of subjects that the classifier did not see.

    Args:
        codes: `(subject,)`, their classes: of the training part, never of the test part.
        decision: `(subject,)` for two classes, `(subject, class)` for more.
    """
    columns = one_against_rest(codes, decision)
    if any(positive.all() or not positive.any() for positive, _ in columns):
        return Learned(reason="a class is missing among the held-out training subjects")
    thresholds = {
        goal: [choose_threshold(positive, score, goal) for positive, score in columns]
        for goal in GOALS
    }
    return Learned(Calibration.of(codes, decision), thresholds)


def choose_threshold(positive: Flags, score: Floats, goal: str) -> Threshold:
    """The threshold that reaches a goal on given subjects: the one that gives the least away.

    For a specificity it is the lowest threshold that reaches it, for a sensitivity the highest. It
    lies midway between two scores that occur. Where no other does, nobody or everybody is positive.

    Args:
        positive: `(subject,)`, with both values present; of the training part, never of the test
            part.
        score: `(subject,)`, of a classifier that did not see these subjects.
        goal: a name of `GOALS`.

    Raises:
        EvaluationError: an unknown goal, or one class only.

    Example:
        >>> score = np.array([0.0, 1.0, 2.0, 3.0])
        >>> choose_threshold(score > 1, score, "balanced")
        Threshold(value=1.5, sensitivity=1.0, specificity=1.0)
    """
    if goal not in GOALS:
        raise EvaluationError(f"no goal {goal!r}; known are {', '.join(GOALS)}")
    if positive.all() or not positive.any():
        raise EvaluationError("a threshold is chosen on subjects of both classes")
    values = np.unique(score)
    middles = (values[1:] + values[:-1]) / 2
    cuts = np.concatenate([[np.nextafter(values[0], -np.inf)], middles, [values[-1]]])
    sensitivity = 1 - np.searchsorted(np.sort(score[positive]), cuts, side="right") / positive.sum()
    specificity = np.searchsorted(np.sort(score[~positive]), cuts, side="right") / (~positive).sum()
    wanted = GOALS[goal]
    if wanted is None:
        best = int(np.argmax((sensitivity + specificity).round(12)))
    elif wanted[0] == "specificity":
        best = int(np.flatnonzero(specificity >= wanted[1] - 1e-12)[0])
    else:
        best = int(np.flatnonzero(sensitivity >= wanted[1] - 1e-12)[-1])
    return Threshold(float(cuts[best]), float(sensitivity[best]), float(specificity[best]))
