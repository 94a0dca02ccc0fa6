"""Every task goes through the same folds, and finds what is there and nothing that is not."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from vitaepp.errors import EvaluationError
from vitaepp.evaluation.comparison import compare
from vitaepp.evaluation.difference import difference_between
from vitaepp.evaluation.evaluation import evaluate
from vitaepp.evaluation.features import evaluate_features
from vitaepp.evaluation.measures import TASKS, leading_metric
from vitaepp.evaluation.result import Evaluation
from vitaepp.evaluation.standing import standing
from vitaepp.evaluation.summary import undefined_text, verdict
from vitaepp.evaluation.tasks.multilabel import Multilabel

N = 80

#: What is asked, and what an embedding that knows it must reach in the leading metric.
ASKED = {
    "classification": ({"label": "sick"}, 0.8),
    "multilabel": ({"label": "sick,old"}, 0.8),
    "ordinal": ({"label": "grade"}, 0.5),
    "regression": ({"label": "volume"}, 0.9),
    "survival": ({"label": "", "time": "months", "event": "died"}, 0.75),
}


def cohort(seed=0, signal=1.0):
    """Subjects, features that know them, and features that do not."""
    draw = np.random.default_rng(seed)
    known = draw.normal(size=(N, 5))
    noise = draw.normal(size=(N, 4))
    table = pd.DataFrame(
        {
            "subject": [f"s{i:03d}" for i in range(N)],
            "sick": np.where(known[:, 0] + 0.4 * noise[:, 0] > 0, "yes", "no"),
            "old": (known[:, 1] + 0.4 * noise[:, 1] > 0).astype(int),
            "grade": np.digitize(known[:, 2] + 0.4 * noise[:, 2], [-0.7, 0.7]) + 1,
            "volume": 3000 + 400 * known[:, 3] + 100 * noise[:, 3],
            "months": np.exp(2 - known[:, 4] + 0.3 * noise[:, 0]),
            "died": (draw.random(N) > 0.3).astype(int),
            "site": np.array(["a", "b", "c", "d"])[np.arange(N) % 4],
        }
    )
    return signal * known, table, draw.normal(size=(N, 6))


@pytest.fixture(scope="module")
def evaluated():
    features, table, noise = cohort()
    controls = {"untrained": noise, "raw": features[:, :1] + noise[:, :1]}
    return {
        task: evaluate_features(
            features, table, asked.pop("label"), task=task, controls=controls, folds=4, **asked
        )
        for task, (asked, _) in ((task, (dict(a), b)) for task, (a, b) in ASKED.items())
    }


@pytest.mark.parametrize("task", TASKS)
def test_a_task_finds_what_the_features_know_and_no_more(evaluated, task):
    found = evaluated[task]
    metric = leading_metric(found)
    assert (found["task"], metric) == (task, TASKS[task].leading)
    gain = TASKS[task].gain
    value = found["mean"][metric]
    if task == "regression":
        assert value < 200  # the label's own noise has a mean error of 80
        assert found["mean"]["r2"] > ASKED[task][1]
        mean = found["controls"]["mean"]["mean"]
        assert gain(metric, value, mean["mae"]) > 100
        assert abs(mean["r2"]) < 0.1
    else:
        assert value > ASKED[task][1]
        blind = {"classification": 0.5, "multilabel": 0.5, "ordinal": 0.0, "survival": 0.5}[task]
        # Of eighty subjects an AUC deviates by 0.09; three deviations.
        assert abs(found["controls"]["untrained"]["mean"][metric] - blind) < 0.27
    assert verdict(found).startswith("embedding leads")
    assert standing(found).rivals[0].difference.test == "corrected resampled t-test"


@pytest.mark.parametrize("task", TASKS)
def test_an_evaluation_is_read_as_it_was_written_and_no_other_predictions(
    evaluated, task, tmp_path
):
    written = evaluated[task].save(tmp_path / "e")
    read = Evaluation.load(tmp_path / "e")
    assert read.metrics == written.metrics
    table = pd.read_parquet(tmp_path / "e" / "predictions.parquet")
    assert sorted(table["subject"]) == sorted(cohort()[1]["subject"])
    column = [c for c in table if c.startswith("method")][-1]
    table.assign(**{column: table[column].to_numpy()[::-1]}).to_parquet(
        tmp_path / "e" / "predictions.parquet"
    )
    with pytest.raises(EvaluationError, match="of another evaluation"):
        Evaluation.load(tmp_path / "e")


@pytest.mark.parametrize("task", TASKS)
def test_folds_do_not_depend_on_the_order_of_the_table(evaluated, task):
    features, table, _ = cohort()
    order = np.random.default_rng(1).permutation(N)
    asked = dict(ASKED[task][0])
    shuffled = evaluate_features(
        features[order], table.iloc[order], asked.pop("label"), task=task, folds=4, **asked
    )
    for one, other in zip(shuffled["folds"], evaluated[task]["folds"], strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-9)


def test_a_lower_error_is_the_better_one(evaluated):
    found = evaluated["regression"]
    difference = difference_between([found], [found], reference_key="mean")
    assert difference.mean < 0
    assert difference.p < 0.05
    assert difference.interval.high < 0
    sentence = compare(found, controls=True).sentences[-1]
    assert "mean of the training part is behind" in sentence


@pytest.mark.parametrize("task", TASKS)
def test_a_metric_of_drawn_rows_is_that_of_rows_with_weights(evaluated, task):
    """What every interval is made of, against the metric of rows that are there so often."""
    found = evaluated[task]
    truth, scores = found.rows(), found.scores("method")
    drawn = np.random.default_rng(0).integers(N, size=N)
    weights = np.bincount(drawn, minlength=N)[None].astype(float)
    expected = found.rescored(truth.iloc[drawn], scores[drawn])
    for metric in TASKS[task].names:
        value = found.weighted(metric, truth, scores, weights)[0]
        assert value == pytest.approx(expected.get(metric, np.nan), nan_ok=True)


@pytest.mark.parametrize("task", TASKS)
def test_every_difference_has_an_interval(evaluated, task):
    found = evaluated[task]
    other = "mean" if task == "regression" else "untrained"
    for metric in TASKS[task].names:
        asked = {"metric": metric, "reference_key": other}
        difference = difference_between([found], [found], **asked)
        if difference.p is None:
            assert "is not defined" in difference.reason
        elif task == "survival" and metric != "c_index":  # these need the training part
            assert difference.interval is None
            assert difference.reason.startswith("no interval: resampled subjects")
        else:
            assert difference.interval.low < difference.mean < difference.interval.high
            assert difference.reason is None
    same = difference_between([found], [found])
    assert (same.interval.low, same.interval.high) == (0, 0)


def test_the_interval_of_a_concordance_is_about_that_of_the_jackknife(evaluated):
    """Two methods of which one orders by chance: the variances of both add up."""
    found = evaluated["survival"]
    own = found["clinical"]["concordance"]
    blind = found["controls"]["untrained"]["clinical"]["concordance"]
    reach = 1.96 * np.hypot(own["se"], blind["se"])
    interval = difference_between([found], [found], reference_key="untrained").interval
    assert (interval.high - interval.low) / 2 == pytest.approx(reach, rel=0.3)


def test_each_of_several_labels_has_what_one_alone_has(evaluated):
    found, alone = evaluated["multilabel"], evaluated["classification"]
    reports = found["clinical"]["labels"]
    assert [*reports] == found["classes"]
    assert reports["sick"].keys() == alone["clinical"].keys()
    table = found.predictions
    by_hand = [roc_auc_score(p["label:old"], p["method:old"]) for _, p in table.groupby("fold")]
    assert reports["old"]["auc"]["value"] == pytest.approx(np.mean(by_hand))
    point = reports["old"]["operating"]["specificity_90"]
    assert point["training"]["specificity"] >= 0.9
    assert f"old: AUC {np.mean(by_hand):.3f} [" in str(found)


def test_several_labels_are_as_many_single_ones(evaluated):
    found = evaluated["multilabel"]
    table = found.predictions
    by_hand = [
        np.mean([roc_auc_score(p[f"label:{n}"], p[f"method:{n}"]) for n in found["classes"]])
        for _, p in table.groupby("fold")
    ]
    assert [fold["auc"] for fold in found["folds"]] == pytest.approx(by_hand)


def test_it_is_said_which_of_several_labels_subjects_lack():
    _, table, _ = cohort()
    table["sick"] = table["sick"].where(table.index % 20 > 0)
    table["old"] = table["old"].where(table.index != 1)
    count = -(-N // 20)
    target = Multilabel(table, "sick,old")
    assert target.missing == count + 1
    assert target.lacking == f"lack a label (sick: {count}, old: 1)"


def test_what_papers_report_stands_beside_the_metrics(evaluated):
    clinical = evaluated["classification"]["clinical"]
    assert set(clinical) > {"auc", "average_precision", "operating", "brier", "calibration"}
    low, high = (clinical["auc"]["delong"][end] for end in ("low", "high"))
    assert low < clinical["auc"]["value"] < high
    assert evaluated["regression"]["clinical"]["mae"]["low"] > 0
    kappa = evaluated["ordinal"]["clinical"]["kappa"]
    assert kappa["low"] < evaluated["ordinal"]["mean"]["kappa"] < kappa["high"]
    halves = evaluated["survival"]["clinical"]["halves"]
    assert halves["high"]["n"] + halves["low"]["n"] == N
    assert halves["logrank"]["p"] < 0.01


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"label": "sick", "task": "regresion"}, "no task 'regresion'; did you mean regression"),
        ({"label": "sick", "task": "regression"}, "no numbers, such as 'no'|no numbers, such as"),
        ({"label": "old", "task": "regression"}, "2 different values; regression takes three"),
        ({"label": "sick", "task": "ordinal"}, "three or more classes that are numbers"),
        ({"label": "sick", "task": "multilabel"}, "two or more different columns"),
        ({"label": "sick,grade", "task": "multilabel"}, "'grade' has 3 classes"),
        (
            {"label": "", "task": "survival", "time": "months"},
            "needs the columns `time`",
        ),
        ({"label": "sick", "time": "months"}, "are of task survival"),
        (
            {"label": "", "task": "survival", "time": "volum", "event": "died"},
            "did you mean volume",
        ),
        ({"label": "volume", "task": "regression", "protocol": "knn"}, "knn is of classes"),
        ({"label": "grade", "task": "ordinal", "protocol": "svm"}, "not of task ordinal"),
        ({"label": "grade", "task": "ordinal", "positive": "1"}, "only task classification has it"),
    ],
)
def test_what_a_task_cannot_do_is_said_in_one_line(asked, message):
    features, table, _ = cohort()
    asked = dict(asked)
    with pytest.raises(EvaluationError, match=message) as caught:
        evaluate_features(features, table, asked.pop("label"), **asked)
    assert "\n" not in str(caught.value)


def test_a_continuous_label_says_which_task_takes_it():
    features, table, _ = cohort()
    with pytest.raises(EvaluationError, match="`task=regression`"):
        evaluate_features(features, table, "volume")


def test_without_a_label_nothing_is_written(tmp_path):
    from vitaepp.data.embeddings import Embeddings

    features, table, _ = cohort()
    path = tmp_path / "e.parquet"
    Embeddings(table.assign(split=""), features.astype(np.float32), {}).save(path)
    with pytest.raises(EvaluationError, match="name the column"):
        evaluate(path, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    asked = dict(ASKED["survival"][0], label=None)
    found = evaluate(path, out=tmp_path / "out", task="survival", **asked)
    assert found["label"] == "months, died"


def test_survival_is_told_over_time(evaluated):
    found = evaluated["survival"]
    over = found["clinical"]["over_time"]
    assert [one["quantile"] for one in over["auc"]] == [0.25, 0.5, 0.75]
    assert all(one["auc"] > 0.7 for one in over["auc"])
    assert over["brier"]["value"] < over["brier"]["reference"]
    blind = found["controls"]["untrained"]["clinical"]["over_time"]
    assert blind["brier"]["value"] > over["brier"]["value"]
    assert "time-dependent AUC: " in str(found)
    assert "integrated Brier score: " in str(found)


def test_means_over_some_folds_alone_are_told():
    def part(*aucs):
        folds = [{"auc": a, "sensitivity": 1.0, "specificity": 1.0, "accuracy": 1.0} for a in aucs]
        return {"folds": folds, "mean": folds[0], "std": folds[0]}

    metrics = {"task": "classification", **part(0.5, None, 0.7)}
    metrics["controls"] = {"raw": part(0.5, None, 0.6), "untrained": part(0.5, 0.5, 0.6)}
    (line,) = undefined_text(metrics)
    assert line.startswith("AUC is the mean of 2 of 3 folds for embedding and raw intensities")
    metrics["controls"]["untrained"] = part(0.4, None, 0.6)
    assert undefined_text(metrics) == [
        "AUC is the mean of 2 of 3 folds; it is not defined in the others"
    ]
    assert undefined_text({"task": "classification", **part(0.5, 0.6)}) == []
