"""DICOM: the slices of a series put in order by where they are, as one volume.

Nothing counts on instance numbers, file names or slice thickness: order and spacing come from the
positions of the slices. Text of a header is used to tell series apart and goes no further.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from vitaepp.data.geometry import Floats, Grid, simpleitk
from vitaepp.errors import SubjectError
from vitaepp.ingest.readers import dicom_elements as tags
from vitaepp.ingest.readers.dicom_elements import (
    DeflatedError,
    Elements,
    items,
    number,
    read_elements,
    silent,
    text,
)
from vitaepp.ingest.readers.image import (
    DICOM_READER,
    Image,
    check_present,
    checked,
    read_image,
)

#: What a file is that holds no image of the body, by the beginning of its SOP class.
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

#: Directions are unit vectors at right angles to this part; headers have few digits.
DIRECTION_TOLERANCE = 1e-2

#: Slices nearer than this, in mm, lie at one position.
SAME_POSITION = 0.01

#: A gap this many times the usual one has a slice missing in it.
MISSING = 1.5

#: How far, in voxels, a slice may be from where an even spacing puts it.
MOST_DRIFT = 0.1


#: CT has no value below; scanners fill up with one outside of their field of view.
LEAST_HOUNSFIELD = -1024

#: Share of the voxels that such a value has at least; a circle leaves a fifth of its square.
SHARE_OUTSIDE = 0.01

#: Padding that is nearer to the real values than this share of their range is as good as they are:
#: many scanners of MR give 0, which air has, too.
NEXT_TO = 0.01


@dataclass(frozen=True)
class Slice:
    """Where one slice lies, in DICOM's LPS coordinates, and how its stored values are scaled.

    Attributes:
        position: of the middle of its first voxel, mm.
        orientation: direction of its rows, then of its columns.
        spacing: between rows, then between columns, mm.
        slope: of stored values.
        intercept: of stored values.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True)
class DicomHeader:
    """What is used of a file's header. The text must reach no output.

    Attributes:
        study: unique id of the study.
        series: of the series.
        instance: of the image; two files with the same one are copies, if it is unique.
        patient: name, id and date of birth, only ever to tell persons apart.
        date: of the study, likewise.
        description: what the scanner or a person called the series.
        modality: DICOM's word for the kind of scanner, as MR or CT.
        image_type: as ORIGINAL, PRIMARY, LOCALIZER.
        size: columns, rows and frames.
        colours: values of a voxel.
        slices: of each frame; none where a frame does not say where it lies.
        padding: first and last stored value of what is no measurement, if there are such.
        inverted: whether the lowest stored value is white.
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
    inverted: bool


class OtherObject(SubjectError):
    """A DICOM file that holds no image of the body."""


def read_dicom_header(path: Path, name: str) -> DicomHeader:
    """The header of one file, without its voxels.

    Raises:
        OtherObject: not an image, but a report or the like; `str` says what.
        SubjectError: truncated, corrupt, or not DICOM.
    """
    try:
        with silent():
            found = read_elements(path)
            for start, what in OTHER_OBJECTS.items():
                if found.sop_class.startswith(start):
                    raise OtherObject(f"{name}: is {what}, not an image")
            if found.broken:
                raise ValueError("breaks off")
            return _header(found)
    except DeflatedError:
        raise SubjectError(f"{name}: is DICOM that is deflated; unpack it (dcmconv +te)") from None
    except (OSError, ValueError):
        raise SubjectError(
            f"{name}: cannot be read: truncated, corrupt or not a DICOM image"
        ) from None


def read_series(files: Sequence[Path], name: str, *, constant: bool = False) -> Image:
    """Read the files of one series, or a multi-frame file, as a 3D volume.

    Slices are ordered along their normal. Where their positions do not follow it (gantry tilt),
    the grid of the volume is sheared as they are; resampling makes it straight.

    Args:
        files: in any order.
        name: what to call the series in an error.
        constant: whether a volume of one value is fine.

    Raises:
        SubjectError: a file is missing or damaged, slices differ in size or direction, lie at one
            position, are missing or uneven; not finite, or constant.
    """
    planes: list[npt.NDArray[Any]] = []
    headers: list[DicomHeader] = []
    for file in files:
        label = _label(name, file, files)
        check_present(file, label)
        header = read_dicom_header(file, label)
        _check_volume(header, label)
        image = read_image(file, label, DICOM_READER)
        values = np.asarray(simpleitk().GetArrayFromImage(image))
        planes += _rescaled(values.reshape(-1, *values.shape[-2:]), header.slices)
        headers.append(header)
    order, grid = _grid(headers, name)
    volume, notes = _without_padding(np.stack([planes[i] for i in order]).T, headers, order)
    return Image(checked(volume, name, constant), grid, True, notes)


def series_grid(files: Sequence[Path], name: str) -> Grid:
    """The grid that `read_series` would give, by the headers alone.

    Raises:
        SubjectError: as there, but for the voxels.
    """
    headers = []
    for file in files:
        label = _label(name, file, files)
        check_present(file, label)
        headers.append(read_dicom_header(file, label))
        _check_volume(headers[-1], label)
    return _grid(headers, name)[1]


def _label(name: str, file: Path, files: Sequence[Path]) -> str:
    return f"{name}: {file.name}" if len(files) > 1 else name


def _check_volume(header: DicomHeader, label: str) -> None:
    """Refuse what is no part of a volume."""
    if header.colours > 1:
        raise SubjectError(f"{label}: is in colour; a scan has one value a voxel")
    if len(header.slices) != header.size[2]:
        raise SubjectError(f"{label}: does not say where its slices lie")


def _grid(headers: Sequence[DicomHeader], name: str) -> tuple[list[int], Grid]:
    """The order of all slices, and the grid of the volume that they make."""
    series = {header.series for header in headers}
    if len(series) > 1:
        raise SubjectError(f"{name}: holds {len(series)} series; give each a folder of its own")
    sizes = {header.size[:2] for header in headers}
    if len(sizes) > 1:
        raise SubjectError(f"{name}: its slices have {len(sizes)} sizes; give each a series")
    order, affine = stack([s for header in headers for s in header.slices], name)
    return order, Grid((*headers[0].size[:2], len(order)), affine)


def stack(slices: Sequence[Slice], name: str) -> tuple[list[int], Floats]:
    """The order of slices along their normal, and the affine of the volume they make.

    Returns:
        Indices into `slices`, and index to world, RAS in mm, for `(column, row, slice)`.

    Raises:
        SubjectError: one slice only, two at one position, one missing, or not evenly spaced.
    """
    if len(slices) < 2:
        raise SubjectError(f"{name}: holds one slice; a volume has more")
    rows, columns = _axes(slices[0], name)
    spacing = np.array(slices[0].spacing)
    for other in slices[1:]:
        if not (
            np.allclose(other.orientation, slices[0].orientation, atol=DIRECTION_TOLERANCE)
            and np.allclose(other.spacing, spacing, rtol=DIRECTION_TOLERANCE)
        ):
            raise SubjectError(f"{name}: its slices differ in direction or in size of a voxel")
    normal = np.cross(rows, columns)
    positions = np.array([s.position for s in slices])
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    _check_gaps(np.diff(along[order]), name)
    # A straight line through all positions: rounding errors of single ones even out.
    number = np.arange(len(slices)) - (len(slices) - 1) / 2
    step = number @ positions[order] / (number @ number)
    start = positions.mean(axis=0) + number[0] * step
    drift = positions[order] - (start + np.outer(np.arange(len(slices)), step))
    axes = np.column_stack([rows * spacing[1], columns * spacing[0], step])
    if np.abs(np.linalg.solve(axes, drift.T)).max() > MOST_DRIFT:
        raise SubjectError(
            f"{name}: its slices are not evenly spaced along a line; resample them",
            kind="slices are not evenly spaced",
        )
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, start
    affine[:2] *= -1  # DICOM's world is LPS
    return order.tolist(), affine


def _check_gaps(gaps: Floats, name: str) -> None:
    same = np.flatnonzero(gaps < SAME_POSITION)
    if len(same):
        raise SubjectError(
            f"{name}: slices {same[0] + 1} and {same[0] + 2} of {len(gaps) + 1}, by position, lie "
            "at one place: copies, or several volumes in one series; keep one",
            kind="several slices at one place",
        )
    usual = float(np.median(gaps))
    wide = np.flatnonzero(gaps > MISSING * usual)
    if len(wide):
        first = wide[0]
        raise SubjectError(
            f"{name}: slices are missing: between slices {first + 1} and {first + 2} of "
            f"{len(gaps) + 1}, by position, is a gap of {gaps[first]:.4g} mm, the others are "
            f"{usual:.4g} mm apart; export the series again",
            kind="slices are missing",
        )


def _axes(first: Slice, name: str) -> tuple[Floats, Floats]:
    """Directions of rows and columns, made exactly perpendicular."""
    rows, columns = np.reshape(first.orientation, (2, 3))
    lengths = np.linalg.norm([rows, columns], axis=1)
    if np.abs(lengths - 1).max() > DIRECTION_TOLERANCE or abs(rows @ columns) > DIRECTION_TOLERANCE:
        raise SubjectError(f"{name}: the directions of its rows and columns are not perpendicular")
    if min(first.spacing) <= 0:
        raise SubjectError(f"{name}: its header gives no usable spacing")
    rows = rows / lengths[0]
    columns = columns - rows * (rows @ columns)
    return rows, columns / np.linalg.norm(columns)


def _rescaled(values: npt.NDArray[Any], slices: Sequence[Slice]) -> list[npt.NDArray[Any]]:
    """Frames, each by its own slope and intercept; the library applied the first frame's to all."""
    first = slices[0]
    if all((s.slope, s.intercept) == (first.slope, first.intercept) for s in slices):
        return list(values)
    stored = (values - first.intercept) / first.slope
    return [frame * s.slope + s.intercept for frame, s in zip(stored, slices, strict=True)]


def _without_padding(
    volume: npt.NDArray[Any], headers: Sequence[DicomHeader], order: Sequence[int]
) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """A volume whose padding, which is no measurement, has its lowest real value; and what is said.

    Padding among the real values stays: some writers name a value that does occur.
    """
    least = volume.min()
    if any(h.padding for h in headers):
        ends = np.array([_padded(h, s) for h in headers for s in h.slices])[order].T
        padded = (volume > ends[0]) & (volume < ends[1])
        note = "DICOM's padding"
    elif headers[0].modality == "CT" and least < LEAST_HOUNSFIELD:
        padded = volume == least
        note = "values below the Hounsfield scale, outside the scanner's field of view,"
        if padded.mean() < SHARE_OUTSIDE:
            return volume, ()
    else:
        return volume, ()
    if not padded.any() or padded.all():
        return volume, ()
    real, padding = volume[~padded], volume[padded]
    low, high = float(real.min()), float(real.max())
    beyond = max(low - float(padding.min()), float(padding.max()) - high)
    if beyond <= NEXT_TO * (high - low):
        inside = bool(low < padding.max() < high)
        return volume, ("the value of DICOM's padding occurs in the image; kept",) * inside
    return np.where(padded, real.min(), volume), (f"{note} counts as background",)


def _padded(header: DicomHeader, one: Slice) -> tuple[float, float]:
    """Between which values of a slice, as it is read, its padding lies; NaN if there is none."""
    if header.padding is None or header.inverted:
        return np.nan, np.nan
    ends = [stored * one.slope + one.intercept for stored in header.padding]
    half = abs(one.slope) / 2
    return min(ends) - half, max(ends) + half


def _header(found: Elements) -> DicomHeader:
    dataset = found.dataset
    frames = int(text(dataset, tags.FRAMES) or 1)
    return DicomHeader(
        study=text(dataset, tags.STUDY),
        series=text(dataset, tags.SERIES),
        instance=text(dataset, tags.INSTANCE),
        patient="\n".join(text(dataset, tag) for tag in tags.PATIENT).strip(),
        date=text(dataset, tags.DATE),
        description=text(dataset, tags.DESCRIPTION),
        modality=text(dataset, tags.MODALITY).upper(),
        image_type=tuple(v.strip() for v in text(dataset, tags.IMAGE_TYPE).upper().split("\\")),
        size=(number(dataset, tags.COLUMNS), number(dataset, tags.ROWS), frames),
        colours=number(dataset, tags.COLOURS) or 1,
        slices=_frames(dataset) if frames > 1 else _slices([lambda _, tag: text(dataset, tag)]),
        padding=_padding(dataset),
        inverted=text(dataset, tags.PHOTOMETRIC) == "MONOCHROME1",
    )


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    if tags.PADDING not in dataset:
        return None
    signed = number(dataset, tags.SIGNED) == 1
    last = tags.PADDING_LIMIT if tags.PADDING_LIMIT in dataset else tags.PADDING
    ends = [number(dataset, tag, signed=signed) for tag in (tags.PADDING, last)]
    return min(ends), max(ends)


def _frames(dataset: Dataset) -> tuple[Slice, ...]:
    """Each frame's own geometry and scale, or none if one of them does not tell."""
    shared = items(dataset, tags.SHARED_GROUPS)[:1]

    def of(frame: Dataset) -> Callable[[int, int], str]:
        def told(group: int, tag: int) -> str:
            # A frame's own before what all share.
            for groups in (frame, *shared):
                for item in items(groups, group)[:1]:
                    if tag in item:
                        return text(item, tag)
            return ""

        return told

    return _slices([of(frame) for frame in items(dataset, tags.FRAME_GROUPS)])


def _slices(frames: Sequence[Callable[[int, int], str]]) -> tuple[Slice, ...]:
    """Slices by what is told of each, of a functional group and a tag; none if one is not told."""
    slices = []
    for told in frames:
        position = _numbers(told(tags.POSITIONS, tags.POSITION), 3)
        orientation = _numbers(told(tags.ORIENTATIONS, tags.ORIENTATION), 6)
        spacing = _numbers(told(tags.MEASURES, tags.SPACING), 2)
        slope = _numbers(told(tags.TRANSFORMATIONS, tags.SLOPE), 1) or (1.0,)
        intercept = _numbers(told(tags.TRANSFORMATIONS, tags.INTERCEPT), 1) or (0.0,)
        if not (position and orientation and spacing) or (slope == (0.0,) and len(frames) > 1):
            return ()
        slices.append(Slice(position, orientation, spacing, *slope, *intercept))
    return tuple(slices)


def _numbers(told: str, count: int) -> tuple[float, ...]:
    """So many finite numbers of a decimal string, or none."""
    try:
        numbers = tuple(float(part) for part in told.split("\\"))
    except ValueError:
        return ()
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else ()
