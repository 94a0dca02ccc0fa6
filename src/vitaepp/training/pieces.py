"""A batch in pieces, of which each thread of a CPU computes one: its loss and its gradients.

Threads that share every matrix product meet after each operation. A small model has many operations
that take microseconds, so that two threads may take longer than one. Threads that have some images
each meet once a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise

import torch
from jaxtyping import Bool
from torch import Tensor

from vitaepp.methods import Method, StepOutput
from vitaepp.methods.base import Images
from vitaepp.training.computed import with_gradients
from vitaepp.views.draws import Draws

#: Bytes that the gradients of all pieces may take together. The matrices of a model whose gradients
#: are larger keep several threads busy by themselves.
MOST_GRADIENTS = 2**29

#: Pieces at most: Python runs in one thread at a time, and would be waited for.
MOST_PIECES = 8


def pieces_of(method: Method, threads: int, device: torch.device) -> int:
    """Into how many pieces a batch is split; 1 where it is computed as a whole.

    Args:
        method: what is trained.
        threads: that may compute.
        device: where the method is.
    """
    compiled = method.recipe.trainer.compile != "none"
    if device.type != "cpu" or not method.by_image or compiled:
        return 1
    gradients = sum(p.numel() * p.element_size() for p in _trained(method))
    most = min(MOST_PIECES, MOST_GRADIENTS // max(1, gradients))
    return max(1, min(threads, method.recipe.optim.batch_size, most))


@contextmanager
def in_pieces(method: Method, device: torch.device) -> Iterator[None]:
    """Train a method on a CPU with batches in pieces, where that is faster.

    Each piece is computed by its part of torch's threads, and so is what is left to be computed as
    a whole: to wake others for each small operation takes longer.

    Args:
        method: what is trained.
        device: where it is.
    """
    threads = torch.get_num_threads()
    method.pieces = pieces_of(method, threads, device)
    if method.pieces > 1:
        torch.set_num_threads(threads // method.pieces)
    try:
        yield
    finally:
        method.pieces = 1
        torch.set_num_threads(threads)


def forward_in_pieces(
    method: Method,
    images: Images,
    rows: Sequence[int],
    present: Bool[Tensor, "batch channel"] | None,
    *,
    epoch: int,
    progress: float,
) -> StepOutput:
    """What a method gives for a batch whose pieces are computed side by side.

    Each term is the mean over the pieces, weighted by their images. The gradients are computed
    together with the loss; `backward` of the loss only hands them over. They are summed in the
    order of the pieces, so that the same number of pieces gives the same bits.

    Args:
        method: what is trained; it gives means over images.
        images: of the batch, on a CPU.
        rows: of the images in the store.
        present: channels that each image has; all without it.
        epoch: number of this pass over the store, for the random numbers.
        progress: share of the training that is done, from 0 to 1.
    """
    pieces = min(method.pieces, len(rows))
    threads = torch.get_num_threads()
    trained = _trained(method)
    mixed = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def compute(piece: slice) -> tuple[StepOutput, Sequence[Tensor | None]]:
        torch.set_num_threads(threads)  # each thread has its own number
        mine = rows[piece]
        draws = Draws(method.recipe.seed, epoch, mine, images.device, batch=rows)
        here = None if present is None else present[piece]
        # What a thread computes in is its own.
        with torch.autocast("cpu", mixed[1], enabled=mixed[0]):
            output = method(images[piece], draws, progress, here)
            loss = output.loss * (len(mine) / len(rows))
        return output, torch.autograd.grad(loss, trained, allow_unused=True)

    ends = [len(rows) * i // pieces for i in range(pieces + 1)]
    cuts = [slice(start, end) for start, end in pairwise(ends)]
    shares = [(cut.stop - cut.start) / len(rows) for cut in cuts]
    futures = [_pool(pieces).submit(compute, cut) for cut in cuts]
    wait(futures)
    outputs, gradients = zip(*(future.result() for future in futures), strict=True)
    first = outputs[0]
    mean = partial(_weighted, shares)
    output = StepOutput(
        {name: mean([one.terms[name] for one in outputs]) for name in first.terms},
        first.weights,
        {name: mean([one.monitors[name] for one in outputs]) for name in first.monitors},
        # The spread over the batch is none of the spreads inside the pieces.
        None if first.features is None else torch.cat([one.features for one in outputs]),
    )
    summed = [_sum(each) for each in zip(*gradients, strict=True)]
    return with_gradients(output, summed, trained)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="vitaepp-step")


def _trained(method: Method) -> list[torch.nn.Parameter]:
    return [p for p in method.parameters() if p.requires_grad]


def _weighted(shares: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    return torch.stack(
        [share * value.detach() for share, value in zip(shares, values, strict=True)]
    ).sum(dim=0)


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """The sum in the order given; the first tensor is changed."""
    known = [gradient for gradient in gradients if gradient is not None]
    if not known:
        return None
    total = known[0]
    for gradient in known[1:]:
        total += gradient
    return total
