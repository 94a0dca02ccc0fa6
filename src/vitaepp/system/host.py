"""How much of the machine this process may use: cores and memory, within container and job.

Limits are looked for where Linux and SLURM tell them: the processor mask, the control groups around
this process (version 1 and 2, and every group above its own), and SLURM's variables. The smallest
counts. Elsewhere it is the whole machine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Where control groups of each kind are mounted, most usual first; "" is version 2.
_MOUNTS = {
    "": ("", "unified"),
    "cpu": ("cpu", "cpu,cpuacct"),
    "memory": ("memory",),
}

_MIB = 2**20


def usable_cores(root: Path = Path("/")) -> int:
    """Processor cores that this process may keep busy, at least one.

    Args:
        root: where `/proc` and `/sys` are.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    limits = [float(cores), *_quotas(root)]
    if asked := _slurm("SLURM_CPUS_PER_TASK"):
        limits.append(asked)
    return max(1, math.ceil(min(limits)))


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may fill in all, whatever is in use at the moment.

    Args:
        root: where `/proc` and `/sys` are.
    """
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *_job_memory(), *(limit for limit, _ in _memory_limits(root))])


def free_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that can be had now without swapping.

    Args:
        root: where `/proc` and `/sys` are.
    """
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    with suppress(OSError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    return min([free, *_job_memory(), *(limit - used for limit, used in _memory_limits(root))])


def _groups(root: Path, kind: str) -> Iterator[Path]:
    """Folders of the control groups around this process, its own first.

    Args:
        root: where `/proc` and `/sys` are.
        kind: `cpu` or `memory` of version 1; "" for version 2.
    """
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kind not in kinds.split(","):
                continue
            # Seen from inside a container, a group outside of it begins with "..".
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for name in _MOUNTS[kind]:
                mount = root / "sys/fs/cgroup" / name
                for depth in range(len(parts), -1, -1):
                    # A container may see its own group as the root: folders can be missing.
                    folder = mount.joinpath(*parts[:depth])
                    if folder.is_dir():
                        yield folder


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time that each group around this process may take."""
    for group in _groups(root, ""):
        with suppress(OSError, ValueError):  # the root has none; a quota may be "max"
            quota, period = map(int, (group / "cpu.max").read_text().split())
            yield quota / period
    for group in _groups(root, "cpu"):
        with suppress(OSError, ValueError):
            quota = int((group / "cpu.cfs_quota_us").read_text())
            if quota > 0:  # -1 is none
                yield quota / int((group / "cpu.cfs_period_us").read_text())


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of memory, in bytes, of each group around this process."""
    for group in _groups(root, ""):
        for limit in ("memory.max", "memory.high"):
            with suppress(OSError, ValueError):
                most = int((group / limit).read_text())
                yield most, _used(group, "memory.current", "inactive_file")
    for group in _groups(root, "memory"):
        with suppress(OSError, ValueError):
            most = int((group / "memory.limit_in_bytes").read_text())
            yield most, _used(group, "memory.usage_in_bytes", "total_inactive_file")


def _used(group: Path, current: str, inactive: str) -> int:
    """What a group holds that cannot be had back: files that are only cached can."""
    with suppress(OSError):
        cached = 0
        for line in (group / "memory.stat").read_text().splitlines():
            if line.startswith(f"{inactive} "):
                cached = int(line.split()[1])
        return int((group / current).read_text()) - cached
    return 0


def _job_memory() -> Iterator[int]:
    """What a SLURM job may fill on this machine, in bytes; 0 stands for all."""
    if asked := _slurm("SLURM_MEM_PER_NODE"):
        yield asked * _MIB
    per_core, cores = _slurm("SLURM_MEM_PER_CPU"), _slurm("SLURM_CPUS_ON_NODE")
    if per_core and cores:
        yield per_core * cores * _MIB


def _slurm(name: str) -> int:
    """A number that SLURM has set, or 0."""
    told = os.environ.get(name, "")
    return int(told) if told.isdecimal() else 0
