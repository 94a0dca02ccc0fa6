"""Reads checkpoints of other libraries: their tensors, and what their config says of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from vitaepp.data.storeinfo import StoreInfo
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RecipeError, RunError, WeightsError, one_line
from vitaepp.methods import backbone_shape
from vitaepp.nn.autoencoder import DECODERS
from vitaepp.nn.transformer import SIZES
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.files import read_json
from vitaepp.system.tensors import SUFFIXES, read_tensors
from vitaepp.system.text import first_few

#: Names of one tensor that every vision transformer has: MAE's and timm's, and Hugging Face's.
MARKERS = ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight")


#: Where training scripts keep a model's tensors, the likeliest first.
CONTAINERS = ("", "model", "state_dict", "model_state_dict", "module", "net")


#: Heads of the sizes that have names, and of MAE's huge model, by width and depth.
HEADS = {(width, depth): heads for width, depth, heads in SIZES.values()} | {(1280, 32): 16}


#: Parts that change what an encoder computes and that this one does not have.
FOREIGN = ("norm_pre", "reg_token", "register_tokens", "dist_token", "rope", "embeddings.")


class Checkpoint(NamedTuple):
    """What a file or folder holds.

    Attributes:
        models: tensors by name, of each model that is in it, by the container's name.
        num_heads: of the encoder, where a config tells.
        decoder_num_heads: of the decoder, where a config tells.
        grid: patches per axis, where a config tells.
        activation: of the MLPs, where a config tells.
        epsilon: of the layer norms, where a config tells.
        modalities: what the channels are, of one of our own encoders; empty for others.
        prepared: how the images of its training were prepared, where it tells.
        normalize: how they were z-scored, `views.normalize`, where it tells.
    """

    models: dict[str, dict[str, Tensor]]
    num_heads: int | None = None
    decoder_num_heads: int | None = None
    grid: tuple[int, ...] | None = None
    activation: str | None = None
    epsilon: float | None = None
    modalities: tuple[str, ...] = ()
    prepared: StoreInfo | None = None
    normalize: str | None = None


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read weights from a file or folder; no code that may be in it is run.

    Raises:
        RunError: nothing is there, or nothing that can be read.
    """
    source = Path(path)
    try:
        if not source.exists():
            raise RunError(
                "no such file or folder; give a checkpoint file, a Hugging Face folder, or a run"
            )
        if source.is_dir() and ((source / "recipe.yaml").is_file() or "shape" in _config(source)):
            encoder = Encoder.from_pretrained(source)
            facts = _own_facts(vars(encoder.config))
            return Checkpoint({"": encoder.backbone.state_dict()}, **facts)
        file = _weights_in(source) if source.is_dir() else source
        values = _tensors_of(file)
        has_config = source.is_dir() or file.name in ("model.safetensors", "pytorch_model.bin")
        facts = _facts(values, _config(file.parent) if has_config else {})
    except (RunError, WeightsError) as error:
        raise RunError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    return Checkpoint(_models(values), **facts)


def _weights_in(folder: Path) -> Path:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    files = sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES and f.is_file())
    if len(files) == 1:
        return files[0]
    if not files:
        raise RunError(
            f"no weights in this folder; looked for model.safetensors, *{', *'.join(SUFFIXES)}"
        )
    names = first_few([file.name for file in files])
    raise RunError(f"{len(files)} weight files in this folder ({names}); name one of them")


def _tensors_of(file: Path) -> dict[Any, Any]:
    # MAE's scripts, and all that came from them, keep their arguments: plain data.
    values = read_tensors(file, plain_types=[argparse.Namespace])
    if not isinstance(values, Mapping):
        raise RunError(f"holds a {type(values).__name__}; save a model's state_dict() instead")
    return dict(values)


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        return {}
    try:
        values = read_json(file)
    except ValueError as error:
        raise RunError(f"{file.name} is not JSON: {one_line(error)}") from None
    return values if isinstance(values, dict) else {}


def _facts(values: Mapping[Any, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    own = values.get("vitaepp")
    if isinstance(own, Mapping) and {"recipe", "modalities", "image_size"} <= own.keys():
        try:
            recipe = Recipe.of_run(own["recipe"], "its recipe")
        except RecipeError:
            raise RunError("made by another version of vitaepp") from None
        shape = backbone_shape(recipe, len(own["modalities"]), own["image_size"])
        return _own_facts({**own, "normalize": recipe.views.normalize, "shape": shape}) | {
            "decoder_num_heads": recipe.model.decoder_num_heads or DECODERS[recipe.model.size][2]
        }
    if isinstance(config.get("shape"), Mapping):
        return _own_facts(config)
    image, patch = (_pair(config.get(name)) for name in ("image_size", "patch_size"))
    grid = tuple(i // p for i, p in zip(image, patch, strict=False))
    of_timm = config.get("model_args") or {}
    quick = "quick_gelu" if "quickgelu" in str(config.get("architecture")) else None
    return {
        "num_heads": config.get("num_attention_heads") or of_timm.get("num_heads"),
        "decoder_num_heads": config.get("decoder_num_attention_heads"),
        "grid": grid if image and patch else None,
        "activation": config.get("hidden_act") or of_timm.get("act_layer") or quick,
        "epsilon": config.get("layer_norm_eps"),
    }


def _own_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What one of our own encoders tells of itself, by the names of `EncoderConfig`."""
    shape, prepared = config["shape"], config.get("prepared")
    try:
        facts = {
            "modalities": tuple(config.get("modalities") or ()),
            "prepared": StoreInfo.parse(prepared) if isinstance(prepared, Mapping) else prepared,
            "normalize": config.get("normalize"),
        }
    except TypeError:
        raise RunError("made by another version of vitaepp") from None
    if not {"num_heads", "image_size", "patch_size"} <= shape.keys():
        return facts  # a ResNet
    sizes = zip(shape["image_size"], shape["patch_size"], strict=True)
    return facts | {"num_heads": shape["num_heads"], "grid": tuple(i // p for i, p in sizes)}


def _pair(value: Any) -> tuple[int, ...]:
    pair = tuple(value) if isinstance(value, list) else (value, value)
    return pair if len(pair) == 2 and all(isinstance(v, int) and v > 0 for v in pair) else ()


def _models(values: Mapping[Any, Any]) -> dict[str, dict[str, Tensor]]:
    """Groups of named tensors, at the top and one level down, the likeliest first."""

    def tensors(group: Mapping[Any, Any]) -> dict[str, Tensor]:
        return {k: v for k, v in group.items() if isinstance(k, str) and isinstance(v, Tensor)}

    groups = {"": tensors(values)}
    groups |= {str(k): tensors(v) for k, v in values.items() if isinstance(v, Mapping)}
    rank = {name: position for position, name in enumerate(CONTAINERS)}
    names = sorted((n for n, group in groups.items() if group), key=lambda n: rank.get(n, 99))
    return {name: groups[name] for name in names}
