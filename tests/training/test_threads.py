"""Threads of a training: what is free, what the run began with, or what the user says."""

import json

import pytest
import torch

from tests.conftest import TINY
from vitaepp.data.runfolder import RunFolder
from vitaepp.training import threads
from vitaepp.training.pretrain import pretrain
from vitaepp.training.threads import free_threads, threads_to_take


@pytest.fixture
def three_free(monkeypatch):
    """Five cores, of which three are free."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "free_cores", lambda: 3)
    monkeypatch.setattr(threads, "usable_cores", lambda: 5)
    monkeypatch.setattr(threads, "chosen_device", lambda: torch.device("cpu"))


def test_a_run_goes_on_with_the_threads_that_it_began_with(three_free, tmp_path):
    folder = RunFolder(tmp_path, must_exist=False)
    assert threads_to_take(folder, resume=True) == 3
    folder.summary_file.write_text(json.dumps({"threads": 2}))
    assert threads_to_take(folder, resume=True) == 2
    assert threads_to_take(folder) == 3
    assert threads_to_take(sharing=2) == 1


def test_it_is_said_and_taken_back(three_free):
    before = torch.get_num_threads()
    with free_threads() as told:
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    assert told == (
        "computing with 3 threads on 5 cores, the others are busy; OMP_NUM_THREADS sets another "
        "number"
    )


def test_what_the_user_says_goes_first(three_free, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    with free_threads() as told:
        assert torch.get_num_threads() == before
    assert told == ""


def test_a_run_that_goes_on_with_other_threads_than_it_began_with_says_so(
    make_store, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(threads, "chosen_device", lambda: torch.device("cpu"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before, store, run = torch.get_num_threads(), make_store(subjects=4).path, tmp_path / "run"
    try:
        for count, epochs, told in ((1, 1, False), (1, 2, False), (2, 3, True), (2, 4, True)):
            torch.set_num_threads(count)
            begin = () if run.exists() else (*TINY, "method=vitae")
            pretrain(store, run, settings=(*begin, f"optim.epochs={epochs}"), resume=True)
            said = "computing with 2 threads, as OMP_NUM_THREADS says, but the run began with 1:"
            assert (said in capsys.readouterr().err) == told
    finally:
        torch.set_num_threads(before)
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["threads"], summary["threads_resumed"]) == (1, 2)
