"""What the images of a store show of themselves: empty borders, and hashes that find duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.store import Store
from vitaepp.system.progress import track

#: Lowest frequencies along each axis that a hash is of, in 2D and 3D: 255 and 511 bits.
FREQUENCIES = {2: 16, 3: 8}

#: Voxels that are read at once.
AT_ONCE = 1 << 24


@dataclass(frozen=True, eq=False)
class Looks:
    """What was seen of some images.

    Attributes:
        border: voxels of empty border along each axis, `(subject, axis)`: planes at either side in
            which every voxel of every modality is 0.
        hashes: perceptual hashes, `(subject, bit)`.
    """

    border: npt.NDArray[np.intp]
    hashes: npt.NDArray[np.bool_]


def look_at(store: Store, rows: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Looks:
    """Read images once, for their borders and their hashes.

    Args:
        store: where they are.
        rows: which.
    """
    step = max(1, AT_ONCE // int(np.prod(store.info.shape)))
    borders, hashes = [], []
    starts = range(0, len(rows), step)
    for start in track(starts, "looking at images", len(starts), unit="batches"):
        images = store.read(rows[start : start + step])
        borders.append(empty_border(np.asarray(images.any(axis=1), np.bool_)))
        hashes.append(perceptual_hash(images.mean(axis=1, dtype=np.float32)))
    return Looks(np.concatenate(borders), np.concatenate(hashes))


def empty_border(shown: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
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


def perceptual_hash(images: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    """A hash that is nearly the same for images that look nearly the same.

    Of the lowest frequencies of the discrete cosine transform, without the mean, each bit says
    whether one is above the image's median. Brightness, contrast, noise, compression and a little
    rescaling change few bits; two images of different people differ in about a third to a half.

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
