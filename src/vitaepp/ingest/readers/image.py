"""The result of reading, the checks on every image, and reading by SimpleITK."""

from __future__ import annotations

import ctypes
import locale
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.geometry import Grid, simpleitk
from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.dicom_elements import is_refused, unpacked
from vitaepp.ingest.readers.packed import is_packed
from vitaepp.system.host import installed_memory
from vitaepp.system.text import dimensions

#: Most pixels of a picture; Pillow, too, refuses more as a decompression bomb (twice its
#: `Image.MAX_IMAGE_PIXELS`).
MOST_PIXELS = 178_956_970

#: Most pixels along one side of a picture; no JPEG is longer.
MOST_ALONG_A_SIDE = 65_535

#: Most bytes that one compressed byte can become; the densest compression, deflate, gives 1032.
MOST_EXPANSION = 1100

#: Bytes of memory that a voxel needs until it is in the store.
BYTES_A_VOXEL = 8

#: Weights that turn colour into grey: luma of Rec. ITU-R BT.601, as in common tools.
LUMINANCE = np.array([0.299, 0.587, 0.114])

#: A colour picture counts as grey if its channels differ by at most this; JPEG rounds each channel.
GREY_TOLERANCE = 2

#: SimpleITK's name for its DICOM reader.
DICOM_READER = "GDCMImageIO"

#: What libjpeg prints if it could not decode some data and filled the gap with made-up values.
MENDED = (b"bad Huffman code", b"remature end", b"found marker")

#: Most bytes that are kept of what a library prints.
MOST_PRINTED = 1 << 16

#: The note on an image whose header gives no position; a mask without one takes its image's.
NO_FORM = (
    "neither sform nor qform is set; axes are assumed to run from right to left, back to front, "
    "feet to head"
)

#: The note on an image whose header gives no voxel size; a mask without one takes its image's.
NO_SIZE = "the header gives no voxel size; 1 mm is assumed"

#: The note on a CT in which a window in Hounsfield units would be of another unit.
OTHER_UNIT = "its header does not say that its values are Hounsfield units"


@dataclass(frozen=True, eq=False)
class Image:
    """An image as it was read.

    Attributes:
        values: scans `(x, y, z)` in the file's own axis order; pictures `(row, column)` or
            `(row, column, 3)`; arrays `(*space)` or `(*space, 3)`; any real type.
        grid: the grid of the spatial axes.
        physical: whether the grid is in mm.
        notes: decisions that were made to read it. They contain neither file names nor values, so
            that equal notes can be counted over subjects.
        pixel: height and width of a picture's pixels, the shorter side 1; empty for squares.
    """

    values: npt.NDArray[Any]
    grid: Grid
    physical: bool
    notes: tuple[str, ...] = ()
    pixel: tuple[float, ...] = ()

    @property
    def is_colour(self) -> bool:
        """Whether the last axis of the values is red, green and blue."""
        return self.values.ndim > self.grid.ndim


def is_grey(image: Image) -> bool:
    """Whether an image shows only grey, even if it is stored in colour."""
    if not image.is_colour:
        return True
    return bool(np.ptp(image.values.astype(float), axis=-1).max() <= GREY_TOLERANCE)


def to_grey(image: Image) -> npt.NDArray[Any]:
    """The luminance of an image; if all colour channels are equal, the first is returned."""
    values = image.values
    if not image.is_colour:
        return values
    if (values[..., :1] == values).all():
        return np.asarray(values[..., 0])
    return np.asarray(values @ LUMINANCE)


def checked(values: npt.NDArray[Any], name: str, constant: bool) -> npt.NDArray[Any]:
    """Return the values unchanged if they can be an image.

    Raises:
        SubjectError: there are no values, some are not finite, or all are equal and `constant` is
            false.
    """
    if values.dtype.kind == "f":
        bad = values.size - int(np.count_nonzero(np.isfinite(values)))
        if bad:
            raise SubjectError(f"{name}: {bad} of {values.size} voxels are NaN or infinite")
    if values.size == 0:
        raise SubjectError(f"{name}: has no voxels")
    few = values[(slice(None, None, 16),) * values.ndim]  # if these differ, the rest need no look
    if not constant and few.min() == few.max() and values.min() == values.max():
        raise SubjectError(f"{name}: every voxel has the same value, {values.flat[0]:g}")
    return values


@cache
def most_voxels() -> int:
    """The most voxels that one file may have; they would fill half of the machine's memory."""
    return installed_memory() // 2 // BYTES_A_VOXEL


def refuse_absurd_size(size: Sequence[int], name: str, components: int = 1) -> None:
    """Refuse an image that would fill the memory, by the size in its header.

    Raises:
        SubjectError: the picture has too many pixels, or the scan too many voxels.
    """
    most = min(most_voxels(), MOST_PIXELS) if len(size) == 2 else most_voxels()
    too_long = len(size) == 2 and max(size) > MOST_ALONG_A_SIDE
    if too_long or prod(int(n) for n in size) * components > most:
        shape = dimensions(size)
        raise SubjectError(
            f"{name}: its header promises an image of {shape}, more than the {most} values "
            f"({MOST_ALONG_A_SIDE} along a side of a picture) that are read on this machine; if "
            "the size is right, crop the image or use a machine with more memory"
        )


def check_present(path: Path, name: str) -> None:
    """Refuse a file that is missing or empty."""
    if not path.is_file():
        raise SubjectError(f"{name}: no such file")
    if path.stat().st_size == 0:
        raise SubjectError(f"{name}: the file is empty")


def read_image(path: Path, name: str, reader: str = "", length: int | None = None) -> Any:
    """Read a file as a SimpleITK image.

    Args:
        path: the file.
        name: its name in error messages.
        reader: SimpleITK's name for the format; if empty, SimpleITK finds it by content.
        length: total bytes of the files that hold the image. Unset: the size of `path`.

    Raises:
        SubjectError: it cannot be read, is absurdly large, or its header promises more than the
            file can hold. SimpleITK's own message is not used, because it may quote the header.
    """
    if reader == DICOM_READER and is_packed(path):
        try:
            with unpacked(path) as plain:
                return read_image(plain, name, reader)
        except ValueError:
            raise SubjectError(f"{name}: cannot be read: truncated, corrupt or too large") from None
    sitk = simpleitk()
    opened = sitk.ImageFileReader()
    opened.SetFileName(os.fspath(path))
    opened.SetImageIO(reader)
    try:
        with quiet() as printed:
            opened.ReadImageInformation()
            # SimpleITK allocates the memory that the header promises before it reads a voxel.
            refuse_absurd_size(opened.GetSize(), name, opened.GetNumberOfComponents())
            kind = sitk.GetPixelIDValueAsString(opened.GetPixelIDValue())  # 16-bit signed integer
            bits = re.search(r"(\d+)-bit", kind)
            values = prod(opened.GetSize()) * opened.GetNumberOfComponents()
            promised = values * int(bits[1] if bits else 8) // 8
            if promised > MOST_EXPANSION * (path.stat().st_size if length is None else length):
                raise SubjectError(
                    f"{name}: its header promises {promised} bytes, more than the file can hold"
                )
            image = opened.Execute()
    except RuntimeError:
        if reader == DICOM_READER and is_refused(path):
            raise SubjectError(
                f"{name}: MONOCHROME1 with signed values of 12 bits is not supported; save it as "
                "MONOCHROME2"
            ) from None
        # SimpleITK's own message has several lines and may quote the header.
        raise SubjectError(f"{name}: cannot be read: truncated, corrupt or not an image") from None
    if any(mended in printed for mended in MENDED):
        raise SubjectError(f"{name}: cannot be read: its data are corrupt; copy it again")
    return image


#: All threads of a process share its standard error, and Dask's workers run several threads.
_ONE_QUIET = threading.RLock()


@contextmanager
def quiet() -> Iterator[bytearray]:
    """Keep the C libraries that SimpleITK uses from printing to standard output or error.

    Yields:
        A buffer that holds their output after the block has ended. It must not be shown.
    """
    sitk = simpleitk()
    with _ONE_QUIET:
        language = locale.setlocale(locale.LC_ALL)
        warnings = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        printed = bytearray()
        kept = [(number, os.dup(number)) for number in (1, 2)]
        with TemporaryFile() as instead:
            for number, _ in kept:
                os.dup2(instead.fileno(), number)
            try:
                yield printed
            finally:
                if os.name == "posix":
                    ctypes.CDLL(None).fflush(None)  # the libraries' own buffers
                for number, copy in kept:
                    os.dup2(copy, number)
                    os.close(copy)
                instead.seek(0)
                printed += instead.read(MOST_PRINTED)
                sitk.ProcessObject.SetGlobalWarningDisplay(warnings)
            locale.setlocale(locale.LC_ALL, language)  # reading JPEG in DICOM changes it
