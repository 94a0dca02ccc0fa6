"""How long the maps of a volume take, with Shapley values by leaving out patches of a ViT-S.

    python benchmarks/explain.py [--side N] [--parts N] [--pairs N] [--measured N] [--threads N]

Images are encoded as `vitaepp explain` does it, with some to all of the parts of one volume of
noise: `--measured` pairs of orders with patches left out, and a few whole images with parts made
grey. The time of a subject is in proportion to how often `explain` does each. It is the time of the
processor, divided by the threads, so that programs beside it count less.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from vitaepp import Encoder, Recipe
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.explanation.games import Greyed, LeftOut
from vitaepp.explanation.lattice import spread
from vitaepp.explanation.networks import parts_in
from vitaepp.explanation.scores import distance_in
from vitaepp.explanation.shapley import shapley
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.system.devices import Machine, chosen_device, resolved_precision
from vitaepp.system.host import keep_freed_memory

#: Maps of a transformer whose curves `explain` measures.
MAPS = 4


def measure(
    side: int, pairs: int, measured: int, parts: int | None, precision: str
) -> dict[str, object]:
    keep_freed_memory()
    on = chosen_device()
    recipe = Recipe.load(settings=("model.size=small", "model.patch_size=8"))
    info = StoreInfo(("t1",), (side,) * 3, (1.0,) * 3, "float16", "image")
    encoder = Encoder.untrained(recipe, info).to(on)
    encoder.config = replace(encoder.config, prepared=info)
    assert isinstance(encoder.backbone, VisionTransformer)
    features = np.random.default_rng(0).normal(size=(8, encoder.dim)).astype(np.float32)
    image = torch.randn(1, 1, side, side, side, device=on)
    players = parts_in(encoder.backbone.grid, parts)
    count = int(players.max()) + 1
    rest = (distance_in(features), 0, resolved_precision(precision, on))
    game = LeftOut(encoder, image, players, *rest)
    greyed = Greyed(encoder, image, spread(players, info.size), *rest)
    game(np.ones((1, count), bool))
    left_out = processor_seconds(lambda: shapley(game, count, measured, 0))
    whole = processor_seconds(lambda: greyed(np.ones((4, count), bool)))
    each = left_out / evaluations(count, measured)
    # For both networks Shapley values and occlusion; and the curves of the trained one's maps.
    total_left_out = 2 * evaluations(count, pairs) + MAPS * evaluations(count, 1)
    total_whole = 2 * (count + 1)
    threads = torch.get_num_threads() if on.type == "cpu" else 1
    return {
        "case": f"maps of 1 × {side}³, ViT-S, patch 8, {count} parts, {pairs} pairs",
        "machine": str(Machine.here()),
        "threads": threads,
        "precision": rest[2],
        "pairs_measured": measured,
        "processor_seconds_measured": round(left_out + whole, 1),
        "evaluations_of_one_network": evaluations(count, pairs),
        "seconds_an_evaluation": round(each / threads, 2),
        "minutes_of_one_network": round(each * evaluations(count, pairs) / threads / 60, 1),
        "evaluations_of_a_subject": total_left_out + total_whole,
        "minutes_of_a_subject": round(
            (each * total_left_out + whole / 4 * total_whole) / threads / 60, 1
        ),
    }


def evaluations(parts: int, pairs: int) -> int:
    """How many coalitions pairs of orders have: none and all parts are asked for once."""
    return 2 * pairs * (parts - 1) + 2


def processor_seconds(work: Callable[[], object]) -> float:
    """Of this process, or of the clock where a device works."""
    clock = time.perf_counter if chosen_device().type == "cuda" else time.process_time
    started = clock()
    work()
    return clock() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--pairs", type=int, default=16, help="whose time is told")
    parser.add_argument("--measured", type=int, default=1, help="pairs that are run")
    parser.add_argument("--parts", type=int, default=None, help="at most; unset: as in explain")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=None, help="unset: as torch chooses")
    asked = parser.parse_args()
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    told = measure(asked.side, asked.pairs, asked.measured, asked.parts, asked.precision)
    print(json.dumps(told, indent=2, ensure_ascii=False))
