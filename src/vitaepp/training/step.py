"""One training step: a batch becomes a loss, its gradients, and changed weights.

`pretrain` makes these steps under Lightning, which adds accumulation, clipping and several
processes. `bench` and the benchmarks make them alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.profiler import record_function

from vitaepp.data.loading import Batch
from vitaepp.methods import Method, StepOutput
from vitaepp.system.devices import autocast
from vitaepp.system.progress import say
from vitaepp.training.pieces import forward_in_pieces
from vitaepp.training.replays import Replays, may_replay
from vitaepp.training.sharding import recompute_blocks
from vitaepp.views.draws import Draws


def prepare_for_training(method: Method, device: torch.device, processes: int = 1) -> None:
    """Change a method in place as `trainer.*` asks: blocks computed twice, parts compiled.

    And its steps are replayed, where they can be.

    Args:
        method: what is trained.
        device: where it will be.
        processes: that train it together.
    """
    settings = method.recipe.trainer
    if processes == 1 and may_replay(method, device):
        method.replays = Replays()
    if settings.activation_checkpointing:
        recompute_blocks(method)
    if settings.compile != "none":
        say(f"compiling (trainer.compile={settings.compile}): the first step takes minutes")
        method.compile_parts(settings.compile)


def build_optimizer(method: Method, images_per_update: int) -> torch.optim.Optimizer:
    """AdamW on everything that is trained; biases and norms, which are vectors, do not decay.

    Args:
        method: what is trained.
        images_per_update: on all devices together; without `optim.lr`, the learning rate is in
            proportion to it.
    """
    settings = method.recipe.optim
    lr = settings.lr or settings.base_lr * images_per_update / 256
    groups: list[dict[str, Any]] = []
    for trained, factor in method.parameter_groups():
        matrices, vectors = ([p for p in trained if (p.ndim > 1) is many] for many in (True, False))
        groups += [
            {"params": matrices, "weight_decay": settings.weight_decay, "lr": lr * factor},
            {"params": vectors, "weight_decay": 0.0, "lr": lr * factor},
        ]
    return torch.optim.AdamW(groups, lr=lr, betas=settings.betas, fused=True)


def forward_batch(
    method: Method,
    batch: Batch,
    present: Bool[Tensor, "subject channel"] | None = None,
    *,
    epoch: int = 0,
    progress: float = 0.0,
) -> StepOutput:
    """The terms of the loss on a batch that is on the method's device.

    On a CPU it may be computed in pieces, and on a GPU be replayed.

    Args:
        method: what is trained.
        batch: images, their rows in the store, and the weight of their loss.
        present: modalities that each subject of the store has; all without it.
        epoch: number of this pass over the store, for the random numbers.
        progress: share of the training that is done, from 0 to 1.
    """
    images, rows, _ = batch
    here = None if present is None else present[rows]
    if here is not None and bool(here.all()):
        here = None  # faster than to look at every channel
    if method.replays is not None:
        here = None if here is None else here.to(images.device, non_blocking=True)
        return method.replays(method, images, rows, here, epoch=epoch, progress=progress)
    if method.pieces > 1:
        return forward_in_pieces(method, images, rows, here, epoch=epoch, progress=progress)
    draws = Draws(method.recipe.seed, epoch, rows, images.device)
    if here is None:
        return method(images, draws, progress)
    return method(images, draws, progress, here.to(images.device, non_blocking=True))


def training_step(
    method: Method,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    present: Bool[Tensor, "subject channel"] | None = None,
    *,
    epoch: int = 0,
    progress: float = 0.0,
) -> None:
    """A whole step: forward in the recipe's precision, backward, and the change of the weights.

    Args:
        method: what is trained.
        optimizer: of its weights.
        batch: images on the method's device, their rows in the store, and the weight of their loss.
        present: modalities that each subject of the store has; all without it.
        epoch: number of this pass over the store, for the random numbers.
        progress: share of the training that is done, from 0 to 1.
    """
    images, _, weight = batch
    with autocast(images.device, method.recipe.trainer.precision):
        output = forward_batch(method, batch, present, epoch=epoch, progress=progress)
        loss = output.loss * weight
    with record_function("backward"):
        loss.backward()
    with record_function("optimizer"):
        optimizer.step()
        optimizer.zero_grad()
    method.after_step(progress)


def timed_steps(
    method: Method, present: Bool[Tensor, "subject channel"], device: torch.device
) -> Callable[[Batch], None]:
    """A function that makes a whole step of a batch, and returns when the device has made it.

    Args:
        method: what is trained, on the device and prepared for training.
        present: modalities that each subject of the store has.
        device: where the method is; batches need not be there.
    """
    optimizer = build_optimizer(method, method.recipe.optim.batch_size)

    def step(batch: Batch) -> None:
        images, rows, weight = batch
        training_step(method, optimizer, (images.to(device), rows, weight), present)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step
