"""L_rec: the mean squared error of intensities, on the hidden patches."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def reconstruction_loss(
    prediction: Float[Tensor, "batch patch value"],
    target: Float[Tensor, "batch patch value"],
    patches: Int[Tensor, "batch chosen"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error over the values of the chosen patches.

    Args:
        prediction: predicted values.
        target: true values, any unit.
        patches: which patches count (the hidden ones, as a rule); all without it.

    Returns:
        The target's unit squared.

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
    return (prediction - target).square().mean()


def patch_moments(
    patches: Float[Tensor, "batch patch value"], eps: float = 1e-6
) -> tuple[Float[Tensor, "batch patch 1"], Float[Tensor, "batch patch 1"]]:
    """Mean and standard deviation of each patch, for targets that are normalised by patch.

    Source:
        He et al. 2021, "normalised pixels".
    """
    variance, mean = patches.var(dim=-1, keepdim=True), patches.mean(dim=-1, keepdim=True)
    return mean, (variance + eps).sqrt()
