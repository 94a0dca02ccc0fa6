"""Intensities: which of an image become 0 and 255."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.errors import SubjectError
from vitaepp.ingest.geometry import simpleitk
from vitaepp.ingest.readers import Image, to_grey
from vitaepp.store import StoreInfo

#: Share of the voxels on an image's outer faces that are 0 where 0 is what surrounds the body.
ZERO_FACES = 0.5

#: Percentile beyond which intensities are one to Otsu's thresholds.
MOST_FOR_OTSU = 99.5


def intensity_range(image: Image, modality: str, info: StoreInfo, name: str) -> tuple[float, float]:
    """The intensities that become 0 and 255; what lies beyond is clipped.

    A modality with a window takes its ends, whatever the image holds. Others take percentiles of
    the image or of its foreground, 0 and 100 without `clip`. 8-bit pictures of which nothing is
    asked keep their values.

    Args:
        image: as it was read.
        modality: whose window counts, if it has one.
        info: what is asked.
        name: what to call the image in an error.

    Raises:
        SubjectError: all intensities are on one side of the window, or nothing is left between
            the percentiles.
    """
    values = image.values
    if (window := info.window_of(modality)) is not None:
        return _checked_window(values, window, name)
    if info.clip is None and info.statistics is None:
        if not image.physical and values.dtype == np.uint8:
            return 0.0, 255.0
        return float(values.min()), float(values.max())
    first, last = info.clip or (0.0, 100.0)
    if info.statistics == "foreground":
        low, high = foreground_percentiles(values, to_grey(image), first, last)
    else:
        low, high = (float(v) for v in np.percentile(values, (first, last)))
    if low >= high:
        where = info.statistics or "volume"
        advice = "clip less, or take them over the " + (
            "volume" if where == "foreground" else "foreground"
        )
        raise SubjectError(
            f"{name}: percentiles {first:g} and {last:g} of its {where} are both {low:g}; {advice}"
        )
    return low, high


def foreground_percentiles(
    values: npt.NDArray[Any], grey: npt.NDArray[Any], first: float, last: float
) -> tuple[float, float]:
    """Two percentiles that do not depend on how much background there is.

    Where 0 surrounds the body, both are of the voxels that are not 0. Else the higher one is of the
    voxels above a threshold; the lower one is of the whole image, since a threshold also cuts off
    what is dark in the body, such as the ventricles in T1.

    Args:
        values: intensities; colours on a last axis.
        grey: the same without colours.
        first: the lower percentile.
        last: the higher one.

    Source:
        Isensee et al. 2021 (nnU-Net) for voxels that are not 0.
    """
    if zero_surrounds(grey):
        low, high = np.percentile(values[grey != 0], (first, last))
    else:
        low, high = np.percentile(values, first), np.percentile(values[body(grey)], last)
    return float(low), float(high)


def zero_surrounds(values: npt.NDArray[Any]) -> bool:
    """Whether 0 is the background: nothing is below, and half of the outer faces' voxels are 0."""
    if values.min() < 0:
        return False
    faces = [np.take(values, end, axis) for axis in range(values.ndim) for end in (0, -1)]
    zeros = sum(face.size - int(np.count_nonzero(face)) for face in faces)
    return zeros >= ZERO_FACES * sum(face.size for face in faces)


def body(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Voxels above the lower of two thresholds that part air, tissue, and what is brightest.

    A single one would part fat from all the rest in T1. Intensities beyond their 99.5th percentile
    count as this: a few voxels of metal or a vessel would else be a class of their own.

    Source:
        Liao et al. 2001, for several of Otsu's thresholds.
    """
    sitk = simpleitk()
    most = np.percentile(values, MOST_FOR_OTSU)
    capped = np.minimum(values, most) if most > values.min() else values
    otsu = sitk.OtsuMultipleThresholdsImageFilter()
    otsu.SetNumberOfThresholds(2)
    otsu.Execute(sitk.GetImageFromArray(np.ascontiguousarray(capped.T).astype(np.float32)))
    above = values > min(otsu.GetThresholds())
    return np.asarray(above if above.any() else values > values.min())


def _checked_window(
    values: npt.NDArray[Any], window: tuple[float, float], name: str
) -> tuple[float, float]:
    least, most = float(values.min()), float(values.max())
    if most <= window[0] or least >= window[1]:
        raise SubjectError(
            f"{name}: its intensities, {least:g} to {most:g}, lie outside of the window "
            f"{window[0]:g} to {window[1]:g}; a window is in the scan's own unit, Hounsfield for CT"
        )
    return window
