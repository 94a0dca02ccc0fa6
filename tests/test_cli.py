"""The command line as its users meet it: verbs, files, exit statuses, one line on what is wrong."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.conftest import TINY
from vitaepp import cli


@pytest.fixture
def vitaepp(monkeypatch, capsys):
    """Run a command in this process; gives status, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["vitaepp", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


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
    status, out, _ = vitaepp(
        "evaluate", embeddings, "--label", "label", "--out", run / "evaluation"
    )
    assert status == 0
    assert "untrained encoder" in out
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert metrics["protocol"] == "linear"
    assert set(metrics["controls"]) == {"untrained", "raw"}
    assert str(tmp_path) not in json.dumps(metrics)
    status, out, _ = vitaepp(
        "compare", run / "evaluation", "--controls", "--out", tmp_path / "compared"
    )
    assert status == 0
    assert "McNemar's exact test" in out
    assert len(list((tmp_path / "compared").iterdir())) == 4
    status, out, _ = vitaepp("reconstruct", run, store, tmp_path / "rec", "--subjects", 4)
    assert (status, "4 subjects: PSNR" in out) == (0, True)
    status, out, _ = vitaepp("report", run, "--out", tmp_path / "report.html")
    assert status == 0
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepar"], "Did you mean"),
        (["prepare", "nowhere", "store"], "nowhere"),
        (["prepare", "x.csv"], "Missing argument 'STORE'"),
        (["prepare", "nowhere", "--dry-run"], "nowhere: no such file or folder"),
        (["plan", "nowhere"], "nowhere: no such file or folder"),
        (["download", "cifar", "x"], "no data set 'cifar' to download; did you mean cifar10?"),
        (["inspect", "nowhere"], "no such store"),
        (["pretrain", "nowhere", "run"], "no such store"),
        (["embed", "nowhere", "nowhere", "x.parquet"], "no such"),
        (["evaluate", "x.parquet", "--label", "a", "--out", "y"], "no such file"),
        (["compare", "nowhere", "there"], "no such file; make it with vitaepp evaluate"),
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
    status, _, err = vitaepp("pretrain", store.path, tmp_path / "run", "--set", setting)
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


def test_help_is_light_and_training_needs_no_reader_of_scans(make_store, tmp_path):
    code = (
        "import sys, vitaepp.cli; print(sorted({'torch', 'pandas', 'pydantic'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    store = make_store(size=(16, 16))
    code = (
        "import sys, vitaepp; sys.modules['SimpleITK'] = sys.modules['monai'] = None\n"
        f"run = vitaepp.pretrain({str(store.path)!r}, {str(tmp_path / 'run')!r}, "
        f"settings={list(TINY)!r})\n"
        f"vitaepp.embed(run, {str(store.path)!r}, {str(tmp_path / 'e.parquet')!r})"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (tmp_path / "e.parquet").is_file()


def test_a_dry_run_and_a_plan_by_command(vitaepp, medmnist, make_store, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    status, out, _ = vitaepp("prepare", medmnist, "--dry-run")
    assert status == 0
    assert "train: 24" in out
    assert sorted(tmp_path.rglob("*")) == before
    status, out, _ = vitaepp("plan", medmnist)
    assert status == 0
    assert "# 64 patches of 16×16" in out
    store, file = make_store(size=(16, 16)).path, tmp_path / "proposed.yaml"
    assert vitaepp("plan", store, "--out", file)[:2] == (0, f"{file}\n")
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
    assert "loss.edge.weight = 10.0" in out
    assert "λ_edge" in out
