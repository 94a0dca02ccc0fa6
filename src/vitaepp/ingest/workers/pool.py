"""Many independent tasks on several processes, a few in memory at a time."""

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
from vitaepp.system.host import usable_cores

Task = TypeVar("Task")
Result = TypeVar("Result")

#: Starting processes takes seconds (each imports what it needs), so that a job which is done
#: sooner stays in this one.
SECONDS_WORTH_PROCESSES = 4.0

#: What a new process finds in its environment. Each computes on one thread. And glibc gives large
#: blocks back to the system and takes them again, page by page, for every volume; kept, they halve
#: the time of reading one. The first is the most that it takes.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}

#: Given to processes to end by themselves when there is nothing more to do.
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

    The first tasks run in this process; if the rest would take longer than starting processes
    does, they run on `workers` of them. With one worker, all run in this process. At most two
    batches a process are under way, so that `tasks` may be a generator of large arrays.

    Args:
        function: picklable, without state; an exception it raises ends the run.
        tasks: picklable values.
        total: how many tasks there are.
        died: result for a task whose process died, even when it was tried alone.
        workers: processes; unset: one a core that this process may use.
        batch: tasks that travel together; more for short ones.
        apart: whether a task may crash its process, so that none but one worker's runs in this one.
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
        # A process was killed (memory) or crashed: one of these tasks is to blame, or none.
        yield from _one_by_one(function, lost, died)


def _until_broken(
    pool: ProcessPoolExecutor,
    function: Callable[[Task], Result],
    tasks: Iterator[Task],
    lost: list[Task],
    under_way: int,
    batch: int,
) -> Iterator[Result]:
    """Run until the tasks are through, or the pool breaks: then `lost` gets those under way."""
    pending: dict[Future[list[Result]], list[Task]] = {}
    while not lost:
        while len(pending) < under_way and (group := list(islice(tasks, batch))):
            try:
                with _bare_environment():
                    pending[pool.submit(_run, function, group)] = group
            except BrokenProcessPool:
                lost += group
                break
        if not pending:
            return
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            group = pending.pop(future)
            try:
                yield from future.result()
            except BrokenProcessPool:
                lost += group
    for future, group in pending.items():
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

    One that was killed from outside may have held the lock of the queue, for which the others then
    wait for ever. What a killed process was writing is only a temporary file.
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
    """Let new processes import what their task needs, and find `ENVIRONMENT`.

    Otherwise each would run the user's script up to its guard (or again, where it has none) and
    import all that it does.
    """
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ.update(ENVIRONMENT)
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
    # Ctrl-C reaches the whole process group; the parent alone decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    simpleitk().ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)
