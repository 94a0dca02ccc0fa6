"""Cores and memory that a process may use, in containers and jobs that are only folders here."""

import os
from pathlib import Path

import pytest

from vitaepp.system.host import free_memory, usable_cores, usable_memory

MIB = 2**20


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """A machine of eight cores, outside of any job."""
    for name in [n for n in os.environ if n.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.fixture
def machine(tmp_path):
    """Make `/proc/self/cgroup` of lines, and files under `/sys/fs/cgroup`."""

    def make(lines: str, files: dict[str, str]) -> Path:
        own = tmp_path / "proc/self/cgroup"
        own.parent.mkdir(parents=True)
        own.write_text(lines)
        for name, text in files.items():
            file = tmp_path / "sys/fs/cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("lines", "files", "cores"),
    [
        ("", {}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000\n"}, 3),
        # The narrowest of a group and all around it counts.
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000", "a/cpu.max": "600000 100000"}, 2),
        ("0::/a\n", {"a/cpu.max": "10000 100000"}, 1),
        ("0::/a\n", {"a/cpu.max": "3200000 100000"}, 8),
        # A container that sees its own group as the root, and the path from outside.
        ("0::/../x/y\n", {"cpu.max": "400000 100000"}, 4),
        (
            "5:cpu,cpuacct:/docker/1\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "50000"},
            4,
        ),
        (
            "5:cpu:/job/step\n",
            {
                "cpu/job/cpu.cfs_quota_us": "500000",
                "cpu/job/cpu.cfs_period_us": "100000",
                "cpu/job/step/cpu.cfs_quota_us": "-1",
                "cpu/job/step/cpu.cfs_period_us": "100000",
            },
            5,
        ),
        ("5:cpuset:/job\n", {"cpu/job/cpu.cfs_quota_us": "1"}, 8),
        ("0::/a\n", {"unified/a/cpu.max": "600000 100000"}, 6),
    ],
)
def test_cores_are_those_of_every_group_around(machine, lines, files, cores):
    assert usable_cores(machine(lines, files)) == cores


def test_cores_are_those_of_the_mask_and_the_job(machine, monkeypatch):
    root = machine("0::/a\n", {"a/cpu.max": "700000 100000"})
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert usable_cores(root) == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert usable_cores(root) == 1


@pytest.mark.parametrize(
    ("lines", "files", "whole", "free"),
    [
        (
            "0::/slurm/job_1/step_0\n",
            {
                "slurm/job_1/step_0/memory.max": "max\n",
                "slurm/job_1/memory.max": "8000000\n",
                "slurm/job_1/memory.current": "5000000\n",
                "slurm/job_1/memory.stat": "anon 3000000\ninactive_file 2000000\n",
            },
            8000000,
            5000000,
        ),
        ("0::/a\n", {"a/memory.max": "9000000", "a/memory.high": "4000000"}, 4000000, 4000000),
        ("0::/a/b\n", {"a/b/memory.max": "3000000", "a/memory.max": "9000000"}, 3000000, 3000000),
        (
            "4:memory:/docker/x\n",
            {
                "memory/memory.limit_in_bytes": "7000000",
                "memory/memory.usage_in_bytes": "2000000",
                "memory/memory.stat": "cache 5\ntotal_inactive_file 1000000\n",
            },
            7000000,
            6000000,
        ),
        (
            "4:memory:/job/step\n",
            {
                "memory/job/memory.limit_in_bytes": "7000000",
                "memory/job/step/memory.limit_in_bytes": "9223372036854771712",  # none
            },
            7000000,
            7000000,
        ),
    ],
)
def test_memory_is_that_of_every_group_around(machine, lines, files, whole, free):
    root = machine(lines, files)
    assert usable_memory(root) == whole
    assert free_memory(root) == free


def test_memory_is_what_the_job_asked_for(tmp_path, monkeypatch):
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert usable_memory(tmp_path) == whole
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")  # all
    assert usable_memory(tmp_path) == whole
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "5")
    assert usable_memory(tmp_path) == free_memory(tmp_path) == 5 * MIB
    monkeypatch.delenv("SLURM_MEM_PER_NODE")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "3")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "2")
    assert usable_memory(tmp_path) == 6 * MIB
