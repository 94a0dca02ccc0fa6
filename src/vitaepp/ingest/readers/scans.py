"""Scans: 3D volumes in physical space."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from vitaepp.errors import SubjectError
from vitaepp.ingest.geometry import Grid, array_of, simpleitk
from vitaepp.ingest.items import VolumeItem
from vitaepp.ingest.readers.image import Image, check_present, checked, read_image
from vitaepp.ingest.readers.nifti import check_nifti, promised_checksum


def read_scan(item: Path | VolumeItem, name: str, *, constant: bool = False) -> Image:
    """Read a 3D scan.

    Args:
        item: NIfTI file, or one volume of it.
        name: what to call it in an error.
        constant: whether a volume of one value is fine, as it is for a mask.

    Raises:
        SubjectError: missing, truncated, corrupt, not 3D, not finite, or constant.
    """
    path = item if isinstance(item, Path) else item.file
    check_present(path, name)
    promised = promised_checksum(path)
    if promised is None:
        check_nifti(path, name)
    sitk = simpleitk()
    try:
        image = read_image(path, name)
    except SubjectError:
        check_nifti(path, name)  # it may know better why
        raise
    if promised is not None:
        before, whole = promised
        if zlib.crc32(sitk.GetArrayViewFromImage(image), before) != whole:
            check_nifti(path, name)
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise SubjectError(
            f"{name}: has {image.GetNumberOfComponentsPerPixel()} values a voxel; a scan has one"
        )
    if "complex" in image.GetPixelIDTypeAsString():
        raise SubjectError(f"{name}: its voxels are complex numbers; give their magnitude")
    if isinstance(item, VolumeItem):
        image = _volume(image, item.index, name)
    size = image.GetSize()
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    if len(size) != 3:
        shape = "×".join(str(n) for n in size)
        raise SubjectError(
            f"{name}: is {len(size)}D ({shape}); a 3D volume is needed, one file a modality"
        )
    if len(size) < image.GetDimension():
        depth = [*size, *[0] * (image.GetDimension() - 3)]
        image = sitk.Extract(image, depth, [0] * image.GetDimension())
    spacing, direction = np.array(image.GetSpacing()), np.reshape(image.GetDirection(), (3, 3))
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1  # SimpleITK's world is LPS
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise SubjectError(f"{name}: its header gives no usable spacing and orientation")
    values = array_of(image).T
    return Image(checked(values, name, constant), Grid(tuple(size), affine), True)


def _volume(image: Any, index: int, name: str) -> Any:
    size = image.GetSize()
    if len(size) != 4 or index >= size[3]:
        shape = "×".join(str(n) for n in size)
        raise SubjectError(f"{name}: there is no volume {index} in a scan of {shape}")
    return simpleitk().Extract(image, [*size[:3], 0], [0, 0, 0, index])
