"""Progress: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10.0


def say(text: str) -> None:
    """Print one line of what is being done to standard error, where progress goes."""
    print(text, file=sys.stderr, flush=True)


def counted(count: int, noun: str) -> str:
    """A number of things in words.

    >>> counted(1, "subject"), counted(944, "subject"), counted(5216, "image")
    ('1 subject', '944 subjects', '5,216 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def track(
    items: Iterable[Item], what: str, total: int | None, unit: str = "subjects"
) -> Iterator[Item]:
    """Yield from `items`, showing how many of `total`, if that is known, are through.

    On a terminal this is a bar; in a log one line about every ten seconds and one at the end.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield from progress.track(items, total=total, description=what)
        return
    of_total = "" if total is None else f" of {total}"
    start = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            say(f"{what}: {done}{of_total} {unit}, {now - start:.0f} s")
            last = now
    say(f"{what}: {done}{of_total} {unit} in {time.monotonic() - start:.1f} s")
