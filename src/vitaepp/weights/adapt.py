"""Starting weights: checkpoints that exist, read without running their code and made to fit.

Meta's MAE, timm and Hugging Face vision transformers, the checkpoints that were released with the
ViT-AE++ paper, and this library's own runs become weights of this recipe's encoder and decoder.
Three things are adapted, each so that what the kernels and positions meant stays: the input
channels, the patch (in size, and from two axes to three), and the grid of positions. Everything
else has to fit, or is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from vitaepp.data.storeinfo import StoreInfo, unlike
from vitaepp.encoder.fits import place_channels
from vitaepp.errors import RunError
from vitaepp.nn.autoencoder import MaskedAutoencoder
from vitaepp.nn.transformer import SIZES, Attention, VisionTransformer
from vitaepp.system.progress import say
from vitaepp.system.text import as_typed, dimensions
from vitaepp.weights.names import find, mae_names
from vitaepp.weights.read import FOREIGN, HEADS, MARKERS, Checkpoint, read_checkpoint
from vitaepp.weights.resize import fit_kernel, fit_positions

#: No usual vision transformer adds more to a variance; up to it, features hardly differ.
USUAL_EPSILON = 1e-5

#: The weight of the patch embedding, a convolution of two or three axes.
KERNEL = "patch_embed.proj.weight"

#: The layers of our own networks that have channels of the image: of a transformer and a ResNet,
#: whose blocks have a `conv1` each, and of a decoder.
FIRST_LAYER = re.compile(r"(?:^|(?<!\d)\.)(?:patch_embed\.proj|conv1)\.weight$")
LAST_LAYER = re.compile(r"(?:^|\.)decoder_pred\.(?:weight|bias)$")

#: Beginnings of the names that are the decoder's.
DECODER = ("decoder_", "mask_token")


def initialize_from(
    module: nn.Module,
    path: str | os.PathLike[str],
    info: StoreInfo | None = None,
    normalize: str | None = None,
) -> None:
    """Start an encoder, and its decoder where it has one, from weights that exist.

    Says in one line what was loaded, what was adapted, and what starts fresh; and in another one
    how the images of the weights' training were prepared otherwise, where that is known.

    Args:
        module: a method's encoder. A `VisionTransformer` or `MaskedAutoencoder` takes every format
            of this module; anything else takes tensors of its own names and shapes.
        path: run folder, encoder folder, Hugging Face folder, or checkpoint file.
        info: what the images of the new training are; weights that know their modalities are
            matched with them by name.
        normalize: how these are z-scored, `views.normalize`.

    Raises:
        RunError: there are no such weights, or they cannot be made to fit.
    """
    try:
        checkpoint, channels = by_name(read_checkpoint(path), info.modalities if info else ())
        if isinstance(module, VisionTransformer):
            state, notes = adapt(checkpoint, module)
        else:
            state, notes = match(checkpoint.models, module.state_dict())
    except RunError as error:
        text = str(error).removeprefix(f"{path}: ")
        raise RunError(f"model.init={path}: {text}") from None
    module.load_state_dict(module.state_dict() | state)
    if checkpoint.epsilon is not None and checkpoint.epsilon > USUAL_EPSILON:
        notes.append(f"layer_norm_eps {checkpoint.epsilon:g} of its config is not taken over")
    say(f"model.init={path}: " + "; ".join([*notes, *channels]))
    if info is not None and checkpoint.prepared is not None:
        before = checkpoint.prepared
        differing = unlike(info, before)
        if info.size != before.size:
            differing.append(f"size {as_typed(info.size)} instead of {as_typed(before.size)}")
        if None not in (normalize, checkpoint.normalize) and normalize != checkpoint.normalize:
            differing.append(f"views.normalize={normalize} instead of {checkpoint.normalize}")
        if differing:
            say(f"model.init={path}: the store is prepared unlike its own: {', '.join(differing)}")


def by_name(checkpoint: Checkpoint, modalities: Sequence[str]) -> tuple[Checkpoint, list[str]]:
    """Weights whose channels are those of a store, matched by name; and what to say.

    A modality that the weights do not know starts at zero: its image changes no token at first, and
    its prediction is 0, the mean. One that the store does not have is left out. Weights that do not
    know their modalities, or none of the store's, are returned as they are.

    Args:
        checkpoint: of any kind.
        modalities: of the store.
    """
    have, want = checkpoint.modalities, tuple(modalities)
    if not have or not want or have == want:
        return checkpoint, []
    shared = [name for name in want if name in have]
    if not shared:
        return checkpoint, [
            f"channels in their order, because its modalities ({', '.join(have)}) are none of the "
            f"store's ({', '.join(want)})"
        ]
    models = {
        container: {name: _placed(name, tensor, have, want) for name, tensor in model.items()}
        for container, model in checkpoint.models.items()
    }
    notes = [f"channels by name: {', '.join(shared)}"]
    if new := [name for name in want if name not in have]:
        notes.append(f"new, starting at zero: {', '.join(new)}")
    if gone := [name for name in have if name not in want]:
        notes.append(f"not in the store: {', '.join(gone)}")
    return checkpoint._replace(models=models), notes


def _placed(name: str, tensor: Tensor, have: Sequence[str], want: Sequence[str]) -> Tensor:
    """A tensor with its channels, where it has any, by their names; 0 for those not there."""
    kept = [channel for channel in have if channel in want]
    index = [list(have).index(channel) for channel in kept]
    if FIRST_LAYER.search(name):
        return place_channels(tensor[:, index], kept, want)
    if LAST_LAYER.search(name):  # its outputs are a patch's values, the channel last
        values = tensor.unflatten(0, (-1, len(have)))[:, index]
        return place_channels(values, kept, want).flatten(0, 1)
    return tensor


def match(
    models: Mapping[str, Mapping[str, Tensor]], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors of equal names and shapes, whatever prefix they have in the file.

    Args:
        models: as `Checkpoint` has them.
        own: the encoder's state dict.

    Returns:
        What to load, and what to say.

    Raises:
        RunError: a tensor is missing or of another shape.
    """
    # A ResNet's blocks have a `conv1.weight` each, too.
    unique = (name for name in own if not any(other.endswith(f".{name}") for other in own))
    container, prefix = find(models, [next(unique)])
    given = {
        name.removeprefix(prefix): tensor
        for name, tensor in models[container].items()
        if name.startswith(prefix)
    }
    for name, tensor in own.items():
        if name not in given and name.endswith("num_batches_tracked"):
            continue  # a counter that older versions of torch did not keep
        if name not in given:
            raise RunError(f"{name} is missing; this encoder takes tensors of equal names only")
        if given[name].shape != tensor.shape:
            raise RunError(
                f"{name} is of shape {dimensions(given[name].shape)}, this recipe's encoder has "
                f"{dimensions(tensor.shape)}; set the same model.backbone and prepare as "
                "many modalities"
            )
    state = {name: given[name] for name in own if name in given}
    check_values(state, own)
    return state, ["encoder loaded", *_left_out(given, own)]


def adapt(checkpoint: Checkpoint, model: VisionTransformer) -> tuple[dict[str, Tensor], list[str]]:
    """Weights of a checkpoint as those of `model`.

    Returns:
        What to load into the model, and what to say.

    Raises:
        RunError: they cannot be made to fit, naming the settings that would.
    """
    container, prefix = find(checkpoint.models, MARKERS)
    given = mae_names(checkpoint.models[container], prefix)
    notes = []
    if "norm.weight" not in given and "fc_norm.weight" in given:
        # MAE's fine-tuning pools first and normalises then; the same scale is the best start.
        given |= {f"norm.{kind}": given.pop(f"fc_norm.{kind}") for kind in ("weight", "bias")}
        notes.append("norm from fc_norm, which came after pooling")
    check_architecture(given, model, checkpoint)
    state, changes = _encoder(given, model, checkpoint.grid)
    loaded, notes = "encoder loaded", notes + changes
    if isinstance(model, MaskedAutoencoder):
        decoder, fresh = _decoder(given, model, checkpoint)
        state |= decoder
        loaded = "encoder and decoder loaded" if decoder else loaded
        notes += [f"starts fresh: {fresh}"] * bool(fresh)
    check_values(state, own := model.state_dict())
    return state, [loaded, *notes, *_left_out(given, own)]


def _encoder(
    given: Mapping[str, Tensor], model: VisionTransformer, grid: tuple[int, ...] | None
) -> tuple[dict[str, Tensor], list[str]]:
    """The encoder's weights, and what was changed to make them fit."""
    own = {n: t for n, t in model.state_dict().items() if not n.startswith(DECODER)}
    kernel, notes = fit_kernel(given[KERNEL], own[KERNEL].shape)
    state = {name: given[name] for name in own if name in given} | {KERNEL: kernel}
    if "pos_embed" in given:
        ndim = given[KERNEL].ndim - 2
        state["pos_embed"], change = fit_positions(given["pos_embed"], ndim, grid, model.grid)
        notes += [f"positions {change}"] * bool(change)
    else:
        notes.append("positions of sines and cosines, because the file has none")
    check_shapes(state, {name: own[name] for name in own if name != "pos_embed"})
    return state, notes


def _decoder(
    given: Mapping[str, Tensor], model: MaskedAutoencoder, checkpoint: Checkpoint
) -> tuple[dict[str, Tensor], str]:
    """The decoder's weights, and what of it starts fresh."""
    own = {n: t for n, t in model.state_dict().items() if n.startswith(DECODER)}
    if "decoder_embed.weight" not in given:
        return {}, "decoder"
    size = (len(given["decoder_embed.weight"]), depth_of(given, "decoder_blocks"))
    if size != (len(own["decoder_embed.weight"]), len(model.decoder_blocks)):
        return {}, (
            f"decoder (the file's is {size[0]} wide and {size[1]} deep; it loads with "
            f"model.decoder_embed_dim={size[0]} model.decoder_depth={size[1]})"
        )
    check_decoder_heads(model, checkpoint)
    # Its last layer predicts patches. As many values may be other channels and another patch.
    same_patches = given[KERNEL].shape == model.patch_embed.proj.weight.shape
    last = () if same_patches else ("decoder_pred.weight", "decoder_pred.bias")
    needed = {n: t for n, t in own.items() if n not in ("decoder_pos_embed", *last)}
    state = {name: given[name] for name in needed if name in given}
    check_shapes(state, needed)
    if "decoder_pos_embed" in given:
        state["decoder_pos_embed"], _ = fit_positions(
            given["decoder_pos_embed"], given[KERNEL].ndim - 2, checkpoint.grid, model.grid
        )
    return state, "" if same_patches else "decoder_pred"


def _left_out(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """A note on the tensors that the model has no place for, by their first word; or none."""
    words = (name.split(".")[0] for name in given if name not in own)
    names = sorted({"decoder" if word.startswith(DECODER) else word for word in words})
    return [f"left out: {', '.join(names)}"] if names else []


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
    heads = num_heads(model.blocks)
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
    heads = num_heads(model.decoder_blocks)
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


def check_values(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no weights: quantised ones without their scales, NaN, infinity.

    Args:
        state: what is to be loaded.
        own: tensors of the model.

    Raises:
        RunError: naming the first.
    """
    for name, tensor in state.items():
        if own[name].is_floating_point() and not tensor.is_floating_point():
            raise RunError(
                f"{name} is of type {str(tensor.dtype).removeprefix('torch.')}; save the weights "
                "as floating-point numbers, without quantisation"
            )
        if not bool(tensor.isfinite().all()):
            raise RunError(f"{name} holds NaN or infinity; its training went out of bounds")


def depth_of(given: Mapping[str, Tensor], blocks: str) -> int:
    """How many blocks there are whose names begin so."""
    return len({name.split(".")[1] for name in given if name.startswith(f"{blocks}.")})


def _first_block(name: str) -> str:
    """The name that the same tensor has in the first block."""
    return re.sub(r"\.\d+\.", ".0.", name)


def num_heads(blocks: nn.Module) -> int:
    """How many heads the attention of transformer blocks has."""
    return next(part.num_heads for part in blocks.modules() if isinstance(part, Attention))
