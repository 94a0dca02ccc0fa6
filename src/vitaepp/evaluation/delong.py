"""The AUC with DeLong's variance: an interval of one, and a test of two."""

from __future__ import annotations

from typing import Any

import numpy as np

from vitaepp.data.arrays import Flags, Floats, Indices
from vitaepp.data.participants import Persons
from vitaepp.evaluation.bootstrap import LEVEL, normal_quantile
from vitaepp.evaluation.scores import one_against_rest


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
    reach = normal_quantile() * se
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
    z, reach = (one - other) / se, normal_quantile() * se
    facts |= {"se": se, "low": one - other - reach, "high": one - other + reach, "z": float(z)}
    return facts | {"p": float(2 * norm.sf(abs(z)))} | ({"reason": reason} if reason else {})


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
            for positive, score in one_against_rest(codes[rows], decision[rows])
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
