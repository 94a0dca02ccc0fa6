"""Steps a second on a GPU, launched kernel by kernel and replayed, for sizes and batches.

    python benchmarks/replays.py STORE [--case light,64 ...] [--out FILE.json]

Each is trained for two seconds on images of the store, as `--hours` measures a machine: with a
wait for the device after each step. A case is a size and a batch. Memory is torch's peak.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from side_by_side import machine

from vitaepp.data.store import Store
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.devices import chosen_device
from vitaepp.training.footprint import step_footprint
from vitaepp.training.hours import measured_speed

#: Seconds of a training of which `--hours` would measure two.
WHOLE = 100.0

CASES = ("light,64", "tiny,64", "tiny,512", "small,512", "base,64", "base,256")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--case", action="append", metavar="SIZE,BATCH")
    parser.add_argument("--out", type=Path, help="JSON file")
    asked = parser.parse_args()
    store = Store(asked.store)
    found: dict[str, Any] = {"machine": machine(), "size": list(store.info.size), "cases": []}
    for case in asked.case or CASES:
        row = measured(store, *case.split(","))
        found["cases"].append(row)
        print(
            f"{case}: {row['steps'][0]:.1f} steps/s, replayed {row['steps'][1]:.1f}; "
            f"{row['gib']:.2f} GiB, estimated {row['estimated_gib']:.2f}",
            flush=True,
        )
        if asked.out:
            asked.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


def measured(store: Store, size: str, batch: str) -> dict[str, Any]:
    """Steps a second, plain and replayed, and the memory of a plain one."""
    settings = (
        f"model.size={size}",
        f"optim.batch_size={batch}",
        "model.patch_size=8",
        "loss.perceptual.weights=none",
    )
    speed, steps, memory = measured_speed(store, range(len(store)), WHOLE), [], 0
    for replay in ("false", "true"):
        recipe = Recipe.load(settings=(*settings, f"trainer.replay={replay}"))
        if chosen_device().type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        steps.append(speed(recipe) / int(batch))
        if replay == "false" and chosen_device().type == "cuda":
            memory = torch.cuda.max_memory_allocated()
    told = step_footprint(recipe, len(store.info.modalities), store.info.size, bf16=True)
    return {
        "size": size,
        "batch": int(batch),
        "steps": [round(s, 1) for s in steps],
        "gib": round(memory / 2**30, 2),
        "estimated_gib": round(told.memory(int(batch)) / 2**30, 2),
    }


if __name__ == "__main__":
    main()
