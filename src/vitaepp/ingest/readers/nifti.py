"""NIfTI, Analyze and MGH files: nibabel interprets the headers, and the voxels are read here.

A file is decompressed only once. Its length and checksum are compared with its header, and no
memory is allocated before the promised size is known to be possible.
"""

from __future__ import annotations

import gzip
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Floats
from vitaepp.data.geometry import Grid, array_of, farthest_apart
from vitaepp.data.suffixes import SCAN_SUFFIXES, suffix_of
from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.detached import voxel_files
from vitaepp.ingest.readers.image import (
    MOST_EXPANSION,
    NO_FORM,
    NO_SIZE,
    read_image,
    refuse_absurd_size,
)
from vitaepp.ingest.readers.packed import is_packed, open_unpacked

#: Most bytes that may follow the voxels; real files have a few, decompression bombs have many.
MOST_SPARE = 1 << 30

#: Largest offset of the voxels in a file; header extensions come before them.
MOST_OFFSET = 1 << 24

#: Bytes of the longest header, which is NIfTI-2's.
LONGEST_HEADER = 540

#: From this number of bytes on, decompressing by SimpleITK is faster.
LARGE = 1 << 22

#: nibabel's header classes by suffix; the first that fits the file is used.
HEADERS = {
    ".nii": ("nifti1.Nifti1Header", "nifti2.Nifti2Header"),
    ".hdr": ("nifti1.Nifti1PairHeader", "nifti2.Nifti2PairHeader", "spm2analyze.Spm2AnalyzeHeader"),
    ".mgh": ("freesurfer.mghformat.MGHHeader",),
}
HEADERS |= {".nii.gz": HEADERS[".nii"], ".mgz": HEADERS[".mgh"]}

#: A logger that shows nothing: nibabel's messages about header faults may quote the header.
_UNHEARD = logging.Logger("nibabel's, unheard", logging.CRITICAL + 1)

#: Two affines count as equal if they place every voxel less than this apart, in voxels.
SAME_PLACE = 0.1

#: mm per unit of length, by the code of the unit (the lower three bits of `xyzt_units`).
UNITS = {1: 1e3, 3: 1e-3}


@dataclass(frozen=True)
class VolumeHeader:
    """The voxels that a header describes.

    Attributes:
        shape: voxels per axis.
        dtype: type of the voxels in the file.
        start: offset of the voxels in their file, in bytes.
        scale: slope and intercept; None if the header has none.
        affine: index to RAS+ world in mm.
        notes: decisions that were made about the position of the voxels.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    scale: tuple[float | None, float | None]
    affine: Floats
    notes: tuple[str, ...]

    @property
    def length(self) -> int:
        """Number of bytes of all voxels."""
        return prod(self.shape) * self.dtype.itemsize


def read_volume_header(path: Path, name: str) -> VolumeHeader:
    """Read the header of a NIfTI, Analyze or MGH file; the file may end after it.

    Raises:
        SubjectError: it is not such a file, or damaged.
    """
    with _opened(path, name) as file:
        return _header(file, path, name)


def read_volume(path: Path, name: str) -> tuple[npt.NDArray[Any], VolumeHeader]:
    """Read the scaled voxels `(x, y, z, …)` and the header of a NIfTI, Analyze or MGH file.

    Raises:
        SubjectError: the file is damaged, truncated, absurdly large, or its length does not fit
            its header.
    """
    pair = voxel_files(path)
    with _opened(path, name) as file:
        header = _header(file, path, name)
        refuse_absurd_size(header.shape, name)
        most = (pair[0] if pair else path).stat().st_size * MOST_EXPANSION
        if header.length > most:
            raise SubjectError(
                f"{name}: truncated: its header promises {header.length} bytes of voxels, it has "
                f"at most {most}; copy it again"
            )
        if not pair:
            values = _inflated(path, header, name)
            return _voxels(file, header, name) if values is None else values, header
    with _opened(pair[0], name) as file:
        return _voxels(file, header, name), header


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    """Open a file and decompress it; an error inside the block becomes a SubjectError."""
    try:
        with open_unpacked(path) as file:
            yield file
    except (EOFError, OSError, zlib.error):
        raise SubjectError(
            f"{name}: cannot be read: truncated or corrupt (its compressed data break off)"
        ) from None


def _header(file: Any, path: Path, name: str) -> VolumeHeader:
    suffix = suffix_of(path.name, SCAN_SUFFIXES).lower()
    start = file.read(LONGEST_HEADER)
    try:
        with np.errstate(all="ignore"):
            return _parsed(start, suffix, path)
    except Exception:  # a damaged header may raise anything in nibabel
        kind = "an MGH" if suffix in (".mgh", ".mgz") else "a NIfTI"
        raise SubjectError(
            f"{name}: cannot be read: truncated, corrupt or not {kind} file"
        ) from None


def _parsed(start: bytes, suffix: str, path: Path) -> VolumeHeader:
    """Parse a header from a file's first bytes; may raise any exception if they are not one."""
    mgh = suffix in (".mgh", ".mgz")
    classes = [_header_class(name) for name in HEADERS[suffix]]
    kind = next(c for c in classes if mgh or c.may_contain_header(start))
    # MGH has a second part of the header after the voxels, which is not needed.
    length = kind._hdrdtype.itemsize if mgh else kind.template_dtype.itemsize
    if len(start) < length:
        raise EOFError
    header = kind(start[:length], check=False)
    sizes = [] if mgh else header["pixdim"][1:4].tolist()  # which nibabel mends
    header.check_fix(logger=_UNHEARD)
    shape = tuple(int(n) for n in header.get_data_shape())
    offset = header.get_data_offset()
    least = 0 if suffix == ".hdr" else length
    if not (1 <= len(shape) <= 7 and min(shape) >= 0 and least <= offset <= MOST_OFFSET):
        raise ValueError
    if mgh:
        affine = np.asarray(header.get_best_affine(), float)
        notes = [] if np.frombuffer(start, ">i2", 1, MGH_HAS_PLACE)[0] else [NO_PLACE]
    elif hasattr(header, "get_sform"):
        affine, notes = _nifti_place(header, shape, np.equal(sizes, 0))
    else:
        affine, notes = np.asarray(header.get_origin_affine(), float), [NO_ORIENTATION]
        if path.with_suffix(".mat").is_file():
            notes.append("Analyze: the .mat file beside it is not read")
    if 0 in sizes and not (hasattr(header, "get_sform") and header["sform_code"] > 0):
        notes.append(NO_SIZE)
    if any(size < 0 for size in sizes):
        notes.append("pixdim is negative; its sign is ignored")
    scale = header.get_slope_inter()
    return VolumeHeader(shape, header.get_data_dtype(), int(offset), scale, affine, tuple(notes))


def _nifti_place(
    header: Any, shape: tuple[int, ...], unsized: npt.NDArray[np.bool_]
) -> tuple[Floats, list[str]]:
    """The affine that nibabel chooses, in mm, and notes on what is unusual about it.

    Along axes that are `unsized` in the header a voxel is 1 mm long, whatever the unit.
    """
    factor = UNITS.get(int(header["xyzt_units"]) & 7)
    header["pixdim"][1:4][unsized] = 1 / (factor or 1)
    affine = np.asarray(header.get_best_affine(), float)
    notes = []
    sform, qform = (int(header[code]) > 0 for code in ("sform_code", "qform_code"))
    if sform and qform and _differ(header, Grid((*shape, 1, 1)[:3], affine)):
        notes.append("sform and qform differ by more than a tenth of a voxel; the sform is used")
    if not sform and not qform:
        notes.append(NO_FORM)
    if factor is not None:
        notes.append(f"lengths are in {'metres' if factor > 1 else 'micrometres'}; converted to mm")
        affine[:3] *= factor
    return affine, notes


def _differ(header: Any, grid: Grid) -> bool:
    """Whether a header's qform places some voxel elsewhere than its sform, which `grid` has."""
    try:
        return farthest_apart(grid, header.get_qform()) > SAME_PLACE
    except Exception:  # its numbers are not a quaternion
        return True


def _header_class(name: str) -> Any:
    module, _, name = name.rpartition(".")
    return getattr(import_module(f"nibabel.{module}"), name)


def _inflated(path: Path, header: VolumeHeader, name: str) -> npt.NDArray[Any] | None:
    """The voxels of a large gzip file, decompressed by SimpleITK in half of Python's time.

    Returns None if the checksum at the file's end does not confirm the bytes, or cannot (scaled
    voxels, several gzip members, a damaged file).
    """
    plain = header.scale in ((None, None), (1, 0)) and header.dtype.isnative
    # SimpleITK decompresses what has such a name.
    named = path.name.lower().endswith(".nii.gz")
    if not (plain and named and header.length > LARGE and is_packed(path)):
        return None
    with gzip.open(path) as file:
        before = zlib.crc32(file.read(header.start))
    with open(path, "rb") as raw:
        raw.seek(-8, os.SEEK_END)
        whole, length = struct.unpack("<2I", raw.read(8))
    if length != header.start + header.length:
        return None
    try:
        data = array_of(read_image(path, name, "NiftiImageIO"))
    except SubjectError:
        return None
    if data.nbytes != header.length or zlib.crc32(data.data, before) != whole:
        return None
    return np.ndarray(header.shape, header.dtype, data.data, order="F")


def _voxels(file: Any, header: VolumeHeader, name: str) -> npt.NDArray[Any]:
    """Read the voxels that a header promises from an open file, and scale them."""
    volumeutils = import_module("nibabel.volumeutils")
    data = np.empty(header.length, np.uint8)
    file.seek(header.start)
    length = _fill(file, data.data)
    if length < header.length:
        raise SubjectError(
            f"{name}: truncated: its header promises {header.length} bytes of voxels, it has "
            f"{length}; copy it again"
        )
    # Reading to the end also verifies the checksum at the end of a gzip file.
    spare = 0
    while block := file.read(1 << 20):
        spare += len(block)
        if spare > MOST_SPARE:
            raise SubjectError(
                f"{name}: holds over {MOST_SPARE} bytes more than its header promises; copy it "
                "again"
            )
    values: npt.NDArray[Any] = np.ndarray(header.shape, header.dtype, data.data, order="F")
    if values.dtype.kind not in "iuf":
        return values
    with np.errstate(all="ignore"):
        values = volumeutils.apply_read_scaling(values, *header.scale)
        wide = values.dtype.itemsize > 8
        return values.astype(np.float64 if wide else values.dtype.newbyteorder("="), copy=False)


def _fill(file: Any, room: memoryview) -> int:
    """Read into `room` until it is full or the file ends, and return the number of bytes read."""
    total = 0
    while total < len(room) and (length := file.readinto(room[total : total + (1 << 20)])):
        total += length
    return total


#: Offset in an MGH header of the flag for a position and directions.
MGH_HAS_PLACE = 28

NO_PLACE = (
    "MGH without a position; as in FreeSurfer, coronal slices of 1 mm around the middle are assumed"
)
NO_ORIENTATION = (
    "Analyze has no orientation; axes are assumed to run from right to left, back to front, feet "
    "to head"
)
