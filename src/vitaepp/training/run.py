"""A run: what is said of it, its folder is begun or gone on with, and all epochs are trained."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from vitaepp.data.loading import EpochOrder, training_loader
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.store import Store
from vitaepp.errors import TrainingError
from vitaepp.methods import Method
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.devices import chosen_device, device_name, say_emulated
from vitaepp.system.files import write_json
from vitaepp.system.host import keep_freed_memory, versions
from vitaepp.system.progress import counted, say, warn
from vitaepp.system.text import as_typed, dimensions
from vitaepp.training.batchnorm import join_batch_norms
from vitaepp.training.callbacks import History, Monitor
from vitaepp.training.module import Training
from vitaepp.training.pieces import in_pieces
from vitaepp.training.resume import go_on
from vitaepp.training.step import prepare_for_training
from vitaepp.training.threads import threads_at_begin
from vitaepp.training.trainer import Processes, build_trainer, fit

#: Of fewer images than this, a line says that they cannot give a representation.
FEW_IMAGES = 10

#: Of fewer updates than this, a line says that they teach little: on the X-rays of results/sweeps,
#: 652 gave an AUC like that of random weights, and 1,630 a better one.
FEW_UPDATES = 1000


def train(
    store: Store,
    rows: Sequence[int],
    module: Training,
    folder: RunFolder,
    checkpoint: Path | None,
    processes: Processes,
    monitor: Monitor | None = None,
    begin: Callable[[Mapping[str, Any]], None] | None = None,
    more: Sequence[Callback] = (),
) -> dict[str, Any] | None:
    """Train all epochs, from a checkpoint where one is given.

    Args:
        store: prepared store.
        rows: of the store, those that are trained on.
        module: what is trained.
        folder: of the run, which gets its recipe, its summary, metrics.csv and checkpoints.
        checkpoint: of the run, to go on from.
        processes: of the training.
        monitor: looks at what is trained after each epoch, and may end the training.
        begin: called with the facts of the training before its first step.
        more: callbacks that may end the training.

    Returns:
        The facts of the training for its summary; None where training had ended before, and in
        all processes but the first.

    Raises:
        TrainingError: a loss is not finite, or there are too few images for a step.
        RunError: the run began on other images.
    """
    recipe, method = module.recipe, module.method
    history = History(folder, monitor)
    trainer = build_trainer(
        recipe, folder, history, processes, damaged=checkpoint != folder.checkpoint, more=more
    )
    count = trainer.world_size
    order = EpochOrder(
        rows,
        recipe.optim.batch_size,
        recipe.seed,
        trainer.global_rank,
        count,
        smallest=method.smallest_batch,
        accumulate=recipe.optim.accumulate,
    )
    if len(order) == 0:
        raise TrainingError(
            f"{len(rows)} subjects to train on in batches of {recipe.optim.batch_size} on "
            f"{count} devices, but {recipe.method} needs batches of at least {order.smallest}, "
            "those of all devices together"
        )
    if checkpoint is not None and not go_on(checkpoint, folder, module, store, order):
        kept, file = recipe.to_yaml(), folder.recipe_file
        if trainer.is_global_zero and not (file.is_file() and file.read_text("utf-8") == kept):
            recipe.save(file)  # a change of the length may have been taken back
        return None
    device = trainer.strategy.root_device
    loader = training_loader(store, recipe.data, order, device, processes.devices)
    updates = recipe.optim.epochs * math.ceil(len(order) / recipe.optim.accumulate)
    described = describe(store, recipe, method, len(rows), trainer) | {"updates": updates}
    began = None if checkpoint is None else threads_at_begin(folder)
    if began not in (None, described["threads"]):
        described |= {"threads": began, "threads_resumed": described["threads"]}
    if trainer.is_global_zero:
        recipe.save(folder.recipe_file)
        write_json(folder.summary_file, described)
        if begin is not None:
            begin(described)
    keep_freed_memory()
    prepare_for_training(method, device, count)
    if count > 1:
        join_batch_norms(method, device)
    started = time.monotonic()
    try:
        with in_pieces(method, device) if count == 1 else nullcontext():
            fit(trainer, module, loader, checkpoint)
    finally:
        method.replays = None  # they hold memory of the device
    if not trainer.is_global_zero:
        return None
    return described | {
        "steps": trainer.global_step,
        "seconds": round(time.monotonic() - started + module.seconds_before, 1),
        "waiting": round(history.waiting, 4),
        **({"lengths": module.lengths} if module.lengths else {}),
    }


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
        "parameters": count_parameters(method),
        "epochs": recipe.optim.epochs,
        "device": device_name(trainer.strategy.root_device),
        "devices": trainer.world_size,
        "precision": trainer.precision,
        "threads": torch.get_num_threads(),
        "versions": versions("torch", "lightning"),
    }


def count_parameters(method: Method) -> dict[str, int]:
    """Numbers of parameters of the parts that a method has: encoder, decoder and heads.

    Heads are what is trained beside the backbone, such as the predictor of the contrastive loss.
    Copies that follow the encoder, and a VGG-16, are not trained, and are no parts.
    """
    counts = dict.fromkeys(("encoder", "decoder", "heads"), 0)
    for name, weights in method.named_parameters():
        if name.startswith(("backbone.decoder_", "backbone.mask_token", "decoder.")):
            counts["decoder"] += weights.numel()
        elif name.startswith("backbone."):
            counts["encoder"] += weights.numel()
        elif weights.requires_grad:
            counts["heads"] += weights.numel()
    return {part: count for part, count in counts.items() if count}


def _schedule(recipe: Recipe, described: Mapping[str, Any]) -> Iterator[str]:
    """Lines where the schedule or its devices are other than the settings seem to say."""
    optim, devices = recipe.optim, described["devices"]
    batch = optim.batch_size * optim.accumulate * devices
    if optim.lr is None and batch > described["trained_on"]:
        yield (
            f"optim.base_lr={as_typed(optim.base_lr)}: the learning rate is "
            f"{optim.base_lr * batch / 256:.3g}, that of batches of {counted(batch, 'image')}, "
            f"though there are {described['trained_on']}"
        )
    name, length, unit = "warmup_epochs", optim.epochs, "epoch"
    if optim.warmup_updates is not None:
        name, length, unit = "warmup_updates", described["updates"], "update"
    warmup = getattr(optim, name)
    if warmup is not None and warmup > length:
        yield (
            f"optim.{name}={as_typed(warmup)}: cut to the {counted(length, unit)} of this "
            "training, in which the learning rate only rises"
        )
    if recipe.trainer.strategy == "fsdp" and devices == 1:
        yield "trainer.strategy=fsdp: nothing to share on one device, which has all weights"


def announce(recipe: Recipe, store: Store, described: Mapping[str, Any]) -> None:
    """Say what is trained, and what the user may want to change before it takes hours.

    Args:
        recipe: every setting.
        store: what it is trained on.
        described: what `describe` returned, and the number of `updates`.
    """
    size = dimensions(store.info.size)
    images, epochs = counted(described["trained_on"], "image"), recipe.optim.epochs
    say(
        f"{recipe.name} on {images} of {len(store.info.modalities)} × {size}, "
        f"{described['parameters']['encoder'] / 1e6:.1f} M encoder parameters, "
        f"{counted(epochs, 'epoch')}, on {described['device']} in {described['precision']}"
        + (f", {described['devices']} processes" if described["devices"] > 1 else "")
    )
    if described["trained_on"] < FEW_IMAGES:
        warn(
            f"{images} to train on: so few cannot give a representation; the encoder and its "
            "scores will say nothing about other images"
        )
    if described["updates"] < FEW_UPDATES:
        say(
            f"{counted(described['updates'], 'update')} of the weights in all: so few teach an "
            "encoder little, and it may be no better than its untrained control; more epochs, more "
            "hours or smaller batches make more"
        )
    say_emulated(described["precision"].partition("-")[0], chosen_device())
    for note in _schedule(recipe, described):
        say(note)
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
