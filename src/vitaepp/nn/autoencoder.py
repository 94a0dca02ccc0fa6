"""The masked autoencoder: a vision transformer followed by a small decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitaepp.nn.patches import unpatchify
from vitaepp.nn.positions import sincos_positions
from vitaepp.nn.transformer import Block, VisionTransformer, check_width, initialize

#: Width, blocks and heads of the decoder of each size. Half the paper's width and depth cost little
#: (He et al. 2021, Table 1), and beside a small encoder more would take most of the time.
DECODERS = {
    "light": (128, 2, 4),
    "tiny": (128, 2, 4),
    "small": (256, 4, 8),
    "base": (512, 8, 16),
    "large": (512, 8, 16),
}


class MaskedAutoencoder(VisionTransformer):
    """ViT-AE: reconstructs an image from its visible patches (He et al. 2021).

    Args:
        in_channels: channels of the image.
        image_size: voxels per axis, two or three axes.
        patch_size: voxels per axis.
        embed_dim: width of the encoder.
        depth: blocks of the encoder.
        num_heads: heads of the encoder.
        decoder_embed_dim: width of the decoder.
        decoder_depth: blocks of the decoder.
        decoder_num_heads: heads of the decoder.

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
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
    ) -> None:
        # The encoder is initialised first, so that a seed gives the same encoder with and without
        # a decoder: the control `untrained` then has the weights that training started from.
        super().__init__(in_channels, image_size, patch_size, embed_dim, depth, num_heads)
        check_width("decoder_", decoder_embed_dim, decoder_num_heads, len(image_size))
        values = self.patch_embed.proj.weight[0].numel()
        self.decoder_embed = nn.Linear(embed_dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        self.decoder_pos_embed: Tensor
        self.register_buffer(
            "decoder_pos_embed", sincos_positions(self.grid, decoder_embed_dim)[None]
        )
        self.decoder_blocks = nn.ModuleList(
            Block(decoder_embed_dim, decoder_num_heads) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_embed_dim, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder_embed_dim, values)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            initialize(part)
        nn.init.normal_(self.mask_token, std=0.02)

    def decode(
        self,
        tokens: Float[Tensor, "batch token embed_dim"],
        visible: Int[Tensor, "batch visible"],
    ) -> Float[Tensor, "batch patch value"]:
        """Predict the values of every patch from the features of the visible ones.

        Args:
            tokens: the output of `encode`, with the CLS token first.
            visible: indices of the patches that the other tokens belong to.
        """
        x = self.decoder_embed(tokens)
        every = self.mask_token.to(x.dtype).expand(len(x), self.num_patches, -1)
        places = visible[..., None].expand(-1, -1, x.shape[-1])
        x = torch.cat([x[:, :1], every.scatter(1, places, x[:, 1:])], dim=1)
        x = x + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x[:, 1:]))

    def assemble(
        self, patches: Float[Tensor, "batch patch value"]
    ) -> Float[Tensor, "batch channel *space"]:
        """Assemble images from patches of predicted values."""
        return unpatchify(patches, self.grid, self.patch_size)
