"""Compiled parts give what plain ones do, and what cannot be compiled is said."""

import pytest
import torch

from tests.conftest import TINY
from tests.processes import Forked
from tests.training import compiling
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RecipeError
from vitaepp.training.pretrain import pretrain


def run(*arguments):
    """`compiling.main` in a process of its own: its output and errors."""
    process = Forked(compiling.main, *arguments)
    told = process.communicate(timeout=240)
    assert process.returncode == 0, told
    return told


def test_compiled_parts_give_the_same_step_under_the_same_names():
    lines = [line.split() for line in run("steps")[0].splitlines()]
    assert len(lines) == 4
    assert all(int(graphs) >= 1 for *_, graphs in lines)


@pytest.mark.slow
def test_the_real_compiler_gives_the_same_step():
    run("real")


def test_a_compiled_training_leaves_an_encoder_like_any_other(make_store, tmp_path):
    store = make_store(subjects=5).path
    assert "compiling" in run("pretrain", store, tmp_path / "compiled")[1]
    pretrain(store, tmp_path / "plain", settings=(*TINY, "trainer.precision=32"))
    one, other = (
        Encoder.from_pretrained(tmp_path / name).state_dict() for name in ("compiled", "plain")
    )
    assert all(torch.allclose(one[k], other[k], atol=1e-5) for k in one)


def test_without_a_compiler_one_line_says_so(make_store, tmp_path):
    store = make_store(subjects=4).path
    sets = [f"--set={setting}" for setting in (*TINY, "trainer.compile=default")]
    run_folder = str(tmp_path / "run")
    process = Forked(compiling.without_compiler, "pretrain", str(store), run_folder, *sets)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 2
    assert "Traceback" not in said
    assert "torch could not compile" in said.splitlines()[-1]


def test_sharded_weights_are_not_compiled(make_store, tmp_path, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "GROUP_RANK"):  # the first of two
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    settings = (*TINY, "trainer.compile=default", "trainer.strategy=fsdp", "trainer.devices=2")
    run_folder = tmp_path / "run"
    with pytest.raises(RecipeError, match=r"does not go with trainer\.strategy=fsdp"):
        pretrain(make_store(subjects=4).path, run_folder, settings=settings, recipe="demo")
    assert not (run_folder / "recipe.yaml").exists()
