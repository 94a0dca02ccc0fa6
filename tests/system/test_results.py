"""Which files of a folder are of an earlier result, and which are somebody's own."""

import json
from pathlib import Path

import pandas as pd
import pytest

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
        ("qc.json", "{"),
        ("qc.csv", "subject,kind\na,calm\n"),
        ("flagged.png", "mine"),
    ],
)
def test_what_is_somebodys_own_stays(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(RunError, match="is there, and is no file of `qc`; give another folder"):
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
