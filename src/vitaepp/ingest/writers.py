"""Writers: an array and its affine to a NIfTI file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.files import atomic_path
from vitaepp.ingest.geometry import Grid, Vectors, simpleitk


def write_scan(path: str | os.PathLike[str], values: npt.NDArray[Any], affine: Vectors) -> None:
    """Write a 3D NIfTI file, whole or not at all.

    Args:
        path: ends in `.nii` or `.nii.gz`.
        values: `(x, y, z)`.
        affine: index to RAS+ world in mm, `(4, 4)` or its 16 values row by row; axes at right
            angles.
    """
    sitk = simpleitk()
    grid = Grid(values.shape, np.array([-1, -1, 1, 1])[:, None] * np.reshape(affine, (4, 4)))
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing(grid.spacing.tolist())
    image.SetDirection(grid.direction.ravel().tolist())
    image.SetOrigin(grid.affine[:3, 3].tolist())
    with atomic_path(path) as temporary:
        sitk.WriteImage(image, os.fspath(temporary))
