"""An encoder with scores of its features, as the maps of one subject need it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vitaepp.data.arrays import Floats, Indices
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.store import Store
from vitaepp.downstream.model import Model
from vitaepp.encoder.model import Encoder
from vitaepp.errors import ModelError, RunError
from vitaepp.explanation.games import Greyed, LeftOut, occlusion
from vitaepp.explanation.lattice import parts as parts_of
from vitaepp.explanation.lattice import spread
from vitaepp.explanation.scores import Scores, decision_of, distance_in, imitation
from vitaepp.nn.transformer import Attention, VisionTransformer
from vitaepp.recipe.methods import METHODS
from vitaepp.system.devices import resolved_precision
from vitaepp.system.files import without_nan
from vitaepp.system.progress import say
from vitaepp.system.text import dimensions

#: Subjects over which scores vary, and to which the untrained encoder's regression is fitted.
REFERENCE = 256

#: Parts that an image is divided into at most; fewer where it has so many patches that each
#: evaluation takes a second.
PARTS, MANY, PARTS_OF_MANY = 64, 1000, 32

#: Cells an axis that an image is divided into where the network has no patches.
CELLS = {2: 8, 3: 4}


@dataclass(frozen=True, eq=False)
class Network:
    """An encoder with scores of its features, and how it is run.

    Attributes:
        encoder: on its device.
        scores: of its features.
        parts: `(*grid)`, the part of each patch or cell.
        size: voxels per spatial axis.
        precision: of its products.
    """

    encoder: Encoder
    scores: Scores
    parts: Indices
    size: tuple[int, ...]
    precision: str

    @property
    def is_vit(self) -> bool:
        """Whether it has patches that can be left out."""
        return isinstance(self.encoder.backbone, VisionTransformer)

    def games(self, image: Tensor, column: int) -> tuple[LeftOut | Greyed, Greyed]:
        """Of an image: the one that Shapley values are of, and that of occlusion."""
        rest = (self.scores, column, self.precision)
        greyed = Greyed(self.encoder, image, spread(self.parts, self.size), *rest)
        return (LeftOut(self.encoder, image, self.parts, *rest) if self.is_vit else greyed), greyed

    def simple_maps(self, image: Tensor, greyed: Greyed) -> dict[str, Floats]:
        """Occlusion, and for a transformer attention rollout, `(part,)` each."""
        maps = {"occlusion": occlusion(greyed, int(self.parts.max()) + 1)}
        if isinstance(backbone := self.encoder.backbone, VisionTransformer):
            config = self.encoder.config
            share = rollout(backbone, image, config.pool, config.block).double().cpu().numpy()
            summed = np.bincount(self.parts.ravel(), share.ravel())
            maps["rollout"] = summed.astype(np.float64)
        return maps


def check_of(model: Model, encoder: Encoder, run: str | os.PathLike[str]) -> None:
    """Refuse a model of another encoder, whose features mean something else."""
    own, other = encoder.backbone.state_dict(), model.encoder.backbone.state_dict()
    how = [(e.config.pool, e.config.block, e.config.normalize) for e in (encoder, model.encoder)]
    same = own.keys() == other.keys() and all(
        value.shape == other[name].shape and torch.equal(value.cpu(), other[name].cpu())
        for name, value in own.items()
    )
    if not same or how[0] != how[1]:
        raise ModelError(
            f"the model of {model.label} belongs to another encoder than that of {run}; fit one to "
            "embeddings of this run"
        )


def untrained_like(encoder: Encoder, run: str | os.PathLike[str]) -> Encoder:
    """The same network with the random weights that training started from."""
    recipe = Path(run) / "recipe.yaml"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RunFolder(run).recipe().seed if recipe.is_file() else 0)
        return Encoder(replace(encoder.config, method="untrained", name="")).eval()


def networks_of(
    encoder: Encoder,
    untrained: Encoder,
    store: Store,
    model: Model | None,
    most: int | None,
    precision: str,
    on: torch.device,
) -> tuple[tuple[Network, Network], dict[str, Any]]:
    """The trained network and the untrained one with their scores, and what is said of them."""
    backbone = encoder.backbone
    grid = tuple(min(CELLS[store.info.ndim], n) for n in store.info.size)
    if isinstance(backbone, VisionTransformer):
        grid = backbone.grid
    parts = parts_in(grid, most)
    precision = resolved_precision(precision, on)
    reference = store.spread(REFERENCE)
    options: dict[str, Any] = {"device": on, "precision": precision, "any_store": True}
    trained = encoder.embed(store, reference, task="features", **options)
    random = untrained.embed(store, reference, task="features, untrained", **options)
    if model is None:
        scores, control, r2 = distance_in(trained), distance_in(random), None
    else:
        scores = decision_of(model, trained)
        control, r2 = imitation(random, scores, scores(trained))
    each = [(encoder, scores), (untrained, control)]
    first, second = (Network(e, s, parts, store.info.size, precision) for e, s in each)
    facts = {
        "explained": list(scores.names),
        "taken_away": "left out" if first.is_vit else "made grey",
        "reference_subjects": len(reference),
        "spread": scores.spread.tolist(),
        "untrained_r2": without_nan(r2),
        "grid": list(grid),
        "parts": int(parts.max()) + 1,
        "precision": precision,
    }
    return (first, second), facts


def parts_in(grid: tuple[int, ...], most: int | None) -> Indices:
    """The part of each cell of a grid; without `most`, as many as `explain` takes by itself."""
    found = parts_of(grid, most or (PARTS if prod(grid) <= MANY else PARTS_OF_MANY))
    if most is not None and found.max() == 0 and max(grid) > 1:
        fewest = prod(-(-n // (max(grid) - 1)) for n in grid)
        raise RunError(
            f"`parts={most}`: patches are joined to cubes of equal size; of {dimensions(grid)} "
            f"patches the fewest are {fewest}; give at least so many"
        )
    return found


def explained_by(model: Model | None, file: str | None) -> dict[str, Any]:
    """Which decision is explained, for explain.json; it is said, too.

    Args:
        model: that makes it; None where none does.
        file: the name of its folder, where it has one.
    """
    if model is None:
        say(
            "without a fitted model, what is explained is the squared distance from the mean of "
            "the store's subjects, in variances"
        )
        return {"model": None}
    two = len(model.classes) == 2
    whose = "the fitted model" if file is None else f"the classifier in {file}"
    scored = (
        f"{model.classes[1]}, against {model.classes[0]}"
        if two
        else "the class with the highest score"
    )
    say(f"what is explained is the decision of {whose} on {model.label}: its score for {scored}")
    return {"model": {"file": file, "label": model.label, "classes": list(model.classes)}}


def caveat_of(network: Network) -> str:
    """What is doubtful about taking parts away from an encoder; empty where nothing is."""
    facts = METHODS.get(network.encoder.config.method)
    if facts is not None and facts.masked:
        return ""
    how = "patches left out" if network.is_vit else "parts made grey"
    name = network.encoder.config.name or network.encoder.config.method
    return (
        f"{name} was never trained on images with {how}: its scores of them, and so the maps, are "
        "less sure than those of a masked autoencoder"
    )


def image_of(encoder: Encoder, store: Store, row: int, on: torch.device) -> Tensor:
    """One subject's image as the backbone takes it, with a batch axis."""
    return encoder.standardized(torch.from_numpy(store.read([row])).to(on), store.info.modalities)


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
