"""Survival: time and event columns, Cox regression with ridge, and how well its risk orders.

Cox regression, Uno's concordance, the time-dependent AUC, the integrated Brier score, Kaplan-Meier
curves and the log-rank test are scikit-survival's (extra `survival`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.arrays import Flags, Floats, Indices, Numbers
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError, nearest
from vitaepp.evaluation.bootstrap import LEVEL, ratio
from vitaepp.evaluation.choice import Loss, choose
from vitaepp.evaluation.front import front
from vitaepp.system.extras import require
from vitaepp.system.progress import counted

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


#: What a cell of an event column may say, in small letters.
EVENT = frozenset({"1", "true", "yes", "y", "t", "dead", "died", "deceased", "death", "event"})
NO_EVENT = frozenset({"0", "false", "no", "n", "f", "alive", "living", "censored", "none"})

#: Of these words, those that do not say of what; and words in a column's name that say of none.
UNSAID = frozenset({"1", "true", "yes", "y", "t", "0", "false", "no", "n", "f"})
NO_EVENT_NAMES = frozenset(
    {"censor", "censored", "censoring", "alive", "living", "survived", "survivor", "lost"}
)

#: Strengths that are tried, the strongest first, times the number of features: alpha of the ridge.
GRID = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)

#: Of the event times in the training part: where the time-dependent AUC is taken.
QUANTILES = (0.25, 0.5, 0.75)

#: Fewest persons with an event that a model is fitted on.
EVENTS = 5


@dataclass(frozen=True)
class Survival:
    """Who was followed for how long, and whether the event came.

    Attributes:
        time: `(subject,)`, until the event or the end of follow-up, any unit, above zero.
        event: `(subject,)`, whether the event came; otherwise the subject is censored.
    """

    time: Floats
    event: Flags

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, rows: Any) -> Survival:
        """Those of some rows."""
        return Survival(self.time[rows], self.event[rows])

    def structured(self) -> Any:
        """As scikit-survival has it."""
        return require("sksurv.util", "survival", "survival needs").Surv.from_arrays(
            self.event, self.time
        )


@dataclass(frozen=True)
class FittedSurvival:
    """A Cox regression fitted on the whole training part.

    Attributes:
        model: the scikit-learn pipeline.
        alpha: the strength of its ridge that was chosen.
        middle: the median risk of the training part, which parts the halves of others.
        loss: on held-out training rows, with this alpha.
    """

    model: Pipeline
    alpha: float
    middle: float
    loss: Loss = ()

    @property
    def strength(self) -> float:
        """alpha."""
        return self.alpha

    def decision(self, features: Numbers) -> Floats:
        """The log relative hazard of each, `(subject,)`: higher is earlier."""
        return np.asarray(self.model.predict(features.astype(np.float64, copy=False)), np.float64)

    def learned(self, train: Survival) -> Learned:
        """What its training part says of others beside their risk."""
        baseline = self.model[-1].baseline_survival_
        return Learned(train, self.middle, np.asarray(baseline.x), np.asarray(baseline.y))


@dataclass(frozen=True)
class Learned:
    """What a training part decides for its test part.

    Attributes:
        train: its times.
        middle: the median of its risks.
        at: `(time,)`, rising, where the baseline curve steps.
        curve: `(time,)`, the probability of no event until then of a subject whose risk is 0.
    """

    train: Survival
    middle: float
    at: Floats
    curve: Floats

    def survival(self, risk: Floats, times: Floats) -> Floats:
        """The probability of no event until each time, `(subject, time)`.

        Before the first time of the training part it is 1; after its last, that of the last.
        """
        index = np.searchsorted(self.at, times, side="right")
        return np.power(np.concatenate([[1.0], self.curve])[index], np.exp(risk)[:, None])


def read_survival(table: pd.DataFrame, time: str, event: str) -> tuple[Indices, Survival]:
    """Take two columns of a table as survival.

    Args:
        table: one row a subject.
        time: column of times until the event or the end of follow-up, in any unit, above zero.
        event: column of 0 and 1, true and false, yes and no, dead and alive, event and censored.

    Returns:
        The rows where neither is empty, and what they hold.

    Raises:
        EvaluationError: no such column; a time that is negative, zero or no number; an event that
            is none of these words; events of one kind only.
    """
    for name in (time, event):
        if name not in table.columns:
            hint = nearest(name, [str(c) for c in table.columns if c not in ("subject", "split")])
            raise EvaluationError(f"no column {name!r} for survival; {hint}")
    times, events = (_texts(table[name]) for name in (time, event))
    rows = np.flatnonzero((times != "") & (events != ""))
    if not len(rows):
        raise EvaluationError(f"no subject has both {time!r} and {event!r}; both are needed")
    subjects = table["subject"].to_numpy() if "subject" in table else np.arange(len(table))
    numbers = pd.to_numeric(pd.Series(times[rows]), errors="coerce").to_numpy(np.float64)
    wrong = rows[~(np.isfinite(numbers) & (numbers > 0))]
    if len(wrong):
        first = wrong[0]
        raise EvaluationError(
            f"time {time!r}: {times[first]!r} of subject {subjects[first]} is no time above 0 "
            f"({counted(len(wrong), 'such subject')}); give the time from the image to the event "
            "or to the end of follow-up, or leave the cell empty"
        )
    words = np.array([_word(text) for text in events[rows]], object)
    unknown = rows[[word not in EVENT | NO_EVENT for word in words]]
    if len(unknown):
        first = unknown[0]
        raise EvaluationError(
            f"event {event!r}: {events[first]!r} of subject {subjects[first]} is neither an event "
            f"nor none ({counted(len(unknown), 'such subject')}); give 1 for an event and 0 for "
            "censored, or dead and alive"
        )
    happened = np.array([word in EVENT for word in words], np.bool_)
    if not happened.any():
        raise EvaluationError(
            f"event {event!r}: none of {counted(len(rows), 'subject')} has an event; survival "
            "needs some: check which value means the event"
        )
    if len(set(numbers)) == 1:
        raise EvaluationError(
            f"time {time!r}: all {counted(len(rows), 'subject')} have the same time "
            f"{numbers[0]:g}; survival needs times that differ"
        )
    return rows, Survival(numbers, happened)


def survival_doubts(survival: Survival, event: str, words: Sequence[str] = ()) -> list[str]:
    """What to ask about events that may not be meant as they are written, a line each.

    Args:
        survival: as `read_survival` gives it.
        event: the column, for the message.
        words: what it says of each subject, as `event_words` gives them.
    """
    lines = []
    if survival.event.all():
        lines.append(
            f"event {event!r}: all {counted(len(survival), 'subject')} have an event, none is "
            "censored; if some were without one at the end of follow-up, give these 0"
        )
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", event)
    named = {*re.findall(r"[a-z]+", spaced.lower())} & NO_EVENT_NAMES
    if named and {*words} <= UNSAID:
        yes = next((word for word in words if word in EVENT), "1")
        lines.append(
            f"event {event!r}: {yes} counts as an event, but the column is called {min(named)}; "
            "if it says who had none, turn it round"
        )
    if count := sum(word == "none" for word in words):
        lines.append(
            f"event {event!r}: 'none' ({counted(count, 'subject')}) counts as censored; if it "
            "means missing, leave these cells empty"
        )
    return lines


def event_words(column: pd.Series) -> list[str]:
    """What the cells of an event column say, in small letters; 1.0 is 1."""
    return [_word(text) for text in _texts(column)]


def fit_survival(
    features: Numbers,
    time: Floats,
    event: Flags,
    *,
    seed: int,
    pca: bool = False,
    persons: Persons | None = None,
) -> FittedSurvival:
    """Cox regression with ridge, its strength chosen on held-out parts of the training rows.

    Ties are Efron's. The criterion is the cross-validated partial likelihood: by how much the held
    out subjects raise the log partial likelihood of all. Of equally good values the strongest
    regularisation wins.

    Args:
        features: `(subject, feature)`, training rows only.
        time: `(subject,)`, above zero.
        event: `(subject,)`.
        seed: draws the held-out parts.
        pca: reduce the features by PCA first, as for raw intensities.
        persons: `(subject,)`, the person of each; unset, every subject is another person.

    Raises:
        MissingPackageError: the extra `survival` is not installed.
        EvaluationError: fewer than five persons with an event.

    Source:
        Cox 1972; Verweij and van Houwelingen 1993, "Cross-validation in survival analysis", for the
        criterion, and 1994, "Penalized likelihood in Cox regression".
    """
    require("sksurv", "survival", "survival needs")
    x: Floats = features.astype(np.float64, copy=False)
    times = Survival(time.astype(np.float64, copy=False), event.astype(np.bool_, copy=False))
    who = np.arange(len(time)) if persons is None else persons
    if (few := len(np.unique(who[times.event]))) < EVENTS:
        raise EvaluationError(
            f"{counted(few, 'participant')} with an event to fit on; Cox regression needs at least "
            f"{EVENTS}: follow up longer, join parts, or ask for fewer `folds`"
        )

    def losses(inner: Indices, held: Indices) -> list[float]:
        values = []
        for model in _fit_grid(x[inner], times[inner], GRID, pca):
            risk = np.asarray(model.predict(x), np.float64)
            gained = _log_likelihood(times, risk) - _log_likelihood(times[inner], risk[inner])
            values.append(-gained / max(1, int(times.event[held].sum())))
        return values

    # Of a single censored person none could be held out and another fitted on.
    both = len(np.unique(who[~times.event])) > 1
    strata = times.event.astype(np.intp) if both else np.zeros(len(times), np.intp)
    best, loss = choose(GRID, losses, strata, seed=seed, persons=persons)
    model = _fit_grid(x, times, (best,), pca)[0]
    middle = float(np.median(model.predict(x)))
    return FittedSurvival(model, float(model[-1].alpha), middle, loss)


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

    Of the infinitesimal jackknife over persons, as `concordance` of R's package survival; models
    are not fitted anew.

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
    from scipy.stats import norm

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
        return {
            "value": None,
            "se": None,
            "low": None,
            "high": None,
            "level": LEVEL,
            "reason": reason,
        }
    value = float(np.mean(values))
    se = float(np.sqrt(np.sum(np.bincount(who, influence / len(values)) ** 2)))
    facts = {"value": value, "se": se, "low": None, "high": None, "level": LEVEL}
    if se == 0:
        return facts | {"reason": "all pairs are ordered alike, or not at all: no interval"}
    reach = float(norm.ppf((1 + LEVEL) / 2)) * se
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


def _texts(column: pd.Series) -> npt.NDArray[np.object_]:
    """Cells as text, empty where they are missing."""
    cells = column.astype(object).where(column.notna(), "")
    texts = cells.astype(str).str.strip().to_numpy(object)
    return np.array(["" if t.lower() in ("nan", "na", "<na>") else t for t in texts], object)


def _word(text: str) -> str:
    """A cell of an event column in small letters, and 1.0 as 1."""
    word = text.casefold()
    return word[:-2] if word in ("0.0", "1.0") else word


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


def _log_likelihood(times: Survival, risk: Floats) -> float:
    """The log partial likelihood of a risk, ties as Breslow's."""
    order = np.argsort(-times.time, kind="stable")
    time, event, risk = times.time[order], times.event[order], risk[order]
    at_risk = np.logaddexp.accumulate(risk)
    # All of one time are at risk together: the last of them in this order has the sum.
    last = len(time) - 1 - np.searchsorted(time[::-1], time, side="left")
    return float(np.sum((risk - at_risk[last])[event]))


def _fit_grid(
    features: Floats, times: Survival, grid: Sequence[float], pca: bool
) -> list[Pipeline]:
    """A Cox regression for each strength; what comes before it is the same and fitted once."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import Pipeline
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    steps = front(features, pca=pca)
    reduced = steps.fit_transform(features)
    n, d = reduced.shape
    if d >= n:
        # Ridge does not change under rotation, and n subjects span n - 1 directions: the same
        # model, many times faster.
        rotation = PCA(n - 1, svd_solver="full")
        reduced = rotation.fit_transform(reduced)
        steps.steps.append(("rotation", rotation))
    fitted = []
    for strength in grid:
        cox = CoxPHSurvivalAnalysis(alpha=strength * d, ties="efron")
        cox.fit(reduced, times.structured())
        fitted.append(Pipeline([*steps.steps, ("cox", cox)]))
    return fitted
