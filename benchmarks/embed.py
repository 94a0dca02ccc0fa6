"""Embedding a store against the same ViT of MONAI called in a plain loop, in one run.

    python benchmarks/embed.py [--rounds N] [--out FILE.json]

Ours is `Encoder.embed` as `vitaepp embed` calls it, from the store to features. The peer reads the
same store, standardises, and calls MONAI's `ViT` of the same size in batches of eight without
gradient, in single precision as its documentation has it, and averages its tokens.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import Contestant, Step, compete, ratio, run_alone

from vitaepp import Encoder, Store
from vitaepp.ingest.prepare import prepare
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.host import keep_freed_memory

SIDE, IMAGES = 48, 32
TARGET = 1.5


def measure(rounds: int) -> dict[str, Any]:
    """Images a second of both, and how many times the peer's ours are."""
    with tempfile.TemporaryDirectory() as place:
        store = str(example_store(Path(place), IMAGES, SIDE))
        contestants = {
            "ours auto": Contestant(ours, (store, "auto")),
            "ours 32": Contestant(ours, (store, "32")),
            "MONAI": Contestant(peer, (store, False)),
            "MONAI like ours": Contestant(peer, (store, True)),
        }
        seconds = compete(contestants, rounds)
    pairs = (("ours auto", "MONAI"), ("ours auto", "MONAI like ours"), ("ours 32", "MONAI"))
    return {
        "case": f"embedding {IMAGES} images of 1 × {SIDE}³, ViT-B, patch 8: images a second",
        "target": TARGET,
        "images_per_second": {
            k: round(IMAGES / statistics.median(v), 2) for k, v in seconds.items()
        },
        "ratios": {f"{a} / {b}": ratio(seconds[b], seconds[a]) for a, b in pairs},
    }


def example_store(place: Path, images: int, side: int) -> Path:
    """A store of noise."""
    values = np.random.default_rng(0).integers(0, 256, (images, side, side, side), np.uint8)
    np.savez(place / "images.npz", train_images=values)
    prepare(place / "images.npz", place / "store", size=side, workers=1)
    return place / "store"


def ours(store: str, precision: str) -> Step:
    """What `vitaepp embed` does."""
    keep_freed_memory()
    opened = Store(store)
    recipe = Recipe.load(settings=("model.patch_size=8",))
    encoder = Encoder.untrained(recipe, opened.info)
    return lambda: encoder.embed(opened, precision=precision)


def peer(store: str, like_ours: bool) -> Step:
    """MONAI's ViT in a plain loop."""
    from monai.networks.nets import ViT

    if like_ours:
        keep_freed_memory()
    opened = Store(store)
    model = ViT(1, (SIDE,) * 3, (8, 8, 8), hidden_size=768, mlp_dim=3072, num_layers=12).eval()

    def step() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=like_ours):
            for images in opened.batches(8):
                volumes = torch.from_numpy(images).float()
                space = (2, 3, 4)
                volumes = volumes - volumes.mean(space, keepdim=True)
                volumes = volumes / volumes.std(space, keepdim=True)
                model(volumes)[0].mean(1)

    return step


if __name__ == "__main__":
    run_alone(__doc__, measure, "monai")
