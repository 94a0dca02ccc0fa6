"""The C library's allocator, told to keep what it is given back."""

from __future__ import annotations

import ctypes
import resource
import sys

import torch

#: Options of glibc's mallopt, from its malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Keep freed memory for the next step rather than give it back to the system.

    A step frees and asks for the same gigabytes again. By default glibc returns every block of more
    than some MiB at once, and the system clears each of its pages anew; on a CPU this took a tenth
    of a step and more (`benchmarks/NOTES.md`). The process then stays as large as it ever was.

    Returns:
        Whether the C library could be told; with others than glibc nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    never = -1
    taken = [mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, never)]
    return taken == [1, 1]


def most_memory(device: torch.device) -> int:
    """Bytes that were held at most: by tensors on a GPU, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
