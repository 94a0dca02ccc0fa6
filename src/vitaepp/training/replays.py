"""Steps that are recorded on a GPU once and replayed: a loss and its gradients in one launch.

A step of a small model is thousands of kernels that take microseconds each, and launching one from
Python takes longer. A CUDA graph launches them all at once. A recorded step reads and writes the
same memory every time, so each batch is copied to where the recorded one was: its images, its
random numbers, and how far the training is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from vitaepp.errors import one_line
from vitaepp.methods import Method, StepOutput
from vitaepp.methods.base import Images
from vitaepp.system.devices import resolved_precision
from vitaepp.system.progress import say
from vitaepp.training.computed import with_gradients
from vitaepp.views.draws import Draws, StandingDraws

#: Batches of so many shapes are recorded: whole ones, the last of an epoch, and either where
#: modalities are missing. Others are computed as they come.
MOST_SHAPES = 4

#: Steps before one is recorded, in which libraries choose their kernels.
WARM_UP = 3

#: What a step computes: terms, weights and monitors, and the gradient of each weight.
Computed = tuple[Sequence[dict[str, Any]], Sequence[Tensor | None]]


def may_replay(method: Method, device: torch.device) -> bool:
    """Whether steps of a method can be recorded on a device.

    Args:
        method: what is trained, by one process.
        device: where it is.
    """
    trainer = method.recipe.trainer
    return (
        trainer.replay
        and device.type == "cuda"
        and torch.version.hip is None  # AMD's devices have the same name
        and method.replayable
        and trainer.compile == "none"
        # Blocks that are computed twice look up the state of random numbers, which waits. In half
        # precision, a factor that changes from step to step keeps gradients from vanishing.
        and not trainer.activation_checkpointing
        and resolved_precision(trainer.precision, device) != "16"
    )


class Replays:
    """The recorded steps of a method, by the shape of their batch.

    They hold the GPU's memory for a step as long as they live.
    """

    def __init__(self) -> None:
        self._steps: dict[tuple[Any, ...], RecordedStep] = {}
        self._pool: Any = None
        self._failed = False

    def __call__(
        self,
        method: Method,
        images: Images,
        rows: Sequence[int],
        present: Bool[Tensor, "batch channel"] | None,
        *,
        epoch: int,
        progress: float,
    ) -> StepOutput:
        """What the method gives for a batch.

        `backward` of the loss hands over the gradients, which stay until the next call.

        Args:
            method: what is trained, always the same.
            images: of the batch, on the method's device.
            rows: of the images in the store.
            present: channels that each image has; all without it.
            epoch: number of this pass over the store, for the random numbers.
            progress: share of the training that is done, from 0 to 1.
        """

        def draws() -> Draws:
            return Draws(method.recipe.seed, epoch, rows, images.device)

        key = (images.shape, images.dtype, present is None)
        step = self._steps.get(key)
        if step is None and len(self._steps) < MOST_SHAPES and not self._failed:
            step = self._recorded(method, images, draws, present)
            if step is not None:
                self._steps[key] = step
        if step is None:
            output: StepOutput = method(images, draws(), progress, present)
            return output
        return step(images, draws(), present, progress)

    def _recorded(
        self,
        method: Method,
        images: Images,
        draws: Callable[[], Draws],
        present: Bool[Tensor, "batch channel"] | None,
    ) -> RecordedStep | None:
        """A step for batches of this shape; if it cannot be recorded None, and no other is kept."""
        if self._pool is None and images.device.type == "cuda":
            self._pool = torch.cuda.graph_pool_handle()
        try:
            return RecordedStep(method, images, draws, present, self._pool)
        except RuntimeError as error:
            why = one_line(error)[:200]
        say(
            f"steps are computed as they come, not replayed ({why}); trainer.replay=false leaves "
            "out the attempt"
        )
        self._failed = True
        self._steps.clear()
        if images.device.type == "cuda":
            torch.cuda.empty_cache()
        return None


class RecordedStep:
    """A step for batches of one shape, in memory that stays where it is.

    Args:
        method: what is trained.
        images: of the first batch.
        draws: gives the random numbers of the first batch, anew at each call.
        present: channels that each of its images has; all without it.
        pool: of memory, which all recorded steps of a method share: they run one after another.

    Raises:
        RuntimeError: the step cannot be recorded.
    """

    def __init__(
        self,
        method: Method,
        images: Images,
        draws: Callable[[], Draws],
        present: Bool[Tensor, "batch channel"] | None,
        pool: Any = None,
    ) -> None:
        self._trained = [p for p in method.parameters() if p.requires_grad]
        self._images, device = images.clone(), images.device
        self._present = None if present is None else present.clone()
        self._progress = torch.zeros((), device=device)
        mixed, dtype = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)

        def forward(numbers: Draws) -> StepOutput:
            # A weight in half precision is made at each replay, not kept from before.
            with torch.autocast(device.type, dtype, enabled=mixed, cache_enabled=False):
                output: StepOutput = method(self._images, numbers, self._progress, self._present)
            return output

        counting = draws()
        with torch.no_grad():
            forward(counting)
        self._numbers = StandingDraws(draws(), counting.drawn)

        def compute() -> Computed:
            self._numbers.rewind()
            output = forward(self._numbers)
            with torch.autocast(device.type, enabled=False):
                gradients = torch.autograd.grad(output.loss, self._trained, allow_unused=True)
            # Without what torch remembers for the backward pass, which would keep streams alive.
            parts: list[dict[str, Any]] = [output.terms, output.weights, output.monitors]
            return [
                {k: v.detach() if isinstance(v, Tensor) else v for k, v in part.items()}
                for part in parts
            ], gradients

        self._replay, (self._parts, self._gradients) = record(compute, device, pool)

    def __call__(
        self,
        images: Images,
        draws: Draws,
        present: Bool[Tensor, "batch channel"] | None,
        progress: float,
    ) -> StepOutput:
        """What the method gives for a batch of this shape."""
        self._images.copy_(images, non_blocking=True)
        self._numbers.load(draws)
        if self._present is not None and present is not None:
            self._present.copy_(present, non_blocking=True)
        self._progress.fill_(progress)
        self._replay()
        terms, weights, monitors = _kept(self._parts)
        output = StepOutput(terms, weights, monitors)
        return with_gradients(output, self._gradients, self._trained)


def record(
    compute: Callable[[], Computed], device: torch.device, pool: Any
) -> tuple[Callable[[], object], Computed]:
    """A function that repeats a computation on a GPU, and the tensors that its results are in.

    Args:
        compute: the same kernels on the same memory whenever it is called.
        device: the GPU.
        pool: where its memory is taken from.

    Raises:
        RuntimeError: it does what cannot be recorded, or there is too little memory.

    Source:
        https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
    """
    before, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    aside.wait_stream(before)
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            compute()
    before.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        # Where the end of a capture fails, torch does not go back to the stream of before.
        # Other threads may go on, such as the one that pins batches.
        with (
            torch.cuda.stream(before),
            torch.cuda.graph(graph, pool=pool, stream=aside, capture_error_mode="thread_local"),
        ):
            results = compute()
    except RuntimeError as error:
        torch.cuda.synchronize(device)
        raise RuntimeError(one_line(error.__context__ or error)) from None
    return graph.replay, results


def _kept(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results in memory of their own, which the next replay does not touch."""
    fixed = [value for part in parts for value in part.values() if isinstance(value, Tensor)]
    own = iter(torch.stack([value.float() for value in fixed]).unbind())
    return [
        {k: next(own) if isinstance(v, Tensor) else v for k, v in part.items()} for part in parts
    ]
