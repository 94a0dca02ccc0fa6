"""Early stopping: a loss on images that are held out ends a training; its best state is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from vitaepp.data.store import Store
from vitaepp.encoder.model import at_once
from vitaepp.methods import Method
from vitaepp.system.devices import autocast
from vitaepp.system.files import atomic_path
from vitaepp.system.tensors import write_tensors
from vitaepp.training.callbacks import Monitor

#: The column of metrics.csv.
COLUMN = "held_out"

Result = TypeVar("Result")


class HeldOut(Monitor):
    """Keeps the weights with the lowest loss on held-out images, and ends a training without hope.

    The state before the first step is one of them.

    Args:
        store: prepared store.
        rows: of the store, those that are held out.
        patience: epochs without a lower loss after which training ends.
        file: where the best state is kept.

    Attributes:
        lowest: the lowest loss so far.
        best: the epoch after which it was; 0 before the first step.
    """

    def __init__(self, store: Store, rows: Sequence[int], patience: int, file: Path) -> None:
        self.store, self.rows, self.patience, self.file = store, list(rows), patience, file
        self.lowest, self.best = math.inf, 0

    def begin(self, method: Method) -> None:
        """The loss before the first step."""
        self._look(method, 0)

    def scores(
        self, method: Method, epoch: int, seconds: float, first: bool = True, last: bool = False
    ) -> dict[str, float]:
        """The loss after an epoch; NaN in all processes but the first."""
        return {COLUMN: self._look(method, epoch + 1) if first else math.nan}

    def _look(self, method: Method, done: int) -> float:
        total = counted = 0.0
        evaluate: Any = method.evaluate  # of a method that learns labels
        for loss, weight in over_rows(method, self.store, self.rows, evaluate):
            total, counted = total + loss.item(), counted + weight.item()
        loss = total / counted
        if loss < self.lowest:
            self.lowest, self.best = loss, done
            with atomic_path(self.file) as temporary:
                write_tensors(temporary, method.state_dict())
        self.ended = done - self.best >= self.patience
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The lowest loss, and when it was."""
        return {"lowest": self.lowest, "best": self.best, "ended": self.ended}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.lowest, self.best, self.ended = state["lowest"], state["best"], state["ended"]


def over_rows(
    method: Method,
    store: Store,
    rows: Sequence[int],
    call: Callable[
        [Shaped[Tensor, "batch channel *space"], list[int], Bool[Tensor, "batch channel"]], Result
    ],
) -> Iterator[Result]:
    """Call something with images of a store, batch by batch, without gradients or augmentation.

    Args:
        method: is in evaluation mode meanwhile.
        store: prepared store.
        rows: which images.
        call: gets the images on the method's device, their rows, and the channels that they have.
    """
    device = next(method.parameters()).device
    present = torch.from_numpy(store.present)
    size = at_once(device, store.info.shape)
    training = method.training
    method.eval()
    try:
        with torch.inference_mode():
            for start, images in enumerate(store.batches(size, list(rows))):
                part = list(rows[start * size : start * size + len(images)])
                with autocast(device, method.recipe.trainer.precision):
                    yield call(torch.from_numpy(images).to(device), part, present[part].to(device))
    finally:
        method.train(training)
