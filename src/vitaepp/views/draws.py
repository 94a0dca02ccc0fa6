"""Random numbers of a training step, drawn per sample.

What is random for a sample (its masks, its view, its slices) depends on the seed, the epoch and the
sample alone. So a run that was killed goes on as if nothing had happened, and a batch that is split
over several processes draws what one process would have drawn.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitaepp.system.devices import carried


def number_of(subject: str) -> int:
    """A number to draw by, which depends on a subject's name alone, and on no store's order."""
    return int.from_bytes(hashlib.blake2b(subject.encode(), digest_size=4).digest(), "big")


class Draws:
    """A source of random numbers for the samples of one batch.

    Args:
        seed: of the run.
        epoch: passes over the data so far.
        samples: which samples the batch holds, by their row in the store.
        device: where numbers are wanted. Uniform ones are the same on every device, normal ones on
            all but NVIDIA's and AMD's.
        batch: samples of the whole batch, where these are a piece of it.

    Attributes:
        samples: the rows, as they were given.
        batch: the rows of the whole batch.
        drawn: uniform numbers that each sample has drawn.
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
        self.drawn = 0
        self._seeds = [sample_seed(seed, epoch, sample) for sample in samples]
        self._generators = [torch.Generator().manual_seed(s) for s in self._seeds]
        self._fields = 0

    def __len__(self) -> int:
        return len(self._seeds)

    @property
    def seeds(self) -> Int[Tensor, " batch"]:
        """The seed of each sample, on the device."""
        return carried(torch.tensor(self._seeds), self.device)

    def uniform(self, count: int) -> Float[Tensor, "batch count"]:
        """`count` numbers in [0, 1) for each sample.

        Two calls give what one would give for both.
        """
        self.drawn += count
        rows = [torch.rand(count, generator=g) for g in self._generators]
        return carried(torch.stack(rows), self.device)

    def normal_like(
        self, images: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch channel *space"]:
        """Standard normal numbers in the images' shape."""
        if self.device.type == "cuda":
            # A generator for each sample there would start a kernel for each.
            self._fields += 1
            return hashed_normal(self.seeds, self._fields, images)
        out = torch.empty(images.shape, dtype=images.dtype)
        for row, generator in zip(out, self._generators, strict=True):
            row.normal_(generator=generator)
        return out.to(self.device)


class StandingDraws(Draws):
    """Random numbers in tensors that stay where they are, for steps that are replayed.

    Args:
        draws: the numbers of a batch, none of them drawn yet.
        uniform: how many uniform numbers each sample draws in a step.
    """

    def __init__(self, draws: Draws, uniform: int) -> None:
        self.samples, self.batch, self.device = draws.samples, draws.batch, draws.device
        self._standing = draws.uniform(uniform), draws.seeds
        self.rewind()

    def __len__(self) -> int:
        return len(self.samples)

    def load(self, draws: Draws) -> None:
        """Put the numbers of another batch of the same size in their place."""
        numbers, seeds = self._standing
        numbers.copy_(draws.uniform(numbers.shape[1]), non_blocking=True)
        seeds.copy_(draws.seeds, non_blocking=True)

    def rewind(self) -> None:
        """The next numbers are the first ones again."""
        self.drawn = self._fields = 0

    @property
    def seeds(self) -> Int[Tensor, " batch"]:
        """The seed of each sample."""
        return self._standing[1]

    def uniform(self, count: int) -> Float[Tensor, "batch count"]:
        """The next `count` numbers of each sample."""
        self.drawn += count
        return self._standing[0][:, self.drawn - count : self.drawn]

    def normal_like(
        self, images: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch channel *space"]:
        """Standard normal numbers in the images' shape."""
        self._fields += 1
        return hashed_normal(self.seeds, self._fields, images)


def hashed_normal(
    seeds: Int[Tensor, " batch"], field: int, like: Float[Tensor, "batch channel *space"]
) -> Float[Tensor, "batch channel *space"]:
    """Standard normal numbers that depend on a sample's seed, the field and the place alone.

    Args:
        seeds: of the samples.
        field: which of a sample's fields of numbers.
        like: the shape.

    Source:
        SplitMix64 (Steele et al. 2014) at every place; the transform of Box and Muller (1958) of
        24 of its bits and 24 others.
    """
    places = torch.arange(1, like[0].numel() + 1, device=seeds.device)
    bits = _mixed(_mixed(seeds + _wrapped(field * _GOLDEN))[:, None] + places * _GOLDEN)
    radius = ((bits >> 40) & _LOW).add_(1).to(torch.float32).mul_(2.0**-24).log_().mul_(-2).sqrt_()
    angle = (bits & _LOW).to(torch.float32).mul_(2 * math.pi * 2.0**-24)
    return radius.mul_(angle.cos_()).view(like.shape).to(like.dtype)


def _wrapped(value: int) -> int:
    """A number as 64 bits with a sign hold it."""
    return (value + 2**63) % 2**64 - 2**63


#: SplitMix64's step and factors, as numbers with a sign; and the low 24 bits.
_GOLDEN = _wrapped(0x9E3779B97F4A7C15)
_FACTORS = ((30, _wrapped(0xBF58476D1CE4E5B9)), (27, _wrapped(0x94D049BB133111EB)))
_LOW = 2**24 - 1


def _mixed(state: Int[Tensor, "*place"]) -> Int[Tensor, "*place"]:
    for bits, factor in _FACTORS:
        state = (state ^ _shifted(state, bits)) * factor
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """To the right, with zeros coming in."""
    return (state >> bits) & (2 ** (64 - bits) - 1)


def sample_seed(seed: int, epoch: int, sample: int) -> int:
    """A seed that differs for every (seed, epoch, sample), in 63 bits."""
    digest = hashlib.blake2b(f"{seed} {epoch} {sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
