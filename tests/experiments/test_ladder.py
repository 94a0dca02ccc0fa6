"""The ladder: rungs in the same folds, what is finished is kept, and a sober recommendation."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import LIGHT, write_store
from vitaepp.errors import EvaluationError, RecipeError
from vitaepp.evaluation.features import evaluate_features
from vitaepp.experiments.ladder import ladder
from vitaepp.experiments.rungs import Ladder, Rung
from vitaepp.experiments.simple import simple_features

QUICK = (*LIGHT, "optim.epochs=1")
FROZEN = ("prior", "metadata", "raw", "simple", "untrained", "vitae", "vitae++")


def test_a_ladder_is_climbed_once_and_goes_on(make_store, tmp_path, monkeypatch):
    store = make_store(subjects=24, size=(16, 16), modalities=("grey",))
    asked = {"settings": QUICK, "rungs": FROZEN, "folds": 3, "budget": "8,all"}
    made = ladder(store.path, tmp_path / "out", "bright", **asked)
    keys = [rung.key for rung in made.rungs]
    assert keys == [key for key in FROZEN if key in keys]
    assert {*FROZEN} == {*keys, *made.left_out}
    written = json.loads((tmp_path / "out" / "ladder.json").read_text())
    assert written == json.loads(json.dumps(made.to_json()))
    rows = {row["key"]: row for row in written["rungs"]}
    # The label is the brightness, which raw intensities and statistics tell without an error.
    assert rows["prior"]["mean"]["auc"] == 0.5
    assert rows["raw"]["mean"]["auc"] == rows["simple"]["mean"]["auc"] == 1
    assert written["taken"] in ("metadata", "raw")
    assert [b["all"] for b in rows["raw"]["budget"]] == [False, True]
    assert pd.read_csv(tmp_path / "out" / "ladder.csv")["key"].tolist() == keys
    assert written["recommendation"] in (tmp_path / "out" / "ladder.md").read_text()
    assert (tmp_path / "out" / "ladder.png").stat().st_size > 10_000
    folds = [
        set(map(tuple, r.evaluation.rows()[["subject", "fold"]].to_numpy())) for r in made.rungs
    ]
    assert all(fold == folds[0] for fold in folds)

    def no_more(*args, **kwargs):
        raise AssertionError("measured again")

    monkeypatch.setattr("vitaepp.experiments.ladder.evaluate_features", no_more)
    trained = sorted((tmp_path / "out").glob("runs/*/seed0/last.ckpt"))
    before = [file.stat().st_mtime_ns for file in trained]
    again = ladder(store.path, tmp_path / "out", "bright", **asked)
    assert [r.part["folds"] for r in again.rungs] == [r.part["folds"] for r in made.rungs]
    assert [file.stat().st_mtime_ns for file in trained] == before
    with pytest.raises(AssertionError, match="measured again"):
        ladder(store.path, tmp_path / "out", "bright", **asked | {"budget": "10,all"})


def test_what_was_measured_of_another_task_or_protocol_is_measured_anew(tmp_path):
    store = write_store(tmp_path / "store", subjects=24, size=(16, 16), modalities=("grey",))
    file = store.path / "table.parquet"
    table = pq.read_table(file)
    grade = pa.array(np.arange(24) % 4 + 1)
    at = table.schema.get_field_index("bright")
    pq.write_table(table.set_column(at, "grade", grade), file)
    asked = {"rungs": ["prior", "simple"], "folds": 2, "budget": "all"}
    for task, protocol, metric in (
        ("classification", "svm", "auc"),
        ("regression", None, "mae"),
        ("classification", "knn", "auc"),
    ):
        found = ladder(store.path, tmp_path / "out", "grade", task=task, protocol=protocol, **asked)
        assert found.metric == metric
        for rung in found.rungs:
            assert rung.evaluation["task"] == task
            assert rung.evaluation["protocol"] == (protocol or "linear")


def test_a_rung_that_makes_no_error_on_a_split_is_shown_to_beat_guessing():
    """DeLong's variance of an AUC of 1 and of one of 0.5 is 0, but their difference is none."""
    sick = np.arange(40) % 2
    split = np.where(np.arange(40) < 20, "train", "test")
    table = pd.DataFrame({"subject": np.arange(40), "sick": sick, "split": split})
    rungs = [
        Rung(key, key, evaluate_features(features, table, "sick", draw_map=False))
        for key, features in (("prior", np.zeros((40, 1))), ("raw", sick[:, None] + 0.0))
    ]
    made = Ladder(tuple(rungs), {}, {})
    assert [rung.part["mean"]["auc"] for rung in rungs] == [0.5, 1.0]
    difference, _ = made.steps()[1]
    assert difference.p == pytest.approx(2 * 0.5**10)
    assert difference.test == "McNemar's exact test of the accuracy"
    assert made.taken.key == "raw"


def climbed(*strengths, n=60, folds=5):
    """A ladder whose rungs know the label better and better."""
    draw = np.random.default_rng(0)
    sick = np.arange(n) % 2
    table = pd.DataFrame({"subject": [f"s{i:03d}" for i in range(n)], "sick": sick})
    keys = ("prior", "raw", "untrained", "vitae++")
    rungs = []
    for key, strength in zip(keys, strengths, strict=False):
        features = strength * sick[:, None] + draw.normal(size=(n, 4))
        found = evaluate_features(features, table, "sick", folds=folds, draw_map=False)
        rungs.append(Rung(key, key, found))
    return Ladder(tuple(rungs), {}, {})


def test_the_lowest_rung_is_taken_that_no_other_is_shown_to_beat():
    assert climbed(0.0, 0.0, 0.1, 0.0).taken.key == "prior"
    assert climbed(0.0, 2.0, 2.0, 2.1).taken.key == "raw"
    won = climbed(0.0, 0.3, 0.3, 4.0)
    assert won.taken.key == "vitae++"
    assert "Pre-training pays" in won.recommendation
    lost = climbed(0.0, 3.0, 0.5, 0.5)
    assert "Do not pre-train" in lost.recommendation
    assert [p is not None and p < 0.05 for _, p in lost.steps()][:2] == [False, True]


def test_simple_features_are_finite_and_know_size_and_brightness(make_store):
    store = make_store(subjects=6, size=(16, 16, 16), modalities=("t1", "t2"))
    features = simple_features(store)
    assert features.shape[0] == 6
    assert np.isfinite(features).all()
    means = np.array([store[i][0].mean() for i in range(6)])
    place = 8 + 2 * 3  # after the shape
    assert np.corrcoef(features[:, place], means)[0, 1] > 0.999


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"rungs": ["rawr"]}, RecipeError, "no rung 'rawr'; did you mean raw"),
        ({"task": "survival"}, EvaluationError, "classification or regression"),
        ({"budget": "5000"}, EvaluationError, "a training part has"),
        ({"budget": "5000", "rungs": None}, EvaluationError, "a training part has"),
        ({"rungs": ["raw"]}, EvaluationError, "needs two rungs"),
        ({"label": "brigt"}, EvaluationError, "did you mean bright"),
    ],
)
def test_what_cannot_be_climbed_is_said(make_store, tmp_path, asked, error, message):
    store = make_store(subjects=24, size=(16, 16), modalities=("grey",))
    asked = {"label": "bright", "rungs": ["prior", "raw"], "folds": 3} | asked
    with pytest.raises(error, match=message):
        ladder(store.path, tmp_path / "out", **asked)
    assert not (tmp_path / "out" / "runs").exists()
