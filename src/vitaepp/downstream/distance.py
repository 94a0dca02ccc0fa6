"""How far a scan is from the subjects that a classifier was fitted on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitaepp.data.participants import Persons

Floats = npt.NDArray[np.float64]

#: The distance to a cohort is the mean of the distances to so many of its nearest subjects.
NEIGHBOURS = 5

#: Rows whose distances are computed at a time.
ROWS = 512


@dataclass(frozen=True, eq=False)
class Cohort:
    """The features of the subjects that a classifier was fitted on.

    Attributes:
        features: `(subject, feature)`.
        own: `(subject,)`, each subject's distance to all others, in ascending order.
    """

    features: npt.NDArray[np.float32]
    own: Floats

    @classmethod
    def of(cls, features: npt.NDArray[np.float32], persons: Persons) -> Cohort:
        """Measure each subject's distance to the others, as if it were a new one.

        It is left out of the features' spread as well as of the neighbours, so that a new subject
        of the same kind has any percentile with equal probability.

        Args:
            features: `(subject, feature)`.
            persons: `(subject,)`, the person of each; a person's other images are left out, too.
        """
        values = features.astype(np.float64)
        count = len(values)
        off = values - values.mean(axis=0)
        # The variance without a subject, from that with it.
        total = (off**2).sum(axis=0)
        without = (total - off**2 * count / (count - 1)) / (count - 1)
        own = _distances(off, without, off, persons, persons)
        return cls(features, np.sort(own))

    def percentiles(self, features: npt.NDArray[np.floating]) -> Floats:
        """The share of the cohort that is nearer to the rest of it than new subjects are, in %.

        Args:
            features: `(subject, feature)`.
        """
        values = self.features.astype(np.float64)
        mean, variance = values.mean(axis=0), values.var(axis=0)
        new = features.astype(np.float64) - mean
        found = _distances(new, np.broadcast_to(variance, new.shape), values - mean)
        return np.searchsorted(self.own, found) * 100 / len(self.own)


def _distances(
    rows: Floats,
    variances: Floats,
    cohort: Floats,
    persons: Persons | None = None,
    others: Persons | None = None,
) -> Floats:
    """The distance of each row to a cohort, in units of the features' deviation.

    Args:
        rows: `(row, feature)`.
        variances: `(row, feature)`, of the cohort as each row sees it.
        cohort: `(subject, feature)`.
        persons: `(row,)`, the person of each row, whose own images do not count.
        others: `(subject,)`, the person of each subject.
    """
    # A feature that the cohort does not vary in must not make every distance infinite.
    least = 1e-6 * float(np.mean(cohort.var(axis=0))) or 1.0
    found = []
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        weights = 1 / np.maximum(variances[part], least)
        weighted = weights * rows[part]
        squares = (weighted * rows[part]).sum(axis=1, keepdims=True)
        squares = squares - 2 * weighted @ cohort.T + weights @ (cohort**2).T
        if persons is not None and others is not None:
            squares[persons[part][:, None] == others[None]] = np.inf
        distances = np.sqrt(np.maximum(squares, 0))
        nearest = np.sort(distances, axis=1)[:, :NEIGHBOURS]
        finite = np.isfinite(nearest)
        found.append(np.where(finite, nearest, 0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1))
    return np.concatenate(found) if found else np.empty(0)
