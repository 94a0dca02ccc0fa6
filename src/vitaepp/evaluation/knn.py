"""Nearest neighbours: what an embedding says of a subject by those that lie closest to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vitaepp.data.arrays import Floats, Indices, Numbers
from vitaepp.data.participants import Persons
from vitaepp.evaluation.choice import Loss, choose
from vitaepp.evaluation.front import reduction
from vitaepp.evaluation.scores import auc

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


#: Numbers of neighbours that are tried, as far as there are subjects; the most first, because they
#: smooth the most.
GRID = (200, 100, 50, 20, 10, 5, 3, 1)

#: A neighbour counts exp(cosine / TEMPERATURE), as for DINO.
TEMPERATURE = 0.07


@dataclass(frozen=True)
class Neighbours:
    """A k-nearest-neighbour classifier of the whole training part.

    Attributes:
        model: the scikit-learn pipeline.
        k: the number of neighbours that was chosen.
        loss: on held-out training rows, with this k.
    """

    model: Pipeline
    k: int
    loss: Loss = ()

    @property
    def strength(self) -> float:
        """The number of neighbours."""
        return float(self.k)

    def decision(self, features: Numbers) -> Floats:
        """The share of the neighbours' weight that each class has, `(subject, class)`.

        With two classes it is the second's share minus one half, `(subject,)`: above zero where
        the second has the majority.
        """
        shares = np.asarray(self.model.predict_proba(features.astype(np.float64, copy=False)))
        return shares[:, 1] - 0.5 if shares.shape[1] == 2 else shares


def fit_knn(
    features: Numbers,
    codes: Indices,
    *,
    seed: int,
    pca: bool = False,
    persons: Persons | None = None,
) -> Neighbours:
    """Choose k on held-out parts of the training rows, then keep all of them as neighbours.

    Features are centred on the training mean and compared by their cosine. They are not
    standardised: that would give a feature that hardly varies the same say as any other. The
    criterion is AUC; of equally good k the largest wins.

    Args:
        features: `(subject, feature)`, training rows only.
        codes: `(subject,)`, their classes, 0 … K-1, each at least twice.
        seed: draws the held-out parts.
        pca: reduce the features by PCA first, as for raw intensities.
        persons: `(subject,)`, the person of each; unset, every subject is another person.

    Source:
        Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination",
        section 3.4, for the weights; Caron et al. 2021 (DINO) for the temperature.
    """
    x: Floats = features.astype(np.float64, copy=False)
    grid = [k for k in GRID if k < len(codes) // 2] or [1]

    def losses(inner: Indices, held: Indices) -> list[float]:
        front = _front(x[inner], pca)
        front.fit(x[inner])
        shares = _shares(front.transform(x[inner]), codes[inner], front.transform(x[held]), grid)
        return [-_macro_auc(codes[held], one) for one in shares]

    k, loss = choose(grid, losses, codes, seed=seed, persons=persons)
    from sklearn.neighbors import KNeighborsClassifier

    model = _front(x, pca)
    model.steps.append(
        (
            "classifier",
            KNeighborsClassifier(k, weights=_weights, metric="cosine", algorithm="brute"),
        )
    )
    return Neighbours(model.fit(x, codes), k, loss)


def _front(features: Floats, pca: bool) -> Pipeline:
    """Centring, of raw intensities by PCA."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(reduction(features) if pca else StandardScaler(with_std=False))


def _weights(distances: Floats) -> Floats:
    """Of neighbours at cosine distances, relative to the nearest, so that none underflows."""
    return np.exp((distances.min(axis=1, keepdims=True) - distances) / TEMPERATURE)


def _shares(train: Floats, codes: Indices, test: Floats, grid: list[int]) -> list[Floats]:
    """For each k the share of each class, `(subject, class)`, from one search."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(max(grid), len(train)), metric="cosine")
    distances, neighbours = search.fit(train).kneighbors(test)
    weights = _weights(distances)[..., None] * np.eye(codes.max() + 1)[codes[neighbours]]
    total = np.cumsum(weights, axis=1)
    each = [total[:, min(k, len(train)) - 1] for k in grid]
    return [one / one.sum(axis=1, keepdims=True) for one in each]


def _macro_auc(codes: Indices, shares: Floats) -> float:
    return float(np.mean([auc(codes == c, shares[:, c]) for c in np.unique(codes)]))
