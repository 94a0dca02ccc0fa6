"""Intensities: the range of an image's intensities that becomes 0 to 255."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Flags, Numbers
from vitaepp.data.geometry import simpleitk
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.image import OTHER_UNIT, Image, to_grey

#: 0 counts as the background if at least this share of the voxels on the outer faces is 0.
ZERO_FACES = 0.5

#: A window does not fit a scan if more than this share of the foreground lies beyond one end.
MOST_BEYOND = 0.5

#: About how many voxels are used to find the foreground.
ENOUGH_VOXELS = 500_000

#: A scan of at most so many values is a drawing, as a mask is.
MANY_VALUES = 16

#: Intensities above this percentile are clipped to it before Otsu's thresholds are computed.
MOST_FOR_OTSU = 99.5


def intensity_range(image: Image, modality: str, info: StoreInfo, name: str) -> tuple[float, float]:
    """The intensities that become 0 and 255; values beyond them are clipped.

    A modality with a window uses its ends. Others use percentiles of the image or of its
    foreground; without `clip` these are 0 and 100. If neither `clip` nor `statistics` is set, 8-bit
    pictures keep their values.

    Args:
        image: the image as it was read.
        modality: its modality, which may have a window.
        info: the settings of the store.
        name: its name in error messages.

    Raises:
        SubjectError: most of the foreground is on one side of the window, the window's unit may not
            be the image's, or both percentiles are equal.
    """
    values = image.values
    if (window := info.window_of(modality)) is not None:
        if OTHER_UNIT in image.notes:
            raise SubjectError(
                f"{name}: {OTHER_UNIT}, as a window expects of CT; use `clip=0.5,99.5`, or correct "
                "its header (Rescale Intercept, Rescale Type HU)"
            )
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
        advice = "clip less, or compute them over the " + (
            "volume" if where == "foreground" else "foreground"
        )
        raise SubjectError(
            f"{name}: percentiles {first:g} and {last:g} of its {where} are both {low:g}; {advice}"
        )
    return low, high


def foreground_percentiles(
    values: npt.NDArray[Any], grey: npt.NDArray[Any], first: float, last: float
) -> tuple[float, float]:
    """Two percentiles that do not depend on the amount of background.

    If 0 surrounds the body, both are computed over the voxels that are not 0. Otherwise the higher
    percentile is computed over the voxels above a threshold, and the lower one over the whole
    image, because a threshold also excludes dark tissue, such as the ventricles in T1.

    Args:
        values: intensities; colours are on the last axis.
        grey: the same image in grey.
        first: the lower percentile.
        last: the higher percentile.

    Source:
        Isensee et al. 2021 (nnU-Net), for the use of voxels that are not 0.
    """
    if zero_surrounds(grey):
        low, high = np.percentile(values[grey != 0], (first, last))
    else:
        low, high = np.percentile(values, first), np.percentile(values[body(grey)], last)
    return float(low), float(high)


def zero_surrounds(values: npt.NDArray[Any]) -> bool:
    """Whether 0 is the background: no value is lower, and half of the outer faces' voxels are 0."""
    if values.min() < 0:
        return False
    faces = [np.take(values, end, axis) for axis in range(values.ndim) for end in (0, -1)]
    zeros = sum(face.size - int(np.count_nonzero(face)) for face in faces)
    return zeros >= ZERO_FACES * sum(face.size for face in faces)


def body(values: npt.NDArray[Any]) -> Flags:
    """Voxels above the lower of two thresholds, which separate air, tissue and bright tissue.

    A single threshold would separate fat from everything else in T1. Intensities above the 99.5th
    percentile are clipped to it; otherwise a few voxels of metal or a vessel would be a class.

    Source:
        Liao et al. 2001, for Otsu's method with several thresholds.
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
    """Refuse a window if most of a scan's foreground lies beyond one of its ends.

    The foreground are the voxels above one of Otsu's two thresholds. To find too bright voxels the
    lower threshold is used, so that the foreground is more than bone. To find too dark voxels the
    higher one is used, so that air beside the padding around a CT's circle does not count.

    Args:
        values: intensities of the whole scan.
        window: the ends of the window.
        name: the scan's name in error messages.

    Raises:
        SubjectError: the window does not fit; the message gives the range that was measured.
    """
    low, high = window
    step = int(np.ceil((values.size / ENOUGH_VOXELS) ** (1 / values.ndim)))
    sample = values[(slice(None, None, step),) * values.ndim]
    least, most = float(values.min()), float(values.max())
    problem = ""
    if most <= low or least >= high:
        problem = f"its intensities, {least:g} to {most:g}, lie outside"
    elif np.ptp(sample) > 0:
        thresholds = _thresholds(sample)
        for threshold, beyond, where in (
            (thresholds[0], sample > high, "above"),
            (thresholds[1], sample < low, "below"),
        ):
            inside = sample > threshold
            share = np.count_nonzero(beyond & inside) / max(1, int(np.count_nonzero(inside)))
            if share > MOST_BEYOND:
                first, last = np.percentile(sample[inside], (5, 95))
                problem = (
                    f"{share:.0%} of its foreground, which is mostly {first:g} to {last:g} (the "
                    f"scan is {least:g} to {most:g}), lies {where}"
                )
    if problem:
        raise SubjectError(
            f"{name}: {problem} the window {low:g} to {high:g}; a window is in the scan's own unit "
            "(Hounsfield for CT): give one that contains these values, or use `clip=0.5,99.5`"
        )


def shows_nothing(values: Numbers, *, windowed: bool) -> bool:
    """Whether all voxels of a crop in [0, 255] are equal; with a window, all but 0.2 % of them."""
    if not windowed:
        return bool(np.ptp(values) == 0)
    low, high = np.percentile(values, (0.1, 99.9))
    return bool(high - low < 1)


def has_few_levels(values: Numbers, scan: npt.NDArray[Any]) -> bool:
    """Whether a crop in [0, 255] is nearly black and white although its scan is not.

    So it is if two of 256 grey levels hold all but 0.2 % of the voxels, and the scan has many
    values: a few far beyond the others, as one voxel of 1e30, leave these no contrast.
    """
    counts = np.bincount(np.rint(values).astype(np.uint8).ravel(), minlength=256)
    if np.sort(counts)[-2:].sum() < 0.998 * values.size:
        return False
    return len(np.unique(scan.ravel()[:: max(1, scan.size // ENOUGH_VOXELS)])) > MANY_VALUES
