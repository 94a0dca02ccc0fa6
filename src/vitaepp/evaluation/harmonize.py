"""Take out of features what differs between sites, by what the training part knows of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.errors import EvaluationError, nearest
from vitaepp.system.progress import counted

Features = npt.NDArray[Any]
Sites = npt.NDArray[np.object_]

#: Training subjects of a site that its own mean and deviation need.
LEAST = 5

#: Ways to harmonise.
SCALE, COMBAT = "scale", "combat"


def harmonization(harmonize: bool | str) -> str:
    """The way that was asked for, `scale` or `combat`; empty for none.

    Raises:
        EvaluationError: there is no such way.
    """
    if isinstance(harmonize, bool):
        return SCALE if harmonize else ""
    if harmonize not in (SCALE, COMBAT):
        raise EvaluationError(f"`harmonize={harmonize}`: {nearest(harmonize, (SCALE, COMBAT))}")
    return harmonize


def known_sites(sites: Sites) -> list[Any]:
    """The sites of training subjects that have `LEAST` of them, texts or numbers as given."""
    names, counts = np.unique(sites, return_counts=True)
    return list(names[counts >= LEAST])


@dataclass(frozen=True)
class Scaling:
    """Centres and scales each feature by site.

    A site with fewer than `LEAST` training subjects, or with none, is centred and scaled by the
    whole training part: what is not known of a site is not guessed from its test subjects.

    Attributes:
        known: mean and deviation of each site.
        whole: of the whole training part.
    """

    known: dict[Any, tuple[Features, Features]]
    whole: tuple[Features, Features]

    @classmethod
    def fit(cls, features: Features, sites: Sites) -> Scaling:
        """Means and deviations of training subjects."""
        known = {name: _moments(features[sites == name]) for name in known_sites(sites)}
        return cls(known, _moments(features))

    def __call__(self, features: Features, sites: Sites) -> Features:
        """Features without what their sites have in common.

        Args:
            features: `(subject, feature)`.
            sites: `(subject,)`.
        """
        harmonized = np.empty(features.shape, np.float64)
        for name in np.unique(sites):
            rows = sites == name
            mean, deviation = self.known.get(name, self.whole)
            harmonized[rows] = (features[rows] - mean) / deviation
        return harmonized


@dataclass(frozen=True)
class ComBat:
    """Moves each site to what all have in common, by empirical Bayes over features.

    A site with fewer than `LEAST` training subjects, or with none, stays as it is; so does a
    feature that is constant at a site, as in sva's ComBat.

    Attributes:
        varies: `(feature,)`, those that are moved, V of them.
        center: `(V,)`, mean of the training subjects of all sites.
        spread: `(V,)`, their deviation within sites.
        moves: of each site, the shift and the variance `(V,)` of what is centred and scaled so.

    Source:
        Johnson, Li and Rabinovic 2007, "Adjusting batch effects in microarray expression data using
        empirical Bayes methods": the parametric prior, without covariates.
    """

    varies: npt.NDArray[np.bool_]
    center: Features
    spread: Features
    moves: dict[Any, tuple[Features, Features]]

    @classmethod
    def fit(cls, features: Features, sites: Sites) -> ComBat:
        """Shifts and scales of the sites of training subjects."""
        known = known_sites(sites)
        if len(known) < 2:
            raise EvaluationError(
                f"`harmonize=combat`: a training part has {counted(len(known), 'group')} of "
                f"{LEAST} subjects or more, and ComBat needs two; join groups, or use "
                "`harmonize=scale`"
            )
        parts = [features[sites == name].astype(np.float64) for name in known]
        counts = [len(part) for part in parts]
        means = np.stack([part.mean(axis=0) for part in parts])
        variances = np.stack([part.var(axis=0) for part in parts])
        # Smaller deviations are those of rounding.
        varies = np.sqrt(variances.min(axis=0)) > 1e-12 * np.abs(means).max(axis=0)
        means, variances = means[:, varies], variances[:, varies]
        center = counts @ means / sum(counts)
        spread = np.sqrt(counts @ variances / sum(counts))
        moves = {}
        if varies.any():
            for name, count, mean, variance in zip(known, counts, means, variances, strict=True):
                unbiased = variance * count / (count - 1) / spread**2
                moves[name] = _shrunk((mean - center) / spread, unbiased, count)
        return cls(varies, center, spread, moves)

    def __call__(self, features: Features, sites: Sites) -> Features:
        """Features without what their sites have in common."""
        harmonized = features.astype(np.float64)
        for name, (shift, variance) in self.moves.items():
            cells = np.ix_(sites == name, self.varies)
            standard = (harmonized[cells] - self.center) / self.spread
            harmonized[cells] = (standard - shift) / np.sqrt(variance) * self.spread + self.center
        return harmonized


def _shrunk(shift: Features, variance: Features, count: int) -> tuple[Features, Features]:
    """A site's shifts and variances `(feature,)`, each drawn to those of all its features.

    Both are the modes of their posteriors, given each other: a normal prior of shifts and an
    inverse gamma prior of variances, with the moments that all features of the site have. The
    prior's parameters are multiplied by its variance here, which is 0 for features that are alike.
    """
    ddof = min(1, len(shift) - 1)  # a single feature is its own prior, and stays as it was measured
    mean, between = shift.mean(), shift.var(ddof=ddof)
    typical, unlike = variance.mean(), variance.var(ddof=ddof)
    found, change = (shift, variance), np.inf
    while change > 1e-8:
        near = (between * count * shift + found[1] * mean) / (between * count + found[1])
        squares = (count - 1) * variance + count * (shift - near) ** 2
        wide = unlike * (squares / 2 + typical) + typical**3
        wide /= unlike * (count / 2 + 1) + typical**2
        change = max(np.abs(near - found[0]).max(), np.abs(wide / found[1] - 1).max())
        found = near, wide
    return found


#: What was fitted to training subjects, and is done to the features of any.
Harmonizer = Scaling | ComBat


def fit_harmonizer(how: str, features: Features, sites: Sites) -> Harmonizer:
    """Fit to training subjects what takes their sites out of features.

    Args:
        how: `scale` or `combat`.
        features: `(subject, feature)`.
        sites: `(subject,)`.

    Raises:
        EvaluationError: ComBat is asked for, and fewer than two sites are large enough.
    """
    return ComBat.fit(features, sites) if how == COMBAT else Scaling.fit(features, sites)


def _moments(features: Features) -> tuple[Features, Features]:
    features = features.astype(np.float64)
    deviation = features.std(axis=0)
    return features.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
