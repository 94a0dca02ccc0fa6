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
from vitaepp.ingest.readers.limits import DEFLATE_RATIO, refuse_absurd_size

HEADER = 348
FLOATS = {16: "f4", 64: "f8"}

#: Bits of a voxel by `datatype`, which is what image libraries go by, not `bitpix`.
BITS = {
    1: 1,
    2: 8,
    4: 16,
    8: 32,
    16: 32,
    32: 64,
    64: 64,
    128: 24,
    256: 8,
    512: 16,
    768: 32,
    1024: 64,
    1280: 64,
    1536: 128,
    1792: 128,
    2048: 256,
    2304: 32,
}

BLOCK = 1 << 20

#: Bytes that a file may have before or after its voxels; real ones have a few, bombs any number.
MOST_SPARE = 1 << 30


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
            start, size, bits, float_type = data
            length = prod(size) * bits // 8
            refuse_absurd_size(size, name)
            most = path.stat().st_size * DEFLATE_RATIO
            if compressed and length > most:
                raise SubjectError(
                    f"{name}: truncated: its header promises {length} bytes of voxels, it has at "
                    f"most {most}; copy it again"
                )
            found, bad, spare = _scan_bytes(file, max(start - HEADER, 0), length, float_type)
    except (EOFError, OSError, zlib.error):
        raise SubjectError(
            f"{name}: cannot be read: truncated or corrupt (its compressed data break off)"
        ) from None
    if found < length:
        raise SubjectError(
            f"{name}: truncated: its header promises {length} bytes of voxels, it has {found}; "
            "copy it again"
        )
    if spare > MOST_SPARE:
        raise SubjectError(
            f"{name}: holds over {MOST_SPARE} bytes more than its header promises; copy it again"
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
            start, size, bits, _ = data
            before = zlib.crc32(header + file.read(start - HEADER))
        with open(path, "rb") as raw:
            raw.seek(-8, os.SEEK_END)
            whole, length = struct.unpack("<2I", raw.read(8))
    except (EOFError, OSError, zlib.error):
        return None
    return (before, whole) if length == start + prod(size) * bits // 8 else None


def _nifti_data(header: bytes) -> tuple[int, tuple[int, ...], int, str | None] | None:
    """Where a NIfTI-1's voxels start, in bytes, their number by axis, bits, and type if floats."""
    for order in "<>":
        if len(header) == HEADER and struct.unpack_from(f"{order}i", header)[0] == 348:
            dim = struct.unpack_from(f"{order}8h", header, 40)
            (datatype,) = struct.unpack_from(f"{order}h", header, 70)
            (start,) = struct.unpack_from(f"{order}f", header, 108)
            if not 1 <= dim[0] <= 7 or datatype not in BITS or not 0 <= start <= MOST_SPARE:
                return None
            size = tuple(max(n, 1) for n in dim[1 : dim[0] + 1])
            kind = FLOATS.get(datatype)
            return int(start), size, BITS[datatype], None if kind is None else order + kind
    return None


def _scan_bytes(file: Any, start: int, length: int, float_type: str | None) -> tuple[int, int, int]:
    """Bytes of voxels that are there, how many of their floats are not finite, and bytes to spare.

    At most `MOST_SPARE` of these are looked for.
    """
    found = bad = spare = 0
    while start and (block := file.read(min(start, BLOCK))):
        start -= len(block)
    # Reading to the end also verifies the checksum that closes a gzip file.
    while spare <= MOST_SPARE and (block := file.read(BLOCK)):
        voxels = block[: length - found]
        found += len(voxels)
        spare += len(block) - len(voxels)
        if float_type is not None:
            values = np.frombuffer(voxels[: len(voxels) // 8 * 8], float_type)
            bad += values.size - int(np.count_nonzero(np.isfinite(values)))
    return found, bad, spare
