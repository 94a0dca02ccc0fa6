"""Means over present channels: a modality that a subject lacks does not count."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mean_over_present(
    errors: Float[Tensor, "batch channel *rest"], present: Bool[Tensor, "batch channel"] | None
) -> Float[Tensor, ""]:
    """Mean over the present channels of each sample, then over samples.

    So every sample has the same weight in a batch, however many of its channels are missing.

    Args:
        errors: errors in any unit; those of missing channels are ignored and get no gradient.
        present: the channels that a sample has, at least one. Unset: all.

    Returns:
        The mean in the errors' unit.

    Example:
        >>> errors = torch.tensor([[1.0, 3.0], [5.0, 100.0]])
        >>> mean_over_present(errors, torch.tensor([[True, True], [True, False]])).item()
        3.5
    """
    if present is None:
        return errors.mean()
    channels = errors.flatten(2).mean(dim=2) if errors.ndim > 2 else errors
    kept = torch.where(present, channels, torch.zeros_like(channels))
    return (kept.sum(dim=1) / present.sum(dim=1)).mean()
