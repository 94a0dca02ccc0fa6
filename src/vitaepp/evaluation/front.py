"""What comes before every linear model: standardisation, or PCA of raw intensities."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vitaepp.data.arrays import Numbers

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

#: Most principal components that raw intensities are reduced to.
COMPONENTS = 64

#: Subjects and features above which PCA computes its leading components only.
LARGE = 500


#: Standard deviations from the mean at which a feature ends. One that hardly varies among the
#: training rows, as a histogram of a cell that is mostly empty, is many hundreds away in the few
#: subjects where it does, and would decide alone.
LIMIT = 3.0

#: What `front` does, as metrics.json tells it; evaluations of earlier versions do not.
SCALED = "standardised, within 3 standard deviations; components of PCA in one unit"


def front(features: Numbers, *, pca: bool) -> Pipeline:
    """Standardisation within `LIMIT`, or PCA for raw intensities; not fitted yet.

    Principal components keep their sizes, in one unit: standardised, the last ones, mostly noise,
    would count as much as the first. That unit makes subjects about as long as standardised
    features would, for the strengths of the models that follow.

    Args:
        features: `(subject, feature)`, the training rows that it will be fitted on.
        pca: reduce them.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    if pca:
        components = reduction(features)
        total = float(np.var(features, axis=0, dtype=np.float64).sum())
        unit = np.sqrt(total / components.n_components) or 1.0
        return make_pipeline(components, FunctionTransformer(partial(np.multiply, 1 / unit)))
    limits = {"a_min": -LIMIT, "a_max": LIMIT}
    return make_pipeline(StandardScaler(), FunctionTransformer(np.clip, kw_args=limits))


def reduction(features: Numbers) -> Any:
    """PCA to at most `COMPONENTS`, and at most half as many as there are training rows.

    Args:
        features: `(subject, feature)`, the training rows that it will be fitted on.
    """
    from sklearn.decomposition import PCA

    n, d = features.shape
    # Both solvers are exact to machine precision; of a large table Lanczos' method finds the few
    # leading components twenty times faster than a full decomposition.
    solver = "arpack" if min(n, d) > LARGE else "full"
    return PCA(max(1, min(COMPONENTS, n // 2, d)), svd_solver=solver, random_state=0)
