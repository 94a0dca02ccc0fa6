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

#: What a step computes: its result, and the gradient of each weight.
Computed = tuple[StepOutput, Sequence[Tensor | None]]


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
        and method.replayable
        and trainer.compile == "none"
        # Blocks that are computed twice look up the state of random numbers, which waits. In half
        # precision, a factor that changes from step to step keeps gradients from vanishing.
        and not trainer.activation_checkpointing
        and resolved_precision(trainer.precision, device) != "16"
    )


class Replays:
    """The recorded steps of a method, by the shape of their batch.

    Args:
        method: what is trained.
    """

    def __init__(self, method: Method) -> None:
        self._method = method
        self._steps: dict[tuple[Any, ...], RecordedStep] = {}
        self._failed = False

    def __call__(
        self,
        images: Images,
        rows: Sequence[int],
        present: Bool[Tensor, "batch channel"] | None,
        *,
        epoch: int,
        progress: float,
    ) -> StepOutput:
        """What the method gives for a batch. `backward` of the loss hands over the gradients.

        Args:
            images: of the batch, on the method's device.
            rows: of the images in the store.
            present: channels that each image has; all without it.
            epoch: number of this pass over the store, for the random numbers.
            progress: share of the training that is done, from 0 to 1.
        """

        def draws() -> Draws:
            return Draws(self._method.recipe.seed, epoch, rows, images.device)

        key = (images.shape, images.dtype, present is None)
        step = self._steps.get(key)
        if step is None and len(self._steps) < MOST_SHAPES and not self._failed:
            try:
                step = RecordedStep(self._method, images, draws, present)
                self._steps[key] = step
            except RuntimeError as error:
                self._failed = True
                say(
                    f"steps are computed as they come, not replayed ({one_line(error)[:200]}); "
                    "trainer.replay=false leaves out the attempt"
                )
        if step is None:
            return self._method(images, draws(), progress, present)
        return step(images, draws(), present, progress)


class RecordedStep:
    """A step for batches of one shape, in memory that stays where it is.

    Args:
        method: what is trained.
        images: of the first batch.
        draws: gives the random numbers of the first batch, anew at each call.
        present: channels that each of its images has; all without it.

    Raises:
        RuntimeError: the step cannot be recorded.
    """

    def __init__(
        self,
        method: Method,
        images: Images,
        draws: Callable[[], Draws],
        present: Bool[Tensor, "batch channel"] | None,
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
            return output, torch.autograd.grad(output.loss, self._trained, allow_unused=True)

        self._replay, (self._output, self._gradients) = record(compute, device)

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
        return with_gradients(_kept(self._output), self._gradients, self._trained)


def record(compute: Callable[[], Computed], device: torch.device) -> tuple[Any, Computed]:
    """A function that repeats a computation on a GPU, and the tensors that its results are in.

    Args:
        compute: the same kernels on the same memory whenever it is called.
        device: the GPU.

    Source:
        https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
    """
    aside = torch.cuda.Stream(device)
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            compute()
    torch.cuda.current_stream(device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on, such as the one that pins batches.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        results = compute()
    return graph.replay, results


def _kept(output: StepOutput) -> StepOutput:
    """A result in memory of its own, which the next replay does not touch."""
    parts: list[dict[str, Any]] = [output.terms, output.weights, output.monitors]
    fixed = [value for part in parts for value in part.values() if isinstance(value, Tensor)]
    own = iter(torch.stack([value.detach().float() for value in fixed]).unbind())
    terms, weights, monitors = (
        {name: next(own) if isinstance(value, Tensor) else value for name, value in part.items()}
        for part in parts
    )
    return StepOutput(terms, weights, monitors)
