"""The base class of encoders: networks that turn each image into one vector of features."""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Backbone(nn.Module):
    """A network that turns each image into one vector.

    Attributes:
        embed_dim: length of the vector.
    """

    embed_dim: int

    def width(self, pool: str) -> int:
        """How many features an image has."""
        return self.embed_dim

    @abstractmethod
    def features(
        self, images: Float[Tensor, "batch channel *space"], pool: str, block: int | None = None
    ) -> Float[Tensor, "batch feature"]:
        """One vector per image.

        Args:
            images: standardised images.
            pool: `mean` or `cls`, for a backbone with tokens.
        """
