"""What torch computes on here, in which precision, and how much memory it has."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from vitaepp.errors import RecipeError
from vitaepp.system.host import GIB, peak_memory, processor_name, usable_cores, usable_memory
from vitaepp.system.progress import say

PRECISIONS = ("auto", "32", "bf16", "16")


@dataclass(frozen=True)
class Machine:
    """What there is to train on.

    Attributes:
        cores: processor cores that this process may use.
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
        device = chosen_device()
        name = None if device.type == "cpu" else device_name(device)
        memory = 0
        if device.type == "cuda":
            memory = torch.cuda.get_device_properties(device).total_memory
        return cls(usable_cores(), usable_memory(), name, memory, has_bf16(device))

    def __str__(self) -> str:
        text = f"{self.cores} cores, {self.memory / GIB:.1f} GiB of memory"
        if self.accelerator is None:
            return f"{text}, no accelerator"
        own = f" with {self.accelerator_memory / GIB:.1f} GiB" if self.accelerator_memory else ""
        return f"{text}, {self.accelerator}{own}"


def chosen_device(name: str | torch.device | None = None) -> torch.device:
    """The device of this name; without a name the accelerator, where there is one, as Lightning.

    Raises:
        RecipeError: there is no such device here.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except Exception:  # torch raises errors of many types here
        here = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise RecipeError(f"device {name}: not here; this machine has {here}") from None
    return device


def device_name(device: torch.device) -> str:
    """What a device is called: the GPU's name, or the processor's and its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "Apple GPU" if device.type == "mps" else processor_name()


def most_memory(device: torch.device) -> int:
    """The most bytes that were held: by tensors on an NVIDIA GPU, else by this process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()


def autocast(device: torch.device, precision: str) -> torch.autocast | AbstractContextManager[None]:
    """Mixed precision on a device; none for `32`."""
    dtype = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}[
        resolved_precision(precision, device)
    ]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def carried(numbers: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Numbers on a device; from pinned memory they are copied to a GPU without waiting for it."""
    if device.type == "cuda":
        numbers = numbers.pin_memory()
    return numbers.to(device, non_blocking=True)


def resolved_precision(precision: str, device: torch.device) -> str:
    """`32`, `bf16` or `16`: what a recipe says, or for `auto` what the device is fastest in.

    Raises:
        RecipeError: not a precision.
    """
    if precision not in PRECISIONS:
        raise RecipeError(f"precision {precision}: give 32, bf16, 16 or auto")
    return ("bf16" if has_bf16(device) else "32") if precision == "auto" else precision


def say_emulated(precision: str, device: torch.device) -> None:
    """Say where a precision takes far longer than 32 would, because a device emulates it.

    Recipes and encoders of another machine ask for such a one.
    """
    if precision == "bf16" and not has_bf16(device):
        say(
            f"{device_name(device)} does not multiply bf16 by itself, and can be ten times as slow "
            "with it as with 32; ask for precision 32 if that is too slow"
        )


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 by itself; where it does not, it would only be slower."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Versions of torch without this function do not tell.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
