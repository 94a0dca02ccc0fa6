"""What papers report of a classifier beside its AUC: intervals, thresholds, calibration, benefit.

Everything here takes out-of-fold decisions: the scores that test subjects got from a classifier
that did not see them. Measures of order and of decisions (AUC, average precision, balanced
accuracy, sensitivity and specificity) are taken in each fold and averaged, as `evaluate` does,
because the scores of two classifiers have no common scale. Measures of probabilities (Brier score,
calibration, net benefit) are taken of all subjects together. With more than two classes each is
held against the rest and the values are averaged (macro).

Probabilities and thresholds are decided by the training part (`learn`), and only applied to the
test part (`clinical_report`). What cannot be taken is None, and `reasons` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vitaepp.data.arrays import Flags, Floats, Indices, Numbers
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError, one_line
from vitaepp.evaluation.bootstrap import (
    LEVEL,
    RESAMPLES,
    mean_of_defined,
    percentiles,
    ratio,
    resampled_persons,
    share,
    weighted_auc,
)
from vitaepp.evaluation.calibration import Calibration
from vitaepp.evaluation.classifier import Fitted, outer_folds
from vitaepp.evaluation.knn import Neighbours
from vitaepp.evaluation.scores import predicted_codes

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

#: Groups of equal size, by probability, of a calibration curve, and the fewest subjects in one.
BINS, BIN_MEMBERS = 10, 5

#: Probabilities of a decision curve, at which somebody would act.
ACTED_AT = np.round(np.arange(0.01, 1.0, 0.01), 2)


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
    columns = _one_against_rest(codes, decision)
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


def delong(
    codes: Indices, decision: Floats, fold: Indices | None = None, *, persons: Persons | None = None
) -> dict[str, Any]:
    """The AUC, the mean over folds, with DeLong's 95 % interval.

    The interval says how much the AUC could change with other subjects to test on; classifiers are
    not fitted anew. With several subjects a person it is Obuchowski's, for clustered data.

    Args:
        codes: `(subject,)`, true classes.
        decision: `(subject,)` or `(subject, class)`.
        fold: `(subject,)`, in which each was tested; unset, all in one.
        persons: `(subject,)`, the person of each; unset, every subject is another person.

    Returns:
        `value`, `se`, `low`, `high`, `level`, and `reason` where one of them is None.

    Source:
        DeLong et al. 1988; Sun and Xu 2014 for the computation from ranks; Obuchowski 1997.

    Example:
        >>> delong(np.array([0, 0, 1, 1]), np.array([-2.0, 0.5, 0.4, 3.0]))["value"]
        0.75
    """
    value, influence, reason = _auc_influence(codes, decision, fold, persons)
    none = {"value": None, "se": None, "low": None, "high": None, "level": LEVEL}
    if not np.isfinite(value):
        return none | {"reason": reason}
    facts = none | {"value": value}
    se = _standard_error(influence, persons)
    if not se > 1e-12:
        why = (
            "all subjects have the same score"
            if value == 0.5
            else "every positive is on the same side of every negative"
        )
        return facts | {"reason": f"{why}, of which DeLong's variance is 0: no interval"}
    reach = _normal_quantile() * se
    facts |= {"se": se, "low": max(0.0, value - reach), "high": min(1.0, value + reach)}
    return facts | ({"reason": reason} if reason else {})


def delong_test(
    codes: Indices,
    first: Floats,
    second: Floats,
    fold: Indices | None = None,
    *,
    persons: Persons | None = None,
) -> dict[str, Any]:
    """Do two scores of the same subjects have the same AUC? DeLong's test, two-sided.

    It takes the classifiers as they are. Over several folds these share training subjects, and
    their differences are correlated in a way that the test does not know: there the corrected
    resampled t-test of `vitaepp.evaluation.statistics` answers whether one method is better.

    Args:
        codes: `(subject,)`, true classes.
        first: decisions, `(subject,)` or `(subject, class)`.
        second: likewise, of the same subjects.
        fold: `(subject,)`, in which each was tested; unset, all in one.
        persons: `(subject,)`, the person of each; unset, every subject is another person.

    Returns:
        `difference`, first minus second, with `se`, `low`, `high`, `level`, `z` and `p`; `reason`
        where they are None.

    Source:
        DeLong et al. 1988; Sun and Xu 2014; Obuchowski 1997 for several subjects a person.
    """
    from scipy.stats import norm

    one, of_one, reason = _auc_influence(codes, first, fold, persons)
    other, of_other, _ = _auc_influence(codes, second, fold, persons)
    names = ("difference", "se", "low", "high", "z", "p")
    none: dict[str, Any] = dict.fromkeys(names) | {"level": LEVEL}
    if not np.isfinite(one - other):
        return none | {"reason": reason}
    facts = none | {"difference": one - other}
    se = _standard_error(of_one - of_other, persons)
    if not se > 1e-12:
        same = "the two order all pairs alike" if one == other else "the variance is 0"
        return facts | {"reason": f"{same}: no test"}
    z, reach = (one - other) / se, _normal_quantile() * se
    facts |= {"se": se, "low": one - other - reach, "high": one - other + reach, "z": float(z)}
    return facts | {"p": float(2 * norm.sf(abs(z)))} | ({"reason": reason} if reason else {})


def clinical_report(
    codes: Indices,
    decision: Floats,
    fold: Indices,
    learned: Sequence[Learned] = (),
    *,
    persons: Persons | None = None,
    classes: Sequence[Any] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    unlearned: str = "",
) -> dict[str, Any]:
    """What people report of a classifier, from out-of-fold decisions; JSON throughout.

    Args:
        codes: `(subject,)`, true classes, 0 … K-1, of all tested subjects.
        decision: `(subject,)` for two classes, `(subject, class)` for more, each by a classifier
            that did not see the subject.
        fold: `(subject,)`, 0 …, in which each was tested.
        learned: for each fold what `learn` gave in its training part. Without it, nothing that
            needs a threshold or a probability is reported.
        persons: `(subject,)`, the person of each; unset, every subject is another person.
        classes: their names; unset, their codes.
        resamples: of the bootstrap over persons, within classes.
        seed: of the resamples.
        unlearned: why, where `learned` is empty.

    Returns:
        Values with their intervals: `auc` (DeLong's interval `delong` and the bootstrap's `low` and
        `high`), `average_precision` (with `chance`, the share of positives), `balanced_accuracy`,
        `operating` (by goal the thresholds of the folds, what these reached in the training part,
        and what they give on the test part), `brier` (with `prior`, of the share of positives),
        `calibration` (`slope`, 1 is right; `intercept`, calibration in the large, 0 is right;
        `ece`; `curve`), `decision_curve`; `n`, `positives`; `reasons`, by name, of what is None.

    Raises:
        EvaluationError: the arrays do not fit, or a decision is not finite.

    Source:
        Platt 1999 (probabilities); Van Calster et al. 2016 (slope and intercept); Naeini et al.
        2015 (expected calibration error); Vickers and Elkin 2006 (decision curve); Efron and
        Tibshirani 1993 (bootstrap).
    """
    if not len(codes) == len(decision) == len(fold):
        raise EvaluationError(
            f"{len(codes)} classes, {len(decision)} decisions and {len(fold)} folds; give one of "
            "each for every subject"
        )
    if not np.isfinite(decision).all():
        raise EvaluationError("a decision is not finite; evaluate again")
    count = 2 if decision.ndim == 1 else decision.shape[1]
    names = [str(c) for c in (range(count) if classes is None else classes)]
    shown = names[1:] if count == 2 else names
    parts = [np.flatnonzero(fold == k) for k in np.unique(fold)]
    reasons: dict[str, str] = {}
    why = "" if learned else unlearned or "nothing was learned in the training parts"
    if learned and len(learned) <= int(fold.max()):
        raise EvaluationError(
            f"{len(learned)} learned for {int(fold.max()) + 1} folds; give one a fold"
        )
    used = [learned[int(fold[rows[0]])] for rows in parts] if learned else []
    why = why or next((one.reason for one in used if one.calibration is None), "")

    statistics = _statistics(codes, decision, parts)
    probabilities = None
    if not why:
        probabilities = np.empty((len(codes), count))
        for rows, one in zip(parts, used, strict=True):
            assert one.calibration is not None
            probabilities[rows] = one.calibration.probabilities(decision[rows])
        for goal in GOALS:
            statistics |= _at_thresholds(codes, decision, parts, used, goal)
        columns = _one_against_rest(codes, _column(probabilities))
        statistics["brier"] = lambda w: _brier(columns, w)
    values = _with_intervals(statistics, codes, persons, resamples, seed)
    for name, value in values.items():
        if value["value"] is None:
            reasons[name] = "a class that it needs is in no fold"

    area = delong(codes, decision, fold, persons=persons)
    if "reason" in area:
        reasons["delong"] = area.pop("reason")
    of_class = [positive for positive, _ in _one_against_rest(codes, decision)]
    report: dict[str, Any] = {
        "n": len(codes),
        "positives": {n: int(p.sum()) for n, p in zip(shown, of_class, strict=True)},
        "auc": values["auc"] | {"delong": area},
        "average_precision": values["average_precision"]
        | {"chance": float(np.mean([p.mean() for p in of_class]))},
        "balanced_accuracy": values["balanced_accuracy"],
        "operating": None,
        "brier": None,
        "calibration": None,
        "decision_curve": None,
        "reasons": reasons,
    }
    if probabilities is None:
        return report | {"reasons": reasons | {"operating": why, "brier": why, "calibration": why}}
    report["operating"] = {
        goal: {
            "thresholds": [[t.value for t in one.thresholds[goal]] for one in used],
            "training": {
                side: float(np.mean([[getattr(t, side) for t in o.thresholds[goal]] for o in used]))
                for side in ("sensitivity", "specificity")
            },
            "sensitivity": values[f"{goal}: sensitivity"],
            "specificity": values[f"{goal}: specificity"],
        }
        for goal in GOALS
    }
    columns = _one_against_rest(codes, _column(probabilities))
    report["brier"] = values["brier"] | {
        "prior": float(np.mean([p.mean() * (1 - p.mean()) for p, _ in columns]))
    }
    each = [calibration(p, probability, persons=persons) for p, probability in columns]
    report["calibration"] = {
        **{name: _macro(each, name) for name in ("slope", "intercept")},
        "ece": float(np.mean([one["ece"] for one in each])),
        "classes": dict(zip(shown, each, strict=True)),
    }
    for name, calibrated in zip(shown, each, strict=True):
        if "reason" in calibrated:
            reasons[f"calibration of {name}"] = calibrated.pop("reason")
    report["decision_curve"] = {
        "threshold": ACTED_AT.tolist(),
        "classes": {n: net_benefit(*c) for n, c in zip(shown, columns, strict=True)},
    }
    return report


def calibration(
    positive: Flags, probability: Floats, *, persons: Persons | None = None
) -> dict[str, Any]:
    """How far probabilities can be taken at their word.

    Args:
        positive: `(subject,)`.
        probability: `(subject,)`, of being positive.
        persons: `(subject,)`, the person of each, for the intervals.

    Returns:
        `slope` and `intercept`, with 95 % intervals: of a logistic regression of the outcome on the
        logit of the probability, and of one whose slope is held at 1 (calibration in the large);
        `ece`, the mean distance between probability and share over the groups of `curve`, which has
        `predicted`, `observed` and `n` of up to ten groups of equal size. What is None has a
        `reason`.

    Source:
        Cox 1958; Van Calster et al. 2016, "A calibration hierarchy for risk models was defined".
    """
    facts: dict[str, Any] = {"slope": None, "intercept": None}
    clipped = np.clip(probability, 1e-12, 1 - 1e-12)
    logit = np.log(clipped / (1 - clipped))
    ones = np.ones_like(logit)
    if positive.all() or not positive.any():
        facts["reason"] = "all subjects are of one class: no slope and no intercept"
    else:
        facts["intercept"] = _logistic(positive, ones[:, None], logit, persons)
        if np.ptp(logit) < 1e-9:
            facts["reason"] = "all probabilities are the same: no slope"
        elif _separated(positive, logit):
            facts["reason"] = "the probability parts the classes without an error: no finite slope"
        else:
            facts["slope"] = _logistic(positive, np.stack([logit, ones], 1), 0 * logit, persons)
    curve = calibration_curve(positive, probability)
    gap = np.abs(np.subtract(curve["predicted"], curve["observed"]))
    return facts | {"ece": float(np.average(gap, weights=curve["n"])), "curve": curve}


def calibration_curve(positive: Flags, probability: Floats) -> dict[str, list[Any]]:
    """Mean probability and share of positives, in up to ten groups of equal size.

    Equal probabilities stay in one group, so that there may be fewer.

    Args:
        positive: `(subject,)`.
        probability: `(subject,)`.
    """
    bins = max(1, min(BINS, len(probability) // BIN_MEMBERS))
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1)))
    group = np.searchsorted(edges[1:-1], probability, side="left")
    members = np.bincount(group)
    filled = members > 0
    predicted, observed = (
        np.bincount(group, v)[filled] / members[filled] for v in (probability, positive)
    )
    return {
        "predicted": predicted.tolist(),
        "observed": observed.tolist(),
        "n": members[filled].tolist(),
    }


def net_benefit(positive: Flags, probability: Floats) -> dict[str, list[float]]:
    """What acting on a probability gains, at each of `ACTED_AT`: a decision curve.

        net benefit = TP / n − FP / n · t / (1 − t)

    for those whose probability is at least t. It is in true positives a subject; acting on nobody
    gains 0.

    Args:
        positive: `(subject,)`.
        probability: `(subject,)`.

    Returns:
        `model`, and `all`, what acting on everybody gains.

    Source:
        Vickers and Elkin 2006, "Decision curve analysis".
    """
    n, odds = len(positive), ACTED_AT / (1 - ACTED_AT)
    at_least = [
        np.array([(p >= t).sum() for t in ACTED_AT]) / n
        for p in (probability[positive], probability[~positive])
    ]
    share_of_positives = positive.mean()
    everybody = share_of_positives - (1 - share_of_positives) * odds
    return {"model": (at_least[0] - at_least[1] * odds).tolist(), "all": everybody.tolist()}


def average_precision(positive: Flags, score: Floats, weights: Floats) -> Floats:
    """Precision, averaged over the recall that each threshold adds.

    Args:
        positive: `(subject,)`.
        score: `(subject,)`.
        weights: `(resample, subject)`, how often each subject is there.

    Returns:
        `(resample,)`; NaN without a positive.

    Example:
        >>> average_precision(np.array([False, True]), np.array([0.0, 1.0]), np.ones((1, 2)))
        array([1.])
    """
    order = np.argsort(-score, kind="stable")
    # Subjects of equal score pass the threshold together.
    last = np.append(np.diff(score[order]) != 0, True)
    weights = weights[:, order]
    hits = np.cumsum(weights * positive[order], axis=1)[:, last]
    called = np.cumsum(weights, axis=1)[:, last]
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    added = np.diff(hits, axis=1, prepend=0)
    return ratio((precision * added).sum(axis=1), hits[:, -1])


def _statistics(
    codes: Indices, decision: Floats, parts: Sequence[Indices]
) -> dict[str, Callable[[Floats], Floats]]:
    """What needs neither thresholds nor probabilities, as functions of the weights."""
    columns = _one_against_rest(codes, decision)
    predicted = predicted_codes(decision)

    def over_folds(of: Callable[[Indices, Floats], list[Floats]]) -> Callable[[Floats], Floats]:
        def statistic(weights: Floats) -> Floats:
            folds = [mean_of_defined(np.stack(of(r, weights[:, r]), axis=-1)) for r in parts]
            return mean_of_defined(np.stack(folds, axis=-1))

        return statistic

    return {
        "auc": over_folds(lambda r, w: [weighted_auc(p[r], s[r], w) for p, s in columns]),
        "average_precision": over_folds(
            lambda r, w: [average_precision(p[r], s[r], w) for p, s in columns]
        ),
        "balanced_accuracy": over_folds(
            lambda r, w: [share(w, predicted[r] == c, codes[r] == c) for c in np.unique(codes)]
        ),
    }


def _at_thresholds(
    codes: Indices, decision: Floats, parts: Sequence[Indices], used: Sequence[Learned], goal: str
) -> dict[str, Callable[[Floats], Floats]]:
    """Sensitivity and specificity at the thresholds of the training parts."""
    columns = _one_against_rest(codes, decision)

    def side(positive_side: bool) -> Callable[[Floats], Floats]:
        def statistic(weights: Floats) -> Floats:
            folds = []
            for rows, one in zip(parts, used, strict=True):
                shares = [
                    share(
                        weights[:, rows],
                        (s[rows] > t.value) == positive_side,
                        p[rows] == positive_side,
                    )
                    for (p, s), t in zip(columns, one.thresholds[goal], strict=True)
                ]
                folds.append(mean_of_defined(np.stack(shares, axis=-1)))
            return mean_of_defined(np.stack(folds, axis=-1))

        return statistic

    return {f"{goal}: sensitivity": side(True), f"{goal}: specificity": side(False)}


def _brier(columns: Sequence[tuple[Flags, Floats]], weights: Floats) -> Floats:
    errors = np.mean([(p - positive) ** 2 for positive, p in columns], axis=0)
    return ratio(weights @ errors, weights.sum(axis=1))


def _with_intervals(
    statistics: Mapping[str, Callable[[Floats], Floats]],
    codes: Indices,
    persons: Persons | None,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, float | None]]:
    """Each statistic of the subjects, and its 95 % interval by bootstrap over persons."""
    once = np.ones((1, len(codes)))
    drawn: dict[str, list[Floats]] = {name: [] for name in statistics}
    for weights in resampled_persons(codes, persons, resamples, seed):
        for name, statistic in statistics.items():
            drawn[name].append(statistic(weights))
    scores: dict[str, dict[str, float | None]] = {}
    for name, statistic in statistics.items():
        value = float(statistic(once)[0])
        values = np.concatenate(drawn[name])
        values = values[np.isfinite(values)]
        interval = percentiles(values) if len(values) and np.isfinite(value) else None
        scores[name] = {
            "value": value if np.isfinite(value) else None,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "level": LEVEL,
        }
    return scores


def _one_against_rest(codes: Indices, scores: Floats) -> list[tuple[Flags, Floats]]:
    """Who is positive, and the score for it: of the second of two classes, or of each of more."""
    if scores.ndim == 1:
        return [(codes == 1, scores)]
    return [(codes == c, scores[:, c]) for c in range(scores.shape[1])]


def _column(probabilities: Floats) -> Floats:
    """Of two classes the probability of the second."""
    return probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities


def _auc_influence(
    codes: Indices, decision: Floats, fold: Indices | None, persons: Persons | None
) -> tuple[float, Floats, str]:
    """The mean AUC over classes and folds, how much each subject moves it, and what was left out.

    The sum of squares of the influence, summed by person, is DeLong's variance: his structural
    components, less their mean, over the number of their class.
    """
    fold = np.zeros(len(codes), np.intp) if fold is None else fold
    numbers = np.unique(fold).tolist()
    values, each, left_out = [], [], []
    for k in numbers:
        rows = np.flatnonzero(fold == k)
        who = None if persons is None else persons[rows]
        areas = [
            _components(positive, score, who)
            for positive, score in _one_against_rest(codes[rows], decision[rows])
            if positive.any() and not positive.all()
        ]
        if not areas:
            left_out.append(k)
            continue
        influence = np.zeros(len(codes))
        influence[rows] = np.mean([i for _, i in areas], axis=0)
        values.append(float(np.mean([a for a, _ in areas])))
        each.append(influence)
    if not values:
        return float("nan"), np.zeros(len(codes)), "every fold has one class only"
    reason = f"left out, as of one class only: fold {', '.join(map(str, left_out))}"
    return float(np.mean(values)), np.mean(each, axis=0), reason if left_out else ""


def _components(positive: Flags, score: Floats, persons: Persons | None) -> tuple[float, Floats]:
    """The AUC and the influence of each subject on it, from ranks."""
    from scipy.stats import rankdata

    ranks = rankdata(score)
    influence = np.empty(len(score))
    m, n = int(positive.sum()), int((~positive).sum())
    beaten = (ranks[positive] - rankdata(score[positive])) / n
    area = float(beaten.mean())
    beaten_by = 1 - (ranks[~positive] - rankdata(score[~positive])) / m
    for side, values in ((positive, beaten), (~positive, beaten_by)):
        groups = len(values) if persons is None else len(np.unique(persons[side]))
        # With one person on a side nothing tells how much it varies; its part is then too small.
        correction = np.sqrt(groups / (groups - 1)) if groups > 1 else 1.0
        influence[side] = (values - area) / len(values) * correction
    return area, influence


def _standard_error(influence: Floats, persons: Persons | None) -> float:
    if persons is None:
        return float(np.sqrt(np.sum(influence**2)))
    _, who = np.unique(persons, return_inverse=True)
    return float(np.sqrt(np.sum(np.bincount(who, influence) ** 2)))


def _normal_quantile() -> float:
    from scipy.stats import norm

    return float(norm.ppf((1 + LEVEL) / 2))


def _separated(positive: Flags, score: Floats) -> bool:
    """Whether one threshold parts the classes, so that a logistic curve has no finite slope."""
    high, low = score[positive], score[~positive]
    return bool(high.min() >= low.max() or low.min() >= high.max())


def _logistic(
    positive: Flags, columns: Floats, offset: Floats, persons: Persons | None
) -> dict[str, float]:
    """The first coefficient of a logistic regression, with its interval by person.

    Newton's method, without regularisation; the variance is the robust one (sandwich), summed by
    person.
    """
    coefficients = np.zeros(columns.shape[1])
    for _ in range(100):
        p = 0.5 * (1 + np.tanh((columns @ coefficients + offset) / 2))
        bread = np.linalg.pinv((columns * (p * (1 - p))[:, None]).T @ columns)
        step = bread @ (columns.T @ (positive - p))
        step /= max(1.0, float(np.abs(step).max()) / 4)
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-10:
            break
    scores = columns * (positive - p)[:, None]
    if persons is not None:
        _, who = np.unique(persons, return_inverse=True)
        summed = np.zeros((who.max() + 1, columns.shape[1]))
        np.add.at(summed, who, scores)
        scores = summed
    variance = (bread @ (scores.T @ scores) @ bread)[0, 0]
    value, reach = float(coefficients[0]), _normal_quantile() * float(np.sqrt(variance))
    return {"value": value, "low": value - reach, "high": value + reach, "level": LEVEL}


def _macro(each: Sequence[Mapping[str, Any]], name: str) -> Any:
    """A value of every class as one: of two classes as it is, of more their mean, no interval."""
    if len(each) == 1:
        return each[0][name]
    values = [one[name]["value"] for one in each if one[name] is not None]
    if not values:
        return None
    return {"value": float(np.mean(values)), "low": None, "high": None, "level": LEVEL}
