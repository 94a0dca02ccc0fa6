"""Messages and progress: what is being done, on a terminal, in a notebook and in a log.

Every message goes through the logger `vitaepp` of Python's `logging`. As long as a program
sets up no logging, they appear as plain lines on standard error. In a program that does, by
`logging.basicConfig` or by a handler for `vitaepp`, they go there instead. They are silenced by

    >>> logging.getLogger("vitaepp").setLevel(logging.ERROR)    # doctest: +SKIP

which hides progress bars as well.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeVar

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10.0

#: In the environment of a process: the level below which its messages are hidden.
LEVEL_VARIABLE = "VITAEPP_LOG_LEVEL"

_logger = logging.getLogger("vitaepp")


class _PlainLines(logging.Handler):
    """Writes messages to standard error as they are, unless the program handles them itself."""

    always = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        alone = _logger.handlers == [self] and not logging.getLogger().handlers
        if self.always or alone:
            # Looked up each time: a bar, a notebook or a test may have replaced it.
            print(record.getMessage(), file=sys.stderr, flush=True)


_lines = _PlainLines()
if not _logger.handlers:  # a program may have set its own before the first message
    _logger.addHandler(_lines)
if _logger.level == logging.NOTSET:
    _logger.setLevel(int(os.environ.get(LEVEL_VARIABLE, logging.INFO)))


def say(text: str) -> None:
    """Tell in one line what is being done, or what was decided."""
    _logger.info("%s", text)


def warn(text: str) -> None:
    """Tell in one line what may make a result other than what was meant."""
    _logger.warning("%s", text)


def same_messages() -> dict[str, str]:
    """What the environment of a new process needs to say and to hide what this one does."""
    return {LEVEL_VARIABLE: str(_logger.getEffectiveLevel())}


@contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Write every message to standard error, and there alone: for the command line."""
    before = _lines.always, _logger.propagate
    _lines.always, _logger.propagate = True, False
    try:
        yield
    finally:
        _lines.always, _logger.propagate = before


@contextmanager
def quieter(logger: str, level: int) -> Iterator[None]:
    """Keep another library's logger from saying what is below a level."""
    own = logging.getLogger(logger)
    before = own.level
    own.setLevel(level)
    try:
        yield
    finally:
        own.setLevel(before)


def counted(count: int, noun: str) -> str:
    """A number of things in words.

    >>> counted(1, "subject"), counted(944, "subject"), counted(5216, "image")
    ('1 subject', '944 subjects', '5,216 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Bar:
    """A progress bar that is on the screen until it is closed; see `open_bar`."""

    def __init__(self, progress: Any, description: str, total: int | None) -> None:
        self._progress = progress
        self._progress.start()
        self._task = self._progress.add_task(description, total=total)

    def move(self, done: int, description: str | None = None) -> None:
        """Show how much is done, and another description if there is one."""
        self._progress.update(self._task, completed=done, description=description)

    def close(self) -> None:
        """Leave the bar as it is, and free the screen."""
        self._progress.refresh()  # rich leaves this out in a notebook
        self._progress.stop()


def open_bar(description: str, total: int | None) -> Bar | None:
    """A bar on a terminal or in a notebook; None where it could not move, as in a log.

    A notebook needs the package `ipywidgets` to show it (`pip install 'vitaepp[notebook]'`).
    """
    terminal = sys.stderr.isatty()
    if not _logger.isEnabledFor(logging.INFO) or not (terminal or find_spec("ipywidgets")):
        return None
    from rich.console import Console

    console = Console(stderr=True)
    if not (terminal or console.is_jupyter):
        return None
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    return Bar(progress.Progress(*columns, console=console), description, total)


def track(
    items: Iterable[Item], description: str, total: int | None, unit: str = "subjects"
) -> Iterator[Item]:
    """Yield from `items`, showing how many of `total`, if that is known, are through.

    This is a bar on a terminal and in a notebook. In a log it is a line about every ten seconds and
    one at the end.
    """
    bar = open_bar(description, total)
    of_total = "" if total is None else f" of {total}"
    start = last = time.monotonic()
    done = 0
    try:
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if bar is not None:
                bar.move(done)
            elif now - last >= SECONDS_BETWEEN_LINES:
                say(f"{description}: {done}{of_total} {unit}, {now - start:.0f} s")
                last = now
    finally:
        if bar is not None:
            bar.close()
    if bar is None:
        say(f"{description}: {done}{of_total} {unit} in {time.monotonic() - start:.1f} s")
