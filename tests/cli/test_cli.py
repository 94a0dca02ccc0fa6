"""The command line as its users meet it: verbs, files, exit statuses, one line on what is wrong."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer

from tests.conftest import TINY
from tests.ingest.trees import mask, scan
from vitaepp import __version__
from vitaepp.data.embeddings import Embeddings
from vitaepp.training.footprint import Footprint


@pytest.fixture
def medmnist(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 24), ("val", 4), ("test", 12)):
        labels = np.arange(count) % 2
        images = rng.integers(0, 120, (count, 16, 16))
        images[labels == 1, 4:12, 4:12] += 120
        arrays[f"{split}_images"] = images.astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    path = tmp_path / "tiny.npz"
    np.savez(path, **arrays)
    return path


def test_the_whole_way_by_commands(vitaepp, medmnist, tmp_path):
    store, run = tmp_path / "store", tmp_path / "run"
    status, out, _ = vitaepp("prepare", medmnist, store)
    assert (status, "40 subjects prepared" in out) == (0, True)
    status, out, _ = vitaepp("inspect", store)
    assert status == 0
    assert "16×16" in out
    sets = [part for setting in TINY for part in ("--set", setting)]
    status, _, err = vitaepp("pretrain", store, run, *sets)
    assert status == 0
    assert "random weights" in err  # said, never silent
    status, _, err = vitaepp("pretrain", store, run, *sets)
    assert (status, err.count("\n")) == (2, 1)
    assert "add --resume" in err
    status, _, err = vitaepp("pretrain", store, run, "--resume")
    assert (status, "has ended already" in err) == (0, True)
    embeddings = run / "embeddings.parquet"
    assert vitaepp("embed", run, store, embeddings)[0] == 0
    frame = pd.read_parquet(embeddings)
    assert list(frame)[:4] == ["subject", "label", "split", "f0"]
    status, _, err = vitaepp("embed", run, store, tmp_path / "e.csv")
    assert (status, "e.csv: CSV, for other programs" in err) == (0, True)
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "e.csv"), frame, check_dtype=False, rtol=1e-7
    )
    status, out, _ = vitaepp(
        "evaluate", embeddings, "--label", "label", "--out", run / "evaluation"
    )
    assert status == 0
    assert "untrained encoder" in out
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert metrics["protocol"] == "linear"
    assert set(metrics["controls"]) == {"untrained", "raw"}
    assert str(tmp_path) not in json.dumps(metrics)
    asked = ("evaluate", tmp_path / "e.csv", "--label", "label", "--out", tmp_path / "of csv")
    assert vitaepp(*asked)[0] == 0
    of_csv = json.loads((tmp_path / "of csv" / "metrics.json").read_text())
    assert [of_csv[k] for k in ("folds", "controls")] == [metrics[k] for k in ("folds", "controls")]
    status, out, _ = vitaepp(
        "compare", run / "evaluation", "--controls", "--out", tmp_path / "compared"
    )
    assert status == 0
    assert "all pairs alike: no test" in out  # the same encoder twice
    assert len(list((tmp_path / "compared").iterdir())) == 4
    status, out, _ = vitaepp("reconstruct", run, store, tmp_path / "rec", "--subjects", 4)
    assert (status, "4 subjects: PSNR" in out) == (0, True)
    told = json.loads(
        vitaepp("reconstruct", run, store, tmp_path / "j", "--subjects", 1, "--json")[1]
    )
    assert (told["n"], len(told["subjects"]), told["std"]["psnr"]) == (1, 1, None)
    status, out, _ = vitaepp("report", run, "--out", tmp_path / "report.html")
    assert status == 0
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepar"], "Did you mean"),
        (["prepare", "nowhere", "store"], "nowhere"),
        (["prepare", "x.csv"], "Missing argument 'STORE', the last one, or --out; only"),
        (["pretrain", "store"], "Missing argument 'RUN', the last one, or --out; see"),
        (["embed", "run"], "Missing argument 'STORE'; see"),
        (["prepare", "nowhere", "s", "--size", "abc"], "vitaepp: --size abc: give a whole number"),
        (["prepare", "nowhere", "s", "--set", "prepare.size=abc"], "vitaepp: prepare.size='abc': "),
        (["prepare", "nowhere", "--dry-run"], "nowhere: no such file or folder"),
        (["plan", "nowhere"], "nowhere: no such file or folder"),
        (["download", "cifar", "x"], "no data set 'cifar' to download; did you mean cifar10?"),
        (["inspect", "nowhere"], "no such store"),
        (["pretrain", "nowhere", "run"], "no such store"),
        (["embed", "nowhere", "nowhere", "x.parquet"], "no such"),
        (["evaluate", "x.parquet", "--label", "a", "--out", "y"], "no such file"),
        (["compare", "nowhere", "there"], "nowhere: no such evaluation; check the path, or"),
        (["experiment", "ablatoin", "nowhere", "out"], "no experiment 'ablatoin'; did you mean"),
        (["experiment", "ablation", "nowhere", "out", "--label", "a"], "no such store"),
        (["reconstruct", "nowhere", "nowhere", "out"], "no such run"),
        (["report", "nowhere", "--out", "x.html"], "no such run"),
    ],
)
def test_what_is_refused_is_one_line_and_status_2(
    vitaepp, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    status, _, err = vitaepp(*arguments)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    status, _, err = vitaepp(*arguments, "--debug")
    assert status == 2


@pytest.fixture
def desk(make_store, tmp_path, monkeypatch):
    """Scans, a store, a run with an evaluation, and embeddings: as far as messages look at them."""
    monkeypatch.chdir(tmp_path)
    make_store(subjects=12, size=(16, 16))
    scan(Path("scans/a.nii.gz"))
    for folder in ("runs/b", "empty", "run/evaluation"):
        Path(folder).mkdir(parents=True)
    for run in ("run", "runs/b"):
        Path(run, "recipe.yaml").write_text("method: vitae++\n")
    held = {"label": "grade", "folds": [], "mean": {}, "std": {}}
    Path("run/evaluation/metrics.json").write_text(json.dumps(held))
    table = pd.DataFrame({"subject": [*"abcdefghijkl"], "sex": [*"mf"] * 6, "split": ""})
    embedded = Embeddings(table, np.eye(12, 3, dtype=np.float32), {})
    for name in ("run/e.parquet", "run/e.raw.parquet"):
        embedded.save(name)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("pretrain run store", "run: is a run, not the store; did you mean vitaepp pretrain store"),
        ("pretrain new store", "store: is a store, not the run; did you mean vitaepp pretrain st"),
        ("pretrain scans new", "scans: is a folder, but not a store (no store.json in it); if it"),
        ("pretrain run/e.parquet new", "run/e.parquet: is a file, and not a store, which is"),
        ("embed store run new", "did you mean vitaepp embed run store new?"),
        ("embed run new store", "did you mean vitaepp embed run store new?"),
        ("embed runs store new", "runs: is a folder, but not a run (no recipe.yaml in it); did you"
            " mean runs/b?"),
        ("embed run/evaluation store new", "is an evaluation, and not a run; did you mean run?"),
        ("embed store store new", "store: is a store, and not a run; train on it with vitaepp"),
        ("reconstruct store run new", "did you mean vitaepp reconstruct run store new?"),
        ("compare run", "run: is a run, and not an evaluation; did you mean run/evaluation?"),
        ("compare .", "not an evaluation (no metrics.json in it); did you mean run/evaluation?"),
        ("compare run/e.parquet", "damaged, not JSON"),
        ("compare empty", "empty: is an empty folder, and not an evaluation; check the path"),
        ("evaluate run --label sex --out new", "run: is a folder; did you mean run/e.parquet?"),
        ("evaluate store --label sex --out new", "store: is a folder; name the file that embed"),
        ("evaluate run/e.parquet --label sex --out run/evaluation", "run/evaluation: holds the eval"
            "uation of label 'grade'; give that of 'sex' a folder of its own, as run/ev"
            "aluation-sex"),
        ("evaluate run/e.parquet --label sex --label age --out new", "--label is given 2 times"),
        ("inspect run", "run: is a run, and not a store; make one with vitaepp prepare SOURCE"),
        ("inspect empty", "empty: is an empty folder, and not a store; check the path"),
        ("inspect nowhere", "nowhere: no such store; check the path, or make one with vitaepp"),
        ("report run/evaluation", "is an evaluation, and not a run; did you mean run?"),
        ("report run --evaluation empty", "empty: is an empty folder, and not an evaluation"),
        ("prepare store new", "store: is a store of vitaepp and holds no raw scans; name the"),
        ("prepare store scans", "did you mean vitaepp prepare scans store?"),
        ("prepare run new", "run: is a run of vitaepp and holds no raw scans; name the"),
        ("prepare empty new", "empty: no images found, the folder is empty; name the folder of"),
        ("prepare scans new --show-series", "--show-series goes with --dry-run alone"),
        ("prepare scans new --size 0", "--size 0: give at least 1"),
        ("prepare scans new --clip 5", "--clip 5: give one value more"),
        ("prepare scans new --workers x", "Invalid value for '--workers': give a whole number; see"
            " vitaepp prepare --help"),
        ("pretrain store new --recipe demo --set trainer.devices=99", "=99: this machine has"),
    ],
)  # fmt: skip
def test_what_was_likely_meant_is_said(vitaepp, desk, command, message):
    before = sorted(Path().rglob("*"))
    status, _, err = vitaepp(*command.split())
    assert (status, err.count("\n")) == (2, 1), err
    assert message in err
    assert ".;" not in err
    assert sorted(Path().rglob("*")) == before


def test_the_bare_command_shows_help_and_the_version_is_told(vitaepp, monkeypatch):
    status, out, err = vitaepp()
    assert (status, "Usage: vitaepp" in out, err) == (0, True, "")
    status, out, err = vitaepp("--version")
    first, second, third = out.splitlines()
    assert (status, first, err) == (0, f"vitaepp {__version__}", "")
    assert second.startswith(f"torch {torch.__version__} on ")
    assert third.startswith(f"Python {platform.python_version()} on ")
    # Where torch cannot be imported, the version is told all the same.
    monkeypatch.setitem(sys.modules, "vitaepp.system.devices", None)
    status, out, err = vitaepp("--version")
    second = "torch cannot be imported: see vitaepp doctor"
    assert (status, out.splitlines()[:2], err) == (0, [first, second], "")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.epoch=3", "did you mean optim.epochs"),
        ("model.patch_size=7", "cannot be cut into patches of 7"),
        ("data.split=nope", "no subject"),
        ("model.init=nowhere", "no such file or folder"),
        ("loss.perceptual.weights=nowhere.pth", "no such file; give imagenet, random"),
    ],
)
def test_settings_that_do_not_fit_leave_no_run_behind(
    vitaepp, make_store, tmp_path, setting, message
):
    store = make_store(size=(16, 16))
    asked = ("pretrain", store.path, tmp_path / "run", "--recipe", "demo", "--set", setting)
    status, _, err = vitaepp(*asked)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_experiment_by_command(vitaepp, make_store, tmp_path):
    store, out = make_store(subjects=16, size=(16, 16)).path, tmp_path / "out"
    sets = [part for setting in (*TINY, "optim.epochs=1") for part in ("--set", setting)]
    asked = ("experiment", "ablation", store, out, "--label", "bright", *sets)
    status, _, err = vitaepp(*asked, "--variants", "vitae,vitea++")
    assert (status, err.count("\n"), out.exists()) == (2, 1, False)
    assert "no variant vitea++; did you mean vitae++?" in err
    status, printed, _ = vitaepp(*asked, "--variants", "vitae,vitae++")
    assert status == 0
    assert "ViT-AE++" in printed
    assert {p.suffix for p in out.glob("ablation.*")} == {".md", ".csv", ".tex", ".json"}
    assert str(tmp_path) not in (out / "ablation.md").read_text()


@pytest.mark.parametrize("how", [KeyboardInterrupt, typer.Abort, typer.Exit(130)])
def test_ctrl_c_ends_with_one_line_whatever_typer_makes_of_it(vitaepp, monkeypatch, how):
    def stopped():
        raise how

    monkeypatch.setattr("vitaepp.cli.doctor.doctor", stopped)
    line = "vitaepp: interrupted; run the same command again to go on\n"
    assert vitaepp("doctor") == (130, "", line)


def test_help_is_light():
    heavy = "{'torch', 'pandas', 'pydantic'}"
    code = f"import sys, vitaepp.cli.app; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_dry_run_and_a_plan_by_command(vitaepp, medmnist, make_store, tmp_path, monkeypatch):
    # To count a step's operations takes seconds, and is tested where it is done.
    footprint = lambda *_, **__: Footprint(2**27, 2**22, 1e9)  # noqa: E731
    monkeypatch.setattr("vitaepp.training.propose.step_footprint", footprint)
    before = sorted(tmp_path.rglob("*"))
    status, out, _ = vitaepp("prepare", medmnist, "--dry-run")
    assert status == 0
    assert "train: 24" in out
    assert sorted(tmp_path.rglob("*")) == before
    status, out, _ = vitaepp("plan", medmnist)
    assert status == 0
    assert "# 64 patches of 16×16" in out
    store, file = make_store(size=(16, 16)).path, tmp_path / "proposed.yaml"
    status, out, err = vitaepp("plan", store, "--out", file)
    assert (status, out) == (0, file.read_text(encoding="utf-8"))
    assert f"recipe written to {file}" in err
    told = json.loads(vitaepp("plan", medmnist, "--json")[1])
    assert told["dry_run"]["subjects"] == 40
    assert {"name", "value", "reason"} == set(told["choices"][0])
    quick = ("--set", "optim.epochs=1", "--set", "model.size=tiny")
    assert vitaepp("pretrain", store, tmp_path / "run", "--recipe", file, *quick)[0] == 0


def test_what_cannot_be_downloaded_is_explained_and_is_no_failure(vitaepp, tmp_path):
    status, out, err = vitaepp("download", "egd", tmp_path / "egd")
    assert (status, err) == (0, "")
    assert "https://xnat.bmia.nl" in out
    assert f"vitaepp prepare {tmp_path / 'egd'} STORE --recipe egd" in out


def test_settings_are_listed_with_what_they_mean(vitaepp):
    status, out, _ = vitaepp("settings")
    assert status == 0
    assert "loss.edge.weight = 10\n" in out
    assert "λ_edge" in out


def test_the_first_failure_and_its_reason_stand_on_the_screen(vitaepp, tmp_path):
    values = np.random.default_rng(0).integers(1000, 2000, (16, 16, 16)).astype(np.int16)
    for name in "abc":
        scan(tmp_path / "x" / f"{name}.nii.gz", values=values)
    (tmp_path / "x" / "b.nii.gz").write_bytes(b"no scan")
    asked = ("prepare", tmp_path / "x", tmp_path / "s", "--size", 16)
    status, out, _ = vitaepp(*asked)
    done, first = out.splitlines()[-2:]
    assert (status, done.partition(": ")[2]) == (
        1,
        f"2 subjects prepared, 0 were there already, 1 failed: see {tmp_path / 's'}/failures.csv",
    )
    (failure,) = pd.read_csv(tmp_path / "s" / "failures.csv").itertuples()
    assert first == f"first failure: b: {failure.reason}"
    (tmp_path / "x" / "b.nii.gz").unlink()
    status, out, _ = vitaepp(*asked[:2], tmp_path / "t", "--window", "image=brain")
    assert status == 1
    assert out.splitlines()[-1].startswith(
        "first failure: a: a.nii.gz: its intensities, 1000 to 1999, lie outside the window 0 to"
    )


def test_masks_are_kept_by_command(vitaepp, tmp_path):
    scan(tmp_path / "x" / "a.nii.gz")
    mask(tmp_path / "x" / "a_seg.nii.gz")
    asked = ("prepare", tmp_path / "x", tmp_path / "s", "--size", 8, "--keep-masks")
    assert vitaepp(*asked)[0] == 0
    assert "masks" in vitaepp("inspect", tmp_path / "s")[1]
    assert vitaepp(*asked)[1].endswith("0 subjects prepared, 1 was there already\n")
