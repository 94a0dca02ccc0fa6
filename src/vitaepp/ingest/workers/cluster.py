"""Many independent tasks on the workers of a Dask cluster, a few at a time.

https://distributed.dask.org/en/stable/client.html
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from vitaepp.data.geometry import simpleitk
from vitaepp.errors import ClusterError, one_line
from vitaepp.ingest.task import METHOD_VERSION
from vitaepp.system.extras import require
from vitaepp.system.progress import quieter, say

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

    This is `pool.run_each` on the workers of a scheduler, which may come and go. Dask repeats a
    task whose worker died (`distributed.scheduler.allowed-failures`). In the end the task is run
    alone, when no other task on the cluster can be the cause.

    Args:
        function: picklable, without state; an exception it raises ends the run.
        tasks: picklable values.
        died: the result of a task that killed its workers, even when it ran alone.
        address: of the scheduler, as `tcp://host:8786`.
        batch: tasks that are sent together; more for short ones.

    Raises:
        MissingPackageError: Dask is not installed.
        ClusterError: the scheduler does not answer, or its workers lack this library or have
            another version of it.
    """
    with _client(address) as client:
        _check_workers(client, address)
        lost: list[Task] = []
        rest = iter(tasks)
        groups = iter(lambda: list(islice(rest, batch)), [])
        yield from _under_way(client, function, groups, lost)
        for task in lost:
            blamed: list[Task] = []
            yield from _under_way(client, function, iter([[task]]), blamed)
            yield from map(died, blamed)


def _under_way(
    client: Any, function: Callable[[Task], Result], groups: Iterator[list[Task]], lost: list[Task]
) -> Iterator[Result]:
    """Run groups until all are done; append to `lost` the tasks of groups that killed workers."""
    distributed = require("distributed", "dask", "a Dask cluster needs")
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
    # On a worker, tasks run in parallel, and not the threads of one task.
    simpleitk().ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return [function(task) for task in tasks]


def _slots(client: Any) -> int:
    """Groups to submit at once: two for each thread of the cluster, at least two."""
    try:
        return 2 * max(sum(client.nthreads().values()), 1)
    except OSError:
        raise _ended() from None


def _ended() -> ClusterError:
    return ClusterError(
        "the Dask scheduler ended during the work; start it and run prepare again, which continues "
        "with the remaining subjects"
    )


@contextmanager
def _client(address: str) -> Iterator[Any]:
    distributed = require("distributed", "dask", "a Dask cluster needs")
    dask = require("dask", "dask", "a Dask cluster needs")
    # A task with an array has megabytes, and Dask would warn of each. Its client would log
    # tracebacks; our errors say the same in one line.
    large = {"distributed.admin.large-graph-warning-threshold": "1GiB"}
    with dask.config.set(large), quieter("distributed.client", logging.CRITICAL + 1):
        try:
            client = distributed.Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"{address}: no Dask scheduler answers there ({one_line(error)}); give its "
                "address as it prints it, like tcp://host:8786"
            ) from None
        with client:
            yield client


def _check_workers(client: Any, address: str) -> None:
    """Refuse workers that would not make the same store.

    Raises:
        ClusterError: a worker lacks this library, or has another version of it.
    """
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
