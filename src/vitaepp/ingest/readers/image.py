"""What reading gives, and what every image is checked for."""

from __future__ import annotations

import ctypes
import locale
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.geometry import Grid, simpleitk
from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.dicom_elements import unpacked
from vitaepp.ingest.readers.limits import MOST_EXPANSION, refuse_absurd_size

#: Luma of Rec. ITU-R BT.601, as common tools turn colour to grey.
LUMINANCE = np.array([0.299, 0.587, 0.114])

#: Colour pictures whose channels differ by no more than this are grey: JPEG rounds each channel.
GREY_TOLERANCE = 2


#: SimpleITK's name of the format.
DICOM_READER = "GDCMImageIO"

#: What libjpeg prints when it fills up what it could not decode. Bytes to spare are no such.
MENDED = (b"bad Huffman code", b"remature end", b"found marker")
MOST_SAID = 1 << 16


#: A note of what lies nowhere by its own word; a mask is then taken to lie on its image.
NO_FORM = (
    "neither sform nor qform is set; spacing is the pixdim's, and axes are taken to run from right "
    "to left, back to front, feet to head"
)


@dataclass(frozen=True, eq=False)
class Image:
    """One image as it was read.

    Attributes:
        values: scans `(x, y, z)` in the file's own axis order; pictures `(row, column)` or
            `(row, column, 3)`; arrays `(*space)` or `(*space, 3)`; any real type.
        grid: where the spatial axes lie.
        physical: whether the grid is in mm.
        notes: what had to be decided to read it, in words that name neither file nor value, so
            that equal ones can be counted over subjects.
    """

    values: npt.NDArray[Any]
    grid: Grid
    physical: bool
    notes: tuple[str, ...] = ()

    @property
    def is_colour(self) -> bool:
        """Whether the values have a last axis of red, green and blue."""
        return self.values.ndim > self.grid.ndim


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


def checked(values: npt.NDArray[Any], name: str, constant: bool) -> npt.NDArray[Any]:
    """Values of any shape as they are, once they are known to be an image.

    Raises:
        SubjectError: none at all, some not finite, or all the same and not `constant`.
    """
    if values.dtype.kind == "f":
        bad = values.size - int(np.count_nonzero(np.isfinite(values)))
        if bad:
            raise SubjectError(f"{name}: {bad} of {values.size} voxels are NaN or infinite")
    if values.size == 0:
        raise SubjectError(f"{name}: has no voxels")
    few = values[(slice(None, None, 16),) * values.ndim]  # that differ tell as much as all
    if not constant and few.min() == few.max() and values.min() == values.max():
        raise SubjectError(f"{name}: every voxel has the same value, {values.flat[0]:g}")
    return values


def check_present(path: Path, name: str) -> None:
    """Refuse a file that is not there or holds nothing."""
    if not path.is_file():
        raise SubjectError(f"{name}: no such file")
    if path.stat().st_size == 0:
        raise SubjectError(f"{name}: the file is empty")


def read_image(path: Path, name: str, reader: str = "", there: int | None = None) -> Any:
    """A file as SimpleITK's image.

    Args:
        path: the file.
        name: what to call it in an error.
        reader: SimpleITK's name of the format; told by content if empty.
        there: bytes of all files that hold the image; the file's own if unset.

    Raises:
        SubjectError: it cannot be read, is absurdly large, or promises more than can be in it; the
            reason is ours, as the library's may quote the header.
    """
    if reader == DICOM_READER and path.suffix.lower() == ".gz":
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
        with quiet() as said:
            opened.ReadImageInformation()
            # Memory is asked for by the header's word alone, before a voxel is looked at.
            refuse_absurd_size(opened.GetSize(), name, opened.GetNumberOfComponents())
            kind = sitk.GetPixelIDValueAsString(opened.GetPixelIDValue())  # 16-bit signed integer
            bits = re.search(r"(\d+)-bit", kind)
            values = prod(opened.GetSize()) * opened.GetNumberOfComponents()
            promised = values * int(bits[1] if bits else 8) // 8
            if promised > MOST_EXPANSION * (path.stat().st_size if there is None else there):
                raise SubjectError(
                    f"{name}: its header promises {promised} bytes, more than the file can hold"
                )
            image = opened.Execute()
    except RuntimeError:
        # The library's own text spans lines and may quote the header.
        raise SubjectError(f"{name}: cannot be read: truncated, corrupt or not an image") from None
    if any(mended in said for mended in MENDED):
        raise SubjectError(f"{name}: cannot be read: its data are corrupt; copy it again")
    return image


#: Standard error belongs to the process, of which Dask's workers run several threads.
_ONE_QUIET = threading.RLock()


@contextmanager
def quiet() -> Iterator[bytearray]:
    """Keep the C libraries below SimpleITK from printing, to standard output or error.

    Yields:
        What they printed, once it is over; nothing of it may be shown.
    """
    sitk = simpleitk()
    with _ONE_QUIET:
        spoken = locale.setlocale(locale.LC_ALL)
        warnings = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        said = bytearray()
        kept = [(number, os.dup(number)) for number in (1, 2)]
        with TemporaryFile() as instead:
            for number, _ in kept:
                os.dup2(instead.fileno(), number)
            try:
                yield said
            finally:
                ctypes.CDLL(None).fflush(None)  # the libraries' own buffers
                for number, copy in kept:
                    os.dup2(copy, number)
                    os.close(copy)
                instead.seek(0)
                said += instead.read(MOST_SAID)
                sitk.ProcessObject.SetGlobalWarningDisplay(warnings)
            locale.setlocale(locale.LC_ALL, spoken)  # JPEG in DICOM leaves another
