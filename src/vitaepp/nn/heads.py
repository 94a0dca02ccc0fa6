"""Heads: small networks that turn features into the vectors that a loss compares."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn


class Predictor(nn.Module):
    """SimSiam's predictor: a two-layer bottleneck for the features of one view.

    Its hidden normalisation is over features, not over the batch as in the paper. Volumes come in
    batches of four, whose statistics would be noise, and without batch statistics training is the
    same on one device or several.

    Args:
        dim: width of the features.
        hidden: width of the bottleneck; a quarter of `dim` in the paper.
        norm: after the first layer: over the features (`layer`), over the `batch`, or `none`.

    Source:
        Chen & He 2021, section 3.
    """

    def __init__(self, dim: int, hidden: int | None = None, norm: str = "layer") -> None:
        super().__init__()
        hidden = hidden or max(dim // 4, 1)
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden, bias=False),
            {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "none": nn.Identity}[norm](hidden),
            nn.ReLU(),
            nn.Linear(hidden, dim),
        )

    def forward(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Predict the other view's features."""
        predicted: Tensor = self.layers(features)
        return predicted


def mlp_head(widths: Sequence[int], last_norm: bool) -> nn.Sequential:
    """A projector or predictor as in SimSiam and MoCo-v3.

    It has linear layers; all except the last are followed by batch norm and ReLU. A batch norm at
    the end has no parameters. A layer before a batch norm has no bias.

    Args:
        widths: widths of the input, of each hidden layer, and of the output.
        last_norm: whether a batch norm is at the end.

    Source:
        Chen & He 2021, section 3; Chen, Xie & He 2021, section 4.3.
    """
    layers: list[nn.Module] = []
    *hidden, last = pairwise(widths)
    for before, after in hidden:
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
    layers.append(nn.Linear(*last, bias=not last_norm))
    if last_norm:
        layers.append(nn.BatchNorm1d(last[1], affine=False))
    return nn.Sequential(*layers)
