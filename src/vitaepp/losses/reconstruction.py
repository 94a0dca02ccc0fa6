"""L_rec: the mean squared error of intensities, on the hidden patches."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.profiler import record_function

from vitaepp.losses.present import mean_over_present


@record_function("reconstruction loss")
def reconstruction_loss(
    prediction: Float[Tensor, "batch patch value"],
    target: Float[Tensor, "batch patch value"],
    patches: Int[Tensor, "batch chosen"] | None = None,
    present: Bool[Tensor, "batch channel"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error over the values of the chosen patches.

    Args:
        prediction: predicted values.
        target: true values in any unit.
        patches: the patches that count, usually the hidden ones. Unset: all.
        present: the channels that count; the channel is last among a patch's values. Unset: all.

    Returns:
        The loss in the target's unit squared.

    Source:
        He et al. 2021.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 4, 8)
        >>> prediction = torch.arange(4.0).view(1, 4, 1).expand_as(target)
        >>> reconstruction_loss(prediction, target, torch.tensor([[1, 3]])).item()
        5.0
    """
    if patches is not None:
        prediction = prediction.take_along_dim(patches[..., None], dim=1)
        target = target.take_along_dim(patches[..., None], dim=1)
    errors = (prediction - target).square()
    if present is not None:
        errors = errors.unflatten(-1, (-1, present.shape[1])).movedim(-1, 1)
    return mean_over_present(errors, present)


def patch_moments(
    patches: Float[Tensor, "batch patch value"],
    eps: float = 1e-6,
    present: Bool[Tensor, "batch channel"] | None = None,
) -> tuple[Float[Tensor, "batch patch 1"], Float[Tensor, "batch patch 1"]]:
    """Mean and standard deviation of each patch, for targets that are normalised by patch.

    Args:
        patches: patches with the channel last among their values.
        eps: value that is added to the variance, so that flat patches have a deviation above 0.
        present: the channels that count. Unset: all.

    Source:
        He et al. 2021, "normalised pixels".
    """
    if present is None:
        variance, mean = patches.var(dim=-1, keepdim=True), patches.mean(dim=-1, keepdim=True)
    else:
        counts = present.repeat(1, patches.shape[-1] // present.shape[1])[:, None]
        number, zero = counts.sum(dim=-1, keepdim=True), torch.zeros_like(patches)
        mean = torch.where(counts, patches, zero).sum(dim=-1, keepdim=True) / number
        squares = torch.where(counts, patches - mean, zero).square()
        variance = squares.sum(dim=-1, keepdim=True) / (number - 1).clamp(min=1)
    return mean, (variance + eps).sqrt()
