"""What the tests start several times at once: trainings, one after the other."""

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from vitaepp.training.pretrain import pretrain


class SteadyAdamW(torch.optim.AdamW):
    """AdamW that takes rounding for what it is.

    AdamW divides a gradient by its own size. Where it is zero but for rounding (the keys' bias in
    attention; what a batch norm takes out again), weights move at random, as far as any others.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, eps=1e-3)


def train(requests: list[dict[str, Any]]) -> None:
    """Run each, steadily."""
    with patch.object(torch.optim, "AdamW", SteadyAdamW):
        for request in requests:
            pretrain(**request)


if __name__ == "__main__":
    train(json.loads(Path(sys.argv[1]).read_text()))
