"""How many slices the perceptual term needs: the noise that drawing few adds to the gradient.

    python benchmarks/slices.py RUN STORE [--draws N] [--out FILE.json]

A step's gradient is noisy anyway: other images, masks and views would have given another. For a
trained run, this takes gradients many times, once with everything drawn anew and once with only the
slices drawn anew, and prints which share of the noise (the variance, summed over the parameters)
the slices make, for each number of slices: of the whole loss's gradient, and of the perceptual
term's alone, as if nothing else were trained on. Where the share is small, more slices buy little.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
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
            "{slices} slices make {loss:.1g} of the whole gradient's noise, {perceptual:.2f} of "
            "the perceptual term's".format(**rows[-1]),
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

    def gradients(step: Draws, images: Tensor) -> dict[str, Tensor]:
        output = method(images, step, 0.5)
        trained = [p for p in method.backbone.parameters() if p.requires_grad]
        found = {}
        for name, loss in (("loss", output.loss), ("perceptual", output.terms["perceptual"])):
            parts = torch.autograd.grad(loss, trained, retain_graph=True, materialize_grads=True)
            found[name] = torch.cat([part.flatten() for part in parts])
        return found

    everything: dict[str, list[float]] = {"loss": [], "perceptual": []}
    theirs: dict[str, list[float]] = {"loss": [], "perceptual": []}
    before = None
    for i in range(draws):
        picked = sorted(chosen.choice(len(store), batch, replace=False).tolist())
        images = torch.from_numpy(store.read(picked))
        # Half the squared distance of two draws is the variance: of the slices in one step, of
        # everything in two steps.
        first, second = (gradients(OtherSlices((i, picked), k, needed), images) for k in (0, 1))
        for name in first:
            theirs[name].append(float((first[name] - second[name]).square().sum()) / 2)
            if before is not None:
                everything[name].append(float((first[name] - before[name]).square().sum()) / 2)
        before = first
    shares = {name: float(np.mean(theirs[name]) / np.mean(everything[name])) for name in theirs}
    return {"slices": slices, **shares}


if __name__ == "__main__":
    main()
