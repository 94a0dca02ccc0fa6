"""What the tests start several times at once: trainings, one after the other."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from vitaepp.training.module import Training
from vitaepp.training.pretrain import pretrain


class SteadyAdamW(torch.optim.AdamW):
    """AdamW that takes rounding for what it is.

    AdamW divides a gradient by its own size. Where it is zero but for rounding (the keys' bias in
    attention; what a batch norm takes out again), weights move at random, as far as any others.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, eps=1e-3)


def train(requests: list[dict[str, Any]]) -> None:
    """Run each, steadily; one that has a `dies_at` does not get beyond that update."""
    with patch.object(torch.optim, "AdamW", SteadyAdamW):
        for request in requests:
            asked = dict(request)
            last = asked.pop("dies_at", None)
            with patch.object(Training, "training_step", _step_until(last)), suppress(Died):
                pretrain(**asked)


class Died(Exception):
    """Stands for a killed process."""


def _step_until(last: int | None) -> Callable[..., torch.Tensor]:
    step = Training.training_step

    def until(self: Training, *batch: Any) -> torch.Tensor:
        if self.global_step == last:
            raise Died
        return step(self, *batch)

    return until


if __name__ == "__main__":
    train(json.loads(Path(sys.argv[1]).read_text()))
