"""What is written appears whole, and a folder is held by one writer, however these end."""

import errno
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import vitaepp
from vitaepp.errors import RunError
from vitaepp.system import files
from vitaepp.system.files import atomic_path, locked, together, write_text
from vitaepp.system.signals import INTERRUPTED, TERMINATED, Terminated

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


OWN = {"accuracy": 0.91}

VERBS = {
    "evaluate": (("none.parquet", "grade"), "metrics.json", "predictions.parquet"),
    "audit": (("none.parquet", "none", "grade"), "audit.json", "audit.md"),
    "neighbours": (("none.parquet",), "neighbours.json", "neighbours.png"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_files_of_a_user_are_not_taken_for_an_earlier_result(tmp_path, verb):
    """Neither where a file has the name of the last one, nor where only others are there."""
    given, *names = VERBS[verb]
    for name in names:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / name).write_text(json.dumps(OWN))
        (tmp_path / "out" / "repeats.csv").write_text("mine")
        told = f"{name}: is there, and is no file of `{verb}`, or a damaged one; give another "
        told += "folder, or remove it"
        with pytest.raises(RunError, match=f"^\\S+{re.escape(told)}$"):
            getattr(vitaepp, verb)(*given, tmp_path / "out")
        kept = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
        assert kept == {name: json.dumps(OWN), "repeats.csv": "mine"}
        (tmp_path / "out").rename(tmp_path / name)


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


@pytest.mark.parametrize("failing", range(-3, 6))
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), Terminated()])
def test_files_of_two_results_are_never_beside_each_other(tmp_path, monkeypatch, failing, error):
    """Whatever is not done: writing one of three files, making room, or moving one of three."""
    names, replace = ("a.csv", "b.csv", "z.json"), os.replace
    for name in ("map.csv", *names):
        (tmp_path / name).write_text("old")
    calls = []

    def stopped(source, target):
        calls.append(target)
        if len(calls) == failing + 4:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", stopped)
    with suppress(OSError, Terminated), together(tmp_path, "z.json", optional=["map.csv"]) as new:
        for name in names:
            write_text(new / name, "new")
    monkeypatch.undo()
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    if failing < 0:
        assert found == dict.fromkeys(("map.csv", *names), "old")
    elif failing < 3:
        assert "z.json" not in found
        assert "map.csv" not in found
    else:
        assert found == dict.fromkeys(names, "new")


def _ten_results(folder, name):
    for i in range(10):
        with together(folder, "z.json") as new:
            for file in ("a.csv", "b.csv", "z.json"):
                (new / file).write_text(f"{name} {i}")


def test_two_processes_that_end_at_a_time_leave_the_result_of_one(tmp_path):
    for _ in range(4):
        processes = [
            multiprocessing.get_context("fork").Process(target=_ten_results, args=(tmp_path, name))
            for name in "xy"
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0]
        assert len({path.read_text() for path in tmp_path.iterdir()}) == 1
        assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "b.csv", "z.json"}


def test_only_what_an_earlier_result_may_have_written_is_removed(tmp_path):
    def write():
        with together(tmp_path, "z.json", optional=["notes.csv"]) as new:
            (new / "z.json").touch()

    (tmp_path / "notes.csv").write_text("somebody's own")
    write()
    assert (tmp_path / "notes.csv").read_text() == "somebody's own"
    write()
    assert [path.name for path in tmp_path.iterdir()] == ["z.json"]


def test_a_name_that_a_folder_has_is_told_before_anything_is_removed(tmp_path):
    (tmp_path / "z.json").write_text("old")
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(IsADirectoryError), together(tmp_path, "z.json") as new:
        write_text(new / "b.csv", "new")
    assert (tmp_path / "z.json").read_text() == "old"


def test_files_that_cannot_be_written_together_are_named_by_where_they_belong(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(IsADirectoryError) as raised, together(tmp_path, "z.json") as new:
        (new / "a.csv").touch()
    assert raised.value.filename == str(tmp_path / "a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    with (
        pytest.raises(OSError, match="No space") as raised,
        together(tmp_path, "z.json") as new,
        atomic_path(new / "b.csv"),
    ):
        raise OSError(errno.ENOSPC, "full")
    assert raised.value.filename == str(tmp_path / "b.csv")


def test_a_file_on_a_read_only_disk_is_named_by_its_own_name(tmp_path, monkeypatch):
    def refused(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setattr(Path, "write_text", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(OSError, match="Read-only") as raised:
        write_text(tmp_path / "r.html", "")
    assert raised.value.filename == str(tmp_path / "r.html")


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


READING_VERB = """
import asyncio, signal
from vitaepp.cli import app
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
def reading(*_, **__):
    from zarr.core.sync import sync
    async def read():
        print("reading", flush=True)
        await asyncio.gather(*(asyncio.sleep(60) for _ in range(3)))
    sync(read())
app.app = reading
app.main()
"""


@pytest.mark.parametrize(
    ("number", "status", "told"),
    [(signal.SIGTERM, TERMINATED, "stopped by SIGTERM"), (signal.SIGINT, INTERRUPTED, "interr")],
)
def test_a_command_that_is_stopped_while_it_reads_says_one_line(number, status, told):
    with subprocess.Popen(
        [sys.executable, "-c", READING_VERB], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"reading\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == status
    (line,) = err.decode().splitlines()
    assert told in line


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
