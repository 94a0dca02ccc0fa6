"""Signals that ask a training to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vitaepp.errors import Stopped

#: SLURM sends SIGTERM before it takes a machine back, and can be asked to send SIGUSR1.
STOPPING = (signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let a signal that asks to stop raise `Stopped`, where there is nothing to save.

    Around a whole training, its imports included. From its first step to its last the callback
    `Checkpoints` has the signals, and saves.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, _: FrameType | None) -> None:
    raise Stopped(
        f"stopped by {signal.Signals(number).name} while no step was made; what is saved is whole, "
        "go on with --resume"
    )
