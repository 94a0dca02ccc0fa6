"""Small networks that turn features into what a loss compares."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Predictor(nn.Module):
    """SimSiam's predictor: a two-layer bottleneck that one view's features pass through.

    Its hidden normalisation is over features, not over the batch as in the paper: volumes come in
    batches of four, where a batch's statistics are noise, and samples that do not see each other
    train the same on one device or many.

    Args:
        dim: width of the features.
        hidden: width of the bottleneck; a quarter of `dim` in the paper.

    Source:
        Chen & He 2021, section 3.
    """

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or max(dim // 4, 1)
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden, bias=False),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, dim),
        )

    def forward(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Predict the other view's features."""
        predicted: Tensor = self.layers(features)
        return predicted
