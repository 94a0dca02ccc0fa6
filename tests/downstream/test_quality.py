"""Quality control: what is unlike the others is flagged, and why is said."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import vitaepp
from tests.conftest import LIGHT
from vitaepp.data.checkpoints import load_checkpoint
from vitaepp.data.runfolder import RunFolder
from vitaepp.downstream.quality import LIMIT, deviations, judged, reconstruction_errors
from vitaepp.errors import EvaluationError, RecipeError, RunError
from vitaepp.ingest.prepare import prepare
from vitaepp.methods.vitaepp import reconstruct_images
from vitaepp.views.draws import Draws
from vitaepp.weights.runs import load_method


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Pictures of ramps and one of noise, their store and a run."""
    root = tmp_path_factory.mktemp("odd")
    (root / "scans").mkdir()
    draw = np.random.default_rng(0)
    along, across = np.meshgrid(np.linspace(0, 1, 16), np.linspace(0, 1, 16))
    pictures = {
        f"p{i:02d}": 40 + draw.uniform(80, 120) * along + draw.uniform(40, 80) * across
        for i in range(24)
    }
    pictures["noise"] = 255.0 * draw.integers(0, 2, (16, 16))
    for name, picture in pictures.items():
        picture = picture + draw.normal(0, 4, picture.shape)
        shown = picture.clip(0, 255).astype(np.uint8)
        Image.fromarray(shown).save(root / "scans" / f"{name}.png")
    prepare(root / "scans", root / "store", size=16, workers=1)
    settings = [s.replace("epochs=3", "epochs=10") for s in LIGHT]
    settings += ["model.patch_size=4", "model.mask_ratio=0.5", "loss.contrastive.weight=0"]
    vitaepp.pretrain(root / "store", root / "run", settings=settings)
    return root


def test_an_odd_scan_is_flagged(odd, command, tmp_path):
    status, out, err = command("qc", odd / "run", odd / "store", "--out", tmp_path / "qc")
    assert status == 0, err
    table = pd.read_csv(tmp_path / "qc" / "qc.csv", keep_default_na=False).set_index("subject")
    assert list(table) == [
        *("error", "error_percentile", "error_deviation"),
        *("distance", "distance_percentile", "distance_deviation", "flagged", "reason"),
    ]
    assert table.flagged["noise"]
    assert f"noise: {table.reason['noise']}" in out
    assert " deviations above the median" in table.reason["noise"]
    assert "flagged, farther than 3.5 robust standard deviations from the median" in out
    assert table.distance_percentile["noise"] == table.distance_percentile.max() == 96
    assert table.flagged.sum() <= 3
    facts = json.loads((tmp_path / "qc" / "qc.json").read_text())
    assert (facts["n"], facts["flagged"]) == (25, table.flagged.sum())
    assert (tmp_path / "qc" / "flagged.png").is_file()
    # The encoder alone judges by distance, and the same.
    status, out, err = command("qc", odd / "run" / "encoder", odd / "store", tmp_path / "e")
    assert (status, "an encoder alone reconstructs nothing" in err) == (0, True)
    alone = pd.read_csv(tmp_path / "e" / "qc.csv").set_index("subject")
    assert np.allclose(alone.distance, table.distance)
    assert alone.error.isna().all()


def test_no_number_of_a_scan_depends_on_the_order_of_the_store(odd, tmp_path):
    files = sorted((odd / "scans").glob("*.png"), reverse=True)
    rows = "".join(f"{file.stem},{file}\n" for file in files)
    (tmp_path / "m.csv").write_text(f"subject,image\n{rows}")
    prepare(tmp_path / "m.csv", tmp_path / "store", size=16, modalities=["image"], workers=1)
    subjects = [vitaepp.Store(r / "store").table["subject"].tolist() for r in (odd, tmp_path)]
    assert subjects[0] == subjects[1][::-1]
    found, filled = [], []
    for i, store in enumerate((odd / "store", tmp_path / "store")):
        table = vitaepp.qc(odd / "run", store, tmp_path / f"qc{i}", any_store=True).table
        found.append(table.sort_values("subject", ignore_index=True))
        made = vitaepp.reconstruct(odd / "run", store, tmp_path / f"r{i}", any_store=True)
        filled.append(made.sort_values("subject", ignore_index=True))
    pd.testing.assert_frame_equal(*found, rtol=1e-4)
    pd.testing.assert_frame_equal(*filled, rtol=1e-4)


def test_errors_are_of_hidden_voxels_in_units_of_the_deviation(odd):
    method, _ = load_method(odd / "run")
    store = vitaepp.Store(odd / "store")
    images = torch.from_numpy(store.read([0, 1])).float()
    there = torch.ones(2, 1, dtype=torch.bool)
    found = reconstruction_errors(method, images, there, 2, 0, [0, 1])
    squares = []
    for mask in range(2):
        restored, visible = reconstruct_images(method, images, Draws(0, mask, [0, 1]), there)
        wrong = (restored - images).numpy()[1][~visible.numpy()[1]]
        squares.append(np.mean(wrong**2))
    assert found[1] == pytest.approx(np.sqrt(np.mean(squares)) / images[1].numpy().std(), rel=1e-5)
    # Each image by itself, whatever is beside it; and none without contrast.
    alone = reconstruction_errors(method, images[1:], there[1:], 2, 0, [1])
    assert alone == pytest.approx(found[1:], rel=1e-4)
    flat = reconstruction_errors(method, torch.full_like(images, 7), there, 2, 0, [0, 1])
    assert np.isnan(flat).all()


def test_deviations_are_those_of_a_normal_distribution_whatever_is_odd():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=2000)
    values = np.exp(3 + 0.2 * np.r_[normal, np.full(100, 40)])
    assert np.allclose(deviations(values)[:2000], normal, atol=0.3)
    assert np.allclose(deviations(values, values[:2000])[:2000], normal, atol=0.1)
    assert (deviations(values)[2000:] > LIMIT).all()
    assert not deviations(np.ones(5)).any()
    assert np.isnan(deviations(np.full(3, np.nan))).all()
    assert np.isnan(deviations(np.array([1, 2, 3, np.nan]))).tolist() == [False] * 3 + [True]


def test_reasons_name_what_is_odd():
    rng = np.random.default_rng(1)
    errors, distances = np.exp(rng.normal(0, 0.1, (2, 50)))
    errors[:3], distances[0] = [3, 0.3, 1], 5
    table = judged([f"s{i}" for i in range(50)], errors, distances)
    assert table.flagged.tolist() == [True, True] + [False] * 48
    far, wrong = deviations(distances)[0], deviations(errors)[:2]
    assert table.reason[0] == (
        f"far from the other scans: distance {far:.1f} deviations above the median; "
        f"hard to fill in: error {wrong[0]:.1f} deviations above the median"
    )
    assert table.reason[1] == (
        "too easy to fill in, as blurred or nearly empty images are: "
        f"error {-wrong[1]:.1f} deviations below the median"
    )
    assert table.error_percentile[:2].tolist() == [98, 0]
    assert table.oddity[0] > table.oddity[1] > LIMIT


def test_what_cannot_be_done_is_said(odd, tmp_path, monkeypatch):
    with pytest.raises(RunError, match=r"is a store, not the run; did you mean `qc\('"):
        vitaepp.qc(odd / "store", odd / "run", tmp_path / "out")
    with pytest.raises(RunError, match="`masks=0`"):
        vitaepp.qc(odd / "run", odd / "store", tmp_path / "out", masks=0)
    everybody = "vitaepp.downstream.quality.persons_of"
    monkeypatch.setattr(everybody, lambda table: np.zeros(len(table), np.intp))
    with pytest.raises(EvaluationError, match="25 subjects of 1 person"):
        vitaepp.qc(odd / "run", odd / "store", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_with_another_versions_settings_of_finetune_is_used(odd, tmp_path, capsys):
    """They are in its recipe and in its checkpoint."""
    run = shutil.copytree(odd / "run", tmp_path / "run")
    file, last = run / "recipe.yaml", run / "last.ckpt"
    checkpoint = load_checkpoint(last)
    for values in (recipe := yaml.safe_load(file.read_text()), checkpoint["vitaepp"]["recipe"]):
        values["finetune"]["patience"] = 10
    file.write_text(yaml.safe_dump(recipe))
    torch.save(checkpoint, last)
    was = RunFolder(odd / "run").recipe()
    capsys.readouterr()
    assert RunFolder(run).recipe() == was
    line = "finetune.patience=10: give at most 1; its settings of finetune are replaced"
    assert f"{file}: {line}" in capsys.readouterr().err
    assert load_method(run)[1].epochs == 10
    assert f"{last}: {line}" in capsys.readouterr().err
    recipe["optim"]["epochs"] = 0
    file.write_text(yaml.safe_dump(recipe))
    with pytest.raises(RecipeError, match=re.escape(f"{file}: optim.epochs=0: give at least 1")):
        RunFolder(run).recipe()
