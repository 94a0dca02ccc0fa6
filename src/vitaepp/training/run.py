"""A run: its folder is begun or gone on with, and all of its epochs are trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from vitaepp.data.loading import EpochOrder, training_loader
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.store import Store
from vitaepp.errors import TrainingError
from vitaepp.system.files import write_json
from vitaepp.system.host import keep_freed_memory
from vitaepp.training.batchnorm import join_batch_norms
from vitaepp.training.callbacks import History, Monitor
from vitaepp.training.module import Training
from vitaepp.training.resume import go_on
from vitaepp.training.step import prepare_for_training
from vitaepp.training.summary import describe
from vitaepp.training.trainer import Processes, build_trainer, fit


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
    described = describe(store, recipe, method, len(rows), trainer)
    if trainer.is_global_zero:
        recipe.save(folder.recipe_file)
        write_json(folder.summary_file, described)
        if begin is not None:
            begin(described)
    keep_freed_memory()
    prepare_for_training(method)
    if count > 1:
        join_batch_norms(method, device)
    started = time.monotonic()
    fit(trainer, module, loader, checkpoint)
    if not trainer.is_global_zero:
        return None
    return described | {
        "steps": trainer.global_step,
        "seconds": round(time.monotonic() - started + module.seconds_before, 1),
        "waiting": round(history.waiting, 4),
        **({"lengths": module.lengths} if module.lengths else {}),
    }
