"""Simple features of images: their intensities, and the shape of what is marked or bright."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Flags, Floats
from vitaepp.data.geometry import foreground
from vitaepp.data.store import Store
from vitaepp.system.progress import track

#: Of the intensities of a channel.
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)

#: Bins of the histogram that entropy is taken of.
BINS = 32


def simple_features(store: Store) -> Floats:
    """First-order statistics of each channel, and the shape of the mask, of every subject.

    Without a mask that is kept, the shape is that of what is brighter than Otsu's threshold of the
    first channel. Statistics are taken inside the mask or the bright part, too. Where pyradiomics
    is installed, its features of the same part are added, those of texture among them.

    Returns:
        `(subject, feature)`, finite.

    Source:
        Zwanenburg et al. 2020, "The image biomarker standardization initiative", for first-order
        and shape features; they are computed by NumPy and SimpleITK. Van Griethuysen et al. 2017
        for pyradiomics.
    """
    rows, others = [], []
    extractor = radiomics(store.info.ndim)
    for i in track(range(len(store)), "simple features", len(store), unit="subjects"):
        image = store.read([i])[0].astype(np.float64)
        mask = store.labelled([i])[0] if store.masked[i] else foreground(image[0])
        spacing = store.info.spacing or (1.0,) * store.info.ndim
        rows.append([*_shape(mask, spacing)])
        for channel in image:
            rows[-1] += [*_first_order(channel.ravel()), *_first_order(channel[mask])]
        if extractor is not None:
            others.append(_by_radiomics(extractor, image, mask, spacing))
    features = np.hstack([np.array(rows, np.float64), pd.DataFrame(others, range(len(rows)))])
    return np.nan_to_num(features, nan=0.0, posinf=0.0, neginf=0.0)


def radiomics(ndim: int) -> Any:
    """pyradiomics' extractor of all its features of an image, where somebody has it; else None."""
    try:
        from radiomics import featureextractor, setVerbosity
    except ImportError:
        return None
    setVerbosity(60)  # it would say each image
    extractor = featureextractor.RadiomicsFeatureExtractor(
        binCount=BINS, additionalInfo=False, force2D=ndim == 2
    )
    if ndim == 2:
        extractor.enableFeatureClassByName("shape", enabled=False)
        extractor.enableFeatureClassByName("shape2D")
    return extractor


def _by_radiomics(
    extractor: Any,
    image: Floats,
    mask: Flags,
    spacing: tuple[float, ...],
) -> dict[str, float]:
    """Each feature of each channel by its name; none of a mask that is too small."""
    import SimpleITK as sitk

    features = dict[str, float]()
    marked = sitk.GetImageFromArray(mask.astype(np.uint8))
    marked.SetSpacing(spacing[::-1])
    for number, channel in enumerate(image):
        scan = sitk.GetImageFromArray(channel)
        scan.SetSpacing(spacing[::-1])
        try:
            values = extractor.execute(scan, marked)
        except ValueError:
            continue
        features |= {f"{number} {name}": float(value) for name, value in values.items()}
    return features


def _first_order(values: Floats) -> list[float]:
    """Mean, deviation, skewness, kurtosis, entropy, energy and quantiles; zeros of nothing."""
    if len(values) < 2:
        return [0.0] * (6 + len(QUANTILES))
    mean, deviation = float(values.mean()), float(values.std())
    z = (values - mean) / (deviation or 1.0)
    shares = np.histogram(values, BINS)[0] / len(values)
    entropy = float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum())
    moments = [mean, deviation, float((z**3).mean()), float((z**4).mean())]
    return [*moments, entropy, float((values**2).mean()), *np.quantile(values, QUANTILES).tolist()]


def _shape(mask: Flags, spacing: tuple[float, ...]) -> list[float]:
    """Size, surface, roundness, elongation, flatness, diameters, principal moments and place."""
    import SimpleITK as sitk

    names = 8 + 2 * mask.ndim
    if not mask.any():
        return [0.0] * names
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    shape: Any = sitk.LabelShapeStatisticsImageFilter()
    shape.SetComputeFeretDiameter(mask.size < 2**16)
    shape.Execute(image)
    return [
        shape.GetPhysicalSize(1),
        shape.GetPerimeter(1),
        shape.GetRoundness(1),
        shape.GetElongation(1),
        shape.GetFlatness(1),
        shape.GetEquivalentSphericalRadius(1),
        shape.GetFeretDiameter(1) if mask.size < 2**16 else 0.0,
        float(mask.mean()),
        *shape.GetPrincipalMoments(1),
        *shape.GetCentroid(1),
    ]
