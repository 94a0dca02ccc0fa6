"""The choice of a layer and a pooling: made where C is chosen, and never by what is tested."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from tests.evaluation.test_tasks import N, cohort
from vitaepp.data.embeddings import Embeddings, control_path
from vitaepp.data.poolings import pooled_path
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.choice import hold_out
from vitaepp.evaluation.classifier import GRID
from vitaepp.evaluation.evaluation import evaluate
from vitaepp.evaluation.external import Cohort
from vitaepp.evaluation.features import evaluate_features
from vitaepp.evaluation.folds import by_subject, share_out
from vitaepp.evaluation.question import Question
from vitaepp.evaluation.summary import summary_table
from vitaepp.evaluation.tasks import read_target


def several(seed=0):
    """A cohort, the features that tell of it, and noise of other widths."""
    features, table, _ = cohort(seed)
    noise = np.random.default_rng(9).normal(size=(2, N, 9)).astype(np.float32)
    return table, {"dull": noise[0], "telling": features, "other": noise[1][:, :5]}


TASKS = {
    "classification": {"label": "sick"},
    "knn": {"label": "sick", "protocol": "knn"},
    "linear": {"label": "sick", "protocol": "linear"},
    "multilabel": {"label": "sick,old", "task": "multilabel"},
    "ordinal": {"label": "grade", "task": "ordinal"},
    "regression": {"label": "volume", "task": "regression"},
    "survival": {"label": "", "task": "survival", "time": "months", "event": "died"},
}


@pytest.mark.parametrize("task", TASKS)
def test_the_candidate_that_tells_is_chosen_in_every_task_and_of_controls_too(task):
    asked = TASKS[task]
    table, candidates = several()
    if asked.get("protocol") == "linear":
        table["split"] = np.where(np.arange(N) % 4 == 0, "test", "train")
    if task == "survival":
        pytest.importorskip("sksurv")
    label = asked["label"]
    rest = {k: v for k, v in asked.items() if k != "label"}
    shown = {
        "untrained": {**candidates, "telling": candidates["dull"][:, :3]},
        "raw": candidates["telling"],
    }
    found = evaluate_features(
        candidates, table, label, controls=shown, draw_map=False, folds=3, **rest
    )
    alone = evaluate_features(candidates["telling"], table, label, draw_map=False, folds=3, **rest)
    assert found["candidate"] == ["telling"] * len(found["folds"])
    assert found["candidates"] == {"dull": 9, "telling": candidates["telling"].shape[1], "other": 5}
    # Chosen, it is what it is without a choice.
    assert found["folds"] == alone["folds"]
    assert found["C"] == alone["C"]
    assert len(found["controls"]["untrained"]["candidate"]) == len(found["folds"])
    assert "candidate" not in found["controls"]["raw"]
    assert "the training parts chose telling" in summary_table(found)


def test_the_choice_is_what_the_inner_part_alone_gives_whatever_the_test_labels_are():
    table, candidates = several(3)
    table["split"] = np.where(np.arange(N) % 3 == 0, "test", "train")
    test = (table["split"] == "test").to_numpy()
    # Weak signals: the choice is open.
    random = np.random.default_rng(4)
    code = (table["sick"] == "yes").to_numpy()
    candidates = {
        name: random.normal(size=(N, 4)) + 0.4 * code[:, None] * (random.random(4) < 0.5)
        for name in "abc"
    }
    # A candidate that knows the test labels, and nothing of the others.
    leak = np.where(test, 50.0 * code, random.normal(size=N))[:, None]
    candidates["leak"] = np.repeat(leak, 4, axis=1)
    expected = {}
    for seed in range(6):
        inner, held = hold_out(code[~test].astype(np.intp), seed=[seed, 0])
        expected[seed] = min(
            candidates,
            key=lambda name: best_loss(candidates[name][~test], code[~test], inner, held),
        )
    assert len(set(expected.values())) > 1
    for draw in range(2):
        shuffled = table.copy()
        order = np.random.default_rng(draw).permutation(int(test.sum()))
        shuffled.loc[test, "sick"] = table.loc[test, "sick"].to_numpy()[order]
        ordered = by_subject(shuffled)
        target = read_target(ordered, "sick")
        parts = share_out(target, ordered)
        question = Question(target, parts.protocol, parts.persons)
        for seed, name in expected.items():
            fitted = question.fit("method", candidates, parts.folds[0].train, seed)
            assert fitted.candidate == name
        found = evaluate_features(candidates, shuffled, "sick", seed=1, draw_map=False)
        assert found["candidate"] == [expected[1]]


def best_loss(x, y, inner, held):
    """Of a linear probe with the best C, on the rows that are held out."""
    scaler = StandardScaler().fit(x[inner])
    seen, left = (np.clip(scaler.transform(x[rows]), -3, 3) for rows in (inner, held))
    models = (LogisticRegression(C=C, max_iter=500) for C in GRID["linear"])
    return min(
        log_loss(
            y[held],
            model.fit(seen, y[inner]).predict_proba(left),
        )
        for model in models
    )


def test_of_equal_candidates_the_first_is_taken():
    table, candidates = several()
    same = dict.fromkeys(("first", "second"), candidates["telling"])
    found = evaluate_features(same, table, "sick", draw_map=False, folds=3)
    assert found["candidate"] == ["first"] * 3


def test_budgets_and_another_cohort_choose_by_the_same_rule():
    table, candidates = several()
    others, away = several(1)
    outside = Cohort(away, others.assign(subject="x" + others["subject"].astype(str)))
    found = evaluate_features(
        candidates, table, "sick", draw_map=False, folds=2, budget=[20, "all"], external=outside
    )
    assert found["external"]["mean"]["auc"] > 0.7
    everyone = [row for row in found["budget"] if row["all"]]
    assert everyone[0]["mean"]["auc"] == pytest.approx(found["mean"]["auc"])
    lacking = Cohort({"dull": away["dull"]}, outside.table)
    with pytest.raises(EvaluationError, match="has no features of candidate 'telling'"):
        evaluate_features(candidates, table, "sick", draw_map=False, folds=3, external=lacking)
    with pytest.raises(EvaluationError, match="no candidate to choose from"):
        evaluate_features({}, table, "sick", draw_map=False)


@pytest.fixture
def files(tmp_path):
    """Embeddings with two other poolings, and an untrained control of each."""
    table, candidates = several()
    path = tmp_path / "e.parquet"
    for (name, features), pool, block in zip(
        candidates.items(), ("max", "mean+std", "cls"), (None, None, 2), strict=True
    ):
        file = path if name == "dull" else pooled_path(path, pool if block is None else "cls@2")
        facts = {"encoder": "w1", "pool": pool, "block": block, "method": "vitae++"}
        Embeddings(table, features.astype(np.float32), facts).save(file)
        noise = np.random.default_rng(len(name)).normal(size=features.shape).astype(np.float32)
        Embeddings(table, noise, facts | {"method": "untrained"}).save(
            control_path(file, "untrained")
        )
    return path


def test_files_beside_are_candidates_by_their_pooling(files, tmp_path):
    shown = str(evaluate(files, "sick", tmp_path / "out", candidates="all", folds=3))
    assert "candidates: max, cls@2, mean+std" in shown
    assert "ViT-AE++: the training parts chose mean+std (3 of 3)" in shown
    assert "untrained encoder: the training parts chose" in shown
    second = files.with_name("e.mean+std.parquet")
    by_name = evaluate(files, "sick", tmp_path / "named", candidates=[second], folds=3)
    assert by_name["candidate"] == ["mean+std"] * 3
    assert set(by_name["provenance"]["embeddings"]) == {"../e.parquet", f"../{second.name}"}


def changed(file, out, **facts):
    embedded = Embeddings.load(file)
    Embeddings(embedded.table, embedded.features + 1, embedded.provenance | facts).save(out)
    return out


def test_what_is_no_candidate_is_one_line(files, tmp_path):
    def refused(match, candidates, path=files):
        with pytest.raises(EvaluationError, match=match):
            evaluate(path, "sick", tmp_path / "out", candidates=candidates, folds=3)

    good = files.with_name("e.cls@2.parquet")
    alone = changed(good, tmp_path / "alone.parquet")
    refused("no other pooling lies beside it", "all", alone)
    refused("has the same features as e.parquet; give each candidate once", [files])
    refused("has the same features as e.cls@2.parquet", [good, good])
    refused("no control alone.untrained.parquet beside it", [alone])
    other = changed(good, tmp_path / "other.parquet", encoder="w2")
    refused("was made by another encoder than e.parquet", f"{good},{other}")
    refused("is a control, which is no candidate", [control_path(good, "untrained")])
    embedded = Embeddings.load(good)
    fewer = tmp_path / "fewer.parquet"
    Embeddings(embedded.table.iloc[1:], embedded.features[1:], embedded.provenance).save(fewer)
    refused("holds other subjects than e.parquet", [fewer])
    with pytest.raises(EvaluationError, match="are of one encoder; here is one for each fold"):
        evaluate([files] * 3, "sick", tmp_path / "out", candidates=[good], folds=3)


def test_another_cohort_needs_the_same_pooling_and_the_same_candidates(files, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    table, candidates = several(1)
    table["subject"] = "x" + table["subject"].astype(str)

    def embed(name, key, pool, block=None):
        facts = {"encoder": "w1", "pool": pool, "block": block}
        Embeddings(table, candidates[key].astype(np.float32), facts).save(away / name)

    asked = {"label": "sick", "folds": 3, "external": away / "e.parquet"}
    embed("e.parquet", "dull", "mean")
    with pytest.raises(EvaluationError, match="is pooled as mean, but max inside"):
        evaluate(files, out=tmp_path / "out", **asked)
    embed("e.parquet", "dull", "max")
    with pytest.raises(EvaluationError, match=r"e.cls@2.parquet is a candidate inside, and none"):
        evaluate(files, out=tmp_path / "out", candidates="all", **asked)
    embed("e.cls@2.parquet", "other", "cls", 2)
    embed("e.mean+std.parquet", "telling", "mean+std")
    found = evaluate(files, out=tmp_path / "out", candidates="all", **asked)
    assert found["external"]["mean"]["auc"] > 0.7
