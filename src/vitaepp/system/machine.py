"""The machine that a training runs on, as far as it decides what fits."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from vitaepp.system.devices import has_bf16
from vitaepp.system.host import usable_cores, usable_memory

GIB = 2**30


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
        device = training_device()
        name = own = None
        if device.type == "cuda":
            name, own = device_name(device), torch.cuda.get_device_properties(device).total_memory
        elif device.type == "mps":
            name = "Apple GPU"
        return cls(usable_cores(), usable_memory(), name, own or 0, has_bf16(device))

    def __str__(self) -> str:
        text = f"{self.cores} cores, {self.memory / GIB:.1f} GiB of memory"
        if self.accelerator is None:
            return f"{text}, no accelerator"
        own = f" with {self.accelerator_memory / GIB:.1f} GiB" if self.accelerator_memory else ""
        return f"{text}, {self.accelerator}{own}"


def training_device() -> torch.device:
    """What Lightning trains on: the first accelerator, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """What a device is called: the GPU's name, or the processor's and its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {usable_cores()} cores"
    except OSError:
        pass
    return f"{platform.machine()}, {usable_cores()} cores"
