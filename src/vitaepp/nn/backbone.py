"""What every encoder is: a network from images to one vector of features each."""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Backbone(nn.Module):
    """Images in, one vector an image out.

    Attributes:
        embed_dim: length of that vector.
    """

    embed_dim: int

    @abstractmethod
    def features(
        self, images: Float[Tensor, "batch channel *space"], pool: str
    ) -> Float[Tensor, "batch embed_dim"]:
        """One vector an image.

        Args:
            images: standardised.
            pool: `mean` or `cls`, for a backbone that has tokens.
        """
