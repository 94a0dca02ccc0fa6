"""A folder is held by one writer at a time, and free again when that has ended, however it did."""

import os
import signal
import subprocess
import sys

import pytest

import vitaepp
from vitaepp.errors import RunError
from vitaepp.system.files import locked

HOLDER = """
import sys
from vitaepp.system.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_held_once_and_its_file_locks_nobody_out(tmp_path):
    for _ in range(2):
        with locked(tmp_path):
            with pytest.raises(BlockingIOError, match="held by another process"), locked(tmp_path):
                pass
            assert (tmp_path / ".lock").exists()
        assert [*tmp_path.iterdir()] == []


def test_a_lock_that_was_removed_while_another_process_waited_locks_nothing(tmp_path):
    waiting = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    with locked(tmp_path):
        pass
    assert os.fstat(waiting).st_nlink == 0  # by which filelock notices
    os.close(waiting)
    with locked(tmp_path), pytest.raises(BlockingIOError), locked(tmp_path):
        pass


def test_a_killed_process_holds_no_lock(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), locked(tmp_path):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with locked(tmp_path):
        pass


def test_a_folder_that_is_missing_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "missing"):
        pass
    assert [*tmp_path.iterdir()] == []


def test_a_lock_moves_with_its_folder(tmp_path):
    (tmp_path / "new").mkdir()
    with locked(tmp_path / "new"):
        (tmp_path / "new").rename(tmp_path / "named")
        with pytest.raises(BlockingIOError), locked(tmp_path / "named"):
            pass
    with locked(tmp_path / "named"):
        pass


@pytest.mark.parametrize("verb", ["neighbours", "qc", "explain"])
def test_results_are_not_written_into_a_store_or_a_run(make_store, verb):
    store = make_store(4, (16, 16), ("grey",))
    before = sorted(store.path.rglob("*"))
    given = ["none.parquet"] if verb == "neighbours" else ["run", store.path]
    with pytest.raises(RunError, match="is a store; give a folder of its own"):
        getattr(vitaepp, verb)(*given, store.path)
    assert sorted(store.path.rglob("*")) == before
