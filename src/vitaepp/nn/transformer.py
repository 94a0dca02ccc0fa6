"""The vision transformer encoder, for images with two or three spatial axes.

Parameter names are those of MAE, so that published checkpoints load without renaming.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vitaepp.errors import RecipeError
from vitaepp.nn.backbone import Backbone
from vitaepp.nn.patches import patch_grid, patchify
from vitaepp.nn.pooling import pool_tokens
from vitaepp.nn.positions import sincos_positions

#: Width, number of blocks and number of heads of the named sizes; `light` has no name elsewhere.
SIZES = {
    "light": (192, 6, 6),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}

#: Up to this number of tokens, matrix products are faster than fused attention on a CPU in bf16.
SHORT = 512


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Each token becomes a mixture of all tokens."""
        q, k, v = rearrange(
            self.qkv(x), "b t (three heads d) -> three b heads t d", three=3, heads=self.num_heads
        )
        mixed = attend(q, k, v)
        return self.proj(rearrange(mixed, "b heads t d -> b t (heads d)"))


def attend(
    q: Float[Tensor, "batch head token dim"],
    k: Float[Tensor, "batch head token dim"],
    v: Float[Tensor, "batch head token dim"],
) -> Float[Tensor, "batch head token dim"]:
    """Softmax attention, by the faster of two equivalent implementations.

    On a CPU in bf16, torch's fused attention takes two to ten times as long as matrix products, if
    the matrix of attention weights fits into the cache (`benchmarks/NOTES.md`).
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or q.shape[2] > SHORT:
        return F.scaled_dot_product_attention(q, k, v)
    weights = (q * q.shape[-1] ** -0.5) @ k.mT
    return weights.softmax(dim=-1) @ v  # the sum is computed in float32


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Transform each token separately."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block (Dosovitskiy et al. 2021)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self,
        x: Float[Tensor, "batch token dim"],
        kept: Float[Tensor, "batch branch"] | None = None,
    ) -> Float[Tensor, "batch token dim"]:
        """Attention, then MLP, each on a residual branch.

        Args:
            x: tokens.
            kept: factor of each of the two branches, per sample; 1 without it.
        """
        if kept is None:
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))
        attention, mlp = kept.to(x.dtype)[..., None, None].unbind(1)
        x = x + attention * self.attn(self.norm1(x))
        return x + mlp * self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Linear embedding of patches, its weight in the shape of a convolution as MAE keeps it."""

    def __init__(self, in_channels: int, patch_size: Sequence[int], embed_dim: int) -> None:
        super().__init__()
        convolution: Any = {2: nn.Conv2d, 3: nn.Conv3d}[len(patch_size)]
        size = tuple(patch_size)
        self.proj = convolution(in_channels, embed_dim, kernel_size=size, stride=size)

    def forward(
        self, patches: Float[Tensor, "batch patch value"]
    ) -> Float[Tensor, "batch patch embed_dim"]:
        """Embed patches as `patchify` returns them; hidden ones need not be among them."""
        # Patches have the channel last, the convolution's weight has it first. The patches are
        # reordered, because they are fewer than the weights and need no gradient.
        values = rearrange(patches, "b n (value c) -> b n (c value)", c=self.proj.in_channels)
        return F.linear(values, self.proj.weight.flatten(1), self.proj.bias)


class VisionTransformer(Backbone):
    """Encoder of patches, with linear embedding, fixed positions, a CLS token and pre-norm blocks.

    Args:
        in_channels: channels of the image.
        image_size: voxels per axis, two or three axes.
        patch_size: voxels per axis.
        embed_dim: width.
        depth: number of blocks.
        num_heads: attention heads.

    Raises:
        RecipeError: sizes are not multiples of each other.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: Sequence[int],
        patch_size: Sequence[int],
        embed_dim: int,
        depth: int,
        num_heads: int,
    ) -> None:
        super().__init__()
        check_width("", embed_dim, num_heads, len(image_size))
        self.embed_dim = embed_dim
        self.channels = in_channels
        self.image_size = tuple(image_size)
        self.patch_size = tuple(patch_size)
        self.grid = patch_grid(image_size, patch_size)
        self.patch_embed = PatchEmbed(in_channels, patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", sincos_positions(self.grid, embed_dim)[None])
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        initialize(self)

    @property
    def num_patches(self) -> int:
        """Number of patches of a whole image."""
        return self.pos_embed.shape[1] - 1

    def encode(
        self,
        patches: Float[Tensor, "batch patch value"],
        visible: Int[Tensor, "batch visible"] | None = None,
        kept: Float[Tensor, "batch block branch"] | None = None,
        blocks: int | None = None,
    ) -> Float[Tensor, "batch token embed_dim"]:
        """Features of the CLS token, then of the visible patches.

        Args:
            patches: of whole images.
            visible: which of them are encoded; all without it.
            kept: factors of the residual branches, see `kept_branches`; 1 without it.
            blocks: how many blocks they pass; all without it.
        """
        positions = self.pos_embed[:, 1:]
        if visible is not None:
            # Dropping hidden patches before the embedding saves three quarters of its time.
            patches = patches.take_along_dim(visible[..., None], dim=1)
            positions = positions.take_along_dim(visible[..., None], dim=1)
        x = self._tokens(patches, positions)
        for i, block in enumerate(self.blocks[:blocks]):
            x = block(x) if kept is None else block(x, kept[:, i])
        return self.norm(x)

    def _tokens(self, patches: Tensor, positions: Tensor) -> Tensor:
        """What the first block takes: the CLS token, then the patches with their positions."""
        x = self.patch_embed(patches) + positions
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(x.shape[0], -1, -1)
        return torch.cat([cls.to(x.dtype), x], dim=1)

    def forward(
        self,
        images: Float[Tensor, "batch channel *space"],
        block: int | None = None,
        kept: Float[Tensor, "batch block branch"] | None = None,
    ) -> Float[Tensor, "batch token embed_dim"]:
        """Features of whole images, after `block` blocks: the CLS token, then every patch."""
        return self.encode(patchify(images, self.patch_size), kept=kept, blocks=block)

    def feature_maps(
        self,
        images: Float[Tensor, "batch channel *space"],
        after: Sequence[int],
        kept: Float[Tensor, "batch block branch"] | None = None,
    ) -> list[Float[Tensor, "batch embed_dim *grid"]]:
        """Features of all patches after some blocks, as images with a voxel a patch.

        Those after the last block are normalised, as in `encode`.

        Args:
            images: standardised images.
            after: numbers of blocks, rising.
            kept: factors of the residual branches, see `kept_branches`; 1 without it.
        """
        x = self._tokens(patchify(images, self.patch_size), self.pos_embed[:, 1:])
        maps = []
        for i, block in enumerate(self.blocks[: max(after)]):
            x = block(x) if kept is None else block(x, kept[:, i])
            if i + 1 in after:
                tokens = self.norm(x) if i + 1 == len(self.blocks) else x
                maps.append(tokens[:, 1:].transpose(1, 2).unflatten(2, self.grid))
        return maps

    def parts(self, block: int | None = None) -> list[nn.ModuleList]:
        """The embedding of patches with the CLS token, then each block, the last with the norm."""
        blocks = [nn.ModuleList([each]) for each in self.blocks[:block]]
        blocks[-1].append(self.norm)
        first = nn.ModuleList([self.patch_embed])
        first.register_parameter("cls_token", self.cls_token)
        return [first, *blocks]

    def features(
        self,
        images: Float[Tensor, "batch channel *space"],
        pool: str = "mean",
        block: int | None = None,
        kept: Float[Tensor, "batch block branch"] | None = None,
    ) -> Float[Tensor, "batch feature"]:
        """One vector an image, pooled from the features of every patch after `block` blocks."""
        return pool_tokens(self(images, block, kept), pool, self.grid, images)

    def several(
        self,
        images: Float[Tensor, "batch channel *space"],
        wanted: Sequence[tuple[str, int | None]],
    ) -> list[Float[Tensor, "batch feature"]]:
        """`features` for several poolings and blocks, from one pass through the blocks."""
        depth = len(self.blocks)
        after = {len(self.blocks[:block]) for _, block in wanted}
        tokens = {}
        x = self._tokens(patchify(images, self.patch_size), self.pos_embed[:, 1:])
        for i, block in enumerate(self.blocks[: max(after)], start=1):
            x = block(x)
            if i in after:
                tokens[i] = self.norm(x)
        return [
            pool_tokens(tokens[min(b or depth, depth)], how, self.grid, images) for how, b in wanted
        ]


def check_width(part: str, embed_dim: int, num_heads: int, ndim: int) -> None:
    """Refuse a width that cannot be divided among heads or positions.

    Args:
        part: beginning of the arguments' names: nothing, or `decoder_`.
        embed_dim: the width.
        num_heads: attention heads.
        ndim: spatial axes.

    Raises:
        RecipeError: the width does not fit.
    """
    width = f"{part}embed_dim={embed_dim}"
    if embed_dim % num_heads:
        raise RecipeError(f"{width} is not a multiple of {part}num_heads={num_heads}")
    if embed_dim % 2 or embed_dim < 2 * ndim:
        raise RecipeError(f"{width}: positions need an even width of {2 * ndim} or more")


def initialize(module: nn.Module) -> None:
    """MAE's initialisation: Xavier for matrices, zero for biases, deviation 0.02 for tokens."""
    # Torch has drawn weights already; without its draws, a seed would give other ones than before.
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            nn.init.xavier_uniform_(part.weight.view(len(part.weight), -1))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for name, parameter in module.named_parameters():
        if name.endswith("_token"):
            nn.init.normal_(parameter, std=0.02)


def kept_branches(
    draws: Float[Tensor, "batch block branch"], rate: float
) -> Float[Tensor, "batch block branch"]:
    """Drop path: factors of residual branches, 0 where one is dropped for a sample.

    The chance of it grows linearly from 0 in the first block to `rate` in the last, and what is
    kept is enlarged so that its mean stays.

    Args:
        draws: uniform numbers in [0, 1).
        rate: chance in the last block.

    Source:
        Huang et al. 2016, "Deep networks with stochastic depth".
    """
    rates = torch.linspace(0, rate, draws.shape[1], device=draws.device)[:, None]
    return (draws >= rates) / (1 - rates)
