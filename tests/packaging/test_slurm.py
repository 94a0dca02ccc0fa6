"""The jobs of examples/slurm, with stand-ins for SLURM and for vitaepp."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from vitaepp.cli.app import app

JOBS = Path(__file__).parents[2] / "examples" / "slurm"

#: Each writes its call into a file. sbatch gives out numbers, as `--parsable` prints them.
STUBS = {
    "sbatch": 'echo "sbatch $*" >> "$CALLS"; echo "$((100 + $(grep -c ^sbatch "$CALLS")));here"',
    "srun": 'while [[ $1 == -* ]]; do shift; done; exec "$@"',
    "vitaepp": 'echo "vitaepp $*" >> "$CALLS"; exit "${VITAEPP_STATUS:-0}"',
    "scontrol": 'echo "scontrol $*" >> "$CALLS"',
}

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the jobs are for bash")


@pytest.fixture
def job(tmp_path):
    """Run a script with the stand-ins; gives its status, its output, and the calls."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in STUBS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (programs / name).chmod(0o755)

    def run(script, *arguments, **variables):
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [JOBS / script, *map(str, arguments)],
            env=os.environ | {"PATH": path, "CALLS": str(calls), "SLURM_JOB_ID": "7"} | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        return done, calls.read_text().splitlines() if calls.exists() else []

    return run


def typed(calls):
    """Refuse a command that vitaepp would not take."""
    commands = typer.main.get_group(app).commands
    for call in calls:
        _, verb, *words = shlex.split(call)
        commands[verb].make_context(verb, words)


def test_each_job_waits_for_the_one_before(job, tmp_path):
    out = tmp_path / "out"
    done, calls = job("submit.sh", "scans", out, "labels.csv", "grade")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"jobs 101, 102 and 103; the report will be {out}/report.html\n"
    assert [Path(next(w for w in c.split() if w.endswith(".sh"))).name for c in calls] == [
        *("prepare.sh", "pretrain.sh", "evaluate.sh")
    ]
    assert "--dependency" not in calls[0]
    assert "--dependency=afterok:101 " in calls[1]
    assert "--dependency=afterok:102 " in calls[2]
    assert calls[0].endswith(f"prepare.sh scans {out} labels.csv")
    assert calls[2].endswith(f"evaluate.sh {out} grade")
    assert out.is_dir()  # where the logs go, before the first job


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("prepare.sh", ("scans", "out", "labels.csv")),
        ("pretrain.sh", ("out", "--hours", "8", "--set", "seed=1")),
        ("evaluate.sh", ("out", "grade")),
    ],
)
def test_the_jobs_run_commands_that_exist(job, script, arguments):
    done, calls = job(script, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert calls
    typed(calls)
    missing, called = job(script)
    assert (missing.returncode, called) == (1, [])
    assert "usage: " in missing.stderr


def test_what_the_jobs_hand_on_fits_together(job):
    prepared, trained, made = (
        job(script, *arguments)[1]
        for script, arguments in (
            ("prepare.sh", ("scans", "out", "l.csv")),
            ("pretrain.sh", ("out",)),
            ("evaluate.sh", ("out", "grade")),
        )
    )
    assert prepared == ["vitaepp prepare scans out/store --labels l.csv"]
    assert trained == ["vitaepp pretrain out/store out/run --resume"]
    assert made[0] == "vitaepp embed out/run out/store out/run/embeddings.parquet"
    assert [call.split()[1] for call in made] == ["embed", "evaluate", "reconstruct", "report"]


@pytest.mark.parametrize(("status", "requeued"), [("0", False), ("2", False), ("75", True)])
def test_a_training_that_was_stopped_goes_back_into_the_queue(job, status, requeued):
    done, calls = job("pretrain.sh", "out", VITAEPP_STATUS=status)
    assert done.returncode == int(status)
    assert ("scontrol requeue 7" in calls) == requeued


@pytest.mark.parametrize(("status", "of_job"), [("0", 0), ("1", 0), ("2", 2)])
def test_subjects_that_failed_do_not_stop_the_training(job, status, of_job):
    done, _ = job("prepare.sh", "scans", "out", "l.csv", VITAEPP_STATUS=status)
    assert done.returncode == of_job
    assert ("out/store/failures.csv" in done.stderr) == (status == "1")


def test_a_step_that_fails_ends_the_evaluation(job):
    done, calls = job("evaluate.sh", "out", "grade", VITAEPP_STATUS="2")
    assert (done.returncode, len(calls)) == (2, 1)
