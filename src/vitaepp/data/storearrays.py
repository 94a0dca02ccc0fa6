"""The arrays of a store: images and masks in Zarr, one chunk a subject."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import FsspecStore, MemoryStore

from vitaepp.data.storeinfo import StoreInfo
from vitaepp.system.storage import Folder, LocalFolder


class StoredArray(NamedTuple):
    """An array of a store, one chunk a subject.

    Attributes:
        name: of its folder in the store.
        shape: of one subject.
        dtype: of its values.
        axes: their names.
        staged: suffix of a subject's staged chunk.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str, ...]
    staged: str


def images_of(info: StoreInfo) -> StoredArray:
    """Its images, `(channel, *space)` a subject."""
    return StoredArray("images.zarr", info.shape, info.dtype, ("channel", *_space(info)), ".chunk")


def masks_of(info: StoreInfo) -> StoredArray:
    """Its masks, `(*space)` a subject; only a store that keeps masks has them."""
    return StoredArray("masks.zarr", info.size, "uint8", _space(info), ".mask")


def _space(info: StoreInfo) -> tuple[str, ...]:
    return ("x", "y", "z") if info.ndim == 3 else ("row", "column")


def arrays_of(info: StoreInfo) -> tuple[StoredArray, ...]:
    """Those that this store has."""
    return (images_of(info), masks_of(info)) if info.masks else (images_of(info),)


def create_array(memory: MemoryStore, length: int, kind: StoredArray) -> zarr.Array[Any]:
    """An array of so many subjects, in memory."""
    return zarr.create_array(
        memory,
        shape=(length, *kind.shape),
        chunks=(1, *kind.shape),
        dtype=kind.dtype,
        # A third of the default level's time for a tenth more bytes; readers do not need it. The
        # checksum costs 4 bytes and no time that can be measured; without it, most flipped bits
        # are read as other voxels.
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=0,
        dimension_names=("subject", *kind.axes),
        config={"write_empty_chunks": True},
    )


def lacking_rows(folder: Folder, kind: StoredArray, rows: int) -> list[int]:
    """The rows of an array that have no chunk; Zarr would take them for zeros."""
    chunks = {chunk_key(row, kind).removeprefix("c/"): row for row in range(rows)}
    return [chunks[name] for name in folder.lacking(f"{kind.name}/c", [*chunks])]


def chunk_key(row: int, kind: StoredArray) -> str:
    """Path of a row's chunk inside the array, by Zarr v3's default chunk key encoding."""
    return "/".join(("c", str(row), *("0" for _ in kind.shape)))


def opened_by(folder: Folder, name: str) -> Path | str | FsspecStore:
    """What Zarr opens an array of a folder by."""
    if isinstance(folder, LocalFolder):
        return folder.path / name
    if "::" in folder.path:  # of a chained URL, as zip://::FILE, the path is not at the end
        return FsspecStore.from_mapper(folder.mapping(name), read_only=True)
    return f"{folder.path}/{name}"
