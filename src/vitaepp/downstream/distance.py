"""How far a scan is from the subjects of a cohort.

The features of a cohort vary in few directions. A scan of another kind (another contrast, upside
down, blurred, with noise) leaves them: what its features have outside the cohort's leading
principal components is large. That is its distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Floats, Numbers
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
from vitaepp.system.progress import counted

#: So many principal components do not count; of few subjects or features, half as many as these.
COMPONENTS = 64

#: The cohort's own distances are measured on so many parts, each left out in turn.
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Cohort:
    """The features of a cohort, and how far its own subjects are from the rest of it.

    Attributes:
        features: `(subject, feature)`.
        fold: `(subject,)`, the part that each is in. A person's images are in one part.
        own: `(subject,)`, each subject's distance to the other parts.
        means: `(fold, feature)`, of the features without each part.
        scales: `(fold, feature)`, their deviations.
        directions: `(fold, component, feature)`, principal components of the standardised features
            without each part; orthonormal.

    Source:
        The residual of process monitoring (Jackson and Mudholkar 1979), compared with left-out
        subjects as in cross-conformal prediction (Vovk 2015).
    """

    features: npt.NDArray[np.float32]
    fold: npt.NDArray[np.int64]
    own: Floats
    means: npt.NDArray[np.float32]
    scales: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float32]

    @classmethod
    def of(cls, features: npt.NDArray[np.float32], persons: Persons) -> Cohort:
        """Measure each subject's distance to the others, as if it were a new one.

        Args:
            features: `(subject, feature)`.
            persons: `(subject,)`, the person of each; a person's images are left out together.

        Raises:
            EvaluationError: all are of one person.
        """
        unique = np.unique(persons)
        if len(unique) < 2:
            raise EvaluationError(
                f"{counted(len(features), 'subject')} of {counted(len(unique), 'person')}: a "
                "distance to others needs two persons or more"
            )
        order = np.random.default_rng(0).permutation(len(unique))
        fold = (order % min(FOLDS, len(unique)))[np.searchsorted(unique, persons)]
        sizes = np.bincount(fold)
        components = min(COMPONENTS, int(len(fold) - sizes.max()) // 2, features.shape[1] // 2)
        own = np.empty(len(features))
        spaces = []
        for k in range(len(sizes)):
            spaces.append(_space(features[fold != k], components))
            own[fold == k] = _outside(features[fold == k], *spaces[k])
        return cls(features, fold, own, *(np.stack(parts) for parts in zip(*spaces, strict=True)))

    def distances(self, features: Numbers) -> Floats:
        """How far new subjects are from the cohort without each of its parts.

        Args:
            features: `(subject, feature)`.

        Returns:
            `(fold, subject)`, in units of the features' deviation.
        """
        spaces = zip(self.means, self.scales, self.directions, strict=True)
        return np.stack([_outside(features, *space) for space in spaces])

    def percentiles(self, features: Numbers) -> Floats:
        """The share of the cohort that is nearer to the rest of it than new subjects are, in %.

        Each of the cohort is compared with the new subject's distance to what the cohort is
        without that one's part. A new subject of the same kind has any percentile alike.

        Args:
            features: `(subject, feature)`.
        """
        nearer = np.zeros(len(features))
        for k, distances in enumerate(self.distances(features)):
            nearer += np.searchsorted(np.sort(self.own[self.fold == k]), distances)
        return nearer * 100 / len(self.own)


def _space(features: Numbers, components: int) -> tuple[Numbers, Numbers, Numbers]:
    """Mean and deviation of features, and the directions in which they vary most.

    They are of single precision, as they are kept.
    """
    from scipy.linalg import eigh

    values = features.astype(np.float64)
    mean, variance = values.mean(axis=0), values.var(axis=0)
    # A feature that the cohort hardly varies in, such as an edge that one subject has, must not
    # decide alone.
    scale = np.sqrt(np.maximum(variance, 1e-2 * float(variance.mean()) or 1.0))
    z = (values - mean) / scale
    count, width = z.shape
    kept = np.empty((0, width))
    if components:
        wide = width > count
        gram = z @ z.T if wide else z.T @ z
        last = len(gram) - 1
        squares, vectors = eigh(gram, subset_by_index=[last - components + 1, last])
        kept = vectors.T
        if wide:
            there = squares > 1e-10 * max(float(squares[-1]), 1e-300)
            lengths = np.sqrt(np.where(there, squares, 1.0))
            kept = np.where(there[:, None], (vectors / lengths).T @ z, 0.0)
    return mean.astype(np.float32), scale.astype(np.float32), kept.astype(np.float32)


def _outside(features: Numbers, mean: Numbers, scale: Numbers, directions: Numbers) -> Floats:
    """The length of what standardised features have outside some directions."""
    z = (features.astype(np.float64) - mean) / scale
    inside = z @ directions.T.astype(np.float64)
    return np.sqrt(np.maximum((z**2).sum(axis=1) - (inside**2).sum(axis=1), 0))
