"""L_per: the distance of VGG-16 features over 2D slices (Eq. 1 of the paper)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.profiler import record_function

from vitaepp.errors import RecipeError
from vitaepp.losses.present import mean_over_present
from vitaepp.nn.vgg import SMALLEST_SIDE, VGG16


class PerceptualLoss(nn.Module):
    """Mean squared error of VGG-16 features, averaged over levels, slices and channels.

    Each channel is a grey image on its own; an RGB image goes in as RGB. Both images are scaled to
    [0, 1] by the range of the target's channel. In 3D, slices are drawn at random, without
    repetition, anew at each call: their mean estimates the mean over all slices without bias. So
    may channels be, where there are several.

    The gradient reaches the prediction. (The authors' released code computes this term without
    gradient, so that there it trains nothing.)

    Args:
        vgg: the network that looks.
        slices: slices drawn per volume, or `all` (the paper's sum, as a mean).
        axis: axis that slices are taken along; `any` takes each axis for a third.
        channels: channels drawn per image, or `all`.
        rgb: the image's three channels are the colours of one image.

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
        slices: int | Literal["all"] = 4,
        axis: int | Literal["any"] = 2,
        channels: int | Literal["all"] = "all",
        rgb: bool = False,
    ) -> None:
        super().__init__()
        self.vgg = vgg
        self.slices = slices
        self.axis = axis
        self.channels = "all" if rgb else channels
        self.rgb = rgb

    def check(self, space: tuple[int, ...]) -> None:
        """Refuse images whose slices VGG cannot look at.

        Raises:
            RecipeError: slices smaller than 8 × 8, or an axis that the images do not have.
        """
        if len(space) == 3 and self.axis != "any" and self.axis >= len(space):
            raise RecipeError(f"loss.perceptual.axis={self.axis}: the images have axes 0 to 2")
        for axis in self._axes(len(space)):
            plane = [n for i, n in enumerate(space) if i != axis or len(space) == 2]
            if min(plane) < SMALLEST_SIDE:
                raise RecipeError(
                    f"the perceptual loss needs slices of at least {SMALLEST_SIDE} × "
                    f"{SMALLEST_SIDE} voxels, these have {' × '.join(map(str, plane))}; choose "
                    "another loss.perceptual.axis, or loss.perceptual.weight=0"
                )

    def draws_needed(self, shape: tuple[int, ...]) -> int:
        """Uniform draws per sample that a call needs, for images of shape (channel, *space)."""
        channels, *space = shape
        slices = 0 if len(space) == 2 else sum(space[axis] for axis in self._axes(len(space)))
        return slices + (0 if self.channels == "all" else channels)

    @record_function("perceptual loss")
    def forward(
        self,
        prediction: Float[Tensor, "batch channel *space"],
        target: Float[Tensor, "batch channel *space"],
        draws: Float[Tensor, "batch draw"],
        present: Bool[Tensor, "batch channel"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss.

        Args:
            prediction: reconstructed intensities.
            target: original intensities, same unit.
            draws: uniform random numbers, `draws_needed` a sample, which choose the slices.
            present: which channels count; all without it. Colours are there together.
        """
        space = tuple(range(2, target.ndim))
        if self.channels != "all":
            noise, draws = draws[:, : target.shape[1]], draws[:, target.shape[1] :]
            if present is not None:
                noise = noise.masked_fill(~present, 1.0)  # missing ones come last
            drawn = noise.argsort(dim=1)[:, : self.channels]
            if present is not None:
                present = present.take_along_dim(drawn, dim=1)
            chosen = drawn.view(*drawn.shape, *(1,) * len(space))
            prediction, target = (x.take_along_dim(chosen, dim=1) for x in (prediction, target))
        low, high = target.amin(space, keepdim=True), target.amax(space, keepdim=True)
        # A constant channel has no range of its own; its intensities then count as they are.
        scale = torch.where(high > low, high - low, torch.ones_like(high))
        prediction, target = (prediction - low) / scale, (target - low) / scale
        if len(space) == 2:
            return self._distance(prediction, target, present)
        axes = self._axes(len(space))
        means = []
        for axis in axes:
            size = target.shape[2 + axis]
            noise, draws = draws[:, :size], draws[:, size:]
            count = size if self.slices == "all" else min(self.slices, size)
            chosen = noise.argsort(dim=1)[:, :count]
            means.append(
                self._distance(
                    take_slices(prediction, chosen, axis),
                    take_slices(target, chosen, axis),
                    None if present is None else present.repeat_interleave(count, dim=0),
                )
            )
        return torch.stack(means).mean()

    def _axes(self, ndim: int) -> tuple[int, ...]:
        return tuple(range(ndim)) if self.axis == "any" else (self.axis,)

    def _distance(
        self,
        prediction: Float[Tensor, "image channel height width"],
        target: Float[Tensor, "image channel height width"],
        present: Bool[Tensor, "image channel"] | None,
    ) -> Float[Tensor, ""]:
        channels = target.shape[1]
        if self.rgb:
            present = None
        else:
            prediction, target = (x.flatten(0, 1)[:, None] for x in (prediction, target))
        with torch.no_grad():
            wanted = list(self.vgg(target))
        levels = []
        for seen, want in zip(self.vgg(prediction), wanted, strict=True):
            errors = (seen - want).square()
            if present is not None:
                errors = errors.unflatten(0, (-1, channels))
            levels.append(mean_over_present(errors, present))
        return torch.stack(levels).mean()


def take_slices(volumes: Tensor, chosen: Tensor, axis: int) -> Tensor:
    """Slices of volumes as images: `(batch, channel, *space)` to `(batch × slice, channel, ·, ·)`.

    Args:
        volumes: three spatial axes.
        chosen: indices, `(batch, slice)`, each sample its own.
        axis: spatial axis that they are taken along, 0 to 2.
    """
    sliced = volumes.movedim(2 + axis, 1)
    rows = torch.arange(len(volumes), device=volumes.device)[:, None]
    return sliced[rows, chosen].flatten(0, 1)
