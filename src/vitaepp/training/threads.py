"""Threads of a training on a CPU: as many as cores are free when it begins, until its end.

With another number of threads sums are taken in another order, so that a resumed training would not
be equal to an uninterrupted one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from vitaepp.data.runfolder import RunFolder
from vitaepp.system.devices import chosen_device
from vitaepp.system.files import read_json
from vitaepp.system.host import usable_cores
from vitaepp.system.progress import counted
from vitaepp.system.threads import CHOSEN, free_cores


def threads_to_take(folder: RunFolder | None = None, resume: bool = False, sharing: int = 1) -> int:
    """Threads of each process; on a run that goes on, as many as it began with.

    Args:
        folder: of the run, where there is one.
        resume: go on with it.
        sharing: processes on this machine.
    """
    began = threads_at_begin(folder) if resume and folder is not None else None
    return began or max(1, free_cores() // sharing)


def threads_at_begin(folder: RunFolder) -> int | None:
    """Threads that a run began with; None where there is no run, or it does not say."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return int(read_json(folder.summary_file)["threads"]) or None
    return None


@contextmanager
def free_threads(folder: RunFolder | None = None, resume: bool = False) -> Iterator[str]:
    """Compute on a CPU with the threads that suit it now; `OMP_NUM_THREADS` goes first.

    Args:
        folder: of the run, where there is one.
        resume: go on with it.

    Yields:
        What to say about it; empty where nothing was chosen.
    """
    began = threads_at_begin(folder) if resume and folder is not None else None
    if chosen_device().type != "cpu":
        yield ""
        return
    if CHOSEN in os.environ:
        now = torch.get_num_threads()
        yield (
            f"computing with {counted(now, 'thread')}, as {CHOSEN} says, but the run began with "
            f"{began}: sums are rounded otherwise, and the weights will not be bit for bit those "
            "of an uninterrupted training"
            if began not in (None, now)
            else ""
        )
        return
    before, cores = torch.get_num_threads(), usable_cores()
    threads = threads_to_take(folder, resume)
    why = "all are free" if threads >= cores else "the others are busy"
    if began:
        why = "as when the run began"
    torch.set_num_threads(threads)
    try:
        yield (
            f"computing with {counted(threads, 'thread')} on {counted(cores, 'core')}, {why}; "
            f"{CHOSEN} sets another number"
        )
    finally:
        torch.set_num_threads(before)
