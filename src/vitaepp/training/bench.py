"""bench: how fast a recipe trains on a store and a machine, and where a step's time goes."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import count
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from vitaepp.data.loading import Batch, EpochOrder, TrainingLoader, training_loader, training_rows
from vitaepp.data.store import Store
from vitaepp.errors import RecipeError
from vitaepp.recipe.choices import Choice
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.devices import chosen_device, device_name, most_memory, resolved_precision
from vitaepp.system.host import GIB, keep_freed_memory
from vitaepp.system.progress import counted, say
from vitaepp.system.text import dimensions, fact_list
from vitaepp.training.module import Training
from vitaepp.training.pieces import in_pieces
from vitaepp.training.propose import recipe_for
from vitaepp.training.settle import settled
from vitaepp.training.step import prepare_for_training, timed_steps
from vitaepp.training.threads import free_threads

#: Parts of a step that the code names for the profiler, in their order; the rest is `other`.
PARTS = (
    "views",
    "encoder",
    "decoder",
    "reconstruction loss",
    "perceptual loss",
    "edge loss",
    "contrastive loss",
    "backward",
    "optimizer",
)

#: Steps that warm up, and steps that are profiled.
WARM_UP, PROFILED = 2, 2


@dataclass(frozen=True)
class Speed:
    """What was measured; `str` gives it as text for people to read.

    Attributes:
        description: method, images and device, in words.
        seconds: of each timed step, its waiting for data included.
        images: of each timed step; the last of an epoch may have fewer than the batch.
        batch_size: images a step at most.
        waiting: share of the time that steps waited for data.
        memory: bytes that were held at most: by the process on a CPU, by tensors on a GPU.
        steps: of the whole recipe, on one device.
        trained: images that the whole recipe goes through, each as often as there are epochs.
        parts: share of a step's time by part; they sum to 1.
        choices: settings that were chosen for this store and machine.
    """

    description: str
    seconds: tuple[float, ...]
    images: tuple[int, ...]
    batch_size: int
    waiting: float
    memory: int
    steps: int
    trained: int
    parts: Mapping[str, float]
    choices: tuple[Choice, ...] = ()

    @property
    def step(self) -> float:
        """Seconds of a step, the median."""
        return statistics.median(self.seconds)

    @property
    def volumes_per_second(self) -> float:
        """Images that training goes through in a second."""
        return sum(self.images) / sum(self.seconds)

    @property
    def whole(self) -> float:
        """Seconds that the whole recipe would take, saving and starting apart."""
        return self.trained / self.volumes_per_second

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values."""
        values = asdict(self) | {
            "step": self.step,
            "volumes_per_second": self.volumes_per_second,
            "whole": self.whole,
        }
        del values["choices"]
        return values

    def __str__(self) -> str:
        low, high = min(self.seconds), max(self.seconds)
        lines = [
            ("step", f"{self.step:.3g} s ({low:.3g} to {high:.3g} in {len(self.seconds)} steps)"),
            ("images", f"{self.volumes_per_second:.3g} a second"),
            ("recipe", f"{self.steps} steps, about {timedelta(seconds=round(self.whole))}"),
            ("memory", f"{self.memory / GIB:.2f} GiB at most"),
            ("waiting", f"{self.waiting:.1%} of the time, for data"),
            ("parts", "of the time of a step that is neither in pieces nor replayed"),
        ]
        lines += [(f"  {name}", f"{share:.1%}") for name, share in self.parts.items()]
        return f"{self.description}\n{fact_list(lines)}"


@free_threads()
def bench(
    store: str | os.PathLike[str],
    *,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    settings: str | Sequence[str] = (),
    steps: int = 10,
    device: str | torch.device | None = None,
) -> Speed:
    """Train a few steps as `pretrain` would, and measure them; nothing is written.

    This takes one process on one device, and reads the store as `data.cache` says. Two steps warm
    up, `steps` are timed, and two are profiled for their parts.

    Args:
        store: prepared store.
        recipe: as for `pretrain`; without it, what `pretrain` would choose.
        settings: changes to it.
        steps: how many are timed.
        device: where to train; by default an accelerator if there is one.

    Raises:
        RecipeError, StoreError: settings or store do not fit.
    """
    opened = Store(store)
    chosen, choices = recipe_for(opened, recipe, settings, None)
    where = chosen_device(device)
    keep_freed_memory()
    rows = training_rows(opened, chosen.data)
    chosen, _ = settled(chosen, opened, rows)
    module = Training(chosen, opened).to(where)
    prepare_for_training(module.method, where)
    smallest, batch_size = module.method.smallest_batch, chosen.optim.batch_size
    order = EpochOrder(rows, batch_size, chosen.seed, smallest=smallest)
    if len(order) == 0:
        raise RecipeError(f"optim.batch_size={batch_size}: no batch of {smallest} in this store")
    loader = training_loader(opened, chosen.data, order, where)
    if chosen.trainer.devices != 1 or chosen.trainer.nodes > 1:
        say("this measures one process on one device; trainer.devices and .nodes play no part")
    say(f"measuring {WARM_UP + steps + PROFILED} steps")
    step, batches = timed_steps(module.method, module.present, where), _endless(loader, order)
    with in_pieces(module.method, where):
        for _ in range(WARM_UP):
            step(next(batches))
        if module.method.replays is not None:  # each size of batch is recorded first
            for part in {len(part.rows): part for part in order}.values():
                step(loader.dataset[part])
        loader.waited = 0.0
        seconds, images = zip(*(_timed(step, batches) for _ in range(steps)), strict=True)
    waiting, memory = loader.waited / sum(seconds), most_memory(where)
    module.method.replays = None  # a replayed step has no parts
    return Speed(
        description=f"{chosen.name} on {counted(len(rows), 'image')} of "
        f"{dimensions(opened.info.shape)}, batch {batch_size}, in "
        f"{resolved_precision(chosen.trainer.precision, where)} on {device_name(where)}",
        seconds=seconds,
        images=images,
        batch_size=batch_size,
        waiting=waiting,
        memory=memory,
        steps=len(order) * chosen.optim.epochs,
        trained=sum(len(part.rows) for part in order) * chosen.optim.epochs,
        parts=_parts(step, batches, where),
        choices=choices,
    )


def _endless(loader: TrainingLoader, order: EpochOrder) -> Iterator[Batch]:
    for epoch in count():
        order.set_epoch(epoch)
        yield from loader


def _timed(step: Callable[[Batch], None], batches: Iterator[Batch]) -> tuple[float, int]:
    """Seconds of a step, with its waiting for data, and its images."""
    start = time.perf_counter()
    batch = next(batches)
    step(batch)
    return time.perf_counter() - start, len(batch[0])


def _parts(
    step: Callable[[Batch], None], batches: Iterator[Batch], device: torch.device
) -> dict[str, float]:
    """Share of each part in the time of a few steps, whole steps being 1.

    The batch is computed as a whole, and kernel by kernel: the profiler does not see what other
    threads of Python do, nor into what is replayed.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(PROFILED):
            batch = next(batches)
            with record_function("whole step"):
                step(batch)
    times: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        times[event.key] += event.device_time_total if on_gpu else event.cpu_time_total
    shares = {name: times[name] / times["whole step"] for name in PARTS if times[name]}
    return shares | {"other": max(0.0, 1 - sum(shares.values()))}
