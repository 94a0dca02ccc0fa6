"""fit and predict: from embeddings to the probabilities of a new patient."""

import hashlib
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import skops.io
from PIL import Image
from safetensors.numpy import save_file
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import vitaepp
from tests.conftest import encoder_like
from tests.ingest.trees import brats, mask, scan
from vitaepp.data.embeddings import Embeddings
from vitaepp.data.store import Store
from vitaepp.downstream.model import Model
from vitaepp.encoder.model import Encoder
from vitaepp.errors import EvaluationError, ModelError, RunError, SourceError
from vitaepp.evaluation.calibration import Calibration
from vitaepp.ingest.prepare import prepare


@pytest.fixture(scope="module")
def fitted(clinic, tmp_path_factory):
    """A model; no test may change it."""
    folder = tmp_path_factory.mktemp("models") / "model"
    vitaepp.fit(clinic / "e.parquet", "kind", folder)
    return folder


@pytest.fixture
def model(fitted, tmp_path):
    """A copy of the model that a test may change."""
    return shutil.copytree(fitted, tmp_path / "model")


def test_a_model_predicts_scans_as_it_does_embeddings(clinic, model, tmp_path, capsys):
    loaded = Model.load(model)
    assert repr(loaded).startswith("Model(kind: calm, loud; fitted on 24 subjects; AUC in 5-fold")
    features = Embeddings.load(clinic / "e.parquet").features
    stripes = np.zeros((16, 16), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    scans = [clinic / "scans", tmp_path / "stripes.png"]
    found = vitaepp.predict(model, scans, tmp_path / "p.csv")
    assert "predicting: 25 scans in" in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    assert list(table) == ["subject", "calm", "loud", "percentile"]
    assert list(found.to_frame()) == [*table, "notes"]
    assert list(table.subject) == [*(f"p{i:02d}" for i in range(24)), "stripes"]
    assert np.allclose(table[["calm", "loud"]][:24], loaded.probabilities(features), atol=1e-6)
    assert np.allclose(table.calm + table.loud, 1)
    truth = np.arange(24) % 2 == 1
    assert ((table.loud[:24] > 0.5) == truth).all()
    assert table.percentile[:24].mean() < 50
    assert str(found).splitlines()[1].startswith("p01: kind loud (0.")
    assert "<p>p01: kind loud (0." in found._repr_html_()
    pd.testing.assert_frame_equal(found.table, table, check_dtype=False)
    scores = loaded.to_frame().set_index("features").loc["method", "auc"]
    assert scores.mean() == pytest.approx(loaded.metrics["mean"]["auc"])
    assert "<p>Model(kind: calm, loud; " in loaded._repr_html_()
    # The same scan is far from a cohort elsewhere, which is said.
    elsewhere = replace(loaded.cohort, means=loaded.cohort.means + 9)
    capsys.readouterr()
    far = vitaepp.predict(replace(loaded, cohort=elsewhere), [stripes])
    assert "1 of 1 scan: farther from the training cohort than 99 %" in capsys.readouterr().err
    assert str(far).endswith("at percentile 100; unlike the training cohort")
    assert far.notes == ("unlike the training cohort",)
    # A store gives the same, and so does a picture in memory.
    of_store = vitaepp.predict(loaded, clinic / "store").table
    assert np.allclose(of_store.loud, table.loud[:24], atol=1e-6)
    assert np.allclose(vitaepp.predict(loaded, [stripes]).table.loud, table.loud[24], atol=1e-6)


def test_scores_and_c_are_those_of_evaluate(clinic, fitted, tmp_path):
    evaluation = vitaepp.evaluate(clinic / "e.parquet", "kind", tmp_path / "e", repeats=1)
    assert json.loads((fitted / "metrics.json").read_text()) == evaluation.metrics
    assert sorted(evaluation["C"])[2] == Model.load(fitted).classifier.C
    written = b"".join(p.read_bytes() for p in fitted.rglob("*") if p.is_file())
    assert b"p07" not in written  # a model is passed on, and names no subject


def test_a_model_is_whole_in_itself(clinic, model, tmp_path):
    elsewhere = shutil.move(model, tmp_path / "elsewhere")
    assert len(vitaepp.predict(elsewhere, [clinic / "scans" / "p00.png"]).table) == 1
    other = Encoder.from_pretrained(clinic / "encoder")
    other.config = replace(other.config, pool="cls")
    other.save(tmp_path / "other")
    for file in ("config.json", "model.safetensors"):
        changed = shutil.copytree(elsewhere, tmp_path / f"with {file}")
        (changed / "encoder" / file).write_bytes((tmp_path / "other" / file).read_bytes() + b" ")
        with pytest.raises(ModelError, match=f"encoder/{file} is damaged or of another model"):
            Model.load(changed)


def with_its_digest(model, file):
    """Enter a file that was changed on purpose into model.json."""
    facts = json.loads((model / "model.json").read_text())
    facts["files"][file] = hashlib.sha256((model / file).read_bytes()).hexdigest()
    (model / "model.json").write_text(json.dumps(facts))


def test_a_model_of_the_first_format_measures_its_distances_anew(clinic, model):
    whole = Model.load(model)
    kept = {"features": whole.cohort.features, "own": np.zeros(24)}
    save_file(kept, model / "cohort.safetensors")
    with_its_digest(model, "cohort.safetensors")
    facts = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps(facts | {"format": 1}))
    # No person has two images here, so that the cohort is the same.
    features = whole.cohort.features[::-1] * 1.1
    assert np.array_equal(Model.load(model).percentiles(features), whole.percentiles(features))


def test_a_model_whose_encoder_pools_otherwise_now_is_one_line(model):
    # An earlier version took the mean over a ResNet's places, whatever its config says.
    config = model / "encoder" / "config.json"
    facts = json.loads(config.read_text())
    config.write_text(json.dumps(facts | {"pool": "mean"}))
    with_its_digest(model, "encoder/config.json")
    with pytest.raises(ModelError, match=r"fitted to \d+ features, but its encoder gives 48"):
        Model.load(model)


def test_a_damaged_or_foreign_classifier_is_one_line(model):
    file = model / "classifier.skops"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(ModelError, match=r"classifier\.skops is damaged or of another model"):
        Model.load(model)
    with_its_digest(model, file.name)
    with pytest.raises(ModelError, match="not a classifier: File is not a zip file"):
        Model.load(model)
    skops.io.dump(Pipeline([("a", StandardScaler()), ("b", Harmful())]), file)
    with_its_digest(model, file.name)
    with pytest.raises(ModelError, match=r"but of .*Harmful; it is not opened"):
        Model.load(model)
    file.write_bytes(whole)
    with_its_digest(model, file.name)
    shown = Model.load(model)
    shown.classifier.model.steps[0][1].mean_ += 1
    skops.io.dump(shown.classifier.model, file)
    with_its_digest(model, file.name)
    with pytest.raises(ModelError, match="gives other scores than when it was fitted"):
        Model.load(model)


class Harmful:
    def __setstate__(self, state):
        raise AssertionError("code of the file ran")


def test_a_model_of_another_version_or_without_a_file_is_one_line(model, tmp_path):
    facts = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps(facts | {"format": 3}))
    with pytest.raises(ModelError, match="made by another version of vitaepp"):
        Model.load(model)
    for text in ("{", "[]", "{}", json.dumps(facts | {"files": 1})):
        (model / "model.json").write_text(text)
        with pytest.raises(ModelError, match=r"model\.json: damaged"):
            Model.load(model)
    (model / "model.json").write_text(json.dumps({k: v for k, v in facts.items() if k != "label"}))
    with pytest.raises(ModelError, match="not a model of vitaepp"):
        Model.load(model)
    (model / "model.json").write_text(json.dumps(facts))
    (model / "metrics.json").unlink()
    with pytest.raises(ModelError, match=r"metrics\.json is missing; copy the folder whole"):
        Model.load(model)
    with pytest.raises(ModelError, match="no such model"):
        Model.load(tmp_path / "nowhere")


def test_scans_unlike_the_training_are_refused(clinic, fitted, tmp_path, capsys):
    clipped = {"clip": (1, 99), "size": 16, "workers": 1}
    prepare(clinic / "scans", tmp_path / "clipped", **clipped)
    with pytest.raises(ModelError, match="clip 1,99 instead of 0,100 in the images that the model"):
        vitaepp.predict(fitted, tmp_path / "clipped")
    with pytest.raises(SourceError, match=r"p00\.png is given twice"):
        vitaepp.predict(fitted, [clinic / "scans" / "p00.png"] * 2)
    (tmp_path / "x").mkdir()
    shutil.copy(clinic / "scans" / "p00.png", tmp_path / "x")
    (tmp_path / "x" / "p01.png").write_bytes(b"broken")
    capsys.readouterr()
    found = vitaepp.predict(fitted, [clinic / "scans" / "p00.png", tmp_path / "x"])
    assert "p01: p01.png: cannot be read" in capsys.readouterr().err
    assert [f.subject for f in found.failures] == ["p01"]
    assert len(set(found.table.subject)) == 2  # equal names are told apart by their paths
    with pytest.raises(SourceError, match=r"^[^:\n]+: .*cannot be read[^\n]*$"):
        vitaepp.predict(fitted, [tmp_path / "x" / "p01.png"])


def test_fit_refuses_what_it_cannot_keep_whole(clinic, tmp_path):
    embedded = Embeddings.load(clinic / "e.parquet")
    embedded.save(tmp_path / "alone" / "here" / "e.parquet")
    with pytest.raises(RunError, match="the run encoder that made it is not beside it"):
        vitaepp.fit(tmp_path / "alone" / "here" / "e.parquet", "kind", tmp_path / "m")
    control = {"method": "raw"}
    replace(embedded, provenance=embedded.provenance | control).save(tmp_path / "c.parquet")
    for use in (vitaepp.fit, vitaepp.neighbours):
        more = {"run": clinic / "encoder"}
        more |= {"label": "kind"} if use is vitaepp.fit else {"query": clinic / "scans" / "p00.png"}
        with pytest.raises(EvaluationError, match=r"c\.parquet: is the control 'raw'"):
            use(tmp_path / "c.parquet", out=tmp_path / "m", **more)
    embedded.save(tmp_path / "e.parquet")
    other = Encoder.from_pretrained(clinic / "encoder")
    next(other.parameters()).data += 1
    other.save(tmp_path / "other")
    with pytest.raises(RunError, match=r"other: e\.parquet was made by other weights"):
        vitaepp.fit(tmp_path / "e.parquet", "kind", tmp_path / "m", run=tmp_path / "other")
    replace(embedded, provenance={}).save(tmp_path / "n.parquet")
    with pytest.raises(EvaluationError, match="`protocol=knn` is of evaluate"):
        vitaepp.fit(clinic / "e.parquet", "kind", tmp_path / "m", protocol="knn")
    with pytest.raises(EvaluationError, match="does not tell which encoder made it"):
        vitaepp.fit(tmp_path / "n.parquet", "kind", tmp_path / "m", run=clinic / "encoder")
    for name in ("subject", "percentile", "notes"):
        named = embedded.table.replace({"kind": {"calm": name}})
        replace(embedded, table=named).save(tmp_path / "c.parquet")
        with pytest.raises(EvaluationError, match=f"class '{name}', which is a column"):
            vitaepp.fit(tmp_path / "c.parquet", "kind", tmp_path / "m", run=clinic / "encoder")
    assert not (tmp_path / "m").exists()
    with pytest.raises(ModelError, match="holds something else; name a new folder"):
        vitaepp.fit(clinic / "e.parquet", "kind", tmp_path)


def test_what_was_decided_about_a_scan_is_in_its_row(tmp_path):
    subjects = [f"s{i}" for i in range(8)]
    for half in (subjects[:4], subjects[4:]):
        source = brats(tmp_path / "x", half, names=("t1", "t2"))
    (tmp_path / "l.csv").write_text(
        "subject,kind\n" + "\n".join(f"{s},{'ab'[i % 2]}" for i, s in enumerate(subjects))
    )
    prepare(source, tmp_path / "s", size=8, labels=tmp_path / "l.csv", workers=1)
    assert Store(tmp_path / "s").info.center == "mask"
    encoder_like(Store(tmp_path / "s")).save(tmp_path / "encoder")
    vitaepp.embed(tmp_path / "encoder", tmp_path / "s", tmp_path / "e.parquet")
    model = vitaepp.fit(tmp_path / "e.parquet", "kind", tmp_path / "m", folds=2)
    # A cohort that no scan is far from, as eight subjects cannot tell.
    model = replace(model, cohort=replace(model.cohort, own=model.cohort.own + 1e9))
    new = tmp_path / "new"
    for i, subject in enumerate(("whole", "nomask", "not2", "twice")):
        for name in ("t1", "t2"):
            scan(new / subject / f"{name}.nii.gz", seed=i)
        mask(new / subject / "mask.nii.gz")
    (new / "nomask" / "mask.nii.gz").unlink()
    (new / "not2" / "t2.nii.gz").unlink()
    scan(new / "twice" / "t1_again.nii.gz", seed=9)
    found = vitaepp.predict(model, new, tmp_path / "p.csv")
    assert "notes" not in pd.read_csv(tmp_path / "p.csv")
    notes = pd.read_csv(tmp_path / "p.notes.csv").set_index("subject").notes.to_dict()
    assert notes.keys() == {"nomask", "not2", "twice"}
    assert notes["nomask"].startswith("no mask, on which the run's crops are centred; ")
    assert notes["not2"] == "t2 is missing, and zero"
    assert notes["twice"].startswith("another t1; the one with the plainer name")
    printed = {line.partition(":")[0]: line for line in str(found).splitlines()}
    assert all(printed[name].endswith(f"; {text}") for name, text in notes.items())
    assert printed["whole"].rstrip("0123456789").endswith("at percentile ")
    # A store of the same scans says the same of what it knows.
    prepare(new, tmp_path / "t", recipe=tmp_path / "encoder", workers=1)
    of_store = vitaepp.predict(model, tmp_path / "t").doubtful().set_index("subject")
    del notes["twice"]
    assert of_store.notes.to_dict() == notes
    # Nothing is left of what was doubtful about other scans.
    vitaepp.predict(model, new / "whole", tmp_path / "p.csv")
    assert not (tmp_path / "p.notes.csv").exists()


def test_three_classes_and_a_missing_label(clinic, tmp_path):
    embedded = Embeddings.load(clinic / "e.parquet")
    table = embedded.table.assign(three=np.arange(24) % 3)
    table.loc[3, "three"] = np.nan
    replace(embedded, table=table).save(tmp_path / "e.parquet")
    model = vitaepp.fit(
        tmp_path / "e.parquet", "three", tmp_path / "m", run=clinic / "encoder", folds=3
    )
    assert len(model.cohort.own) == 23
    predicted = vitaepp.predict(tmp_path / "m", clinic / "store").table
    assert list(predicted) == ["subject", "0", "1", "2", "percentile"]
    assert np.allclose(predicted[["0", "1", "2"]].sum(axis=1), 1)


def test_calibrated_probabilities_are_as_frequent_as_they_say():
    rng = np.random.default_rng(0)
    codes = (rng.random(2000) < 0.3).astype(np.intp)
    scores = rng.normal(size=2000) * 5 + 5 * codes
    found = Calibration.of(codes, scores).probabilities(scores)
    # Of two normal classes with equal deviation the posterior is a logistic curve, known exactly.
    exact = 1 / (1 + np.exp(-(scores - 2.5) / 5 - np.log(0.3 / 0.7)))
    assert np.abs(found[:, 1] - exact).max() < 0.06
    assert np.allclose(found.sum(axis=1), 1)
    useless = Calibration.of(codes, -scores)
    assert useless.slopes == (0.0,)
    assert useless.probabilities(scores)[0, 1] == pytest.approx(codes.mean(), abs=0.01)
    three = Calibration.of(codes + (rng.random(2000) < 0.1), rng.normal(size=(2000, 3)))
    assert np.allclose(three.probabilities(rng.normal(size=(9, 3))).sum(axis=1), 1)


def test_no_file_of_the_users_is_replaced_by_another_kind(clinic, fitted, tmp_path):
    """A forgotten name makes the first scan of a glob the file to write."""
    picture = shutil.copy(clinic / "scans" / "p00.png", tmp_path / "p00.png")
    labels, other = tmp_path / "labels.csv", tmp_path / "other.parquet"
    labels.write_text("subject,kind\np00,calm\n")
    pd.DataFrame({"subject": ["p00"], "kind": ["calm"]}).to_parquet(other)
    before = {file: file.read_bytes() for file in (picture, labels, other)}
    writers = (
        lambda file: vitaepp.predict(fitted, clinic / "scans", file),
        lambda file: vitaepp.embed(clinic / "encoder", clinic / "store", file),
        lambda file: vitaepp.export(clinic / "encoder", file, "torchscript"),
    )
    for file in before:
        for write in writers:
            with pytest.raises(RunError, match=r"^\S+: is there, and is no .*; give another name$"):
                write(file)
    assert {file: file.read_bytes() for file in before} == before
    # Nor are they where only what is written beside it has their name.
    for name, write in (("e.untrained.parquet", 1), ("e.raw.parquet", 1), ("e.notes.parquet", 0)):
        (tmp_path / name).write_text("mine")
        with pytest.raises(RunError, match=f"{name}: is there, and is no "):
            writers[write](tmp_path / "e.parquet")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    # What is there of an earlier call is replaced, and an empty file as well.
    (tmp_path / "p.csv").touch()
    for _ in range(2):
        vitaepp.predict(fitted, clinic / "scans" / "p01.png", tmp_path / "p.csv")
        for name in ("e.csv", "e.parquet"):
            vitaepp.embed(clinic / "encoder", clinic / "store", tmp_path / name)


def test_commands(command, clinic, fitted, tmp_path):
    status, out, err = command(
        "fit", clinic / "e.parquet", "--label", "kind", "--out", tmp_path / "m"
    )
    assert status == 0, err
    assert out.startswith("Model(kind: calm, loud; fitted on 24 subjects")
    (tmp_path / "bad.png").write_bytes(b"broken")
    status, out, err = command(
        "predict", tmp_path / "m", clinic / "scans" / "p03.png", tmp_path / "bad.png",
        "--out", tmp_path / "p.csv",
    )  # fmt: skip
    assert (status, "p03: kind loud" in out, "bad: bad.png: cannot be" in err) == (1, True, True)
    assert len(pd.read_csv(tmp_path / "p.csv")) == 1
    status, _, err = command(
        "predict", clinic / "store", tmp_path / "bad.png", "--out", tmp_path / "q.csv"
    )
    assert (status, err.count("\n")) == (2, 1)
    assert re.search(r"is a store, and not a model; make one with vitaepp fit", err)
