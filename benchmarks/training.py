"""Training from a store: waiting, memory, growth with the images' size and with their number.

    python benchmarks/training.py [--out FILE.json]

Every figure is of `vitaepp bench`'s own measurement, each in a fresh process. Work is counted by
torch's flop counter, as `vitaepp plan` does: time per work should not grow with the images' size.
So is the memory of a step at the paper's scale, which a CPU is too slow to make.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from embed import example_store
from side_by_side import machine
from step import ALL_LOSSES

from vitaepp.recipe.recipe import Recipe
from vitaepp.training.bench import bench
from vitaepp.training.footprint import step_footprint

#: ViT-AE++ with a small encoder and half the paper's decoder, one slice for the perceptual term.
SETTINGS = (
    "model.size=small",
    "model.patch_size=8",
    "model.decoder_embed_dim=256",
    "model.decoder_depth=4",
    "model.decoder_num_heads=8",
    "loss.perceptual.slices=1",
    ALL_LOSSES,
    "optim.batch_size=2",
)
SIDES = (32, 48, 64, 96, 128)
SUBJECTS = (32, 256)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="*", default=SIDES)
    parser.add_argument("--out", type=Path, help="JSON file")
    asked = parser.parse_args()
    found = {"machine": machine(), "settings": SETTINGS, **measure(asked.sides)}
    print(json.dumps(found, indent=2, ensure_ascii=False))
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")


def measure(sides: tuple[int, ...]) -> dict[str, Any]:
    """Waiting, growth with size, growth with number."""
    with tempfile.TemporaryDirectory() as place:
        stores = {}
        for images, side in [(16, side) for side in sides] + [(n, 32) for n in SUBJECTS]:
            folder = Path(place) / f"{images}-{side}"
            folder.mkdir()
            stores[images, side] = str(example_store(folder, images, side))
        waiting = {
            cache: fresh(trained, stores[16, 48], (f"data.cache={cache}", "data.workers=1"), 8)
            for cache in ("auto", "none")
        }
        growth = {side: fresh(trained, stores[16, side], (), 3) for side in sides}
        for side, row in growth.items():
            row["gflop"] = fresh(work, side)
            row["seconds_per_tflop"] = 1e3 * row["step"] / row["gflop"]
        number = {
            n: fresh(trained, stores[n, 32], ("data.cache=none", "data.workers=1"), 8)
            for n in SUBJECTS
        }
    return {
        "waiting": {"target": 0.02, **{cache: row["waiting"] for cache, row in waiting.items()}},
        "by_side": growth,
        "by_subjects_from_disk": number,
        "paper": {"target_gb": 8, "memory_gb": fresh(paper_memory) / 1e9},
    }


def fresh(function: Any, *arguments: Any) -> Any:
    """A function's result from a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def trained(store: str, settings: tuple[str, ...], steps: int) -> dict[str, float]:
    """Seconds a step, share of waiting, and memory."""
    recipe = Recipe.load(settings=(*SETTINGS, *settings))
    speed = bench(store, recipe=recipe, steps=steps)
    return {"step": speed.step, "waiting": speed.waiting, "memory_mib": speed.memory / 2**20}


def paper_memory() -> int:
    """Bytes of a step of ViT-B with all losses on four 4 × 96³ volumes in bf16, as counted."""
    return step_footprint(Recipe.load(settings=(ALL_LOSSES,)), 4, (96,) * 3, bf16=True).memory(4)


def work(side: int) -> float:
    """Floating-point operations of a step, in units of 10⁹."""
    return 2 * step_footprint(Recipe.load(settings=SETTINGS), 1, (side,) * 3).flops / 1e9


if __name__ == "__main__":
    main()
