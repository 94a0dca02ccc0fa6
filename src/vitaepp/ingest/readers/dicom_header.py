"""The header of a DICOM file: where its slices lie, and what distinguishes series and studies.

The text of a header is used to distinguish series, and reaches no output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from vitaepp.errors import SubjectError
from vitaepp.ingest.readers import dicom_elements as tags
from vitaepp.ingest.readers.dicom_elements import DeflatedError, Elements, items, number, text

#: DICOM objects that are not images of the body, by the beginning of their SOP class.
OTHER_OBJECTS = {
    "1.2.840.10008.1.3.10": "a DICOMDIR, which lists files",
    "1.2.840.10008.5.1.4.1.1.11.": "a presentation state",
    "1.2.840.10008.5.1.4.1.1.66": "raw data, a registration or a segmentation",
    "1.2.840.10008.5.1.4.1.1.88.": "a structured report",
    "1.2.840.10008.5.1.4.1.1.9.": "a waveform",
    "1.2.840.10008.5.1.4.1.1.104.": "an encapsulated document",
    "1.2.840.10008.5.1.4.1.1.481.": "a radiotherapy object",
    "1.2.840.10008.5.1.4.1.1.4.2": "a spectrum",
}

#: Pixels count as squares if their sides differ by at most this factor.
MOST_UNEVEN = 1.01

#: Returns the text of a tag in a functional group of one frame.
Lookup = Callable[[int, int], str]


@dataclass(frozen=True)
class Slice:
    """The position of one slice in DICOM's LPS coordinates, and the scale of its stored values.

    Attributes:
        position: middle of its first voxel, in mm.
        orientation: direction of its rows, then of its columns.
        spacing: distance between rows, then between columns, in mm.
        slope: factor for stored values.
        intercept: offset for stored values.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True)
class DicomHeader:
    """The parts of a file's header that are used. Its text must reach no output.

    Attributes:
        study: id of the study.
        series: id of the series.
        instance: id of the image; files with the same id are copies, if ids are unique.
        patient: name, id and date of birth, a line each, used only to distinguish persons.
        date: date of the study, used only to distinguish persons.
        description: the name that the scanner or a person gave the series.
        modality: DICOM's code for the kind of scanner, such as MR or CT.
        image_type: words such as ORIGINAL, PRIMARY, LOCALIZER.
        size: columns, rows and frames.
        colours: number of values per voxel.
        slices: the slice of each frame; empty if the position of a frame is missing.
        padding: range of values, before they are scaled, that mark voxels without a measurement, if
            there is one; inverted as the image is if its lowest stored value is white.
        scale: slope and intercept of an image without positions.
        pixel: height and width of its pixels, the shorter side 1; empty if they are squares, or if
            it does not say.
        other_unit: whether it is a CT whose header does not say that its values are Hounsfield
            units: DICOM demands an intercept there, and a Rescale Type if the unit is another.
        tabled: whether a table (Modality LUT) says what stored values mean.
        shown_inverted: whether it is to be shown with its lowest value as white, although its
            stored values are not of that kind.
    """

    study: str = field(repr=False)
    series: str = field(repr=False)
    instance: str = field(repr=False)
    patient: str = field(repr=False)
    date: str = field(repr=False)
    description: str = field(repr=False)
    modality: str
    image_type: tuple[str, ...] = field(repr=False)
    size: tuple[int, int, int]
    colours: int
    slices: tuple[Slice, ...]
    padding: tuple[int, int] | None
    scale: tuple[float, float]
    pixel: tuple[float, ...]
    other_unit: bool
    tabled: bool
    shown_inverted: bool


class OtherObject(SubjectError):
    """The DICOM file is not an image of the body."""


class ShiftedValues(SubjectError):
    """The values of the DICOM file begin above the lowest bit."""


def read_dicom_header(path: Path, name: str) -> DicomHeader:
    """Read the header of one file, without its voxels.

    Raises:
        OtherObject: the file is not an image but, for example, a report; the message says which.
        ShiftedValues: libraries would read other values.
        SubjectError: the file is truncated, corrupt, or not DICOM.
    """
    try:
        with tags.silent():
            elements = tags.read_elements(path)
            for start, kind in OTHER_OBJECTS.items():
                if elements.sop_class.startswith(start):
                    raise OtherObject(f"{name}: is {kind}, not an image")
            if elements.broken:
                raise ValueError("breaks off")
            if elements.shifted:
                raise ShiftedValues(
                    f"{name}: High Bit is not Bits Stored - 1, so that its values begin above the "
                    "lowest bit, which is not read; convert it to present DICOM"
                )
            return _header(elements)
    except DeflatedError:
        raise SubjectError(
            f"{name}: is deflated DICOM, which is not read; unpack it (dcmconv +te)"
        ) from None
    except (OSError, ValueError):
        raise SubjectError(
            f"{name}: cannot be read: truncated, corrupt or not a DICOM image"
        ) from None


def _lines(values: Sequence[str]) -> str:
    """Each on a line of its own, also where one is empty; nothing where all are."""
    return "\n".join(values) if any(values) else ""


def _header(elements: Elements) -> DicomHeader:
    dataset = elements.dataset
    frames = int(text(dataset, tags.FRAMES) or 1)
    modality = text(dataset, tags.MODALITY).upper()
    lookups = _frames(dataset) if frames > 1 else [lambda _, tag: text(dataset, tag)]
    return DicomHeader(
        study=text(dataset, tags.STUDY),
        series=text(dataset, tags.SERIES),
        instance=text(dataset, tags.INSTANCE),
        patient=_lines([text(dataset, tag) for tag in tags.PATIENT]),
        date=text(dataset, tags.DATE),
        description=text(dataset, tags.DESCRIPTION),
        modality=modality,
        image_type=tuple(v.strip() for v in text(dataset, tags.IMAGE_TYPE).upper().split("\\")),
        size=(number(dataset, tags.COLUMNS), number(dataset, tags.ROWS), frames),
        colours=number(dataset, tags.COLOURS) or 1,
        slices=_slices(lookups),
        padding=_padding(dataset),
        scale=_scale(lambda tag: text(dataset, tag)),
        pixel=_pixel(dataset),
        other_unit=modality == "CT" and not all(map(_in_hounsfield, lookups)),
        tabled=tags.TABLE in dataset,
        shown_inverted=text(dataset, tags.SHAPE) == "INVERSE" and not _inverted(dataset),
    )


def _inverted(dataset: Dataset) -> bool:
    """Whether the lowest stored value is white; SimpleITK inverts such an image."""
    return text(dataset, tags.PHOTOMETRIC) == "MONOCHROME1"


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    signed = number(dataset, tags.SIGNED) == 1
    if tags.PADDING not in dataset or (signed and _inverted(dataset)):
        return None
    last = tags.PADDING_LIMIT if tags.PADDING_LIMIT in dataset else tags.PADDING
    ends = [number(dataset, tag, signed=signed) for tag in (tags.PADDING, last)]
    if _inverted(dataset):
        white = (1 << (number(dataset, tags.STORED) or number(dataset, tags.BITS))) - 1
        ends = [white - end for end in ends]
    return min(ends), max(ends)


def _in_hounsfield(lookup: Lookup) -> bool:
    """Whether the header of a CT lets the values of a frame be Hounsfield units.

    By the standard they are, if it gives an intercept and no other unit. GDCM and SimpleITK write
    `US`, unspecified, into every CT.
    """
    unit = lookup(tags.TRANSFORMATIONS, tags.UNIT).upper()
    intercept = _numbers(lookup(tags.TRANSFORMATIONS, tags.INTERCEPT), 1)
    return bool(intercept) and unit in ("", "HU", "HU_MOD", "US")


def _frames(dataset: Dataset) -> list[Lookup]:
    """The functional groups of each frame of a multi-frame file."""
    shared = items(dataset, tags.SHARED_GROUPS)[:1]

    def lookup_in(frame: Dataset) -> Lookup:
        def lookup(group: int, tag: int) -> str:
            # A frame's own value has priority over the value that all frames share.
            for groups in (frame, *shared):
                for item in items(groups, group)[:1]:
                    if tag in item:
                        return text(item, tag)
            return ""

        return lookup

    return [lookup_in(frame) for frame in items(dataset, tags.FRAME_GROUPS)]


def _slices(frames: Sequence[Lookup]) -> tuple[Slice, ...]:
    """The slice of each frame.

    The result is empty if a frame lacks its position, orientation or spacing.
    """
    slices = []
    for lookup in frames:
        position = _numbers(lookup(tags.POSITIONS, tags.POSITION), 3)
        orientation = _numbers(lookup(tags.ORIENTATIONS, tags.ORIENTATION), 6)
        spacing = _numbers(lookup(tags.MEASURES, tags.SPACING), 2)
        slope, intercept = _scale(partial(lookup, tags.TRANSFORMATIONS))
        if not (position and orientation and spacing) or (slope == 0 and len(frames) > 1):
            return ()
        slices.append(Slice(position, orientation, spacing, slope, intercept))
    return tuple(slices)


def _scale(lookup: Callable[[int], str]) -> tuple[float, float]:
    """The slope and intercept by the text of a tag."""
    (slope,) = _numbers(lookup(tags.SLOPE), 1) or (1.0,)
    (intercept,) = _numbers(lookup(tags.INTERCEPT), 1) or (0.0,)
    return slope, intercept


def _pixel(dataset: Dataset) -> tuple[float, ...]:
    """Height and width of a pixel, the shorter side 1; empty for squares, up to rounding."""
    for tag in (tags.SPACING, tags.DETECTOR_SPACING, tags.SCANNED_SPACING, tags.ASPECT):
        sides = _numbers(text(dataset, tag), 2)
        if sides and min(sides) > 0:
            shape = tuple(side / min(sides) for side in sides)
            return shape if max(shape) > MOST_UNEVEN else ()
    return ()


def _numbers(decimals: str, count: int) -> tuple[float, ...]:
    """The numbers of a decimal string; empty if they are not `count` finite numbers."""
    try:
        numbers = tuple(float(part) for part in decimals.split("\\"))
    except ValueError:
        return ()
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else ()
