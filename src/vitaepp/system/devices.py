"""What is computed on, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from vitaepp.errors import RecipeError


def autocast(device: torch.device, precision: str) -> torch.autocast | AbstractContextManager[None]:
    """Mixed precision on a device; none for `32`."""
    dtype = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}[
        resolved_precision(precision, device)
    ]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def resolved_precision(precision: str, device: torch.device) -> str:
    """What `auto` means on a device; others as they are.

    Raises:
        RecipeError: not a precision.
    """
    if precision not in ("auto", "32", "bf16", "16"):
        raise RecipeError(f"precision {precision}: give 32, bf16, 16 or auto")
    return ("bf16" if has_bf16(device) else "32") if precision == "auto" else precision


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 by itself; where it does not, it would only be slower."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Older torch does not tell.
    told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(told.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def chosen_device(asked: str | torch.device | None) -> torch.device:
    """What was asked for; without it the accelerator, where there is one.

    Raises:
        RecipeError: there is no such device here.
    """
    if asked is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.zeros(1, device=device).cpu()
    except Exception:  # torch has many ways to say so
        here = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise RecipeError(f"device {asked}: not here; this machine has {here}") from None
    return device
