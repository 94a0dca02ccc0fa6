"""What is written appears whole, and a folder is held by one writer, however these end."""

import os
import signal
import subprocess
import sys

import pytest

import vitaepp
from vitaepp.errors import RunError
from vitaepp.system import files
from vitaepp.system.files import atomic_path, locked
from vitaepp.system.signals import TERMINATED, Terminated

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


WRITER = """
import os, sys
from pathlib import Path
from vitaepp.system import files
target, stop = Path(sys.argv[1]), int(sys.argv[2])
replace, calls = os.replace, []
def stopping(*paths):
    calls.append(paths)
    if len(calls) == stop:
        os._exit(9)
    replace(*paths)
os.replace = stopping
with files.atomic_path(target) as temporary:
    temporary.mkdir()
    (temporary / "weights").write_text("new")
    if not stop:
        os._exit(9)
os._exit(0)
"""


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_a_folder_that_is_replaced_is_never_lost(tmp_path, stop):
    """A process that dies while it writes, or between its renames, leaves the old one."""
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")
    (tmp_path / ".tmp-1-a-model").mkdir()  # of nobody knows whom
    writer = subprocess.run([sys.executable, "-c", WRITER, target, str(stop)], check=False)
    assert writer.returncode == 9
    assert target.exists() == (stop != 2)
    assert len([*tmp_path.iterdir()]) == 3
    files._clear_abandoned.cache_clear()
    with atomic_path(tmp_path / "other.txt") as temporary:
        assert (target / "weights").read_text() == "old"
        assert {p.name for p in tmp_path.iterdir()} == {"model", ".tmp-1-a-model"}
        temporary.touch()
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("newer")
    assert (target / "weights").read_text() == "newer"
    assert {p.name for p in tmp_path.iterdir()} == {"model", "other.txt", ".tmp-1-a-model"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, Terminated])
def test_whatever_stops_the_change_of_folders_the_old_one_stays(tmp_path, monkeypatch, error):
    target, replace, calls = tmp_path / "model", os.replace, []
    target.mkdir()
    (target / "weights").write_text("old")

    def stopped(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise error
        replace(*paths)

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.mkdir()
    assert (target / "weights").read_text() == "old"
    assert [*tmp_path.iterdir()] == [target]


def test_the_folder_of_a_link_is_replaced_and_not_the_link(tmp_path):
    (tmp_path / "disk" / "model").mkdir(parents=True)
    (tmp_path / "model").symlink_to(tmp_path / "disk" / "model")
    with atomic_path(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "weights").touch()
    assert (tmp_path / "model").is_symlink()
    assert [p.name for p in (tmp_path / "disk" / "model").iterdir()] == ["weights"]
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["model"]


def test_temporaries_of_others_stay(tmp_path, monkeypatch):
    """Of processes that run, and of other machines, whose process numbers are their own."""
    with atomic_path(tmp_path / "a") as own:
        own.touch()
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(files, "_machine", lambda: "0" * 6)
            elsewhere.setattr(os, "getpid", lambda: 2**22 + 1)  # above all that Linux gives
            theirs = files._temporary(tmp_path / "b")
        theirs.touch()
        files._clear_abandoned.cache_clear()
        with atomic_path(tmp_path / "c") as third:
            third.touch()
        assert own.exists()
        assert theirs.exists()


TERMINATED_VERB = """
import sys
from vitaepp.cli import app
def waiting(*_, **__):
    from vitaepp.system.files import atomic_path
    with atomic_path("result.json") as temporary:
        temporary.touch()
        print("writing", flush=True)
        sys.stdin.read()
app.app = waiting
app.main()
"""


def test_a_termination_that_is_lost_comes_late(tmp_path):
    lost = TERMINATED_VERB.replace(
        "sys.stdin.read()",
        """
        try:
            sys.stdin.read()
        except BaseException:
            sys.stdin.read()""",
    )
    lost = "from vitaepp.system import signals\nsignals.GRACE = 0.5\n" + lost
    with subprocess.Popen(
        [sys.executable, "-c", lost], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == TERMINATED


def test_a_terminated_command_leaves_nothing_half_written(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", TERMINATED_VERB],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == TERMINATED
    assert err == b"vitaepp: stopped by SIGTERM; run the same command again to go on\n"
    assert [*tmp_path.iterdir()] == []
