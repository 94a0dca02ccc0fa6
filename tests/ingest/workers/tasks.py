"""Tasks for the workers of a cluster, which import nothing else to run them."""

import os
import signal
import time


def deadly(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def failing(number: int) -> int:
    if number == 5:
        raise ValueError("five")
    return number


def slow_one(number: int) -> int:
    time.sleep(0.2)
    return number
