"""Random numbers of a training step, drawn per sample.

What is random for a sample (its masks, its view, its slices) depends on the seed, the epoch and the
sample alone. So a run that was killed goes on as if nothing had happened, and a batch that is split
over several processes draws what one process would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class Draws:
    """A source of random numbers for the samples of one batch.

    Args:
        seed: of the run.
        epoch: passes over the data so far.
        samples: which samples the batch holds, by their row in the store.
        device: where numbers are wanted. Uniform ones are the same on every device.
        batch: samples of the whole batch, where these are a piece of it.

    Attributes:
        samples: the rows, as they were given.
        batch: the rows of the whole batch.
    """

    def __init__(
        self,
        seed: int,
        epoch: int,
        samples: Sequence[int],
        device: torch.device | str = "cpu",
        *,
        batch: Sequence[int] | None = None,
    ) -> None:
        self.samples = list(samples)
        self.batch = self.samples if batch is None else list(batch)
        self.device = torch.device(device)
        self._seeds = [sample_seed(seed, epoch, sample) for sample in samples]
        self._generators = [torch.Generator().manual_seed(s) for s in self._seeds]
        # Many normal numbers are drawn where they are used; a few uniform ones are carried there.
        self._on_device = (
            self._generators
            if self.device.type == "cpu"
            else [torch.Generator(self.device).manual_seed(s) for s in self._seeds]
        )

    def __len__(self) -> int:
        return len(self._seeds)

    def uniform(self, count: int) -> Float[Tensor, "batch count"]:
        """`count` numbers in [0, 1) for each sample."""
        rows = [torch.rand(count, generator=g) for g in self._generators]
        return torch.stack(rows).to(self.device, non_blocking=True)

    def normal_like(
        self, images: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch channel *space"]:
        """Standard normal numbers in the images' shape."""
        out = torch.empty_like(images, memory_format=torch.contiguous_format)
        for row, generator in zip(out, self._on_device, strict=True):
            row.normal_(generator=generator)
        return out


def sample_seed(seed: int, epoch: int, sample: int) -> int:
    """A seed that differs for every (seed, epoch, sample), in 63 bits."""
    digest = hashlib.blake2b(f"{seed} {epoch} {sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
