"""From decision scores to probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vitaepp.data.arrays import Flags, Floats, Indices


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
