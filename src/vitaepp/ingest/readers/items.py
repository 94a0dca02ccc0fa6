"""Where one image of a subject is stored: in files, in part of a file, or in an array."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from vitaepp.ingest.readers.detached import voxel_files


@dataclass(frozen=True)
class ArrayItem:
    """One image of an array in a file, by the array's name and an index."""

    file: Path
    key: str
    index: int


@dataclass(frozen=True)
class VolumeItem:
    """One volume of a 4D scan, along its last axis.

    Attributes:
        file: the scan.
        index: of the volume, from 0.
        of: how many volumes the scan must have; None where nobody says.
    """

    file: Path
    index: int
    of: int | None = None


@dataclass(frozen=True)
class SeriesItem:
    """The files of one DICOM volume, in any order; the reader orders slices by position."""

    files: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class GivenItem:
    """An image that the caller holds in memory.

    Attributes:
        values: scans `(x, y, z)`; pictures `(row, column)` or `(row, column, 3)`.
        affine: index to RAS world in mm; None of an image without physical space.
        name: what errors call it.
    """

    values: npt.NDArray[Any]
    affine: npt.NDArray[Any] | None
    name: str


Item = Path | VolumeItem | ArrayItem | SeriesItem | GivenItem


def own_files(item: Item) -> tuple[Path, ...]:
    """The files that an item names; a header may keep its voxels in another file."""
    if isinstance(item, SeriesItem):
        return item.files
    if isinstance(item, GivenItem):
        return ()
    return (item,) if isinstance(item, Path) else (item.file,)


def place_of(item: Item, root: Path) -> str:
    """The path below a folder of an item's file, or of the folder of its files, for people.

    It is the name alone if that is elsewhere, so that no absolute path is shown.
    """
    files = [os.path.abspath(file) for file in own_files(item)]
    path = Path(files[0] if len(files) == 1 else os.path.commonpath(files))
    root = Path(os.path.abspath(root))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def name_of(item: Item, root: Path) -> str:
    """What an item of files is called: its path below a folder, and its place in the file."""
    if isinstance(item, ArrayItem):
        return f"{item.file.name}:{item.key}[{item.index}]"
    path = place_of(item, root)
    return f"{path}[{item.index}]" if isinstance(item, VolumeItem) else path


def files_of(item: Item) -> tuple[Path, ...]:
    """All files that an item is read from, including those that a header names.

    Raises:
        SubjectError: a header names the file of its voxels in a way that is not supported.
    """
    own = own_files(item)
    if isinstance(item, SeriesItem | GivenItem):
        return own
    return (*own, *voxel_files(own[0]))
