"""A two-dimensional map of an embedding, to look at; nothing is measured on it."""

from __future__ import annotations

import numpy as np

from vitaepp.data.arrays import Floats, Indices, Numbers

#: Below this many subjects neighbourhoods mean little, and the map is the plain PCA.
FEWEST_FOR_TSNE = 10

#: Above this many subjects a sample is drawn: more points would not be told apart.
MOST_POINTS = 1000


def map_rows(n: int, *, seed: int) -> Indices:
    """Rows that are shown on the map: all, or a random sample of `MOST_POINTS`, in order."""
    if n <= MOST_POINTS:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, MOST_POINTS, replace=False))


def embedding_map(features: Numbers, *, seed: int) -> tuple[Floats, str]:
    """Place subjects in the plane so that similar ones are near each other.

    Standardised features go through PCA to at most 50 components and then t-SNE with a perplexity
    of a quarter of the subjects, at most 30. Few subjects get the first two components of PCA.

    Args:
        features: `(subject, feature)`.
        seed: of t-SNE; the same features and seed give the same map.

    Returns:
        Coordinates `(subject, 2)` without a unit, and how they were made, in words.

    Source:
        van der Maaten and Hinton 2008; initialised as Kobak and Berens 2019 advise.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    n, d = features.shape
    scaled = StandardScaler().fit_transform(features.astype(np.float64, copy=False))
    if not scaled.any():
        return np.zeros((n, 2)), "all features are constant"
    solver = "covariance_eigh" if n >= d else "full"
    # One thread: sums over threads would differ in their last digits, which t-SNE amplifies.
    with threadpool_limits(1):
        components = PCA(min(50, n, d), svd_solver=solver).fit_transform(scaled)
        if n < FEWEST_FOR_TSNE:
            if components.shape[1] < 2:
                components = np.column_stack([components, np.zeros(n)])
            return components[:, :2], "PCA"
        perplexity = min(30.0, n / 4)
        tsne = TSNE(
            init="pca" if components.shape[1] > 1 else "random",
            perplexity=perplexity,
            random_state=seed,
            n_jobs=1,
        )
        points = np.asarray(tsne.fit_transform(components), np.float64)
    return points, f"t-SNE of {components.shape[1]} principal components, perplexity {perplexity:g}"
