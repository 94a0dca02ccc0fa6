"""Peak memory of real training steps beside what `step_footprint` says of them, and their speed.

    python benchmarks/memory.py [--case NAME ...] [--out FILE.json]

Each case runs in a process of its own: three steps with AdamW, while the resident memory is
sampled. What the process held before, libraries included, is subtracted. Footprints are those of a
CPU; the speed is that of the case's multiplications, to hold against what `vitaepp plan` assumes of
a core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import torch

from vitaepp.methods import build_method
from vitaepp.recipe.recipe import Recipe
from vitaepp.training.footprint import step_footprint
from vitaepp.training.step import build_optimizer, training_step

LIGHT = ("model.decoder_embed_dim=192", "model.decoder_depth=2", "model.decoder_num_heads=6")

#: Name: channels, size, batch, settings.
CASES: dict[str, tuple[int, tuple[int, ...], int, tuple[str, ...]]] = {
    "tiny 1×48×48×48": (1, (48, 48, 48), 4, ("model.size=tiny",)),
    "tiny 1×48×48×48 bf16": (1, (48, 48, 48), 4, ("model.size=tiny", "trainer.precision=bf16")),
    "small 4×64×64×64": (4, (64, 64, 64), 2, ("model.size=small",)),
    "small 4×64×64×64 bf16": (4, (64, 64, 64), 2, ("model.size=small", "trainer.precision=bf16")),
    "base 4×96×96×96 bf16": (4, (96, 96, 96), 1, ("trainer.precision=bf16",)),
    "small 1×128×128": (1, (128, 128), 32, ("model.size=small", "model.patch_size=16")),
    "tiny light 1×64×64": (1, (64, 64), 32, ("model.size=tiny", *LIGHT)),
    "vitae tiny light 1×40×56×48 bf16": (
        1,
        (40, 56, 48),
        8,
        ("method=vitae", "model.size=tiny", "trainer.precision=bf16", *LIGHT),
    ),
}

STEPS = 3
MIB = 2**20


def steps(recipe: Recipe, channels: int, size: tuple[int, ...], batch: int, count: int) -> None:
    method = build_method(recipe, channels, size)
    optimizer = build_optimizer(method, images_per_update=batch)
    for _ in range(count):
        images = torch.rand(batch, channels, *size) * 255
        training_step(method, optimizer, (images, list(range(batch)), 1.0))


class PeakMemory(threading.Thread):
    """Samples this process's resident memory until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.peak = psutil.Process().memory_info().rss
        self.done = threading.Event()

    def run(self) -> None:
        process = psutil.Process()
        while not self.done.wait(0.002):
            self.peak = max(self.peak, process.memory_info().rss)


def measure(name: str, count: int = STEPS) -> dict[str, float | str]:
    channels, size, batch, settings = CASES[name]
    recipe = Recipe.load(settings=("trainer.precision=32", *settings))
    # Whatever torch loads at its first step is not the step's.
    least = {"embed_dim": 24, "depth": 1, "num_heads": 2, "decoder_embed_dim": 24}
    small = recipe.changed(
        model={**least, "decoder_depth": 1, "decoder_num_heads": 2, "patch_size": 8}
    )
    steps(small, 1, (16,) * len(size), 2, 1)
    watch = PeakMemory()
    watch.start()
    started = time.monotonic()
    steps(recipe, channels, size, batch, count)
    seconds = time.monotonic() - started
    watch.done.set()
    watch.join()
    told = step_footprint(recipe, channels, size, bf16=recipe.trainer.precision == "bf16")
    measured = watch.peak - watch.before
    return {
        "case": f"{name}, batch {batch}",
        "measured_mib": round(measured / MIB),
        "estimated_mib": round(told.memory(batch) / MIB),
        "ratio": round(told.memory(batch) / measured, 2),
        "gflops_per_core": round(
            count * batch * told.flops / seconds / 1e9 / torch.get_num_threads(), 1
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="the second has the optimizer's state"
    )
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        print(json.dumps(measure(asked.case[0], asked.steps)))
        return
    results = []
    for name in asked.case or CASES:
        command = [sys.executable, __file__, "--alone", "--case", name, "--steps", str(asked.steps)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results.append(json.loads(out))
        print(json.dumps(results[-1], ensure_ascii=False), flush=True)
    if asked.out:
        told = {"torch": torch.__version__, "cores": os.cpu_count(), "cases": results}
        asked.out.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
