"""Maps of patch features: three principal components as colours, and regions of like patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vitaepp.encoder.model import Encoder
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.system.devices import autocast

#: Kinds of patches that are told apart.
REGIONS = 6

#: Patches that components and regions are fitted to at most, evenly from all subjects.
FITTED = 50_000

#: Percentiles of a component that become 0 and 1.
ENDS = (2.0, 98.0)


@dataclass(frozen=True, eq=False)
class PatchMaps:
    """Patch features of several subjects on scales that they share.

    Attributes:
        colours: `(subject, *grid, 3)`, principal components in [0, 1].
        deviations: the same of what is left without the mean over subjects at each place; None of
            fewer than three subjects.
        regions: `(subject, *grid)`, from 1 on, in the order of their first component.
        variance: share of the variance of features that each component has.
        position: share of each component's variance that the place in the image explains, the same
            for every subject; NaN of one subject.
    """

    colours: npt.NDArray[np.float32]
    deviations: npt.NDArray[np.float32] | None
    regions: npt.NDArray[np.uint8]
    variance: tuple[float, ...]
    position: tuple[float, ...]


def patch_features(
    encoder: Encoder, image: Float[Tensor, "1 channel *space"], precision: str
) -> npt.NDArray[np.float32]:
    """Features of every patch of a standardised image, `(*grid, feature)`.

    Of a ResNet they are those of its last stage.
    """
    backbone: Any = encoder.backbone
    with torch.inference_mode(), autocast(image.device, precision):
        if isinstance(backbone, VisionTransformer):
            tokens = backbone(image, encoder.config.block)[0, 1:]
            values = tokens.unflatten(0, backbone.grid)
        else:
            outputs: list[Tensor] = []
            hook = backbone.layer4.register_forward_hook(lambda *seen: outputs.append(seen[2]))
            try:
                backbone(image)
            finally:
                hook.remove()
            values = outputs[0][0].movedim(0, -1)
    return values.float().cpu().numpy()


def patch_maps(features: Float[np.ndarray, "subject *grid feature"], seed: int) -> PatchMaps:
    """Fit components and regions to all subjects together.

    Args:
        features: of every patch. Of fewer than three patches there are fewer components; the others
            are 0.
        seed: where k-means begins.
    """
    from sklearn.cluster import KMeans

    space, count = features.shape[:-1], len(features)
    flat = features.reshape(-1, features.shape[-1])
    sample = _sample(flat)
    pca, scores, colours = _colours(flat)
    means = KMeans(min(REGIONS, len(sample)), n_init=4, random_state=seed).fit(sample)
    order = np.argsort(pca.transform(means.cluster_centers_)[:, 0])
    number = np.empty(len(order), np.uint8)
    number[order] = np.arange(1, len(order) + 1)
    deviations = None
    if count >= 3:
        left = (features - features.mean(axis=0)).reshape(flat.shape)
        deviations = _colours(left)[2].reshape(*space, 3)
    return PatchMaps(
        colours.reshape(*space, 3),
        deviations,
        number[means.predict(flat)].reshape(space),
        tuple(map(float, np.nan_to_num(np.pad(pca.explained_variance_ratio_, (0, 3))[:3]))),
        _position(scores.reshape(count, -1, 3)),
    )


def _sample(flat: Float[np.ndarray, "patch feature"]) -> Float[np.ndarray, "some feature"]:
    return flat[:: -(-len(flat) // FITTED)]


def _colours(
    flat: Float[np.ndarray, "patch feature"],
) -> tuple[Any, Float[np.ndarray, "patch 3"], Float[np.ndarray, "patch 3"]]:
    """The PCA, the first three components of every patch, and the same in [0, 1]."""
    from sklearn.decomposition import PCA

    sample = _sample(flat)
    known = max(1, min(3, len(sample) - 1, sample.shape[1]))  # of so many, centred
    with np.errstate(invalid="ignore"):  # a single patch has no variance, of which to take shares
        pca = PCA(known, svd_solver="full").fit(sample)
    scores = np.pad(pca.transform(flat), ((0, 0), (0, 3 - known)))
    low, high = np.percentile(scores, ENDS, axis=0)
    wide = np.where(high > low, high - low, 1)
    return pca, scores, ((scores - low) / wide).clip(0, 1).astype(np.float32)


def _position(scores: Float[np.ndarray, "subject patch 3"]) -> tuple[float, ...]:
    """R², adjusted for the number of means, of the mean over subjects at each patch."""
    count, patches, _ = scores.shape
    if count < 2:
        return (float("nan"),) * 3
    within = ((scores - scores.mean(axis=0)) ** 2).sum(axis=(0, 1)) / (patches * (count - 1))
    total = ((scores - scores.mean(axis=(0, 1))) ** 2).sum(axis=(0, 1)) / (patches * count - 1)
    return tuple((1 - within / np.where(total > 0, total, 1)).clip(0, 1).tolist())
