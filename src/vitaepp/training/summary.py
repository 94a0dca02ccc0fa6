"""What is written, and said, about a training when it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import lightning as L
import torch

from vitaepp.data.store import Store
from vitaepp.methods import Method
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.devices import device_name
from vitaepp.system.progress import counted, say
from vitaepp.system.text import dimensions


def describe(
    store: Store,
    recipe: Recipe,
    method: Method,
    trained_on: int,
    trainer: L.Trainer,
) -> dict[str, Any]:
    """The facts of a training, for its summary file.

    Args:
        store: what it is trained on.
        recipe: every setting.
        method: what is trained.
        trained_on: number of images.
        trainer: what trains it.
    """
    info = store.info
    encoder = sum(
        p.numel()
        for name, p in method.backbone.named_parameters()
        if not name.startswith(("decoder_", "mask_token"))
    )
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    return {
        "method": recipe.method,
        "name": recipe.name,
        "store": {
            "subjects": len(store),
            "modalities": list(info.modalities),
            "size": list(info.size),
            "spacing": None if info.spacing is None else list(info.spacing),
            "unit": info.unit,
            "label_columns": store.label_columns,
            "account": None if (account := store.account) is None else asdict(account),
        },
        "trained_on": trained_on,
        "parameters": {"encoder": encoder, "decoder": trained - encoder},
        "epochs": recipe.optim.epochs,
        "device": device_name(trainer.strategy.root_device),
        "devices": trainer.world_size,
        "precision": trainer.precision,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("vitaepp", "torch", "lightning")},
    }


def announce(recipe: Recipe, store: Store, described: Mapping[str, Any]) -> None:
    """Say what is trained, and what the user may want to change before it takes hours.

    Args:
        recipe: every setting.
        store: what it is trained on.
        described: what `describe` returned.
    """
    size = dimensions(store.info.size)
    images, epochs = counted(described["trained_on"], "image"), recipe.optim.epochs
    say(
        f"{recipe.name} on {images} of {len(store.info.modalities)} × {size}, "
        f"{described['parameters']['encoder'] / 1e6:.1f} M encoder parameters, "
        f"{counted(epochs, 'epoch')}, on {described['device']} in {described['precision']}"
        + (f", {described['devices']} processes" if described["devices"] > 1 else "")
    )
    if incomplete := int((~store.present.all(axis=1)).sum()):
        say(f"{incomplete} of {len(store)} subjects lack a modality, which then counts in no loss")
    facts = METHODS[recipe.method]
    if facts.smallest_batch > 1 and recipe.optim.accumulate > 1:
        say(
            f"optim.accumulate={recipe.optim.accumulate}: {recipe.method} compares and normalises "
            "the images of one step, so that this is not the same as a larger batch"
        )
    perceptual = recipe.loss.perceptual
    if facts.masked and perceptual.weight and perceptual.weights in ("none", "random"):
        state = {
            "none": "the perceptual loss is off, because there are no weights of a VGG-16",
            "random": "the perceptual loss looks through a VGG-16 with random weights",
        }[perceptual.weights]
        say(
            f"{state}; the paper uses ImageNet's for medical images: "
            "loss.perceptual.weights=imagenet downloads them, or give their file"
        )
