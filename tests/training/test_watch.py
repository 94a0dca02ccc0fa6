"""Watch: an honest score of neighbours, which the training does not notice."""

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import TINY
from tests.training.test_resuming import assert_equal_runs
from vitaepp.data.checkpoints import load_checkpoint
from vitaepp.errors import RecipeError
from vitaepp.methods import build_method
from vitaepp.recipe.recipe import Recipe
from vitaepp.training.module import Training
from vitaepp.training.pretrain import pretrain
from vitaepp.training.watch import SHARE, Watch, knn_score, watch_of

SETTINGS = (*TINY, "method=vitae", "optim.epochs=4", "trainer.checkpoint_every=0")


def test_the_score_is_that_of_other_subjects():
    random = np.random.default_rng(0)
    codes = np.repeat([0, 1], 20)
    persons = np.arange(40)
    apart = random.normal(size=(40, 6)) + 4 * codes[:, None]
    assert knn_score(apart, codes, persons) == 1
    assert 0.25 < knn_score(random.normal(size=(40, 6)), codes, persons) < 0.75


def test_no_neighbour_is_of_the_same_person():
    random = np.random.default_rng(1)
    # Two nearly equal images a person, and labels that only the person tells.
    features = np.repeat(random.normal(size=(30, 8)), 2, axis=0) + random.normal(0, 1e-3, (60, 8))
    codes = np.repeat(random.integers(0, 2, 30), 2)
    assert knn_score(features, codes, np.arange(60), 1) == 1
    assert knn_score(features, codes, np.repeat(np.arange(30), 2), 1) < 0.75


def test_classes_count_alike():
    codes = np.array([0] * 18 + [1] * 2)
    features = np.random.default_rng(2).normal(size=(20, 3))
    assert knn_score(features, codes, np.arange(20)) == pytest.approx(0.5, abs=0.06)


def test_a_training_does_not_notice_and_goes_on_bit_for_bit(make_store, tmp_path, monkeypatch):
    monkeypatch.setattr("vitaepp.training.watch.SHARE", 0.5)
    store = make_store(subjects=12, size=(16, 16), modalities=("grey",), splits=True)
    plain = pretrain(store.path, tmp_path / "plain", settings=SETTINGS)
    whole = pretrain(store.path, tmp_path / "whole", settings=SETTINGS, watch="bright")
    first, second = (load_checkpoint(r / "last.ckpt")["state_dict"] for r in (plain, whole))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    table = pd.read_csv(whole / "metrics.csv")
    assert table["knn/bright"].between(0, 1).sum() >= 1
    assert 0 <= table["knn/bright"][0] <= 1

    step = Training.training_step

    def dies(self, batch, index):
        if self.current_epoch == 2:
            raise SystemExit("killed")
        return step(self, batch, index)

    # How often is measured, once; here it is the same for both.
    scores = Watch.scores

    def every_second(self, *arguments):
        self.every = 2
        return scores(self, *arguments)

    monkeypatch.setattr(Watch, "scores", every_second)
    whole = pretrain(store.path, tmp_path / "again", settings=SETTINGS, watch="bright")
    monkeypatch.setattr(Training, "training_step", dies)
    with pytest.raises(SystemExit):
        pretrain(store.path, tmp_path / "cut", settings=SETTINGS, watch="bright")
    monkeypatch.setattr(Training, "training_step", step)
    cut = pretrain(store.path, tmp_path / "cut", resume=True)
    assert_equal_runs(cut, whole)
    # The last epoch has a score, whether one is due or not.
    scores = pd.read_csv(cut / "metrics.csv")["knn/bright"]
    assert list(scores.isna()) == [False, True, False, False]


def test_it_takes_no_more_than_its_share(make_store, monkeypatch):
    store = make_store(subjects=8, size=(16, 16), modalities=("grey",))
    recipe = Recipe.load(settings=(*TINY, "trainer.watch=bright"))
    watch = watch_of(store, recipe, range(8))
    now = iter((0.0, 3.0))
    monkeypatch.setattr("vitaepp.training.watch.time.perf_counter", lambda: next(now))
    monkeypatch.setattr(Watch, "_features", lambda *_: np.eye(8, dtype=np.float32))
    watch.scores(build_method(recipe, 1, (16, 16)), 0, seconds=10.0)
    assert watch.every == 15
    assert SHARE >= 3.0 / (15 * 10.0)


def test_it_sees_labelled_training_subjects_only(make_store):
    store = make_store(subjects=12, size=(16, 16), modalities=("grey",), splits=True)
    store.table["bright"] = pd.array([0, None, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1], "Int64")
    recipe = Recipe.load(settings=(*TINY, "trainer.watch=bright"))
    assert watch_of(store, recipe, [0, 1, 2, 4, 5, 6]).rows == [0, 2, 4, 5, 6]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("brigt", r"`watch=brigt`: no such label; did you mean bright"),
        ("age", r"`watch=age`: 12 different values in 12 training subjects; a column of"),
        ("same", r"`watch=same`: 1 different value in 12"),
    ],
)
def test_a_column_without_classes_is_refused(make_store, column, message):
    store = make_store(subjects=12, size=(16, 16), modalities=("grey",))
    store.table["age"], store.table["same"] = np.arange(12) / 7, "x"
    recipe = Recipe.load(settings=(*TINY, f"trainer.watch={column}"))
    with pytest.raises(RecipeError, match=message):
        watch_of(store, recipe, range(12))
