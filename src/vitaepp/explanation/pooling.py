"""The features of an image of which only some patches are known.

A classifier has been fitted to features that are pooled from every patch. Where patches are left
out, each cell of the pooling (the whole image, or one of the four or eight of `grid` and `gridmax`)
takes what its visible patches give, weighted by the share of its patches that are visible; for the
rest it takes the cohort's mean. So nothing known is the cohort's mean subject, everything known is
the subject itself, and for `mean` and `grid` it is exactly as if an absent patch were an average
one.

The histograms of oriented gradients count the voxels of visible patches. The gradient at the rim of
a patch looks one voxel further, into what may be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitaepp.nn.gradients import cells_of, directions, normalised, oriented, window
from vitaepp.nn.pooling import CELLS, GRADIENTS


def pool_visible(
    tokens: Float[Tensor, "batch token dim"],
    visible: Int[Tensor, "batch visible"],
    how: str,
    grid: Sequence[int],
    absent: Float[Tensor, " feature"],
    edges: Edges | None = None,
) -> Float[Tensor, "batch feature"]:
    """One vector an image; with every patch visible, that of `nn.pooling.pool_tokens`.

    Args:
        tokens: CLS token, then those of the visible patches.
        visible: which patches these are, at least one.
        how: the parts of the pooling, joined by `+`.
        grid: patches per axis.
        absent: the features that stand in for what is not known.
        edges: of the image, for `gradients`.
    """
    patches, pooled, shares = tokens[:, 1:], [], []
    for part in how.split("+"):
        if part == GRADIENTS:
            assert edges is not None, f"{how}: takes the edges of the image"
            pooled.append(normalised(edges.counts[visible].sum(dim=1)).flatten(1))
            share = edges.shares[visible].sum(dim=1)
            shares.append(share.repeat(1, pooled[-1].shape[1] // share.shape[1]))
            continue
        members = _members(tuple(grid), part.startswith("grid")).to(visible.device)
        inside = members[:, visible]
        of_cell = [tokens[:, 0] if part == "cls" else _pooled(patches, i, part) for i in inside]
        share = (inside.sum(dim=2) / members.sum(dim=1, keepdim=True)).T
        # The cell runs fastest, as in `pool_tokens`.
        pooled.append(torch.stack(of_cell, dim=2).flatten(1))
        shares.append(share.repeat(1, tokens.shape[2]))
    share = torch.cat(shares, dim=1)
    return share * torch.cat(pooled, dim=1) + (1 - share) * absent


@cache
def _members(grid: tuple[int, ...], cells: bool) -> Bool[Tensor, "cell patch"]:
    return cell_members(grid) if cells else torch.ones(1, prod(grid), dtype=torch.bool)


def cell_members(grid: Sequence[int]) -> Bool[Tensor, "cell patch"]:
    """Which patches are in which cell of the poolings `grid` and `gridmax`.

    Cells of an odd number of patches share the middle one, as in torch's adaptive pooling.
    """
    masks = torch.ones(1, 1, dtype=torch.bool)
    for n in grid:
        axis = _windows(n, min(CELLS, n))
        masks = (masks[:, None, :, None] & axis[None, :, None, :]).flatten(2).flatten(0, 1)
    return masks


def _windows(n: int, cells: int) -> Bool[Tensor, "cell place"]:
    """Which of `n` places along an axis torch's adaptive pooling takes into each cell."""
    where = torch.arange(n)
    ends = [window(n, cells, i) for i in range(cells)]
    return torch.stack([(where >= a) & (where < b) for a, b in ends])


@dataclass(frozen=True)
class Edges:
    """What each patch of an image adds to the histograms of its gradients.

    Attributes:
        counts: before they are normalised.
        shares: of each cell, the share of its voxels that lie in each patch.
    """

    counts: Float[Tensor, "patch channel direction cell"]
    shares: Float[Tensor, "patch cell"]

    @classmethod
    def of(cls, image: Float[Tensor, "1 channel *space"], grid: Sequence[int]) -> Edges:
        """The edges of a standardised image that is cut into a grid of patches."""
        length, direction = oriented(image)
        ndim, on = len(grid), image.device
        counts = torch.stack(
            [length[0] * (direction[0] == k) for k in range(len(directions(ndim)))], dim=1
        )
        shares = torch.ones(1, 1, device=on)
        for n, patches, cells in zip(image.shape[2:], grid, cells_of(image.shape[2:]), strict=True):
            inside = _windows(n, cells)[None] & _windows(n, patches)[:, None]
            share = (inside / _windows(n, cells).sum(dim=1, keepdim=True)).to(on)
            # The axis of voxels goes; one of patches and one of cells come at the end.
            counts = torch.tensordot(counts, share, dims=([2], [2]))
            shares = torch.kron(shares, share.sum(dim=2))
        axes = [*range(2, 2 * ndim + 2, 2), 0, 1, *range(3, 2 * ndim + 2, 2)]
        return cls(counts.permute(axes).flatten(0, ndim - 1).flatten(3), shares)


def _pooled(
    patches: Float[Tensor, "batch visible dim"], inside: Bool[Tensor, "batch visible"], part: str
) -> Float[Tensor, "batch dim"]:
    """Of the patches inside a cell; 0 where there is none."""
    if part in ("max", "gridmax"):
        most = patches.masked_fill(~inside[..., None], -torch.inf).amax(dim=1)
        return torch.where(inside.any(dim=1, keepdim=True), most, torch.zeros_like(most))
    weights = inside.to(patches.dtype) / inside.sum(dim=1, keepdim=True).clamp(min=1)
    mean = torch.einsum("bn,bnd->bd", weights, patches)
    if part == "std":
        squares = (patches - mean[:, None]).square()
        return torch.einsum("bn,bnd->bd", weights, squares).sqrt()
    return mean
