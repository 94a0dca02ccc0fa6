"""Ordered classes, such as grades: one direction in the features, and a threshold between ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vitaepp.data.arrays import Flags, Floats, Indices, Numbers
from vitaepp.data.participants import Persons
from vitaepp.evaluation.bootstrap import mean_of_defined, ratio, weighted_auc
from vitaepp.evaluation.choice import Loss, choose
from vitaepp.evaluation.front import front
from vitaepp.evaluation.measures import TASKS
from vitaepp.evaluation.regression import weighted as weighted_values

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


#: Values of C that are tried, the strongest regularisation first.
GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

#: Thresholds are coded by this number instead of 1, so that they are hardly regularised.
UNPENALISED = 1e3


@dataclass(frozen=True)
class FittedOrdinal:
    """A threshold model fitted on the whole training part.

    Attributes:
        front: what is done to features first.
        weights: `(feature,)`, the direction.
        thresholds: `(K-1,)`, rising, between neighbouring ranks.
        C: the inverse strength of the regularisation that was chosen.
        loss: on held-out training rows, with this C.
    """

    front: Pipeline
    weights: Floats
    thresholds: Floats
    C: float
    loss: Loss = ()

    @property
    def strength(self) -> float:
        """C."""
        return self.C

    def score(self, features: Numbers) -> Floats:
        """The place of each subject along the direction, `(subject,)`; higher for higher ranks."""
        return np.asarray(
            self.front.transform(features.astype(np.float64, copy=False)) @ self.weights
        )

    def decision(self, features: Numbers) -> Floats:
        """The probability of each class, `(subject, class)`; rows sum to 1."""
        return _probabilities(self.score(features), self.thresholds)


def fit_ordinal(
    features: Numbers,
    codes: Indices,
    *,
    seed: int,
    pca: bool = False,
    persons: Persons | None = None,
) -> FittedOrdinal:
    """Fit a threshold model of ranks, its C chosen on held-out parts of the training rows.

        P(rank > k) = σ(w · x − b_k),   b_0 < b_1 < … < b_{K−2}

    One direction w serves all K − 1 questions "is the rank above k?", which are fitted together as
    one logistic regression (the all-threshold loss). With two classes it is ordinary logistic
    regression. The criterion is the mean log-loss of the K − 1 questions; of equally good values
    the strongest regularisation wins.

    Args:
        features: `(subject, feature)`, training rows only.
        codes: `(subject,)`, their ranks, 0 … K-1, each at least twice.
        seed: draws the held-out parts.
        pca: reduce the features by PCA first, as for raw intensities.
        persons: `(subject,)`, the person of each; unset, every subject is another person.

    Source:
        Rennie and Srebro 2005, "Loss functions for preference levels"; Li and Lin 2006, "Ordinal
        regression by extended binary classification", for the reduction to one classifier.
    """
    x: Floats = features.astype(np.float64, copy=False)

    def losses(inner: Indices, held: Indices) -> list[float]:
        steps = front(x[inner], pca=pca)
        train, test = steps.fit_transform(x[inner]), steps.transform(x[held])
        above = _above(codes[held], int(codes.max()) + 1)
        values = []
        for C in GRID:
            weights, thresholds = _fit(train, codes[inner], C)
            logits = (test @ weights)[:, None] - thresholds
            values.append(float(np.mean(np.logaddexp(0, np.where(above, -logits, logits)))))
        return values

    C, loss = choose(GRID, losses, codes, seed=seed, persons=persons)
    steps = front(x, pca=pca)
    return FittedOrdinal(steps, *_fit(steps.fit_transform(x), codes, C), C, loss)


def ordinal_scores(codes: Indices, probabilities: Floats) -> dict[str, float]:
    """How well ranks are predicted.

    The predicted rank is the median of a subject's probabilities: the highest rank that is reached
    with a probability above one half. Where a score cannot be taken it is NaN: kappa of one rank
    only, a correlation with what is constant, an AUC of one class only.

    Args:
        codes: `(subject,)`, the true rank, 0 … K-1.
        probabilities: `(subject, class)`, as `FittedOrdinal.decision` gives them.

    Returns:
        `kappa`, with quadratic weights; `mae`, the mean distance in ranks; `spearman`, of the
        expected rank; `auc`, the mean over the K − 1 splits into lower and higher ranks;
        `accuracy`.

    Source:
        Cohen 1968, "Weighted kappa".

    Example:
        >>> ordinal_scores(np.array([0, 1, 2]), np.eye(3))["kappa"]
        1.0
    """
    once = np.ones((1, len(codes)))
    names = TASKS["ordinal"].names
    return {metric: float(weighted(metric, codes, probabilities, once)[0]) for metric in names}


def weighted(metric: str, codes: Indices, probabilities: Floats, weights: Floats) -> Floats:
    """A score of `ordinal_scores` with each subject there as often as its weight says.

    Args:
        metric: a name that it gives.
        codes: `(subject,)`, the true rank, 0 … K-1.
        probabilities: `(subject, class)`.
        weights: `(resample, subject)`, counts.

    Returns:
        `(resample,)`; NaN where it is not defined.

    Raises:
        ValueError: it is no such metric.
    """
    higher = np.cumsum(probabilities[:, ::-1], axis=1)[:, ::-1][:, 1:]
    predicted, expected = (higher > 0.5).sum(axis=1), higher.sum(axis=1)
    total = weights.sum(axis=1)
    if metric == "accuracy":
        return ratio(weights @ (codes == predicted).astype(np.float64), total)
    if metric == "mae":
        return ratio(weights @ np.abs(codes - predicted), total)
    if metric == "spearman":
        if np.ptp(expected) <= 1e-12:
            return np.full(len(weights), np.nan)
        return weighted_values("spearman", codes.astype(np.float64), expected, weights)
    if metric == "auc":
        splits = [weighted_auc(codes > k, higher[:, k], weights) for k in range(higher.shape[1])]
        return mean_of_defined(np.stack(splits, axis=-1))
    if metric != "kappa":
        raise ValueError(f"no bootstrap of {metric!r}")
    # One minus the mean squared distance, as a share of what chance with these ranks gives.
    ranks = np.arange(probabilities.shape[1])
    true, rated = (weights @ (v[:, None] == ranks).astype(np.float64) for v in (codes, predicted))
    by_chance = np.einsum("ri,ij,rj->r", true, np.subtract.outer(ranks, ranks) ** 2.0, rated)
    return 1 - ratio(weights @ (codes - predicted) ** 2.0 * total, by_chance)


def _above(codes: Indices, classes: int) -> Flags:
    """Whether each rank is above k, `(subject, K-1)`."""
    return codes[:, None] > np.arange(classes - 1)


def _fit(features: Floats, codes: Indices, C: float) -> tuple[Floats, Floats]:
    """Direction and thresholds: each subject is there K − 1 times, once for each question."""
    from sklearn.linear_model import LogisticRegression

    n, d = features.shape
    if d > n:
        # The direction lies in what the subjects span: the same model with fewer features, sooner.
        span = np.linalg.svd(features, full_matrices=False)[2]
        weights, thresholds = _fit(features @ span.T, codes, C)
        return span.T @ weights, thresholds
    classes = int(codes.max()) + 1
    rows = np.empty((n, classes - 1, d + classes - 1))
    rows[:, :, :d] = features[:, None]
    rows[:, :, d:] = -UNPENALISED * np.eye(classes - 1)
    model = LogisticRegression(C=C, fit_intercept=False, solver="newton-cholesky", max_iter=200)
    model.fit(rows.reshape(-1, d + classes - 1), _above(codes, classes).ravel())
    return model.coef_[0, :d], UNPENALISED * model.coef_[0, d:]


def _probabilities(score: Floats, thresholds: Floats) -> Floats:
    higher = 0.5 * (1 + np.tanh((score[:, None] - thresholds) / 2))
    ones, zeros = np.ones((len(score), 1)), np.zeros((len(score), 1))
    return -np.diff(np.concatenate([ones, higher, zeros], axis=1), axis=1)
