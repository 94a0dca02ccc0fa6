"""How well a risk orders times of follow-up, and what it says over time.

Uno's concordance, the time-dependent AUC, the integrated Brier score, Kaplan-Meier
curves and the log-rank test are scikit-survival's (extra `survival`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vitaepp.data.arrays import Flags, Floats, Indices
from vitaepp.data.participants import Persons
from vitaepp.evaluation.bootstrap import LEVEL, normal_quantile, ratio
from vitaepp.evaluation.cox import Learned
from vitaepp.evaluation.followup import Survival
from vitaepp.system.extras import require

#: Of the event times in the training part: where the time-dependent AUC is taken.
QUANTILES = (0.25, 0.5, 0.75)


def survival_scores(train: Survival, test: Survival, risk: Floats) -> dict[str, float]:
    """How well a risk orders the subjects of a test part; 0.5 is chance, 1 is perfect.

    Where a score cannot be taken, as without an event in the test part, it is NaN.

    Args:
        train: of the training part, which gives the weights of censoring and the times.
        test: of the test part.
        risk: `(test subject,)`, higher for an earlier event.

    Returns:
        `c_index`, Harrell's concordance: of the pairs whose order is known, the share that the
        risk orders rightly; `c_uno`, Uno's, which does not depend on how many are censored; `auc`,
        the mean over `auc_times`, weighted as scikit-survival does, of how well the risk tells
        those who had the event by then from those who had not.

    Source:
        Harrell et al. 1996; Uno et al. 2011; Uno et al. 2007 and Hung and Chiang 2010 for the AUC.
    """
    metrics = require("sksurv.metrics", "survival", "survival needs")
    value, _ = _concordance(test, risk)
    scores = {"c_index": value, "c_uno": np.nan, "auc": np.nan}
    if not np.isfinite(value):
        return scores
    # What lies after the training part's follow-up has no weight of censoring, and counts as
    # censored there.
    seen = _until(test, train.time.max())
    # Uno's weights may leave no pair, where every event of the test part is after the follow-up.
    try:
        uno = metrics.concordance_index_ipcw(train.structured(), seen.structured(), risk)[0]
        scores["c_uno"] = float(uno)
    except ValueError:
        pass
    times = auc_times(train, test)
    if len(times):
        scores["auc"] = float(
            metrics.cumulative_dynamic_auc(train.structured(), seen.structured(), risk, times)[1]
        )
    return scores


def time_dependent_auc(train: Survival, test: Survival, risk: Floats) -> list[dict[str, float]]:
    """The AUC at each of `auc_times`.

    Args:
        train: of the training part, which gives the times and the weights of censoring.
        test: of the test part.
        risk: `(test subject,)`.

    Returns:
        `quantile` of the training part's event times, the `time` there, `auc`, and how many test
        subjects had an event by then (`events`).
    """
    metrics = require("sksurv.metrics", "survival", "survival needs")
    times = auc_times(train, test)
    if not len(times):
        return []
    seen = _until(test, train.time.max())
    each, _ = metrics.cumulative_dynamic_auc(train.structured(), seen.structured(), risk, times)
    quartiles = np.quantile(train.time[train.event], QUANTILES)
    return [
        {
            "quantile": quantile,
            "time": float(t),
            "auc": float(each[np.searchsorted(times, t)]),
            "events": int((test.event & (test.time <= t)).sum()),
        }
        for quantile, t in zip(QUANTILES, quartiles, strict=True)
        if t in times
    ]


def auc_times(train: Survival, test: Survival) -> Floats:
    """Quartiles of the training part's event times, as far as the test part can tell of them.

    At each, some test subjects have had the event, and some have been followed for longer.
    """
    times = np.unique(np.quantile(train.time[train.event], QUANTILES))
    seen = _until(test, train.time.max())
    if not seen.event.any():
        return times[:0]
    return times[(times >= seen.time[seen.event].min()) & (times < seen.time.max())]


def integrated_brier(learned: Learned, test: Survival, risk: Floats) -> tuple[float, float]:
    """The Brier score of predicted survival, averaged over the middle of the event times.

    0 is perfect. From the tenth to the ninetieth percentile of the training part's event times, as
    far as the test part was followed; NaN where these leave no range, or the test part no event.

    Args:
        learned: of the training part.
        test: of the test part.
        risk: `(test subject,)`.

    Returns:
        The score, and that of giving everybody the Kaplan-Meier curve of the training part.

    Source:
        Graf et al. 1999.
    """
    metrics = require("sksurv.metrics", "survival", "survival needs")
    from sksurv.nonparametric import kaplan_meier_estimator

    train = learned.train
    seen = _until(test, train.time.max())
    low, high = np.quantile(train.time[train.event], [0.1, 0.9])
    low, high = max(low, seen.time.min()), min(high, np.nextafter(seen.time.max(), 0))
    if not (low < high and seen.event.any()):
        return float("nan"), float("nan")
    times = np.linspace(low, high, 50)
    at, curve = kaplan_meier_estimator(train.event, train.time)
    everybody = Learned(train, 0.0, at, curve).survival(np.zeros(len(test)), times)
    scores = (
        metrics.integrated_brier_score(train.structured(), seen.structured(), curves, times)
        for curves in (learned.survival(risk, times), everybody)
    )
    own, reference = map(float, scores)
    return own, reference


def over_time(
    learned: Sequence[Learned], test: Survival, risk: Floats, fold: Indices
) -> dict[str, Any]:
    """The time-dependent AUC and the integrated Brier score of each fold's model, over folds.

    Args:
        learned: of the training part of each fold.
        test: all tested subjects.
        risk: `(subject,)`, each by a model that did not see the subject.
        fold: `(subject,)`, in which each was tested.

    Returns:
        `auc`, for each of `QUANTILES` the mean `time`, the mean `auc`, its sample standard
        deviation `std` over folds and in how many `folds` it could be taken; `brier`, with its
        mean `value`, `std`, `folds`, and `reference`, of the training part's Kaplan-Meier curve for
        everybody. Values that no fold gives are None.
    """
    areas: dict[float, list[dict[str, float]]] = {quantile: [] for quantile in QUANTILES}
    briers = []
    for k, one in enumerate(learned):
        rows = fold == k
        for at_quantile in time_dependent_auc(one.train, test[rows], risk[rows]):
            if np.isfinite(at_quantile["auc"]):
                areas[at_quantile["quantile"]].append(at_quantile)
        scores = integrated_brier(one, test[rows], risk[rows])
        if np.isfinite(scores).all():
            briers.append(scores)
    return {
        "auc": [
            {
                "quantile": quantile,
                "time": _mean([one["time"] for one in at_quantile]),
                "auc": _mean([one["auc"] for one in at_quantile]),
                "std": _std([one["auc"] for one in at_quantile]),
                "folds": len(at_quantile),
            }
            for quantile, at_quantile in areas.items()
        ],
        "brier": {
            "value": _mean([own for own, _ in briers]),
            "std": _std([own for own, _ in briers]),
            "reference": _mean([reference for _, reference in briers]),
            "folds": len(briers),
        },
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _std(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def concordance(test: Survival, risk: Floats) -> float:
    """Harrell's concordance; NaN where the order of no pair is known.

    Args:
        test: all tested subjects.
        risk: `(subject,)`, higher for an earlier event.
    """
    return _concordance(test, risk)[0]


def weighted_concordance(times: Survival, risk: Floats, weights: Floats) -> Floats:
    """Harrell's concordance with each subject there as often as its weight says.

    Args:
        times: of the subjects.
        risk: `(subject,)`, higher for an earlier event.
        weights: `(resample, subject)`, counts.

    Returns:
        `(resample,)`; NaN where the order of no pair is known.
    """
    known, right = np.zeros(len(weights)), np.zeros(len(weights))
    for rows, first, wins in _pairs(times, risk):
        known += ((weights[:, rows] @ first.astype(np.float64)) * weights).sum(axis=1)
        right += ((weights[:, rows] @ wins) * weights).sum(axis=1)
    return ratio(right, known)


def concordance_interval(
    test: Survival, risk: Floats, fold: Indices, *, persons: Persons | None = None
) -> dict[str, Any]:
    """Harrell's concordance, the mean over folds, with its 95 % interval.

    Its error is that of the infinitesimal jackknife over persons, as `concordance` of R's package
    survival has it, or that of the spread over folds, if that is larger: a fold of few persons may
    order all of its pairs alike, and then seems to have no error. Models are not fitted anew.

    Args:
        test: all tested subjects.
        risk: `(subject,)`, each by a model that did not see the subject.
        fold: `(subject,)`, in which each was tested.
        persons: `(subject,)`, the person of each; unset, every subject is another person.

    Returns:
        `value`, `se`, `low`, `high`, `level`; `reason` where they are None.

    Source:
        Therneau and Atkinson, "Concordance", vignette of the R package survival.
    """
    who = np.arange(len(test)) if persons is None else np.unique(persons, return_inverse=True)[1]
    values, influence = [], np.zeros(len(test))
    for k in np.unique(fold):
        rows = np.flatnonzero(fold == k)
        value, each = _concordance(test[rows], risk[rows])
        if np.isfinite(value):
            values.append(value)
            influence[rows] = each
    if not values:
        reason = "no pair of subjects whose order is known"
        none = dict.fromkeys(("value", "se", "low", "high"))
        return none | {"level": LEVEL, "reason": reason}
    value = float(np.mean(values))
    se = float(np.sqrt(np.sum(np.bincount(who, influence / len(values)) ** 2)))
    if len(values) > 1:
        se = max(se, float(np.std(values, ddof=1)) / len(values) ** 0.5)
    facts = {"value": value, "se": se, "low": None, "high": None, "level": LEVEL}
    if se == 0:
        return facts | {"reason": "all pairs are ordered alike, or not at all: no interval"}
    reach = normal_quantile() * se
    return facts | {"low": max(0.0, value - reach), "high": min(1.0, value + reach)}


def survival_halves(test: Survival, high: Flags, persons: Persons | None = None) -> dict[str, Any]:
    """Kaplan-Meier curves of those at high and at low risk, and the log-rank test between them.

    The halves of a cross-validation are not independent of each other: the models of one fold have
    seen the subjects of the others. There the p-value is a guide and no test; on subjects that no
    model has seen it is one.

    Args:
        test: all tested subjects.
        high: `(subject,)`, whether the risk is above the median of the training part
            (`FittedSurvival.middle`).
        persons: `(subject,)`, the person of each; the first of a person's subjects counts, because
            the test and the intervals take them for independent. None: each is a person.

    Returns:
        `high` and `low`, each with `n`, `events` and a curve of `time`, `survival`, `low`, `high`
        (95 %, log-log) and `at_risk`, beginning at time 0, or None where nobody is in it; `logrank`
        with `chi2` and `p`, or None with a `reason`.

    Source:
        Kaplan and Meier 1958; Mantel 1966; Simon et al. 2011, "Using cross-validation to evaluate
        predictive accuracy of survival risk classifiers", for the warning.
    """
    require("sksurv", "survival", "survival needs")
    from sksurv.compare import compare_survival

    if persons is not None:
        first = np.sort(np.unique(persons, return_index=True)[1])
        test, high = test[first], high[first]
    facts: dict[str, Any] = {"high": _curve(test[high]), "low": _curve(test[~high])}
    reason = ""
    if high.all() or not high.any():
        reason = "all subjects are in one half"
    elif not test.event.any():
        reason = "no subject has an event"
    if reason:
        return facts | {"logrank": None, "reason": reason}
    try:
        chi2, p = compare_survival(test.structured(), high.astype(np.intp))
    except np.linalg.LinAlgError:
        return facts | {"logrank": None, "reason": "at no event are both halves at risk"}
    return facts | {"logrank": {"chi2": float(chi2), "p": float(p)}}


def _until(times: Survival, end: float) -> Survival:
    """Follow-up that stops before `end`, where the weights of censoring do."""
    end = float(np.nextafter(end, 0))
    return Survival(np.minimum(times.time, end), times.event & (times.time <= end))


def _curve(times: Survival) -> dict[str, Any] | None:
    from sksurv.nonparametric import kaplan_meier_estimator

    if not len(times):
        return None
    at, survival, bounds = kaplan_meier_estimator(
        times.event, times.time, conf_type="log-log", conf_level=LEVEL
    )
    at_risk = [int((times.time >= t).sum()) for t in at]
    return {
        "n": len(times),
        "events": int(times.event.sum()),
        "time": [0.0, *at.tolist()],
        "survival": [1.0, *survival.tolist()],
        "low": [1.0, *bounds[0].tolist()],
        "high": [1.0, *bounds[1].tolist()],
        "at_risk": [len(times), *at_risk],
    }


#: Pairs that are held at once.
PAIRS = 4_000_000


def _concordance(times: Survival, risk: Floats) -> tuple[float, Floats]:
    """Harrell's concordance, and how much each subject moves it; NaN without a pair.

    The order of a pair is known where the earlier of two times ends in the event; of equal times,
    where one is an event and the other censored. Equal risks count half.
    """
    n = len(times)
    known, right = np.zeros(n), np.zeros(n)
    for rows, first, wins in _pairs(times, risk):
        known[rows] += first.sum(axis=1)
        right[rows] += wins.sum(axis=1)
        known += first.sum(axis=0)
        right += wins.sum(axis=0)
    pairs = known.sum() / 2
    if pairs == 0:
        return float("nan"), np.zeros(n)
    value = float(right.sum() / 2 / pairs)
    return value, (right - value * known) / pairs


def _pairs(times: Survival, risk: Floats) -> Iterator[tuple[slice, Flags, Floats]]:
    """Some subjects at a time: of which others each is known to be before, and the risk's share."""
    n = len(times)
    step = max(1, PAIRS // max(n, 1))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        t = times.time[rows, None]
        first = times.event[rows, None] & ((t < times.time) | ((t == times.time) & ~times.event))
        wins = np.where(risk[rows, None] > risk, 1.0, 0.5 * (risk[rows, None] == risk)) * first
        yield rows, first, wins
