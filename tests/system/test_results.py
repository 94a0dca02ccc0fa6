"""Which files of a folder are of an earlier result, and which are somebody's own."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

import vitaepp
from vitaepp.auditing.items import FILES as AUDIT
from vitaepp.downstream.quality import FILES as QC
from vitaepp.errors import RunError
from vitaepp.evaluation.comparison import FILES as COMPARISON
from vitaepp.evaluation.result import FILES as EVALUATION
from vitaepp.experiments.experiment import files_of
from vitaepp.experiments.rungs import FILES as LADDER
from vitaepp.explanation.explain import FILES as EXPLANATION

RESULTS = Path(__file__).parents[2] / "results"

FACTS = {"n": 1, "flagged": 0, "limit": 3.5}


@pytest.mark.skipif(not RESULTS.is_dir(), reason="only a checkout has results of earlier versions")
@pytest.mark.parametrize(
    ("files", "pattern"),
    [
        (EVALUATION, "*/metrics.json"),
        (AUDIT, "audit/*/audit.json"),
        (COMPARISON, "finetune/*/*/comparison.json"),
        (LADDER, "ladder/*/ladder.json"),
        (EXPLANATION, "explain/*/explain.json"),
        *((files_of(k), f"**/{k}.json") for k in ("ablation", "edge-decay", "linear-probe")),
    ],
)
def test_results_of_earlier_versions_are_replaced(files, pattern):
    found = [path.parent for path in RESULTS.glob(pattern)]
    assert found
    for folder in found:
        files.check(folder)


def write(folder, facts=FACTS, columns=("subject", "distance", "flagged")):
    with QC.written(folder) as staged:
        (staged / "qc.json").write_text(json.dumps(facts))
        pd.DataFrame([[1, 2, 3]], columns=columns).to_csv(staged / "qc.csv", index=False)
        (staged / "flagged.png").write_bytes(b"picture")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("qc.json", '{"accuracy": 0.91}'),
        ("qc.json", "[1]"),
        ("qc.json", "[]"),
        ("qc.json", "{"),
        ("qc.csv", "subject,kind\na,calm\n"),
        ("flagged.png", "mine"),
    ],
)
def test_what_is_somebodys_own_stays(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(
        RunError,
        match="is there, and is no file of `qc`, or a damaged one; give another folder, or remo",
    ):
        write(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: content}


def test_a_result_is_replaced_and_so_is_what_a_killed_process_left_of_one(tmp_path):
    for left in ("qc.json", "qc.csv", "flagged.png"):
        write(tmp_path)
        write(tmp_path, FACTS | {"n": 2})
        assert json.loads((tmp_path / "qc.json").read_text())["n"] == 2
        (tmp_path / "qc.json").unlink()
        if left == "qc.json":
            (tmp_path / left).touch()  # a full disk leaves it empty


def table(path, columns):
    frame = pd.DataFrame([range(len(columns))], columns=columns)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return path


FOREIGN = [
    # Embeddings with a label, of whatever name.
    *((EVALUATION, f"{name}.parquet", ["subject", "label", "split", "f0"])
      for name in ("external", "predictions", "repeats")),
    (EVALUATION, "external.parquet", ["subject", "label", "method", "f0"]),
    (EVALUATION, "map.csv", ["subject", "label", "x", "y", "mine"]),
    (EVALUATION, "map.csv", ["subject", "label", "x", "y"]),  # anybody's, without a sign beside it
    (COMPARISON, "comparison.csv", ["name", "mine"]),
    (AUDIT, "audit.csv", ["what", "score", "verdict", "sentence", "mine"]),
    (EXPLANATION, "explain.csv", ["subject", "map"]),
    (LADDER, "ladder.csv", ["rung", "key", "name"]),
    (files_of("mine"), "mine.csv", ["variant", "name", "age"]),
]  # fmt: skip


@pytest.mark.parametrize(("files", "name", "columns"), FOREIGN)
def test_a_table_of_other_columns_is_no_result(tmp_path, files, name, columns):
    table(tmp_path / name, columns)
    with pytest.raises(RunError, match="or a damaged one; give another folder, or remove it"):
        files.check(tmp_path)


def evaluation(folder, **more):
    """A result of `evaluate` with all tables that it may have, or the columns given."""
    told = ["subject", "label", "method", "raw"]
    tables = {
        "predictions.parquet": ["subject", "fold", "label", "person", "method", "untrained"],
        "map.csv": ["subject", "label", "x", "y"],
        "external.parquet": ["subject", "label", "time", "event", "method:a", "method:b, c"],
        "budget.csv": ["labels", "all", "draw", "fold", "features", "auc"],
        "repeats.csv": ["features", "name", "fold", "auc", "seed"],
        "repeats.parquet": [*told, "fold", "seed"],
    }
    with EVALUATION.written(folder) as staged:
        for name in more.get("names", tables):
            table(staged / name, tables[name])
        (staged / "metrics.json").write_text('{"label": "a", "folds": [], "mean": 0, "std": 0}')


@pytest.mark.parametrize("names", [None, ["predictions.parquet", "map.csv"]])
@pytest.mark.parametrize("earlier", [False, True])
def test_whatever_a_process_leaves_that_dies_over_its_files_is_known(
    tmp_path, monkeypatch, names, earlier
):
    """At every move, of a first result and of one that takes the place of another."""
    more = {} if names is None else {"names": names}
    replace, moves = os.replace, []

    def dying(*paths):
        moves.append(paths)
        if len(moves) > stop:
            raise KeyboardInterrupt
        replace(*paths)

    for stop in range(8):
        folder = tmp_path / str(stop)
        if earlier:
            evaluation(folder)
        moves.clear()
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(os, "replace", dying)
            evaluation(folder, **more)
        EVALUATION.check(folder)
        evaluation(folder)


def test_what_a_result_is_made_of_stays(tmp_path):
    evaluation(tmp_path)
    with pytest.raises(RunError, match=r"map\.csv: is what `evaluate` is to read"):
        EVALUATION.check(tmp_path, inputs=[None, tmp_path / "none.csv", tmp_path / "map.csv"])
    EVALUATION.check(tmp_path, inputs=[None, tmp_path / "none.csv"])


@pytest.mark.parametrize(
    ("verb", "given", "name"),
    [
        ("evaluate", {"label": "a", "external": "external.parquet"}, "external.parquet"),
        ("evaluate", {"label": "a", "labels": "map.csv"}, "map.csv"),
        ("neighbours", {"labels": "neighbours.csv"}, "neighbours.csv"),
        ("audit", {"store": "s", "label": "a", "labels": "audit.csv"}, "audit.csv"),
        ("fit", {"label": "a", "labels": "labels.csv"}, "labels.csv"),
    ],
)
def test_no_verb_replaces_what_it_reads(tmp_path, verb, given, name):
    file = table(tmp_path / name, ["subject", "label", "f0"])
    before = file.read_bytes()
    if verb == "fit":
        (tmp_path / "model.json").write_text("{}")
        (tmp_path / "classifier.skops").touch()
    given = {k: file if v == name else v for k, v in given.items()}
    with pytest.raises(RunError, match=f"{name}: is what `{verb}` is to read"):
        getattr(vitaepp, verb)("none.parquet", out=tmp_path, **given)
    assert file.read_bytes() == before
