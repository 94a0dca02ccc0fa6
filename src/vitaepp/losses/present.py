"""Means over the channels that are there: a modality that a subject lacks counts nowhere."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mean_over_present(
    errors: Float[Tensor, "batch channel *rest"], present: Bool[Tensor, "batch channel"] | None
) -> Float[Tensor, ""]:
    """Mean over the present channels of each sample, then over samples.

    So a sample counts the same in any batch, however many of its channels are missing, and its
    part is what it would be if it had never had the others.

    Args:
        errors: of any unit; those of missing channels may be anything and get no gradient.
        present: which channels are there, at least one a sample; all without it.

    Returns:
        The errors' unit.

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
