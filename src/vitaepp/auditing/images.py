"""What the images of a store show of themselves: empty borders, and which are there twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Flags, Indices, Numbers
from vitaepp.data.store import Store
from vitaepp.system.progress import track

#: Lowest frequencies along each axis that a hash is of, in 2D and 3D: 255 and 511 bits.
FREQUENCIES = {2: 16, 3: 8}

#: Two hashes may be of one image if a smaller share of their bits differs. Of 5,840 chest X-rays,
#: which all look alike, those of two different images differed in a fifth or more. Small lesions at
#: about the same place agree, however: of 934 patients' masks, 359 pairs.
BITS = 0.1

#: They are of one image if its voxels correlate so well. Those of the 359 pairs did with 0.76 at
#: most. Copies of chest X-rays that were brightened, blurred or halved in resolution did with 0.86
#: or more; so did those of hippocampi, but of half the resolution five in six with 0.8.
SAME = 0.8

#: Two subjects are near-duplicates by features if they are this much closer to each other than
#: subjects usually are to their nearest neighbour, the median.
CLOSER = 0.25

#: Rows that are held against all others at once.
ROWS_AT_ONCE = 1024

#: Voxels that are read at once.
AT_ONCE = 1 << 24


@dataclass(frozen=True, eq=False)
class Looks:
    """What was seen of some images.

    Attributes:
        border: voxels of empty border along each axis, `(subject, axis)`: planes at either side in
            which every voxel of every modality is 0.
        hashes: perceptual hashes, `(subject, bit)`.
        mean: of their `pictures`, `space`.
    """

    border: Indices
    hashes: Flags
    mean: Numbers


def look_at(store: Store, rows: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Looks:
    """Read images once, for their borders, their hashes and their mean.

    Args:
        store: where they are.
        rows: which.
    """
    step = max(1, AT_ONCE // int(np.prod(store.info.shape)))
    borders, hashes, total = [], [], np.zeros(store.info.size)
    starts = range(0, len(rows), step)
    for start in track(starts, "looking at images", len(starts), unit="batches"):
        images = store.read(rows[start : start + step])
        borders.append(empty_border(np.asarray(images.any(axis=1), np.bool_)))
        shown = pictures(images)
        hashes.append(perceptual_hash(shown))
        total += shown.sum(axis=0)
    return Looks(np.concatenate(borders), np.concatenate(hashes), total / len(rows))


def pictures(images: Numbers) -> Numbers:
    """Images of all modalities together, of mean 0 and standard deviation 1; flat ones are 0.

    Args:
        images: `(subject, modality, *space)`.

    Returns:
        `(subject, *space)`.
    """
    shown = images.mean(axis=1, dtype=np.float32)
    space = tuple(range(1, shown.ndim))
    shown -= shown.mean(axis=space, keepdims=True)
    spread = shown.std(axis=space, keepdims=True)
    return np.asarray(shown / np.where(spread > 0, spread, 1))


def correlation(one: Numbers, other: Numbers, mean: Numbers) -> float:
    """Of two images, after what all of a cohort have in common is taken off; 1 of equal ones.

    Args:
        one: such as one of `pictures`, of any shape.
        other: another one.
        mean: of the cohort's.
    """
    if np.array_equal(one, other):
        return 1.0
    off = [(picture - mean).ravel() for picture in (one, other)]
    lengths = float(np.linalg.norm(off[0]) * np.linalg.norm(off[1]))
    return float(off[0] @ off[1]) / lengths if lengths > 0 else 0.0


def empty_border(shown: Flags) -> Indices:
    """Planes at either side of each axis in which nothing is shown, counted together.

    Args:
        shown: `(subject, *space)`, voxels that are not 0.

    Returns:
        `(subject, axis)`.

    Example:
        >>> shown = np.zeros((1, 6, 4), bool)
        >>> shown[0, 1:4] = True
        >>> empty_border(shown)
        array([[3, 0]])
    """
    counts = []
    for axis in range(1, shown.ndim):
        others = tuple(a for a in range(1, shown.ndim) if a != axis)
        filled = np.asarray(shown.any(axis=others), np.bool_)
        length = filled.shape[1]
        first, last = filled.argmax(axis=1), length - 1 - filled[:, ::-1].argmax(axis=1)
        counts.append(np.where(filled.any(axis=1), length - (last - first + 1), length))
    return np.stack(counts, axis=1).astype(np.intp)


def perceptual_hash(images: Numbers) -> Flags:
    """A hash that is nearly the same for images that look nearly the same.

    Of the lowest frequencies of the discrete cosine transform, without the mean, each bit says
    whether one is above the image's median. Brightness, contrast, noise, compression and a little
    rescaling change few bits; two images of different people differ in about a third to a half,
    but for those that show only something small at about the same place.

    Args:
        images: `(subject, *space)`, two or three spatial axes.

    Source:
        Zauner 2010, "Implementation and benchmarking of perceptual image hash functions" (pHash),
        here with more bits and in 3D as well.

    Example:
        >>> image = np.random.default_rng(0).normal(size=(1, 32, 32))
        >>> bool((perceptual_hash(image) == perceptual_hash(3 * image + 7)).all())
        True
    """
    from scipy.fft import dctn

    ndim = images.ndim - 1
    spectrum = dctn(images, axes=range(1, ndim + 1), norm="ortho")
    low = spectrum[(slice(None), *[slice(0, FREQUENCIES[ndim])] * ndim)]
    low = low.reshape(len(images), -1)[:, 1:]
    return np.asarray(low > np.median(low, axis=1, keepdims=True), np.bool_)


@dataclass(frozen=True)
class Pair:
    """Two rows that are one image, or nearly.

    Attributes:
        first: a row.
        second: another one, after it.
        bits: the share of their hashes' bits that differ.
        correlation: of their voxels, see `correlation`; NaN where more than `BITS` differ.
        distance: of their standardised features, as a multiple of the usual distance to the nearest
            neighbour.
    """

    first: int
    second: int
    bits: float
    correlation: float
    distance: float

    @property
    def evidence(self) -> str:
        """What found them: `hash`, `embedding` or `both`."""
        hashed, near = self.correlation >= SAME, self.distance < CLOSER
        return "both" if hashed and near else "hash" if hashed else "embedding"


def near_duplicates(
    hashes: Flags, features: Numbers, correlate: Callable[[int, int], float]
) -> list[Pair]:
    """Find the pairs whose hashes and voxels, or whose features, are nearly the same.

    Args:
        hashes: `(subject, bit)`.
        features: `(subject, feature)`. If they are all the same, they find nothing.
        correlate: how well the voxels of two rows correlate; asked where hashes agree.

    Example:
        >>> random = np.random.default_rng(0)
        >>> hashes, features = random.random((9, 256)) < 0.5, random.normal(size=(9, 32))
        >>> hashes[7] = hashes[2]
        >>> pairs = near_duplicates(hashes, features, lambda first, second: 1.0)
        >>> [(pair.first, pair.second, pair.evidence) for pair in pairs]
        [(2, 7, 'hash')]
        >>> near_duplicates(hashes, features, lambda first, second: 0.5)
        []
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
        bits = (1 - signs[start : start + ROWS_AT_ONCE] @ signs.T / signs.shape[1]) / 2
        relative = distances / usual if usual > 0 else np.full_like(distances, np.inf)
        for i, j in zip(*np.nonzero((bits < BITS) | (relative < CLOSER)), strict=True):
            first, second = int(start + i), int(j)
            if first < second:
                alike = correlate(first, second) if bits[i, j] < BITS else np.nan
                if alike >= SAME or relative[i, j] < CLOSER:
                    seen = float(bits[i, j]), alike, float(relative[i, j])
                    pairs.append(Pair(first, second, *seen))
    return pairs


def _distances(scaled: npt.NDArray[np.float32]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Distances of some rows at a time to all, with the first of them; infinite to itself."""
    squares = (scaled**2).sum(axis=1)
    for start in range(0, len(scaled), ROWS_AT_ONCE):
        rows = scaled[start : start + ROWS_AT_ONCE]
        squared = squares[start : start + ROWS_AT_ONCE, None] + squares - 2 * rows @ scaled.T
        distances = np.sqrt(np.maximum(squared, 0))
        distances[np.arange(len(rows)), np.arange(start, start + len(rows))] = np.inf
        yield start, distances
