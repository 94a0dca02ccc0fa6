"""The same prepare on a Dask cluster: the same store, and a task that kills its workers named."""

import os
import signal
import sys
import time
from contextlib import contextmanager

import pytest

from tests.ingest.sources.test_remote import twofold
from tests.ingest.trees import scan
from tests.ingest.workers.test_killed import MASKED, SETTINGS, cohort, command, files_of, with_masks
from vitaepp.errors import ClusterError, MissingPackageError, RecipeError
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.workers import cluster

distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")

QUICK = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.profile.enabled": False,
    "distributed.comm.timeouts.connect": "2s",
}


@contextmanager
def cluster_of(**options):
    import dask

    with (
        dask.config.set(QUICK),
        distributed.LocalCluster(dashboard_address=":0", **options) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def address():
    with cluster_of(n_workers=2, threads_per_worker=2, processes=True) as running:
        yield running.scheduler_address


def deadly(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def failing(number: int) -> int:
    if number == 5:
        raise ValueError("five")
    return number


def run(function, count, address, **options):
    return list(
        cluster.run_on_cluster(
            function, iter(range(count)), died=lambda t: -t, address=address, **options
        )
    )


def test_the_store_is_that_of_a_local_prepare_and_what_is_there_is_kept(tmp_path, address):
    source = cohort(tmp_path / "x", 7)
    (source / "broken.nii.gz").write_bytes(b"no scan")
    here = prepare(source, tmp_path / "here", workers=1, **SETTINGS)
    there = prepare(source, tmp_path / "there", dask=address, **SETTINGS)
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")
    assert (there.prepared, there.failures) == (here.prepared, here.failures)
    scan(source / "s03.nii.gz", seed=99)
    done = command("prepare", source, tmp_path / "there", "--size", 8, "--dask", address)
    assert done.returncode == 1, done.stderr
    assert "1 subject prepared, 6 were there already, 1 failed" in done.stdout
    prepare(source, tmp_path / "here", workers=1, **SETTINGS)
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")


def test_relative_paths_are_those_of_who_gave_them(tmp_path, address, monkeypatch):
    cohort(tmp_path / "x", 2)
    monkeypatch.chdir(tmp_path)
    assert prepare("x", "s", dask=address, **SETTINGS).prepared == 2
    assert (tmp_path / "s" / "table.parquet").is_file()


def test_urls_are_the_same_everywhere(tmp_path, address):
    source = with_masks(cohort(twofold(tmp_path / "x"), 4))
    prepare(source, tmp_path / "here", workers=1, **MASKED)
    source, store = (f"dir::file://{tmp_path}/{name}" for name in "xs")
    assert prepare(source, store, dask=address, **MASKED).prepared == 4
    assert files_of(twofold(tmp_path / "s")) == files_of(tmp_path / "here")
    with pytest.raises(RecipeError, match="seen by one process alone"):
        prepare(source, "memory://s", dask=address, **SETTINGS)


def test_arrays_travel_with_their_tasks(tmp_path, address):
    import numpy as np

    images = np.random.default_rng(0).integers(0, 255, (20, 12, 12)).astype(np.uint8)
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=np.arange(20)[:, None] % 2)
    prepare(tmp_path / "x.npz", tmp_path / "here", workers=1)
    prepare(tmp_path / "x.npz", tmp_path / "there", dask=address)
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")


def test_an_exception_ends_the_run(address):
    with pytest.raises(ValueError, match="five"):
        run(failing, 20, address)


def test_few_tasks_are_under_way_however_many_there_are(address):
    taken = 0

    def tasks():
        nonlocal taken
        for number in range(1, 101):
            taken = number
            yield number

    most = 0
    results = cluster.run_on_cluster(abs, tasks(), died=abs, address=address)
    for done, _ in enumerate(results):
        most = max(most, taken - done)
    assert taken == 100
    assert most <= 2 * 4


def test_what_cannot_be_a_cluster_is_one_line(tmp_path, monkeypatch):
    source = cohort(tmp_path / "x", 1)
    monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 0.5)
    with pytest.raises(ClusterError, match="no Dask scheduler answers there"):
        prepare(source, tmp_path / "s", dask="tcp://127.0.0.1:9", **SETTINGS)
    with pytest.raises(ClusterError, match="no Dask scheduler answers there"):
        prepare(source, tmp_path / "s", dask="nonsense://x", **SETTINGS)
    with pytest.raises(RecipeError, match="not both"):
        prepare(source, tmp_path / "s", dask="tcp://127.0.0.1:9", workers=2, **SETTINGS)

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingPackageError, match=r"vitaepp\[dask\]"):
        prepare(source, tmp_path / "s", dask="tcp://127.0.0.1:9", **SETTINGS)


def test_workers_of_another_version_are_refused(address, monkeypatch):
    monkeypatch.setattr(cluster, "METHOD_VERSION", 99)
    with pytest.raises(ClusterError, match=r"has version \d+ of the method, here it is 99"):
        run(abs, 3, address)


def test_a_task_that_kills_its_workers_costs_itself_alone(address):
    """The last on this cluster, as the next one would wait for new workers."""
    assert sorted(run(deadly, 12, address, batch=3)) == sorted([*range(5), -5, *range(6, 12)])


def slow_one(number: int) -> int:
    time.sleep(0.2)
    return number


def test_a_scheduler_that_ends_is_one_line(monkeypatch):
    monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 1.0)
    with cluster_of(n_workers=1, threads_per_worker=1, processes=False) as running:
        results = cluster.run_on_cluster(
            slow_one, iter(range(50)), died=abs, address=running.scheduler_address
        )
        assert next(results) in range(4)
        running.close()
        with pytest.raises(ClusterError, match="the Dask scheduler ended"):
            list(results)
