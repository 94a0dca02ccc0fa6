"""The machine that a training runs on, as far as it decides what fits."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from vitaepp.devices import has_bf16, resolved_precision
from vitaepp.recipe import Recipe

GIB = 2**30

#: Where control groups tell a container its limit, in version 2 and 1.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Machine:
    """What there is to compute with.

    Attributes:
        cores: that this process may use.
        memory: bytes in all, or the container's limit. What is free at the moment plays no part,
            so that every process of a training on several devices comes to the same choices.
        accelerator: name of the device that training would take, if there is one.
        accelerator_memory: its bytes; 0 without one, or where it shares the machine's.
        bf16: whether the device multiplies bf16 by itself.
    """

    cores: int
    memory: int
    accelerator: str | None = None
    accelerator_memory: int = 0
    bf16: bool = False

    @classmethod
    def here(cls) -> Machine:
        """This machine, and its first accelerator."""
        name, own = _accelerator()
        return cls(_cores(), _memory(), name, own, has_bf16())

    def __str__(self) -> str:
        text = f"{self.cores} cores, {self.memory / GIB:.1f} GiB of memory"
        if self.accelerator is None:
            return f"{text}, no accelerator"
        own = f" with {self.accelerator_memory / GIB:.1f} GiB" if self.accelerator_memory else ""
        return f"{text}, {self.accelerator}{own}"


def precision_of(recipe: Recipe) -> str:
    """`32`, `bf16` or `16`: what a recipe asks for, or what the device is fastest in."""
    return resolved_precision(recipe.trainer.precision)


def device_name(device: torch.device) -> str:
    """What a device is called: the GPU's name, or the processor's and its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    except OSError:
        pass
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _accelerator() -> tuple[str | None, int]:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
    if torch.backends.mps.is_available():
        return "Apple GPU", 0
    return None, 0


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in map(Path, LIMITS):
        try:
            memory = min(memory, int(limit.read_text()))
        except (OSError, ValueError):  # no such limit: no file, or "max"
            continue
    return memory
