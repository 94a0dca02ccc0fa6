"""Near-duplicates: images that are there twice, by their hashes and by their features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Two hashes are of one image if a smaller share of their bits differs. Among 5,840 chest X-rays,
#: which all look alike, those of two different images differed in a fifth or more.
BITS = 0.1

#: Two subjects are near-duplicates by features if they are this much closer to each other than
#: subjects usually are to their nearest neighbour, the median.
CLOSER = 0.25

#: Rows that are held against all others at once.
AT_ONCE = 1024


@dataclass(frozen=True)
class Pair:
    """Two rows that are one image, or nearly.

    Attributes:
        first: a row.
        second: another one, after it.
        bits: the share of their hashes' bits that differ.
        distance: of their standardised features, as a multiple of the usual distance to the nearest
            neighbour.
    """

    first: int
    second: int
    bits: float
    distance: float

    @property
    def by(self) -> str:
        """What found them: `hash`, `embedding` or `both`."""
        hashed, near = self.bits < BITS, self.distance < CLOSER
        return "both" if hashed and near else "hash" if hashed else "embedding"


def near_duplicates(
    hashes: npt.NDArray[np.bool_], features: npt.NDArray[np.floating[Any]]
) -> list[Pair]:
    """Find the pairs whose hashes or features are nearly the same.

    Args:
        hashes: `(subject, bit)`.
        features: `(subject, feature)`. If they are all the same, they find nothing.

    Example:
        >>> random = np.random.default_rng(0)
        >>> hashes, features = random.random((9, 256)) < 0.5, random.normal(size=(9, 32))
        >>> hashes[7] = hashes[2]
        >>> [(pair.first, pair.second, pair.by) for pair in near_duplicates(hashes, features)]
        [(2, 7, 'hash')]
    """
    signs = hashes.astype(np.float32) * 2 - 1
    spread = features.std(axis=0)
    scaled = ((features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)).astype(
        np.float32
    )
    nearest = np.concatenate([d.min(axis=1) for _, d in _distances(scaled)])
    usual = float(np.median(nearest))
    pairs = []
    for start, distances in _distances(scaled):
        bits = (1 - signs[start : start + AT_ONCE] @ signs.T / signs.shape[1]) / 2
        relative = distances / usual if usual > 0 else np.full_like(distances, np.inf)
        for i, j in zip(*np.nonzero((bits < BITS) | (relative < CLOSER)), strict=True):
            if start + i < j:
                pair = int(start + i), int(j), float(bits[i, j]), float(relative[i, j])
                pairs.append(Pair(*pair))
    return pairs


def _distances(
    scaled: npt.NDArray[np.float32],
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Distances of some rows at a time to all, with the first of them; infinite to itself."""
    squares = (scaled**2).sum(axis=1)
    for start in range(0, len(scaled), AT_ONCE):
        rows = scaled[start : start + AT_ONCE]
        squared = squares[start : start + AT_ONCE, None] + squares - 2 * rows @ scaled.T
        distances = np.sqrt(np.maximum(squared, 0))
        distances[np.arange(len(rows)), np.arange(start, start + len(rows))] = np.inf
        yield start, distances
