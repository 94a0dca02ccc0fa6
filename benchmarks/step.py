"""The training step against MONAI's plain masked autoencoder, side by side in one run.

    python benchmarks/step.py [--rounds N] [--case NUMBER ...] [--out FILE.json]

Each case times whole steps (forward, backward, AdamW) of our method and of MONAI's
`MaskedAutoEncoderViT` of the same sizes: one view and one loss, mean squared error on the hidden
patches. Ours runs as `vitaepp pretrain` runs it. The peer runs as its documentation runs it, in
single precision, and, where the device multiplies bf16, once more as ours does: under bf16
autocast, keeping freed memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from side_by_side import Contestant, Step, compete, machine, ratio
from torch.nn import functional as F

from vitaepp.methods import build_method
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.devices import autocast, has_bf16
from vitaepp.system.host import keep_freed_memory
from vitaepp.training.step import build_optimizer, prepare_for_training, training_step

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

#: Whether bf16 is wanted, as `trainer.precision` says it.
PRECISION = {True: "bf16", False: "32"}

#: The whole method, VGG-16 included: by default the term is off where no file of its weights is.
ALL_LOSSES = "loss.perceptual.weights=random"

#: MONAI's decoder needs a width that is a multiple of six; ours has the paper's 512.
PEER_DECODER = {"decoder_hidden_size": 528, "decoder_num_layers": 8, "decoder_num_heads": 16}


@dataclass(frozen=True)
class Case:
    """One row: our method at a size, and the ratio to the peer that it is to stay below."""

    name: str
    method: str
    channels: int
    side: int
    batch: int
    target: float


CASES = (
    Case("ViT-AE++ step, 4 × 48³, batch 2", "vitae++", 4, 48, 2, 0.6),
    Case("ViT-AE++ step, 1 × 32³, batch 4", "vitae++", 1, 32, 4, 0.45),
    Case("ViT-AE step, 4 × 48³, batch 2", "vitae", 4, 48, 2, 0.5),
    Case("ViT-AE step, 1 × 32³, batch 4", "vitae", 1, 32, 4, 0.5),
)


def main() -> None:
    """Run the cases, print a line for each, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="steps of each contestant")
    parser.add_argument("--case", type=int, nargs="*", help="rows by number, from 0")
    parser.add_argument("--out", type=Path, help="JSON file")
    asked = parser.parse_args()
    found: dict[str, Any] = {"machine": machine("monai"), "rounds": asked.rounds, "rows": []}
    for case in [CASES[i] for i in asked.case] if asked.case else CASES:
        row = measure(case, asked.rounds)
        found["rows"].append(row)
        print(f"{row['case']} (target {row['target']}): {row['seconds']}", flush=True)
        for name, r in row["ratios"].items():
            print(f"    {name} = {r['median']:.2f} [{r['low']:.2f}, {r['high']:.2f}]", flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Seconds a step of every contestant, and our ratios to the peer."""
    contestants = {
        "ours 32": Contestant(ours, (case, False)),
        "peer 32": Contestant(peer, (case, False)),
    }
    pairs = [("ours 32", "peer 32")]
    if has_bf16(torch.device(DEVICE)):  # elsewhere it is emulated, ten times as slowly
        contestants["ours bf16"] = Contestant(ours, (case, True))
        contestants["peer bf16"] = Contestant(peer, (case, True))
        pairs += [("ours bf16", "peer 32"), ("ours bf16", "peer bf16")]
    seconds = compete(contestants, rounds)
    return {
        "case": case.name,
        "target": case.target,
        "seconds": {name: round(statistics.median(v), 4) for name, v in seconds.items()},
        "ratios": {f"{a} / {b}": ratio(seconds[a], seconds[b]) for a, b in pairs},
    }


def example(case: Case) -> torch.Tensor:
    """Images as they come from a store."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(case.batch, case.channels, *(case.side,) * 3, generator=generator)
    return (images * 255).half().to(DEVICE)


def synchronize() -> None:
    """Wait for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def ours(case: Case, bf16: bool, settings: Sequence[str] = ()) -> Step:
    """A step of our method: the paper's ViT-B, with all losses that the method has."""
    keep_freed_memory()
    images = example(case)
    own = (f"method={case.method}", "model.patch_size=8", f"trainer.precision={PRECISION[bf16]}")
    recipe = Recipe.load(settings=(*own, ALL_LOSSES, *settings))
    method = build_method(recipe, case.channels, (case.side,) * 3).to(DEVICE)
    prepare_for_training(method, torch.device(DEVICE))
    optimizer = build_optimizer(method, images_per_update=case.batch)
    batch, epochs = (images, list(range(case.batch)), 1.0), count()

    def step() -> None:
        training_step(method, optimizer, batch, epoch=next(epochs), progress=0.1)
        synchronize()

    return step


def peer(case: Case, like_ours: bool, mode: str = "none") -> Step:
    """A step of MONAI's masked autoencoder: one view, one loss.

    Args:
        case: sizes.
        like_ours: bf16 autocast and kept memory, as ours.
        mode: of `torch.compile`, which its documentation does not use.
    """
    from monai.networks.nets import MaskedAutoEncoderViT

    if like_ours:
        keep_freed_memory()
    images = example(case)
    model = MaskedAutoEncoderViT(
        case.channels, case.side, 8, mlp_dim=3072, decoder_mlp_dim=2112, **PEER_DECODER
    ).to(DEVICE)
    if like_ours:  # MONAI puts tokens into a copy of these, which must be of their type
        model.mask_tokens.data = model.mask_tokens.data.bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    if mode != "none":
        model.compile(mode=mode, dynamic=False)

    def step() -> None:
        volume = images.float() / 255
        grid = case.side // 8
        target = volume.unflatten(2, (grid, 8)).unflatten(4, (grid, 8)).unflatten(6, (grid, 8))
        target = target.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(1, 3).flatten(2)
        with autocast(torch.device(DEVICE), PRECISION[like_ours]):
            prediction, mask = model(volume)
        loss = F.mse_loss(prediction.float(), target, reduction="none").mean(-1)
        loss = (loss * mask).sum() / mask.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        synchronize()

    return step


if __name__ == "__main__":
    main()
