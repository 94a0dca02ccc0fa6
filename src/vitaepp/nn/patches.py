"""Images as sequences of patches, for any number of spatial axes, and random masks over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from vitaepp.errors import RecipeError


def patch_grid(image_size: Sequence[int], patch_size: Sequence[int]) -> tuple[int, ...]:
    """The number of patches per axis.

    Raises:
        RecipeError: a side of the image is not a multiple of the patch's side.

    Example:
        >>> patch_grid((96, 96, 64), (8, 8, 16))
        (12, 12, 4)
    """
    if any(size % patch for size, patch in zip(image_size, patch_size, strict=True)):
        sizes, patches = (",".join(map(str, v)) for v in (image_size, patch_size))
        fitting = ",".join(
            str(max(p, round(s / p) * p)) for s, p in zip(image_size, patch_size, strict=True)
        )
        raise RecipeError(
            f"images of {sizes} voxels cannot be cut into patches of {patches}, but images of "
            f"{fitting} can"
        )
    return tuple(size // patch for size, patch in zip(image_size, patch_size, strict=True))


def patchify(
    images: Float[Tensor, "batch channel *space"], patch_size: Sequence[int]
) -> Float[Tensor, "batch patch value"]:
    """Cut images into patches, flattened with the channel last, as MAE does.

    Args:
        images: images with two or three spatial axes; each side is a multiple of its patch's side.
        patch_size: voxels per axis.

    Returns:
        Patches in row-major order of the grid; `value = prod(patch_size) * channel`.

    Source:
        He et al. 2021; their published decoders predict values in this order.
    """
    whole, grid, values = _names(len(patch_size))
    sizes = {f"p{axis}": patch for axis, patch in enumerate(patch_size)}
    return rearrange(images, f"b c {whole} -> b ({grid}) ({values} c)", **sizes)


def unpatchify(
    patches: Float[Tensor, "batch patch value"],
    grid: Sequence[int],
    patch_size: Sequence[int],
) -> Float[Tensor, "batch channel *space"]:
    """Assemble images from patches; the inverse of `patchify`.

    Args:
        patches: as `patchify` returns them.
        grid: patches per axis.
        patch_size: voxels per axis.
    """
    whole, names, values = _names(len(patch_size))
    sizes = {f"p{axis}": patch for axis, patch in enumerate(patch_size)}
    sizes |= {f"g{axis}": count for axis, count in enumerate(grid)}
    return rearrange(patches, f"b ({names}) ({values} c) -> b c {whole}", **sizes)


def _names(ndim: int) -> tuple[str, str, str]:
    axes = range(ndim)
    grid = " ".join(f"g{axis}" for axis in axes)
    values = " ".join(f"p{axis}" for axis in axes)
    whole = " ".join(f"(g{axis} p{axis})" for axis in axes)
    return whole, grid, values


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
