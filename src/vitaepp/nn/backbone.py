"""The base class of encoders: networks that turn each image into one vector of features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from vitaepp.nn.pooling import pooled_widths


class Backbone(nn.Module):
    """A network that turns each image into one vector.

    Attributes:
        embed_dim: features of each place in the image, or of its mean.
        channels: of an image.
        image_size: voxels per axis.
        grid: places per axis that have features of their own.
    """

    embed_dim: int
    channels: int
    image_size: tuple[int, ...]
    grid: tuple[int, ...]

    def width(self, pool: str) -> int:
        """How many features an image has."""
        return sum(self.widths(pool))

    def widths(self, pool: str) -> list[int]:
        """How many features each part of a pooling has, in their order."""
        return pooled_widths(pool, self.embed_dim, self.grid, self.channels, self.image_size)

    @abstractmethod
    def parts(self, block: int | None = None) -> list[nn.ModuleList]:
        """What images pass one after another: what comes first, then block by block.

        Args:
            block: the last block; all without it.
        """

    def several(
        self,
        images: Float[Tensor, "batch channel *space"],
        wanted: Sequence[tuple[str, int | None]],
    ) -> list[Float[Tensor, "batch feature"]]:
        """`features` for several poolings and blocks; a network with tokens runs once for all."""
        return [self.features(images, pool, block) for pool, block in wanted]

    @abstractmethod
    def features(
        self,
        images: Float[Tensor, "batch channel *space"],
        pool: str,
        block: int | None = None,
        kept: Float[Tensor, "batch block branch"] | None = None,
    ) -> Float[Tensor, "batch feature"]:
        """One vector per image.

        Args:
            images: standardised images.
            pool: see `pool_tokens`; only a transformer has a CLS token.
            block: how many blocks they pass, for such a backbone; all without it.
            kept: factors of its residual branches, see `kept_branches`; 1 without it.
        """
