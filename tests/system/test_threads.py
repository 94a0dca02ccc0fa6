"""Threads: as many as cores are free, on machines that are only folders here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitaepp.system import threads
from vitaepp.system.threads import (
    CHOSEN,
    LINEAR_ALGEBRA,
    WAITING,
    free_cores,
    share_the_cores,
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Four cores; while it is measured each works for a given share of 100 ticks."""
    for name in [n for n in os.environ if n.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    (tmp_path / "proc").mkdir()

    def make(busy: list[int], quota: tuple[int, float] | None = None) -> Path:
        def write(now: bool) -> None:
            lines = ["cpu  9 9 9 9 0 0 0 0 0 0"]
            for core, ticks in enumerate(busy):
                worked, idle = (500 + ticks, 900 + 100 - ticks) if now else (500, 900)
                lines.append(f"cpu{core} {worked} 0 0 {idle - 7} 7 0 0 0 0 0")
            (tmp_path / "proc/stat").write_text("\n".join([*lines, "intr 1 2 3"]))
            if quota is not None:
                group = tmp_path / "sys/fs/cgroup/job"
                group.mkdir(parents=True, exist_ok=True)
                (tmp_path / "proc/self").mkdir(exist_ok=True)
                (tmp_path / "proc/self/cgroup").write_text("0::/job\n")
                (group / "cpu.max").write_text(f"{quota[0]}00000 100000\n")
                used = 5_000_000 + now * int(quota[1] * 1e6)
                (group / "cpu.stat").write_text(f"usage_usec {used}\nuser_usec 1\n")

        write(now=False)
        monkeypatch.setattr(threads.time, "sleep", lambda _: write(now=True))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("busy", "free"),
    [([0, 0, 0, 0], 4), ([100, 100, 0, 0], 2), ([30, 0, 0, 0], 4), ([100] * 4, 1), ([60] * 4, 2)],
)
def test_busy_cores_are_left_to_others(machine, busy, free):
    assert free_cores(machine(busy), 1.0) == free


def test_cores_outside_of_the_mask_do_not_count(machine, monkeypatch):
    root = machine([0, 100, 100, 0])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3})
    assert free_cores(root, 1.0) == 1


def test_what_others_use_of_a_quota_is_not_free(machine):
    assert free_cores(machine([0] * 4, quota=(3, 0.0)), 1.0) == 3
    assert free_cores(machine([0] * 4, quota=(3, 2.0)), 1.0) == 1


def test_without_linux_the_load_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (5.2, 0.0, 0.0), raising=False)
    assert free_cores(tmp_path, 0.0) == 3


def test_what_the_user_set_stays(monkeypatch):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    share_the_cores()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize(
    ("cores", "by_user", "threads"),
    [(16, None, "4"), (2, None, "2"), (16, CHOSEN, None), (16, LINEAR_ALGEBRA, "1")],
)
def test_classifiers_take_a_few_threads(monkeypatch, cores, by_user, threads):
    monkeypatch.setattr("vitaepp.system.threads.usable_cores", lambda: cores)
    for name in (CHOSEN, LINEAR_ALGEBRA, *WAITING):
        monkeypatch.setenv(name, "1")  # so that it is restored
        monkeypatch.delenv(name)
    if by_user:
        monkeypatch.setenv(by_user, "1")
    share_the_cores()
    assert os.environ.get(LINEAR_ALGEBRA) == threads


def test_the_command_line_sets_it_before_torch_is_imported():
    code = (
        "import os, sys, vitaepp.cli.app as app; assert 'torch' not in sys.modules\n"
        "sys.argv = ['vitaepp', 'pretrain', '--help']\n"
        "try: app.main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    )
    environment = {k: v for k, v in os.environ.items() if k not in WAITING}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.split()[-1] == "0"
