"""How many slices the perceptual term needs: the noise that drawing few adds to the gradient.

    python benchmarks/slices.py RUN STORE [--draws N] [--out FILE.json]

A step's gradient is noisy anyway: other images, masks and views would have given another. For a
trained run, this takes the whole loss's gradient many times, once with everything drawn anew and
once with only the slices drawn anew, and prints which share of the noise the slices make, for each
number of slices, beside what a step costs. Where the share is small, more slices buy nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitaepp.draws import Draws
from vitaepp.methods import build_method
from vitaepp.recipe import Recipe
from vitaepp.store import Store
from vitaepp.training.checkpoints import load_checkpoint


class OtherSlices(Draws):
    """The draws of one step, but for those of the slices, which come last."""

    def __init__(self, like: tuple[int, Sequence[int]], slices: int, needed: int) -> None:
        super().__init__(0, like[0], like[1])
        self.last = Draws(1, slices, like[1])
        self.needed = needed

    def uniform(self, count: int) -> Tensor:
        """As `Draws.uniform`; the slices' come from elsewhere."""
        return (self.last if count == self.needed else super()).uniform(count)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run of vitaepp pretrain with a perceptual term")
    parser.add_argument("store", type=Path, help="the store that it was trained on")
    parser.add_argument("--draws", type=int, default=24, help="gradients of each kind")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--slices", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.manual_seed(0)
    store = Store(asked.store)
    rows = []
    for slices in asked.slices:
        rows.append(measure(asked.run, store, slices, asked.batch, asked.draws))
        print(
            "{slices} slices: {share:.1%} of the gradient's noise is theirs, "
            "{seconds:.2f} s a gradient".format(**rows[-1]),
            flush=True,
        )
    if asked.out:
        found = {"run": asked.run.name, "batch": asked.batch, "draws": asked.draws, "rows": rows}
        asked.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


def measure(run: Path, store: Store, slices: int, batch: int, draws: int) -> dict[str, float]:
    """The share of one number of slices."""
    checkpoint = load_checkpoint(run / "last.ckpt")
    recipe = Recipe.parse(checkpoint["vitaepp"]["recipe"])
    loss = recipe.loss.model_dump()
    recipe = recipe.changed(loss={"perceptual": loss["perceptual"] | {"slices": slices}})
    method = build_method(recipe, len(store.info.modalities), store.info.size)
    state = checkpoint["state_dict"]
    state = {k.removeprefix("method."): v for k, v in state.items()}
    kept = method.load_state_dict(state, strict=False)
    assert all(name.startswith("perceptual.") for name in kept.missing_keys), kept.missing_keys
    assert method.perceptual is not None
    needed = method.perceptual.draws_needed(store.info.shape)
    chosen = np.random.default_rng(0)

    def gradient(step: Draws, images: Tensor) -> Tensor:
        method.zero_grad()
        method(images, step, 0.5).loss.backward()
        return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])

    def batches() -> Iterator[tuple[list[int], Tensor]]:
        while True:
            picked = sorted(chosen.choice(len(store), batch, replace=False).tolist())
            yield picked, torch.from_numpy(store.read(picked))

    start = time.perf_counter()
    source = batches()
    whole, theirs, before = [], [], None
    for i in range(draws):
        picked, images = next(source)
        # Two draws of the slices in the same step: half their squared distance is the variance
        # that the slices make. Two steps: that of everything.
        first = gradient(OtherSlices((i, picked), 0, needed), images)
        second = gradient(OtherSlices((i, picked), 1, needed), images)
        theirs.append(float((first - second).square().sum()) / 2)
        if before is not None:
            whole.append(float((first - before).square().sum()) / 2)
        before = first
    seconds = (time.perf_counter() - start) / (2 * draws)
    share = float(np.mean(theirs) / np.mean(whole))
    return {"slices": slices, "share": share, "seconds": seconds}


if __name__ == "__main__":
    main()
