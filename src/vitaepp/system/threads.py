"""Threads: how many a computation takes on a machine that others use, too, and how they wait.

OpenMP's threads meet after every operation. On busy cores they wait for the slowest of them, and by
default they keep their cores busy while they wait, which slows whatever else runs there.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from vitaepp.system.host import usable_cores, used_of_quotas

#: How threads wait without keeping a core busy: any OpenMP, GNU's, Intel's. OpenMP reads these when
#: it is loaded, which is when torch is imported.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}

#: What a user sets to choose the number of threads.
CHOSEN = "OMP_NUM_THREADS"

#: The same for numpy's and scipy's linear algebra, whose threads keep their cores busy while they
#: wait. The matrices of a classifier are small: in four evaluations side by side on 16 cores, each
#: with 16 threads, a classifier took several times as long as with one thread of a slower machine.
LINEAR_ALGEBRA, FEW = "OPENBLAS_NUM_THREADS", 4

#: Seconds over which it is measured which cores are busy.
SAMPLE = 0.3


def share_the_cores() -> None:
    """Have threads sleep while they wait, and classifiers take a few; what the user has set stays.

    Before numpy and torch are imported.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ.update(WAITING)
    if not any(name in os.environ for name in (CHOSEN, LINEAR_ALGEBRA)):
        os.environ[LINEAR_ALGEBRA] = str(min(FEW, usable_cores()))


def free_cores(root: Path = Path("/"), seconds: float = SAMPLE) -> int:
    """Cores that this process may use and that nobody else keeps busy, at least one.

    Linux tells which cores have worked within some tenths of a second, and how much of its quota a
    control group has used. Elsewhere the load of the last minute counts.

    Args:
        root: where `/proc` and `/sys` are.
        seconds: how long is measured.
    """
    cores = usable_cores(root)
    before, quotas = _worked(root), used_of_quotas(root)
    time.sleep(seconds)
    after, later = _worked(root), used_of_quotas(root)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(before)
    free = [
        1 - (after[core][0] - before[core][0]) / (after[core][1] - before[core][1])
        for core in allowed & before.keys() & after.keys()
        if after[core][1] > before[core][1]
    ]
    if free:
        left = sum(free)
    else:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        left = (os.cpu_count() or 1) - load
    for group, (quota, used) in quotas.items():
        if group in later and seconds:
            left = min(left, quota - (later[group][1] - used) / seconds)
    return max(1, min(cores, round(left)))


def _worked(root: Path) -> dict[int, tuple[int, int]]:
    """Ticks that each core has worked, and all its ticks."""
    times = {}
    with suppress(OSError, ValueError):
        for line in (root / "proc/stat").read_text().splitlines():
            name, *ticks = line.split()
            if name.startswith("cpu") and name != "cpu":
                numbers = [int(tick) for tick in ticks[:8]]  # what guests take is in these, too
                times[int(name[3:])] = (sum(numbers) - sum(numbers[3:5]), sum(numbers))
    return times
