"""The ladder: rungs in the same folds, what is finished is kept, and a sober recommendation."""

import json
from dataclasses import replace
from html import escape
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from tests.conftest import LIGHT, write_store
from vitaepp.data.runfolder import RunFolder
from vitaepp.downstream.finetune import DEFAULTS
from vitaepp.encoder.embed import embed
from vitaepp.errors import EvaluationError, RecipeError, RunError
from vitaepp.evaluation.features import evaluate_features
from vitaepp.evaluation.measures import TASKS, spread
from vitaepp.evaluation.result import Evaluation
from vitaepp.experiments.climber import PER_EPOCH, SLOWER, Climber
from vitaepp.experiments.ladder import ladder
from vitaepp.experiments.rungs import Ladder, Rung
from vitaepp.experiments.simple import _first_order, _shape, simple_features
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.files import write_json

QUICK = (*LIGHT, "optim.epochs=1")
#: Seconds of an image of a made-up pre-training, and of an epoch of its fine-tuning in four folds,
#: from both starts.
PER_IMAGE = 0.05
EACH = 4 * 2 * (16 * PER_IMAGE * SLOWER + PER_EPOCH)

FROZEN = ("prior", "metadata", "raw", "simple", "gradients", "untrained", "vitae", "vitae++")


def test_a_ladder_is_climbed_once_and_goes_on(make_store, tmp_path, monkeypatch):
    store = make_store(subjects=24, size=(16, 16), modalities=("grey",))
    how = {"folds": 3, "budget": "8,all"}
    ladder(store.path, tmp_path / "out", "bright", **how, rungs=["prior", "raw"])
    (tmp_path / "out" / ".tmp-a1b2c3-4-n5d6e7f-experiment.json").touch()  # of a killed process
    asked = how | {"settings": QUICK, "rungs": FROZEN}
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

    monkeypatch.setattr("vitaepp.experiments.climber.evaluate_features", no_more)
    trained = sorted((tmp_path / "out").glob("runs/*/seed0/last.ckpt"))
    before = [file.stat().st_mtime_ns for file in trained]
    again = ladder(store.path, tmp_path / "out", "bright", **asked)
    assert [r.part["folds"] for r in again.rungs] == [r.part["folds"] for r in made.rungs]
    assert [file.stat().st_mtime_ns for file in trained] == before
    with pytest.raises(AssertionError, match="measured again"):
        ladder(store.path, tmp_path / "out", "bright", **asked | {"budget": "10,all"})


def test_encoders_are_called_what_they_are_and_settings_are_told(make_store, tmp_path, monkeypatch):
    """And each rung has the minutes of its own features, whichever rung had them made."""
    clock = [0.0]

    def slowly(*asked):
        clock[0] += 1200
        return embed(*asked)

    monkeypatch.setattr("vitaepp.experiments.climber.embed", slowly)
    watch = SimpleNamespace(monotonic=lambda: clock[0])
    monkeypatch.setattr("vitaepp.experiments.climber.time", watch)
    store = make_store(subjects=24, size=(16, 16), modalities=("grey",))
    changes = [*QUICK, "loss.perceptual.weight=0"]
    asked = {"settings": changes, "folds": 3, "budget": "all"}
    for _ in range(2):  # and when it is taken from the folder
        made = ladder(
            store.path, tmp_path / "out", "bright", rungs=["prior", "untrained", "vitae++"], **asked
        )
        assert [r.name for r in made.rungs][1:] == ["untrained encoder", "ViT-AE + L_edge + L_CL"]
        trained = json.loads((tmp_path / "out/runs/vitae++/seed0/summary.json").read_text())
        minutes = [0, 10, 10 + trained["seconds"] / 60]
        assert [rung.minutes for rung in made.rungs] == pytest.approx(minutes)
    kept = json.loads((tmp_path / "out" / "ladder.json").read_text())
    assert "loss.perceptual.weight=0" in kept["settings"]
    assert kept["folds"] == 3
    page = (tmp_path / "out" / "ladder.md").read_text()
    assert "- settings: `" in page
    assert "`loss.perceptual.weight=0`" in page
    assert "- command: vitaepp ladder store OUT --label bright --budget all --rungs prior," in page
    assert "ViT-AE++" not in page
    best = Ladder(made.rungs[::-2], {}, {})
    monkeypatch.setattr(Ladder, "taken", made.rungs[2])
    assert best.recommendation.startswith("Pre-training pays: use ViT-AE + L_edge + L_CL, and")


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


def test_minutes_of_a_rung_are_those_of_its_features_too(make_store, tmp_path, monkeypatch):
    clock = [0.0]

    def slowly(store):
        clock[0] += 600
        return np.random.default_rng(0).normal(size=(len(store), 3))

    monkeypatch.setattr("vitaepp.experiments.climber.simple_features", slowly)
    watch = SimpleNamespace(monotonic=lambda: clock[0])
    monkeypatch.setattr("vitaepp.experiments.climber.time", watch)
    store = make_store(subjects=12, size=(16, 16))
    asked = {"rungs": ["prior", "simple"], "folds": 2, "budget": "all"}
    for _ in range(2):  # and when it is taken from the folder
        made = ladder(store.path, tmp_path / "out", "bright", **asked)
        assert [rung.minutes for rung in made.rungs] == [0, 10]


def test_a_rung_that_makes_no_error_on_a_split_is_shown_to_beat_guessing():
    """DeLong's variance of an AUC of 1 and of one of 0.5 is 0, but their difference is none."""
    sick = np.arange(40) % 2
    split = np.where(np.arange(40) < 20, "train", "test")
    table = pd.DataFrame({"subject": np.arange(40), "sick": sick, "split": split})
    rungs = [
        Rung(key, key, evaluate_features(features, table, "sick", draw_map=False))
        for key, features in (("prior", np.zeros((40, 0))), ("raw", sick[:, None] + 0.0))
    ]
    made = Ladder(tuple(rungs), {}, {})
    assert [rung.part["mean"]["auc"] for rung in rungs] == [0.5, 1.0]
    difference, _ = made.steps()[1]
    assert difference.p == pytest.approx(2 * 0.5**10)
    assert difference.test == "McNemar's exact test of the accuracy"
    assert made.taken.key == "raw"


def test_a_recommendation_counts_those_who_were_tested():
    sick = np.arange(40) % 2
    table = pd.DataFrame(
        {"subject": np.arange(40), "sick": sick, "split": np.repeat(["train", "test"], 20)}
    )
    noise = np.random.default_rng(0).normal(size=(40, 2))
    rungs = [
        Rung(key, key, evaluate_features(features, table, "sick", draw_map=False))
        for key, features in (("prior", np.zeros((40, 0))), ("raw", noise + 0.3 * sick[:, None]))
    ]
    recommendation = Ladder(tuple(rungs), {}, {}).recommendation
    assert recommendation.startswith("No rung is shown")
    assert "shown to be better with 40 subjects, 20 of them tested" in recommendation


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
    page = replace(lost, left_out={"finetuned": "<b>no time</b>"})._repr_html_()
    assert f"<p>{escape(lost.recommendation)}</p>" in page
    assert "<p>without finetuned: &lt;b&gt;no time&lt;/b&gt;</p>" in page


def drawn(random, *aucs):
    """A ladder of rungs with these true AUCs, in five folds that share training subjects."""
    rungs = []
    for key, auc in zip(("prior", "raw", "untrained", "vitae++"), aucs, strict=True):
        # Such folds correlate by test / (test + train) = 0.2; guessing is the same in all.
        noise = np.sqrt(0.8) * random.normal(size=5) + np.sqrt(0.2) * random.normal()
        values = auc + 0.05 * noise * (key != "prior")
        folds = [dict.fromkeys(TASKS["classification"].names, float(v)) for v in values]
        mean, std = spread(folds)
        metrics = {"protocol": "svm", "label": "sick", "n": 100, "classes": [0, 1], "seed": 0}
        metrics |= {"sizes": [{"train": 80, "test": 20}] * 5, "controls": {}}
        found = Evaluation(metrics | {"folds": folds, "mean": mean, "std": std})
        rungs.append(Rung(key, key, found))
    return Ladder(tuple(rungs), {}, {})


def test_without_an_effect_a_ladder_recommends_guessing_at_the_stated_rate():
    random = np.random.default_rng(0)
    climbed_for_nothing = [
        drawn(random, 0.5, 0.5, 0.5, 0.5).taken.key != "prior" for _ in range(80)
    ]
    assert np.mean(climbed_for_nothing) <= 0.05
    found = [drawn(random, 0.5, 0.9, 0.9, 0.9).taken.key for _ in range(30)]
    assert found.count("prior") <= 1
    assert found.count("raw") >= 27


def test_simple_features_are_finite_and_know_size_and_brightness(make_store):
    store = make_store(subjects=6, size=(16, 16, 16), modalities=("t1", "t2"))
    features = simple_features(store)
    assert features.shape[0] == 6
    assert np.isfinite(features).all()
    means = np.array([store[i][0].mean() for i in range(6)])
    place = 8 + 2 * 3  # after the shape
    assert np.corrcoef(features[:, place], means)[0, 1] > 0.999


def test_first_order_statistics_and_shapes_are_the_true_ones():
    values = np.random.default_rng(0).gamma(2.0, size=500)
    mean, deviation, skewness, kurtosis, entropy, energy, *quantiles = _first_order(values)
    assert (mean, deviation) == pytest.approx((values.mean(), values.std()))
    expected = (stats.skew(values), stats.kurtosis(values, fisher=False))
    assert (skewness, kurtosis) == pytest.approx(expected)
    assert entropy == pytest.approx(stats.entropy(np.histogram(values, 32)[0], base=2))
    assert energy == pytest.approx((values**2).mean())
    assert quantiles[3] == pytest.approx(np.median(values))
    # An ellipsoid of half axes 12, 6 and 6 mm, in voxels of 1 by 1 by 0.5 mm.
    x, y, z = np.ogrid[-15:16, -15:16, -15:15.5:0.5]
    mask = (x / 12) ** 2 + (y / 6) ** 2 + (z / 6) ** 2 <= 1
    volume, surface, _, elongation, flatness, radius, feret, share, *moments = _shape(
        mask, (1.0, 1.0, 0.5)
    )
    assert volume == pytest.approx(4 / 3 * np.pi * 12 * 6 * 6, rel=0.02)
    assert surface == pytest.approx(773, rel=0.1)  # of a prolate spheroid; it is estimated
    assert (elongation, flatness) == pytest.approx((2, 1), rel=0.03)
    assert radius == pytest.approx((12 * 6 * 6) ** (1 / 3), rel=0.01)
    assert feret == pytest.approx(24, rel=0.05)
    assert share == mask.mean()
    assert moments[:3] == pytest.approx([36 / 5, 36 / 5, 144 / 5], rel=0.05)
    assert moments[3:] == pytest.approx([15, 15, 15])


@pytest.mark.parametrize("size", [(16, 16, 16), (24, 24)])
def test_where_pyradiomics_is_installed_its_features_are_added(make_store, monkeypatch, size):
    pytest.importorskip("radiomics")
    store = make_store(subjects=3, size=size, modalities=("one", "two")[: 4 - len(size)])
    both = simple_features(store)
    monkeypatch.setattr("vitaepp.experiments.simple.radiomics", lambda _: None)
    own = simple_features(store)
    assert (both[:, : own.shape[1]] == own).all()
    added = both[:, own.shape[1] :]
    channels, shapes = len(store.info.modalities), 14 if len(size) == 3 else 9
    assert added.shape[1] == channels * (93 + shapes)
    assert np.isfinite(added).all()
    # The mean intensity of the part is among both.
    place = 8 + 2 * len(size) + 6 + 7
    distance = np.abs(added - own[:, place, None]).max(axis=0)
    assert distance.min() < 1e-3 * np.abs(own[:, place]).max()


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"rungs": ["rawr"]}, RecipeError, "no rung 'rawr'; did you mean raw"),
        ({"task": "survival"}, EvaluationError, "classification or regression"),
        ({"budget": "5000"}, EvaluationError, "a training part has"),
        ({"budget": "5000", "rungs": None}, EvaluationError, "a training part has"),
        ({"rungs": ["raw"]}, EvaluationError, "needs two rungs"),
        ({"label": "brigt"}, EvaluationError, "did you mean bright"),
        (
            {"rungs": ["raw", "finetuned"], "settings": ["finetune.epochs=1"]},
            RecipeError,
            "unknown setting finetune.epochs",
        ),
        (
            {"rungs": ["raw", "finetuned"], "settings": [*QUICK, "finetune.blocks=9"]},
            RecipeError,
            "the features pass 2 blocks",
        ),
        (
            {"rungs": ["public", "vitae"], "public": "nowhere", "settings": QUICK},
            RunError,
            "^nowhere: has no config.json",
        ),
    ],
)
def test_what_cannot_be_climbed_is_said(make_store, tmp_path, asked, error, message):
    store = make_store(subjects=24, size=(16, 16), modalities=("grey",))
    asked = {"label": "bright", "rungs": ["prior", "raw"], "folds": 3} | asked
    with pytest.raises(error, match=message):
        ladder(store.path, tmp_path / "out", **asked)
    assert not (tmp_path / "out" / "runs").exists()


def test_another_fine_tuning_is_refused_before_anything_is_measured(
    make_store, tmp_path, monkeypatch
):
    store = make_store(subjects=24, size=(16, 16), modalities=("grey",))
    out, settings = tmp_path / "out", [*QUICK, "finetune.blocks=1", "finetune.patience=0.5"]
    asked = {"rungs": ["prior", "finetuned"], "folds": 2, "budget": "all", "settings": settings}
    monkeypatch.setitem(DEFAULTS, "optim.updates", None)
    monkeypatch.setitem(DEFAULTS, "optim.epochs", 1)
    made = ladder(store.path, out, "bright", **asked)
    assert made.facts["settings of fine-tuning"] == settings[-2:]
    assert made.facts["epochs of fine-tuning"] == [1]
    assert "- epochs of fine-tuning: 1\n" in (out / "ladder.md").read_text()

    def no_more(*args, **kwargs):
        raise AssertionError("measured")

    monkeypatch.setattr("vitaepp.experiments.climber.evaluate_features", no_more)
    monkeypatch.setattr("vitaepp.experiments.ladder.Setup.trained", no_more)
    other = [*settings[:-1], "finetune.patience=0.2"]
    for change, told in (
        ({"seed": 1}, "with `seed`=0, now 1; choose"),
        ({"folds": 3}, "with `folds`=2, now 3; choose"),
        ({"settings": other}, r"with the setting finetune\.patience=0\.5, now 0\.2; choose"),
        ({"settings": [*settings, "finetune.blocks=9"]}, "the features pass 2 blocks"),
        # Nor is ViT-AE trained where ViT-AE++ is there and began otherwise.
        (
            {"settings": [*settings, "optim.lr=0.01"], "rungs": ["vitae", "vitae++"]},
            r"vitae\+\+.seed0: began with optim\.lr=.*; choose another OUT",
        ),
    ):
        with pytest.raises((RunError, RecipeError), match=told):
            ladder(store.path, out, "bright", **asked | change)
    with pytest.raises(AssertionError, match="measured"):
        ladder(store.path, out, "bright", **asked)


@pytest.mark.parametrize(
    ("hours", "epochs"),
    [(10.0, None), (60.5 * EACH / 3600, 60), (20.5 * EACH / 3600, 20), (1e-9, 1)],
)
def test_fine_tuning_is_shortened_by_hours_alone(make_store, tmp_path, hours, epochs):
    """Four folds of 20 subjects have 16 to train on, of which four make a step: 100 epochs."""
    store = make_store(subjects=24, size=(16, 16), modalities=("grey",))
    run = RunFolder(tmp_path / "run", must_exist=False)
    Recipe.load(settings=LIGHT).save(run.recipe_file)
    write_json(run.summary_file, {"epochs": 10, "trained_on": 24, "seconds": 240 * PER_IMAGE})
    folds = [SimpleNamespace(train=np.arange(20))] * 4
    climber = SimpleNamespace(
        store=store, task="classification", shared=SimpleNamespace(folds=folds)
    )
    settings = ["optim.updates=400", "optim.batch_size=4"]
    length = Climber._length(climber, run, tmp_path / "tuned", settings, hours)
    assert length == ([] if epochs is None else [f"optim.epochs={epochs}"])


def test_guessing_gives_what_is_usual_in_each_training_part(tmp_path):
    """By hand: its most frequent class, or its mean; a score that no subject has tells nothing."""
    store = write_store(tmp_path / "store", subjects=40, size=(16, 16), modalities=("grey",))
    row = np.arange(40)
    labels = {"rare": row % 5 == 0, "common": row % 5 > 0, "grade": np.minimum(row % 5, 2)}
    file, values = store.path / "table.parquet", np.random.default_rng(0).gamma(2.0, size=40)
    table = pq.read_table(file)
    for name, column in (labels | {"age": values}).items():
        table = table.append_column(name, pa.array(column))
    pq.write_table(table, file)
    asked = {"rungs": ["prior", "raw"], "folds": 4, "budget": "10,all"}
    for label in labels:
        made = ladder(store.path, tmp_path / "out", label, **asked).rungs[0]
        predictions = made.evaluation.predictions
        for fold, found in enumerate(made.part["folds"]):
            tested = predictions["fold"] == fold
            usual = predictions["label"][~tested].mode()[0]
            assert found["accuracy"] == (predictions["label"][tested] == usual).mean()
            assert found["auc"] == 0.5
        assert all(few["mean"]["auc"] == 0.5 for few in made.budget)
        assert made.name == "the most frequent answer"
    made = ladder(store.path, tmp_path / "out", "age", task="regression", **asked).rungs[0]
    predictions = made.evaluation.predictions
    for fold, found in enumerate(made.part["folds"]):
        tested = predictions["fold"] == fold
        missed = predictions["label"][tested] - predictions["label"][~tested].mean()
        assert found["mae"] == pytest.approx(missed.abs().mean())
    assert made.name == "the mean of the training part"
