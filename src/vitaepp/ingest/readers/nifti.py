"""NIfTI: what its header promises, held against what the file holds."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from vitaepp.errors import SubjectError

HEADER = 348
FLOATS = {16: "f4", 64: "f8"}


def check_nifti(path: Path, name: str) -> None:
    """Refuse what the image library mends in silence: it puts zeros for missing bytes and NaN."""
    compressed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if compressed else open(path, "rb") as file:
            header = file.read(HEADER)
            if header[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
                raise SubjectError(f"{name}: is NIfTI-2, which is not read; save it as NIfTI-1")
            data = _nifti_data(header)
            if data is None:
                raise SubjectError(
                    f"{name}: cannot be read: truncated, corrupt or not a NIfTI file"
                )
            start, length, float_type = data
            file.read(max(start - HEADER, 0))
            found, bad = _scan_bytes(file, length, float_type)
    except (EOFError, OSError, zlib.error):
        raise SubjectError(
            f"{name}: cannot be read: truncated or corrupt (its compressed data break off)"
        ) from None
    if found < length:
        raise SubjectError(
            f"{name}: truncated: its header promises {length} bytes of voxels, it has {found}; "
            "copy it again"
        )
    if bad:
        raise SubjectError(f"{name}: {bad} voxels are NaN or infinite")


def promised_checksum(path: Path) -> tuple[int, int] | None:
    """CRC-32 of what precedes a NIfTI's voxels, and of all, from the end of its gzip file.

    If the voxels that were read complete the one to the other, nothing was mended, and the file
    need not be decompressed a second time to know. None where the end does not promise just what
    the header does (not one gzip member, bytes to spare, cut off).
    """
    if not path.name.lower().endswith(".gz"):
        return None
    try:
        with gzip.open(path) as file:
            header = file.read(HEADER)
            data = _nifti_data(header)
            if data is None or not HEADER <= data[0] <= 1 << 20:
                return None
            before = zlib.crc32(header + file.read(data[0] - HEADER))
        with open(path, "rb") as raw:
            raw.seek(-8, os.SEEK_END)
            whole, length = struct.unpack("<2I", raw.read(8))
    except (EOFError, OSError, zlib.error):
        return None
    return (before, whole) if length == data[0] + data[1] else None


def _nifti_data(header: bytes) -> tuple[int, int, str | None] | None:
    """Start and length of a NIfTI-1's voxels in bytes, and their type if they are floats."""
    for order in "<>":
        if len(header) == HEADER and struct.unpack_from(f"{order}i", header)[0] == 348:
            dim = struct.unpack_from(f"{order}8h", header, 40)
            datatype, bits = struct.unpack_from(f"{order}2h", header, 70)
            (start,) = struct.unpack_from(f"{order}f", header, 108)
            if not 1 <= dim[0] <= 7 or not np.isfinite(start):
                return None
            length = prod(max(n, 1) for n in dim[1 : dim[0] + 1]) * bits // 8
            kind = FLOATS.get(datatype)
            return int(start), length, None if kind is None else order + kind
    return None


def _scan_bytes(file: Any, length: int, float_type: str | None) -> tuple[int, int]:
    """Bytes that are there, at most `length`, and how many of their floats are not finite."""
    found = bad = 0
    # Reading to the end also verifies the checksum that closes a gzip file.
    while block := file.read(1 << 20):
        block = block[: length - found]
        found += len(block)
        if float_type is not None:
            values = np.frombuffer(block[: len(block) // 8 * 8], float_type)
            bad += values.size - int(np.count_nonzero(np.isfinite(values)))
    return found, bad
