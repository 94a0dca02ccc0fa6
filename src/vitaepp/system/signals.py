"""Signals that ask a command to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from vitaepp.errors import Stopped
from vitaepp.system.progress import say

#: Ctrl-C is SIGINT. SLURM sends SIGTERM before it takes a machine back, and can be asked to send
#: SIGUSR1, which Windows does not have.
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)

#: Exit status of a process that a signal stopped after all was saved: "temporary failure" in
#: sysexits.h.
STOPPED = 75

#: Exit status of a process that Ctrl-C ended: of a training, the second one, before all was saved.
INTERRUPTED = 130

#: Exit status of a process that SIGTERM ended outside of a training.
TERMINATED = 143

#: Seconds that a command has, after SIGTERM, to remove what is half-written.
GRACE = 30.0


@contextmanager
def handled(
    handler: Callable[[int, FrameType | None], None],
    numbers: Sequence[signal.Signals] = STOPPING,
) -> Iterator[None]:
    """Have a function called on signals; outside of the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def stoppable() -> AbstractContextManager[None]:
    """Let a signal that asks to stop end the process with `STOPPED`, where nothing is to be saved.

    It goes around a whole training, its imports included. From the first step to the last the
    callback `Checkpoints` handles the signals, and saves.
    """
    return handled(_stop)


class Terminated(BaseException):
    """SIGTERM came: as with Ctrl-C, what is half-written is removed on the way out."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM be the exception `Terminated`, and a second one end the process at once.

    SLURM, `docker stop` and `timeout` send it; by itself it would leave temporary files. Python
    drops an exception that comes while it frees objects: then the process ends after `GRACE`.
    """
    end = threading.Timer(GRACE, os._exit, (TERMINATED,))
    end.daemon = True

    def terminate(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        end.start()
        raise Terminated

    try:
        with handled(terminate, (signal.SIGTERM,)):
            yield
    finally:
        end.cancel()


@contextmanager
def repeatable(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Have a training that is a part of a command say how that command goes on.

    Args:
        folder: that the command writes.
    """
    try:
        yield
    except Stopped:
        raise Stopped(
            f"{folder}: stopped by a signal; all is saved, repeat the command to go on"
        ) from None


def signal_name(number: int) -> str:
    """What people call a signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _stop(number: int, _: FrameType | None) -> None:
    # An exception would be lost where a library that is being imported catches all of them.
    say(
        f"vitaepp: stopped by {signal_name(number)} while no step was made; what is saved is "
        "whole, go on with `resume=True`"
    )
    os._exit(STOPPED)
