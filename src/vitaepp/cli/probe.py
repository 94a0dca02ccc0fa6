"""What a new interpreter can import, and what torch finds there, one line of JSON each.

`doctor` runs this file as a process of its own: a package that crashes the interpreter, or a driver
that never answers, then ends this process only.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

#: The word that begins a line which is meant for `doctor`.
MARK = "vitaepp-probe"


def tell(**facts: Any) -> None:
    """Write one line for `doctor`."""
    print(MARK, json.dumps(facts), flush=True)


def main(modules: list[str]) -> None:
    """Import modules one after the other, then ask torch for its devices."""
    for module in modules:
        tell(module=module)
        try:
            import_module(module)
        except Exception as error:  # an installation can fail in every way
            tell(module=module, error=f"{type(error).__name__}: {error}")
        else:
            tell(module=module, error=None)
    if "torch" in sys.modules:
        tell(device="torch")
        try:
            tell(device="torch", **_torch())
        except Exception as error:  # and so can a driver
            tell(device="torch", error=f"{type(error).__name__}: {error}")


def _torch() -> dict[str, Any]:
    """What torch computes on, and where it keeps what it downloads."""
    import torch

    from vitaepp.nn.vgg import imagenet_file
    from vitaepp.system.devices import chosen_device, device_name, has_bf16

    chosen = chosen_device()
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    devices = []
    for device in map(torch.device, names or [chosen.type]):
        own = torch.cuda.mem_get_info(device) if device.type == "cuda" else (None, None)
        # A GPU that is too new or too old for this torch is found, but computes nothing.
        ones = torch.ones(8, 8, device=device)
        if float((ones @ ones).sum()) != 8**3:
            raise ArithmeticError(f"{device_name(device)} multiplies wrongly")
        devices.append(
            {
                "kind": device.type,
                "name": device_name(device),
                "bf16": has_bf16(device),
                "free_bytes": own[0],
                "total_bytes": own[1],
            }
        )
    return {
        "devices": devices,
        "built_for": torch.version.cuda or torch.version.hip or "CPU",
        "threads": torch.get_num_threads(),
        "weights": str(imagenet_file()),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
