"""Images that are items of an array, the arrays of a `.npz`, and the image in a `.npy`."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Floats
from vitaepp.data.geometry import Grid, is_usable
from vitaepp.errors import SourceError, SubjectError
from vitaepp.ingest.readers.cifar import cifar_images
from vitaepp.ingest.readers.image import MOST_EXPANSION, Image, checked, refuse_absurd_size
from vitaepp.system.text import dimensions

NO_HEADER = (
    "a .npy has no header; voxels of 1 mm, and axes from left to right, back to front, feet to "
    "head are assumed"
)
FEW = "an axis has 4 values or fewer; if these are colours or modalities, it is no volume"


def read_array(values: npt.NDArray[Any], name: str, *, constant: bool = False) -> Image:
    """Check one item of an array of images, `(*space)`, `(*space, 1)` or `(*space, 3)`.

    Raises:
        SubjectError: the values are not real numbers, do not have two or three spatial axes, are
            not finite, or are all the same without `constant`.
    """
    if values.dtype.kind not in "biuf":
        raise SubjectError(f"{name}: its values are not real numbers")
    space = space_of(values.shape)
    if len(space) not in (2, 3):
        raise SubjectError(f"{name}: has {len(space)} spatial axes; images have two or three")
    values = values if values.shape[-1] == 3 and values.ndim > len(space) else values.reshape(space)
    return Image(checked(values, name, constant), Grid.of_indices(space), False)


def read_given(
    values: npt.NDArray[Any], affine: Floats | None, name: str, *, constant: bool = False
) -> Image:
    """Check an image in memory; with an affine it is a scan `(x, y, z)` in physical space.

    Raises:
        SubjectError: as `read_array`, or the affine cannot be that of a scan.
    """
    image = read_array(values, name, constant=constant)
    if affine is None:
        return image
    if image.grid.ndim != 3 or image.is_colour:
        raise SubjectError(
            f"{name}: is {dimensions(values.shape)}; a scan has three axes and one value per voxel"
        )
    if not is_usable(affine):
        raise SubjectError(f"{name}: its spacing or affine is not usable; give mm above 0")
    return replace(image, grid=Grid(image.grid.size, affine), physical=True)


def space_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The spatial axes of an image in an array; a last axis of 1 or 3 after two others is colour.

    >>> space_of((28, 28, 3)), space_of((64, 64, 64))
    ((28, 28), (64, 64, 64))
    """
    return shape[:-1] if len(shape) > 2 and shape[-1] in (1, 3) else shape


#: The most images that an array may hold; ImageNet has 14 million.
MOST_ITEMS = 20_000_000


class NpzArray:
    """One array of a `.npz`, read in order with one item in memory at a time.

    Attributes:
        shape: shape of the whole array.
        dtype: type of its values.

    Raises:
        SourceError: the file is not an .npz, is damaged or absurdly large, has no such key, or
            holds Python objects.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        with self._open() as member:
            self.shape, self._fortran, self.dtype = npy_header(member)
        if self.dtype.hasobject:
            raise SourceError(
                f"{path.name}: {key} holds Python objects (a pickle, which may run code), and is "
                "not opened; save it as numbers"
            )
        self._refuse_absurd_shape()

    def _refuse_absurd_shape(self) -> None:
        name = f"{self.path.name}: {self.key}"
        length = prod(self.shape) * self.dtype.itemsize
        if min(self.shape, default=0) < 0 or length > self.path.stat().st_size * MOST_EXPANSION:
            raise SourceError(
                f"{name}: truncated: its header promises {self.shape}, more than the file holds"
            )
        if len(self) > MOST_ITEMS:
            raise SourceError(f"{name}: {len(self)} images; at most {MOST_ITEMS} are read")
        # Items are read one at a time, but all at once if they are not contiguous.
        at_once = self.shape if self._fortran else self.shape[1:]
        try:
            refuse_absurd_size((*at_once, 1, 1), name)
        except SubjectError as error:
            raise SourceError(str(error)) from None

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """The items along the first axis, in order."""
        if self._fortran:  # then items are not contiguous
            with np.load(self.path, allow_pickle=False) as arrays:
                yield from arrays[self.key]
            return
        length = prod(self.shape[1:]) * self.dtype.itemsize
        with self._open() as member:
            npy_header(member)
            for _ in range(len(self)):
                data = member.read(length)
                if len(data) < length:
                    raise EOFError
                yield np.frombuffer(data, self.dtype).reshape(self.shape[1:])

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        with _npz(self.path) as archive:
            if f"{self.key}.npy" not in archive.namelist():
                raise SourceError(f"{self.path.name}: has no array {self.key}")
            with archive.open(f"{self.key}.npy") as member:
                yield member


@contextmanager
def _npz(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except SourceError:  # which is a ValueError, too
        raise
    except (zipfile.BadZipFile, EOFError, zlib.error, ValueError, OSError, RuntimeError):
        # RuntimeErrors come from encrypted members and from unknown compression methods.
        raise SourceError(
            f"{path.name}: truncated, corrupt or not an .npz file; copy it again"
        ) from None


def npz_keys(path: Path) -> list[str]:
    """The names of the arrays in a `.npz`.

    Raises:
        SourceError: the file is not an .npz, or damaged.
    """
    with _npz(path) as archive:
        return [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]


def npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a `.npy`: shape, whether it is in Fortran order, and type.

    Raises:
        ValueError: it is not the header of a `.npy`, or damaged.
        EOFError: the file breaks off.
    """
    version = np.lib.format.read_magic(file)
    try:
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        return np.lib.format.read_array_header_2_0(file)
    except (EOFError, ValueError, OSError):
        raise
    except Exception as error:  # the header is a Python expression, which may fail in any way
        raise ValueError("not a header of numpy's") from error


#: Images of one shape and type along the first axis.
ImageArray = NpzArray | npt.NDArray[np.uint8]


def open_array(path: Path, key: str) -> ImageArray:
    """Open the array of this name in a `.npz`, or the images of a CIFAR batch.

    Raises:
        SourceError: it is missing, damaged, or of another kind.
    """
    return NpzArray(path, key) if path.suffix.lower() == ".npz" else cifar_images(path, key)


def npy_axes(path: Path) -> int:
    """The number of spatial axes of a `.npy`, by its header; 0 if the file cannot be read.

    A last axis of 1 or 3 after two others is colour.
    """
    try:
        with open(path, "rb") as file:
            return len(space_of(npy_header(file)[0]))
    except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError):
        return 0


def read_npy(path: Path, name: str, *, ndim: int, constant: bool = False) -> Image:
    """Read a picture `(row, column)` or `(row, column, 3)`, or a volume `(x, y, z)`.

    Of a volume, 1 mm and left to right, back to front, feet to head are assumed; a note says so.

    Args:
        path: a `.npy`.
        name: of the image, for errors.
        ndim: 2 for a picture, 3 for a volume.
        constant: take an image whose values are all the same, as a mask may be.

    Raises:
        SubjectError: the file is not readable, pickled, not numbers, of other axes, not finite, or
            constant.
    """
    image = read_array(_values(path, name), name, constant=constant)
    if image.grid.ndim != ndim:
        wanted = "a picture has two axes" if ndim == 2 else "a 3D volume is needed"
        raise SubjectError(f"{name}: is {image.grid.ndim}D; {wanted}")
    if ndim == 3 and image.is_colour:
        raise SubjectError(f"{name}: has 3 values per voxel; a scan has one")
    if ndim == 2:
        return image
    few = (FEW,) * (min(image.grid.size) <= 4)
    return replace(image, physical=True, notes=(NO_HEADER, *few))


def _values(path: Path, name: str) -> npt.NDArray[Any]:
    try:
        with open(path, "rb") as file:
            shape, _, dtype = npy_header(file)
            if dtype.hasobject:
                raise SubjectError(
                    f"{name}: holds pickled Python objects, which are not opened; save numbers"
                )
            _check_length(file, prod(shape) * dtype.itemsize, name)
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError):
        raise SubjectError(
            f"{name}: cannot be read: truncated, corrupt or not a .npy file"
        ) from None


def _check_length(file: IO[bytes], promised: int, name: str) -> None:
    start = file.tell()
    length = file.seek(0, 2) - start
    if length < promised:
        raise SubjectError(
            f"{name}: truncated: its header promises {promised} bytes of values, it has {length}; "
            "copy it again"
        )
