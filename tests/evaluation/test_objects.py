"""Evaluations in memory: the files of the verb hold the same, and notebooks show them."""

import json
import pickle
import re
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import vitaepp
from vitaepp.data.embeddings import Embeddings, control_path
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.comparison import compare_evaluations
from vitaepp.evaluation.features import evaluate_features
from vitaepp.evaluation.result import Evaluation


def cohort(signal=1.0, n=40, seed=0):
    random = np.random.default_rng(seed)
    grade = np.arange(n) % 2
    table = pd.DataFrame({"subject": random.permutation(n), "grade": grade})
    features = random.normal(size=(n, 5)) + signal * grade[:, None]
    return features, table, {"raw": random.normal(size=(n, 5))}


def test_what_is_in_memory_is_what_the_verb_writes(tmp_path):
    features, table, controls = cohort()
    facts = {"method": "vitae", "name": "ViT-AE"}
    path = tmp_path / "e.parquet"
    Embeddings(table, features.astype(np.float32), facts).save(path)
    Embeddings(table, controls["raw"].astype(np.float32)).save(control_path(path, "raw"))
    written = vitaepp.evaluate(path, "grade", tmp_path / "a", seed=2)
    facts["embeddings"] = {"../e.parquet": Embeddings.load(path).digest}
    single = {"raw": controls["raw"].astype(np.float32)}
    found = evaluate_features(
        features.astype(np.float32), table, "grade", controls=single, seed=2, provenance=facts
    )
    assert (found.path, written.path) == (None, tmp_path / "a" / "metrics.json")
    saved = found.save(tmp_path / "b")
    for name in ("metrics.json", "predictions.parquet", "map.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    loaded = Evaluation.load(tmp_path / "b")
    assert loaded == saved == written == json.loads(saved.path.read_text())
    pd.testing.assert_frame_equal(loaded.predictions, found.predictions)
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_printed_number_is_where_the_page_on_python_says(repeats):
    features, table, controls = cohort(signal=0.4)
    found = evaluate_features(features, table, "grade", controls=controls, repeats=repeats)
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
    assert 'evaluation["repeats"]["mean"]["auc"]  # the content of metrics.json; this is' in page
    shown = (found["repeats"] if repeats > 1 else found)["mean"]["auc"]
    line = next(line for line in str(found).splitlines() if re.search(r"0\.\d{3}", line))
    assert f"{shown:.3f}" in line
    assert repeats == 1 or f"{found['mean']['auc']:.3f}" not in line


def test_rows_of_features_belong_to_rows_of_the_table_in_any_order():
    features, table, controls = cohort()
    order = np.random.default_rng(1).permutation(len(table))
    shuffled = {name: values[order] for name, values in controls.items()}
    one = evaluate_features(features, table, "grade", controls=controls)
    other = evaluate_features(features[order], table.iloc[order], "grade", controls=shuffled)
    assert one == other
    pd.testing.assert_frame_equal(one.predictions, other.predictions)


def test_each_fold_has_features_of_its_own():
    features, table, controls = cohort()
    whole = evaluate_features(features, table, "grade")
    each = [controls["raw"] if k == 2 else features for k in range(5)]
    found = evaluate_features(each, table, "grade")
    same = [a == b for a, b in zip(found["folds"], whole["folds"], strict=True)]
    assert same == [True, True, False, True, True]
    assert found["pretraining"] == "without each fold's test subjects"
    with pytest.raises(EvaluationError, match="4 sets of features for 5 folds"):
        evaluate_features(each[:4], table, "grade")


def test_frames_and_pages_of_a_notebook_show_controls_beside_the_result():
    features, table, controls = cohort()
    facts = {"name": "<b>mine</b>"}
    found = evaluate_features(features, table, "grade", controls=controls, provenance=facts)
    frame = found.to_frame()
    assert frame.groupby("features")["auc"].mean()["method"] == pytest.approx(found["mean"]["auc"])
    assert list(frame["fold"]) == [*range(5), *range(5)]
    page = found._repr_html_()
    assert "raw intensities (PCA)" in page
    assert "&lt;b&gt;mine&lt;/b&gt; leads raw intensities by " in page
    assert "<b>mine" not in page
    for line in str(found).splitlines()[4:]:  # what stands below the table in a terminal
        assert escape(line) in page
    assert "<p>40 subjects; without a column participant" in page
    assert repr(found).startswith("Evaluation(AUC of grade, 40 subjects: <b>mine</b> 0.")
    assert str(found).splitlines()[-1].startswith("<b>mine</b> leads raw intensities by ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": np.zeros((39, 5))}, r"features have shape \(39, 5\), but .* 40 subjects"),
        ({"features": np.zeros(40)}, r"shape \(40,\)"),
        ({"features": np.full((40, 2), np.nan)}, "features of subject 7 are not finite"),
        ({"controls": {"rwa": np.zeros((40, 5))}}, "no control 'rwa'; did you mean raw"),
        ({"controls": {"raw": np.zeros((4, 5))}}, "control raw: its features have shape"),
        ({"table": pd.DataFrame({"grade": [0, 1]})}, "no column subject"),
        ({"table": pd.DataFrame({"subject": [1, 1], "grade": [0, 1]})}, "subject '1' is there twi"),
        ({"label": "grad"}, "no label column 'grad'; did you mean grade"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(given, message):
    features, table, controls = cohort()
    table["subject"] = [7, *(i for i in range(40) if i != 7)]
    asked = {"features": features, "table": table, "label": "grade", "controls": controls} | given
    with pytest.raises(EvaluationError, match=message) as caught:
        evaluate_features(**asked)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_evaluations_in_memory_are_compared_by_name(tmp_path):
    features, table, controls = cohort()
    strong = evaluate_features(features, table, "grade", controls=controls)
    weak = evaluate_features(features * 0 + controls["raw"], table, "grade")
    found = compare_evaluations({"noise": weak, "trained": strong})
    assert [row.name for row in found.rows] == ["noise", "trained"]
    assert compare_evaluations([weak, strong], reference=strong).reference.name == "embedding 2"
    paths = [e.save(tmp_path / name).path for e, name in ((weak, "noise"), (strong, "trained"))]
    assert vitaepp.compare(paths).rows == found.rows
    frame = found.to_frame()
    assert frame["difference"][1] == found.rows[1].difference.mean
    assert frame["p"].isna().tolist() == [True, False]
    page = found._repr_html_()
    assert page.count("<tr>") == 3
    assert escape(found.sentences[0]) in page
    with pytest.raises(EvaluationError, match="given twice"):
        compare_evaluations([weak, weak])
    with pytest.raises(EvaluationError, match=r"evaluation of 'grade' in memory: 4 folds"):
        compare_evaluations([strong, evaluate_features(features, table, "grade", folds=4)])
