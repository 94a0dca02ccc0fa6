"""Where one image of a subject is: a file, one of several in a file, or an item of an array."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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


Item = Path | VolumeItem | ArrayItem


def files_of(item: Item) -> tuple[Path, ...]:
    """The files that an item is read from; their bytes decide what it is."""
    return (item,) if isinstance(item, Path) else (item.file,)
