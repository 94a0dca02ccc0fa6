"""Every task gets its result, also when processes die."""

import os
import subprocess
import sys

import pytest

from vitaepp.ingest.workers import pool


def square(number: int) -> int:
    return number * number


def deadly(number: int) -> int:
    if number == 7:
        os._exit(3)
    return number


def failing(number: int) -> int:
    if number == 5:
        raise ValueError("five")
    return number


def torch_there(_: int) -> bool:
    return "torch" in sys.modules


@pytest.fixture
def at_once(monkeypatch):
    """Start processes after the first task."""
    monkeypatch.setattr(pool, "SECONDS_WORTH_PROCESSES", -1.0)


def run(function, count, **options):
    return list(pool.run_each(function, iter(range(count)), count, died=lambda t: -t, **options))


def test_short_work_stays_in_this_process():
    assert run(square, 10, workers=8) == [n * n for n in range(10)]


def test_processes_do_every_task_once(at_once):
    assert sorted(run(square, 41, workers=2, batch=4)) == [n * n for n in range(41)]


def test_a_process_that_dies_costs_its_own_task_alone(at_once):
    assert sorted(run(deadly, 20, workers=2, batch=3)) == sorted([*range(7), -7, *range(8, 20)])


def test_a_first_task_that_may_crash_costs_no_more_than_itself():
    tasks = iter([7, 1, 2])
    results = pool.run_each(deadly, tasks, 3, died=lambda t: -t, workers=2, apart=True)
    assert sorted(results) == [-7, 1, 2]


def test_an_exception_ends_the_run(at_once):
    with pytest.raises(ValueError, match="five"):
        run(failing, 20, workers=2)


def test_a_script_without_a_guard_is_not_run_again_and_lends_no_imports(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, types\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        "from vitaepp.ingest.workers import pool\n"
        "from tests.ingest.workers.test_pool import run, torch_there\n"
        "pool.SECONDS_WORTH_PROCESSES = -1.0\n"
        "print(run(torch_there, 4, workers=2))\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert done.stderr == ""
    assert done.stdout == "[True, False, False, False]\n"
