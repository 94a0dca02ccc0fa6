"""Views: normalisation, gamma, affine, noise, for a whole batch on its own device.

Random views act on intensities in [0, 1] with the background at 0; `standardize` comes last.
A channel that is missing is 0 throughout: it has no contrast, so that `standardize` leaves it 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from vitaepp.views.draws import Draws

if TYPE_CHECKING:  # an encoder standardizes images, and loads without the recipe
    import vitaepp.recipe.sections


def standardize(
    images: Float[Tensor, "batch channel *space"], over: str = "crop"
) -> Float[Tensor, "batch channel *space"]:
    """Z-score each channel of each image; a constant channel becomes zero.

    Args:
        images: intensities, any unit, background at 0.
        over: which voxels `channel_moments` looks at.

    Example:
        >>> standardize(torch.tensor([[[[0.0, 2.0], [0.0, 2.0]]]])).flatten()
        tensor([-1.,  1., -1.,  1.])
    """
    mean, std = channel_moments(images, over)
    scale = torch.where(std > 0, 1 / std.clamp(min=1e-12), torch.zeros_like(std))
    return (images - mean).mul_(scale)


def channel_moments(
    images: Float[Tensor, "batch channel *space"], over: str = "crop"
) -> tuple[Float[Tensor, "batch channel *one"], Float[Tensor, "batch channel *one"]]:
    """Mean and standard deviation of each channel, ready to be broadcast; 0 where constant.

    Args:
        images: intensities, any unit, background at 0.
        over: the whole `crop`, or its `foreground` (voxels above 0). Where the foreground is
            constant, as in a mask, or empty, the crop's moments are taken.
    """
    flat = images.flatten(2)
    mean = flat.mean(dim=2)
    # What torch.std gives, in a fifth of its time on a CPU.
    std = (flat - mean[..., None]).square().mean(dim=2).sqrt()
    if over == "foreground":
        inside = flat > 0
        count = inside.sum(dim=2).clamp(min=1)
        inner_mean = (flat * inside).sum(dim=2) / count
        centred = (flat - inner_mean[..., None]) * inside
        inner_std = (centred.square().sum(dim=2) / count).sqrt()
        varied = inner_std > 1e-4 * inner_mean.abs()
        mean, std = torch.where(varied, inner_mean, mean), torch.where(varied, inner_std, std)
    # Rounding leaves a constant channel a deviation of some 1e-7 of its mean; it is no contrast.
    std = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, torch.zeros_like(std))
    shape = (*images.shape[:2], *(1,) * (images.ndim - 2))
    return mean.view(shape), std.view(shape)


def random_view(
    images: Float[Tensor, "batch channel *space"],
    draws: Draws,
    settings: vitaepp.recipe.sections.ViewSettings,
) -> Float[Tensor, "batch channel *space"]:
    """Gamma, affine and noise, each sample with its own draws.

    Args:
        images: intensities in [0, 1].
        draws: source of random numbers.
        settings: how strong each is.

    Source:
        Prabhakar et al. 2023, section 4; ranges are TorchIO's defaults.
    """
    ndim = images.ndim - 2
    turns = 1 if ndim == 2 else 3
    u = 2 * draws.uniform(1 + turns + ndim + 1) - 1
    gamma, angles, scales, noise = u.split([1, turns, ndim, 1], dim=1)
    images = adjust_gamma(images, settings.log_gamma * gamma[:, 0])
    if settings.rotation or settings.scale:
        radians = math.radians(settings.rotation) * angles
        images = affine(images, radians, 1 + settings.scale * scales)
    if settings.noise:
        deviation = settings.noise * (noise[:, 0] + 1) / 2
        noise_values = draws.normal_like(images).mul_(_per_sample(deviation, images))
        images = noise_values.add_(images)
    return images


def zero_missing(
    images: Float[Tensor, "batch channel *space"], present: Bool[Tensor, "batch channel"] | None
) -> Float[Tensor, "batch channel *space"]:
    """Put 0 into the channels that are not present, whatever stands there; none without it."""
    if present is None:
        return images
    shown = present.view(*present.shape, *(1,) * (images.ndim - 2))
    return torch.where(shown, images, torch.zeros_like(images))


def seen_modalities(
    channels: int,
    present: Bool[Tensor, "batch channel"] | None,
    draws: Draws,
    settings: vitaepp.recipe.sections.ViewSettings,
) -> Bool[Tensor, "batch channel"] | None:
    """The channels that the encoder gets to see: those present, less those dropped at random.

    Each is dropped with probability `modality_dropout`, each sample by its own draws; where all
    would be, the one that came nearest to staying stays. Without dropout nothing is drawn.

    Args:
        channels: of the images.
        present: which of them are there, at least one a sample; all without it.
        draws: source of random numbers.
        settings: of the views.

    Source:
        Neverova et al. 2016 (ModDrop); Liu et al. 2023 (M3AE) for masked autoencoders.
    """
    if not settings.modality_dropout:
        return present
    u = draws.uniform(channels)
    if present is not None:
        u = u.masked_fill(~present, -1.0)
    kept = (u >= settings.modality_dropout) | (u == u.amax(dim=1, keepdim=True))
    return kept if present is None else kept & present


def adjust_gamma(
    images: Float[Tensor, "batch channel *space"], log_gamma: Float[Tensor, " batch"]
) -> Float[Tensor, "batch channel *space"]:
    """Raise intensities in [0, 1] to the power `exp(log_gamma)`; 0 and 1 stay."""
    return images.clamp(min=0).pow_(_per_sample(log_gamma.exp(), images))


def affine(
    images: Float[Tensor, "batch channel *space"],
    radians: Float[Tensor, "batch turn"],
    scales: Float[Tensor, "batch axis"],
) -> Float[Tensor, "batch channel *space"]:
    """Scale, then rotate about the centre, in voxels; linear, with 0 outside.

    Args:
        images: any unit, background at 0.
        radians: one angle in 2D, one about each axis in 3D.
        scales: per axis, above 1 enlarges.
    """
    space = images.shape[2:]
    forward = rotation_matrix(radians) * scales[:, None, :]
    # Sampling asks where a voxel of the result comes from, in coordinates from -1 to 1 with the
    # last axis first; a voxel along axis i is 2 / size_i of them.
    size = torch.tensor(space, dtype=images.dtype, device=images.device)
    inverse = torch.linalg.inv(forward.to(images.dtype)) * (size[None, :] / size[:, None])
    # What F.affine_grid gives by a matrix product for every voxel: a sum of one term an axis.
    grid = images.new_zeros(1)
    for axis, count in enumerate(space):
        steps = (torch.arange(count, dtype=images.dtype, device=images.device) * 2 + 1) / count - 1
        along = steps[:, None] * inverse[:, None, :, axis].flip(2)
        grid = grid + along.view(
            len(images), *(count if a == axis else 1 for a in range(len(space))), len(space)
        )
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)


def rotation_matrix(radians: Float[Tensor, "batch turn"]) -> Float[Tensor, "batch axis axis"]:
    """Rotation by one angle in the plane, or by three about the axes in turn, in space."""
    if radians.shape[1] == 1:
        return _plane_rotation(radians[:, 0], 0, 1, 2)
    matrix = _plane_rotation(radians[:, 0], 1, 2, 3)
    matrix = matrix @ _plane_rotation(radians[:, 1], 2, 0, 3)
    return matrix @ _plane_rotation(radians[:, 2], 0, 1, 3)


def _plane_rotation(angle: Tensor, first: int, second: int, ndim: int) -> Tensor:
    matrix = torch.eye(ndim, dtype=angle.dtype, device=angle.device).repeat(len(angle), 1, 1)
    matrix[:, first, first] = matrix[:, second, second] = angle.cos()
    matrix[:, first, second] = -angle.sin()
    matrix[:, second, first] = angle.sin()
    return matrix


def _per_sample(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.dtype).view(-1, *(1,) * (images.ndim - 1))
