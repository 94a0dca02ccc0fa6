"""Several draws of the folds: each is what an evaluation with its seed measures, and all count."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import vitaepp
from vitaepp.data.embeddings import Embeddings, control_path
from vitaepp.errors import EvaluationError
from vitaepp.evaluation import classifier, evaluate
from vitaepp.evaluation.comparison import compare
from vitaepp.evaluation.difference import difference_between
from vitaepp.evaluation.features import evaluate_features
from vitaepp.evaluation.measures import spread
from vitaepp.evaluation.result import Evaluation
from vitaepp.evaluation.standing import standing
from vitaepp.evaluation.summary import rows_over_draws, summary_table, verdict


def cohort(n=40, people=40):
    """Features that say something, controls that say less or nothing, and a table."""
    random = np.random.default_rng(0)
    grade = np.arange(n) % 2
    features = random.normal(size=(n, 6)) + 0.8 * grade[:, None]
    controls = {
        "untrained": features + random.normal(size=(n, 6)),
        "raw": random.normal(size=(n, 9)),
    }
    table = pd.DataFrame(
        {
            "subject": [f"s{i:02d}" for i in range(n)],
            "grade": grade,
            "stage": grade + np.arange(n) % 3 // 2,
            "late": np.arange(n) // 4 % 2,
            "age": 50 + 9 * grade + random.normal(size=n),
            "site": [f"site {i % 7}" for i in range(n)],
            "participant": [f"p{i % people:02d}" for i in range(n)],
        }
    )
    return features, controls, table


@pytest.mark.parametrize(
    ("label", "people", "asked"),
    [
        ("grade", 40, {}),
        ("grade", 30, {}),
        ("grade", 40, {"group": "site", "harmonize": True}),
        ("grade", 40, {"protocol": "knn"}),
        ("age", 40, {"task": "regression"}),
        ("stage", 40, {"task": "ordinal"}),
        ("grade,late", 40, {"task": "multilabel"}),
        ("", 40, {"task": "survival", "time": "age", "event": "grade"}),
    ],
)
def test_each_draw_is_the_evaluation_with_its_seed(label, people, asked):
    if asked.get("task") == "survival":
        pytest.importorskip("sksurv")
    features, controls, table = cohort(people=people)
    candidates = {"some": features[:, :3], "all": features}
    asked = {"controls": controls, "draw_map": False, **asked}
    found = evaluate_features(candidates, table, label, seed=4, repeats=2, **asked)
    alone = [evaluate_features(candidates, table, label, seed=4 + k, **asked) for k in range(2)]
    assert {k: v for k, v in found.metrics.items() if k != "repeats"} == alone[0].metrics
    repeats = found["repeats"]
    assert (repeats["number"], repeats["seeds"]) == (2, [4, 5])
    mean, std = spread([fold for one in alone for fold in one["folds"]])
    assert (repeats["mean"], repeats["std"]) == (mean, std)
    for key, part in repeats["controls"].items():
        folds = [fold for one in alone for fold in one["controls"][key]["folds"]]
        assert part["mean"] == spread(folds)[0]
        lead = difference_between(alone, alone, reference_key=key)
        assert part["difference"] == lead.to_json()
    table = found.repeats
    assert list(table["seed"].unique()) == [4, 5]
    assert len(table) == 2 * 5 * len([*found["controls"], "method"])


def test_what_several_draws_say_is_read_again_and_told(tmp_path):
    features, controls, table = cohort()
    file = tmp_path / "e.parquet"
    Embeddings(table.assign(split=""), features.astype(np.float32), {}).save(file)
    for name, values in controls.items():
        own = Embeddings(table.assign(split=""), values.astype(np.float32), {})
        own.save(control_path(file, name))
    out = tmp_path / "out"
    evaluate(file, "grade", out, repeats=3)
    found = Evaluation.load(out)
    json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    repeats, told = found["repeats"], standing(found)
    raw = repeats["controls"]["raw"]
    assert told.value == repeats["mean"]["auc"]
    by_key = {rival.key: rival for rival in told.rivals}
    assert by_key["raw"].difference.to_json() == raw["difference"]
    assert f"is {told.value:.3f} over 3 draws of the folds against" in str(told)
    line = f"over 3 draws of the folds: AUC {told.value:.3f}, untrained "
    assert line in summary_table(found)
    assert len(pd.read_csv(out / "repeats.csv")) == 45
    told = verdict(found)
    assert "over 3 draws of the folds: " in told
    assert "significant (p " in told
    row = next(row for row in rows_over_draws(found) if row.key == "raw")
    assert row.mean == raw["mean"]
    assert row.text("auc") in summary_table(found)
    # Without them, nothing of an earlier evaluation is left.
    evaluate(file, "grade", out, repeats=1)
    assert not list(out.glob("repeats.*"))
    assert "draws of the folds" not in summary_table(Evaluation.load(out))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two evaluations in memory and written, of four and of three draws, and features of both."""
    folder = tmp_path_factory.mktemp("drawn")
    features, controls, table = cohort(people=30)
    found = {}
    for name, columns, repeats in (("whole", 6, 4), ("part", 2, 3)):
        file = folder / f"{name}.parquet"
        Embeddings(table.assign(split=""), features.astype(np.float32)[:, :columns], {}).save(file)
        raw = Embeddings(table.assign(split=""), controls["raw"].astype(np.float32), {})
        raw.save(control_path(file, "raw"))
        found[name] = evaluate(file, "grade", folder / name, repeats=repeats)
    return folder, found


def test_every_draw_is_read_again_as_it_was(drawn):
    folder, found = drawn
    for name, evaluation in found.items():
        loaded = Evaluation.load(folder / name)
        assert len(loaded.draws) == evaluation["repeats"]["number"]
        for one, other in zip(evaluation.draws, loaded.draws, strict=True):
            assert one.metrics == other.metrics
            pd.testing.assert_frame_equal(one.rows(), other.rows())
            np.testing.assert_array_equal(one.scores("raw"), other.scores("raw"))


def test_what_is_compared_is_the_draws_that_all_share(drawn, tmp_path):
    folder, found = drawn
    compared = compare(folder / "whole", folder / "part", controls=True)
    assert compared.draws == 3
    assert "over 3 draws of the folds" in str(compared)
    shared = [evaluation.draws[:3] for evaluation in found.values()]
    of_part = next(row for row in compared.rows if row.name == "part")
    assert of_part.difference == difference_between(shared[1], shared[0])
    assert of_part.scores.mean == found["part"]["repeats"]["mean"]
    assert of_part.scores.mean != found["part"]["mean"]
    folds = [fold for draw in shared[0] for fold in draw["folds"]]
    assert compared.rows[0].scores.mean == spread(folds)[0]
    in_memory = compare(*found.values(), controls=True)
    assert [row.difference for row in in_memory.rows] == [row.difference for row in compared.rows]
    # Without the predictions of further draws, as earlier versions left them, the first counts.
    shutil.copytree(folder / "part", tmp_path / "part")
    (tmp_path / "part" / "repeats.parquet").unlink()
    compared = compare(folder / "whole", tmp_path / "part")
    assert compared.draws == 1
    assert "of the first draw of the folds, the only one that all are known to share" in str(
        compared
    )
    assert compared.rows[1].scores.mean == found["part"]["mean"]


def test_only_evaluations_of_one_seed_have_draws_in_common(drawn, tmp_path):
    folder, _ = drawn
    evaluate(folder / "part.parquet", "grade", tmp_path / "other", seed=2, repeats=2)
    with pytest.raises(EvaluationError, match="tested folds differ; evaluate both with the same"):
        compare(folder / "whole", tmp_path / "other")


def test_altered_scores_are_refused_also_of_controls(drawn, tmp_path):
    folder, _ = drawn
    scores = pd.read_csv(folder / "part" / "repeats.csv")
    metrics = json.loads((folder / "part" / "metrics.json").read_text())
    for name in ("table", "metrics", "mean"):
        shutil.copytree(folder / "part", tmp_path / name)
    altered = (scores["features"] == "raw") & (scores["seed"] > 0)
    scores.assign(auc=scores["auc"].mask(altered, 0.99)).to_csv(
        tmp_path / "table" / "repeats.csv", index=False
    )
    raw = metrics["controls"]["raw"]
    for fold in raw["folds"]:
        fold["auc"] = 0.25
    (tmp_path / "metrics" / "metrics.json").write_text(
        json.dumps(metrics | {"controls": {"raw": raw | {"mean": raw["mean"] | {"auc": 0.25}}}})
    )
    again = json.loads((folder / "part" / "metrics.json").read_text())
    again["repeats"]["controls"]["raw"]["mean"]["auc"] = 0.25
    (tmp_path / "mean" / "metrics.json").write_text(json.dumps(again))
    for name in ("table", "metrics", "mean"):
        with pytest.raises(EvaluationError, match="beside it is of another evaluation"):
            Evaluation.load(tmp_path / name)


def test_draws_of_another_evaluation_are_refused(drawn, tmp_path):
    folder, _ = drawn
    shutil.copytree(folder / "part", tmp_path / "both")
    for name in ("repeats.parquet", "repeats.csv"):
        whole = folder / "whole" / name
        if name.endswith("csv"):
            table = pd.read_csv(whole)
            table[table["seed"] < 3].to_csv(tmp_path / "both" / name, index=False)
        else:
            table = pd.read_parquet(whole)
            table[table["seed"] < 3].to_parquet(tmp_path / "both" / name)
    with pytest.raises(EvaluationError, match=r"repeats\.csv beside it is of another evaluation"):
        Evaluation.load(tmp_path / "both")
    for name in ("repeats.parquet", "repeats.csv"):
        shutil.copytree(folder / "part", tmp_path / name)
        shutil.copy(folder / "whole" / name, tmp_path / name / name)
        with pytest.raises(EvaluationError, match=r"repeats\.\w+.*evaluate again"):
            Evaluation.load(tmp_path / name)


def test_small_cohorts_are_drawn_several_times_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr("vitaepp.evaluation.repeats.USUAL", 3)
    features, _, table = cohort()
    file = tmp_path / "e.parquet"
    Embeddings(table.assign(split=""), features.astype(np.float32), {}).save(file)
    assert evaluate(file, "grade", tmp_path / "a")["repeats"]["number"] == 3
    assert "repeats" not in evaluate(file, "grade", tmp_path / "b", repeats=1)
    split = table.assign(split=["train", "train", "test", "test"] * 10)
    Embeddings(split, features.astype(np.float32), {}).save(file)
    assert "repeats" not in evaluate(file, "grade", tmp_path / "c")
    monkeypatch.setattr("vitaepp.evaluation.repeats.SMALL", 40)
    Embeddings(table.assign(split=""), features.astype(np.float32), {}).save(file)
    assert "repeats" not in evaluate(file, "grade", tmp_path / "d")


@pytest.mark.parametrize("step", ["features.share_out", "repeats.measure"])
def test_a_draw_that_nobody_asked_for_may_fail(monkeypatch, step):
    features, controls, table = cohort()
    monkeypatch.setattr("vitaepp.evaluation.repeats.USUAL", 3)
    module, name = step.split(".")
    original = getattr(getattr(vitaepp.evaluation, module), name)

    def not_one(*args, **named):
        if named.get("seed", args[3] if len(args) > 3 else 0) == 1:
            raise EvaluationError("cannot be made")
        return original(*args, **named)

    monkeypatch.setattr(f"vitaepp.evaluation.{step}", not_one)
    found = evaluate_features(features, table, "grade", controls=controls)
    assert found["repeats"]["seeds"] == [0, 2]
    with pytest.raises(EvaluationError, match="cannot be made"):
        evaluate_features(features, table, "grade", repeats=3)


def test_draws_that_share_the_subjects_out_alike_count_once(monkeypatch, capsys):
    monkeypatch.setattr("vitaepp.evaluation.repeats.USUAL", 3)
    features, controls, table = cohort()
    table = table.assign(site=[f"s{i % 5}" for i in range(len(table))])
    asked = {"controls": controls, "group": "site"}
    assert "repeats" not in evaluate_features(features, table, "grade", **asked).metrics
    # Five groups and five folds: there is one way to share them out.
    assert "repeats" not in evaluate_features(features, table, "grade", repeats=4, **asked).metrics
    assert "3 draws of the folds share the subjects out as another" in capsys.readouterr().err


def test_where_nothing_is_drawn_folds_have_no_effect_and_repeats_are_refused(capsys):
    features, _, table = cohort()
    split = table.assign(split=["train", "train", "test", "test"] * 10)
    for folds, told in ((5, False), (7, True)):
        evaluate_features(features, split, "grade", folds=folds)
        line = f"`folds`={folds} has no effect: the table has a train and a test part"
        assert (line in capsys.readouterr().err) == told
    with pytest.raises(EvaluationError, match="repeats=2: the table has a train and a test part"):
        evaluate_features(features, split, "grade", repeats=2)
    with pytest.raises(EvaluationError, match="repeats=2: each group is left out once"):
        evaluate_features(
            features, table, "grade", group="site", leave_one_group_out=True, repeats=2
        )
    with pytest.raises(EvaluationError, match="repeats=2: an encoder a fold was trained"):
        evaluate_features([features] * 5, table, "grade", repeats=2)
    with pytest.raises(EvaluationError, match="repeats=0: give at least 1"):
        evaluate_features(features, table, "grade", repeats=0)


@pytest.mark.parametrize("classes", [2, 3])
def test_c_is_the_same_whether_products_are_kept_or_not(classes, monkeypatch):
    random = np.random.default_rng(1)
    codes = np.arange(90) % classes
    features = random.normal(size=(90, 200)) + 0.2 * codes[:, None]
    fitted = []
    for most in (classifier.MOST_GRAM, 0):
        monkeypatch.setattr(classifier, "MOST_GRAM", most)
        fitted.append(classifier.fit("svm", features, codes, seed=3))
    assert fitted[0].C == fitted[1].C
    assert fitted[0].loss == fitted[1].loss
    decisions = [one.decision(features) for one in fitted]
    np.testing.assert_array_equal(*decisions)
