"""Sources and stores behind URLs: the same store, nothing left behind, one line on what fails."""

import random
import shutil
import signal
import socket
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tests.conftest import LIGHT
from tests.ingest.trees import brats, picture, scan
from tests.ingest.workers.test_killed import (
    MASKED,
    SETTINGS,
    cohort,
    command,
    files_of,
    in_own_process,
    with_masks,
)
from vitaepp import Embeddings, embed, pretrain
from vitaepp.data.inspection import inspect
from vitaepp.data.store import Store
from vitaepp.data.storewriter import StoreWriter
from vitaepp.errors import SourceError, StorageError, StoreError
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.workers import pool
from vitaepp.system import storage
from vitaepp.system.storage import RemoteFolder, folder_at


@pytest.fixture
def memory():
    """An empty memory://."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where temporary files go; empty when all is done."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def upload(system, folder: Path, to: str) -> str:
    for file in folder.rglob("*"):
        if file.is_file():
            system.pipe_file(f"{to}/{file.relative_to(folder)}", file.read_bytes())
    return f"memory://{to}"


def remote_files(system, at: str) -> dict[str, bytes]:
    names = system.find(at)
    return {n.removeprefix(f"/{at.strip('/')}/"): system.cat_file(n) for n in sorted(names)}


def local_files(store: Path) -> dict[str, bytes]:
    return {n: b for n, b in files_of(store).items() if (store / n).is_file()}


@pytest.mark.parametrize("layout", ["scans", "brats", "pictures", "manifest", "npz"])
def test_a_remote_store_of_a_remote_source_is_the_local_one(tmp_path, memory, scratch, layout):
    here = tmp_path / "mine"
    at = "bucket/mine"
    settings = SETTINGS
    if layout == "scans":
        cohort(here, 3)
        (here / "broken.nii.gz").write_bytes(b"no scan")
    elif layout == "brats":
        brats(here)
    elif layout == "pictures":
        for i in range(6):
            picture(here / "train" / "ab"[i % 2] / f"{i}.png", i, shape=(90, 90), colour=True)
        settings = {"size": 16}
    elif layout == "manifest":
        scan(here / "scans" / "a.nii.gz")
        scan(here / "scans" / "b.nii.gz", seed=1)
        (here / "list.csv").write_text(
            "subject,t1,age\na,scans/a.nii.gz,30\nb,scans/b.nii.gz,40\nc,scans/c.nii.gz,50\n"
        )
    else:
        here.mkdir()
        images = np.random.default_rng(0).integers(0, 255, (5, 12, 12)).astype(np.uint8)
        np.savez(here / "x.npz", train_images=images, train_labels=np.arange(5)[:, None] % 2)
        settings = {}
    file = {"manifest": "/list.csv", "npz": "/x.npz"}.get(layout, "")
    upload(memory, here, at)
    local = prepare(f"{here}{file}", tmp_path / "s", workers=1, **settings)
    remote = prepare(f"memory://{at}{file}", "memory://bucket/stores/s", **settings)
    assert remote.prepared == local.prepared > 0
    assert remote.failures == local.failures
    assert remote_files(memory, "bucket/stores/s") == local_files(tmp_path / "s")
    again = prepare(f"memory://{at}{file}", "memory://bucket/stores/s", **settings)
    assert (again.prepared, again.skipped) == (0, local.prepared)
    assert remote_files(memory, "bucket/stores/s") == local_files(tmp_path / "s")
    memory.rm("/bucket/stores/s/images.zarr/c/1", recursive=True)
    mended = prepare(f"memory://{at}{file}", "memory://bucket/stores/s", **settings)
    assert (mended.prepared, mended.skipped) == (1, local.prepared - 1)
    assert remote_files(memory, "bucket/stores/s") == local_files(tmp_path / "s")
    opened = Store("memory://bucket/stores/s")
    assert (opened.read(range(len(opened))) == Store(tmp_path / "s").images[:]).all()
    assert (
        inspect("memory://bucket/stores/s").splitlines()[1:]
        == (inspect(tmp_path / "s").splitlines()[1:])
    )


def test_new_and_changed_subjects_of_a_remote_store(tmp_path, memory, scratch):
    here = cohort(tmp_path / "x", 3)
    for subjects, seed in ((3, 1), (5, 70)):
        cohort(here, subjects)
        scan(here / "s01.nii.gz", seed=seed)
        upload(memory, here, "x")
        prepare("memory://x", "memory://s", **SETTINGS)
        prepare(here, tmp_path / "s", workers=1, **SETTINGS)
    assert remote_files(memory, "s") == local_files(tmp_path / "s")


def test_a_file_url_is_a_local_store(tmp_path):
    cohort(tmp_path / "x", 2)
    done = prepare(f"file://{tmp_path}/x", f"file://{tmp_path}/s", workers=1, **SETTINGS)
    assert done.store == tmp_path / "s"
    assert len(Store(f"file://{tmp_path}/s")) == 2
    assert Store(f"file://{tmp_path}/s").path == tmp_path / "s"


def twofold(path: Path) -> Path:
    """Where `dir::file://PATH`, to fsspec a file system of its own, has its files."""
    return path / str(path).lstrip("/")


def test_processes_share_a_remote_source_and_store(tmp_path, scratch, monkeypatch):
    source = with_masks(cohort(twofold(tmp_path / "x"), 6))
    prepare(source, tmp_path / "here", workers=1, **MASKED)
    monkeypatch.setattr(pool, "SECONDS_WORTH_PROCESSES", -1.0)
    done = prepare(f"dir::file://{tmp_path}/x", f"dir::file://{tmp_path}/s", workers=2, **MASKED)
    assert done.prepared == 6
    assert files_of(twofold(tmp_path / "s")) == files_of(tmp_path / "here")


def test_a_chunk_that_a_remote_store_lost_is_missed_and_made_again(tmp_path, memory, monkeypatch):
    source = cohort(tmp_path / "x", 3)
    prepare(source, "memory://s", size=8)
    fresh, finds = remote_files(memory, "s"), []
    memory.rm("/s/images.zarr/c/1/0/0/0/0")
    find, exists = memory.find, memory.exists
    monkeypatch.setattr(memory, "find", lambda *a, **k: finds.append(a) or find(*a, **k))
    with pytest.raises(StoreError, match=r"lacks 1 of 3 subjects"):
        Store("memory://s").read([0])
    assert len(finds) == 1
    monkeypatch.setattr(memory, "exists", lambda p, **k: "zarr/c" in p or exists(p, **k))
    assert prepare(source, "memory://s", size=8).prepared == 1
    assert remote_files(memory, "s") == fresh
    assert len(Store("memory://s").read([0, 1, 2])) == 3


def test_a_lost_chunk_is_missed_where_folders_are_not_looked_into(tmp_path, memory, monkeypatch):
    prepare(cohort(tmp_path / "x", 2), "memory://s", size=8)
    memory.rm("/s/images.zarr/c/1/0/0/0/0")
    memory.makedirs("/s/images.zarr/c/1/0/0/0", exist_ok=True)
    monkeypatch.setattr(storage, "OBJECT_STORES", frozenset())  # as on SFTP
    store = Store("memory://s")
    assert store.read([0]).any()
    with pytest.raises(StoreError, match=r"images\.zarr/c/1, of subject .*, is lost"):
        store.read([0, 1])


def no_network(*_, **__):
    raise socket.gaierror(-2, "Name or service not known")


def test_one_line_on_what_cannot_be_opened(tmp_path, memory, monkeypatch):
    cohort(tmp_path / "x", 1)
    with pytest.raises(StorageError, match=r"nonsense://x: .*nonsense"):
        prepare("nonsense://x", tmp_path / "s")
    with pytest.raises(SourceError, match=r"^memory://nowhere: no such file or folder$"):
        prepare("memory://nowhere", tmp_path / "s")
    with pytest.raises(StoreError, match=r"^memory://nowhere: no such store"):
        Store("memory://nowhere")
    memory.pipe_file("x/notes.doc", b"?")
    with pytest.raises(SourceError, match=r"^memory://x: no images found"):
        prepare("memory://x", tmp_path / "s")
    monkeypatch.setattr(socket, "create_connection", no_network)
    with pytest.raises(StorageError, match=r"^ftp://nowhere/x: cannot be reached: .*not known"):
        Store("ftp://nowhere/x")
    with pytest.raises(StorageError, match="holds a password") as caught:
        Store("ftp://me:secret@host/x")
    assert "secret" not in str(caught.value)
    done = command("inspect", "s3://bucket/store")
    assert done.returncode == 2
    assert "s3fs" in done.stderr or "s3://bucket/store" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def quick_lock(monkeypatch):
    monkeypatch.setattr(storage, "SECONDS_BETWEEN_BEATS", 0.1)
    monkeypatch.setattr(storage, "SECONDS_TO_DIE", 1.0)


def test_a_remote_store_in_use_is_refused_and_a_dead_holder_is_not_waited_for(
    tmp_path, memory, quick_lock
):
    source = cohort(tmp_path / "x", 2)
    prepare(source, "memory://s", **SETTINGS)
    before = remote_files(memory, "s")
    assert ".lock" not in before
    with StoreWriter("memory://s", Store("memory://s").info):
        start = time.monotonic()
        with pytest.raises(StoreError, match="another prepare is writing here"):
            prepare(source, "memory://s", **SETTINGS)
        assert time.monotonic() - start < 1.0
    assert ".lock" not in remote_files(memory, "s")
    memory.pipe_file("s/.lock", b"dead 7\n")
    assert prepare(source, "memory://s", **SETTINGS).skipped == 2
    assert remote_files(memory, "s") == before


def test_a_writer_that_lost_its_lock_commits_nothing(tmp_path, memory, quick_lock):
    source = cohort(tmp_path / "x", 2)
    prepare(source, "memory://s", **SETTINGS)
    before = memory.cat_file("s/table.parquet")
    store = Store("memory://s")
    with StoreWriter("memory://s", store.info) as writer:
        memory.pipe_file("s/.lock", b"other 0\n")
        with pytest.raises(StorageError, match="another prepare has taken over"):
            writer.commit(store.table, [])
    assert memory.cat_file("s/table.parquet") == before
    assert memory.cat_file("s/.lock") == b"other 0\n"


def check_remote_kills(folder: Path, select) -> None:
    """Kill a first `prepare` into a remote store at chosen steps, and run it again."""
    source = cohort(folder / "source")
    prepare(source, folder / "whole", workers=1, **SETTINGS)
    counted = folder / "counted" / "s"
    assert in_own_process(source, counted, None, f"dir::file://{counted}") == 0
    steps = int((folder / "counted" / "steps").read_text())
    assert steps > 30
    for step in select(steps):
        store = folder / f"killed-{step}"
        url = f"dir::file://{store}"
        assert in_own_process(source, store, step, url) == -signal.SIGKILL
        prepare(source, url, workers=1, **SETTINGS)
        assert files_of(twofold(store)) == files_of(folder / "whole"), f"before {step} of {steps}"


def test_killed_before_some_steps_a_remote_store_goes_on(tmp_path, quick_lock):
    check_remote_kills(tmp_path, lambda steps: sorted(random.Random(0).sample(range(steps), 5)))


@pytest.mark.slow
def test_killed_before_every_single_step_a_remote_store_goes_on(tmp_path, quick_lock):
    check_remote_kills(tmp_path, range)


def test_of_two_that_come_at_once_one_holds_the_lock(memory, quick_lock):
    holders, refused = [], []

    def contend():
        try:
            with folder_at("memory://s").lock():
                holders.append(1)
                time.sleep(2)
        except BlockingIOError:
            refused.append(1)

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(holders), len(refused)) == (1, 3)


def test_a_name_that_leads_out_of_the_source_is_refused(tmp_path, memory):
    memory.store["/x/../../evil.nii.gz"] = memory.open("/tmp", "wb")
    with pytest.raises(SourceError, match="leads out of it"):
        prepare("memory://x", tmp_path / "s")


def test_files_with_folders_appear_whole_or_not_at_all(tmp_path):
    folder = RemoteFolder(f"dir::file://{tmp_path}")
    folder.write("a/b.txt", b"one")
    assert folder.read("a/b.txt") == b"one"
    folder.copy({"a/b.txt": "c/d.txt"})
    folder.write("a/b.txt", b"two")
    assert folder.read_all(["a/b.txt", "c/d.txt"]) == {"a/b.txt": b"two", "c/d.txt": b"one"}
    folder.write("a/.tmp-left", b"")
    folder.remove_leftovers()
    assert folder.entries("a") == ["b.txt"]
    folder.remove_folder("a", first=".txt")
    assert folder.entries() == ["c"]
    assert not folder.exists("a")


def test_a_remote_store_trains_and_embeds(tmp_path, memory):
    cohort(tmp_path / "x", 6)
    prepare(tmp_path / "x", "memory://s", size=16, spacing=1.0)
    prepare(tmp_path / "x", tmp_path / "s", size=16, spacing=1.0, workers=1)
    # Reading processes would not see what is in the memory of this one.
    for store, run, cache in (("memory://s", "far", "none"), (tmp_path / "s", "near", "auto")):
        settings = [*LIGHT, "optim.epochs=1", f"data.cache={cache}"]
        pretrain(store, tmp_path / run, settings=settings)
        embed(tmp_path / run, store, tmp_path / f"{run}.parquet", controls=False)
    far = Embeddings.load(tmp_path / "far.parquet")
    assert far.provenance["store"] == "s"
    np.testing.assert_array_equal(far.features, Embeddings.load(tmp_path / "near.parquet").features)


def test_a_store_in_a_zip_is_read_as_it_is(tmp_path):
    prepare(cohort(tmp_path / "x", 2), tmp_path / "s", size=8, workers=1)
    shutil.make_archive(str(tmp_path / "s"), "zip", tmp_path, "s")
    near, far = Store(tmp_path / "s"), Store(f"zip://s::{tmp_path}/s.zip")
    np.testing.assert_array_equal(far.read([1, 0]), near.read([1, 0]))
    assert (far.name, far.fingerprint()) == ("s.zip", near.fingerprint())
    shutil.make_archive(str(tmp_path / "inner"), "zip", tmp_path / "s")
    assert Store(f"zip://::file://{tmp_path}/inner.zip").read([0]).any()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_scans_on_a_web_server(tmp_path, scratch):
    pytest.importorskip("aiohttp", reason="fsspec reads http by aiohttp")
    source = cohort(tmp_path / "x", 3)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(source)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        prepare(f"http://127.0.0.1:{server.server_port}/", tmp_path / "far", **SETTINGS)
    finally:
        server.shutdown()
        server.server_close()
    prepare(source, tmp_path / "near", workers=1, **SETTINGS)
    assert files_of(tmp_path / "far") == files_of(tmp_path / "near")
