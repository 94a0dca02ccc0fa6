"""Fixed sine-cosine positions for any number of axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def axis_widths(embed_dim: int, ndim: int) -> tuple[int, ...]:
    """The number of features for each axis: even numbers, as equal as possible.

    >>> axis_widths(768, 3), axis_widths(512, 3), axis_widths(512, 2)
    ((256, 256, 256), (172, 170, 170), (256, 256))
    """
    pairs, rest = divmod(embed_dim // 2, ndim)
    return tuple(2 * (pairs + (axis < rest)) for axis in range(ndim))


def sincos_positions(
    grid: Sequence[int],
    embed_dim: int,
    order: Sequence[int] | None = None,
    widths: Sequence[int] | None = None,
) -> Float[Tensor, "token embed_dim"]:
    """Position table: a zero row for the CLS token, then one row per patch in row-major order.

    The features are split over the axes. Each axis has first the sines, then the cosines, of the
    patch's index at geometrically falling frequencies.

    Args:
        grid: patches per axis.
        embed_dim: number of features, even.
        order: axes in the order of their features. By default the last axis is first, as in MAE in
            2D; some published tables have another order.
        widths: number of features of each axis in that order; by default those of `axis_widths`.

    Source:
        Vaswani et al. 2017; He et al. 2021 for the layout in 2D.
    """
    index = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    order = range(len(grid))[::-1] if order is None else order
    widths = axis_widths(embed_dim, len(grid)) if widths is None else widths
    parts = []
    for width, axis in zip(widths, order, strict=True):
        omega = torch.arange(width // 2, dtype=torch.float64) / (width / 2)
        angles = index[axis].reshape(-1, 1) * 10000.0**-omega
        parts += [angles.sin(), angles.cos()]
    table = torch.cat(parts, dim=1)
    return torch.cat([table.new_zeros(1, embed_dim), table]).float()
