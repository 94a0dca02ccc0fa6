"""Pictures: 2D images, grey or in colour, without a physical space."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from vitaepp.errors import SubjectError
from vitaepp.ingest.geometry import Grid, simpleitk
from vitaepp.ingest.readers.dicom_elements import is_dicom
from vitaepp.ingest.readers.image import (
    DICOM_READER,
    Image,
    check_present,
    checked,
    read_image,
)
from vitaepp.ingest.readers.limits import refuse_absurd_size
from vitaepp.ingest.readers.npy import read_npy_picture


def read_picture(path: Path, name: str, *, constant: bool = False) -> Image:
    """Read a 2D image, grey or colour; transparency is dropped.

    Raises:
        SubjectError: missing, truncated, corrupt, not 2D, not finite, or constant.
    """
    check_present(path, name)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return read_npy_picture(path, name, constant=constant)
    reader = _reader(path)
    if reader is None:
        raise SubjectError(f"{name}: cannot be read: truncated, corrupt or not a picture")
    if reader == "Pillow":
        values = _read_bmp(path, name)
        return Image(checked(values, name, constant), Grid.of_indices(values.shape[:2]), False)
    if reader == "JPEGImageIO":
        _check_jpeg(path, name)
    sitk = simpleitk()
    image = read_image(path, name, reader)
    size = image.GetSize()
    while len(size) > 2 and size[-1] == 1:
        size = size[:-1]
    if len(size) != 2:
        raise SubjectError(f"{name}: has {size[-1]} pages; one picture a file is needed")
    if 0 in size:
        raise SubjectError(f"{name}: has no pixels")
    values = np.asarray(sitk.GetArrayFromImage(image))
    if reader == "TIFFImageIO" and values.ndim == image.GetDimension() and _white_is_zero(path):
        values = np.iinfo(values.dtype).max - values if values.dtype.kind == "u" else -values
    values = values.reshape(size[1], size[0], -1)
    values = values[..., 0] if values.shape[-1] < 3 else values[..., :3]
    return Image(checked(values, name, constant), Grid.of_indices(values.shape[:2]), False)


def _reader(path: Path) -> str | None:
    """SimpleITK's name of a picture's format, by what the file begins with."""
    if is_dicom(path):
        return DICOM_READER
    with open(path, "rb") as file:
        start = file.read(4)
    return next((READERS[magic] for magic in READERS if start.startswith(magic)), None)


def _white_is_zero(path: Path) -> bool:
    """Whether a TIFF's values are of ink, not of light; the image library does not look."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with PIL.Image.open(path) as picture:
            return getattr(picture, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == 0


def _check_jpeg(path: Path, name: str) -> None:
    """Refuse a JPEG without its end mark; the image library fills up with grey."""
    data = path.read_bytes()
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise SubjectError(f"{name}: truncated: the end of the JPEG is missing; copy it again")


def _read_bmp(path: Path, name: str) -> npt.NDArray[Any]:
    """A BMP by Pillow: the image library repeats rows, and unpacks beyond the end of its memory."""
    try:
        with open(path, "rb") as file:
            (promised,) = struct.unpack("<2xI", file.read(6))
        if promised > path.stat().st_size:
            raise ValueError("truncated")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(path, formats=["BMP"]) as picture:
                refuse_absurd_size(picture.size, name)
                grey = picture.mode in ("1", "L")
                return np.asarray(picture.convert("L" if grey else "RGB"))
    except (OSError, ValueError, SyntaxError, struct.error, PIL.Image.DecompressionBombError):
        raise SubjectError(
            f"{name}: cannot be read: truncated, corrupt or not a BMP file"
        ) from None


#: What reads a picture, by what it begins with: many are misnamed.
READERS = {
    b"\x89PNG": "PNGImageIO",
    b"\xff\xd8": "JPEGImageIO",
    b"BM": "Pillow",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFFImageIO"),
}
PHOTOMETRIC_INTERPRETATION = 262
