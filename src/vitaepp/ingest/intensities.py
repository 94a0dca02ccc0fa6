"""Intensities: which of an image become 0 and 255."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.geometry import simpleitk
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.errors import SubjectError
from vitaepp.ingest.readers import Image, to_grey

#: Share of the voxels on an image's outer faces that are 0 where 0 is what surrounds the body.
ZERO_FACES = 0.5

#: A window is not of a scan's unit where more of its foreground lies beyond one end.
MOST_BEYOND = 0.5

#: Voxels that are enough to tell what the foreground is.
ENOUGH_VOXELS = 500_000

#: Percentile beyond which intensities are one to Otsu's thresholds.
MOST_FOR_OTSU = 99.5


def intensity_range(image: Image, modality: str, info: StoreInfo, name: str) -> tuple[float, float]:
    """The intensities that become 0 and 255; what lies beyond is clipped.

    A modality with a window takes its ends, if the image is in its unit. Others take percentiles of
    the image or of its foreground, 0 and 100 without `clip`. 8-bit pictures of which nothing is
    asked keep their values.

    Args:
        image: as it was read.
        modality: whose window counts, if it has one.
        info: what is asked.
        name: what to call the image in an error.

    Raises:
        SubjectError: most of the foreground is on one side of the window, or nothing is left
            between the percentiles.
    """
    values = image.values
    if (window := info.window_of(modality)) is not None:
        check_window(to_grey(image), window, name)
        return window
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
    above = values > _thresholds(values)[0]
    return np.asarray(above if above.any() else values > values.min())


def _thresholds(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Two of Otsu's thresholds, the lower one first."""
    sitk = simpleitk()
    most = np.percentile(values, MOST_FOR_OTSU)
    capped = np.minimum(values, most) if most > values.min() else values
    otsu = sitk.OtsuMultipleThresholdsImageFilter()
    otsu.SetNumberOfThresholds(2)
    otsu.Execute(sitk.GetImageFromArray(np.ascontiguousarray(capped.T).astype(np.float32)))
    lower, higher = sorted(otsu.GetThresholds())
    return lower, higher


def check_window(values: npt.NDArray[Any], window: tuple[float, float], name: str) -> None:
    """Refuse a window that most of a scan's foreground lies beyond.

    The foreground is what is above one of Otsu's two thresholds: the lower one for what is too
    bright, so that bone alone never counts as the foreground; the higher one for what is too
    dark, so that air beside the padding around a CT's circle never does.

    Args:
        values: of the whole scan.
        window: its ends.
        name: what to call the scan in an error.

    Raises:
        SubjectError: with the range that was measured.
    """
    low, high = window
    step = int(np.ceil((values.size / ENOUGH_VOXELS) ** (1 / values.ndim)))
    seen = values[(slice(None, None, step),) * values.ndim]
    least, most = float(values.min()), float(values.max())
    told = ""
    if most <= low or least >= high:
        told = f"its intensities, {least:g} to {most:g}, lie outside of"
    elif np.ptp(seen) > 0:
        thresholds = _thresholds(seen)
        for threshold, beyond, where in (
            (thresholds[0], seen > high, "above"),
            (thresholds[1], seen < low, "below"),
        ):
            inside = seen > threshold
            share = np.count_nonzero(beyond & inside) / max(1, int(np.count_nonzero(inside)))
            if share > MOST_BEYOND:
                first, last = np.percentile(seen[inside], (5, 95))
                told = (
                    f"{share:.0%} of its foreground, which is mostly {first:g} to {last:g} (the "
                    f"scan is {least:g} to {most:g}), lies {where}"
                )
    if told:
        raise SubjectError(
            f"{name}: {told} the window {low:g} to {high:g}; a window is in the scan's own unit, "
            "Hounsfield for CT: give one that holds these values, or --clip 0.5,99.5 instead"
        )


def shows_nothing(values: npt.NDArray[np.floating[Any]], *, windowed: bool) -> bool:
    """Whether a crop, in [0, 255], has one value; of a window, but for two voxels in a thousand."""
    if not windowed:
        return bool(np.ptp(values) == 0)
    low, high = np.percentile(values, (0.1, 99.9))
    return bool(high - low < 1)
