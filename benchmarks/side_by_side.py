"""Contestants that take turns: each in a process of its own, one step at a time.

A machine that others use too is slower at one moment than at another; what takes turns meets the
same moments. So the ratio is taken within each round, and its median and range over rounds count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Step = Callable[[], object]


@dataclass(frozen=True)
class Contestant:
    """How a process makes its step: a function of this folder's modules, and its arguments."""

    make: Callable[..., Step]
    arguments: tuple[Any, ...] = ()


def compete(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Seconds of every contestant's step in every round, after one round to warm up.

    Args:
        contestants: by name; each gets a fresh process, so that none meets another's settings.
        rounds: how many steps of each are timed. Even rounds go through them backwards.
    """
    context = get_context("spawn")
    processes, pipes = {}, {}
    try:
        for name, contestant in contestants.items():
            pipes[name], theirs = context.Pipe()
            processes[name] = context.Process(target=_serve, args=(contestant, theirs))
            processes[name].start()
            theirs.close()
            _ask(name, pipes[name])  # made, and warm
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for i in range(rounds):
            for name in list(contestants) if i % 2 == 0 else reversed(list(contestants)):
                seconds[name].append(_ask(name, pipes[name]))
        return seconds
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes.values():
            process.join(30)


def _ask(name: str, pipe: Connection) -> float:
    try:
        pipe.send("step")
        return float(pipe.recv())
    except (EOFError, OSError):
        raise SystemExit(f"{name} ended; its error is above") from None


def _serve(contestant: Contestant, pipe: Connection) -> None:
    step = contestant.make(*contestant.arguments)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        start = time.perf_counter()
        step()
        pipe.send(time.perf_counter() - start)


def ratio(mine: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Median and range of one contestant's time over another's, round by round."""
    return spread([a / b for a, b in zip(mine, theirs, strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def run_alone(about: str, measure: Callable[[int], dict[str, Any]], *packages: str) -> None:
    """The command line of a benchmark of one row: measure, print, write.

    Args:
        about: the script's docstring.
        measure: gives the row, after so many rounds.
        packages: whose versions matter.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file")
    asked = parser.parse_args()
    found = {"machine": machine(*packages), "rounds": asked.rounds, "rows": [measure(asked.rounds)]}
    text = json.dumps(found, indent=2, ensure_ascii=False)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", "utf-8")


def machine(*packages: str) -> dict[str, Any]:
    """What it ran on: device, cores, load, versions."""
    import torch

    from vitaepp.system.host import versions

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    return {
        "device": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions("torch", *packages),
    }


def processor() -> str:
    """The processor's name and what it multiplies bf16 with."""
    name, flags = platform.machine(), ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
            if line.startswith("flags"):
                flags = line
    except OSError:
        pass
    units = [unit for unit in ("amx_bf16", "avx512_bf16") if unit in flags]
    return f"{name}, {units[0] if units else 'no bf16'}"
