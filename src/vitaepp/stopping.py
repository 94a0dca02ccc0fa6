"""Signals that ask a training to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

#: SLURM sends SIGTERM before it takes a machine back, and can be asked to send SIGUSR1.
STOPPING = (signal.SIGTERM, signal.SIGUSR1)

#: Exit status of what was stopped, all being saved: "temporary failure", as sysexits.h has it.
STOPPED = 75


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have a function called on these signals; nothing changes outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


def stoppable() -> AbstractContextManager[None]:
    """Let a signal that asks to stop end the process with `STOPPED`, where nothing is to be saved.

    Around a whole training, its imports included. From its first step to its last the callback
    `Checkpoints` has the signals, and saves.
    """
    return handled(_stop)


def _stop(number: int, _: FrameType | None) -> None:
    # An exception would be lost where a library that is being imported catches all of them.
    name = signal.Signals(number).name
    print(
        f"vitaepp: stopped by {name} while no step was made; what is saved is whole, go on with "
        "--resume",
        file=sys.stderr,
        flush=True,
    )
    os._exit(STOPPED)
