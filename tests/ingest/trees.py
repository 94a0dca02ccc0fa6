"""Small sources on disk."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from vitaepp.data.nifti import write_scan

SHIFTED = np.diag([1.0, 1.0, 1.0, 1.0])


def volume(seed: int = 0, shape=(10, 12, 9)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)


def scan(path: Path, seed: int = 0, shape=(10, 12, 9), affine=None, values=None) -> Path:
    values = volume(seed, shape) if values is None else values
    write_scan(path, values, np.eye(4) if affine is None else affine)
    return path


def mask(path: Path, shape=(10, 12, 9), at=(5, 6, 4), affine=None) -> Path:
    values = np.zeros(shape, np.uint8)
    if at is not None:
        values[at] = 1
    return scan(path, values=values, affine=affine)


def picture(path: Path, seed: int = 0, shape=(20, 16), colour: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (*shape, 3)).astype(np.uint8)
    if not colour:
        values[:] = values[..., :1]
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(path))
    return path


def brats(root: Path, subjects=("a", "b", "c"), separator="_", names=("flair", "t1", "t1ce", "t2")):
    for i, subject in enumerate(subjects):
        for j, name in enumerate(names):
            scan(root / subject / f"{subject}{separator}{name}.nii.gz", seed=10 * i + j)
        mask(root / subject / f"{subject}{separator}seg.nii.gz", at=(3 + i, 6, 4))
    return root
