"""Grids of patches: how they lie in an image, and how they are joined to parts."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Indices


def spread(values: npt.NDArray[Any], size: Sequence[int]) -> npt.NDArray[Any]:
    """Values of a grid's cells at the voxels of the image that the grid divides.

    Args:
        values: `(*grid, …)`.
        size: voxels per spatial axis, each at least the cells of that axis.

    Returns:
        `(*size, …)`.

    Example:
        >>> spread(np.array([[1, 2]]), (1, 4))
        array([[1, 1, 2, 2]])
    """
    cells = [np.arange(n) * g // n for n, g in zip(size, values.shape, strict=False)]
    return values[np.ix_(*cells)]


def parts(grid: Sequence[int], most: int) -> Indices:
    """Join neighbouring patches to cubes, the smallest of which there are no more than `most`.

    Cubes at the end of an axis are smaller where its number of patches is no multiple.

    Args:
        grid: patches per axis.
        most: how many parts there may be, at least one.

    Returns:
        `(*grid)`, the number of the part that each patch belongs to, from 0 on.

    Example:
        >>> parts((4, 2), 2)
        array([[0, 0],
               [0, 0],
               [1, 1],
               [1, 1]])
    """
    side = 1
    while prod(-(-n // side) for n in grid) > most:
        side += 1
    shape = [-(-n // side) for n in grid]
    numbers = np.arange(prod(shape)).reshape(shape)
    return numbers[np.ix_(*(np.arange(n) // side for n in grid))]
