"""Probabilities: from decision scores, how true they are, and what acting on them gains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vitaepp.data.arrays import Flags, Floats, Indices
from vitaepp.data.participants import Persons
from vitaepp.evaluation.bootstrap import LEVEL, normal_quantile

#: Groups of equal size, by probability, of a calibration curve, and the fewest subjects in one.
BINS, BIN_MEMBERS = 10, 5

#: Probabilities of a decision curve, at which somebody would act.
ACTED_AT = np.round(np.arange(0.01, 1.0, 0.01), 2)


@dataclass(frozen=True)
class Calibration:
    """A logistic curve for each decision score (Platt scaling).

    Attributes:
        slopes: of each class, or of the second of two; never below 0, so that a higher score is
            never a lower probability.
        intercepts: of the same.
    """

    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]

    @classmethod
    def of(cls, codes: Indices, decision: Floats) -> Calibration:
        """Fit the curves to scores of subjects that the classifier was not fitted on.

        Args:
            codes: `(subject,)`, the true class.
            decision: `(subject,)` for two classes, `(subject, class)` for more.

        Source:
            Platt 1999, Probabilistic outputs for support vector machines; its targets keep the
            probabilities of few subjects away from 0 and 1.
        """
        if decision.ndim == 1:
            curves = [_curve(decision, codes == 1)]
        else:
            curves = [_curve(decision[:, c], codes == c) for c in range(decision.shape[1])]
        slopes, intercepts = zip(*curves, strict=True)
        return cls(slopes, intercepts)

    def probabilities(self, decision: Floats) -> Floats:
        """The probability of each class, `(subject, class)`; rows sum to 1."""
        scores = decision[:, None] if decision.ndim == 1 else decision
        logits = scores * np.array(self.slopes) + np.array(self.intercepts)
        each = 0.5 * (1 + np.tanh(logits / 2))  # the logistic function, without overflow
        if decision.ndim == 1:
            return np.concatenate([1 - each, each], axis=1)
        return np.asarray(each / each.sum(axis=1, keepdims=True))


def _curve(scores: Floats, positive: Flags) -> tuple[float, float]:
    """Slope and intercept of one curve."""
    from sklearn.linear_model import LogisticRegression

    n1, n0 = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    scale = float(np.std(scores)) or 1.0
    # Each subject is there twice, as both classes, with the weights of its target.
    column = np.concatenate([scores, scores])[:, None] / scale
    sides = np.repeat([1, 0], len(scores))
    curve: Any = LogisticRegression(C=1e6, max_iter=1000)
    curve.fit(column, sides, sample_weight=np.concatenate([target, 1 - target]))
    slope, intercept = float(curve.coef_[0, 0]) / scale, float(curve.intercept_[0])
    if slope > 0:
        return slope, intercept
    mean = float(target.mean())  # the scores tell nothing
    return 0.0, float(np.log(mean / (1 - mean)))


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
    value, reach = float(coefficients[0]), normal_quantile() * float(np.sqrt(variance))
    return {"value": value, "low": value - reach, "high": value + reach, "level": LEVEL}
