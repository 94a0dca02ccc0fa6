"""Headers: where the voxels of an image are, without reading them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from vitaepp.ingest.geometry import Grid, simpleitk
from vitaepp.ingest.items import Item, SeriesItem, VolumeItem, files_of
from vitaepp.ingest.readers.dicom import series_grid
from vitaepp.ingest.readers.image import check_present, quiet
from vitaepp.ingest.readers.nifti import header_of
from vitaepp.ingest.readers.scans import affine_of
from vitaepp.ingest.readers.suffixes import SCAN_READERS, SCAN_SUFFIXES, suffix_of


def read_grid(item: Item, name: str, *, ndim: int) -> Grid | None:
    """The grid that a file's header tells, in the file's own order of axes.

    Args:
        item: a file that SimpleITK reads, one volume of it, or a DICOM series.
        name: what to call it in an error.
        ndim: spatial axes wanted: 3 for scans, 2 for pictures.

    Returns:
        The grid: RAS+ world in mm for scans, indices `(row, column)` for pictures. None where the
        header alone does not tell (NIfTI-2, Analyze, `.npy`, a damaged file): whoever reads the
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
    if reader == "NiftiImageIO":
        nifti = header_of(path)
        if nifti is None or nifti.is_nifti2 or nifti.analyze:
            return None
    header = simpleitk().ImageFileReader()
    try:
        with quiet():
            header.SetFileName(os.fspath(path))
            header.SetImageIO(reader)
            header.ReadImageInformation()
    except RuntimeError:
        return None
    size = tuple(header.GetSize())
    if isinstance(item, VolumeItem):
        size = size[:3]
    while len(size) > ndim and size[-1] == 1:
        size = size[:-1]
    if len(size) != ndim or min(size) < 1:
        return None
    if ndim == 2:
        return Grid.of_indices(size[::-1])
    affine = affine_of(header)
    with np.errstate(over="ignore"):
        usable = np.isfinite(affine).all() and 1e-12 < abs(np.linalg.det(affine)) < np.inf
    return Grid(size, affine) if usable else None
