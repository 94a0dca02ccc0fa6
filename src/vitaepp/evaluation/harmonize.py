"""Take out of features what differs between sites, by what the training part knows of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[Any]
Sites = npt.NDArray[np.object_]

#: Training subjects of a site that its own mean and deviation need.
LEAST = 5


@dataclass(frozen=True)
class Harmonizer:
    """Centres and scales each feature by site.

    A site with fewer than `LEAST` training subjects, or with none, is centred and scaled by the
    whole training part: what is not known of a site is not guessed from its test subjects.

    Attributes:
        known: mean and deviation of each site.
        whole: of the whole training part.
    """

    known: dict[str, tuple[Features, Features]]
    whole: tuple[Features, Features]

    @classmethod
    def fit(cls, features: Features, sites: Sites) -> Harmonizer:
        """Means and deviations of training subjects.

        Args:
            features: `(subject, feature)`.
            sites: `(subject,)`.
        """
        names, counts = np.unique(sites.astype(str), return_counts=True)
        known = {n: _moments(features[sites == n]) for n in names[counts >= LEAST]}
        return cls(known, _moments(features))

    def __call__(self, features: Features, sites: Sites) -> Features:
        """Features without what their sites have in common.

        Args:
            features: `(subject, feature)`.
            sites: `(subject,)`.
        """
        harmonized = np.empty(features.shape, np.float64)
        for name in np.unique(sites.astype(str)):
            rows = sites == name
            mean, deviation = self.known.get(name, self.whole)
            harmonized[rows] = (features[rows] - mean) / deviation
        return harmonized


def _moments(features: Features) -> tuple[Features, Features]:
    features = features.astype(np.float64)
    deviation = features.std(axis=0)
    return features.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
