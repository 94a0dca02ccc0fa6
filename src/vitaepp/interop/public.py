"""Encoders that others trained on natural images and published: what a frozen one gives.

The vision transformers of transformers and timm (ViT, DeiT, DINO, DINOv2, MAE) are read from their
folders by `weights/` and computed by `nn/transformer.py`, which gives what their own library gives.
They take pictures of three colours. So a store's images become pictures:

- a colour picture is one; of others each modality is a grey one, and their features are joined;
- of a volume, evenly spaced slices along the third axis, which in scans are axial ones. The mean
  and the maximum over slices are taken of each feature;
- pictures are resized to what the model was published for, without keeping proportions, and
  normalised by its mean and deviation.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitaepp.data.embeddings import CONTROLS, Embeddings, control_path
from vitaepp.data.origin import PUBLIC
from vitaepp.data.runfolder import weights_id
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import RGB, StoreInfo
from vitaepp.encoder.embed import raw_features
from vitaepp.encoder.hub import HUB, from_hub
from vitaepp.errors import RecipeError, RunError
from vitaepp.nn.backbones import Undrawn
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.system.devices import autocast, chosen_device, resolved_precision
from vitaepp.system.files import read_json, together
from vitaepp.system.progress import counted, say, track
from vitaepp.system.tensors import SUFFIXES
from vitaepp.system.text import dimensions
from vitaepp.weights.adapt import KERNEL, adapt, depth_of
from vitaepp.weights.names import find, mae_names
from vitaepp.weights.read import HEADS, MARKERS, read_checkpoint

#: What features are of a picture: the token that these models were trained to classify or compare
#: by, and the mean over patches, which masked autoencoders need.
POOL = "cls+mean"

#: Mean and deviation of ImageNet's colours, for models that do not tell theirs.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

#: Pictures at a time.
CPU_PICTURES, DEVICE_PICTURES = 16, 256


@dataclass(frozen=True)
class PublicEncoder:
    """A vision transformer of natural images, and what it expects.

    Attributes:
        name: of its folder, or on the Hub.
        vit: the network.
        size: pixels of its pictures.
        mean: of each colour, in [0, 1].
        std: deviation of each colour.
        weights: SHA-256 of its `model.safetensors`; None where it has another file.
    """

    name: str
    vit: VisionTransformer
    size: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: str | None

    def seen(self, pictures: Float[Tensor, "picture 3 row column"]) -> Tensor:
        """Pictures with intensities in [0, 255] as the network takes them."""
        if tuple(pictures.shape[2:]) != self.size:
            pictures = F.interpolate(pictures, self.size, mode="bilinear", antialias=True)
        mean, std = (pictures.new_tensor(v).reshape(-1, 1, 1) for v in (self.mean, self.std))
        return (pictures / 255 - mean) / std

    def features(
        self, images: Float[Tensor, "image channel *space"], info: StoreInfo, slices: int
    ) -> Float[Tensor, "image feature"]:
        """Features of a store's images, with intensities in [0, 255].

        Args:
            images: on the network's device.
            info: of the store.
            slices: of a volume, at most.
        """
        pictures = pictures_of(images, info, slices)
        flat = self.seen(pictures.flatten(0, 2))
        features = self.vit.features(flat, POOL).float().unflatten(0, pictures.shape[:3])
        parts = (
            [features.mean(dim=2), features.amax(dim=2)] if info.ndim == 3 else [features[:, :, 0]]
        )
        return torch.cat(parts, dim=2).flatten(1)


def embed_public(
    encoder: str | os.PathLike[str],
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    slices: int = 16,
    batch_size: int | None = None,
    device: str | None = None,
    precision: str = "auto",
) -> Path:
    """Embed every subject of a store with a public encoder, and the raw intensities beside it.

    `evaluate` and `compare` take the file like one of `embed`.

    Args:
        encoder: folder of a vision transformer of transformers or timm; or `hf-hub:user/name`.
        store: prepared store.
        out: Parquet file, or CSV by its name.
        slices: how many of a volume, spread evenly along its third axis; all where it has fewer.
        batch_size: images at a time.
        device: where to compute; an accelerator if there is one by default.
        precision: `32`, `bf16`, `16` or `auto`.

    Returns:
        The path of `out`.

    Raises:
        RunError: no such encoder, or one of another architecture.
        StoreError: no such store.
    """
    opened = Store(store)
    public = load_public(encoder)
    Embeddings.check(out)
    on = chosen_device(device)
    precision = resolved_precision(precision, on)
    info = opened.info
    each = (1 if _coloured(info) else len(info.modalities)) * min(slices, _depth(info))
    most = CPU_PICTURES if on.type == "cpu" else DEVICE_PICTURES
    size = batch_size or max(1, most // each)
    say(
        f"{public.name}: {counted(each, 'picture')} an image, of {dimensions(info.size[:2])} "
        f"resized to {dimensions(public.size)}"
    )
    batches = track(opened.batches(size), "embedding", -(-len(opened) // size), unit="batches")
    features_of_each = []
    public.vit.to(on).eval()
    with torch.inference_mode(), autocast(on, precision):
        for images in batches:
            shown = torch.from_numpy(images).to(on).float()
            features_of_each.append(public.features(shown, info, slices).cpu().numpy())
    features = np.concatenate(features_of_each)
    if not np.isfinite(features).all():
        raise RunError(f"{encoder}: its features are not finite; embed with `precision=32`")
    facts: dict[str, Any] = {
        "run": public.name,
        "encoder": public.weights,
        "store": opened.name,
        "images": opened.fingerprint(),
        "precision": precision,
        "prepared": asdict(info),
        "slices": min(slices, _depth(info)) if info.ndim == 3 else None,
        "method": PUBLIC,
        "name": f"{public.name} (natural images, frozen)",
        "pretrained_on": [],
    }
    table = opened.table[["subject", *opened.label_columns, "split"]]
    embeddings = Embeddings(table, features, facts)
    raw = Embeddings(table, raw_features(opened), facts | {"method": "raw", "name": ""})
    out = Path(out)
    beside = [control_path(out, control).name for control in CONTROLS]
    with together(out.parent, out.name, optional=beside) as staged:
        raw.save(control_path(staged / out.name, "raw"))
        embeddings.save(staged / out.name)
    return out


def pictures_of(
    images: Float[Tensor, "image channel *space"], info: StoreInfo, slices: int
) -> Float[Tensor, "image modality slice 3 row column"]:
    """A store's images as pictures of three equal colours, or of their own.

    Axial slices of scans are turned as people look at them: the front is up, the patient's right on
    the left.

    Args:
        images: any type.
        info: of the store.
        slices: of a volume, at most; each in the middle of an equal share of the third axis.
    """
    if _coloured(info):
        return images[:, None, None]
    if info.ndim == 2:
        pictures = images[:, :, None]
    else:
        depth = _depth(info)
        count = min(slices, depth)
        rows = [int((i + 0.5) * depth / count) for i in range(count)]
        pictures = images[..., rows].movedim(-1, 2)
        if info.directed:
            pictures = pictures.flip((-1, -2)).transpose(-1, -2)
    return pictures[:, :, :, None].expand(-1, -1, -1, 3, -1, -1)


def load_public(path: str | os.PathLike[str]) -> PublicEncoder:
    """A published vision transformer of 2D images.

    Args:
        path: its folder, with `config.json` and weights; or `hf-hub:user/name`.

    Raises:
        RunError: there is none, or one of another architecture.
    """
    given = os.fspath(path)
    of_hub = given.startswith(HUB)
    folder = Path(from_hub(given) if of_hub else given)
    try:
        if not (folder / "config.json").is_file():
            raise RunError("has no config.json; give the folder of a model of transformers or timm")
        return _load(folder, given.removeprefix(HUB) if of_hub else folder.resolve().name)
    except (RunError, RecipeError) as error:
        raise RunError(f"{path}: {str(error).removeprefix(f'{folder}: ')}") from None


def public_id(path: str | os.PathLike[str]) -> str:
    """A digest of a published encoder: of whatever in its folder may change what it gives.

    Args:
        path: as in `load_public`; where there is no such folder, it has a digest, too.
    """
    given = os.fspath(path)
    folder = Path(from_hub(given) if given.startswith(HUB) else given)
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.*")):
        if file.suffix in (".json", *SUFFIXES) and file.is_file():
            with open(file, "rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            digest.update(f"{file.name}\n{content}\n".encode())
    return digest.hexdigest()


def _load(folder: Path, name: str) -> PublicEncoder:
    checkpoint = read_checkpoint(folder)
    config = _read(folder / "config.json")
    if "shape" in config:
        raise RunError("is an encoder of vitaepp; embed with it as RUN")
    container, prefix = find(checkpoint.models, MARKERS)
    given = mae_names(checkpoint.models[container], prefix)
    width, channels, *patch = given[KERNEL].shape
    if len(patch) != 2 or channels != 3:
        raise RunError(
            f"its patches are of {dimensions(patch)} with {channels} channels; give a model of "
            "colour pictures"
        )
    depth = depth_of(given, "blocks")
    size, mean, std = _expected(folder, config)
    shape: dict[str, Any] = {
        "in_channels": channels,
        "image_size": size,
        "patch_size": patch,
        "embed_dim": width,
        "depth": depth,
        "num_heads": checkpoint.num_heads or HEADS.get((width, depth)) or width // 64,
    }
    with Undrawn():
        vit = VisionTransformer(**shape)
    state, notes = adapt(checkpoint, vit)
    vit.load_state_dict(state)
    for part in vit.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = checkpoint.epsilon or part.eps
    say(f"{name}: {'; '.join(notes)}")
    return PublicEncoder(name, vit.eval(), size, mean, std, weights_id(folder))


def _expected(
    folder: Path, config: Mapping[str, Any]
) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]:
    """Pixels, mean and deviation of the pictures that a model was published for."""
    file = folder / "preprocessor_config.json"
    preprocessor = _read(file) if file.is_file() else {}
    of_timm = config.get("pretrained_cfg") or {}
    mean = preprocessor.get("image_mean") or of_timm.get("mean")
    std = preprocessor.get("image_std") or of_timm.get("std")
    if preprocessor.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    elif mean is None or std is None:
        say(f"{folder.name}: does not tell how its pictures are normalised; taken as ImageNet's")
        mean, std = IMAGENET
    # A model that crops what it has resized sees the crop.
    crop = preprocessor.get("crop_size") if preprocessor.get("do_center_crop", True) else None
    whole = (
        crop
        or preprocessor.get("size")
        or of_timm.get("input_size")
        or config.get("image_size", 224)
    )
    if isinstance(whole, Mapping):
        side = whole.get("shortest_edge")
        whole = [whole.get("height", side), whole.get("width", side)]
    size = (whole, whole) if isinstance(whole, int) else tuple(whole)[-2:]
    # Of colours in [0, 1], whatever the model's own pictures are multiplied by.
    factor = 255 * preprocessor.get("rescale_factor", 1 / 255)
    if preprocessor.get("do_rescale") is False:
        factor = 255.0
    return size, tuple(v / factor for v in mean), tuple(v / factor for v in std)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = read_json(file)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise RunError(f"{file.name} is not a JSON object; get the model again")
    return values


def _coloured(info: StoreInfo) -> bool:
    return info.ndim == 2 and info.modalities == RGB


def _depth(info: StoreInfo) -> int:
    return info.size[2] if info.ndim == 3 else 1
