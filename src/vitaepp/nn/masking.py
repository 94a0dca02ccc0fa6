"""Random masks over patches: which are visible, which are hidden."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class Mask(NamedTuple):
    """Indices into the patch sequence of each sample; together they are all patches.

    Attributes:
        visible: patches that the encoder sees, ascending.
        hidden: patches that it does not see.
    """

    visible: Int[Tensor, "batch visible"]
    hidden: Int[Tensor, "batch hidden"]


def random_masks(noise: Float[Tensor, "batch patch"], mask_ratio: float) -> Mask:
    """Hide patches at random: the same number in every sample, but other patches in each.

    Args:
        noise: independent uniform draws; the patches with the smallest draws stay visible.
        mask_ratio: share of hidden patches; `int(patch * (1 - mask_ratio))` stay visible.

    Source:
        He et al. 2021.
    """
    keep = int(noise.shape[1] * (1 - mask_ratio))
    order = noise.argsort(dim=1)
    # The order of tokens does not matter to attention; ascending indices read memory in order.
    return Mask(order[:, :keep].sort(dim=1).values, order[:, keep:])
