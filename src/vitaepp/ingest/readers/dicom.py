"""DICOM series: the slices of a series, ordered by position, make one volume.

Order and spacing come only from the positions of the slices, not from instance numbers, file names
or slice thickness.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Floats
from vitaepp.data.geometry import Grid, simpleitk
from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.dicom_header import DicomHeader, Slice, read_dicom_header
from vitaepp.ingest.readers.dicom_values import TABLED, padding_of, without_padding
from vitaepp.ingest.readers.image import (
    DICOM_READER,
    OTHER_UNIT,
    Image,
    check_present,
    checked,
    read_image,
)

#: Tolerance for directions, and for shares of a spacing; headers have few digits.
TOLERANCE = 1e-2

#: The reason, in words to be counted, if slices cannot be parts of one volume.
DIFFERENT = "slices differ in size or direction"

#: Slices closer than this, in mm, count as at the same position.
SAME_POSITION = 0.01

#: In a gap this many times as wide as the usual gap, a slice is missing.
MISSING = 1.5

#: How far, in voxels, a slice may be from its position by even spacing.
MOST_DRIFT = 0.1


def read_series(files: Sequence[Path], name: str, *, constant: bool = False) -> Image:
    """Read the files of one series, or a multi-frame file, as a 3D volume.

    Slices are ordered along their normal. If their positions do not follow it (gantry tilt), the
    grid of the volume is sheared too, and resampling straightens it.

    Args:
        files: the files in any order.
        name: the name of the series in error messages.
        constant: whether all voxels may have the same value.

    Raises:
        SubjectError: a file is missing or damaged; slices differ in size or direction, share a
            position, are missing or unevenly spaced; values are not finite, or constant.
    """
    planes: list[npt.NDArray[Any]] = []
    headers: list[DicomHeader] = []
    for file, label, header in _headers(files, name):
        image = read_image(file, label, DICOM_READER)
        values = np.asarray(simpleitk().GetArrayFromImage(image))
        planes += _rescaled(values.reshape(-1, *values.shape[-2:]), header.slices)
        headers.append(header)
    order, grid = _grid(headers, name)
    ends = [padding_of(h, one.slope, one.intercept) for h in headers for one in h.slices]
    volume, notes = without_padding(
        np.stack([planes[i] for i in order]).T,
        np.array(ends)[order].T,
        ct=headers[0].modality == "CT",
    )
    notes += (TABLED,) * any(header.tabled for header in headers)
    notes += (OTHER_UNIT,) * any(header.other_unit for header in headers)
    return Image(checked(volume, name, constant), grid, True, notes)


def series_grid(files: Sequence[Path], name: str) -> Grid:
    """The grid that `read_series` would return, from the headers alone.

    Raises:
        SubjectError: as in `read_series`, except for faults of the voxels.
    """
    return _grid([header for _, _, header in _headers(files, name)], name)[1]


def _headers(files: Sequence[Path], name: str) -> Iterator[tuple[Path, str, DicomHeader]]:
    """Each file with its name in error messages and its header, if it can be part of a volume."""
    for file in files:
        label = f"{name}: {file.name}" if len(files) > 1 else name
        check_present(file, label)
        header = read_dicom_header(file, label)
        if header.colours > 1:
            raise SubjectError(f"{label}: is in colour; a scan has one value per voxel")
        if len(header.slices) != header.size[2]:
            raise SubjectError(f"{label}: its header lacks the position of its slices")
        yield file, label, header


def _grid(headers: Sequence[DicomHeader], name: str) -> tuple[list[int], Grid]:
    """The order of all slices, and the grid of their volume."""
    series = {header.series for header in headers}
    if len(series) > 1:
        raise SubjectError(f"{name}: holds {len(series)} series; put each into its own folder")
    sizes = {header.size[:2] for header in headers}
    if len(sizes) > 1:
        raise SubjectError(
            f"{name}: its slices have {len(sizes)} sizes; a volume has slices of one size",
            kind=DIFFERENT,
        )
    order, affine = stack([s for header in headers for s in header.slices], name)
    return order, Grid((*headers[0].size[:2], len(order)), affine)


def stack(slices: Sequence[Slice], name: str) -> tuple[list[int], Floats]:
    """Order slices along their normal, and find the affine of their volume.

    Returns:
        Indices into `slices`, and the affine, `(column, row, slice)` to RAS world in mm.

    Raises:
        SubjectError: there is only one slice, two share a position, one is missing, or they are
            not evenly spaced.
    """
    if len(slices) < 2:
        raise SubjectError(f"{name}: holds one slice; a volume has more")
    rows, columns = _axes(slices[0], name)
    spacing = np.array(slices[0].spacing)
    if not all(alike(other, slices[0]) for other in slices[1:]):
        raise SubjectError(
            f"{name}: its slices differ in direction or in voxel size; a volume has slices of one "
            "direction and voxel size",
            kind=DIFFERENT,
        )
    normal = np.cross(rows, columns)
    positions = np.array([s.position for s in slices])
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    _check_gaps(np.diff(along[order]), name)
    # Fit a straight line through all positions, so that rounding errors of single ones cancel.
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


def alike(one: Slice, other: Slice) -> bool:
    """Whether two slices have the same direction and voxel size, up to rounding in headers."""
    return np.allclose(one.orientation, other.orientation, rtol=0, atol=TOLERANCE) and np.allclose(
        one.spacing, other.spacing, rtol=TOLERANCE, atol=0
    )


def _check_gaps(gaps: Floats, name: str) -> None:
    same = np.flatnonzero(gaps < SAME_POSITION)
    if len(same):
        raise SubjectError(
            f"{name}: slices {same[0] + 1} and {same[0] + 2} of {len(gaps) + 1}, by position, have "
            "the same position: copies, or several volumes in one series; keep one",
            kind="several slices at one position",
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
    """The directions of rows and columns, made exactly perpendicular."""
    rows, columns = np.reshape(first.orientation, (2, 3))
    lengths = np.linalg.norm([rows, columns], axis=1)
    if np.abs(lengths - 1).max() > TOLERANCE or abs(rows @ columns) > TOLERANCE:
        raise SubjectError(f"{name}: the directions of its rows and columns are not perpendicular")
    if min(first.spacing) <= 0:
        raise SubjectError(f"{name}: its header gives no usable spacing")
    rows = rows / lengths[0]
    columns = columns - rows * (rows @ columns)
    return rows, columns / np.linalg.norm(columns)


def _rescaled(values: npt.NDArray[Any], slices: Sequence[Slice]) -> list[npt.NDArray[Any]]:
    """Frames with their own slope and intercept; SimpleITK applied those of the first to all."""
    first = slices[0]
    if all((s.slope, s.intercept) == (first.slope, first.intercept) for s in slices):
        return list(values)
    stored = (values - first.intercept) / first.slope
    return [frame * s.slope + s.intercept for frame, s in zip(stored, slices, strict=True)]
