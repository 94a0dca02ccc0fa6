"""NIfTI and Analyze: what a header promises, held against what the file holds."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.errors import SubjectError
from vitaepp.ingest.detached import voxel_files
from vitaepp.ingest.geometry import Floats
from vitaepp.ingest.readers.image import quiet
from vitaepp.ingest.readers.limits import MOST_EXPANSION, refuse_absurd_size

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

#: Bytes that may follow the voxels; real files have a few, bombs any number.
MOST_SPARE = 1 << 30

#: Farthest that voxels may be from the start of a file; what is before them is header extensions.
MOST_OFFSET = 1 << 24


@dataclass(frozen=True)
class NiftiHeader:
    """What a header says of its voxels.

    Attributes:
        length: of the header itself, in bytes; 540 for NIfTI-2, else 348.
        start: of the voxels, in bytes from the start of their file.
        size: voxels by axis.
        voxels: their length in bytes.
        float_type: their type if they are floats.
        analyze: whether it is Analyze 7.5, which has no orientation.
    """

    length: int
    start: int
    size: tuple[int, ...]
    voxels: int
    float_type: str | None
    analyze: bool

    @property
    def is_nifti2(self) -> bool:
        """Whether sizes are in 64 bits."""
        return self.length == 540


def check_nifti(path: Path, name: str) -> None:
    """Refuse what the image library mends in silence: it puts zeros for missing bytes and NaN."""
    try:
        with _opened(path) as file:
            header = read_header(file)
            if header is None:
                raise SubjectError(
                    f"{name}: cannot be read: truncated, corrupt or not a NIfTI file"
                )
            pair = voxel_files(path)
            refuse_absurd_size(header.size, name)
            most = (pair[0] if pair else path).stat().st_size * MOST_EXPANSION
            if header.voxels > most:
                raise SubjectError(
                    f"{name}: truncated: its header promises {header.voxels} bytes of voxels, it "
                    f"has at most {most}; copy it again"
                )
            if not pair:
                file.read(max(header.start - header.length, 0))
                found, bad, spare = _scan_bytes(file, header.voxels, header.float_type)
        if pair:
            with _opened(pair[0]) as file:
                file.read(max(header.start, 0))
                found, bad, spare = _scan_bytes(file, header.voxels, header.float_type)
    except (EOFError, OSError, zlib.error):
        raise SubjectError(
            f"{name}: cannot be read: truncated or corrupt (its compressed data break off)"
        ) from None
    if found < header.voxels:
        raise SubjectError(
            f"{name}: truncated: its header promises {header.voxels} bytes of voxels, it has "
            f"{found}; copy it again"
        )
    if spare > MOST_SPARE:
        raise SubjectError(
            f"{name}: holds over {MOST_SPARE} bytes more than its header promises; copy it again"
        )
    if bad:
        raise SubjectError(f"{name}: {bad} voxels are NaN or infinite")


def header_of(path: Path) -> NiftiHeader | None:
    """The header of a file, or None if it has none that is whole."""
    try:
        with _opened(path) as file:
            return read_header(file)
    except (EOFError, OSError, zlib.error):
        return None


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
            header = read_header(file)
            if header is None or not header.length <= header.start <= 1 << 20:
                return None
            file.seek(0)
            before = zlib.crc32(file.read(header.start))
        with open(path, "rb") as raw:
            raw.seek(-8, os.SEEK_END)
            whole, length = struct.unpack("<2I", raw.read(8))
    except (EOFError, OSError, zlib.error):
        return None
    return (before, whole) if length == header.start + header.voxels else None


def read_nifti2(path: Path, name: str) -> tuple[npt.NDArray[Any], Floats]:
    """Voxels `(x, y, z, …)`, scaled, and affine of a NIfTI-2 that was checked.

    SimpleITK does not read this version; nibabel does.

    Raises:
        SubjectError: its header is damaged.
    """
    nib = import_module("nibabel")
    try:
        with quiet(), np.errstate(all="ignore"):
            image = nib.load(path)
            return np.asanyarray(image.dataobj), np.asarray(image.affine, float)
    except Exception:  # a damaged header may raise anything
        raise SubjectError(
            f"{name}: cannot be read: truncated, corrupt or not a NIfTI file"
        ) from None


def analyze_affine(path: Path) -> Floats:
    """Where the voxels of an Analyze 7.5 are taken to be: its header has no orientation.

    The axes run from right to left, back to front and feet to head, as the format's default
    (transverse, unflipped) says; the origin is SPM's where the header has one, else the middle.
    """
    spm = import_module("nibabel.spm99analyze")
    with _opened(path) as file:
        header = spm.Spm99AnalyzeHeader.from_fileobj(file, check=False)
    return np.asarray(header.get_origin_affine(), float)


def read_header(file: Any) -> NiftiHeader | None:
    """The header that a file begins with, or None if it is none."""
    start = file.read(348)
    for order in "<>":
        size = struct.unpack_from(f"{order}i", start)[0] if len(start) == 348 else 0
        if size == 348:
            dim = struct.unpack_from(f"{order}8h", start, 40)
            (datatype,) = struct.unpack_from(f"{order}h", start, 70)
            (offset,) = struct.unpack_from(f"{order}f", start, 108)
            analyze = start[344:347] not in (b"n+1", b"ni1")
        elif size == 540:
            if len(file.read(540 - 348)) < 540 - 348:
                return None
            (datatype,) = struct.unpack_from(f"{order}h", start, 12)
            dim = struct.unpack_from(f"{order}8q", start, 16)
            (offset,) = struct.unpack_from(f"{order}q", start, 168)
            analyze = False
        else:
            continue
        if not (1 <= dim[0] <= 7 and datatype in BITS and 0 <= offset <= MOST_OFFSET):
            return None
        shape = tuple(max(n, 1) for n in dim[1 : dim[0] + 1])
        length = prod(shape) * BITS[datatype] // 8
        kind = FLOATS.get(datatype)
        float_type = None if kind is None else order + kind
        return NiftiHeader(size, int(offset), shape, length, float_type, analyze)
    return None


def _opened(path: Path) -> Any:
    return gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb")


def _scan_bytes(file: Any, length: int, float_type: str | None) -> tuple[int, int, int]:
    """Bytes of voxels that are there, how many of their floats are not finite, and bytes to spare.

    At most `MOST_SPARE` of these are looked for.
    """
    found = bad = spare = 0
    # Reading to the end also verifies the checksum that closes a gzip file.
    while spare <= MOST_SPARE and (block := file.read(1 << 20)):
        voxels = block[: length - found]
        found += len(voxels)
        spare += len(block) - len(voxels)
        if float_type is not None:
            values = np.frombuffer(voxels[: len(voxels) // 8 * 8], float_type)
            bad += values.size - int(np.count_nonzero(np.isfinite(values)))
    return found, bad, spare
