"""Readers: one image file to an array and its grid, or one clear line on why not.

Of a file's header only geometry is used. Nothing else of it leaves this module, error messages
included: they name what is wrong, not what the file says about the patient.
"""

from __future__ import annotations

import gzip
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from vitaepp.errors import SourceError, SubjectError
from vitaepp.ingest.geometry import Grid, simpleitk

SCAN_SUFFIXES = (".nii.gz", ".nii")
PICTURE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff")

NIFTI_HEADER = 348
NIFTI_FLOATS = {16: "f4", 64: "f8"}

#: Luma of Rec. ITU-R BT.601, as common tools turn colour to grey.
LUMINANCE = np.array([0.299, 0.587, 0.114])

#: Colour pictures whose channels differ by no more than this are grey: JPEG rounds each channel.
GREY_TOLERANCE = 2


@dataclass(frozen=True, eq=False)
class Image:
    """One image as it was read.

    Attributes:
        values: scans `(x, y, z)` in the file's own axis order; pictures `(row, column)` or
            `(row, column, 3)`; arrays `(*space)` or `(*space, 3)`; any real type.
        grid: where the spatial axes lie.
        physical: whether the grid is in mm.
    """

    values: npt.NDArray[Any]
    grid: Grid
    physical: bool

    @property
    def is_colour(self) -> bool:
        """Whether the values have a last axis of red, green and blue."""
        return self.values.ndim > self.grid.ndim


def suffix_of(name: str, suffixes: tuple[str, ...]) -> str:
    """The one of `suffixes` that a file name ends with, as written there, or an empty string.

    >>> suffix_of("T1.NII.GZ", SCAN_SUFFIXES)
    '.NII.GZ'
    """
    for suffix in suffixes:
        if name.lower().endswith(suffix):
            return name[-len(suffix) :]
    return ""


def read_scan(path: Path, name: str, *, constant: bool = False) -> Image:
    """Read a 3D scan.

    Args:
        path: NIfTI file.
        name: what to call it in an error.
        constant: whether a volume of one value is fine, as it is for a mask.

    Raises:
        SubjectError: missing, truncated, corrupt, not 3D, not finite, or constant.
    """
    _check_present(path, name)
    promised = _promised_checksum(path)
    if promised is None:
        _check_nifti(path, name)
    sitk = simpleitk()
    try:
        image = _read(path, name)
    except SubjectError:
        _check_nifti(path, name)  # it may know better why
        raise
    if promised is not None:
        before, whole = promised
        if zlib.crc32(sitk.GetArrayViewFromImage(image), before) != whole:
            _check_nifti(path, name)
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise SubjectError(
            f"{name}: has {image.GetNumberOfComponentsPerPixel()} values a voxel; a scan has one"
        )
    if "complex" in image.GetPixelIDTypeAsString():
        raise SubjectError(f"{name}: its voxels are complex numbers; give their magnitude")
    size = image.GetSize()
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    if len(size) != 3:
        shape = "×".join(str(n) for n in size)
        raise SubjectError(
            f"{name}: is {len(size)}D ({shape}); a 3D volume is needed, one file a modality"
        )
    if len(size) < image.GetDimension():
        depth = [*size, *[0] * (image.GetDimension() - 3)]
        image = sitk.Extract(image, depth, [0] * image.GetDimension())
    spacing, direction = np.array(image.GetSpacing()), np.reshape(image.GetDirection(), (3, 3))
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1  # SimpleITK's world is LPS
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise SubjectError(f"{name}: its header gives no usable spacing and orientation")
    values = np.asarray(sitk.GetArrayFromImage(image)).T
    return Image(_checked(values, name, constant), Grid(tuple(size), affine), True)


def read_picture(path: Path, name: str, *, constant: bool = False) -> Image:
    """Read a 2D image, grey or colour; transparency is dropped.

    Raises:
        SubjectError: missing, truncated, corrupt, not 2D, not finite, or constant.
    """
    _check_present(path, name)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        _check_jpeg(path, name)
    sitk = simpleitk()
    image = _read(path, name)
    size = image.GetSize()
    while len(size) > 2 and size[-1] == 1:
        size = size[:-1]
    if len(size) != 2:
        raise SubjectError(f"{name}: has {size[-1]} pages; one picture a file is needed")
    values = np.asarray(sitk.GetArrayFromImage(image))
    values = values.reshape(size[1], size[0], -1)
    values = values[..., 0] if values.shape[-1] < 3 else values[..., :3]
    return Image(_checked(values, name, constant), Grid.of_indices(values.shape[:2]), False)


def read_array(values: npt.NDArray[Any], name: str) -> Image:
    """Take in an item of an array of images, `(*space)`, `(*space, 1)` or `(*space, 3)`.

    Raises:
        SubjectError: not numbers, not two or three spatial axes, not finite, or constant.
    """
    if values.dtype.kind not in "biuf":
        raise SubjectError(f"{name}: holds {values.dtype}, not numbers")
    space = space_of(values.shape)
    if len(space) not in (2, 3):
        raise SubjectError(f"{name}: has {len(space)} spatial axes; images have two or three")
    values = values if values.shape[-1] == 3 and values.ndim > len(space) else values.reshape(space)
    return Image(_checked(values, name, constant=False), Grid.of_indices(space), False)


def space_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The spatial axes of an image in an array: a last axis of 1 or 3 after two others is colour.

    >>> space_of((28, 28, 3)), space_of((64, 64, 64))
    ((28, 28), (64, 64, 64))
    """
    return shape[:-1] if len(shape) > 2 and shape[-1] in (1, 3) else shape


def is_grey(image: Image) -> bool:
    """Whether an image is grey in content, also when it is stored as colour."""
    if not image.is_colour:
        return True
    return bool(np.ptp(image.values.astype(float), axis=-1).max() <= GREY_TOLERANCE)


def to_grey(image: Image) -> npt.NDArray[Any]:
    """Luminance of an image; colour channels that are equal are copied, not computed."""
    values = image.values
    if not image.is_colour:
        return values
    if (values[..., :1] == values).all():
        return np.asarray(values[..., 0])
    return np.asarray(values @ LUMINANCE)


def _checked(values: npt.NDArray[Any], name: str, constant: bool) -> npt.NDArray[Any]:
    if values.dtype.kind == "f":
        bad = values.size - int(np.count_nonzero(np.isfinite(values)))
        if bad:
            raise SubjectError(f"{name}: {bad} of {values.size} voxels are NaN or infinite")
    if values.size == 0:
        raise SubjectError(f"{name}: has no voxels")
    if not constant and values.min() == values.max():
        raise SubjectError(f"{name}: every voxel has the same value, {values.flat[0]:g}")
    return values


def _check_present(path: Path, name: str) -> None:
    if not path.is_file():
        raise SubjectError(f"{name}: no such file")
    if path.stat().st_size == 0:
        raise SubjectError(f"{name}: the file is empty")


def _read(path: Path, name: str) -> Any:
    sitk = simpleitk()
    try:
        with _quiet():
            return sitk.ReadImage(os.fspath(path))
    except RuntimeError as error:
        # The library's own text spans lines and may quote the header.
        if "orthonormal" in str(error):
            reason = "its axes are not at right angles (sheared affine); resample it first"
        else:
            reason = "truncated, corrupt or not an image"
        raise SubjectError(f"{name}: cannot be read: {reason}") from None


def _check_nifti(path: Path, name: str) -> None:
    """Refuse what the image library mends in silence: it puts zeros for missing bytes and NaN."""
    compressed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if compressed else open(path, "rb") as file:
            header = file.read(NIFTI_HEADER)
            if header[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
                raise SubjectError(f"{name}: is NIfTI-2, which is not read; save it as NIfTI-1")
            data = _nifti_data(header)
            if data is None:
                raise SubjectError(
                    f"{name}: cannot be read: truncated, corrupt or not a NIfTI file"
                )
            start, length, float_type = data
            file.read(max(start - NIFTI_HEADER, 0))
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


def _promised_checksum(path: Path) -> tuple[int, int] | None:
    """CRC-32 of what precedes a NIfTI's voxels, and of all, from the end of its gzip file.

    If the voxels that were read complete the one to the other, nothing was mended, and the file
    need not be decompressed a second time to know. None where the end does not promise just what
    the header does (not one gzip member, bytes to spare, cut off).
    """
    if not path.name.lower().endswith(".gz"):
        return None
    try:
        with gzip.open(path) as file:
            header = file.read(NIFTI_HEADER)
            data = _nifti_data(header)
            if data is None or not NIFTI_HEADER <= data[0] <= 1 << 20:
                return None
            before = zlib.crc32(header + file.read(data[0] - NIFTI_HEADER))
        with open(path, "rb") as raw:
            raw.seek(-8, os.SEEK_END)
            whole, length = struct.unpack("<2I", raw.read(8))
    except (EOFError, OSError, zlib.error):
        return None
    return (before, whole) if length == data[0] + data[1] else None


def _nifti_data(header: bytes) -> tuple[int, int, str | None] | None:
    """Start and length of a NIfTI-1's voxels in bytes, and their type if they are floats."""
    for order in "<>":
        if len(header) == NIFTI_HEADER and struct.unpack_from(f"{order}i", header)[0] == 348:
            dim = struct.unpack_from(f"{order}8h", header, 40)
            datatype, bits = struct.unpack_from(f"{order}2h", header, 70)
            (start,) = struct.unpack_from(f"{order}f", header, 108)
            if not 1 <= dim[0] <= 7 or not np.isfinite(start):
                return None
            length = prod(max(n, 1) for n in dim[1 : dim[0] + 1]) * bits // 8
            kind = NIFTI_FLOATS.get(datatype)
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


def _check_jpeg(path: Path, name: str) -> None:
    """Refuse a JPEG without its end mark; the image library fills up with grey."""
    data = path.read_bytes()
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise SubjectError(f"{name}: truncated: the end of the JPEG is missing; copy it again")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the C libraries below SimpleITK from printing to standard error."""
    sitk = simpleitk()
    warnings = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
        sitk.ProcessObject.SetGlobalWarningDisplay(warnings)


class NpzArray:
    """One array of a `.npz`, read front to back, one item in memory at a time.

    Attributes:
        shape: of the whole array.
        dtype: of its values.

    Raises:
        SourceError: not an .npz, damaged, without this key, or holding Python objects.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        with self._open() as member:
            self.shape, self._fortran, self.dtype = _npy_header(member)
        if self.dtype.hasobject:
            raise SourceError(f"{path.name}: {key} holds Python objects, which are not opened")

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Items along the first axis, in order."""
        if self._fortran:  # items are not contiguous then
            with np.load(self.path, allow_pickle=False) as arrays:
                yield from arrays[self.key]
            return
        length = prod(self.shape[1:]) * self.dtype.itemsize
        with self._open() as member:
            _npy_header(member)
            for _ in range(len(self)):
                data = member.read(length)
                if len(data) < length:
                    raise EOFError
                yield np.frombuffer(data, self.dtype).reshape(self.shape[1:])

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.key}.npy") as member:
                yield member
        except KeyError:
            raise SourceError(f"{self.path.name}: has no array {self.key}") from None
        except (zipfile.BadZipFile, EOFError, zlib.error, ValueError, OSError):
            raise SourceError(
                f"{self.path.name}: truncated, corrupt or not an .npz file; copy it again"
            ) from None


def npz_keys(path: Path) -> list[str]:
    """Names of the arrays in a `.npz`.

    Raises:
        SourceError: not an .npz, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
    except (zipfile.BadZipFile, OSError):
        raise SourceError(
            f"{path.name}: truncated, corrupt or not an .npz file; copy it again"
        ) from None


def _npy_header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)
