"""Processes of their own for tests, forked from a server that has imported what they need.

An interpreter that trains imports for many seconds. These start at once, check no types, and are
killed and read as those of `subprocess` are.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TextIO

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(
    ["vitaepp.training.pretrain", "vitaepp.cli.app", "vitaepp.ingest.prepare", "SimpleITK"]
)


class Forked:
    """A function in a process of its own; its output and errors are read as text."""

    def __init__(
        self,
        function: Callable[..., object],
        *arguments: Any,
        cwd: str | os.PathLike[str] = ".",
        **environment: str,
    ) -> None:
        ends = [FORKS.Pipe(duplex=False) for _ in range(2)]
        written = [end for _, end in ends]
        self._process = FORKS.Process(
            target=_call,
            args=(function, arguments, Path(cwd).absolute(), os.environ | environment, written),
        )
        self._process.start()
        for end in written:
            end.close()
        self.stdout, self.stderr = (_text(end) for end, _ in ends)
        self.pid = self._process.pid
        self.kill, self.terminate = self._process.kill, self._process.terminate

    def wait(self, timeout: float | None = None) -> int:
        """Its status, as `subprocess` has it: one that is late is an error."""
        self._process.join(timeout)
        if (status := self.poll()) is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it still writes until it ends; after `timeout` seconds it is killed."""
        with self.stdout, self.stderr, ThreadPoolExecutor() as readers:
            texts = [readers.submit(end.read) for end in (self.stdout, self.stderr)]
            self._process.join(timeout)
            late = self.poll() is None
            if late:
                self.kill()
            out, said = (text.result() for text in texts)
        assert not late, f"still running after {timeout} s: {said}"
        return out, said

    def close(self) -> None:
        """Read nothing of what it writes."""
        self.stdout.close()
        self.stderr.close()


def command(*arguments: object, **environment: str) -> Forked:
    """The command line, with these arguments."""
    return Forked(command_line, *map(str, arguments), **environment)


def _text(end: Connection) -> TextIO:
    return open(os.dup(end.fileno()))


def command_line(*arguments: str) -> None:
    """`vitaepp` in this process."""
    from vitaepp.cli.app import main

    sys.argv = ["vitaepp", *arguments]
    main()


def _call(
    function: Callable[..., object],
    arguments: tuple[Any, ...],
    cwd: Path,
    environment: Mapping[str, str],
    written: list[Connection],
) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, end in enumerate(written, start=1):
        os.dup2(end.fileno(), number)
        end.close()
    function(*arguments)
