"""DICOM files before they are images: how to recognise one, and the elements of its header.

pydicom reads only the elements that are needed and stops before the pixels. Headers hold patient
data, so pydicom's own errors and messages are suppressed here.
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
from math import prod
from pathlib import Path
from tempfile import NamedTemporaryFile

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from vitaepp.ingest.readers.packed import is_packed, open_unpacked

PREAMBLE = 132

#: The beginning of a data set without a preamble: an element of group 2 or 8 with one of the
#: standard's value representations, or of group 8 with none and a short length.
BARE = re.compile(
    rb"(?s)(?:[\x02\x08]\0..|\0[\x02\x08]..)(?:AE|CS|DA|LO|OB|PN|SH|SQ|TM|UI|UL)"
    rb"|\x08\0[\0\x01\x05\x06\x08\x12-\x18]\0..\0\0"
)

DEFLATED = b"1.2.840.10008.1.2.1.99"
META = 1 << 10

#: Transfer syntaxes with uncompressed pixels; files without a preamble name no syntax.
NATIVE = ("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")

#: Most bytes that a gzip file may hold; a single DICOM element can hold twice as many.
MOST_UNPACKED = 2 << 30
BLOCK = 1 << 20

#: Longer text of an element is ignored; by the standard, the texts that are read have 64 letters.
MOST_TEXT = 1 << 16

MEDIA_STORAGE_SOP_CLASS, TRANSFER_SYNTAX = 0x00020002, 0x00020010
IMAGE_TYPE, SOP_CLASS, INSTANCE, MODALITY = 0x00080008, 0x00080016, 0x00080018, 0x00080060
DATE, DESCRIPTION = 0x00080020, 0x0008103E
PATIENT = (0x00100010, 0x00100020, 0x00100030)
STUDY, SERIES, POSITION, ORIENTATION = 0x0020000D, 0x0020000E, 0x00200032, 0x00200037
COLOURS, FRAMES, ROWS, COLUMNS, SPACING = 0x00280002, 0x00280008, 0x00280010, 0x00280011, 0x00280030
PHOTOMETRIC, BITS, STORED = 0x00280004, 0x00280100, 0x00280101
HIGH_BIT, SIGNED = 0x00280102, 0x00280103
PADDING, PADDING_LIMIT = 0x00280120, 0x00280121
DETECTOR_SPACING, SCANNED_SPACING, ASPECT = 0x00181164, 0x00182010, 0x00280034
INTERCEPT, SLOPE, UNIT, TABLE, SHAPE = 0x00281052, 0x00281053, 0x00281054, 0x00283000, 0x20500020
SHARED_GROUPS, FRAME_GROUPS = 0x52009229, 0x52009230

#: The functional groups with a frame's position, orientation, spacing, and the scale of values.
POSITIONS, ORIENTATIONS, MEASURES, TRANSFORMATIONS = 0x00209113, 0x00209116, 0x00289110, 0x00289145

WANTED = (
    *(IMAGE_TYPE, SOP_CLASS, INSTANCE, MODALITY, DATE, DESCRIPTION, *PATIENT, STUDY, SERIES),
    *(POSITION, ORIENTATION, COLOURS, FRAMES, ROWS, COLUMNS, SPACING, PHOTOMETRIC, BITS),
    *(STORED, HIGH_BIT, SIGNED, PADDING, PADDING_LIMIT, INTERCEPT, SLOPE, UNIT, TABLE, SHAPE),
    *(DETECTOR_SPACING, SCANNED_SPACING, ASPECT, SHARED_GROUPS, FRAME_GROUPS),
)


class DeflatedError(ValueError):
    """The data set is compressed as a whole."""


@dataclass(frozen=True)
class Elements:
    """The elements of a header that are used.

    Attributes:
        dataset: the elements as pydicom found them; their values are not converted.
        sop_class: the kind of object in the file.
        native: whether its pixels are uncompressed.
        pixels: number of bytes from the start of the pixels to the end of the file; 0 without any.
        start: offset of its pixels.
    """

    dataset: Dataset = field(repr=False)
    sop_class: str
    native: bool
    pixels: int
    start: int

    @property
    def broken(self) -> bool:
        """Whether pixels are missing; for compressed pixels, whether there are none at all."""
        frames = int(text(self.dataset, FRAMES) or 1)
        values = prod(number(self.dataset, tag) for tag in (ROWS, COLUMNS))
        bits = values * frames * (number(self.dataset, COLOURS) or 1) * number(self.dataset, BITS)
        return not self.pixels or not bits or (self.native and bits > 8 * self.pixels)

    @property
    def shifted(self) -> bool:
        """Whether values begin above the lowest bit, as in files older than DICOM.

        Libraries read such values without an error, cut off at the wrong end.
        """
        stored, high = (number(self.dataset, tag) for tag in (STORED, HIGH_BIT))
        return bool(stored and high) and high != stored - 1


def is_dicom(path: Path) -> bool:
    """Whether a file, or what a gzip file holds, begins like DICOM, with or without a preamble."""
    try:
        with open_unpacked(path) as file:
            start = file.read(PREAMBLE)
    except (OSError, EOFError, zlib.error):
        return False
    return start[128:] == b"DICM" or BARE.match(start) is not None


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Unpack a gzip file into a temporary one while the context lasts; yield others as they are.

    Raises:
        ValueError: the file is damaged, or too large.
    """
    if not is_packed(path):
        yield path
        return
    with NamedTemporaryFile(suffix=".dcm") as plain:
        try:
            with open_unpacked(path) as packed:
                while block := packed.read(BLOCK):
                    plain.write(block)
                    if plain.tell() > MOST_UNPACKED:
                        raise ValueError("holds too much")
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise ValueError("breaks off") from None
        plain.flush()
        yield Path(plain.name)


def read_elements(path: Path) -> Elements:
    """Read the elements of a file that are used; its pixels may be missing.

    Raises:
        DeflatedError: the whole data set is compressed, and its unpacked size is not known.
        ValueError: the file is not DICOM, or damaged before its pixels.
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
        except Exception:  # pydicom may raise any exception for a damaged header
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


def is_refused(path: Path) -> bool:
    """Whether GDCM refuses a file for how its values are stored, although it is whole."""
    try:
        elements = read_elements(path)
    except (OSError, ValueError):
        return False
    header = elements.dataset
    signed_12 = not elements.broken and number(header, SIGNED) == 1 and number(header, STORED) == 12
    return signed_12 and text(header, PHOTOMETRIC) == "MONOCHROME1"


def series_uid(path: Path) -> str:
    """The series id of a file, whose pixels may be damaged; empty if it has none."""
    try:
        return text(read_elements(path).dataset, SERIES)
    except (OSError, ValueError):
        return ""


def pixels_of(path: Path) -> bytes:
    """The bytes of a file from the start of its pixels to its end.

    Raises:
        ValueError: the file is not DICOM, or damaged.
    """
    start = read_elements(path).start
    with unpacked(path) as plain, open(plain, "rb") as file:
        file.seek(start)
        return file.read()


def text(dataset: Dataset, tag: int) -> str:
    """The text of an element without padding; empty if there is no such element."""
    value = _value(dataset, tag)
    if len(value) > MOST_TEXT:
        return ""
    try:
        return value.decode().strip(" \0")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip(" \0")


def number(dataset: Dataset, tag: int, *, signed: bool = False) -> int:
    """The whole number of two or four bytes in an element; 0 if there is none."""
    element = dataset.get_item(tag) if tag in dataset else None
    little = not isinstance(element, RawDataElement) or element.is_little_endian
    value = _value(dataset, tag)
    if len(value) not in (2, 4):
        return 0
    return int.from_bytes(value, "little" if little else "big", signed=signed)


def items(dataset: Dataset, tag: int) -> list[Dataset]:
    """The items of a sequence; empty if there is no such sequence.

    Raises:
        ValueError: the sequence is damaged.
    """
    if tag not in dataset:
        return []
    try:
        value = dataset[tag].value
    except Exception:  # pydicom may raise any exception for a damaged header
        raise ValueError("breaks off") from None
    return list(value) if isinstance(value, pydicom.Sequence) else []


@contextmanager
def silent() -> Iterator[None]:
    """Suppress pydicom's warnings and log messages, which may quote the header."""
    logger = logging.getLogger("pydicom")
    with _ONE_SILENT, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        disabled, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = disabled


#: All threads of a process share warnings and loggers, and Dask's workers run several threads.
_ONE_SILENT = threading.RLock()


def _value(dataset: Dataset, tag: int) -> bytes:
    """The bytes of an element as they are in the file, because conversion may fail or warn."""
    if tag not in dataset:
        return b""
    value = dataset.get_item(tag).value
    if isinstance(value, str):  # pydicom converts the elements of the file meta immediately
        value = value.encode()
    return value if isinstance(value, bytes) else b""
