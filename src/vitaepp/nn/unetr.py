"""UNETR's decoder from MONAI's blocks, for any patch that is a power of two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
from torch import Tensor, nn

from vitaepp.errors import RecipeError


def doublings(patch_size: Sequence[int], depth: int) -> int:
    """How often the grid of patches is doubled until it has the image's size.

    Args:
        patch_size: voxels per axis.
        depth: blocks of the transformer.

    Raises:
        RecipeError: sides that are not one power of two, or fewer blocks than doublings.
    """
    side = patch_size[0]
    times = side.bit_length() - 1
    if len(set(patch_size)) > 1 or side < 2 or side != 2**times:
        raise RecipeError(
            f"patch_size={','.join(map(str, patch_size))}: segmentation takes patches "
            "with one side along all axes, a power of two"
        )
    if depth < times:
        raise RecipeError(
            f"depth={depth}: segmentation with patches of {side} takes {times} blocks or more"
        )
    return times


class UnetrDecoder(nn.Module):
    """From the features of patches, and the image itself, to a score of each label in each voxel.

    The grid of patches is doubled until it has the image's size. At each size in between it is
    joined by features of an earlier block, brought to that size by transposed convolutions; at
    the last, by a convolution of the image. With patches of 16 this is UNETR's decoder.

    Args:
        in_channels: channels of the image.
        embed_dim: width of the transformer.
        depth: its number of blocks.
        patch_size: voxels per axis, the same power of two along each.
        labels: scores that each voxel gets, the background's among them.
        width: channels at the image's own size; twice as many at each size below.

    Attributes:
        after: blocks whose features it takes, rising.

    Raises:
        RecipeError: another patch, or fewer blocks than sizes.

    Source:
        Hatamizadeh et al. 2022, "UNETR: Transformers for 3D medical image segmentation".
    """

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        depth: int,
        patch_size: Sequence[int],
        labels: int,
        width: int,
    ) -> None:
        super().__init__()
        times, ndim = doublings(patch_size, depth), len(patch_size)
        self.after = [round(depth * (i + 1) / times) for i in range(times)]
        block: dict[str, Any] = {"norm_name": "instance", "res_block": True}
        self.of_image = UnetrBasicBlock(ndim, in_channels, width, 3, 1, **block)
        self.of_blocks = nn.ModuleList(
            UnetrPrUpBlock(
                ndim, embed_dim, width * 2**i, times - i - 1, 3, 1, 2, conv_block=True, **block
            )
            for i in range(1, times)
        )
        self.up = nn.ModuleList(
            UnetrUpBlock(
                ndim,
                embed_dim if i == times - 1 else width * 2 ** (i + 1),
                width * 2**i,
                3,
                2,
                **block,
            )
            for i in reversed(range(times))
        )
        self.out = UnetOutBlock(ndim, width, labels)

    def forward(
        self,
        images: Float[Tensor, "batch channel *space"],
        maps: Sequence[Float[Tensor, "batch embed_dim *grid"]],
    ) -> Float[Tensor, "batch label *space"]:
        """Scores of each label in each voxel.

        Args:
            images: standardised images.
            maps: features of all patches after the blocks `after`.
        """
        *earlier, x = maps
        joined = [self.of_image(images)]
        joined += [block(features) for block, features in zip(self.of_blocks, earlier, strict=True)]
        for up, skip in zip(self.up, reversed(joined), strict=True):
            x = up(x, skip)
        return self.out(x)
