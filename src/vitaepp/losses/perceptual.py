"""L_per: the distance of VGG-16 features over 2D slices (Eq. 1 of the paper)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.profiler import record_function

from vitaepp.errors import RecipeError
from vitaepp.nn.vgg import SMALLEST_SIDE, VGG16
from vitaepp.system.text import dimensions

#: Pixels per forward and backward pass of VGG; this bounds its memory.
PIXELS = 2**18

#: By default, so many pictures of a batch are used, or one in eight of a larger batch.
IMAGES, IMAGES_APART = 16, 8

#: By default, one in this many slices is drawn: 4 of the paper's 96. It is a share, so that VGG's
#: part of the work is the same at every size.
SLICES_APART = 24


class PerceptualLoss(nn.Module):
    """Mean squared error of VGG-16 features, averaged over levels, slices and channels.

    Each channel is a separate grey image; an RGB image enters VGG as RGB. Both images are scaled to
    [0, 1] by the range of the target's channel.

    In 3D, each call draws slices at random, and also channels if not all are used. Their mean is an
    unbiased estimate of the mean over all slices and channels. Slices are evenly spaced after a
    random start (systematic sampling; Cochran 1977, chapter 8), and channels take turns in a random
    order.

    The gradient reaches the prediction. (The authors' released code computes this term without
    gradient, so that it does not train anything there.)

    Args:
        vgg: the network that computes the features.
        slices: number of slices drawn per volume, one in 24 by default, or `all` (the paper's sum,
            as a mean).
        axis: axis along which slices are cut; with `any`, each axis has one third of the weight.
        channels: number of channels used on each slice, or `all`. By default it is one if not all
            slices are used, else all.
        rgb: whether the three channels are the colours of one image.
        images: number of images of a batch that are used, drawn at each call, or `all`. By default
            all in 3D, and in 2D 16 or one in eight, whichever is more.
        relative: divide the distance at each level by the mean square of the target's features
            there. All levels then count alike, whatever the scale of VGG's weights.

    Source:
        Johnson et al. 2016; Eq. 1 of Prabhakar et al. 2023.

    Example:
        >>> loss = PerceptualLoss(VGG16("random"), slices=2)
        >>> volume = torch.rand(1, 1, 16, 16, 8)
        >>> loss(volume, volume, torch.rand(1, loss.draws_needed(volume.shape[1:]))).item()
        0.0
    """

    def __init__(
        self,
        vgg: VGG16,
        slices: int | Literal["all"] | None = None,
        axis: int | Literal["any"] = 2,
        channels: int | Literal["all"] | None = None,
        rgb: bool = False,
        *,
        images: int | Literal["all"] | None = None,
        relative: bool = False,
    ) -> None:
        super().__init__()
        self.vgg = vgg
        self.slices = slices
        self.axis = axis
        self.channels = channels
        self.rgb = rgb
        self.images = images
        self.relative = relative

    def check(self, space: tuple[int, ...]) -> None:
        """Refuse images whose slices are too small for VGG.

        Raises:
            RecipeError: slices are smaller than 8 × 8.
        """
        for axis in self._axes(len(space)):
            plane = [n for i, n in enumerate(space) if i != axis]
            if min(plane) < SMALLEST_SIDE:
                raise RecipeError(
                    "the perceptual loss needs slices of at least "
                    f"{dimensions([SMALLEST_SIDE] * 2)} voxels, these have {dimensions(plane)}"
                )

    def draws_needed(self, shape: tuple[int, ...]) -> int:
        """Number of uniform draws per sample that a call needs, for images (channel, *space)."""
        channels, *space = shape
        # A picture has no slices to choose; the draw for them chooses among pictures.
        chosen = self.images not in (None, "all") and len(space) == 3
        return len(self._axes(len(space))) * (1 + channels) + chosen

    @record_function("perceptual loss")
    def forward(
        self,
        prediction: Float[Tensor, "batch channel *space"],
        target: Float[Tensor, "batch channel *space"],
        draws: Float[Tensor, "batch draw"],
        present: Bool[Tensor, "batch channel"] | None = None,
        *,
        batch: int | None = None,
    ) -> Float[Tensor, ""]:
        """Compute the loss.

        Args:
            prediction: reconstructed intensities.
            target: original intensities in the same unit.
            draws: uniform random numbers, `draws_needed` per sample, which choose the slices.
            present: the channels that count. Unset: all. Colours are all present or all missing.
            batch: images of the whole batch, where these are a piece of it. Their part of `images`
                is used, one at least.
        """
        if present is None:
            present = torch.ones(target.shape[:2], dtype=torch.bool, device=target.device)
        axes = self._axes(target.ndim - 2)
        if (looked_at := self.looked_at(len(target), target.ndim - 2, batch)) < len(target):
            chosen = draws[:, 0 if target.ndim == 4 else -1].argsort()[:looked_at]
            prediction, target, draws, present = (
                x[chosen] for x in (prediction, target, draws, present)
            )
        if target.ndim == 4:  # a picture is a volume of one slice
            prediction, target = prediction[..., None], target[..., None]
        low, high = target.amin((2, 3, 4)), target.amax((2, 3, 4))
        # A constant channel has no range, so its intensities are only shifted.
        scale = torch.where(high > low, high - low, torch.ones_like(high))
        means = []
        own = draws[:, : len(axes) * (1 + target.shape[1])]
        for axis, drawn in zip(axes, own.chunk(len(axes), dim=1), strict=True):
            size = target.shape[2 + axis]
            count, looks = self._looks(size, target.shape[1])
            slices = spread_slices(count, size, drawn[:, 0])
            channels, counted = channels_in_turn(looks, count, drawn[:, 1:], present)
            if self.rgb:
                channels = channels.sort(dim=2).values
            shift, factor = (
                x.take_along_dim(channels.flatten(1), 1)[..., None, None] for x in (low, 1 / scale)
            )
            # Images that do not count are black, whatever their values.
            seen, wanted = (
                (
                    (take_images(x, slices, channels, axis).flatten(1, 2) - shift) * factor
                ).masked_fill(~counted.flatten(1)[..., None, None], 0.0)
                for x in (prediction, target)
            )
            weights = counted / (len(target) * counted.sum(dim=(1, 2), keepdim=True))
            if self.rgb:
                seen, wanted = (x.unflatten(1, (-1, 3)).flatten(0, 1) for x in (seen, wanted))
                weights = weights.sum(dim=2)
            else:
                seen, wanted = (x.flatten(0, 1)[:, None] for x in (seen, wanted))
            means.append(feature_distance(self.vgg, seen, wanted, weights.flatten(), self.relative))
        return torch.stack(means).mean()

    def looked_at(self, images: int, ndim: int, batch: int | None = None) -> int:
        """How many images of a batch are used, or of a piece of it.

        Args:
            images: in the batch, or in the piece.
            ndim: spatial axes.
            batch: images in the whole batch, where these are a piece of it.
        """
        if self.images == "all" or (self.images is None and ndim == 3):
            return images
        batch = images if batch is None else batch
        of_batch = min(batch, self.images or max(IMAGES, round(batch / IMAGES_APART)))
        return math.ceil(of_batch * images / batch)

    def _looks(self, size: int, channels: int) -> tuple[int, int]:
        """How many slices along an axis are used, and how many channels of each slice."""
        slices = max(1, round(size / SLICES_APART)) if self.slices is None else self.slices
        count = size if slices == "all" else min(slices, size)
        if self.rgb or self.channels == "all":
            return count, channels
        if self.channels is None:
            return count, 1 if count < size else channels
        return count, min(self.channels, channels)

    def _axes(self, ndim: int) -> tuple[int, ...]:
        return (2,) if ndim == 2 else (0, 1, 2) if self.axis == "any" else (self.axis,)


def spread_slices(
    count: int, size: int, draws: Float[Tensor, " batch"]
) -> Int[Tensor, "batch slice"]:
    """Slices of each sample, evenly spaced after a random start; all slices are equally likely.

    Args:
        count: number of slices to draw, at most `size`.
        size: number of slices along the axis.
        draws: one uniform number in [0, 1) per sample.

    Source:
        Systematic sampling with a fractional interval (Cochran 1977, chapter 8).
    """
    steps = torch.arange(count, device=draws.device)
    if count == size:
        return steps.expand(len(draws), -1)
    # Rounding could move the last slice beyond the end.
    return ((steps + draws[:, None]) * (size / count)).long().clamp(max=size - 1)


def channels_in_turn(
    count: int,
    slices: int,
    draws: Float[Tensor, "batch channel"],
    present: Bool[Tensor, "batch channel"],
) -> tuple[Int[Tensor, "batch slice look"], Bool[Tensor, "batch slice look"]]:
    """Channels for the slices of each sample: its present channels take turns in a random order.

    Args:
        count: number of channels per slice, at most all.
        slices: number of slices per sample.
        draws: one uniform number per channel; they set the order.
        present: the channels that a sample has, at least one.

    Returns:
        The channels of each slice, and which of these count. If a sample has fewer than `count`
        channels, each of them counts once per slice.
    """
    order = draws.masked_fill(~present, 2.0).argsort(dim=1)  # missing ones come last
    number = present.sum(dim=1)[:, None, None]
    turn = torch.arange(count, device=draws.device)
    first = count * torch.arange(slices, device=draws.device)[:, None]
    chosen = order.take_along_dim(((first + turn) % number).flatten(1), dim=1)
    return chosen.unflatten(1, (slices, -1)), (turn < number).expand(-1, slices, -1)


def take_images(
    volumes: Float[Tensor, "batch channel x y z"],
    slices: Int[Tensor, "batch slice"],
    channels: Int[Tensor, "batch slice look"],
    axis: int,
) -> Float[Tensor, "batch slice look height width"]:
    """Cut slices out of volumes, with separate channels for each sample and slice.

    Args:
        volumes: volumes with three spatial axes.
        slices: indices along the axis.
        channels: the channels of each slice.
        axis: spatial axis along which slices are cut, 0 to 2.
    """
    rows = torch.arange(len(volumes), device=volumes.device)[:, None, None]
    return volumes.movedim(2 + axis, 1)[rows, slices[..., None], channels]


def feature_distance(
    vgg: VGG16,
    seen: Float[Tensor, "image channel height width"],
    wanted: Float[Tensor, "image channel height width"],
    weights: Float[Tensor, " image"],
    relative: bool = False,
) -> Float[Tensor, ""]:
    """Squared distance of VGG features, as a weighted sum over images.

    An image's distance is the mean over levels of the mean over features. The gradient is computed
    together with the distance, for some images at a time. So VGG's memory for the backward pass
    does not grow with the number of images, and nothing is computed twice.

    Args:
        vgg: the frozen network that computes features.
        seen: images that receive the gradient, intensities in [0, 1].
        wanted: the originals of these images.
        weights: weight of each image's distance.
        relative: divide the distance at each level by the mean square of the original's features.
    """
    distance: Tensor = _FeatureDistance.apply(  # type: ignore[no-untyped-call]  # by torch
        seen, wanted, weights, vgg, relative
    )
    return distance


class _FeatureDistance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, seen: Tensor, wanted: Tensor, weights: Tensor, vgg: VGG16, relative: bool
    ) -> Tensor:
        at_once = max(1, PIXELS // seen[0, 0].numel())
        parts = zip(seen.split(at_once), wanted.split(at_once), strict=True)
        wanted_too = ctx.needs_input_grad[0]
        results = [_distances(vgg, mine, theirs, wanted_too, relative) for mine, theirs in parts]
        if ctx.needs_input_grad[0]:
            gradients = torch.cat([gradient for _, gradient in results])
            ctx.save_for_backward(gradients * weights.view(-1, 1, 1, 1))
        distances = torch.cat([distances for distances, _ in results])
        return distances @ weights.to(distances.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None, None, None]:
        return ctx.saved_tensors[0] * above, None, None, None, None


def _distances(
    vgg: VGG16,
    seen: Float[Tensor, "image channel height width"],
    wanted: Float[Tensor, "image channel height width"],
    differentiate: bool,
    relative: bool,
) -> tuple[Float[Tensor, " image"], Tensor]:
    """The distance of each image, and its gradient."""
    seen = seen.detach().requires_grad_(differentiate)
    precise = torch.promote_types(seen.dtype, torch.float32)  # features may be in half precision
    levels, errors, distances, scales = [], [], [], []
    with torch.enable_grad():
        for level, target in zip(vgg.levels(seen), vgg.levels(wanted.detach()), strict=True):
            error = level.detach() - target
            distance = _sum_of_squares(error, precise)
            if relative:
                # No image's features are all 0; the bound only keeps the quotient finite.
                scale = 1 / _sum_of_squares(target, precise).clamp(min=1e-12)
            else:
                scale = torch.full_like(distance, 1 / error[0].numel())
            distances.append(distance * scale)
            scales.append(scale)
            levels.append(level)
            errors.append(error)
    total = torch.stack(distances).mean(dim=0)
    if not differentiate:
        return total, seen
    # The gradient of a squared error is the error itself. The largest factor among the levels of an
    # image is applied at the end, so that nothing vanishes in half precision.
    stacked = torch.stack(scales)
    largest = stacked.amax(dim=0)
    factors = (stacked / largest).to(errors[0].dtype)[..., None, None, None]
    starts = [error * factor for error, factor in zip(errors, factors, strict=True)]
    (gradient,) = torch.autograd.grad(levels, seen, starts)
    return total, gradient * (2 / len(levels) * largest)[:, None, None, None]


def _sum_of_squares(
    features: Float[Tensor, "image feature height width"], dtype: torch.dtype
) -> Float[Tensor, " image"]:
    norm: Tensor = torch.linalg.vector_norm(features.flatten(1), dim=1, dtype=dtype)
    return norm.square()
