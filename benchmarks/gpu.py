"""What the paper's scale takes on a GPU: seconds, memory, and the share of what the device can do.

    python benchmarks/gpu.py [--out FILE.json] [--small] [--only NAME ...]

`benchmarks/gpu.sh` calls it. The paper's scale is ViT-B with all losses on a batch of four 4 × 96³
volumes in bf16. Every figure is taken in a fresh process, so that peaks of memory are its own and
what fails costs only itself: its reason is then in its place. A step's work is what torch's flop
counter counts of it; the ceiling is one large product of bf16 matrices on the same device. Each
figure is written when it is there, the table into README.md here, too.

`--small` runs everything at toy sizes, on a CPU too, to try the script and not to measure.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from bench import put
from side_by_side import machine
from step import DEVICE, Case, example, ours, peer, synchronize
from torch.utils.flop_counter import FlopCounterMode

from vitaepp.methods.base import augmented_view
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.devices import most_memory
from vitaepp.views.draws import Draws

Scale = dict[str, Any]

GIB = 2**30
#: How the step is launched: kernel by kernel, recorded and replayed (ours alone), or compiled.
MODES = ("none", "replay", "default", "reduce-overhead")
WARM_UP, TIMED = 5, 20

#: The paper's scale, and toy sizes to try the script.
SCALE: Scale = {"channels": 4, "side": 96, "batch": 4, "product": 8192, "settings": ()}
SMALL: Scale = {
    "channels": 2,
    "side": 16,
    "batch": 2,
    "product": 512,
    "settings": ("model.size=tiny", "model.decoder_depth=1"),
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file; by the device's name by default")
    parser.add_argument("--small", action="store_true", help="toy sizes; writes nothing")
    parser.add_argument("--only", nargs="*", help="names of figures")
    parser.add_argument("--within", type=float, help="seconds after which no figure is begun")
    asked = parser.parse_args()
    scale = SMALL if asked.small else SCALE
    started = time.monotonic()
    found: dict[str, Any] = {"machine": machine(), "scale": scale}
    device = re.sub(r"\W+", "-", found["machine"]["device"]).lower()
    out = asked.out or Path(__file__).parent / "results" / f"{device}.json"
    for name, (function, arguments) in figures(scale).items():
        seconds = time.monotonic() - started
        if asked.only and name not in asked.only:
            continue
        if asked.within and seconds > asked.within:
            print(f"{name}: not begun after {seconds:.0f} s")
            continue
        found[name] = fresh(function, *arguments)
        print(f"{name} (begun after {seconds:.0f} s): {found[name]}", flush=True)
        if not asked.small:
            out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")
            put(table(found), "gpu benchmark")
    print(table(found))


def figures(scale: Scale) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """What is measured, most important first, should the time run out."""
    rows: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "same as on a CPU": (agreement, ()),
        "same when replayed": (replays_agree, ()),
        "ceiling": (ceiling, (scale,)),
    }
    for mode in MODES:
        rows[f"vitae++ {mode}"] = (our_step, (scale, "vitae++", (), mode))
    for mode in MODES:
        rows[f"vitae {mode}"] = (our_step, (scale, "vitae", (), mode))
        if mode != "replay":
            rows[f"MONAI {mode}"] = (peer_step, (scale, mode))
    rows["views"] = (views, (scale,))
    every = ("loss.perceptual.slices=all", "loss.perceptual.channels=all")
    rows["vitae++ all slices"] = (our_step, (scale, "vitae++", every, "none"))
    twice = ("trainer.activation_checkpointing=true",)
    rows["vitae++ blocks computed twice"] = (our_step, (scale, "vitae++", twice, "none"))
    return rows


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """A function's result from a process of its own, or why there is none."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except Exception as error:
            return {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:300]}


def case(scale: Scale, method: str) -> Case:
    """The scale as `step.py` takes it."""
    return Case("", method, scale["channels"], scale["side"], scale["batch"], 0.0)


def timed(step: Callable[[], object]) -> dict[str, Any]:
    """Seconds and memory of a step."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()  # what is recorded counts: replays hold it
    started = time.perf_counter()
    for _ in range(WARM_UP):
        step()
    warm = time.perf_counter() - started
    seconds = []
    for _ in range(TIMED):
        started = time.perf_counter()
        step()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": statistics.median(seconds),
        "low": min(seconds),
        "high": max(seconds),
        "memory_gib": most_memory(torch.device(DEVICE)) / GIB,
        "warm_up_seconds": warm,
    }


def our_step(scale: Scale, method: str, settings: tuple[str, ...], mode: str) -> dict[str, Any]:
    """A step of ours."""
    settings = (*scale["settings"], *settings)
    launched = ["trainer.replay=false", f"trainer.compile={mode}"]
    work = counted(ours(case(scale, method), True, (*settings, launched[0])))
    if mode == "replay":
        launched = ["trainer.replay=true"]
    return work | timed(ours(case(scale, method), True, (*settings, *launched)))


def counted(step: Callable[[], object]) -> dict[str, float]:
    """Work of a step that is not compiled: the counter does not see into compiled code."""
    with FlopCounterMode(display=False) as counter:
        step()
    gc.collect()
    return {"tflop": counter.get_total_flops() / 1e12}


def peer_step(scale: Scale, mode: str) -> dict[str, Any]:
    """A step of MONAI's, under our precision and the same mode of torch.compile."""
    return counted(peer(case(scale, "vitae"), True)) | timed(peer(case(scale, "vitae"), True, mode))


def ceiling(scale: Scale) -> dict[str, float]:
    """The most that one product of bf16 matrices reaches here, in TFLOP/s."""
    side = scale["product"]
    a, b = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(10):
        synchronize()
        started = time.perf_counter()
        for _ in range(10):
            a @ b
        synchronize()
        best = max(best, 10 * 2 * side**3 / (time.perf_counter() - started) / 1e12)
    return {"tflops": best}


def views(scale: Scale) -> dict[str, float]:
    """Seconds of the augmented view of a batch."""
    images = example(case(scale, "vitae++")).float() / 255
    settings, rows = Recipe().views, range(scale["batch"])
    seconds = []
    for i in range(WARM_UP + TIMED):
        synchronize()
        started = time.perf_counter()
        augmented_view(images, Draws(0, i, rows, images.device), settings, "second", None)
        synchronize()
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds[WARM_UP:])}


def agreement() -> dict[str, float]:
    """Largest relative difference between this device's loss terms and a CPU's.

    In single precision and without noise in the views, whose draws differ from device to device.
    """
    from vitaepp.methods import build_method

    recipe = Recipe.load(settings=("views.second.noise=0", "model.size=tiny", "model.patch_size=8"))
    terms = []
    for device in ("cpu", DEVICE):
        method = build_method(recipe, SMALL["channels"], (SMALL["side"],) * 3).to(device)
        images = example(case(SMALL, "vitae++")).to(device)
        output = method(images, Draws(0, 0, range(len(images)), device), 0.1)
        output.loss.backward()
        squares = [p.grad.square().sum() for p in method.parameters() if p.grad is not None]
        norm = torch.stack(squares).sum().sqrt()
        terms.append({k: v.item() for k, v in output.terms.items()} | {"gradient": norm.item()})
    return {k: abs(terms[1][k] / terms[0][k] - 1) for k in terms[0]}


def replays_agree() -> dict[str, float]:
    """Relative difference of all gradients together between a replayed step and a plain one.

    And, to compare, between two plain ones: sums on a GPU have no fixed order.
    """
    from vitaepp.methods import build_method
    from vitaepp.training.replays import Replays

    small = ("model.size=tiny", "model.patch_size=8", "loss.perceptual.weights=random")
    small = (*small, "trainer.precision=32")
    method = build_method(Recipe.load(settings=small), 2, (SMALL["side"],) * 3).to(DEVICE)
    images, other = example(case(SMALL, "vitae++")), example(case(SMALL, "vitae++")).flip(0)
    replays, trained = Replays(), [p for p in method.parameters() if p.requires_grad]

    def gradients(replay: bool, epoch: int, images: torch.Tensor) -> torch.Tensor:
        rows = range(len(images))
        if replay:
            output = replays(method, images, rows, None, epoch=epoch, progress=epoch / 10)
        else:
            output = method(images, Draws(0, epoch, rows, images.device), epoch / 10)
        found = torch.autograd.grad(output.loss, trained, allow_unused=True)
        return torch.cat([g.flatten() for g in found if g is not None])

    gradients(True, 0, other)  # is recorded; then other images, numbers and progress are replayed
    wanted, again, found = (gradients(replay, 3, images) for replay in (False, False, True))
    return {
        "replayed": float((found - wanted).norm() / wanted.norm()),
        "plain": float((again - wanted).norm() / wanted.norm()),
    }


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| what | measured | target |", "| --- | --- | --- |"]
    top = found.get("ceiling", {}).get("tflops")
    scale = found["scale"]
    shape = f"{scale['channels']} × {scale['side']}³, batch {scale['batch']}"
    for name, row in found.items():
        if not name.startswith(("vitae", "MONAI")):
            continue
        if "failed" in row:
            lines.append(f"| {name} | failed: {row['failed']} | |")
            continue
        rate = row["tflop"] / row["seconds"]
        told = f"{1e3 * row['seconds']:.1f} ms, {row['memory_gib']:.1f} GiB, {rate:.0f} TFLOP/s"
        told += f", {rate / top:.0%} of the ceiling" if top else ""
        target = "≤ 8 GB, ≥ 45 %" if name in [f"vitae++ {mode}" for mode in MODES] else ""
        lines.append(f"| step of {name}, {shape} | {told} | {target} |")
    for mode in MODES:
        mine = found.get(f"vitae {mode}", {}).get("seconds")
        theirs = found.get(f"MONAI {'none' if mode == 'replay' else mode}", {}).get("seconds")
        if mine and theirs:
            lines.append(f"| ViT-AE {mode} / MONAI | {mine / theirs:.2f} | ≤ 0.6 |")
    steps = [found.get(f"vitae++ {mode}", {}).get("seconds") for mode in MODES]
    fastest = min((s for s in steps if s), default=None)
    if fastest and "seconds" in found.get("views", {}):
        share = found["views"]["seconds"] / fastest
        lines.append(f"| views, of the fastest step | {share:.1%} | < 2 % |")
    about = found["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    where = f"{about['device']}; Python {about['python']}, {versions}"
    return "\n".join([*lines, "", f"`benchmarks/gpu.sh` on {where}."])


if __name__ == "__main__":
    main()
