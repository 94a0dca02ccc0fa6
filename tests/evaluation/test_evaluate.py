"""Evaluation: nothing of a test fold reaches training, and the numbers are scikit-learn's."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from tests.conftest import USUAL
from vitaepp.cli.app import main
from vitaepp.data.embeddings import Embeddings, control_path
from vitaepp.errors import EvaluationError, SourceError
from vitaepp.evaluation import evaluate, summary_rows, summary_table, verdict
from vitaepp.evaluation.choice import hold_out
from vitaepp.evaluation.classifier import fit, outer_folds
from vitaepp.evaluation.comparison import compare
from vitaepp.evaluation.front import front
from vitaepp.evaluation.labels import read_labels
from vitaepp.evaluation.map import embedding_map
from vitaepp.evaluation.measures import spread
from vitaepp.evaluation.result import Evaluation
from vitaepp.evaluation.scores import fold_scores


def cohort(n=60, d=12, classes=("high", "low"), signal=1.0, seed=0, split=""):
    random = np.random.default_rng(seed)
    codes = np.arange(n) % len(classes)
    centres = random.normal(size=(len(classes), d)) * signal
    features = (centres[codes] + random.normal(size=(n, d))).astype(np.float32)
    subjects = [f"s{i:03d}" for i in random.permutation(n)]
    labels = pd.Series([classes[c] for c in codes])
    table = pd.DataFrame({"subject": subjects, "grade": labels, "split": split})
    return Embeddings(table, features, {"method": "vitae++"})


def with_controls(path, embedded, seed=1):
    embedded.save(path)
    random = np.random.default_rng(seed)
    for name in ("untrained", "raw"):
        noise = random.normal(size=(len(embedded.table), 30)).astype(np.float32)
        Embeddings(embedded.table, noise, {}).save(control_path(path, name))
    return path


def test_every_fold_equals_a_plain_scikit_learn_script(tmp_path, every_draw):
    path = with_controls(tmp_path / "e.parquet", cohort(n=61, signal=0.5))
    metrics = evaluate(path, "grade", tmp_path / "out", seed=3)

    frame = pd.read_parquet(path).sort_values("subject", ignore_index=True)
    raw = pd.read_parquet(tmp_path / "e.raw.parquet").sort_values("subject", ignore_index=True)
    y = (frame["grade"] == "low").to_numpy().astype(int)
    X = frame.filter(regex=r"^f\d+$").to_numpy(np.float64)
    R = raw.filter(regex=r"^f\d+$").to_numpy(np.float64)
    outer = StratifiedKFold(5, shuffle=True, random_state=3)
    for k, (train, test) in enumerate(outer.split(X, y)):
        draws = [hold_out(y[train], seed=[3 + k, draw]) for draw in range(5)]

        def run(fit_rows, score_rows, C, data, components):
            a, b = data[fit_rows], data[score_rows]
            if components:
                pca = PCA(components, svd_solver="full").fit(a)
                unit = np.sqrt(a.var(axis=0).sum() / components)
                a, b = pca.transform(a) / unit, pca.transform(b) / unit
            else:
                middle, spread = a.mean(axis=0), a.std(axis=0)
                a, b = (np.clip((part - middle) / spread, -3, 3) for part in (a, b))
            svm = SVC(kernel="linear", C=C / a.shape[1], class_weight="balanced")
            return svm.fit(a, y[fit_rows]).decision_function(b)

        for result, data, pca in ((metrics, X, False), (metrics["controls"]["raw"], R, True)):
            best, chosen = (-1.0,), None
            for C in (1, 3, 10, 30, 100, 300):
                values = []
                for inner, held in draws:
                    few = min(64, len(inner) // 2, data.shape[1]) if pca else None
                    scores = run(train[inner], train[held], C, data, few)
                    truth = y[train[held]]
                    recalls = [recall_score(truth, scores > 0, pos_label=p) for p in (0, 1)]
                    values.append((roc_auc_score(truth, scores), np.mean(recalls)))
                value = tuple(np.mean(values, axis=0).round(9))
                if value > best:
                    best, chosen = value, C
            few = min(64, len(train) // 2, data.shape[1]) if pca else None
            scores = run(train, test, chosen, data, few)
            expected = {
                "auc": roc_auc_score(y[test], scores),
                "sensitivity": recall_score(y[test], scores > 0),
                "specificity": recall_score(y[test], scores > 0, pos_label=0),
                "accuracy": accuracy_score(y[test], scores > 0),
            }
            assert result["folds"][k] == pytest.approx(expected)
    aucs = [fold["auc"] for fold in metrics["folds"]]
    assert metrics["mean"]["auc"] == pytest.approx(np.mean(aucs))
    assert metrics["std"]["auc"] == pytest.approx(np.std(aucs, ddof=1))


def test_shuffled_labels_are_at_chance_and_the_label_itself_is_perfect(tmp_path):
    means = []
    for seed in range(8):
        embedded = cohort(n=80, d=40, signal=1.0, seed=seed)
        shuffled = np.random.default_rng(100 + seed).permutation(embedded.table["grade"])
        Embeddings(embedded.table.assign(grade=shuffled), embedded.features, {}).save(
            tmp_path / "shuffled.parquet"
        )
        means.append(
            evaluate(tmp_path / "shuffled.parquet", "grade", tmp_path / "o")["mean"]["auc"]
        )
    # The AUC of 80 subjects without signal deviates by about 0.065; the mean of 8 by 0.025.
    assert abs(np.mean(means) - 0.5) < 0.075

    embedded = cohort(n=40)
    truth = (embedded.table["grade"] == "low").to_numpy()[:, None].astype(np.float32)
    Embeddings(embedded.table, truth, {}).save(tmp_path / "oracle.parquet")
    oracle = evaluate(tmp_path / "oracle.parquet", "grade", tmp_path / "o")
    assert oracle["mean"] == {"auc": 1, "sensitivity": 1, "specificity": 1, "accuracy": 1}
    assert oracle["std"]["auc"] == 0


@pytest.mark.parametrize("pca", [False, True])
@pytest.mark.parametrize("protocol", ["svm", "linear"])
def test_no_row_of_the_test_part_is_ever_fitted(tmp_path, monkeypatch, every_draw, protocol, pca):
    split = ["test" if i % 5 == 0 else "train" for i in range(60)]
    embedded = cohort(split=split, d=40)
    # A second feature names the row, so that spies see which rows reach a fit.
    features = np.column_stack([embedded.features, np.arange(60)]).astype(np.float32)
    path = tmp_path / "e.parquet"
    Embeddings(embedded.table, features, {}).save(path)
    if pca:
        Embeddings(embedded.table, features, {}).save(control_path(path, "raw"))
    seen = []

    def spy(kind, method):
        original = getattr(kind, method)

        def watched(self, X, *rest, **named):
            if X.shape[1] == features.shape[1]:
                seen.append(set(np.rint(X[:, -1]).astype(int)))
            return original(self, X, *rest, **named)

        monkeypatch.setattr(kind, method, watched)

    spy(StandardScaler, "fit")
    spy(PCA, "fit_transform")
    metrics = evaluate(path, "grade", tmp_path / "out", protocol=protocol, repeats=1)
    predictions = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    row_of = {s: i for i, s in enumerate(embedded.table["subject"])}
    tested = [
        {row_of[s] for s in part["subject"]} for _, part in predictions.groupby("fold", sort=True)
    ]
    # Draws to choose C, the classifier itself, and folds of the training part for thresholds.
    draws, inner_folds, *_ = USUAL
    fits = draws + 1 + inner_folds
    assert len(seen) == fits * len(tested) * (2 if pca else 1)
    per_fold = np.tile(np.repeat(np.arange(len(tested)), fits), 2 if pca else 1)
    for rows, fold in zip(seen, per_fold, strict=True):
        assert not rows & tested[fold]
    *inner, whole = [len(rows) for rows in seen[: draws + 1]]
    assert whole == metrics["sizes"][0]["train"]
    assert inner == pytest.approx([0.8 * whole] * draws, abs=2)


def test_perturbing_one_test_subject_changes_no_other_score_of_its_fold(tmp_path):
    embedded = cohort(signal=0.4)
    path = with_controls(tmp_path / "e.parquet", embedded)
    evaluate(path, "grade", tmp_path / "a")
    before = pd.read_parquet(tmp_path / "a" / "predictions.parquet")
    victim = before["subject"].iloc[0]
    features = embedded.features.copy()
    features[embedded.table["subject"] == victim] += 1000
    Embeddings(embedded.table, features, {}).save(path)
    evaluate(path, "grade", tmp_path / "b")
    after = pd.read_parquet(tmp_path / "b" / "predictions.parquet")
    same = (before["fold"] == before["fold"].iloc[0]) & (before["subject"] != victim)
    pd.testing.assert_frame_equal(before[same], after[same])
    others = before["fold"] != before["fold"].iloc[0]
    assert not np.allclose(before[others]["method"], after[others]["method"])


def test_the_order_of_rows_changes_nothing(tmp_path):
    embedded = cohort(signal=0.4)
    path = with_controls(tmp_path / "e.parquet", embedded)
    first = evaluate(path, "grade", tmp_path / "a")
    for name in (None, "untrained", "raw"):
        file = path if name is None else control_path(path, name)
        loaded = Embeddings.load(file)
        order = np.random.default_rng(len(str(name))).permutation(len(loaded.table))
        table = loaded.table.iloc[order].reset_index(drop=True)
        Embeddings(table, loaded.features[order], loaded.provenance).save(file)
    assert evaluate(path, "grade", tmp_path / "b") == first
    for name in ("metrics.json", "predictions.parquet", "map.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_controls_go_through_the_same_folds(tmp_path):
    embedded = cohort(signal=0.4)
    path = tmp_path / "e.parquet"
    embedded.save(path)
    Embeddings(embedded.table, embedded.features, {}).save(control_path(path, "untrained"))
    metrics = evaluate(path, "grade", tmp_path / "out")
    assert metrics["controls"]["untrained"]["folds"] == metrics["folds"]
    assert set(metrics["controls"]) == {"untrained"}
    predictions = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert (predictions["method"] == predictions["untrained"]).all()
    assert sorted(predictions["subject"]) == sorted(embedded.table["subject"])


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_raw_intensities_alone_are_what_they_are_as_a_control(tmp_path, task):
    """A few voxels tell the label; PCA, which sees the others, hides a part of it."""
    embedded, random = cohort(signal=0.4), np.random.default_rng(2)
    table = embedded.table.assign(age=embedded.features[:, 0])
    label = {"classification": "grade", "regression": "age"}[task]
    path = tmp_path / "e.parquet"
    replace(embedded, table=table).save(path)
    voxels = np.hstack([embedded.features, 9 * random.normal(size=(60, 300))]).astype(np.float32)
    raw = Embeddings(table, voxels, {"method": "raw", "name": "", "encoder": "these"})
    raw.save(control_path(path, "raw"))
    beside = evaluate(path, label, tmp_path / "beside", task=task, repeats=2)
    alone = evaluate(control_path(path, "raw"), label, tmp_path / "alone", task=task, repeats=2)
    assert alone["folds"] == beside["controls"]["raw"]["folds"]
    drawn = beside["repeats"]["controls"]["raw"]
    assert {part: alone["repeats"][part] for part in ("mean", "std")} == {
        part: drawn[part] for part in ("mean", "std")
    }
    with pytest.raises(EvaluationError, match="coordinates of their own store"):
        evaluate(
            control_path(path, "raw"), label, tmp_path / "no", task=task, external=path, repeats=1
        )


def test_metrics_json_keeps_the_contract(tmp_path):
    path = with_controls(tmp_path / "e.parquet", cohort())
    metrics = evaluate(path, "grade", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written == metrics
    names = {"auc", "sensitivity", "specificity", "accuracy"}
    for part in (written, written["controls"]["untrained"], written["controls"]["raw"]):
        assert len(part["folds"]) == 5
        for scores in (*part["folds"], part["mean"], part["std"]):
            assert set(scores) == names
            assert all(0 <= value <= 1 for value in scores.values())
    assert (written["protocol"], written["label"], written["n"]) == ("svm", "grade", 60)
    assert (written["classes"], written["positive"]) == (["high", "low"], "low")
    points = pd.read_csv(tmp_path / "out" / "map.csv")
    assert list(points.columns) == ["subject", "label", "x", "y"]
    assert len(points) == 60
    assert [p.name for p in (tmp_path / "out").iterdir() if p.name.startswith(".")] == []


def test_three_classes_are_held_one_against_the_rest(tmp_path):
    path = with_controls(tmp_path / "e.parquet", cohort(n=90, classes=(1, 2, 10), signal=0.8))
    metrics = evaluate(path, "grade", tmp_path / "out")
    assert (metrics["classes"], metrics["positive"]) == ([1, 2, 10], None)
    predictions = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    for k, part in predictions.groupby("fold"):
        scores = part[["method:1", "method:2", "method:10"]].to_numpy()
        truth = part["label"].map({"1": 0, "2": 1, "10": 2}).to_numpy()
        chosen = scores.argmax(axis=1)
        macro = np.mean([roc_auc_score(truth == c, scores[:, c]) for c in range(3)])
        assert metrics["folds"][k]["auc"] == pytest.approx(macro)
        recall = recall_score(truth, chosen, average="macro")
        assert metrics["folds"][k]["sensitivity"] == pytest.approx(recall)
        assert metrics["folds"][k]["accuracy"] == pytest.approx(np.mean(truth == chosen))
    assert metrics["mean"]["auc"] > 0.8 > metrics["controls"]["raw"]["mean"]["auc"]


def test_the_linear_probe_trains_on_train_and_is_scored_on_test(tmp_path):
    split = ["test", "train", "train", "val", "train", "test"] * 20
    embedded = cohort(n=120, classes=("a", "b", "c", "d"), signal=0.7, split=split)
    path = with_controls(tmp_path / "e.parquet", embedded)
    metrics = evaluate(path, "grade", tmp_path / "out")
    assert metrics["protocol"] == "linear"
    assert metrics["sizes"] == [{"train": 60, "test": 40}]
    assert (metrics["n"], metrics["left_out"]) == (100, {"unlabelled": 0, "other splits": 20})
    assert metrics["std"] == dict.fromkeys(metrics["mean"])

    table = embedded.table.sort_values("subject")
    X = embedded.features[table.index].astype(np.float64)
    y = table["grade"].map(dict(zip("abcd", range(4), strict=True))).to_numpy()
    train, test = (table["split"] == "train").to_numpy(), (table["split"] == "test").to_numpy()
    Z = np.clip((X - X[train].mean(axis=0)) / X[train].std(axis=0), -3, 3)
    probe = LogisticRegression(C=metrics["C"][0], max_iter=500)
    probe.fit(Z[train], y[train])
    expected = probe.score(Z[test], y[test])
    assert metrics["folds"][0]["accuracy"] == pytest.approx(expected)
    auc = roc_auc_score(
        y[test],
        probe.predict_proba(Z[test]),
        multi_class="ovr",
    )
    assert metrics["folds"][0]["auc"] == pytest.approx(auc, abs=0.05)


def test_unlabelled_subjects_are_left_out_and_counted(tmp_path, capsys):
    embedded = cohort()
    grade = embedded.table["grade"].astype(object)
    grade.iloc[:7] = [None, np.nan, "", " ", pd.NA, None, None]
    Embeddings(embedded.table.assign(grade=grade), embedded.features, {}).save(
        tmp_path / "e.parquet"
    )
    metrics = evaluate(tmp_path / "e.parquet", "grade", tmp_path / "out")
    assert metrics["n"] == 53
    assert metrics["left_out"]["unlabelled"] == 7
    said = capsys.readouterr().err
    assert "7 of 60 subjects have no grade" in said
    assert "without its controls says nothing" in said


def test_whole_numbers_with_gaps_are_still_whole_numbers():
    table = pd.DataFrame({"subject": list("abcd"), "idh": [1.0, np.nan, 0.0, 1.0], "split": ""})
    labels = read_labels(table, "idh")
    assert labels.classes == (0, 1)
    assert labels.rows.tolist() == [0, 2, 3]
    assert labels.codes.tolist() == [1, 0, 1]
    assert labels.values == [1, 0, 1]


def changed(**columns):
    embedded = cohort()
    return Embeddings(embedded.table.assign(**columns), embedded.features, {})


@pytest.mark.parametrize(
    ("embedded", "arguments", "message"),
    [
        (cohort(), {"label": "grad"}, "no label column 'grad'; did you mean grade?"),
        (changed(grade="high"), {}, "one class only"),
        (changed(grade=None), {}, "empty for all 60 subjects"),
        (changed(grade=["rare"] * 4 + ["common"] * 56), {}, "class 'rare' has 4 subjects.*5"),
        (changed(grade=np.linspace(0.1, 80, 60)), {}, "looks continuous .60 different values"),
        (changed(grade=np.arange(60)), {}, "looks continuous"),
        (changed(subject="same"), {}, "'same' is there twice"),
        (cohort(), {"protocol": "linear"}, "no subject labelled 'grade' is in split 'train'"),
        (
            changed(split=["train"] * 40 + ["test"] * 20, grade=["a"] * 40 + ["b"] * 20),
            {},
            "class 'b' has 0 subjects in split 'train'",
        ),
        (cohort(), {"protocol": "tree"}, "no protocol 'tree'; known are svm, linear, knn"),
        (cohort(), {"folds": 1}, "at least 2"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, embedded, arguments, message):
    embedded.save(tmp_path / "e.parquet")
    arguments = {"label": "grade", "out": tmp_path / "out"} | arguments
    with pytest.raises(EvaluationError, match=message) as caught:
        evaluate(tmp_path / "e.parquet", **arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_controls_of_other_subjects_are_refused(tmp_path):
    path = tmp_path / "e.parquet"
    cohort().save(path)
    cohort(n=50).save(control_path(path, "raw"))
    with pytest.raises(
        EvaluationError, match=r"e\.raw\.parquet: holds other subjects.*embed again"
    ):
        evaluate(path, "grade", tmp_path / "out")


def test_the_result_is_written_only_where_it_was_asked_for(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("method: vitae++\n")
    embedded, path = cohort(), tmp_path / "e.parquet"
    facts = {"run": str(run), "encoder": "abc"}
    Embeddings(embedded.table, embedded.features, facts).save(path)
    metrics = evaluate(path, "grade", tmp_path / "out")
    assert [p.name for p in run.iterdir()] == ["recipe.yaml"]
    told = dict(metrics["provenance"])
    assert list(told.pop("embeddings")) == ["../e.parquet"]
    assert told == {"run": "run", "encoder": "abc"}


@pytest.mark.parametrize("counts", [(2, 2), (4, 60), (33, 17), (5, 6, 7)])
def test_held_out_rows_are_a_fifth_of_each_class(counts):
    codes = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    inner, held = hold_out(codes, seed=1)
    assert sorted([*inner, *held]) == list(range(sum(counts)))
    for c, n in enumerate(counts):
        assert (codes[held] == c).sum() == max(1, round(0.2 * n))
        assert (codes[inner] == c).sum() >= 1
    assert np.array_equal(hold_out(codes, seed=1)[1], held)
    assert max(np.bincount(outer_folds(codes, folds=2, seed=0))) <= (sum(counts) + len(counts)) / 2


def test_few_subjects_and_constant_features_do_not_break_anything(tmp_path):
    embedded = cohort(n=10)
    features = np.zeros((10, 3), np.float32)
    Embeddings(embedded.table, features, {}).save(tmp_path / "e.parquet")
    metrics = evaluate(tmp_path / "e.parquet", "grade", tmp_path / "out")
    assert metrics["mean"]["auc"] == 0.5


def test_scores_of_a_classifier_that_is_always_right_wrong_or_undecided():
    codes = np.array([0, 0, 1, 1, 1])
    sign = 2.0 * codes - 1
    assert set(fold_scores(codes, sign).values()) == {1.0}
    assert set(fold_scores(codes, -sign).values()) == {0.0}
    undecided = fold_scores(codes, np.zeros(5))
    assert undecided == {"auc": 0.5, "sensitivity": 0, "specificity": 1, "accuracy": 0.4}
    mean, std = spread([undecided])
    assert mean == undecided
    assert std == dict.fromkeys(mean)


def test_imbalance_does_not_silence_the_smaller_class():
    random = np.random.default_rng(0)
    codes = np.array([0] * 180 + [1] * 20)
    features = random.normal(size=(200, 300)) + 0.25 * codes[:, None]
    test = random.normal(size=(200, 300)) + 0.25 * codes[:, None]
    scores = fold_scores(codes, fit("svm", features, codes, seed=0).decision(test))
    assert scores["auc"] > 0.95
    assert min(scores["sensitivity"], scores["specificity"]) > 0.7


def test_both_ways_to_the_principal_components_give_the_same_scores(monkeypatch):
    embedded = cohort(n=90, d=70, signal=0.3)
    codes = (embedded.table["grade"] == "low").to_numpy().astype(int)
    full = fit("svm", embedded.features, codes, seed=0, pca=True)
    monkeypatch.setattr("vitaepp.evaluation.front.LARGE", 10)
    leading = fit("svm", embedded.features, codes, seed=0, pca=True)
    assert leading.model["pca"].svd_solver == "arpack"
    assert leading.C == full.C
    decisions = [model.decision(embedded.features) for model in (full, leading)]
    assert decisions[0] == pytest.approx(decisions[1], abs=1e-6)


@pytest.mark.parametrize(("n", "how"), [(7, "PCA"), (40, "t-SNE")])
def test_the_map_keeps_groups_together_and_is_the_same_every_time(n, how):
    codes = np.arange(n) % 2
    features = np.random.default_rng(0).normal(size=(n, 20)) + 8 * codes[:, None]
    points, made = embedding_map(features, seed=0)
    assert made.startswith(how)
    assert points.shape == (n, 2)
    assert np.isfinite(points).all()
    assert np.array_equal(points, embedding_map(features, seed=0)[0])
    centres = [points[codes == c].mean(axis=0) for c in (0, 1)]
    nearer = [np.argmin([np.linalg.norm(p - c) for c in centres]) for p in points]
    assert np.array_equal(nearer, codes)


@pytest.mark.parametrize("shape", [(20, 1), (5, 1), (12, 4)])
def test_the_map_of_degenerate_features_is_finite(shape):
    assert np.isfinite(embedding_map(np.ones(shape), seed=0)[0]).all()
    assert np.isfinite(
        embedding_map(np.arange(np.prod(shape), dtype=float).reshape(shape), seed=0)[0]
    ).all()


def made_up(aucs, controls, protocol="svm"):
    def part(values):
        folds = [
            dict.fromkeys(("auc", "sensitivity", "specificity", "accuracy"), v) for v in values
        ]
        mean, std = spread(folds)
        return {"folds": folds, "mean": mean, "std": std}

    extra = {name: part(values) for name, values in controls.items()}
    facts = {"protocol": protocol, "provenance": {"method": "vitae++"}, "controls": extra}
    return facts | part(aucs) | {"sizes": [{"train": 400, "test": 100}]}


def test_the_verdict_tells_who_is_ahead_and_when_nobody_is():
    ahead = made_up([0.8, 0.82, 0.81], {"untrained": [0.7, 0.71, 0.72], "raw": [0.6, 0.6, 0.6]})
    assert "ViT-AE++ leads the untrained encoder by 0.100 AUC" in verdict(ahead)
    assert "in 3 of 3 folds" in verdict(ahead)
    behind = made_up([0.7, 0.71, 0.72], {"raw": [0.8, 0.82, 0.81]})
    assert verdict(behind).startswith("Raw intensities lead ViT-AE++ by 0.100")
    unclear = made_up([0.9, 0.6, 0.75], {"raw": [0.6, 0.9, 0.7]})
    assert "no clear winner" in verdict(unclear)
    assert "has no control" in verdict(made_up([0.9, 0.8], {}))
    assert "level" in verdict(made_up([0.9, 0.8], {"raw": [0.9, 0.8]}))
    several = {"classes": ["a", "b", "c"]}
    probe = made_up([0.80], {"raw": [0.77]}, protocol="linear") | several
    assert "less than chance alone" in verdict(probe)
    assert "on one test split" in verdict(made_up([0.9], {"raw": [0.5]}, protocol="linear"))

    table = summary_table(ahead).splitlines()
    assert [row.key for row in summary_rows(ahead)] == ["method", "untrained", "raw"]
    assert table[0].split() == ["AUC", "sensitivity", "specificity", "accuracy"]
    assert table[2].startswith("ViT-AE++")
    assert "0.810 ± 0.010" in table[2]
    assert table[-1] == verdict(ahead)


def test_the_positive_class_can_be_chosen_and_changes_no_number_but_names(tmp_path):
    path = with_controls(tmp_path / "e.parquet", cohort(n=61, signal=0.4))
    default = evaluate(path, "grade", tmp_path / "low")
    chosen = evaluate(path, "grade", tmp_path / "high", positive="high")
    assert (default["positive"], default["positive_by"]) == ("low", "the last in order")
    assert (chosen["positive"], chosen["positive_by"]) == ("high", "choice")
    assert chosen["classes"] == default["classes"][::-1]
    for one, other in (
        (default, chosen),
        (default["controls"]["raw"], chosen["controls"]["raw"]),
    ):
        for a, b in zip(one["folds"], other["folds"], strict=True):
            assert a["auc"] == pytest.approx(b["auc"])
            assert a["accuracy"] == b["accuracy"]
            assert (a["sensitivity"], a["specificity"]) == (b["specificity"], b["sensitivity"])
    predictions = pd.read_parquet(tmp_path / "high" / "predictions.parquet")
    for k, part in predictions.groupby("fold"):
        truth, scores = part["label"] == "high", part["method"]
        assert chosen["folds"][k]["auc"] == pytest.approx(roc_auc_score(truth, scores))
        recall = recall_score(truth, scores > 0)
        assert chosen["folds"][k]["sensitivity"] == pytest.approx(recall)
    told = "positive class: grade = low, the last in order; `positive` chooses another"
    assert told in summary_table(default)
    assert "positive class: grade = high\n" in summary_table(chosen)
    Evaluation.load(tmp_path / "high")
    with pytest.raises(EvaluationError, match=r"positive class 'high', but .* has 'low'"):
        compare([tmp_path / "low", tmp_path / "high"])


def test_the_positive_class_of_numbers_and_what_cannot_be_one(tmp_path):
    path = with_controls(tmp_path / "e.parquet", cohort(classes=(0, 1)))
    assert evaluate(path, "grade", tmp_path / "out", positive="0")["classes"] == [1, 0]
    with pytest.raises(EvaluationError, match="label 'grade' has no class '2'; known are 0, 1"):
        evaluate(path, "grade", tmp_path / "out", positive="2")
    path = with_controls(tmp_path / "e.parquet", cohort(classes=(0, 1, 2)))
    with pytest.raises(EvaluationError, match="has 3 classes, each of which is held against"):
        evaluate(path, "grade", tmp_path / "out", positive="1")


def test_folds_and_seed_are_chosen_on_the_command_line(tmp_path, monkeypatch, capsys):
    path = with_controls(tmp_path / "e.parquet", cohort())
    words = f"--label grade --out {tmp_path / 'out'} --folds 3 --seed 7 --positive high"
    monkeypatch.setattr("sys.argv", ["vitaepp", "evaluate", str(path), *words.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "positive class: grade = high" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (len(metrics["folds"]), metrics["seed"], metrics["positive"]) == (3, 7, "high")
    assert metrics == evaluate(path, "grade", tmp_path / "o", seed=7, folds=3, positive="high")
    evaluate(path, "grade", tmp_path / "five", seed=7, positive="high")
    with pytest.raises(
        EvaluationError, match=r"5 folds, but .* has 3; evaluate both with the same"
    ):
        compare([tmp_path / "out", tmp_path / "five"])


@pytest.mark.parametrize("words", [("train", "test"), ("Training", "TESTING"), ("trn", "imagesTs")])
def test_words_for_splits_are_splits_in_embeddings_too(tmp_path, capsys, words):
    split = [[*words, "external"][i % 3] for i in range(60)]
    path = with_controls(tmp_path / "e.parquet", cohort(split=split))
    metrics = evaluate(path, "grade", tmp_path / "out")
    assert metrics["protocol"] == "linear"
    assert metrics["left_out"]["other splits"] == 20
    assert "20 subjects are neither in train nor in test" in capsys.readouterr().err


def test_labels_that_came_later_are_joined_by_subject(tmp_path, capsys):
    embedded = cohort(n=40)
    grades = dict(embedded.table[["subject", "grade"]].to_numpy())
    plain = Embeddings(embedded.table[["subject", "split"]], embedded.features, {})
    for name, these in (("with", embedded), ("without", plain)):
        these.save(tmp_path / f"{name}.parquet")
    text = "".join(f"{s},{g},{i % 3}\n" for i, (s, g) in enumerate(reversed(grades.items())))
    (tmp_path / "later.csv").write_text(f"Study No,grade,score\n{text}nobody,low,1\n")
    asked = {"labels": tmp_path / "later.csv", "id_column": "Study No"}
    known = evaluate(tmp_path / "with.parquet", "grade", tmp_path / "a")
    joined = evaluate(tmp_path / "without.parquet", "grade", tmp_path / "b", **asked)
    assert joined["folds"] == known["folds"]
    assert (known["labels_from"], joined["labels_from"]) == (None, "later.csv")
    told = capsys.readouterr().err
    assert "1 rows name no subject of the embeddings" in told
    # The file's columns replace those of the embeddings, and it is told where they differ.
    assert "differs from" not in told
    changed = text.replace(",low,", ",high,", 2)
    (tmp_path / "later.csv").write_text(f"Study No,grade,score\n{changed}")
    assert evaluate(tmp_path / "with.parquet", "score", tmp_path / "e", **asked)["n"] == 40
    told = capsys.readouterr().err
    assert (
        "later.csv: grade differs from the embeddings for 2 subjects; the table's values are used"
        in told
    )


def test_labels_that_cannot_be_joined_are_refused_with_the_option_that_helps(tmp_path):
    path = with_controls(tmp_path / "e.parquet", cohort())
    (tmp_path / "l.csv").write_text("record,score\ns000,1\n")
    for error, asked, told in (
        (SourceError, {"labels": "l.csv"}, "no column subject, .* or patient; .* with `id_column`"),
        (SourceError, {"labels": "l.csv", "id_column": "id"}, "no column id; found record, score"),
        (SourceError, {"labels": "none.csv"}, "no such file"),
        (EvaluationError, {"id_column": "record"}, "`id_column` names a column of the table"),
        (
            EvaluationError,
            {},
            "known are grade; `labels` joins a table",
        ),
    ):
        if "labels" in asked:
            asked["labels"] = tmp_path / asked["labels"]
        with pytest.raises(error, match=told):
            evaluate(path, "score", tmp_path / "out", **asked)
    (tmp_path / "l.csv").write_text("subject,score\nx1,1\n")
    with pytest.raises(SourceError, match=r"like 'x1', the embeddings 's000'; .*`id_column`"):
        evaluate(path, "score", tmp_path / "out", labels=tmp_path / "l.csv")


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ((1, 2, 3, 4, 5), "its classes 1, 2, 3, 4, 5 are taken as unordered"),
        ((0, 1, 2, 3), "0 taken for 3 is as wrong as 0 taken for 1"),
        ((0, 1), None),
        (("I", "II", "III"), None),
        ((0.5, 1.5, 2.5), None),
    ],
)
def test_scores_are_said_to_be_taken_as_unordered(tmp_path, capsys, classes, told):
    embedded = cohort(n=60, classes=classes)
    embedded.save(tmp_path / "e.parquet")
    evaluate(tmp_path / "e.parquet", "grade", tmp_path / "out")
    err = capsys.readouterr().err
    assert ("unordered" in err) == (told is not None)
    assert (told or "") in err


def test_features_that_hardly_vary_in_the_training_part_do_not_decide():
    """As histograms of cells that are mostly empty: next to nothing in all subjects but a few."""
    rng = np.random.default_rng(0)
    codes = np.tile([0, 1], 60)
    telling = codes[:, None] + rng.normal(size=(120, 10))
    rare = rng.normal(scale=1e-4, size=(120, 100)) + (rng.random((120, 100)) < 0.05)
    train, test = np.arange(20), np.arange(20, 120)
    scores = {}
    for name, features in {"alone": telling, "beside": np.hstack([telling, rare])}.items():
        fitted = fit("svm", features[train], codes[train], seed=0)
        scores[name] = roc_auc_score(codes[test], fitted.decision(features[test]))
    assert scores["alone"] > 0.9
    assert scores["beside"] > 0.75  # without a limit 0.475, no more than chance


def test_principal_components_keep_their_sizes_and_are_as_long_as_standardised_features():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 40)) * np.geomspace(10, 0.01, 40)
    reduced = front(features, pca=True).fit_transform(features)
    sizes = reduced.std(axis=0)
    expected = PCA(30).fit_transform(features).std(axis=0)
    np.testing.assert_allclose(sizes / sizes[0], expected / expected[0])
    assert (reduced**2).sum(axis=1).mean() == pytest.approx(30, rel=0.01)
