"""DICOM files before they are images: what tells one, and the elements of its header, by pydicom.

pydicom reads what is asked for and stops before the pixels. A header may be anybody's: whatever
pydicom raises or says of one stays here.
"""

from __future__ import annotations

import gzip
import logging
import re
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from math import prod
from pathlib import Path
from tempfile import NamedTemporaryFile

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

PREAMBLE = 132

#: How a data set without a preamble begins: with an element of group 2 or 8 that has one of the
#: standard's value representations or, of group 8, none and a short length.
BARE = re.compile(
    rb"(?s)(?:[\x02\x08]\0..|\0[\x02\x08]..)(?:AE|CS|DA|LO|OB|PN|SH|SQ|TM|UI|UL)"
    rb"|\x08\0[\0\x01\x05\x06\x08\x12-\x18]\0..\0\0"
)

DEFLATED = b"1.2.840.10008.1.2.1.99"
META = 1 << 10

#: Syntaxes whose pixels are not compressed: files without a preamble do not name theirs.
NATIVE = ("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")

#: What a `.gz` may hold; one element of DICOM can hold twice as much.
MOST_UNPACKED = 2 << 30
BLOCK = 1 << 20

#: Text of an element is shorter; the standard's longest that is read here has 64 letters.
MOST_TEXT = 1 << 16

MEDIA_STORAGE_SOP_CLASS, TRANSFER_SYNTAX = 0x00020002, 0x00020010
IMAGE_TYPE, SOP_CLASS, INSTANCE, MODALITY = 0x00080008, 0x00080016, 0x00080018, 0x00080060
DATE, DESCRIPTION = 0x00080020, 0x0008103E
PATIENT = (0x00100010, 0x00100020, 0x00100030)
STUDY, SERIES, POSITION, ORIENTATION = 0x0020000D, 0x0020000E, 0x00200032, 0x00200037
COLOURS, FRAMES, ROWS, COLUMNS, SPACING = 0x00280002, 0x00280008, 0x00280010, 0x00280011, 0x00280030
PHOTOMETRIC, BITS, SIGNED = 0x00280004, 0x00280100, 0x00280103
PADDING, PADDING_LIMIT = 0x00280120, 0x00280121
INTERCEPT, SLOPE = 0x00281052, 0x00281053
SHARED_GROUPS, FRAME_GROUPS = 0x52009229, 0x52009230

#: Groups that hold a frame's position, orientation, spacing, slope and intercept.
POSITIONS, ORIENTATIONS, MEASURES, TRANSFORMATIONS = 0x00209113, 0x00209116, 0x00289110, 0x00289145

WANTED = (
    *(IMAGE_TYPE, SOP_CLASS, INSTANCE, MODALITY, DATE, DESCRIPTION, *PATIENT, STUDY, SERIES),
    *(POSITION, ORIENTATION, COLOURS, FRAMES, ROWS, COLUMNS, SPACING, PHOTOMETRIC, BITS, SIGNED),
    *(PADDING, PADDING_LIMIT, INTERCEPT, SLOPE, SHARED_GROUPS, FRAME_GROUPS),
)


class DeflatedError(ValueError):
    """A data set that is compressed as a whole."""


@dataclass(frozen=True)
class Elements:
    """The elements of a header that are used.

    Attributes:
        dataset: what pydicom found of them; values are not converted.
        sop_class: what kind of object the file holds.
        native: whether its pixels are not compressed.
        pixels: bytes from where the pixels begin to the end of the file; 0 if it has none.
        start: where its pixels begin.
    """

    dataset: Dataset = field(repr=False)
    sop_class: str
    native: bool
    pixels: int
    start: int

    @property
    def broken(self) -> bool:
        """Whether the pixels break off, or there are none; of compressed ones only the latter."""
        frames = int(text(self.dataset, FRAMES) or 1)
        values = prod(number(self.dataset, tag) for tag in (ROWS, COLUMNS))
        bits = values * frames * (number(self.dataset, COLOURS) or 1) * number(self.dataset, BITS)
        return not self.pixels or not bits or (self.native and bits > 8 * self.pixels)


def is_dicom(path: Path) -> bool:
    """Whether a file, or what is in a `.gz`, begins as DICOM does, with or without a preamble."""
    try:
        with _opened(path) as file:
            start = file.read(PREAMBLE)
    except (OSError, EOFError, zlib.error):
        return False
    return start[128:] == b"DICM" or BARE.match(start) is not None


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A DICOM file, or for as long as the context lasts what is in a `.gz`.

    Raises:
        ValueError: damaged, or larger than DICOM can be meant.
    """
    if path.suffix.lower() != ".gz":
        yield path
        return
    with NamedTemporaryFile(suffix=".dcm") as plain:
        try:
            with _opened(path) as packed:
                while block := packed.read(BLOCK):
                    plain.write(block)
                    if plain.tell() > MOST_UNPACKED:
                        raise ValueError("holds too much")
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise ValueError("breaks off") from None
        plain.flush()
        yield Path(plain.name)


def read_elements(path: Path) -> Elements:
    """The elements of a file that are used, as far as it goes.

    Raises:
        DeflatedError: the whole data set is compressed; how large it gets, nobody can know.
        ValueError: no DICOM, or damaged before its pixels.
    """
    with unpacked(path) as plain, open(plain, "rb") as file, silent():
        if DEFLATED in file.read(META):
            raise DeflatedError
        size = file.seek(0, 2)
        file.seek(0)
        try:
            dataset = pydicom.dcmread(
                file, stop_before_pixels=True, force=True, specific_tags=list(WANTED)
            )
            implicit = dataset.original_encoding[0]
        except Exception:  # whatever a damaged header makes it stumble over
            raise ValueError("breaks off") from None
        start = file.tell() + (8 if implicit else 12)
        at_pixels = file.read(2) in (b"\xe0\x7f", b"\x7f\xe0")
        meta = dataset.file_meta
        return Elements(
            dataset,
            text(dataset, SOP_CLASS) or text(meta, MEDIA_STORAGE_SOP_CLASS),
            text(meta, TRANSFER_SYNTAX) in NATIVE,
            max(size - start, 0) if at_pixels else 0,
            start,
        )


def series_uid(path: Path) -> str:
    """Which series a file says it is of, also where its pixels break off; empty if it does not."""
    try:
        return text(read_elements(path).dataset, SERIES)
    except (OSError, ValueError):
        return ""


def pixels_of(path: Path) -> bytes:
    """The bytes of a file from where its pixels begin.

    Raises:
        ValueError: no DICOM, or damaged.
    """
    start = read_elements(path).start
    with unpacked(path) as plain, open(plain, "rb") as file:
        file.seek(start)
        return file.read()


def text(dataset: Dataset, tag: int) -> str:
    """Text of an element, without its padding; empty if it has none."""
    value = _value(dataset, tag)
    if len(value) > MOST_TEXT:
        return ""
    try:
        return value.decode().strip(" \0")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip(" \0")


def number(dataset: Dataset, tag: int, *, signed: bool = False) -> int:
    """A whole number that an element holds in two bytes or four; 0 if there is none."""
    element = dataset.get_item(tag) if tag in dataset else None
    little = not isinstance(element, RawDataElement) or element.is_little_endian
    value = _value(dataset, tag)
    if len(value) not in (2, 4):
        return 0
    return int.from_bytes(value, "little" if little else "big", signed=signed)


def items(dataset: Dataset, tag: int) -> list[Dataset]:
    """The items of a sequence; none if there is no such sequence.

    Raises:
        ValueError: it is damaged.
    """
    if tag not in dataset:
        return []
    try:
        value = dataset[tag].value
    except Exception:  # as above
        raise ValueError("breaks off") from None
    return list(value) if isinstance(value, pydicom.Sequence) else []


@contextmanager
def silent() -> Iterator[None]:
    """Keep pydicom from warning and logging, which may quote the header."""
    logger = logging.getLogger("pydicom")
    with _ONE_SILENT, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        disabled, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = disabled


#: Warnings and loggers belong to the process, of which Dask's workers run several threads.
_ONE_SILENT = threading.RLock()


def _opened(path: Path) -> BufferedReader | gzip.GzipFile:
    if path.suffix.lower() == ".gz":
        return gzip.open(path)
    return open(path, "rb")


def _value(dataset: Dataset, tag: int) -> bytes:
    """Bytes of an element as they are in the file; its conversion may fail or warn."""
    if tag not in dataset:
        return b""
    value = dataset.get_item(tag).value
    if isinstance(value, str):  # of the file meta, which pydicom converts as it goes
        value = value.encode()
    return value if isinstance(value, bytes) else b""
