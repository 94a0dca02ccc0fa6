"""What papers report of a classifier beside its AUC: intervals, thresholds, calibration, benefit.

Everything here takes out-of-fold decisions: the scores that test subjects got from a classifier
that did not see them. Measures of order and of decisions (AUC, average precision, balanced
accuracy, sensitivity and specificity) are taken in each fold and averaged, as `evaluate` does,
because the scores of two classifiers have no common scale. Measures of probabilities (Brier score,
calibration, net benefit) are taken of all subjects together. With more than two classes each is
held against the rest and the values are averaged (macro).

Probabilities and thresholds are decided by the training part (`thresholds.learn`), and only applied
to the test part. What cannot be taken is None, and `reasons` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vitaepp.data.arrays import Flags, Floats, Indices
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
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
from vitaepp.evaluation.calibration import ACTED_AT, calibration, net_benefit
from vitaepp.evaluation.delong import delong
from vitaepp.evaluation.scores import one_against_rest, predicted_codes
from vitaepp.evaluation.thresholds import GOALS, Learned


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
        columns = one_against_rest(codes, _column(probabilities))
        statistics["brier"] = lambda w: _brier(columns, w)
    values = _with_intervals(statistics, codes, persons, resamples, seed)
    for name, value in values.items():
        if value["value"] is None:
            reasons[name] = "a class that it needs is in no fold"

    area = delong(codes, decision, fold, persons=persons)
    if "reason" in area:
        reasons["delong"] = area.pop("reason")
    of_class = [positive for positive, _ in one_against_rest(codes, decision)]
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
    columns = one_against_rest(codes, _column(probabilities))
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
    columns = one_against_rest(codes, decision)
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
    columns = one_against_rest(codes, decision)

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


def _column(probabilities: Floats) -> Floats:
    """Of two classes the probability of the second."""
    return probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities


def _macro(each: Sequence[Mapping[str, Any]], name: str) -> Any:
    """A value of every class as one: of two classes as it is, of more their mean, no interval."""
    if len(each) == 1:
        return each[0][name]
    values = [one[name]["value"] for one in each if one[name] is not None]
    if not values:
        return None
    return {"value": float(np.mean(values)), "low": None, "high": None, "level": LEVEL}
