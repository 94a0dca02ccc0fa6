"""Names of weights: those of timm, Hugging Face and others, turned into MAE's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vitaepp.errors import RunError
from vitaepp.weights.read import CONTAINERS

#: Hugging Face's names without their prefix, of transformers 4 and 5, and MAE's.
RENAMED = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"(?:encoder\.layer|layers)\.(\d+)\.", r"blocks.\1."),
    (r"decoder\.(?:decoder_layers|decoder_encoder\.layer)\.(\d+)\.", r"decoder_blocks.\1."),
    (r"decoder\.(decoder_|mask_token)", r"\1"),
    (r"layernorm\.", "norm."),
)


RENAMED_IN_BLOCKS = (
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"attention\.(?:attention\.query|q_proj)\.", "attn.q."),
    (r"attention\.(?:attention\.key|k_proj)\.", "attn.k."),
    (r"attention\.(?:attention\.value|v_proj)\.", "attn.v."),
    (r"attention\.(?:output\.dense|o_proj)\.", "attn.proj."),
    (r"(?:intermediate\.dense|mlp\.fc1)\.", "mlp.fc1."),
    (r"(?:output\.dense|mlp\.fc2)\.", "mlp.fc2."),
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
)

#: MAE's names as Hugging Face's files have them; every version of transformers reads these.
PUBLISHED = (
    (r"(cls_token)", r"embeddings.\1"),
    (r"pos_embed", "embeddings.position_embeddings"),
    (r"patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"blocks\.", "encoder.layer."),
    (r"norm\.", "layernorm."),
    (r"decoder_blocks\.", "decoder.decoder_layers."),
    (r"(decoder_|mask_token)", r"decoder.\1"),
)

PUBLISHED_IN_BLOCKS = (
    (r"norm1", "layernorm_before"),
    (r"norm2", "layernorm_after"),
    (r"attn\.(query|key|value)", r"attention.attention.\1"),
    (r"attn\.proj", "attention.output.dense"),
    (r"mlp\.fc1", "intermediate.dense"),
    (r"mlp\.fc2", "output.dense"),
)


def find(models: Mapping[str, Mapping[str, Tensor]], names: Sequence[str]) -> tuple[str, str]:
    """The container of a model that has a tensor called `[prefix]name`, and that prefix.

    Args:
        models: as `Checkpoint` has them.
        names: of one tensor, as different libraries call it.

    Raises:
        RunError: there is none, or there are several that are equally likely.
    """
    matches = [
        (container, name.removesuffix(end))
        for container, tensors in models.items()
        for name in tensors
        for end in names
        if name == end or name.endswith(f".{end}")
    ]
    # A running average of a model that is trained beside it is not the model itself.
    averages = ("momentum", "ema", "target")
    plain = [
        f for f in matches if not any(word in f"{f[0]}.{f[1]}" for word in averages)
    ] or matches
    if not plain:
        raise RunError(f"none of its tensors is called {' or '.join(names)}, as this encoder's are")
    likeliest = [f for f in plain if f[0] == plain[0][0] and f[0] in CONTAINERS] or plain
    if len(likeliest) > 1:
        called = ", ".join(".".join(filter(None, (c, p.rstrip(".")))) for c, p in likeliest)
        raise RunError(f"several models in it ({called}); save one of them alone")
    return likeliest[0]


def mae_names(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A vision transformer's tensors under MAE's names; others keep theirs.

    Query, key and value become one matrix. A LayerScale (DINOv2) is multiplied into the linear
    layer before it, which computes the same. What has no bias in an attention gets zeros.

    Args:
        tensors: all of a model, in MAE's, timm's or Hugging Face's names.
        prefix: what comes before the names of the encoder.
    """
    root = prefix.removesuffix("vit.")  # Hugging Face's decoder stands beside its encoder
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for start in (prefix, root):
            if name.startswith(start):
                named[_mae_name(name[len(start) :])] = tensor
                break
    for name in list(named):
        block, dot, _ = name.rpartition("attn.q.weight")
        if dot:
            for kind in ("weight", "bias"):
                parts = [named.pop(f"{block}attn.{part}.{kind}", None) for part in "qkv"]
                given = [part for part in parts if part is not None]
                if kind == "bias" and given:  # BEiT's keys have none
                    given = [torch.zeros_like(given[0]) if p is None else p for p in parts]
                if len(given) == 3:
                    named[f"{block}attn.qkv.{kind}"] = torch.cat(given)
    for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
        for name in [n for n in named if n.endswith(f".{scale}.gamma")]:
            factor, block = named.pop(name), name.removesuffix(f"{scale}.gamma")
            weight, bias = f"{block}{layer}.weight", f"{block}{layer}.bias"
            if weight in named and bias in named:
                named[weight], named[bias] = named[weight] * factor[:, None], named[bias] * factor
    for name in [n for n in named if n.endswith("attn.qkv.weight")]:
        bias = name.removesuffix("weight") + "bias"
        named.setdefault(bias, named[name].new_zeros(len(named[name])))
    return named


def hugging_face_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of `mae_names`: MAE's tensors as Hugging Face publishes them.

    Of a masked autoencoder the encoder's names begin with `vit.`, beside the decoder's.

    Args:
        tensors: of an encoder, or of a masked autoencoder.
    """
    prefix = "vit." if "mask_token" in tensors else ""
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        parts = {name: tensor}
        if ".attn.qkv." in name:
            names = (name.replace("qkv", part) for part in ("query", "key", "value"))
            parts = dict(zip(names, tensor.chunk(3), strict=True))
        for part, values in parts.items():
            published = _published_name(part)
            of_decoder = published.startswith("decoder.")
            named[published if of_decoder else prefix + published] = values
    return named


def _published_name(name: str) -> str:
    outer = next((p for p in PUBLISHED if re.match(p[0], name)), ("", ""))
    name = re.sub(f"^{outer[0]}", outer[1], name)
    for pattern, renamed in PUBLISHED_IN_BLOCKS:
        name = re.sub(rf"(?<=\d\.){pattern}(?=\.)", renamed, name)
    return name


def _mae_name(name: str) -> str:
    for pattern, renamed in RENAMED:
        match = re.match(pattern, name)
        if match:
            rest = name[match.end() :]
            if "blocks" in renamed:
                for inner, short in RENAMED_IN_BLOCKS:
                    rest = re.sub(f"^{inner}", short, rest)
            return match.expand(renamed) + rest
    return name
