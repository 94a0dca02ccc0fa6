"""Views: crop, flip, rotation, gamma, noise and normalisation, for a batch on its own device.

Random views act on intensities in [0, 1] with the background at 0; `standardize` comes last.
A channel that is missing is 0 throughout: it has no contrast, so that `standardize` leaves it 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from vitaepp.errors import RecipeError
from vitaepp.views.draws import Draws

if TYPE_CHECKING:  # an encoder standardizes images, and loads without the recipe
    import vitaepp.recipe.sections


#: Mean and deviation of each channel over a cohort.
Cohort = tuple[tuple[float, ...], tuple[float, ...]] | None


def standardize(
    images: Float[Tensor, "batch channel *space"], over: str = "crop", cohort: Cohort = None
) -> Float[Tensor, "batch channel *space"]:
    """Z-score each channel of each image; a constant channel becomes zero.

    Args:
        images: intensities, any unit, background at 0.
        over: which voxels `channel_moments` looks at.

    Example:
        >>> standardize(torch.tensor([[[[0.0, 2.0], [0.0, 2.0]]]])).flatten()
        tensor([-1.,  1., -1.,  1.])
    """
    mean, std = channel_moments(images, over, cohort)
    scale = torch.where(std > 0, 1 / std.clamp(min=1e-12), torch.zeros_like(std))
    return (images - mean).mul_(scale)


def channel_moments(
    images: Float[Tensor, "batch channel *space"], over: str = "crop", cohort: Cohort = None
) -> tuple[Float[Tensor, "batch channel *one"], Float[Tensor, "batch channel *one"]]:
    """Mean and standard deviation of each channel, ready to be broadcast; 0 where constant.

    Args:
        images: intensities, any unit, background at 0.
        over: the whole `crop`, or its `foreground` (voxels above 0). Where the foreground is
            constant, as in a mask, or empty, the crop's moments are taken.
    """
    shape = (*images.shape[:2], *(1,) * (images.ndim - 2))
    if over == "cohort":
        if cohort is None:
            raise RecipeError(
                "views.normalize=cohort: the cohort's mean and deviation are not known; pretrain "
                "takes them from the images, or give views.cohort_mean and views.cohort_std"
            )
        mean, std = (_constants(values, images).expand(images.shape[:2]) for values in cohort)
        # A channel that is 0 throughout is missing.
        std = std * (images.flatten(2) != 0).any(dim=2)
        return mean.reshape(shape), std.reshape(shape)
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
    # Rounding leaves a constant channel a deviation, which is no contrast: some 1e-7 of its mean
    # here, and any share of it where another runtime adds in another order.
    varied = (flat.amax(dim=2) > flat.amin(dim=2)) & (std > 1e-6 * mean.abs().clamp(min=1e-6))
    std = torch.where(varied, std, torch.zeros_like(std))
    return mean.view(shape), std.view(shape)


def random_view(
    images: Float[Tensor, "batch channel *space"],
    draws: Draws,
    settings: vitaepp.recipe.sections.AugmentationSettings,
    keep_sides: bool = False,
) -> Float[Tensor, "batch channel *space"]:
    """Gamma; crop, flip, rotation and scale in one resampling; noise. Each sample draws its own.

    Args:
        images: intensities in [0, 1], background at 0.
        draws: source of random numbers.
        settings: which of them, and how strong.
        keep_sides: left and right are not mirrored, whatever the settings say.

    Source:
        Prabhakar et al. 2023, section 4, with TorchIO's ranges; crops as He et al. 2021.
    """
    return random_view_of(images, images[:, :0], draws, settings, keep_sides)[0]


def random_view_of(
    images: Float[Tensor, "batch channel *space"],
    masks: Float[Tensor, "batch label *space"],
    draws: Draws,
    settings: vitaepp.recipe.sections.AugmentationSettings,
    keep_sides: bool = False,
) -> tuple[Float[Tensor, "batch channel *space"], Float[Tensor, "batch label *space"]]:
    """`random_view`, and masks that move with the images; their values stay but for resampling.

    Args:
        images: intensities in [0, 1], background at 0.
        masks: a channel for each label, 1 where it is.
        draws: source of random numbers.
        settings: of the view.
        keep_sides: left and right are not mirrored.
    """
    ndim = images.ndim - 2
    turns = 1 if ndim == 2 else 3
    parts = [1, 1, 1, turns, *[ndim] * 4]
    gamma, noise, share, angles, ratios, places, scales, sides = draws.uniform(sum(parts)).split(
        parts, dim=1
    )
    if settings.log_gamma:
        images = adjust_gamma(images, settings.log_gamma * (2 * gamma[:, 0] - 1))
    channels = images.shape[1]
    if masks.shape[1]:
        images = torch.cat([images, masks.to(images.dtype)], dim=1)
    flips = set(flipped_axes(settings.flip, ndim))
    if keep_sides:
        flips -= {*flipped_axes("sides", ndim)}
    mirrored = [sides[:, axis] < 0.5 if axis in flips else None for axis in range(ndim)]
    cropped = settings.crop != (1.0, 1.0)
    if not (cropped or settings.scale or settings.rotation):
        images = mirror(images, mirrored)
    else:
        crop = torch.ones_like(ratios)
        if cropped:
            crop = crop_sides(share, ratios, settings.crop, settings.aspect)
        steps = crop / (1 + settings.scale * (2 * scales - 1))
        for axis, chosen in enumerate(mirrored):
            if chosen is not None:
                steps[:, axis] = torch.where(chosen, -steps[:, axis], steps[:, axis])
        centres = (places - 0.5) * (1 - crop)
        radians = math.radians(settings.rotation) * (2 * angles - 1)
        images = resample(images, steps, centres, radians if settings.rotation else None)
    if masks.shape[1]:
        images, masks = images[:, :channels], images[:, channels:]
    if settings.noise:
        deviation = settings.noise * noise[:, 0]
        noise_values = draws.normal_like(images).mul_(_per_sample(deviation, images))
        images = noise_values.add_(images)
    return images, masks


def flipped_axes(flip: str | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """The axes that may be mirrored.

    Args:
        flip: `none`; `sides`, the axis from left to right (a volume's first, a picture's second);
            `all`; or axes by number.
        ndim: spatial axes.

    Raises:
        RecipeError: an axis that the images do not have.

    Example:
        >>> flipped_axes("sides", 3), flipped_axes("sides", 2), flipped_axes("all", 2)
        ((0,), (1,), (0, 1))
    """
    if not isinstance(flip, str):
        if any(axis >= ndim for axis in flip):
            raise RecipeError(
                f"views: flip={','.join(map(str, flip))}, but the images have axes 0 to {ndim - 1}"
            )
        return flip
    left_right = 0 if ndim == 3 else 1
    return {"none": (), "sides": (left_right,), "all": tuple(range(ndim))}[flip]


def crop_sides(
    share: Float[Tensor, "batch 1"],
    ratios: Float[Tensor, "batch axis"],
    between: tuple[float, float],
    aspect: float,
) -> Float[Tensor, "batch axis"]:
    """Sides of random crops, as shares of the image's, at most 1.

    Args:
        share: uniform numbers in [0, 1) that choose the area (in 3D the volume).
        ratios: uniform numbers in [0, 1) that choose how sides differ.
        between: smallest and largest area, as shares of the image's.
        aspect: a side is at most so many times another, before it is cut to the image.

    Source:
        Random resized crops of Szegedy et al. 2015, for any number of axes.
    """
    low, high = between
    logs = math.log(aspect) * (ratios - 0.5)
    logs = logs - logs.mean(dim=1, keepdim=True)  # the volume stays
    sides = (low + (high - low) * share) ** (1 / ratios.shape[1]) * logs.exp()
    return sides.clamp(max=1.0)


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


def mirror(
    images: Float[Tensor, "batch channel *space"], chosen: Sequence[Bool[Tensor, " batch"] | None]
) -> Float[Tensor, "batch channel *space"]:
    """Mirror axes of those samples that are chosen for it; None for an axis that none is."""
    for axis, samples in enumerate(chosen, start=2):
        if samples is not None:
            where = samples.view(-1, *(1,) * (images.ndim - 1))
            images = torch.where(where, images.flip(axis), images)
    return images


def resample(
    images: Float[Tensor, "batch channel *space"],
    steps: Float[Tensor, "batch axis"],
    centres: Float[Tensor, "batch axis"],
    radians: Float[Tensor, "batch turn"] | None = None,
) -> Float[Tensor, "batch channel *space"]:
    """A box of each image, turned about its own centre, at the image's size; linear, 0 outside.

    Args:
        images: any unit, background at 0.
        steps: voxels of the image from one voxel of the result to the next along each axis: below
            1 enlarges, below 0 mirrors.
        centres: of the box, from the image's centre, as shares of the image's sides.
        radians: how far the content is turned, in voxels: one angle in 2D, one about each axis in
            3D. Without it axes stay apart, which takes half the time.
    """
    space = images.shape[2:]
    if radians is None:
        # In full precision, as images have more levels than bf16 tells apart.
        with torch.autocast(images.device.type, enabled=False):
            for axis, count in enumerate(space):
                weights = _interpolation(count, steps[:, axis], centres[:, axis])
                rest = "xyz"[: len(space)]
                turned = rest.replace(rest[axis], "n")
                images = torch.einsum(f"bn{rest[axis]},bc{rest}->bc{turned}", weights, images)
        return images
    matrix = rotation_matrix(radians).mT * steps[:, None, :]
    # Sampling asks where a voxel of the result comes from, in coordinates from -1 to 1 with the
    # last axis first; a voxel along axis i is 2 / size_i of them.
    size = _constants(space, images)
    matrix = matrix.to(images.dtype) * (size[None, :] / size[:, None])
    # What F.affine_grid gives by a matrix product for every voxel: a sum of one term an axis.
    grid = 2 * centres.flip(1).to(images.dtype).view(len(images), *(1,) * len(space), -1)
    for axis, count in enumerate(space):
        along = (2 * _from_centre(count, images) / count)[:, None] * matrix[:, None, :, axis].flip(
            2
        )
        grid = grid + along.view(
            len(images), *(count if a == axis else 1 for a in range(len(space))), len(space)
        )
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)


def _constants(values: Sequence[int | float], like: Tensor) -> Float[Tensor, " value"]:
    """Numbers on a device, without a copy from the host, which would wait for the device."""
    return torch.cat([like.new_full((1,), value) for value in values])


def _from_centre(count: int, like: Tensor) -> Float[Tensor, " voxel"]:
    """Voxels of an axis by their distance from its centre."""
    return torch.arange(count, dtype=torch.float32, device=like.device) - (count - 1) / 2


def _interpolation(
    count: int, steps: Float[Tensor, " batch"], centres: Float[Tensor, " batch"]
) -> Float[Tensor, "batch new old"]:
    """What each voxel of a resampled axis takes of each voxel of the axis."""
    voxels = _from_centre(count, steps)
    places = steps[:, None] * voxels + count * centres[:, None]
    return (1 - (places[..., None] - voxels).abs_()).clamp_(min=0)


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
