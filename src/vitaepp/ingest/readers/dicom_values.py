"""Values of DICOM images: padding, which is not measured, and tables that are not applied."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.ingest.readers.dicom_header import DicomHeader

#: CT has no lower values; scanners use lower ones to fill the area outside their field of view.
LEAST_HOUNSFIELD = -1024

#: Such a fill value has at least this share of voxels; outside a circle is a fifth of its square.
SHARE_OUTSIDE = 0.01

#: Padding that is closer to the real values than this share of their range is kept as it is:
#: many MR scanners pad with 0, which is also the value of air.
NEXT_TO = 0.01

TABLED = "DICOM's table of values (Modality LUT) is not applied; these are the stored values"


def without_padding(
    values: npt.NDArray[Any], ends: npt.NDArray[Any], *, ct: bool = False
) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Replace padding, which is not measured, by the lowest real value; also returns notes.

    Padding that lies among the real values is kept, because some writers name a value that occurs.

    Args:
        values: of an image, or of a volume whose last axis is its slices.
        ends: the ranges that `padding_of` gives, `(2,)` or `(2, slice)`.
        ct: whether the image is a CT, which may have padding that the header does not name.
    """
    least = values.min()
    if not np.isnan(ends).all():
        padded = (values > ends[0]) & (values < ends[1])
        note = "DICOM's padding"
    elif ct and least < LEAST_HOUNSFIELD:
        padded = values == least
        note = "values below the Hounsfield scale, outside the scanner's field of view,"
        if padded.mean() < SHARE_OUTSIDE:
            return values, ()
    else:
        return values, ()
    if not padded.any() or padded.all():
        return values, ()
    real, padding = values[~padded], values[padded]
    low, high = float(real.min()), float(real.max())
    beyond = max(low - float(padding.min()), float(padding.max()) - high)
    if beyond <= NEXT_TO * (high - low):
        inside = bool(low < padding.max() < high)
        return values, ("the value of DICOM's padding occurs in the image; kept",) * inside
    return np.where(padded, real.min(), values), (f"{note} counts as background",)


def padding_of(header: DicomHeader, slope: float, intercept: float) -> tuple[float, float]:
    """The range of an image's padding in scaled values, exclusive; NaN if it has no padding."""
    if header.padding is None:
        return np.nan, np.nan
    ends = [stored * slope + intercept for stored in header.padding]
    half = abs(slope) / 2
    return min(ends) - half, max(ends) + half
