"""Threads of a training: each with a piece of the batch, or all in every operation; asleep or not.

    python benchmarks/threads.py [--busy N] [--out FILE.json]

Three ways to wait and to share the work: `default`, as OpenMP's threads wait; `sleeping`, as the
command line lets them wait; and `whole`, which sleeps, too, and computes the batch as a whole. Each
figure is the median of `vitaepp bench`'s steps in a fresh process, as OpenMP reads how to wait when
it is loaded; the contestants take turns. Run it without `--busy` on a machine on which nothing else
runs: `ratios_on_a_quiet_machine` says what sleeping costs there, and what pieces gain. With
`--busy N` it starts N trainings beside.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from embed import example_store
from side_by_side import machine

from vitaepp.system.host import usable_cores
from vitaepp.system.threads import CHOSEN, WAITING, free_cores

ROUNDS, STEPS = 5, 8

WAYS = ("default", "sleeping", "whole")

#: Trains a few steps and prints the seconds of each.
CODE = """
import json, sys
from vitaepp.training import pieces
from vitaepp.training.bench import bench
if sys.argv[3] == "whole":
    pieces.MOST_PIECES = 1
settings = ("model.size=tiny", "model.patch_size=8", "optim.batch_size=4", "optim.epochs=1")
print(json.dumps(bench(sys.argv[1], settings=settings, steps=int(sys.argv[2])).seconds))
"""


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, default=0, help="trainings beside")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, help="JSON file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        store = str(example_store(Path(place), 16, 32))
        found = {"machine": machine(), "free_cores_before": free_cores(), "busy": asked.busy}
        beside = [_process(store, 10**6, "default", usable_cores()) for _ in range(asked.busy)]
        try:
            found["seconds_a_step"] = steps = measured(store, asked.rounds)
        finally:
            for process in beside:
                process.kill()
                process.wait()
    if not asked.busy:
        most = str(usable_cores())
        found["ratios_on_a_quiet_machine"] = {
            "sleeping / default": steps["sleeping"][most] / steps["default"][most],
            "pieces / whole": steps["sleeping"][most] / steps["whole"][most],
            "pieces / one thread": steps["sleeping"][most] / steps["sleeping"]["1"],
        }
    text = json.dumps(found, indent=2, ensure_ascii=False)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", "utf-8")


def measured(store: str, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of a step by how threads wait and how many there are."""
    ways = [(way, n) for n in range(1, usable_cores() + 1) for way in WAYS]
    seconds: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            told, _ = _process(store, STEPS, *way).communicate()
            seconds[way].append(statistics.median(json.loads(told)))
    return {
        way: {str(n): statistics.median(seconds[way, n]) for w, n in ways if w == way}
        for way in WAYS
    }


def _process(store: str, steps: int, way: str, threads: int) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    environment |= {CHOSEN: str(threads)} | ({} if way == "default" else WAITING)
    command = [sys.executable, "-c", CODE, store, str(steps), way]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


if __name__ == "__main__":
    main()
