"""Many independent tasks on the workers of a Dask cluster, a few under way at a time.

https://distributed.dask.org/en/stable/client.html
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from typing import Any, TypeVar

from vitaepp.data.geometry import simpleitk
from vitaepp.errors import ClusterError, one_line
from vitaepp.ingest.task import METHOD_VERSION
from vitaepp.system.progress import say

Task = TypeVar("Task")
Result = TypeVar("Result")

#: Given to the scheduler to answer at first.
SECONDS_TO_CONNECT = 10.0


def run_on_cluster(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    died: Callable[[Task], Result],
    address: str,
    batch: int = 1,
) -> Iterator[Result]:
    """Results of a function for every task, in no particular order, from a Dask cluster.

    As `pool.run_each`, but on the workers of a scheduler; they may come and go. A task whose
    worker died is tried again by Dask (`distributed.scheduler.allowed-failures`), and at last
    alone, with nothing else on the cluster that could be to blame.

    Args:
        function: picklable, without state; an exception it raises ends the run.
        tasks: picklable values.
        died: result for a task that killed its workers, even when it ran alone.
        address: of the scheduler, as `tcp://host:8786`.
        batch: tasks that travel together; more for short ones.

    Raises:
        ClusterError: Dask is not installed, the scheduler does not answer, or its workers lack
            this library or have another version of it.
    """
    with _client(address) as client:
        _check_workers(client, address)
        lost: list[Task] = []
        groups = _groups(tasks, batch)
        yield from _under_way(client, function, groups, lost)
        for task in lost:
            blamed: list[Task] = []
            yield from _under_way(client, function, iter([[task]]), blamed)
            yield from map(died, blamed)


def _under_way(
    client: Any,
    function: Callable[[Task], Result],
    groups: Iterator[list[Task]],
    lost: list[Task],
) -> Iterator[Result]:
    """Run groups until they are through; `lost` gets the tasks of those that killed workers."""
    distributed = import_module("distributed")
    pending: dict[str, list[Task]] = {}
    done = distributed.as_completed(loop=client.loop)
    while True:
        for group in islice(groups, max(_slots(client) - len(pending), 0)):
            future = client.submit(_run, function, group, pure=False)
            pending[future.key] = group
            done.add(future)
        if not pending:
            return
        future = next(done)
        group = pending.pop(future.key)
        try:
            yield from future.result()
        except distributed.KilledWorker:
            lost += group
        except CancelledError:
            raise _ended() from None


def _run(function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    # A worker's own threads are what works in parallel there.
    simpleitk().ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return [function(task) for task in tasks]


def _groups(tasks: Iterable[Task], batch: int) -> Iterator[list[Task]]:
    tasks = iter(tasks)
    while group := list(islice(tasks, batch)):
        yield group


def _slots(client: Any) -> int:
    """Groups to have under way: two a thread that works now, and some for workers to come."""
    try:
        return 2 * max(sum(client.nthreads().values()), 1)
    except OSError:
        raise _ended() from None


def _ended() -> ClusterError:
    return ClusterError(
        "the Dask scheduler ended while it was at work; start it and run prepare again, it goes "
        "on from what is finished"
    )


@contextmanager
def _client(address: str) -> Iterator[Any]:
    try:
        dask, distributed = import_module("dask"), import_module("distributed")
    except ImportError:
        raise ClusterError(
            "`dask` needs Dask, which is not installed; pip install 'vitaepp[dask]'"
        ) from None
    # Tasks of arrays are megabytes each, of which Dask would warn.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GiB"}), _unlogged():
        try:
            client = distributed.Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"{address}: no Dask scheduler answers there ({one_line(error)}); give its "
                "address as it prints it, like tcp://host:8786"
            ) from None
        with client:
            yield client


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep Dask's client from logging tracebacks of what is told here in one line."""
    logger = logging.getLogger("distributed.client")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _check_workers(client: Any, address: str) -> None:
    """Refuse workers that could not make the same store."""
    answers = client.run(_version, on_error="return")
    if not answers:
        say(f"{address}: the cluster has no workers yet; waiting for them")
    for worker, answer in answers.items():
        if isinstance(answer, ImportError):
            raise ClusterError(
                f"{address}: worker {worker} cannot run prepare: {one_line(answer)}; install "
                "this version of vitaepp there"
            )
        if isinstance(answer, int) and answer != METHOD_VERSION:
            raise ClusterError(
                f"{address}: worker {worker} has version {answer} of the method, here it is "
                f"{METHOD_VERSION}; install the same vitaepp everywhere"
            )


def _version() -> int:
    return METHOD_VERSION
