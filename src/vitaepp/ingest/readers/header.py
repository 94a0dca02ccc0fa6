"""Headers: where the voxels of an image are, without reading them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from vitaepp.ingest.geometry import Grid, simpleitk
from vitaepp.ingest.items import Item, SeriesItem, VolumeItem
from vitaepp.ingest.readers.dicom import series_grid
from vitaepp.ingest.readers.image import affine_of, check_present, quiet
from vitaepp.ingest.readers.nifti import header_of


def read_header(item: Item, name: str, *, ndim: int) -> Grid | None:
    """The grid that a file's header tells, in the file's own order of axes.

    Args:
        item: a file that SimpleITK reads, one volume of it, or a DICOM series.
        name: what to call it in an error.
        ndim: spatial axes wanted: 3 for scans, 2 for pictures.

    Returns:
        The grid: RAS+ world in mm for scans, indices `(row, column)` for pictures. None where the
        header alone does not tell; whoever reads the voxels then knows, or knows why not.

    Raises:
        SubjectError: no such file, or an empty one; or a DICOM series that makes no volume.
    """
    if isinstance(item, SeriesItem):
        return series_grid(item.files, name)
    if not isinstance(item, Path | VolumeItem):
        return None
    path = item if isinstance(item, Path) else item.file
    check_present(path, name)
    nifti = header_of(path) if path.suffix.lower() == ".hdr" else None
    if nifti is not None and nifti.analyze:
        return None  # SimpleITK takes its axes for other ones
    reader = simpleitk().ImageFileReader()
    try:
        with quiet():
            reader.SetFileName(os.fspath(path))
            reader.ReadImageInformation()
    except RuntimeError:
        return None
    size = tuple(reader.GetSize())
    if isinstance(item, VolumeItem):
        size = size[:3]
    while len(size) > ndim and size[-1] == 1:
        size = size[:-1]
    if len(size) != ndim or min(size) < 1:
        return None
    if ndim == 2:
        return Grid.of_indices(size[::-1])
    affine = affine_of(reader)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        return None
    return Grid(size, affine)
