"""Take out of features what differs between sites, by what the training part knows of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.errors import EvaluationError, nearest
from vitaepp.system.extras import require
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


def known_sites(sites: Sites) -> list[str]:
    """The sites of training subjects that have `LEAST` of them."""
    names, counts = np.unique(sites.astype(str), return_counts=True)
    return [str(name) for name in names[counts >= LEAST]]


@dataclass(frozen=True)
class Scaling:
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
        for name in np.unique(sites.astype(str)):
            rows = sites == name
            mean, deviation = self.known.get(name, self.whole)
            harmonized[rows] = (features[rows] - mean) / deviation
        return harmonized


@dataclass(frozen=True)
class ComBat:
    """Moves each site to what all have in common, by empirical Bayes over features.

    A site with fewer than `LEAST` training subjects, or with none, stays as it is.

    Attributes:
        model: combatlearn's.
        known: the sites that it was fitted to.

    Source:
        Johnson, Li and Rabinovic 2007, "Adjusting batch effects in microarray expression data using
        empirical Bayes methods".
    """

    model: Any
    known: list[str]

    @classmethod
    def fit(cls, features: Features, sites: Sites) -> ComBat:
        """Shifts and scales of the sites of training subjects."""
        library = require("combatlearn", COMBAT, "ComBat needs")
        known = known_sites(sites)
        if len(known) < 2:
            raise EvaluationError(
                f"`harmonize=combat`: a training part has {counted(len(known), 'group')} of "
                f"{LEAST} subjects or more, and ComBat needs two; join groups, or use "
                "`harmonize=scale`"
            )
        rows = np.isin(sites.astype(str), known)
        model = library.ComBat(batch=sites[rows].astype(str), method="johnson")
        return cls(model.fit(pd.DataFrame(features[rows].astype(np.float64))), known)

    def __call__(self, features: Features, sites: Sites) -> Features:
        """Features without what their sites have in common."""
        harmonized = features.astype(np.float64)
        rows = np.isin(sites.astype(str), self.known)
        if rows.any():
            self.model.set_params(batch=sites[rows].astype(str))
            harmonized[rows] = self.model.transform(pd.DataFrame(harmonized[rows]))
        return harmonized


#: What was fitted to training subjects, and is done to the features of any.
Harmonizer = Scaling | ComBat


def fit_harmonizer(how: str, features: Features, sites: Sites) -> Harmonizer:
    """Fit to training subjects what takes their sites out of features.

    Args:
        how: `scale`, or `combat`, which needs the extra of this name.
        features: `(subject, feature)`.
        sites: `(subject,)`.

    Raises:
        EvaluationError: ComBat is asked for, and fewer than two sites are large enough.
        MissingPackageError: combatlearn is not installed.
    """
    return ComBat.fit(features, sites) if how == COMBAT else Scaling.fit(features, sites)


def _moments(features: Features) -> tuple[Features, Features]:
    features = features.astype(np.float64)
    deviation = features.std(axis=0)
    return features.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
