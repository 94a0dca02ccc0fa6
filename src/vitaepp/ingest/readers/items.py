"""Where one image of a subject is: files, one image of several in a file, or an array's item."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vitaepp.ingest.readers.detached import voxel_files


@dataclass(frozen=True)
class ArrayItem:
    """One image of an array in a file: the array's name there, and an index into it."""

    file: Path
    key: str
    index: int


@dataclass(frozen=True)
class VolumeItem:
    """One volume of a 4D scan, along its last axis."""

    file: Path
    index: int


@dataclass(frozen=True)
class SeriesItem:
    """The files of one DICOM volume, in any order: the reader orders slices by position."""

    files: tuple[Path, ...]


Item = Path | VolumeItem | ArrayItem | SeriesItem


def own_files(item: Item) -> tuple[Path, ...]:
    """The files that an item names; one that is only a header leaves its voxels to another."""
    if isinstance(item, SeriesItem):
        return item.files
    return (item,) if isinstance(item, Path) else (item.file,)


def files_of(item: Item) -> tuple[Path, ...]:
    """The files that an item is read from; their bytes decide what it is.

    Raises:
        SubjectError: a header that names its voxels' file in a way that is not followed.
    """
    own = own_files(item)
    return own if isinstance(item, SeriesItem) else (*own, *voxel_files(own[0]))
