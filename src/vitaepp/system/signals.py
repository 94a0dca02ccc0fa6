"""Signals that ask a training to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

#: Ctrl-C is SIGINT. SLURM sends SIGTERM before it takes a machine back, and can be asked to send
#: SIGUSR1.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

#: Exit status of what was stopped, all being saved: "temporary failure", as sysexits.h has it.
STOPPED = 75

#: Exit status of what did not wait until all was saved, at a second Ctrl-C.
INTERRUPTED = 130


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


def told(number: int) -> str:
    """What people call a signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _stop(number: int, _: FrameType | None) -> None:
    # An exception would be lost where a library that is being imported catches all of them.
    print(
        f"vitaepp: stopped by {told(number)} while no step was made; what is saved is whole, go on "
        "with --resume",
        file=sys.stderr,
        flush=True,
    )
    os._exit(STOPPED)
