"""Writes an array and its affine to a NIfTI file."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.geometry import Vectors
from vitaepp.system.files import atomic_path


def write_scan(path: str | os.PathLike[str], values: npt.NDArray[Any], affine: Vectors) -> None:
    """Write a 3D NIfTI file, whole or not at all.

    Args:
        path: file name that ends in `.nii` or `.nii.gz`.
        values: `(x, y, z)`.
        affine: index to RAS+ world in mm, `(4, 4)` or its 16 values row by row; its axes are
            perpendicular.

    Raises:
        OSError: the file cannot be written. (SimpleITK would leave half a file on a full disk
            without an error.)
    """
    nib = import_module("nibabel")
    matrix = np.reshape(affine, (4, 4))
    image = nib.Nifti1Image(values, matrix)
    image.set_qform(matrix, code=1)
    image.set_sform(matrix, code=1)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, os.fspath(temporary))
