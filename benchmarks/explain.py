"""How long the Shapley values of a volume take, by leaving out patches of a ViT-S.

    python benchmarks/explain.py [--side N] [--pairs N] [--measured N] [--precision NAME]

Evaluations are measured on coalitions as `vitaepp explain` takes them, from none to all parts of
one volume of noise; `--measured` pairs of orders are run, and the time of all is in proportion.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import numpy as np
import torch

from vitaepp import Encoder, Recipe
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.explanation.games import LeftOut
from vitaepp.explanation.lattice import parts as parts_of
from vitaepp.explanation.scores import distance_in
from vitaepp.explanation.shapley import shapley
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.system.devices import Machine, chosen_device, resolved_precision
from vitaepp.system.host import keep_freed_memory


def measure(side: int, pairs: int, measured: int, parts: int, precision: str) -> dict[str, object]:
    keep_freed_memory()
    on = chosen_device()
    recipe = Recipe.load(settings=("model.size=small", "model.patch_size=8"))
    info = StoreInfo(("t1",), (side,) * 3, (1.0,) * 3, "float16", "image")
    encoder = Encoder.untrained(recipe, info).to(on)
    encoder.config = replace(encoder.config, prepared=info)
    assert isinstance(encoder.backbone, VisionTransformer)
    features = np.random.default_rng(0).normal(size=(8, encoder.dim)).astype(np.float32)
    image = torch.randn(1, 1, side, side, side, device=on)
    players = parts_of(encoder.backbone.grid, parts)
    precision = resolved_precision(precision, on)
    game = LeftOut(encoder, image, players, distance_in(features), 0, precision)
    game(np.ones((1, players.max() + 1), bool))
    started, processor = time.perf_counter(), time.process_time()
    shapley(game, int(players.max()) + 1, measured, 0)
    seconds, busy = time.perf_counter() - started, time.process_time() - processor
    return {
        "case": f"Shapley values of 1 × {side}³, ViT-S, patch 8, {players.max() + 1} parts",
        "machine": str(Machine.here()),
        "precision": precision,
        "pairs_measured": measured,
        "seconds_measured": round(seconds, 1),
        "processor_seconds_measured": round(busy, 1),
        "pairs": pairs,
        "minutes": round(seconds / measured * pairs / 60, 1),
        "minutes_if_the_processor_were_free": round(
            busy / measured * pairs / 60 / max(torch.get_num_threads(), 1), 1
        ),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--pairs", type=int, default=16, help="whose time is told")
    parser.add_argument("--measured", type=int, default=1, help="pairs that are run")
    parser.add_argument("--parts", type=int, default=64)
    parser.add_argument("--precision", default="auto")
    asked = parser.parse_args()
    print(
        json.dumps(
            measure(asked.side, asked.pairs, asked.measured, asked.parts, asked.precision), indent=2
        )
    )
