"""What comes before every linear model: PCA of raw intensities, then standardisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vitaepp.data.arrays import Numbers

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

#: Most principal components that raw intensities are reduced to.
COMPONENTS = 64

#: Subjects and features above which PCA computes its leading components only.
LARGE = 500


def front(features: Numbers, *, pca: bool) -> Pipeline:
    """Standardisation, after PCA for raw intensities; not fitted yet.

    Args:
        features: `(subject, feature)`, the training rows that it will be fitted on.
        pca: reduce them first.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(*([reduction(features)] if pca else []), StandardScaler())


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
