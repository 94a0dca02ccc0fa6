"""Headers: the grid of an image, without reading its voxels."""

from __future__ import annotations

import os
from pathlib import Path

from vitaepp.data.geometry import Floats, Grid, is_usable, simpleitk
from vitaepp.data.suffixes import SCAN_READERS, SCAN_SUFFIXES, suffix_of
from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.dicom import series_grid
from vitaepp.ingest.readers.dicom_elements import is_dicom
from vitaepp.ingest.readers.image import check_present, quiet
from vitaepp.ingest.readers.items import Item, SeriesItem, VolumeItem, files_of
from vitaepp.ingest.readers.nifti import read_volume_header
from vitaepp.ingest.readers.pictures import picture_grid
from vitaepp.ingest.readers.scans import affine_of


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
    path = item if isinstance(item, Path) else item.file
    for file in files_of(item):
        check_present(file, name if file == path else f"{name}: its voxels in {file.name}")
    reader = SCAN_READERS.get(suffix_of(path.name, SCAN_SUFFIXES).lower(), "") if ndim == 3 else ""
    if path.suffix.lower() == ".npy":
        return None
    if ndim == 2 and not is_dicom(path):
        return picture_grid(path)
    if reader == "nibabel":
        try:
            volume = read_volume_header(path, name)
        except SubjectError:
            return None
        return _grid(item, volume.shape, volume.affine)
    header = simpleitk().ImageFileReader()
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
    return _grid(item, size, affine_of(header))


def _grid(item: Item, size: tuple[int, ...], affine: Floats) -> Grid | None:
    """The grid of a 3D scan, or of one volume of a 4D scan; None if it is not usable."""
    if isinstance(item, VolumeItem):
        size = size[:3]
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    usable = len(size) == 3 and min(size) > 0 and is_usable(affine)
    return Grid(size, affine) if usable else None
