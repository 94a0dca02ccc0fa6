"""The training step against MONAI's plain masked autoencoder, side by side in one run.

    python benchmarks/step.py [--rounds N] [--case NAME ...] [--out FILE.json]

Each case times whole steps (forward, backward, AdamW) of our method and of MONAI's
`MaskedAutoEncoderViT` of the same sizes: one view and one loss, mean squared error on the hidden
patches. Contestants take turns, so that whatever else the machine does meets all of them; the ratio
is taken within each round, and its median and range over rounds are what counts. The peer runs as
its documentation runs it, in single precision, and once more under bf16 autocast.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from monai.networks.nets import MaskedAutoEncoderViT
from torch.nn import functional as F

from vitaepp.draws import Draws
from vitaepp.methods import build_method
from vitaepp.recipe import Recipe

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

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
    Case("ViT-AE++, 4 × 48³, batch 2", "vitae++", 4, 48, 2, 0.6),
    Case("ViT-AE++, 1 × 32³, batch 4", "vitae++", 1, 32, 4, 0.45),
    Case("ViT-AE, 4 × 48³, batch 2", "vitae", 4, 48, 2, 0.5),
    Case("ViT-AE, 1 × 32³, batch 4", "vitae", 1, 32, 4, 0.5),
)

Step = Callable[[], None]


def main() -> None:
    """Run every case, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="steps of each contestant")
    parser.add_argument("--case", type=int, nargs="*", help="rows by number, from 0")
    parser.add_argument("--out", type=Path, help="JSON file")
    asked = parser.parse_args()
    rows = []
    for case in [CASES[i] for i in asked.case] if asked.case else CASES:
        rows.append(measure(case, asked.rounds))
        print(line(rows[-1]), flush=True)
    found = {"machine": machine(), "rounds": asked.rounds, "rows": rows}
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")


def measure(case: Case, rounds: int) -> dict[str, object]:
    """Seconds a step of every contestant, taking turns."""
    images = torch.rand(case.batch, case.channels, *(case.side,) * 3, device=DEVICE) * 255
    images = images.half()  # as they come from a store
    contestants = {
        "ours 32": ours(case, images, bf16=False),
        "ours bf16": ours(case, images, bf16=True),
        "peer 32": peer(case, images, bf16=False),
        "peer bf16": peer(case, images, bf16=True),
    }
    for step in contestants.values():
        timed(step)  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, step in contestants.items():
            seconds[name].append(timed(step))
    ratios = {
        f"{mine} / {theirs}": spread(
            [a / b for a, b in zip(seconds[mine], seconds[theirs], strict=True)]
        )
        for mine, theirs in (
            ("ours bf16", "peer 32"),
            ("ours bf16", "peer bf16"),
            ("ours 32", "peer 32"),
        )
    }
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {"case": case.name, "target": case.target, "seconds": medians, "ratios": ratios}


def timed(step: Step) -> float:
    """Seconds of one step, the device's work included."""
    start = time.perf_counter()
    step()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def autocast(bf16: bool) -> torch.autocast | nullcontext[None]:
    """Mixed precision, or none."""
    return torch.autocast(DEVICE, torch.bfloat16) if bf16 else nullcontext()


def ours(case: Case, images: torch.Tensor, bf16: bool) -> Step:
    """A step of our method with the default recipe (the paper's ViT-B, all four losses)."""
    recipe = Recipe.load(settings=(f"method={case.method}", "model.patch_size=8"))
    method = build_method(recipe, case.channels, (case.side,) * 3).to(DEVICE)
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    rows, count = list(range(case.batch)), iter(range(1 << 30))

    def step() -> None:
        with autocast(bf16):
            loss = method(images, Draws(0, next(count), rows, images.device), 0.1).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def peer(case: Case, images: torch.Tensor, bf16: bool) -> Step:
    """A step of MONAI's masked autoencoder: one view, one loss."""
    model = MaskedAutoEncoderViT(
        case.channels, case.side, 8, mlp_dim=3072, decoder_mlp_dim=2112, **PEER_DECODER
    ).to(DEVICE)
    if bf16:  # MONAI 1.5 puts tokens into a copy of these, which must be of their type
        model.mask_tokens.data = model.mask_tokens.data.bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        volume = images.float() / 255
        grid = case.side // 8
        target = volume.unflatten(2, (grid, 8)).unflatten(4, (grid, 8)).unflatten(6, (grid, 8))
        target = target.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(1, 3).flatten(2)
        with autocast(bf16):
            prediction, mask = model(volume)
        loss = F.mse_loss(prediction.float(), target, reduction="none").mean(-1)
        loss = (loss * mask).sum() / mask.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def line(row: dict[str, object]) -> str:
    """A row of the printed table."""
    ratios = "  ".join(
        f"{name} = {r['median']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
        for name, r in row["ratios"].items()  # type: ignore[attr-defined]
    )
    seconds = ", ".join(f"{k} {v:.2f} s" for k, v in row["seconds"].items())  # type: ignore[attr-defined]
    return f"{row['case']} (target {row['target']}): {ratios}\n    {seconds}"


def machine() -> dict[str, object]:
    """What it ran on."""
    cuda = torch.cuda.get_device_name() if DEVICE == "cuda" else None
    return {
        "device": cuda or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load before": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("vitaepp", "torch", "monai")},
    }


if __name__ == "__main__":
    main()
