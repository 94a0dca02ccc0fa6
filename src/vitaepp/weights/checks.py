"""Whether the weights of a checkpoint can be those of a model, or which settings would let them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from vitaepp.errors import RunError
from vitaepp.nn.autoencoder import MaskedAutoencoder
from vitaepp.nn.transformer import SIZES, Attention, VisionTransformer
from vitaepp.system.text import dimensions
from vitaepp.weights.read import FOREIGN, HEADS, Checkpoint

#: The weight of the patch embedding, a convolution of two or three axes.
KERNEL = "patch_embed.proj.weight"


def check_architecture(
    given: Mapping[str, Tensor], model: VisionTransformer, checkpoint: Checkpoint
) -> None:
    """Refuse another architecture, or another size of this one.

    Args:
        given: tensors of the checkpoint by MAE's names.
        model: what they are wanted for.
        checkpoint: what else it says about itself.

    Raises:
        RunError: naming the settings that would fit, where there are any.
    """
    _check_names(given, model)
    _check_size(given, model, checkpoint)
    heads = _num_heads(model.blocks)
    if checkpoint.num_heads not in (None, heads):
        raise RunError(
            f"attention has {checkpoint.num_heads} heads by its config, this recipe's {heads}; "
            f"set model.num_heads={checkpoint.num_heads}"
        )
    if checkpoint.activation not in (None, "gelu"):
        raise RunError(f"hidden_act is {checkpoint.activation} by its config; only gelu fits")


def _check_names(given: Mapping[str, Tensor], model: VisionTransformer) -> None:
    """Refuse tensors that this architecture does not have."""
    known = {_first_block(name) for name in model.state_dict()}
    known |= {name.replace("blocks.", "decoder_blocks.") for name in known}
    known.add("embeddings.mask_token")  # SimMIM's, which plays no part outside of it
    parts = ("blocks.", "decoder_blocks.", "patch_embed.", *FOREIGN)
    for name, tensor in given.items():
        if name.startswith(parts) and _first_block(name) not in known:
            raise RunError(
                f"{name} {dimensions(tensor.shape)} belongs to an architecture that differs from "
                "this one; take a plain vision transformer (ViT, DeiT, DINO, DINOv2, MAE)"
            )


def _check_size(
    given: Mapping[str, Tensor], model: VisionTransformer, checkpoint: Checkpoint
) -> None:
    """Refuse another width or depth."""
    size = (len(given[KERNEL]), depth_of(given, "blocks"))
    own = (model.cls_token.shape[-1], len(model.blocks))
    if size == own:
        return
    names = {shape[:2]: name for name, shape in SIZES.items()}
    heads = checkpoint.num_heads or HEADS.get(size)
    fitting = f"model.embed_dim={size[0]} model.depth={size[1]}"
    fitting += f" model.num_heads={heads}" if heads else ""
    if size in names and own in names:
        fitting = f"model.size={names[size]}"
    raise RunError(
        f"blocks are {size[0]} wide and {size[1]} deep ({KERNEL} is "
        f"{dimensions(given[KERNEL].shape)}), this recipe's {own[0]} wide and {own[1]} deep; "
        f"set {fitting}"
    )


def check_decoder_heads(model: MaskedAutoencoder, checkpoint: Checkpoint) -> None:
    """Refuse a decoder with another number of attention heads.

    Raises:
        RunError: naming the setting that would fit.
    """
    heads = _num_heads(model.decoder_blocks)
    if checkpoint.decoder_num_heads not in (None, heads):
        raise RunError(
            f"the decoder has {checkpoint.decoder_num_heads} heads by its config, this recipe's "
            f"{heads}; set model.decoder_num_heads={checkpoint.decoder_num_heads}"
        )


def check_shapes(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse weights of which some are missing or of another shape.

    Args:
        state: what is to be loaded.
        own: tensors of the model that must be among them.

    Raises:
        RunError: naming the first.
    """
    missing = [name for name in own if name not in state]
    if missing:
        more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
        raise RunError(f"{missing[0]}{more} missing; this is no whole vision transformer")
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            raise RunError(
                f"{name} is of shape {dimensions(state[name].shape)}, this model's is "
                f"{dimensions(tensor.shape)}, and no setting changes that"
            )


def depth_of(given: Mapping[str, Tensor], blocks: str) -> int:
    """How many blocks there are whose names begin so."""
    return len({name.split(".")[1] for name in given if name.startswith(f"{blocks}.")})


def _first_block(name: str) -> str:
    """The name that the same tensor has in the first block."""
    return re.sub(r"\.\d+\.", ".0.", name)


def _num_heads(blocks: nn.ModuleList) -> int:
    return next(part.num_heads for part in blocks.modules() if isinstance(part, Attention))
