"""Scans: 3D volumes in physical space, and the grid of any image by its header."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data import geometry
from vitaepp.data.arrays import Floats
from vitaepp.data.geometry import Grid
from vitaepp.data.suffixes import SCAN_READERS, SCAN_SUFFIXES, suffix_of
from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.arrays import read_npy
from vitaepp.ingest.readers.dicom import read_series, series_grid
from vitaepp.ingest.readers.dicom_elements import is_dicom
from vitaepp.ingest.readers.image import Image, check_present, checked, quiet, read_image
from vitaepp.ingest.readers.items import Item, SeriesItem, VolumeItem, files_of
from vitaepp.ingest.readers.meta import check_compressed, check_meta, place_in_words
from vitaepp.ingest.readers.nifti import SAME_PLACE, read_volume, read_volume_header
from vitaepp.ingest.readers.pictures import picture_grid
from vitaepp.system.text import dimensions

SHEARED = "axes are not at right angles; the scan is resampled to a crop with right angles"


def read_scan(item: Path | VolumeItem | SeriesItem, name: str, *, constant: bool = False) -> Image:
    """Read a 3D scan.

    Args:
        item: a file, one volume of a 4D file, or the files of a DICOM series.
        name: its name in error messages.
        constant: whether all voxels may have the same value, as in a mask.

    Raises:
        SubjectError: the file is missing, truncated, corrupt, not 3D, not finite, or constant.
    """
    if isinstance(item, SeriesItem):
        return read_series(item.files, name, constant=constant)
    path = _present(item, name)
    return READERS[_reader_of(path)](item, path, name, constant)


def _present(item: Path | VolumeItem, name: str) -> Path:
    """The file that is opened, after a look at whether all files of an image are there."""
    path = item if isinstance(item, Path) else item.file
    for file in files_of(item):
        check_present(file, name if file == path else f"{name}: its voxels in {file.name}")
    return path


def _reader_of(path: Path) -> str:
    """Its name in `READERS`; empty where the content decides, as with DICOM."""
    return SCAN_READERS.get(suffix_of(path.name, SCAN_SUFFIXES).lower(), "")


def _by_nibabel(item: Path | VolumeItem, path: Path, name: str, constant: bool) -> Image:
    values, header = read_volume(path, name)
    return _scan(item, values, header.affine, header.notes, name, constant)


def _by_simpleitk(
    reader: str, item: Path | VolumeItem, path: Path, name: str, constant: bool
) -> Image:
    check_compressed(path, name)
    if reader == "MetaImageIO":
        check_meta(path, name)
    length = sum(file.stat().st_size for file in files_of(item))
    image = read_image(path, name, reader, length)
    return _scan(item, _values(image, name), *_place(path, image), name, constant)


#: SimpleITK's readers; the empty name finds the format by content.
SIMPLEITK = ("", "NrrdImageIO", "MetaImageIO")

#: What reads a scan, by the name in `SCAN_READERS`: of the item, its file, its name in errors and
#: whether all voxels may have the same value.
READERS: dict[str, Callable[[Path | VolumeItem, Path, str, bool], Image]] = {
    "numpy": lambda _, path, name, constant: read_npy(path, name, ndim=3, constant=constant),
    "nibabel": _by_nibabel,
    **{reader: partial(_by_simpleitk, reader) for reader in SIMPLEITK},
}


def _scan(
    item: Path | VolumeItem,
    values: npt.NDArray[Any],
    affine: Floats,
    notes: tuple[str, ...],
    name: str,
    constant: bool,
) -> Image:
    """One 3D scan from all values of a file."""
    if values.dtype.kind not in "biuf":
        raise SubjectError(
            f"{name}: its voxels are complex numbers or colours; one real number per voxel is "
            "needed"
        )
    if isinstance(item, VolumeItem):
        if values.ndim != 4 or item.index >= values.shape[3]:
            raise SubjectError(
                f"{name}: there is no volume {item.index} in a scan of {dimensions(values.shape)}"
            )
        if item.of not in (None, values.shape[3]):
            raise SubjectError(
                f"{name}: the scan has {values.shape[3]} volumes, and {item.of} modalities are "
                "named; name each volume, in their order"
            )
        values = values[..., item.index]
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 5 and values.shape[3] == 1:
        raise _several(values.shape[4], name)
    if values.ndim != 3:
        raise SubjectError(
            f"{name}: is {values.ndim}D ({dimensions(values.shape)}); a 3D volume is needed, one "
            "file per modality"
        )
    if not geometry.is_usable(affine):
        raise SubjectError(f"{name}: its header gives no usable spacing and orientation")
    grid = Grid(values.shape, affine)
    if geometry.farthest_apart(grid, geometry.straightened(grid).affine) > SAME_PLACE:
        notes += (SHEARED,)
    return Image(checked(values, name, constant), grid, True, notes)


def _several(number: int, name: str) -> SubjectError:
    return SubjectError(f"{name}: has {number} values per voxel; a scan has one")


def _values(image: Any, name: str) -> npt.NDArray[Any]:
    """The values of a SimpleITK image, `(x, y, z, …)`."""
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise _several(image.GetNumberOfComponentsPerPixel(), name)
    return geometry.array_of(image).T


def _place(path: Path, image: Any) -> tuple[Floats, tuple[str, ...]]:
    """The affine of a SimpleITK image in mm, whatever unit its file has, and notes on decisions."""
    factors, notes = place_in_words(path)
    affine = affine_of(image)
    affine[:3] *= np.reshape(factors, (3, 1))
    return affine, notes


def affine_of(image: Any) -> Floats:
    """The affine, index to RAS world in mm, of the first three axes of a SimpleITK image."""
    ndim = image.GetDimension()
    with np.errstate(over="ignore"):  # the caller checks that it is finite
        linear = np.reshape(image.GetDirection(), (ndim, ndim)) * np.array(image.GetSpacing())
    affine = np.eye(4)
    space = min(ndim, 3)
    affine[:space, :space] = linear[:space, :space]
    affine[:space, 3] = image.GetOrigin()[:space]
    affine[:2] *= -1  # SimpleITK's world is LPS
    return affine


def read_grid(item: Item, name: str, *, ndim: int) -> Grid | None:
    """Read the grid from a file's header, in the file's own order of axes.

    Args:
        item: a file, one volume of a 4D file, or a DICOM series.
        name: its name in error messages.
        ndim: number of spatial axes: 3 for scans, 2 for pictures.

    Returns:
        The grid: RAS+ world in mm for scans, indices `(row, column)` for pictures. None if the
        header does not give it (`.npy`, a damaged file); then the voxels have to be read.

    Raises:
        SubjectError: the file is missing or empty, or the DICOM series is not a volume.
    """
    if isinstance(item, SeriesItem):
        return series_grid(item.files, name)
    if not isinstance(item, Path | VolumeItem):
        return None
    path = _present(item, name)
    if ndim == 2 and not is_dicom(path):
        return picture_grid(path)
    reader = _reader_of(path) if ndim == 3 else ""
    if reader == "nibabel":
        try:
            volume = read_volume_header(path, name)
        except SubjectError:
            return None
        return _usable_grid(item, volume.shape, volume.affine)
    if reader not in SIMPLEITK:
        return None
    header = geometry.simpleitk().ImageFileReader()
    try:
        with quiet():
            header.SetFileName(os.fspath(path))
            header.SetImageIO(reader)
            header.ReadImageInformation()
    except RuntimeError:
        return None
    size = tuple(header.GetSize())
    if ndim == 2:
        return Grid.of_indices(size[::-1]) if len(size) == 2 and min(size) > 0 else None
    return _usable_grid(item, size, _place(path, header)[0])


def _usable_grid(item: Item, size: tuple[int, ...], affine: Floats) -> Grid | None:
    """The grid of a 3D scan, or of one volume of a 4D scan; None if it is not usable."""
    if isinstance(item, VolumeItem):
        if item.of is not None and size[3:] != (item.of,):
            return None  # reading it gives the reason
        size = size[:3]
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    usable = len(size) == 3 and min(size) > 0 and geometry.is_usable(affine)
    return Grid(size, affine) if usable else None
