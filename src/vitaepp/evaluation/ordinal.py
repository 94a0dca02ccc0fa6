"""Ordered classes, such as grades: one direction in the features, and a threshold between ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vitaepp.data.arrays import Flags, Floats, Indices, Numbers
from vitaepp.data.participants import Persons
from vitaepp.evaluation.choice import Loss, choose
from vitaepp.evaluation.front import front
from vitaepp.evaluation.scores import auc

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
    from scipy.stats import spearmanr

    classes = probabilities.shape[1]
    higher = np.cumsum(probabilities[:, ::-1], axis=1)[:, ::-1][:, 1:]
    predicted = (higher > 0.5).sum(axis=1)
    expected = higher.sum(axis=1)
    varied = np.ptp(codes) > 0 and np.ptp(expected) > 1e-12
    splits = [
        auc(codes > k, higher[:, k]) for k in range(classes - 1) if 0 < (codes > k).mean() < 1
    ]
    return {
        "kappa": _quadratic_kappa(codes, predicted, classes),
        "mae": float(np.abs(codes - predicted).mean()),
        "spearman": float(spearmanr(codes, expected).statistic) if varied else float("nan"),
        "auc": float(np.mean(splits)) if splits else float("nan"),
        "accuracy": float((codes == predicted).mean()),
    }


def _quadratic_kappa(codes: Indices, predicted: Indices, classes: int) -> float:
    """One minus the mean squared distance, as a share of what chance with these ranks gives."""
    by_chance = np.subtract.outer(np.arange(classes), np.arange(classes)) ** 2
    shares = [np.bincount(ranks, minlength=classes) / len(codes) for ranks in (codes, predicted)]
    chance = float(shares[0] @ by_chance @ shares[1])
    return 1 - float(np.mean((codes - predicted) ** 2)) / chance if chance > 0 else float("nan")


def _above(codes: Indices, classes: int) -> Flags:
    """Whether each rank is above k, `(subject, K-1)`."""
    return codes[:, None] > np.arange(classes - 1)


def _fit(features: Floats, codes: Indices, C: float) -> tuple[Floats, Floats]:
    """Direction and thresholds: each subject is there K − 1 times, once for each question."""
    from sklearn.linear_model import LogisticRegression

    n, d = features.shape
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
