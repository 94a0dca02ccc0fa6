"""Many independent tasks on several processes of this machine, a few in memory at a time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import TypeVar, cast

from vitaepp.data.geometry import simpleitk
from vitaepp.system.host import ONE_OF_MANY, usable_cores

Task = TypeVar("Task")
Result = TypeVar("Result")

#: Starting processes takes seconds, because each imports what it needs. A job that ends sooner
#: stays in this process.
SECONDS_WORTH_PROCESSES = 4.0

#: Time for processes to end by themselves when all is done.
SECONDS_TO_END = 10.0


def run_each(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    total: int,
    *,
    died: Callable[[Task], Result],
    workers: int | None = None,
    batch: int = 1,
    apart: bool = False,
) -> Iterator[Result]:
    """Results of a function for every task, in no particular order.

    The first tasks run in this process. If the others would take longer than starting processes
    does, they run in `workers` processes. With one worker, all tasks run in this process. At most
    two batches a process are under way, so that `tasks` may be a generator of large arrays.

    Args:
        function: picklable, without state; an exception it raises ends the run.
        tasks: picklable values.
        total: how many tasks there are.
        died: the result of a task whose process died, even when it ran alone.
        workers: number of processes; unset: one for each core that this process may use.
        batch: tasks that are sent together; more for short ones.
        apart: whether a task may crash its process; with more than one worker, none of them then
            runs in this process.
    """
    workers = workers or usable_cores()
    tasks = iter(tasks)
    if apart and workers > 1:
        yield from _in_processes(function, tasks, died, min(workers, total), batch)
        return
    start = time.monotonic()
    for done, task in enumerate(tasks, start=1):
        yield function(task)
        seconds_left = (time.monotonic() - start) / done * (total - done)
        if workers > 1 and seconds_left > SECONDS_WORTH_PROCESSES:
            yield from _in_processes(function, tasks, died, workers, batch)
            return


def _in_processes(
    function: Callable[[Task], Result],
    tasks: Iterator[Task],
    died: Callable[[Task], Result],
    workers: int,
    batch: int,
) -> Iterator[Result]:
    while True:
        lost: list[Task] = []
        with _pool(workers) as pool:
            yield from _until_broken(pool, function, tasks, lost, 2 * workers, batch)
        if not lost:
            return
        # A process was killed, for its memory perhaps, or crashed: by one of these tasks, or none.
        yield from _one_by_one(function, lost, died)


def _until_broken(
    pool: ProcessPoolExecutor,
    function: Callable[[Task], Result],
    tasks: Iterator[Task],
    lost: list[Task],
    under_way: int,
    batch: int,
) -> Iterator[Result]:
    """Run until all tasks are done or the pool breaks; append unfinished tasks to `lost` then."""
    pending: dict[Future[list[Result]], list[Task]] = {}
    while True:
        while not lost and len(pending) < under_way and (group := list(islice(tasks, batch))):
            try:
                with _bare_environment():
                    pending[pool.submit(_run, function, group)] = group
            except BrokenProcessPool:
                lost += group
        if not pending:
            return
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            group = pending.pop(future)
            try:
                yield from future.result()
            except BrokenProcessPool:
                lost += group


def _one_by_one(
    function: Callable[[Task], Result], tasks: Sequence[Task], died: Callable[[Task], Result]
) -> Iterator[Result]:
    remaining = list(tasks)
    while remaining:
        with _pool(1) as pool:
            while remaining:
                task = remaining.pop(0)
                try:
                    with _bare_environment():
                        future = pool.submit(_run, function, [task])
                    yield from future.result()
                except BrokenProcessPool:
                    yield died(task)
                    break


def _run(function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    return [function(task) for task in tasks]


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    # Spawned, not forked: a fork of a process with threads (torch, zarr) may hang.
    before = set(active_children())
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
    finally:
        ours = [process for process in active_children() if process not in before]
        pool.shutdown(wait=False, cancel_futures=True)
        _end(ours, SECONDS_TO_END)
        pool.shutdown()


def _end(processes: Sequence[BaseProcess], seconds: float) -> None:
    """Wait for processes to end, then kill those that do not.

    A process that was killed from outside may have held the lock of the queue, and the others then
    wait for it for ever. A process that is killed while it writes leaves only a temporary file.
    """
    running = {process.sentinel: process for process in processes}
    deadline = time.monotonic() + seconds
    while running and (left := deadline - time.monotonic()) > 0:
        for sentinel in wait_for(list(running), left):
            del running[cast(int, sentinel)]
    for process in running.values():
        process.kill()


@contextmanager
def _bare_environment() -> Iterator[None]:
    """Start new processes with `ONE_OF_MANY`, and without this program's `__main__`.

    With `__main__`, each process would run the user's script up to its guard (or all of it, where
    it has none) and import everything that the script does.
    """
    before = {name: os.environ.get(name) for name in ONE_OF_MANY}
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ.update(ONE_OF_MANY)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_worker() -> None:
    # Ctrl-C reaches all processes of the group; only the parent decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    simpleitk().ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)
