"""Data elements of a DICOM file that SimpleITK does not show: those of a file's kind and frames.

Only what tells one frame of a multi-frame file from another is nested in sequences; the library
applies the first frame's to all. Everything is read by PS3.5, sections 7 and 10.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREAMBLE = 132
MEDIA_STORAGE_SOP_CLASS = (0x0002, 0x0002)
TRANSFER_SYNTAX = (0x0002, 0x0010)
SHARED_GROUPS, FRAME_GROUPS = (0x5200, 0x9229), (0x5200, 0x9230)
SERIES_UID = (0x0020, 0x000E)
PIXELS = (0x7FE0, 0x0010)
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)

IMPLICIT, BIG_ENDIAN, DEFLATED = (f"1.2.840.10008.1.2{end}" for end in ("", ".2", ".1.99"))

UNDEFINED = 0xFFFFFFFF

#: Value representations whose length takes four bytes.
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")

#: Sequences inside one another; real files have five at most.
MOST_DEPTH = 16

Tag = tuple[int, int]
Dataset = dict[Tag, Any]


@dataclass(frozen=True)
class _Syntax:
    explicit: bool
    order: str = "<"


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's preamble."""
    try:
        with open(path, "rb") as file:
            return file.read(PREAMBLE)[128:] == b"DICM"
    except OSError:
        return False


def file_meta(path: Path) -> dict[Tag, str]:
    """Text of the elements that say what a file holds; empty if it has none."""
    try:
        with open(path, "rb") as file:
            start = file.read(1 << 14)
        return {tag: text(value) for tag, value in _meta(start)[0].items()}
    except (OSError, struct.error, ValueError):
        return {}


def functional_groups(path: Path) -> tuple[Dataset, list[Dataset]]:
    """What all frames of a multi-frame file share, and what each has of its own.

    Raises:
        ValueError: the file breaks off, is not built as DICOM, or its header is compressed.
    """
    dataset = _elements(path)
    shared, frames = dataset.get(SHARED_GROUPS), dataset.get(FRAME_GROUPS)
    if not isinstance(shared or [], list) or not isinstance(frames, list):
        raise ValueError("has no functional groups")
    return (shared or [{}])[0], frames


def series_uid(path: Path) -> str:
    """Which series a file says it is of, also where its pixels break off; empty if it does not."""
    try:
        return text(_elements(path).get(SERIES_UID))
    except (OSError, ValueError):
        return ""


def _elements(path: Path) -> Dataset:
    """The elements of a file before its pixels."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            meta, start = _meta(data)
            syntax = text(meta.get(TRANSFER_SYNTAX, b""))
            if syntax == DEFLATED:
                raise ValueError("deflated")
            kind = _Syntax(syntax != IMPLICIT, ">" if syntax == BIG_ENDIAN else "<")
            return _dataset(data, start, len(data), kind, 0)[0]
        except struct.error:
            raise ValueError("breaks off") from None


def text(value: Any) -> str:
    """Text of an element's value, without its padding; empty for a sequence."""
    return value.decode("latin-1").strip(" \0") if isinstance(value, bytes) else ""


def _meta(data: Any) -> tuple[dict[Tag, bytes], int]:
    """The elements of group 2, which are explicit little endian in every file, and their end."""
    found: dict[Tag, bytes] = {}
    at = PREAMBLE
    while data[at : at + 2] == b"\x02\0":
        tag, _, length, at = _head(data, at, _Syntax(explicit=True))
        found[tag] = bytes(data[at : at + length])
        at += length
    return found, at


def _head(data: Any, at: int, syntax: _Syntax) -> tuple[Tag, bytes, int, int]:
    """Tag, value representation, length and start of the value of the element at a position."""
    tag = struct.unpack_from(f"{syntax.order}2H", data, at)
    if not syntax.explicit or tag[0] == ITEM[0]:
        (length,) = struct.unpack_from(f"{syntax.order}I", data, at + 4)
        return tag, b"", length, at + 8
    kind = bytes(data[at + 4 : at + 6])
    if kind in LONG:
        (length,) = struct.unpack_from(f"{syntax.order}I", data, at + 8)
        return tag, kind, length, at + 12
    (length,) = struct.unpack_from(f"{syntax.order}H", data, at + 6)
    return tag, kind, length, at + 8


def _dataset(data: Any, at: int, end: int, syntax: _Syntax, depth: int) -> tuple[Dataset, int]:
    """The elements up to the pixels, `end` or an item's end, and where what follows begins."""
    if depth > MOST_DEPTH:
        raise ValueError("sequences too deep")
    found: Dataset = {}
    while at < end:
        tag, kind, length, at = _head(data, at, syntax)
        if tag in (ITEM_END, PIXELS):
            break
        nested = kind == b"SQ" or (not syntax.explicit and _is_item(data, at, length, syntax))
        if nested or length == UNDEFINED:
            # What is sent as of unknown kind is implicit inside.
            inside = _Syntax(explicit=False) if kind == b"UN" else syntax
            stop = end if length == UNDEFINED else at + length
            found[tag], at = _sequence(data, at, stop, inside, depth + 1)
            continue
        if at + length > end:
            raise ValueError("breaks off")
        found[tag] = bytes(data[at : at + length])
        at += length
    return found, at


def _sequence(
    data: Any, at: int, end: int, syntax: _Syntax, depth: int
) -> tuple[list[Dataset], int]:
    items: list[Dataset] = []
    while at < end:
        tag, _, length, at = _head(data, at, syntax)
        if tag == SEQUENCE_END:
            break
        if tag != ITEM:
            raise ValueError("no item in a sequence")
        stop = end if length == UNDEFINED else min(at + length, end)
        item, at = _dataset(data, at, stop, syntax, depth)
        items.append(item)
    return items, at


def _is_item(data: Any, at: int, length: int, syntax: _Syntax) -> bool:
    """Whether a value without a representation is a sequence: it begins with an item."""
    return length >= 8 and bytes(data[at : at + 4]) == struct.pack(f"{syntax.order}2H", *ITEM)
