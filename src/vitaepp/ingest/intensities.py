"""Intensities: which of an image become 0 and 255."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.errors import SubjectError
from vitaepp.ingest.geometry import foreground
from vitaepp.ingest.readers import Image, to_grey
from vitaepp.store import StoreInfo

#: Share of the voxels on a scan's outer faces that are 0 where 0 is what surrounds the body.
ZERO_FACES = 0.5

#: Percentile beyond which intensities are one to Otsu's threshold.
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
    over = values
    if info.statistics == "foreground":
        over = values[foreground_voxels(to_grey(image))]
    first, last = info.clip or (0.0, 100.0)
    low, high = (float(v) for v in np.percentile(over, (first, last)))
    if low >= high:
        where = info.statistics or "volume"
        advice = "clip less, or take them over the " + (
            "volume" if where == "foreground" else "foreground"
        )
        raise SubjectError(
            f"{name}: percentiles {first:g} and {last:g} of its {where} are both {low:g}; {advice}"
        )
    return low, high


def foreground_voxels(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """The voxels of the body, of any number of axes.

    Where 0 is the background, as in scans whose skull or air was removed, these are all others:
    nothing is negative, and at least half of the voxels on the image's outer faces are 0. Else
    they are the voxels above Otsu's threshold, of intensities up to their 99.5th percentile: the
    threshold would else part a few very bright voxels, of metal or a vessel, from all the rest.

    Source:
        Isensee et al. 2021 (nnU-Net) for nonzero voxels; Otsu 1979.
    """
    if values.min() < 0:
        return _above_otsu(values)
    faces = [np.take(values, end, axis) for axis in range(values.ndim) for end in (0, -1)]
    zeros = sum(face.size - int(np.count_nonzero(face)) for face in faces)
    if zeros >= ZERO_FACES * sum(face.size for face in faces):
        return np.asarray(values != 0)
    return _above_otsu(values)


def _above_otsu(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    most = np.percentile(values, MOST_FOR_OTSU)
    return foreground(np.minimum(values, most) if most > values.min() else values)


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
