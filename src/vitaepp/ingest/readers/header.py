"""Headers: where the voxels of an image are, without reading them."""

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
    """The grid that a file's header tells, in the file's own order of axes.

    Args:
        item: a file, one volume of it, or a DICOM series.
        name: what to call it in an error.
        ndim: spatial axes wanted: 3 for scans, 2 for pictures.

    Returns:
        The grid: RAS+ world in mm for scans, indices `(row, column)` for pictures. None where the
        header alone does not tell (`.npy`, a damaged file): whoever reads the
        voxels then knows, or knows why not.

    Raises:
        SubjectError: no such file, or an empty one; or a DICOM series that makes no volume.
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
    """Where the voxels of a 3D scan, or of one volume of a 4D scan, are; None if nowhere."""
    if isinstance(item, VolumeItem):
        size = size[:3]
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    usable = len(size) == 3 and min(size) > 0 and is_usable(affine)
    return Grid(size, affine) if usable else None
