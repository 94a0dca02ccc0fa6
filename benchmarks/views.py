"""The views of a batch against TorchIO's, side by side in one run.

    python benchmarks/views.py [--rounds N] [--out FILE.json]

Ours makes the augmented view of a batch of four 4 × 96³ volumes at once, standardised as training
wants it. The peer is TorchIO's RandomAffine, RandomNoise and RandomGamma with their defaults, on
single volumes in a DataLoader of two workers, as its documentation has it; it does not standardise.
A contestant's step is four batches.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from side_by_side import Contestant, Step, compete, ratio, run_alone
from torch.utils.data import DataLoader, Dataset

from vitaepp.recipe.recipe import Recipe
from vitaepp.system.host import keep_freed_memory
from vitaepp.views.draws import Draws
from vitaepp.views.transforms import random_view, standardize

SHAPE = (4, 96, 96, 96)
BATCH, BATCHES = 4, 4
TARGET = 0.7


def measure(rounds: int) -> dict[str, Any]:
    """Seconds a batch of both, and the ratio."""
    seconds = compete({"ours": Contestant(ours), "TorchIO": Contestant(peer)}, rounds)
    return {
        "case": "views of four 4 × 96³ volumes",
        "target": TARGET,
        "seconds": {k: round(statistics.median(v) / BATCHES, 4) for k, v in seconds.items()},
        "ratios": {"ours / TorchIO": ratio(seconds["ours"], seconds["TorchIO"])},
    }


def volume(index: int) -> torch.Tensor:
    """One volume as it comes from a store."""
    generator = torch.Generator().manual_seed(index)
    return (torch.rand(SHAPE, generator=generator) * 255).half()


def ours() -> Step:
    """Batches of our views."""
    keep_freed_memory()
    images = torch.stack([volume(i) for i in range(BATCH)])
    views = Recipe().views
    count = iter(range(1 << 30))

    def step() -> None:
        for _ in range(BATCHES):
            draws = Draws(0, next(count), range(BATCH))
            standardize(random_view(images.float() / 255, draws, views.second), views.normalize)

    return step


class Augmented(Dataset[torch.Tensor]):
    """Volumes that TorchIO augments one by one."""

    def __init__(self) -> None:
        import torchio as tio

        self.volumes = [volume(i) for i in range(BATCH)]
        self.transform = tio.Compose([tio.RandomAffine(), tio.RandomNoise(), tio.RandomGamma()])

    def __len__(self) -> int:
        return BATCH * BATCHES

    def __getitem__(self, index: int) -> torch.Tensor:
        import torchio as tio

        image = tio.ScalarImage(tensor=self.volumes[index % BATCH].float() / 255)
        return self.transform(image).data


def peer() -> Step:
    """Batches of TorchIO's, from two workers that stay."""
    loader = DataLoader(Augmented(), BATCH, num_workers=2, persistent_workers=True)

    def step() -> None:
        for _ in loader:
            pass

    return step


if __name__ == "__main__":
    run_alone(__doc__, measure, "torchio")
