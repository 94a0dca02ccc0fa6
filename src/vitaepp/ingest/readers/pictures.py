"""Pictures: 2D images in grey or colour, without physical space, turned upright."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from vitaepp.data.geometry import Grid, simpleitk
from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.arrays import read_npy
from vitaepp.ingest.readers.dicom_elements import is_dicom
from vitaepp.ingest.readers.dicom_header import MOST_UNEVEN, ShiftedValues, read_dicom_header
from vitaepp.ingest.readers.dicom_values import TABLED, padding_of, without_padding
from vitaepp.ingest.readers.image import (
    DICOM_READER,
    Image,
    check_present,
    checked,
    quiet,
    read_image,
    refuse_absurd_size,
)

Pixels = npt.NDArray[Any]

#: Formats by the first bytes of a file, because many pictures have a wrong suffix.
FORMATS = {
    b"\x89PNG": "PNG",
    b"\xff\xd8": "JPEG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"RIFF": "WEBP",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
}

#: Values of the orientation tag: an upright picture, and one whose first row is at the bottom.
UPRIGHT, BOTTOM_UP = 1, 4

TURNED = "turned or mirrored to be upright, by its orientation tag"
TRANSPARENT = "transparent; placed on black"
STRETCHED = "its pixels are not squares, by DICOM's header; stretched to true proportions"
UNEVEN = "its resolution differs between rows and columns; its pixels are taken as squares"
INVERTED = "inverted, by DICOM's Presentation LUT Shape"
NO_HEADER = "DICOM's header cannot be read; padding and tables of values are not applied"
FEWER_BITS = "16-bit grey with transparency; read in 8 bits"

#: The most pages of one TIFF that are examined.
MOST_PAGES = 100_000


def read_picture(path: Path, name: str, *, constant: bool = False, mask: bool = False) -> Image:
    """Read a 2D image in grey or colour, and turn it upright by its orientation tag.

    A transparent picture is placed on black; transparency that is equal everywhere is dropped. In a
    mask with a palette of colours, values are the colours' numbers, as in those of Pascal VOC.

    Raises:
        SubjectError: the file is missing, truncated, corrupt, not 2D, not finite, or constant.
    """
    check_present(path, name)
    if path.suffix.lower() == ".npy":
        return read_npy(path, name, ndim=2, constant=constant)
    kind = _format(path)
    if kind is None:
        raise SubjectError(f"{name}: cannot be read: truncated, corrupt or not a picture")
    numbers = _palette_numbers(path) if mask and kind != "DICOM" else None
    values, notes = READERS[kind](path, name) if numbers is None else (numbers, [])
    notes += [STRETCHED] * bool(pixel := pixel_of(path)) + [UNEVEN] * _is_uneven(path)
    values = checked(values, name, constant)
    return Image(values, Grid.of_indices(values.shape[:2]), False, tuple(notes), pixel)


def _palette_numbers(path: Path) -> Pixels | None:
    """The colours' numbers in an upright picture; None if it has no palette, or one of greys."""
    try:
        with quiet(), _pillow(path) as picture:
            refuse_absurd_size(picture.size, path.name)
            if picture.mode != "P" or getattr(picture, "n_frames", 1) > 1:
                return None
            colours = np.reshape(picture.getpalette() or (), (-1, 3))
            if not np.ptp(colours, axis=1).any():
                return None
            return np.asarray(PIL.ImageOps.exif_transpose(picture))
    except Exception:  # reading the whole picture will report the fault
        return None


def picture_grid(path: Path) -> Grid | None:
    """The grid of a picture by its header; None if the header does not give it."""
    kind = _format(path) if path.is_file() else None
    if kind in (None, "DICOM"):
        return None
    try:
        with _pillow(path) as picture:
            width, height = picture.size
            if kind == "TIFF":  # its size is as stored or upright, depending on Pillow's version
                plain = (
                    picture.getexif().get(Tag.Orientation, 1) < 5
                    and getattr(picture, "n_frames", 1) == 1
                )
                return Grid.of_indices((height, width)) if plain else None
            swapped = _orientation(path, kind) in range(5, 9)
            return Grid.of_indices((width, height) if swapped else (height, width))
    except Exception:  # reading the whole picture will report the fault
        return None


def _format(path: Path) -> str | None:
    if is_dicom(path):
        return "DICOM"
    with open(path, "rb") as file:
        start = file.read(4)
    return next((FORMATS[magic] for magic in FORMATS if start.startswith(magic)), None)


def pixel_of(path: Path) -> tuple[float, ...]:
    """Height and width of a picture's pixels, the shorter side 1; empty for squares."""
    try:
        return read_dicom_header(path, path.name).pixel if is_dicom(path) else ()
    except SubjectError:
        return ()


def _read_dicom(path: Path, name: str) -> tuple[Pixels, list[str]]:
    values = _by_simpleitk(path, name, DICOM_READER)
    try:
        header = read_dicom_header(path, name)
    except ShiftedValues:
        raise
    except SubjectError:  # GDCM reads some files that pydicom does not
        return values, [NO_HEADER]
    if values.ndim > 2:
        return values, []
    (slope, intercept), notes = header.scale, [TABLED] * header.tabled
    if header.shown_inverted:
        most = float(values.max())
        values, slope, intercept = most - values.astype(float), -slope, most - intercept
        notes.append(INVERTED)
    ends = np.array(padding_of(header, slope, intercept))
    values, padding = without_padding(values, ends)
    return values, [*notes, *padding]


def _is_uneven(path: Path) -> bool:
    """Whether a picture's tags give rows and columns another resolution."""
    try:
        with _pillow(path) as picture:
            tags = ("dpi", "resolution", "jfif_density", "aspect")
            pair = next((picture.info[tag] for tag in tags if tag in picture.info), (1, 1))
            low, high = sorted(map(float, pair))
            return high > MOST_UNEVEN * low > 0
    except Exception:  # as above; a damaged tag is none
        return False


def _read_jpeg(path: Path, name: str) -> tuple[Pixels, list[str]]:
    """Read a JPEG and refuse one without its end, which the image library would fill with grey."""
    data = path.read_bytes()
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise SubjectError(f"{name}: truncated: the end of the JPEG is missing; copy it again")
    return _upright(_by_simpleitk(path, name, "JPEGImageIO"), _orientation(path, "JPEG"))


def _read_png(path: Path, name: str) -> tuple[Pixels, list[str]]:
    with open(path, "rb") as file:
        start = file.read(26)
    transparent_grey = len(start) == 26 and (start[25] == 4 or _chunk(path, b"tRNS") is not None)
    if transparent_grey and start[25] in (0, 4):  # SimpleITK cannot read it
        values, notes = _by_pillow(path, name)
        return values, notes + ([FEWER_BITS] if start[24:26] == b"\x10\x04" else [])
    values, notes = _opaque(_by_simpleitk(path, name, "PNGImageIO"))
    values, turned = _upright(values, _orientation(path, "PNG"))
    return values, notes + turned


def _read_tiff(path: Path, name: str) -> tuple[Pixels, list[str]]:
    """Read a TIFF by Pillow if that preserves its values, else by SimpleITK.

    SimpleITK changes the values of palettes, 1-bit pictures and grey with transparency.
    """
    try:
        pages = _tiff_pages(path)
    except Exception:  # damaged directories may raise anything
        raise SubjectError(f"{name}: cannot be read: truncated, corrupt or not a TIFF") from None
    # Thumbnails and masks do not count as pages.
    whole = [i for i, tags in enumerate(pages) if not tags.get(Tag.NewSubfileType, 0) & 5]
    if len(whole) != 1:
        raise SubjectError(
            f"{name}: has {len(whole)} pages; one picture per file is needed, so save each page as "
            "a file"
        )
    tags = pages[whole[0]]
    bits, samples = int(np.max(tags.get(Tag.BitsPerSample, 1))), tags.get(Tag.SamplesPerPixel, 1)
    float_, signed = (np.max(tags.get(Tag.SampleFormat, 1)) == code for code in (3, 2))
    kind = f"{bits}-bit {'floats' if float_ else 'integers'}"
    if bits > 32 or (float_ and bits != 32):
        raise SubjectError(
            f"{name}: a TIFF of {kind} cannot be read; save it as 32-bit floats or 16-bit integers"
        )
    white_is_zero = tags.get(Tag.PhotometricInterpretation) == 0
    if (bits <= 8 and not signed) or (samples == 1 and (float_ or (bits == 16 and not signed))):
        values, notes = _by_pillow(path, name, whole[0])
        if white_is_zero and bits > 8:
            values = _negative(values)
        return values, notes
    orientation = tags.get(Tag.Orientation, UPRIGHT)
    if samples not in (1, 3, 4) or orientation not in (UPRIGHT, BOTTOM_UP) or len(pages) > 1:
        raise SubjectError(
            f"{name}: a TIFF of {samples} times {kind} with orientation {orientation} cannot be "
            "read; save it upright, in grey or RGB, as the only image of the file"
        )
    values = _by_simpleitk(path, name, "TIFFImageIO")  # it handles rows from the bottom up
    if white_is_zero and values.ndim == 2:
        values = _negative(values)
    if values.ndim == 3 and tags.get(Tag.ExtraSamples) not in (2, (2,)):
        values = values[..., :3]  # the rest is not transparency, or already applied
    values, notes = _opaque(values)
    return values, notes + ([] if orientation == UPRIGHT else [TURNED])


def _negative(values: Pixels) -> Pixels:
    """Values of a picture whose 0 is white, inverted; the image libraries do not do this."""
    return np.iinfo(values.dtype).max - values if values.dtype.kind == "u" else -values


def _read_bmp(path: Path, name: str) -> tuple[Pixels, list[str]]:
    """Read a BMP by Pillow; SimpleITK repeats rows and writes beyond the end of its memory."""
    with open(path, "rb") as file:
        start = file.read(6)
    if len(start) < 6 or struct.unpack("<2xI", start)[0] > path.stat().st_size:
        raise SubjectError(f"{name}: cannot be read: truncated, corrupt or not a BMP file")
    return _by_pillow(path, name)


def _by_simpleitk(path: Path, name: str, reader: str) -> Pixels:
    """All values of a picture, `(row, column)` or `(row, column, channel)`."""
    image = read_image(path, name, reader)
    size = image.GetSize()
    while len(size) > 2 and size[-1] == 1:
        size = size[:-1]
    if len(size) != 2:
        raise SubjectError(f"{name}: has {size[-1]} pages; one picture per file is needed")
    if 0 in size:
        raise SubjectError(f"{name}: has no pixels")
    values = np.asarray(simpleitk().GetArrayFromImage(image)).reshape(size[1], size[0], -1)
    return values[..., 0] if values.shape[-1] == 1 else values


def _by_pillow(path: Path, name: str, page: int = 0) -> tuple[Pixels, list[str]]:
    """Values of the only frame, or of one page of a TIFF, upright and without transparency."""
    try:
        with quiet(), _pillow(path) as picture:
            refuse_absurd_size(picture.size, name)
            frames = getattr(picture, "n_frames", 1)
            if frames > 1 and picture.format != "TIFF":
                raise SubjectError(f"{name}: has {frames} frames; one picture per file is needed")
            picture.seek(page)
            orientation = picture.getexif().get(Tag.Orientation, UPRIGHT)
            depth = _png_depth(path) if picture.format == "PNG" else 8
            values, notes = _opaque(_pixels(PIL.ImageOps.exif_transpose(picture), depth))
    except SubjectError:
        raise
    except Exception:  # Pillow may raise any exception for a damaged file
        raise SubjectError(f"{name}: cannot be read: truncated, corrupt or not a picture") from None
    return values, notes + ([TURNED] if orientation in range(2, 9) else [])


def _pixels(picture: PIL.Image.Image, depth: int) -> Pixels:
    """Values in grey or colour; transparency, if there is any, is the last channel.

    Args:
        picture: the opened picture.
        depth: bits of a grey value in the file.
    """
    clear = picture.info.get("transparency")
    if picture.mode in ("1", "L", "I;16") and isinstance(clear, int):
        values = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
        most = np.iinfo(values.dtype).max
        if picture.mode == "1":  # Pillow gives 1 or 255
            clear = 255 * bool(clear)
        elif depth < 8:  # Pillow scales values to 8 bits, but not this one
            clear *= 255 // (2**depth - 1)
        return np.stack([values, np.where(values == clear, 0, most).astype(values.dtype)], axis=-1)
    plain = picture.mode in ("L", "LA", "RGB", "RGBA", "I;16", "I;16B", "I", "F")
    if plain and clear is None:
        values = np.asarray(picture)
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if picture.mode == "1":
        return np.asarray(picture.convert("L"))
    has_alpha = clear is not None or picture.mode in ("LA", "PA", "RGBA")
    return np.asarray(picture.convert("RGBA" if has_alpha else "RGB"))


def _opaque(values: Pixels) -> tuple[Pixels, list[str]]:
    """Remove transparency, the last of two or four channels, by placing the picture on black."""
    if values.ndim == 2 or values.shape[-1] not in (2, 4):
        return values, []
    colours, alpha = values[..., :-1], values[..., -1:]
    colours = colours[..., 0] if colours.shape[-1] == 1 else colours
    if alpha.min() == alpha.max():  # equal transparency carries no information
        return colours, []
    share = alpha / (np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1)
    placed = colours * (share[..., 0] if colours.ndim == 2 else share)
    whole = alpha.dtype.kind in "iu"
    return (np.rint(placed) if whole else placed).astype(values.dtype), [TRANSPARENT]


def _upright(values: Pixels, orientation: int) -> tuple[Pixels, list[str]]:
    """Turn values so that the first row is at the top and the first column at the left."""
    if orientation not in range(2, 9):
        return values, []
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values), [TURNED]


def _orientation(path: Path, kind: str) -> int:
    """The orientation tag; 1 if there is none that can be read."""
    try:
        if kind == "PNG":
            exif = PIL.Image.Exif()
            exif.load(_chunk(path, b"eXIf") or b"")
            return int(exif.get(Tag.Orientation, UPRIGHT))
        with _pillow(path) as picture:
            return int(picture.getexif().get(Tag.Orientation, UPRIGHT))
    except Exception:  # a damaged tag counts as missing
        return UPRIGHT


def _png_depth(path: Path) -> int:
    with open(path, "rb") as file:
        return file.read(25)[24]


def _chunk(path: Path, wanted: bytes) -> bytes | None:
    """The first chunk of this type in a PNG, or None."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == wanted:
                return file.read(length)
            file.seek(length + 4, io.SEEK_CUR)
    return None


def _tiff_pages(path: Path) -> list[dict[int, Any]]:
    """The directories of a TIFF; each holds the tags of an image."""
    pages: list[dict[int, Any]] = []
    seen: set[int] = set()
    with warnings.catch_warnings(), open(path, "rb") as file:
        warnings.simplefilter("ignore")
        head = file.read(8)
        directory = ImageFileDirectory_v2(head + (file.read(8) if head[2:3] == b"+" else b""))
        while (offset := directory.next) and offset not in seen and len(pages) < MOST_PAGES:
            seen.add(offset)
            file.seek(offset)
            directory.load(file)
            pages.append(dict(directory.items()))
    return pages


@contextmanager
def _pillow(path: Path) -> Iterator[PIL.Image.Image]:
    """Open a picture by Pillow, which reads values only when they are used."""
    with warnings.catch_warnings(), open(path, "rb") as file:
        warnings.simplefilter("ignore")
        # If it got a name instead of a file, Pillow would map a turned TIFF with wrong row lengths.
        with PIL.Image.open(file, formats=sorted(set(FORMATS.values()))) as picture:
            yield picture


READERS = {
    "DICOM": _read_dicom,
    "JPEG": _read_jpeg,
    "PNG": _read_png,
    "TIFF": _read_tiff,
    "BMP": _read_bmp,
    "GIF": _by_pillow,
    "WEBP": _by_pillow,
}
