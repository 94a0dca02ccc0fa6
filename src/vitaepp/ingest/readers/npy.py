"""One image in a `.npy`: a picture, or a volume without a position in space."""

from __future__ import annotations

import tokenize
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.arrays import npy_header, read_array, space_of
from vitaepp.ingest.readers.image import Image, check_present


def npy_axes(path: Path) -> int:
    """The number of spatial axes of a `.npy`, by its header; 0 if the file cannot be read.

    A last axis of 1 or 3 after two others is colour.
    """
    try:
        with open(path, "rb") as file:
            return len(space_of(npy_header(file)[0]))
    except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError):
        return 0


def read_npy_picture(path: Path, name: str, *, constant: bool = False) -> Image:
    """Read a picture `(row, column)` or `(row, column, 3)`.

    Raises:
        SubjectError: the file is not readable, pickled, not numbers, not 2D, not finite, or
            constant.
    """
    image = read_array(_values(path, name), name, constant=constant)
    if image.grid.ndim != 2:
        raise SubjectError(f"{name}: is {image.grid.ndim}D; a picture has two axes")
    return image


def read_npy_scan(path: Path, name: str, *, constant: bool = False) -> Image:
    """Read a volume `(x, y, z)`; 1 mm and left to right, back to front, feet to head are assumed.

    Raises:
        SubjectError: the file is not readable, pickled, not numbers, not 3D, not finite, or
            constant.
    """
    image = read_array(_values(path, name), name, constant=constant)
    if image.grid.ndim != 3:
        raise SubjectError(f"{name}: is {image.grid.ndim}D; a 3D volume is needed")
    if image.is_colour:
        raise SubjectError(f"{name}: has 3 values per voxel; a scan has one")
    return replace(image, physical=True)


def _values(path: Path, name: str) -> npt.NDArray[Any]:
    check_present(path, name)
    try:
        with open(path, "rb") as file:
            shape, _, dtype = npy_header(file)
            if dtype.hasobject:
                raise SubjectError(
                    f"{name}: holds pickled Python objects, which are not opened; save numbers"
                )
            _check_length(file, prod(shape) * dtype.itemsize, name)
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError):
        raise SubjectError(
            f"{name}: cannot be read: truncated, corrupt or not a .npy file"
        ) from None


def _check_length(file: IO[bytes], promised: int, name: str) -> None:
    start = file.tell()
    length = file.seek(0, 2) - start
    if length < promised:
        raise SubjectError(
            f"{name}: truncated: its header promises {promised} bytes of values, it has {length}; "
            "copy it again"
        )
