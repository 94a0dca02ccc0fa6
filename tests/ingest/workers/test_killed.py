"""Killed at any moment, refused while in use, out of room: the store is whole and goes on."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ingest.trees import mask, scan
from tests.processes import FORKS, Forked, command_line
from vitaepp.data.store import Store
from vitaepp.data.storetable import Record
from vitaepp.data.storewriter import StoreWriter, stage
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.workers import pool

SETTINGS = {"size": 8, "spacing": 1.0}

#: What the interpreter tells of before it does it: every step that changes a disk.
STEPS = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate"}


def files_of(store: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(store)): p.read_bytes() if p.is_file() else b""
        for p in sorted(store.rglob("*"))
        if p.name != ".lock"
    }


def cohort(folder: Path, subjects: int = 4, first: int = 0) -> Path:
    for i in range(first, first + subjects):
        scan(folder / f"s{i:02d}.nii.gz", seed=i)
    return folder


#: As `SETTINGS`, with masks that are kept.
MASKED = {**SETTINGS, "center": "image", "keep_masks": True}


def with_masks(source: Path, at=(3, 3, 3)) -> Path:
    """The cohort with a mask for half of its first subjects."""
    for name in ("s00", "s01"):
        mask(source / f"{name}_seg.nii.gz", at=at)
    return source


def prepare_until(
    source: Path, store: Path, step: int | None, url: str = "", settings=SETTINGS
) -> None:
    """Prepare, and die by SIGKILL just before the given change to the disk below the store."""
    seen = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
        if (event in STEPS or writes) and str(store) in str(arguments[0]):
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(watch)
    prepare(source, url or store, workers=1, **settings)
    if step is None:
        (store.parent / "steps").write_text(str(seen))


def in_own_process(*arguments: object) -> int | None:
    process = FORKS.Process(target=prepare_until, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


def check_steps(folder: Path, select) -> None:
    """Kill a first `prepare` and one that adds, changes and mends at chosen steps; run it again.

    Half of the subjects have masks, which are kept.
    """
    small = with_masks(cohort(folder / "small"))
    grown = with_masks(cohort(folder / "grown", 6), at=(5, 5, 5))  # changed, too
    (small / "broken.nii.gz").write_bytes(b"no scan")
    scan(grown / "s01.nii.gz", seed=77)  # changed since
    prepare(small, folder / "base", workers=1, **MASKED)
    for source, base in ((small, None), (grown, folder / "base")):
        whole = folder / f"whole-{source.name}"
        if base is not None:
            shutil.copytree(base, whole)
        assert in_own_process(source, whole, None, "", MASKED) == 0
        assert [int(m.max()) for m in Store(whole).masks][:3] == [1, 1, 0]
        steps = int((folder / "steps").read_text())
        assert steps > 30
        for step in select(steps):
            store = folder / f"killed-{source.name}-{step}"
            if base is not None:
                shutil.copytree(base, store)
            assert in_own_process(source, store, step, "", MASKED) == -signal.SIGKILL
            if base is not None:
                assert set(Store(store).table.subject) >= {"s00", "s01", "s02", "s03"}
                assert Store(store).read([0, 1, 2, 3]).shape[0] == 4
                assert Store(store).masks[:4].shape[0] == 4
            prepare(source, store, workers=1, **MASKED)
            assert files_of(store) == files_of(whole), f"killed before step {step} of {steps}"
            shutil.rmtree(store)


def test_killed_before_some_steps_and_run_again_the_store_is_the_same(tmp_path):
    check_steps(tmp_path, lambda steps: sorted(random.Random(0).sample(range(steps), 6)))


@pytest.mark.slow
def test_killed_before_every_single_step_and_run_again_the_store_is_the_same(tmp_path):
    check_steps(tmp_path, range)


def in_parallel(source: Path, store: Path) -> None:
    os.setsid()
    pool.SECONDS_WORTH_PROCESSES = -1.0
    prepare(source, store, size=32, spacing=0.7, workers=2)


def workers_of(process: int) -> list[int]:
    """Children that prepare, by /proc."""
    children = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rsplit(")", 1)[1].split()[1])
            command = (entry.parent / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if parent == process and b"spawn_main" in command:
            children.append(int(entry.parent.name))
    return children


def kill(whom: str, process: Forked) -> None:
    if whom == "all":
        os.killpg(process.pid, signal.SIGKILL)
    elif whom == "parent":
        os.kill(process.pid, signal.SIGKILL)
    else:
        for worker in workers_of(process.pid)[:1]:
            os.kill(worker, signal.SIGKILL)
    if whom != "worker":
        process.wait(60)


def check_kills(folder: Path, kills: list[str], chance: random.Random) -> None:
    source = folder / "source"
    for i in range(24):
        scan(source / f"s{i:02d}.nii.gz", seed=i, shape=(24, 24, 24))
    whole = {"size": 32, "spacing": 0.7, "workers": 1}
    prepare(source, folder / "whole", **whole)
    for i, whom in enumerate(kills):
        store = folder / f"killed-{i}"
        process = Forked(in_parallel, source, store)
        staged = chance.randrange(2, 20)
        deadline = time.monotonic() + 60
        while len(list(store.glob(".staged/*.json"))) < staged and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        kill(whom, process)
        if whom == "worker":
            process.wait(180)
            assert process.returncode == 0  # its tasks were done again
        else:
            table = store / "table.parquet"
            assert not table.exists() or len(Store(store)) == 24
            # What a kill in the middle of a write leaves.
            (store / ".staged").mkdir(exist_ok=True)
            (store / ".staged" / ".tmp-1-x-0.json").write_text("{")
            (store / ".tmp-1-x-images.zarr").mkdir()
            done = len(list(store.glob(".staged/[!.]*.json")))
            # At once: workers of the dead parent may still be ending.
            resumed = prepare(source, store, **whole)
            assert resumed.skipped >= done
            assert resumed.skipped + resumed.prepared == 24
        process.close()
        assert files_of(store) == files_of(folder / "whole"), f"{whom} killed at {staged}"


def test_processes_killed_at_random_and_run_again_the_store_is_the_same(tmp_path):
    check_kills(tmp_path, ["all", "parent", "worker"], random.Random(1))


@pytest.mark.slow
def test_processes_killed_many_times_and_run_again_the_store_is_the_same(tmp_path):
    check_kills(tmp_path, ["all", "parent", "worker"] * 12, random.Random(2))


def test_new_subjects_are_added_and_changed_ones_noticed_by_their_content(tmp_path):
    source, store = cohort(tmp_path / "x", 3), tmp_path / "s"
    told = "{} subjects prepared, {} were there already"
    assert told.format(3, 0) in command("prepare", source, store, "--size", 8).stdout
    before, file = files_of(store), source / "s01.nii.gz"
    then = file.stat()
    os.utime(file, (then.st_atime, then.st_mtime + 3600))  # a new date is no new content
    assert told.format(0, 3) in command("prepare", source, store, "--size", 8).stdout
    assert files_of(store) == before
    scan(file, seed=50)
    os.utime(file, (then.st_atime, then.st_mtime))
    cohort(source, 1, first=3)
    assert told.format(2, 2) in command("prepare", source, store, "--size", 8).stdout
    assert list(Store(store).table.subject) == ["s00", "s01", "s02", "s03"]
    prepare(source, tmp_path / "whole", workers=1, **SETTINGS)
    assert (Store(store).read(range(4)) == Store(tmp_path / "whole").read(range(4))).all()


def test_a_process_that_outlived_its_run_leaves_nothing_in_the_finished_store(tmp_path):
    prepare(cohort(tmp_path / "x"), tmp_path / "s", workers=1, **SETTINGS)
    before, info = files_of(tmp_path / "s"), Store(tmp_path / "s").info
    assert not (tmp_path / "s" / ".staged").exists()
    record = Record("late", (0.0,) * 16, (0.0,), (1.0,), ("x",), "x")
    image = Store(tmp_path / "s").read([0])[0]
    with pytest.raises(FileNotFoundError):
        stage(tmp_path / "s", info, image, record)
    assert files_of(tmp_path / "s") == before


def hold(store: Path, ready) -> None:
    with StoreWriter(store, Store(store).info):
        ready.set()
        time.sleep(60)


def test_a_store_in_use_is_refused_until_the_process_that_writes_is_dead(tmp_path):
    source, store = cohort(tmp_path / "x"), tmp_path / "s"
    prepare(source, store, workers=1, **SETTINGS)
    before, ready = files_of(store), FORKS.Event()
    holder = FORKS.Process(target=hold, args=(store, ready))
    holder.start()
    assert ready.wait(60)
    done = command("prepare", source, store, "--size", 8)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        f"vitaepp: {store}: another prepare is writing here; wait for it to end",
    )
    assert "Traceback" not in done.stderr
    holder.kill()
    holder.join()
    assert prepare(source, store, workers=1, **SETTINGS).skipped == 4
    assert files_of(store) == before


def command(*arguments: object, function=command_line) -> subprocess.CompletedProcess[str]:
    process = Forked(function, *map(str, arguments))
    told = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, *told)


def limited(*arguments: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    command_line(*arguments)


@pytest.mark.parametrize("room", ["file size", "disk"])
def test_without_room_it_says_so_and_the_store_stays_whole(tmp_path, room):
    source = cohort(tmp_path / "x")
    store = tmp_path / "disk" / "s"
    more = scan(source / "s99.nii.gz", shape=(40, 40, 40)).parent
    whole = tmp_path / "whole"
    if room == "file size":
        (source / "s99.nii.gz").rename(tmp_path / "later")
        assert command("prepare", source, store, "--size", 32).returncode == 0
        (tmp_path / "later").rename(source / "s99.nii.gz")
        before = files_of(store)
        done = command("prepare", more, store, "--size", 32, function=limited)
        assert {f: b for f, b in files_of(store).items() if f in before} == before
        assert len(Store(store)) == 4
    else:
        done = full_disk(store.parent, source)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert line.startswith(f"vitaepp: {store}: cannot be written: ")
    assert line.endswith("make room and run prepare again, it goes on from what is finished")
    assert "Traceback" not in done.stderr
    if room == "file size":
        prepare(source, store, size=32, workers=1)
        (source / "s99.nii.gz").rename(tmp_path / "later")
        prepare(source, whole, size=32, workers=1)
        (tmp_path / "later").rename(source / "s99.nii.gz")
        prepare(source, whole, size=32, workers=1)
        assert files_of(store) == files_of(whole)


#: In a name space of its own: a disk of 512 KiB, a store on it, more than fits, and a look.
FULL_DISK = """
mount -t tmpfs -o size=512k none "$1" && echo mounted || exit
"$3" -c "$4" prepare "$2" "$1/s" --size 40 --workers 1
status=$?
"$3" -c "$5" "$1/s" || exit 3
exit $status
"""

FULL_LOOK = """
import sys
from pathlib import Path
from vitaepp.errors import StoreError
from vitaepp.data.store import Store
assert not list(Path(sys.argv[1]).glob(".tmp-*")), "left half-written"
try:
    Store(sys.argv[1])
except StoreError as error:
    assert "no subject is prepared yet" in str(error)
"""


def full_disk(disk: Path, source: Path) -> subprocess.CompletedProcess[str]:
    disk.mkdir()
    for i in range(20):
        scan(source / f"big{i:02d}.nii.gz", seed=i, shape=(40, 40, 40))
    main = "from vitaepp.cli.app import main; main()"
    inside = ["sh", "-c", FULL_DISK, "sh", disk, source, sys.executable, main, FULL_LOOK]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", *map(str, inside)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "mounted" not in done.stdout:
        pytest.skip(f"no disk of its own to be had here: {done.stderr.strip()}")
    return done
