"""Attention rollout: from which patches the tokens of a vision transformer are mixed."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vitaepp.nn.transformer import Attention, VisionTransformer


def rollout(
    backbone: VisionTransformer,
    image: Float[Tensor, "1 channel *space"],
    pool: str = "mean",
    block: int | None = None,
) -> Float[Tensor, "*grid"]:
    """How much of the pooled tokens comes from each patch, if attention were all that mixes them.

    The attention of each block is averaged over heads and with the residual branch, and the blocks
    are multiplied. It knows nothing of values, MLPs or a classifier: it is shown as a control.

    Args:
        backbone: in evaluation mode.
        image: standardised.
        pool: what is pooled: the CLS token if it is `cls`, else the patches.
        block: how many blocks the image passes; all without it.

    Returns:
        Shares; they sum to 1 less what comes from the CLS token.

    Source:
        Abnar & Zuidema 2020, "Quantifying attention flow in transformers".
    """
    mixed: list[Float[Tensor, "token token"]] = []

    def keep(module: Any, arguments: tuple[Tensor, ...]) -> None:
        mixed.append(mean_attention(module, arguments[0])[0])

    blocks: list[Any] = list(backbone.blocks)
    hooks = [each.attn.register_forward_pre_hook(keep) for each in blocks[:block]]
    try:
        with torch.inference_mode():
            backbone(image, block)
    finally:
        for hook in hooks:
            hook.remove()
    count = backbone.num_patches
    share = torch.zeros(count + 1, device=image.device)
    if pool == "cls":
        share[0] = 1
    else:
        share[1:] = 1 / count
    for attention in reversed(mixed):
        share = (share + share @ attention) / 2
    return share[1:].reshape(backbone.grid)


def mean_attention(
    attention: Attention, x: Float[Tensor, "batch token dim"]
) -> Float[Tensor, "batch token token"]:
    """Attention weights, averaged over heads; rows sum to 1."""
    q, k, _ = rearrange(
        attention.qkv(x),
        "b t (three heads d) -> three b heads t d",
        three=3,
        heads=attention.num_heads,
    )
    weights = (q.float() * q.shape[-1] ** -0.5) @ k.float().mT
    return weights.softmax(dim=-1).mean(dim=1)
