"""Patch embeddings and positions for another patch, other channels and another grid.

What a kernel answers to an image, and where a position stands in it, stay as they were as far as
the new sizes allow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import permutations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vitaepp.errors import RunError
from vitaepp.nn.positions import axis_widths, sincos_positions
from vitaepp.system.text import dimensions

#: `order` and `widths` of `sincos_positions`.
Layout = tuple[tuple[int, ...], tuple[int, ...]]


def fit_kernel(
    kernel: Float[Tensor, "dim channel *patch"], shape: Sequence[int]
) -> tuple[Float[Tensor, "dim other *size"], list[str]]:
    """A patch embedding's kernel for other channels, another patch, and for volumes.

    Args:
        kernel: weight of the convolution, with two or three spatial axes.
        shape: the one that is wanted.

    Returns:
        The kernel, and what was done to it.

    Raises:
        RunError: it is of volumes, and images are wanted.
    """
    notes = []
    channels, patch = shape[1], tuple(shape[2:])
    if kernel.ndim > len(shape):
        raise RunError(
            f"patch_embed.proj.weight is of shape {dimensions(kernel.shape)}, for volumes, "
            "but the store's images have 2 axes; prepare volumes, or start from a model of images"
        )
    if kernel.shape[1] != channels:
        notes.append(f"{kernel.shape[1]} channels adapted to {channels}")
        kernel = fit_channels(kernel, channels)
    plane = patch[: kernel.ndim - 2]
    if tuple(kernel.shape[2:]) != plane:
        notes.append(f"patches of {dimensions(kernel.shape[2:])} resized to {dimensions(plane)}")
        kernel = resize_kernel(kernel, plane)
    if kernel.ndim < len(shape):
        notes.append("inflated to volumes along the last axis")
        kernel = resize_kernel(kernel[..., None], patch)
    return kernel, notes


def fit_channels(
    kernel: Float[Tensor, "dim channel *patch"], channels: int
) -> Float[Tensor, "dim other *patch"]:
    """The kernel for another number of channels: its mean over them, scaled, for each.

    An image whose channels are all equal gets the same embedding as before, as a grey image that
    is given as RGB. Each new channel's kernel is the sum of the old ones over the new number.

    Args:
        kernel: weight of the patch embedding.
        channels: how many are wanted.
    """
    total = kernel.sum(dim=1, keepdim=True) / channels
    return total.expand(-1, channels, *kernel.shape[2:]).contiguous()


def resize_kernel(
    kernel: Float[Tensor, "dim channel *patch"], patch_size: Sequence[int]
) -> Float[Tensor, "dim channel *size"]:
    """The kernel for another patch size: it answers to a resized patch as the old one did.

    With `B` the matrix that resizes a patch (`area_resize`), the new kernel is `pinv(Bᵀ) w`: for
    larger patches `⟨new, B x⟩ = ⟨w, x⟩` for every patch `x`; for smaller ones as nearly as can be,
    and exactly where `x` is what `B` can tell (so for 16 to 8, wherever each 2 × 2 is equal: then
    the new kernel is the old one summed over 2 × 2). Constant patches always keep their embedding.
    Along an axis of one voxel that grows to `n`, this is the old kernel divided by `n`.

    Args:
        kernel: weight of the patch embedding.
        patch_size: voxels per axis that are wanted.

    Source:
        Beyer et al. 2023, FlexiViT, section 3.4; they resize bilinearly.
    """
    resized = kernel.double()
    for axis, size in enumerate(patch_size, start=2):
        if size != kernel.shape[axis]:
            solve = torch.linalg.pinv(area_resize(kernel.shape[axis], size)).T
            resized = (resized.movedim(axis, -1) @ solve.T).movedim(-1, axis)
    return resized.to(kernel.dtype).contiguous()


def area_resize(old: int, new: int) -> Float[Tensor, "new old"]:
    """Matrix that resizes a line of voxels: each new one is the mean over what it covers.

    >>> area_resize(4, 2).tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    edges = torch.arange(new + 1, dtype=torch.float64)[:, None] * old / new
    voxels = torch.arange(old, dtype=torch.float64)
    covered = torch.minimum(edges[1:], voxels + 1) - torch.maximum(edges[:-1], voxels)
    return covered.clamp(min=0) * new / old


def fit_positions(
    table: Float[Tensor, "1 row dim"],
    ndim: int,
    known: tuple[int, ...] | None,
    wanted: tuple[int, ...],
) -> tuple[Float[Tensor, "1 token dim"], str]:
    """A position table for another grid of patches.

    A table of the wanted grid is kept as it is, whatever is in it. Otherwise a sine-cosine table is
    computed anew in the layout it has, and a learned one is interpolated (bicubic in 2D, linear in
    3D); a table of images becomes this library's own for volumes. The CLS token keeps its row.

    Args:
        table: rows of the patches in row-major order, after that of the CLS token, or alone.
        ndim: axes of the table's grid.
        known: its grid, where a config tells.
        wanted: grid of the model.

    Returns:
        The table, and what was done to it; nothing for one that was kept.

    Raises:
        RunError: no grid has as many patches as the table has rows.
    """
    grid, first, layout = _grid_of(table, ndim, known, wanted)
    cls = table[:, :1] if first else table.new_zeros(1, 1, table.shape[2])
    patches, change = _for_grid(table[:, first:], grid, layout, wanted)
    return torch.cat([cls, patches], dim=1), change


def _grid_of(
    table: Tensor, ndim: int, known: tuple[int, ...] | None, wanted: tuple[int, ...]
) -> tuple[tuple[int, ...], int, Layout | None]:
    """The grid of a position table, its rows before the patches, and its sine-cosine layout."""
    candidates = list(_grids(table.shape[1], ndim, known, wanted))
    if not candidates:
        raise RunError(
            f"pos_embed has {table.shape[1]} rows, which no {'square' if ndim == 2 else 'cubic'} "
            "grid of patches has; it can start a model of the same grid only"
        )
    layouts = {(grid, first): sincos_layout(table[0, first:], grid) for grid, first in candidates}
    # A grid on which the table turns out to be sines and cosines is surely its own.
    grid, first = next((c for c in candidates if layouts[c]), candidates[0])
    return grid, first, layouts[grid, first]


def _for_grid(
    patches: Float[Tensor, "1 row dim"],
    grid: tuple[int, ...],
    layout: Layout | None,
    wanted: tuple[int, ...],
) -> tuple[Float[Tensor, "1 patch dim"], str]:
    """Positions of another grid, and what was done; nothing for the same grid."""
    dim = patches.shape[2]
    if grid == wanted:
        return patches, ""
    if len(grid) < len(wanted):
        volume = sincos_positions(wanted, dim)[None, 1:].to(patches)
        return volume, f"computed anew for {dimensions(wanted)} patches"
    change = f"from {dimensions(grid)} to {dimensions(wanted)} patches"
    if layout:
        computed = sincos_positions(wanted, dim, *layout)[None, 1:].to(patches)
        return computed, f"computed anew {change}"
    spread = patches.float().transpose(1, 2).unflatten(2, grid)
    mode = "bicubic" if len(grid) == 2 else "trilinear"
    spread = F.interpolate(spread, size=wanted, mode=mode, align_corners=False)
    return spread.flatten(2).transpose(1, 2).to(patches), f"interpolated {change}"


def sincos_layout(table: Float[Tensor, "patch dim"], grid: tuple[int, ...]) -> Layout | None:
    """How a sine-cosine table splits its features over the axes; nothing for another table.

    MAE in 2D takes the last axis first. The 3D tables released with ViT-AE++ take the second axis
    first, then the first, then the last, which gets the features that are left over.

    Args:
        table: rows of the patches.
        grid: patches per axis.

    Returns:
        `order` and `widths` of `sincos_positions`.
    """
    dim = table.shape[1]
    if dim % 2 or dim < 2 * len(grid) or table.abs().max() > 1.01:
        return None
    widths = axis_widths(dim, len(grid))
    for order in permutations(reversed(range(len(grid)))):
        for split in dict.fromkeys((widths, widths[::-1])):
            computed = sincos_positions(grid, dim, order, split)[1:]
            if torch.allclose(computed, table.float(), atol=5e-3, rtol=0):  # may be half precision
                return order, split
    return None


def _grids(
    rows: int, ndim: int, known: tuple[int, ...] | None, wanted: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], int]]:
    """Grids that a table of so many rows may have, each with its rows before the patches.

    Without a config, published models have as many patches along every axis.
    """
    for first in (1, 0):
        side = round(max(rows - first, 0) ** (1 / ndim))
        for grid in (known, (side,) * ndim, wanted):
            if grid is not None and len(grid) == ndim and math.prod(grid) == rows - first > 0:
                yield grid, first
