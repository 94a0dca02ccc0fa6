"""Compiled parts give what plain ones do, and what cannot be compiled is said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RecipeError
from vitaepp.training.pretrain import pretrain


def run(*command, **environment):
    """A command in a process of its own, in which nothing checks types."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, command)],
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_compiled_parts_give_the_same_step_under_the_same_names():
    done = run("-m", "tests.training.compiling", "steps")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 4
    assert all(int(graphs) >= 1 for *_, graphs in lines)


@pytest.mark.slow
def test_the_real_compiler_gives_the_same_step():
    done = run("-m", "tests.training.compiling", "real")
    assert done.returncode == 0, done.stderr


def test_a_compiled_training_leaves_an_encoder_like_any_other(make_store, tmp_path):
    store = make_store(subjects=5).path
    done = run("-m", "tests.training.compiling", "pretrain", store, tmp_path / "compiled")
    assert done.returncode == 0, done.stderr
    assert "compiling" in done.stderr
    pretrain(store, tmp_path / "plain", settings=(*TINY, "trainer.precision=32"))
    one, other = (
        Encoder.from_pretrained(tmp_path / name).state_dict() for name in ("compiled", "plain")
    )
    assert all(torch.allclose(one[k], other[k], atol=1e-5) for k in one)


def test_without_a_compiler_one_line_says_so(make_store, tmp_path):
    store = make_store(subjects=4).path
    settings = [f"--set={setting}" for setting in (*TINY, "trainer.compile=default")]
    program = "from vitaepp.cli.app import main; main()"
    done = run("-c", program, "pretrain", store, tmp_path / "run", *settings, CXX="nowhere")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "torch could not compile" in done.stderr.splitlines()[-1]


def test_sharded_weights_are_not_compiled(make_store, tmp_path):
    settings = (*TINY, "trainer.compile=default", "trainer.strategy=fsdp", "trainer.devices=2")
    run_folder = tmp_path / "run"
    with pytest.raises(RecipeError, match=r"does not go with trainer\.strategy=fsdp"):
        pretrain(make_store(subjects=4).path, run_folder, settings=settings, recipe="demo")
    assert not (run_folder / "recipe.yaml").exists()
