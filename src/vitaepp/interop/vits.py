"""Encoders as vision transformers of other libraries, with the names and settings that those have.

Each is the whole network, up to its last norm. It takes standardised images, `(batch, channel,
*space)`: a store's intensities over 255, then z-scored as `views.normalize` of the recipe says. A
channel that is 0 throughout, which is a missing modality, or that has no deviation, is 0 then.
Features are pooled from its tokens. How, and how scans are prepared, is in the metadata or config,
under `vitaepp`.

Names and settings were compared with transformers 4.45 and 5.23, timm 1.0.31 and MONAI 1.6.1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from vitaepp.data.storeinfo import RGB
from vitaepp.encoder.config import EncoderConfig
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RunError
from vitaepp.methods import Method
from vitaepp.nn.autoencoder import MaskedAutoencoder
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.system.files import write_json
from vitaepp.system.progress import say
from vitaepp.system.text import dimensions
from vitaepp.weights.adapt import num_heads
from vitaepp.weights.names import hugging_face_names

#: Of every norm in this library.
EPS = 1e-6

#: The only ViT that MONAI's UNETR takes.
UNETR_BLOCKS, UNETR_PATCH = 12, 16


def preprocessing(config: EncoderConfig) -> str:
    """What must be done to scans, and what the encoder is, as JSON."""
    return json.dumps(asdict(config))


def write_transformers(encoder: Encoder, folder: Path) -> None:
    """A folder that transformers loads as `ViTModel`; its pooler hands on the CLS token.

    Raises:
        RunError: no vision transformer, or one of volumes.
    """
    vit = _vit(encoder.backbone, "transformers", images=True)
    dim = vit.embed_dim
    config = _transformers_config(vit, encoder.config) | {
        "model_type": "vit",
        "architectures": ["ViTModel"],
        "pooler_act": "linear",
    }
    pooler = {"pooler.dense.weight": torch.eye(dim), "pooler.dense.bias": torch.zeros(dim)}
    _write_folder(folder, config, hugging_face_names(vit.state_dict()) | pooler, encoder.config)


def write_mae(source: tuple[Method, EncoderConfig], folder: Path) -> None:
    """A folder that transformers loads as `ViTMAEForPreTraining`, with the decoder.

    Args:
        source: the whole model of a run.
        folder: to make.

    Raises:
        RunError: no masked autoencoder with square images and patches.
    """
    method, known = source
    mae = _vit(method.backbone, "transformers", images=True)
    if not isinstance(mae, MaskedAutoencoder):
        raise RunError(
            f"{method.recipe.method}: this run has no decoder, which transformers-mae needs; "
            "export the encoder to transformers"
        )
    image, patch = known.shape["image_size"], mae.patch_size
    if len(set(image)) > 1 or len(set(patch)) > 1:
        raise RunError(
            f"images of {dimensions(image)} with patches of {dimensions(patch)}: ViTMAE of "
            "transformers takes squares; export the encoder to transformers"
        )
    decoder = mae.decoder_blocks[0]
    config = _transformers_config(mae, known) | {
        "model_type": "vit_mae",
        "architectures": ["ViTMAEForPreTraining"],
        "decoder_hidden_size": mae.mask_token.shape[-1],
        "decoder_num_hidden_layers": len(mae.decoder_blocks),
        "decoder_num_attention_heads": num_heads(decoder),
        "decoder_intermediate_size": _hidden(decoder),
        "mask_ratio": method.recipe.model.mask_ratio,
        "norm_pix_loss": method.recipe.loss.reconstruction.normalize_targets,
    }
    _write_folder(folder, config, hugging_face_names(mae.state_dict()), known)


def write_timm(encoder: Encoder, file: Path) -> None:
    """A file of tensors for `timm.models.VisionTransformer`, whose arguments are in its metadata.

    Raises:
        RunError: no vision transformer, or one of volumes.
    """
    vit = _vit(encoder.backbone, "timm", images=True)
    shape = encoder.config.shape
    arguments = {
        "img_size": shape["image_size"],
        "patch_size": vit.patch_size,
        "in_chans": shape["in_channels"],
        "num_classes": 0,
        "embed_dim": vit.embed_dim,
        "depth": len(vit.blocks),
        "num_heads": shape["num_heads"],
    }
    metadata = {"timm": json.dumps(arguments), "vitaepp": preprocessing(encoder.config)}
    file.write_bytes(save(_whole(vit.state_dict()), metadata))  # timm's names are MAE's


def write_monai(encoder: Encoder, folder: Path) -> None:
    """A MONAI bundle whose `network` is MONAI's `ViT`, and that of a `UNETR` where the shape fits.

    MONAI's ViT has a CLS token with a classifier only. The classifier here hands on the token.

    Raises:
        RunError: no vision transformer.
    """
    vit = _vit(encoder.backbone, "monai")
    shape, dim, ndim = encoder.config.shape, vit.embed_dim, len(vit.patch_size)
    arguments = {
        "in_channels": shape["in_channels"],
        "img_size": shape["image_size"],
        "hidden_size": dim,
        "mlp_dim": _hidden(vit.blocks[0]),
        "num_heads": shape["num_heads"],
        "proj_type": "conv",
        "spatial_dims": ndim,
        "qkv_bias": True,
    }
    network = arguments | {
        "patch_size": vit.patch_size,
        "num_layers": len(vit.blocks),
        "pos_embed_type": "learnable",
        "classification": True,
        "num_classes": dim,
        "post_activation": "none",
    }
    (folder / "models").mkdir(parents=True)
    torch.save(_monai_state(vit, network), folder / "models" / "model.pt")
    write_json(folder / "configs" / "metadata.json", _monai_metadata(encoder.config, dim))
    load = "$@network_def.load_state_dict({})"
    inference = _monai_config("ViT", network, load.format("@state"))
    write_json(folder / "configs" / "inference.json", inference)
    if len(vit.blocks) == UNETR_BLOCKS and set(vit.patch_size) == {UNETR_PATCH}:
        # UNETR has no CLS token.
        of_images = "{k: v for k, v in @state.items() if not k.startswith('cl')}"
        load = load.replace("network_def", "network_def.vit").format(of_images)
        unetr = _monai_config("UNETR", arguments | {"out_channels": 2}, load)
        write_json(folder / "configs" / "unetr.json", unetr)


def _monai_state(vit: VisionTransformer, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    from monai.networks.nets.vit import ViT

    own = _whole(vit.state_dict())
    positions, cls = own.pop("pos_embed"), own.pop("cls_token")
    named = {_monai_name(name): tensor for name, tensor in own.items()}
    named |= {
        "patch_embedding.position_embeddings": positions[:, 1:].contiguous(),
        "cls_token": cls + positions[:, :1],
        "classification_head.weight": torch.eye(vit.embed_dim),
        "classification_head.bias": torch.zeros(vit.embed_dim),
    }
    # Its blocks have tensors for a cross-attention that they do not compute.
    return _whole(ViT(**arguments).state_dict()) | named


def _monai_name(name: str) -> str:
    for own, theirs in (
        ("patch_embed.proj", "patch_embedding.patch_embeddings"),
        (".attn.proj.", ".attn.out_proj."),
        (".mlp.fc", ".mlp.linear"),
    ):
        name = name.replace(own, theirs)
    return name


def _monai_config(name: str, arguments: Mapping[str, Any], load: str) -> dict[str, Any]:
    """A bundle's config: `network_def` without weights, `network` with them."""
    every = "for m in @architecture.modules() if isinstance(m, torch.nn.LayerNorm)"
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "device": "cpu",
        "architecture": {"_target_": f"monai.networks.nets.{name}", **arguments},
        # MONAI's own is 1e-5, and no argument changes it.
        "network_def": f"$([setattr(m, 'eps', {EPS}) {every}], @architecture)[1]",
        "state": "$torch.load(@bundle_root + '/models/model.pt', weights_only=True)",
        "load": load,
        "network": "$(@load, @network_def.to(@device).eval())[1]",
    }


def _monai_metadata(known: EncoderConfig, dim: int) -> dict[str, Any]:
    channels = {str(i): name for i, name in enumerate(known.modalities)}
    image = {
        "type": "image",
        "format": "magnitude",
        "num_channels": len(channels),
        "spatial_shape": known.shape["image_size"],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": channels,
    }
    features = {"type": "feature", "num_channels": dim, "dtype": "float32", "value_range": []}
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": "written by vitaepp"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {},
        "task": "features of images",
        "description": f"Encoder of {', '.join(known.modalities)} ({known.name or known.method}). "
        "It takes z-scored images and gives the CLS token, and the tokens after each block.",
        "authors": "",
        "copyright": "",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": features}},
        "vitaepp": asdict(known),
    }


def _vit(backbone: nn.Module, library: str, images: bool = False) -> VisionTransformer:
    if not isinstance(backbone, VisionTransformer):
        raise RunError(
            f"a {type(backbone).__name__} is no vision transformer, as which {library} would take "
            "it; export it to onnx, torchscript or torch-export"
        )
    if images and len(backbone.patch_size) != 2:
        raise RunError(
            f"an encoder of volumes, with patches of {dimensions(backbone.patch_size)}: the vision "
            f"transformers of {library} take 2D images; export it to monai"
        )
    return backbone


def _transformers_config(vit: VisionTransformer, known: EncoderConfig) -> dict[str, Any]:
    shape = known.shape
    return {
        "hidden_size": vit.embed_dim,
        "num_hidden_layers": len(vit.blocks),
        "num_attention_heads": shape["num_heads"],
        "intermediate_size": _hidden(vit.blocks[0]),
        "hidden_act": "gelu",
        "layer_norm_eps": EPS,
        "image_size": _side(shape["image_size"]),
        "patch_size": _side(vit.patch_size),
        "num_channels": shape["in_channels"],
        "qkv_bias": True,
        "vitaepp": asdict(known),
    }


def _write_folder(
    folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], known: EncoderConfig
) -> None:
    folder.mkdir()
    write_json(folder / "config.json", config)
    if known.normalize == "cohort" and known.cohort is not None:
        _write_processor(folder / "preprocessor_config.json", known, *known.cohort)
    (folder / "model.safetensors").write_bytes(save(_whole(state), {"format": "pt"}))


def _write_processor(
    file: Path, known: EncoderConfig, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Write what z-scores by the cohort in transformers, which gives all of a channel one formula.

    It is said where this is not what the encoder takes.
    """
    if flat := [name for name, one in zip(known.modalities, std, strict=True) if not one]:
        say(
            f"no {file.name}: the deviation of {', '.join(flat)} is 0 over the cohort, by which "
            "transformers would divide; z-score the other channels, and set such a channel to 0"
        )
        return
    if len(known.modalities) > 1 and known.modalities != RGB:
        say(
            f"{file.name} does not know missing modalities: where an image lacks one, set its "
            "channel of `pixel_values` to 0"
        )
    # Its size is not changed: images are to be prepared as those of the training were.
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
    write_json(file, processor)


def _whole(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, as safetensors wants them."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _side(sizes: tuple[int, ...]) -> int | list[int]:
    return sizes[0] if len(set(sizes)) == 1 else list(sizes)


def _hidden(block: nn.Module) -> int:
    return len(block.get_parameter("mlp.fc1.weight"))
