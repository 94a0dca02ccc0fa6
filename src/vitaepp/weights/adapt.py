"""Starting weights: checkpoints that exist, read without running their code and made to fit.

Meta's MAE, timm and Hugging Face vision transformers, the checkpoints that were released with the
ViT-AE++ paper, and this library's own runs become weights of this recipe's encoder and decoder.
Three things are adapted, each so that what the kernels and positions meant stays: the input
channels, the patch (in size, and from two axes to three), and the grid of positions. Everything
else has to fit, or is refused.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitaepp.errors import RunError
from vitaepp.nn.autoencoder import MaskedAutoencoder
from vitaepp.nn.positions import axis_widths, sincos_positions
from vitaepp.nn.transformer import SIZES, Attention, VisionTransformer
from vitaepp.system.progress import say
from vitaepp.system.text import dimensions
from vitaepp.weights.names import find, mae_names
from vitaepp.weights.read import FOREIGN, HEADS, MARKERS, Checkpoint, read_checkpoint


def initialize_from(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Start an encoder, and its decoder where it has one, from weights that exist.

    Says in one line what was loaded, what was adapted, and what starts fresh.

    Args:
        module: a method's encoder. A `VisionTransformer` or `MaskedAutoencoder` takes every format
            of this module; anything else takes tensors of its own names and shapes.
        path: run folder, encoder folder, Hugging Face folder, or checkpoint file.

    Raises:
        RunError: there are no such weights, or they cannot be made to fit.
    """
    checkpoint = read_checkpoint(path)
    try:
        if isinstance(module, VisionTransformer):
            state, notes = adapt(checkpoint, module)
        else:
            state, notes = match(checkpoint.models, module.state_dict())
    except RunError as error:
        raise RunError(f"model.init={path}: {error}") from None
    module.load_state_dict(module.state_dict() | state)
    say(f"model.init={path}: " + "; ".join(notes))


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
    container, prefix = find(models, [next(iter(own))])
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
    left = _heads(name for name in given if name not in own)
    notes = ["encoder loaded"] + [f"left out: {', '.join(left)}"] * bool(left)
    return {name: given[name] for name in own if name in given}, notes


def adapt(checkpoint: Checkpoint, model: VisionTransformer) -> tuple[dict[str, Tensor], list[str]]:
    """Weights of a checkpoint as those of `model`.

    Returns:
        What to load into the model, and what to say.

    Raises:
        RunError: they cannot be made to fit, naming the settings that would.
    """
    container, prefix = find(checkpoint.models, MARKERS)
    given = mae_names(checkpoint.models[container], prefix)
    notes: list[str] = []
    if "norm.weight" not in given and "fc_norm.weight" in given:
        # MAE's fine-tuning pools first and normalises then; the same scale is the best start.
        given |= {f"norm.{kind}": given.pop(f"fc_norm.{kind}") for kind in ("weight", "bias")}
        notes.append("norm from fc_norm, which came after pooling")
    own = model.state_dict()
    decoder = [name for name in own if name.startswith(("decoder_", "mask_token"))]
    encoder = [name for name in own if name not in decoder]
    _check_encoder(given, model, checkpoint)
    kernel, more = fit_kernel(
        given["patch_embed.proj.weight"], own["patch_embed.proj.weight"].shape
    )
    notes += more
    state = {"patch_embed.proj.weight": kernel}
    ndim = given["patch_embed.proj.weight"].ndim - 2
    state |= {n: given[n] for n in encoder if n in given and n not in ("pos_embed", *state)}
    if "pos_embed" in given:
        state["pos_embed"], how = fit_positions(
            given["pos_embed"], ndim, checkpoint.grid, model.grid
        )
        notes += [f"positions {how}"] * bool(how)
    else:
        notes.append("positions of sines and cosines, because the file has none")
    _check_shapes(state, {name: own[name] for name in encoder if name != "pos_embed"})
    loaded = "encoder loaded"
    if isinstance(model, MaskedAutoencoder):
        part, why = _decoder(given, own, decoder, checkpoint, model)
        state |= part
        fresh = [why] if not part else [n for n in ("decoder_pred",) if f"{n}.weight" not in part]
        loaded = "encoder and decoder loaded" if part else loaded
        notes += [f"starts fresh: {', '.join(fresh)}"] * bool(fresh)
    left = _heads(name for name in given if name not in own)
    notes += [f"left out: {', '.join(left)}"] * bool(left)
    return state, [loaded, *notes]


def fit_kernel(
    kernel: Float[Tensor, "dim channel *patch"], shape: Sequence[int]
) -> tuple[Float[Tensor, "dim other *size"], list[str]]:
    """A patch embedding's kernel for other channels, another patch, and for volumes.

    Args:
        kernel: weight of the convolution, with two or three spatial axes.
        shape: the one that is wanted.

    Returns:
        The kernel, and what was done to it.

    Raises:
        RunError: it is of volumes, and images are wanted.
    """
    notes = []
    channels, patch = shape[1], tuple(shape[2:])
    if kernel.ndim > len(shape):
        raise RunError(
            f"patch_embed.proj.weight is of shape {dimensions(kernel.shape)}, for volumes, "
            "but the store's images have 2 axes; prepare volumes, or start from a model of images"
        )
    if kernel.shape[1] != channels:
        notes.append(f"{kernel.shape[1]} channels adapted to {channels}")
        kernel = fit_channels(kernel, channels)
    plane = patch[: kernel.ndim - 2]
    if tuple(kernel.shape[2:]) != plane:
        notes.append(f"patches of {dimensions(kernel.shape[2:])} resized to {dimensions(plane)}")
        kernel = resize_kernel(kernel, plane)
    if kernel.ndim < len(shape):
        notes.append("inflated to volumes along the last axis")
        kernel = resize_kernel(kernel[..., None], patch)
    return kernel, notes


def fit_channels(
    kernel: Float[Tensor, "dim channel *patch"], channels: int
) -> Float[Tensor, "dim other *patch"]:
    """The kernel for another number of channels: its mean over them, scaled, for each.

    An image whose channels are all equal gets the same embedding as before, as a grey image that
    is given as RGB. Each new channel's kernel is the sum of the old ones over the new number.

    Args:
        kernel: weight of the patch embedding.
        channels: how many are wanted.
    """
    total = kernel.sum(dim=1, keepdim=True) / channels
    return total.expand(-1, channels, *kernel.shape[2:]).contiguous()


def resize_kernel(
    kernel: Float[Tensor, "dim channel *patch"], patch_size: Sequence[int]
) -> Float[Tensor, "dim channel *size"]:
    """The kernel for another patch size: it answers to a resized patch as the old one did.

    With `B` the matrix that resizes a patch (`area_resize`), the new kernel is `pinv(Bᵀ) w`: for
    larger patches `⟨new, B x⟩ = ⟨w, x⟩` for every patch `x`; for smaller ones as nearly as can be,
    and exactly where `x` is what `B` can tell (so for 16 to 8, wherever each 2 × 2 is equal: then
    the new kernel is the old one summed over 2 × 2). Constant patches always keep their embedding.
    Along an axis of one voxel that grows to `n`, this is the old kernel divided by `n`.

    Args:
        kernel: weight of the patch embedding.
        patch_size: voxels per axis that are wanted.

    Source:
        Beyer et al. 2023, FlexiViT, section 3.4; they resize bilinearly.
    """
    resized = kernel.double()
    for axis, size in enumerate(patch_size, start=2):
        if size != kernel.shape[axis]:
            solve = torch.linalg.pinv(area_resize(kernel.shape[axis], size)).T
            resized = (resized.movedim(axis, -1) @ solve.T).movedim(-1, axis)
    return resized.to(kernel.dtype).contiguous()


def area_resize(old: int, new: int) -> Float[Tensor, "new old"]:
    """Matrix that resizes a line of voxels: each new one is the mean over what it covers.

    >>> area_resize(4, 2).tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    edges = torch.arange(new + 1, dtype=torch.float64)[:, None] * old / new
    voxels = torch.arange(old, dtype=torch.float64)
    covered = torch.minimum(edges[1:], voxels + 1) - torch.maximum(edges[:-1], voxels)
    return covered.clamp(min=0) * new / old


def fit_positions(
    table: Float[Tensor, "1 row dim"],
    ndim: int,
    known: tuple[int, ...] | None,
    wanted: tuple[int, ...],
) -> tuple[Float[Tensor, "1 token dim"], str]:
    """A position table for another grid of patches.

    A table of the wanted grid is kept as it is, whatever is in it. Otherwise a sine-cosine table is
    computed anew in the layout it has, and a learned one is interpolated (bicubic in 2D, linear in
    3D); a table of images becomes this library's own for volumes. The CLS token keeps its row.

    Args:
        table: rows of the patches in row-major order, after that of the CLS token, or alone.
        ndim: axes of the table's grid.
        known: its grid, where a config tells.
        wanted: grid of the model.

    Returns:
        The table, and what was done to it; nothing for one that was kept.

    Raises:
        RunError: no telling what grid it has.
    """
    rows, dim = table.shape[1:]
    candidates = list(_grids(rows, ndim, known, wanted))
    if not candidates:
        raise RunError(
            f"pos_embed has {rows} rows, which no {'square' if ndim == 2 else 'cubic'} grid of "
            "patches has; it can start a model of the same grid only"
        )
    layouts = {found: sincos_layout(table[0, found[1] :], found[0]) for found in candidates}
    # A grid on which the table turns out to be sines and cosines is surely its own.
    grid, first = next((f for f in candidates if layouts[f]), candidates[0])
    layout = layouts[grid, first]
    cls = table[:, :1] if first else table.new_zeros(1, 1, dim)
    patches = table[:, first:]
    if grid == wanted:
        return torch.cat([cls, patches], dim=1), ""
    if len(grid) < len(wanted):
        volume = sincos_positions(wanted, dim)[None, 1:].to(table)
        return torch.cat([cls, volume], dim=1), f"computed anew for {dimensions(wanted)} patches"
    change = f"from {dimensions(grid)} to {dimensions(wanted)} patches"
    if layout:
        computed = sincos_positions(wanted, dim, *layout)[None, 1:].to(table)
        return torch.cat([cls, computed], dim=1), f"computed anew {change}"
    spread = patches.float().transpose(1, 2).unflatten(2, grid)
    mode = "bicubic" if ndim == 2 else "trilinear"
    spread = F.interpolate(spread, size=wanted, mode=mode, align_corners=False)
    learned = spread.flatten(2).transpose(1, 2).to(table)
    return torch.cat([cls, learned], dim=1), f"interpolated {change}"


def sincos_layout(
    table: Float[Tensor, "patch dim"], grid: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """How a sine-cosine table splits its features over the axes; nothing for another table.

    MAE in 2D takes the last axis first. The 3D tables released with ViT-AE++ take the second axis
    first, then the first, then the last, which gets the features that are left over.

    Args:
        table: rows of the patches.
        grid: patches per axis.

    Returns:
        `order` and `widths` of `sincos_positions`.
    """
    dim = table.shape[1]
    if dim % 2 or dim < 2 * len(grid) or table.abs().max() > 1.01:
        return None
    widths = axis_widths(dim, len(grid))
    for order in permutations(reversed(range(len(grid)))):
        for split in dict.fromkeys((widths, widths[::-1])):
            computed = sincos_positions(grid, dim, order, split)[1:]
            if torch.allclose(computed, table.float(), atol=5e-3, rtol=0):  # may be half precision
                return order, split
    return None


def _grids(
    rows: int, ndim: int, known: tuple[int, ...] | None, wanted: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], int]]:
    """Grids that a table of so many rows may have, each with its rows before the patches.

    Without a config, published models have as many patches along every axis.
    """
    for first in (1, 0):
        side = round(max(rows - first, 0) ** (1 / ndim))
        for grid in (known, (side,) * ndim, wanted):
            if grid is not None and len(grid) == ndim and math.prod(grid) == rows - first > 0:
                yield grid, first


def _check_encoder(
    given: Mapping[str, Tensor], model: VisionTransformer, checkpoint: Checkpoint
) -> None:
    """Refuse what is another architecture, or another size of this one."""
    kernel = given["patch_embed.proj.weight"]
    own = model.state_dict()
    known = {re.sub(r"\.\d+\.", ".0.", name) for name in own}
    known |= {name.replace("blocks.", "decoder_blocks.") for name in known}
    parts = ("blocks.", "decoder_blocks.", "patch_embed.", *FOREIGN)
    for name, tensor in given.items():
        mask = name == "embeddings.mask_token"  # SimMIM's, which plays no part outside of it
        if name.startswith(parts) and re.sub(r"\.\d+\.", ".0.", name) not in known and not mask:
            raise RunError(
                f"{name} {dimensions(tensor.shape)} belongs to an architecture that differs from "
                "this one; start from a plain vision transformer (ViT, DeiT, MAE)"
            )
    width, depth = len(kernel), _depth(given, "blocks")
    wide, deep = own["cls_token"].shape[-1], len(model.blocks)
    heads = checkpoint.num_heads or HEADS.get((width, depth))
    if (width, depth) != (wide, deep):
        names = {shape[:2]: name for name, shape in SIZES.items()}
        fitting = f"model.embed_dim={width} model.depth={depth}"
        fitting += f" model.num_heads={heads}" * bool(heads)
        if (width, depth) in names and (wide, deep) in names:
            fitting = f"model.size={names[width, depth]}"
        raise RunError(
            f"blocks are {width} wide and {depth} deep (patch_embed.proj.weight is "
            f"{dimensions(kernel.shape)}), this recipe's {wide} wide and {deep} deep; set {fitting}"
        )
    has = _num_heads(model.blocks)
    if checkpoint.num_heads not in (None, has):
        raise RunError(
            f"attention has {checkpoint.num_heads} heads by its config, this recipe's {has}; "
            f"set model.num_heads={checkpoint.num_heads}"
        )
    if checkpoint.activation not in (None, "gelu"):
        raise RunError(f"hidden_act is {checkpoint.activation} by its config; only gelu fits")


def _check_shapes(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
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


def _decoder(
    given: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    names: Sequence[str],
    checkpoint: Checkpoint,
    model: MaskedAutoencoder,
) -> tuple[dict[str, Tensor], str]:
    """The decoder's weights, or nothing and why; without its last layer where patches differ."""
    if "decoder_embed.weight" not in given:
        return {}, "decoder"
    found = (len(given["decoder_embed.weight"]), _depth(given, "decoder_blocks"))
    wanted = (len(own["decoder_embed.weight"]), len(model.decoder_blocks))
    if found != wanted:
        return {}, (
            f"decoder (the file's is {found[0]} wide and {found[1]} deep; it loads with "
            f"model.decoder_embed_dim={found[0]} model.decoder_depth={found[1]})"
        )
    has = _num_heads(model.decoder_blocks)
    if checkpoint.decoder_num_heads not in (None, has):
        raise RunError(
            f"the decoder has {checkpoint.decoder_num_heads} heads by its config, this recipe's "
            f"{has}; set model.decoder_num_heads={checkpoint.decoder_num_heads}"
        )
    # As many values may be other channels and another patch.
    kernel = "patch_embed.proj.weight"
    same = given[kernel].shape == own[kernel].shape
    computed = ("decoder_pos_embed",) + ("decoder_pred.weight", "decoder_pred.bias") * (not same)
    part = {name: given[name] for name in names if name in given and name not in computed}
    _check_shapes(part, {name: own[name] for name in names if name not in computed})
    if "decoder_pos_embed" in given:
        ndim = given[kernel].ndim - 2
        part["decoder_pos_embed"], _ = fit_positions(
            given["decoder_pos_embed"], ndim, checkpoint.grid, model.grid
        )
    return part, ""


def _num_heads(blocks: nn.ModuleList) -> int:
    return next(part.num_heads for part in blocks.modules() if isinstance(part, Attention))


def _depth(given: Mapping[str, Tensor], blocks: str) -> int:
    return len({name.split(".")[1] for name in given if name.startswith(f"{blocks}.")})


def _heads(names: Iterator[str]) -> list[str]:
    return sorted({re.sub(r"^(decoder_.*|mask_token)", "decoder", n.split(".")[0]) for n in names})
