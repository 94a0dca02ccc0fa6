"""Several processes stop and save at the same update, and seldom ask each other."""

import re
import signal
import threading
from types import SimpleNamespace
from unittest.mock import Mock

import lightning as L
import pandas as pd
import pytest

import vitaepp
from tests.conftest import LIGHT, TINY
from vitaepp.data.runfolder import RunFolder
from vitaepp.training import callbacks
from vitaepp.training.callbacks import FIRST_STEPS, Checkpoints, History, LossBalance
from vitaepp.training.module import Training
from vitaepp.training.pretrain import pretrain


class Together:
    """Two processes as threads: each waits for the other where it asks, and has its own clock."""

    def __init__(self, monkeypatch, tmp_path, seconds):
        self.clock = threading.local()
        clock = SimpleNamespace(monotonic=lambda: getattr(self.clock, "now", 0.0))
        monkeypatch.setattr(callbacks, "time", clock)
        folder = RunFolder(tmp_path, must_exist=False)
        self.seconds = seconds
        self.ranks = [Checkpoints(folder, History(folder)) for _ in range(2)]
        self.said = [None, None]
        self.meet = threading.Barrier(2)
        self.questions = 0
        self.decided = [[], []]

    def trainer(self, rank):
        def reduce(own, reduce_op):
            self.said[rank] = own
            self.meet.wait(timeout=10)  # broken, if only one of them asks
            joint = self.said[0] + self.said[1]
            self.questions += rank == 0
            self.meet.wait(timeout=10)
            return joint

        strategy = SimpleNamespace(reduce=reduce, root_device="cpu")
        return Mock(spec=L.Trainer, world_size=2, strategy=strategy)

    def run(self, steps, every, signalled):
        """A thousand updates; rank 1 is sent a signal before one of them."""

        def work(rank):
            trainer, callback = self.trainer(rank), self.ranks[rank]
            for step in range(steps):
                self.clock.now = getattr(self.clock, "now", 0.0) + self.seconds(rank, step)
                stop = rank == 1 and step >= signalled
                due = self.clock.now >= every
                self.decided[rank].append(callback._agree(trainer, stop, due, every))

        threads = [threading.Thread(target=work, args=[rank]) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    ("seconds", "within"),
    [
        (lambda rank, step: 0.01 + 0.002 * rank, 200),
        (lambda rank, step: 0.001 if step % 7 else 0.05, 300),  # uneven
        (lambda rank, step: 3.0, 1),  # slower than the questions
    ],
)
def test_processes_ask_in_lockstep_and_seldom(monkeypatch, tmp_path, seconds, within):
    both = Together(monkeypatch, tmp_path, seconds)
    both.run(steps=1000, every=60.0, signalled=500)
    assert both.decided[0] == both.decided[1]
    stopped = next(i for i, (stop, _) in enumerate(both.decided[0]) if stop)
    assert 500 <= stopped < 500 + within
    lasted = sum(seconds(1, step) for step in range(1000))
    assert both.questions <= min(1000, 2 * lasted / callbacks.SECONDS_BETWEEN_QUESTIONS)


def test_saving_after_every_update_asks_after_every_update(monkeypatch, tmp_path):
    both = Together(monkeypatch, tmp_path, lambda rank, step: 0.01)
    both.run(steps=20, every=0.0, signalled=100)
    assert both.decided[0] == [(False, True)] * 20


def test_so_few_images_are_told_and_one_has_no_spread(make_store, tmp_path, capsys):
    settings = (*LIGHT, "optim.epochs=2", "data.workers=0")
    few, told = "cannot give a representation", {}
    for count in (1, 5, 10):
        store = make_store(subjects=count, name=f"s{count}")
        run = pretrain(store.path, tmp_path / f"r{count}", settings=settings)
        said = capsys.readouterr().err.splitlines()
        told[count] = [line for line in said if few in line]
        updates = 2 * -(-count // 4)  # two epochs of batches of four
        assert any(line.startswith(f"{updates} updates of the weights in all: ") for line in said)
        table = pd.read_csv(run / "metrics.csv")
        # Of five, the last batch is one image, which says nothing about the spread of the others.
        spread = table["feature_spread"]
        assert spread.isna().all() if count == 1 else (spread > 0).all()
        assert not table.columns.str.startswith("known").any()
        vitaepp.report(run, tmp_path / f"{count}.html")
        page = (tmp_path / f"{count}.html").read_text()
        assert ("Spread of features" in page) == (count > 1)
    assert told[1][0].startswith("1 image to train on: ")
    assert told[5][0].startswith("5 images to train on: ")
    assert told[10] == []


def test_a_term_that_outweighs_the_others_is_told_once_with_the_weight_that_mends_it(
    make_store, tmp_path, capsys
):
    store = make_store(subjects=4)
    settings = (*TINY, "loss.contrastive.weight=0", "loss.edge.decay=none", "optim.epochs=2")
    heavy = pretrain(store.path, tmp_path / "heavy", settings=(*settings, "loss.edge.weight=1e6"))
    told = [line for line in capsys.readouterr().err.splitlines() if "hardly count" in line]
    assert len(told) == 1
    first = pd.read_csv(heavy / "metrics.csv").iloc[0]
    others = first["weighted/reconstruction"] + first["weighted/perceptual"]
    assert f"the edge loss is {first['weighted/edge']:.4g} of {first.loss:.4g}" in told[0]
    weight = re.search(r"set loss\.edge\.weight=(\S+) instead of 1e\+06", told[0])
    assert weight is not None
    assert float(weight[1]) * first["loss/edge"] == pytest.approx(others, rel=0.5)
    even = (*settings, f"loss.edge.weight={weight[1]}")
    pretrain(store.path, tmp_path / "even", settings=even)
    pretrain(store.path, tmp_path / "usual", settings=(*TINY, "optim.epochs=1"))
    pretrain(store.path, tmp_path / "one", settings=(*TINY, "method=vitae", "optim.epochs=1"))
    assert "hardly count" not in capsys.readouterr().err


def test_the_terms_are_compared_after_some_steps_of_a_long_epoch(monkeypatch):
    callback, looked = LossBalance(), []
    trainer = Mock(spec=L.Trainer, is_last_batch=False)
    training = Training.__new__(Training)
    look = lambda self: looked.append(trainer.global_step) or {}  # noqa: E731
    monkeypatch.setattr(Training, "weighted_terms", look)
    for start, wanted in ((0, [FIRST_STEPS]), (3, [])):
        trainer.global_step = start
        looked.clear()
        callback.on_train_start(trainer, training)
        for trainer.global_step in range(start + 1, 30):
            callback.on_train_batch_end(trainer, training)
        assert looked == wanted


def test_a_second_ctrl_c_does_not_wait_for_the_step(monkeypatch, tmp_path, capsys):
    folder, now = RunFolder(tmp_path, must_exist=False), [0.0]
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: now[0]))
    callback = Checkpoints(folder, History(folder))
    callback._note(signal.SIGINT, None)
    callback._note(signal.SIGINT, None)  # a terminal sends it to every process, which pass it on
    told = capsys.readouterr().err
    assert told.count("Ctrl-C: saving after the step at hand") == 1
    assert "Ctrl-C again stops at once" in told
    now[0] = 5.0
    callback._note(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt):
        callback._note(signal.SIGINT, None)
