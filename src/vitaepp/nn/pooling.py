"""Pooling: one vector of an image from the features of all its patches, and from its edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from vitaepp.nn.gradients import cell_bounds, histogram_width, histograms

#: Cells an axis of the pooling `grid`.
CELLS = 2

#: The part of an embedding that no network computes.
GRADIENTS = "gradients"


def pool_tokens(
    tokens: Float[Tensor, "batch token embed_dim"],
    how: str,
    grid: Sequence[int] = (),
    images: Float[Tensor, "batch channel *space"] | None = None,
) -> Float[Tensor, "batch feature"]:
    """One vector an image: parts joined by `+`, in their order.

    `mean`, `std` and `max` are taken over the patch tokens, `cls` is the CLS token. `grid` and
    `gridmax` halve each axis and take the mean and the maximum of each cell, four in 2D and eight
    in 3D, which keeps where in the image something is. `gradients` are the histograms of oriented
    gradients of the image itself, which nothing has been trained for.

    Args:
        tokens: CLS token, then patch tokens.
        how: the parts.
        grid: patches per axis, for the parts that need it.
        images: standardised, for `gradients`.

    >>> pool_tokens(torch.tensor([[[5.0], [1.0], [3.0]]]), "mean+cls")
    tensor([[2., 5.]])
    """
    patches = tokens[:, 1:]

    def cells(pool: Callable[..., Tensor]) -> Tensor:
        volume = patches.transpose(1, 2).unflatten(2, tuple(grid))
        # ONNX has no adaptive pooling where cells do not divide an axis.
        for axis, n in enumerate(grid, start=2):
            bounds = cell_bounds(n, min(CELLS, n))
            halves = [pool(volume.narrow(axis, a, b - a), dim=axis) for a, b in bounds]
            volume = torch.stack(halves, dim=axis)
        return volume.flatten(1)

    def gradients() -> Tensor:
        assert images is not None, f"{how}: takes the images"
        return histograms(images).flatten(1)

    parts = {
        "mean": lambda: patches.mean(dim=1),
        "std": lambda: patches.std(dim=1, correction=0),
        "max": lambda: patches.amax(dim=1),
        "cls": lambda: tokens[:, 0],
        "grid": lambda: cells(torch.mean),
        "gridmax": lambda: cells(torch.amax),
        GRADIENTS: gradients,
    }
    return torch.cat([parts[name]() for name in how.split("+")], dim=1)


def pooled_widths(
    how: str, embed_dim: int, grid: Sequence[int], channels: int, size: Sequence[int]
) -> list[int]:
    """How many features `pool_tokens` gives, part by part.

    Args:
        how: the parts.
        embed_dim: width of the tokens.
        grid: patches per axis.
        channels: of the image.
        size: of the image in voxels.

    >>> pooled_widths("mean+grid+gradients", 192, (8, 8), 1, (64, 64))
    [192, 768, 576]
    """
    cells = prod(min(CELLS, n) for n in grid)
    return [
        histogram_width(channels, size)
        if part == GRADIENTS
        else embed_dim * (cells if part.startswith("grid") else 1)
        for part in how.split("+")
    ]
