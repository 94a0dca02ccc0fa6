"""Nothing that an earlier encoder made passes for what the encoder of today makes."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from vitaepp.data.embeddings import Embeddings, control_path
from vitaepp.data.runfolder import weights_id
from vitaepp.errors import EvaluationError, RunError
from vitaepp.evaluation import evaluate
from vitaepp.evaluation.comparison import compare
from vitaepp.recipe.recipe import Recipe
from vitaepp.reporting import report


def train(run, epochs):
    """As `pretrain` leaves a run, without the training."""
    (run / "encoder").mkdir(parents=True, exist_ok=True)
    Recipe.parse({"method": "vitae", "optim": {"epochs": epochs}}).save(run / "recipe.yaml")
    (run / "encoder" / "config.json").write_text(json.dumps({"epochs": epochs}))
    (run / "encoder" / "model.safetensors").write_text(f"weights after {epochs} epochs")
    return run


def embed(run, file, seed=0, images="a", epochs=2):
    random = np.random.default_rng(seed)
    table = pd.DataFrame({"subject": [f"s{i}" for i in range(30)], "grade": [0, 1] * 15})
    facts = {"run": run.name, "encoder": weights_id(run), "epochs": epochs, "images": images}
    for path, method in (
        (control_path(file, "untrained"), "untrained"),
        (control_path(file, "raw"), "raw"),
        (file, "vitae"),
    ):
        features = random.normal(size=(30, 4)).astype(np.float32)
        Embeddings(table, features, facts | {"method": method}).save(path)
    return file


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run with its evaluation, and outside of it another evaluation of the same subjects."""
    root = tmp_path_factory.mktemp("outdated")
    run = train(root / "run", 2)
    file = embed(run, run / "embeddings.parquet")
    evaluate(file, "grade", run / "evaluation" / "grade")
    file = embed(run, root / "other" / "e.parquet", seed=1)
    evaluate(file, "grade", root / "other" / "evaluation")
    return root


@pytest.fixture
def run(both, tmp_path):
    return shutil.copytree(both / "run", tmp_path / "run")


@pytest.fixture
def other(both, tmp_path):
    return shutil.copytree(both / "other", tmp_path / "other") / "evaluation"


def test_what_belongs_together_is_not_warned_of_wherever_it_is_moved(run, other, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "copied")
    run.rename(tmp_path / "renamed")
    for name in ("copied", "renamed"):
        evaluate(tmp_path / name / "embeddings.parquet", "grade", tmp_path / "outside" / name)
        compare(tmp_path / name / "evaluation" / "grade", other)
    assert "encoder" not in (said := capsys.readouterr().err)
    assert "anew" not in said


def test_a_training_that_went_on_outdates_what_was_made_before(run, other, tmp_path, capsys):
    train(run, 4)
    told = "made with another encoder than the run has now (after 2 epochs, now 4); embed "
    evaluate(run / "embeddings.parquet", "grade", tmp_path / "again")
    assert f"embeddings.parquet: it was {told}again" in capsys.readouterr().err
    compare(run / "evaluation" / "grade", other)
    assert f"metrics.json: it was {told}and evaluate again" in capsys.readouterr().err
    page = report(run, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "evaluation/grade is not shown: it was made with another encoder" in page


def test_embeddings_that_were_written_anew_outdate_their_evaluation(run, other, tmp_path, capsys):
    embed(run, run / "embeddings.parquet")
    compare(run / "evaluation" / "grade", other)
    assert "anew" not in capsys.readouterr().err  # the very same as before
    embed(run, run / "embeddings.parquet", seed=7)
    compare(run / "evaluation" / "grade", other)
    told = "embeddings.parquet has been written anew since it was made; "
    assert f"metrics.json: {told}evaluate again" in capsys.readouterr().err
    page = report(run, tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"evaluation/grade is shown, although {told}evaluate again" in page


def test_an_evaluation_in_the_folder_of_another_run_is_told(run, tmp_path, capsys):
    another = train(tmp_path / "another", 3)
    evaluate(run / "embeddings.parquet", "grade", another / "evaluation")
    assert "another/evaluation: it was made with another encoder" in capsys.readouterr().err


def test_a_file_in_a_run_that_does_not_say_what_made_it_is_told(run, tmp_path, capsys):
    Embeddings.load(run / "embeddings.parquet").save(run / "e.csv")
    evaluate(run / "e.csv", "grade", tmp_path / "again")
    assert "e.csv: it does not say which encoder made it" in capsys.readouterr().err


def test_what_has_the_name_of_a_control_and_is_none_is_refused(run, tmp_path):
    with pytest.raises(RunError, match=r"is the name of a control of e\.parquet"):
        Embeddings.check(tmp_path / "e.raw.parquet")
    embed(run, tmp_path / "e.parquet")
    shutil.copy(tmp_path / "e.parquet", tmp_path / "e.raw.parquet")
    with pytest.raises(EvaluationError, match=r"e\.raw\.parquet: has the name of a control"):
        evaluate(tmp_path / "e.parquet", "grade", tmp_path / "out")


@pytest.mark.parametrize(
    ("control", "made", "told"),
    [
        ("untrained", {"epochs": 5}, "was made with another encoder than embeddings.parquet"),
        ("untrained", {"images": "b"}, "was embedded from other images than embeddings.parquet"),
        ("raw", {"images": "b"}, "was embedded from other images than embeddings.parquet"),
    ],
)
def test_a_control_of_another_encoder_or_store_is_refused(run, tmp_path, control, made, told):
    kept = (run / "embeddings.parquet").read_bytes()
    if "epochs" in made:
        train(run, made["epochs"])
    beside = control_path(run / "embeddings.parquet", control)
    embed(run, tmp_path / "e.parquet", **made)
    shutil.copy(control_path(tmp_path / "e.parquet", control), beside)
    (run / "embeddings.parquet").write_bytes(kept)
    with pytest.raises(EvaluationError, match=f"{beside.name}: {told}; embed again"):
        evaluate(run / "embeddings.parquet", "grade", tmp_path / "again")
