"""How many slices and channels the perceptual term needs: the noise of drawing few of them.

    python benchmarks/slices.py RUN STORE [--looks SLICES:CHANNELS ...] [--weight λ] [--out FILE]

A step's gradient is noisy anyway: other images, masks and views would have given another. For a
trained run, this takes gradients many times, once with everything drawn anew and once with only the
slices drawn anew. It prints the variance (summed over the parameters) that the slices make: as a
share of that of the whole loss's gradient, where a small share says that more slices buy little,
and of the perceptual term's alone, as if nothing else were trained on. Last comes the deviation of
the term's value. For comparison, each is measured once more with slices drawn independently of each
other, without repetition.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitaepp.data.checkpoints import load_checkpoint
from vitaepp.data.store import Store
from vitaepp.losses import perceptual
from vitaepp.methods import build_method
from vitaepp.recipe.recipe import Recipe
from vitaepp.views.draws import Draws

SPREAD = perceptual.spread_slices


class OtherSlices(Draws):
    """The draws of one step, but for those of the slices, which come last."""

    def __init__(self, like: tuple[int, Sequence[int]], slices: int, needed: int) -> None:
        super().__init__(0, like[0], like[1])
        self.last = Draws(1, slices, like[1])
        self.needed = needed

    def uniform(self, count: int) -> Tensor:
        """As `Draws.uniform`; the slices' come from elsewhere."""
        return (self.last if count == self.needed else super()).uniform(count)


def independent_slices(count: int, size: int, draws: Tensor) -> Tensor:
    """In place of `spread_slices`: any slices, none twice."""
    seeds = (draws * 2**24).long().tolist()
    rows = [
        torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count]
        for seed in seeds
    ]
    return torch.stack(rows)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run of vitaepp pretrain with a perceptual term")
    parser.add_argument("store", type=Path, help="the store that it was trained on")
    parser.add_argument("--looks", nargs="*", default=["1:1", "2:1", "4:1", "4:all"])
    parser.add_argument("--weight", type=float, help="λ of the perceptual term; the run's own")
    parser.add_argument("--draws", type=int, default=24, help="gradients of each kind")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.manual_seed(0)
    store = Store(asked.store)
    rows = []
    for looks in asked.looks:
        slices, _, channels = looks.partition(":")
        settings = {"slices": int(slices), "channels": channels or "all"}
        if asked.weight is not None:
            settings["weight"] = asked.weight
        for how in ("spread", "independent"):
            row = settings | {"drawn": how}
            row |= measure(asked.run, store, settings, asked.batch, asked.draws, how)
            rows.append(row)
            print(
                "{slices} slices, {channels} channels, {drawn}: {whole:.1g} of the whole noise, "
                "{own:.2f} of the term's; its value ± {value:.1%}".format(**row),
                flush=True,
            )
    if asked.out:
        found = {"run": asked.run.name, "batch": asked.batch, "draws": asked.draws, "rows": rows}
        asked.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


def measure(
    run: Path, store: Store, settings: dict[str, Any], batch: int, draws: int, how: str
) -> dict[str, float]:
    """What drawing slices and channels in this way makes of the noise."""
    perceptual.spread_slices = {"spread": SPREAD, "independent": independent_slices}[how]
    checkpoint = load_checkpoint(run / "last.ckpt")
    recipe = Recipe.parse(checkpoint["vitaepp"]["recipe"])
    loss = recipe.loss.model_dump()
    recipe = recipe.changed(loss={"perceptual": loss["perceptual"] | settings})
    method = build_method(recipe, len(store.info.modalities), store.info.size)
    state = checkpoint["state_dict"]
    state = {k.removeprefix("method."): v for k, v in state.items()}
    kept = method.load_state_dict(state, strict=False)
    assert all(name.startswith("perceptual.") for name in kept.missing_keys), kept.missing_keys
    assert method.perceptual is not None
    needed = method.perceptual.draws_needed(store.info.shape)
    chosen = np.random.default_rng(0)

    def gradients(step: Draws, images: Tensor) -> tuple[Tensor, Tensor, float]:
        output = method(images, step, 0.5)
        term = output.terms["perceptual"]
        trained = [p for p in method.backbone.parameters() if p.requires_grad]
        found = [
            torch.autograd.grad(loss, trained, retain_graph=True, materialize_grads=True)
            for loss in (output.loss, term)
        ]
        whole, own = (torch.cat([part.flatten() for part in parts]) for parts in found)
        return whole, own, term.item()

    noise: dict[str, list[float]] = defaultdict(list)
    before = None
    for i in range(draws):
        picked = sorted(chosen.choice(len(store), batch, replace=False).tolist())
        images = torch.from_numpy(store.read(picked))
        # Half the squared distance of two draws is the variance: of the slices in one step, of
        # everything in two steps.
        first, second = (gradients(OtherSlices((i, picked), k, needed), images) for k in (0, 1))
        for name, a, b in zip(("slices of whole", "slices"), first, second, strict=False):
            noise[name].append(float((a - b).square().sum()) / 2)
        noise["value"].append((first[2] - second[2]) ** 2 / 2)
        noise["squared value"].append(first[2] * second[2])
        if before is not None:
            for name, a, b in zip(("all of whole", "all"), first, before, strict=False):
                noise[name].append(float((a - b).square().sum()) / 2)
        before = first
    mean = {name: float(np.mean(values)) for name, values in noise.items()}
    return {
        "whole": mean["slices of whole"] / mean["all of whole"],
        "own": mean["slices"] / mean["all"],
        "value": (mean["value"] / mean["squared value"]) ** 0.5,
    }


if __name__ == "__main__":
    main()
