"""Cores and memory: how much of this machine a process may use, and how it uses it well.

Limits are read where Linux and SLURM keep them: the processor mask, the control groups around this
process (version 1 and 2, and every group above its own), and SLURM's variables. The smallest
counts. Elsewhere it is the whole machine. Nothing here needs torch; `devices.py` is about what
torch computes on.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

MIB, GIB = 2**20, 2**30

#: Memory that is assumed where the system does not say how much it has.
UNKNOWN_MEMORY = 8 * GIB

#: The environment of a process that is one of many on this machine. It computes on one thread. And
#: glibc gives large blocks back to the system and takes them again, page by page, for every volume;
#: kept, they halve the time of reading one. The first threshold is the most that glibc accepts.
ONE_OF_MANY = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * MIB),
    "MALLOC_TRIM_THRESHOLD_": str(256 * MIB),
}

#: Where control groups of each kind are mounted, most usual first; "" is version 2.
_MOUNTS = {"": ("", "unified"), "cpu": ("cpu", "cpu,cpuacct"), "memory": ("memory",)}

#: Options of glibc's mallopt, from its malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def usable_cores(root: Path = Path("/")) -> int:
    """Processor cores that this process may keep busy, at least one.

    Args:
        root: where `/proc` and `/sys` are.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    limits = [float(cores), *_quotas(root)]
    if cores_of_task := _slurm("SLURM_CPUS_PER_TASK"):
        limits.append(cores_of_task)
    return max(1, math.ceil(min(limits)))


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may fill in all, whatever is in use at the moment.

    Args:
        root: where `/proc` and `/sys` are.
    """
    return min([installed_memory(), *_job_memory(), *(limit for limit, _ in _memory_limits(root))])


def free_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that are free for this process now, without swapping.

    Args:
        root: where `/proc` and `/sys` are.
    """
    available = _after(root / "proc/meminfo", "MemAvailable:")  # as "1234 kB"
    free = int(available.split()[0]) * 1024 if available else installed_memory() // 2
    return min([free, *_job_memory(), *(limit - used for limit, used in _memory_limits(root))])


def installed_memory() -> int:
    """Bytes of memory that the machine has, whoever may use them."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows, and systems without these names
        return UNKNOWN_MEMORY


def peak_memory() -> int:
    """The most memory that this process has held, in bytes; 0 where the system does not say."""
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def processor_name(root: Path = Path("/")) -> str:
    """What the processor is called, with the cores that this process may use.

    Args:
        root: where `/proc` and `/sys` are.
    """
    name = _after(root / "proc/cpuinfo", "model name").removeprefix(":").strip()
    return f"{name or platform.machine()}, {usable_cores()} cores"


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next step, not give it back to the system.

    A training step frees gigabytes and asks for the same ones again. By default glibc returns every
    block of more than some MiB at once, and the system clears each of its pages anew; on a CPU this
    took a tenth of a step and more (`benchmarks/NOTES.md`). The process then stays as large as it
    ever was.

    Returns:
        Whether the C library took the options; with others than glibc nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    never = -1
    accepted = [mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, never)]
    return accepted == [1, 1]


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
            # Seen from inside a container, the path of a group outside of it begins with "..".
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for name in _MOUNTS[kind]:
                mount = root / "sys/fs/cgroup" / name
                for depth in range(len(parts), -1, -1):
                    # A container may see its own group as the root: folders can be missing.
                    folder = mount.joinpath(*parts[:depth])
                    if folder.is_dir():
                        yield folder


def _quotas(root: Path) -> Iterator[float]:
    """Processor time that each group around this process may take, in cores."""
    for group in _groups(root, ""):
        with suppress(OSError, ValueError):  # the root has none; a quota may be "max"
            quota, period = map(int, (group / "cpu.max").read_text().split())
            yield quota / period
    for group in _groups(root, "cpu"):
        with suppress(OSError, ValueError):
            quota = int((group / "cpu.cfs_quota_us").read_text())
            if quota > 0:  # -1 is none
                yield quota / int((group / "cpu.cfs_period_us").read_text())


def used_of_quotas(root: Path = Path("/")) -> dict[Path, tuple[float, float]]:
    """Each group of version 2 with a quota: its cores, and the processor seconds it has used.

    Args:
        root: where `/proc` and `/sys` are.
    """
    limits = {}
    for group in _groups(root, ""):
        with suppress(OSError, ValueError):
            quota, period = map(int, (group / "cpu.max").read_text().split())
            limits[group] = (quota / period, int(_after(group / "cpu.stat", "usage_usec ")) / 1e6)
    return limits


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of memory, in bytes, of each group around this process."""
    for group in _groups(root, ""):
        for name in ("memory.max", "memory.high"):
            with suppress(OSError, ValueError):
                limit_bytes = int((group / name).read_text())
                yield limit_bytes, _used(group, "memory.current", "inactive_file")
    for group in _groups(root, "memory"):
        with suppress(OSError, ValueError):
            limit_bytes = int((group / "memory.limit_in_bytes").read_text())
            yield limit_bytes, _used(group, "memory.usage_in_bytes", "total_inactive_file")


def _used(group: Path, current: str, inactive: str) -> int:
    """Bytes that a group holds and cannot give up; it can give up files that are only cached."""
    cached = int(_after(group / "memory.stat", f"{inactive} ") or 0)
    with suppress(OSError):
        return int((group / current).read_text()) - cached
    return 0


def _after(file: Path, start: str) -> str:
    """What follows `start` in the first line that begins so; empty where there is none."""
    with suppress(OSError):
        for line in file.read_text().splitlines():
            if line.startswith(start):
                return line.removeprefix(start).strip()
    return ""


def _job_memory() -> Iterator[int]:
    """Bytes that a SLURM job may fill on this machine; in SLURM's variables 0 means all."""
    if per_node := _slurm("SLURM_MEM_PER_NODE"):
        yield per_node * MIB
    per_core, cores = _slurm("SLURM_MEM_PER_CPU"), _slurm("SLURM_CPUS_ON_NODE")
    if per_core and cores:
        yield per_core * cores * MIB


def _slurm(name: str) -> int:
    """A number that SLURM has set, or 0."""
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else 0


def versions(*packages: str) -> dict[str, str]:
    """The version of this library, whether it is installed or only on the path, and of others."""
    from vitaepp import __version__

    return {"vitaepp": __version__} | {name: version(name) for name in packages}
