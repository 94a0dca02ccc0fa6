"""Reconstructions: what is visible stays, and volumes land where they came from."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import LIGHT
from vitaepp.data.runfolder import weights_id
from vitaepp.errors import RunError
from vitaepp.evaluation.reconstruction import (
    _earlier,
    choose_rows,
    image_quality,
    reconstruct,
    reconstruction_summary,
)
from vitaepp.methods.vitaepp import reconstruct_images
from vitaepp.training.pretrain import pretrain
from vitaepp.views.draws import Draws
from vitaepp.weights.runs import load_method


@pytest.mark.parametrize("size", [(16, 16, 16), (32, 16)])
def test_files_of_a_reconstruction(make_store, tmp_path, size):
    store = make_store(size=size)
    run = pretrain(store.path, tmp_path / "run", settings=LIGHT)
    out = tmp_path / "out"
    table = reconstruct(run, store.path, out, subjects=3)
    assert list(pd.read_csv(out / "metrics.csv")) == ["subject", "psnr", "ssim"]
    assert len(table) == 3
    for subject in table.subject:
        assert (out / f"{subject}.png").is_file()
        arrays = np.load(out / f"{subject}.npz", allow_pickle=False)
        assert arrays["original"].shape == store.info.shape
        assert arrays["channels"].tolist() == ["t1", "t2"]
        if len(size) == 3:
            volume = nib.load(out / f"{subject}_t1.nii.gz")
            assert volume.shape == size
            assert np.allclose(volume.affine, np.eye(4))
    facts = json.loads((out / "reconstruction.json").read_text())
    assert facts["encoder"] == weights_id(run)
    assert not (run / "reconstruction").exists()
    (out / "notes.txt").write_text("mine")
    once = reconstruct(run, store.path, out, subjects=1)
    left = {file.name.split("_")[0].split(".")[0] for file in out.iterdir()}
    assert left == {*once.subject, "metrics", "reconstruction", "notes"}


def test_files_of_a_user_stay(make_store, tmp_path):
    """As where the folder for the results is that of the scans."""
    store = make_store()
    run = pretrain(store.path, tmp_path / "run", settings=LIGHT)
    subject = store.table["subject"].iloc[0]
    for name in ("metrics.csv", "reconstruction.json", f"{subject}.png", f"{subject}_t1.nii.gz"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("[1]")
        with pytest.raises(RunError, match="is there, and is no file of `reconstruct`, or a dam"):
            reconstruct(run, store.path, tmp_path / name)
        assert [path.name for path in (tmp_path / name).iterdir()] == [name]
        assert (tmp_path / name / name).read_text() == "[1]"


def test_files_of_an_interrupted_call_do_not_stay(make_store, tmp_path, monkeypatch):
    store = make_store()
    run = pretrain(store.path, tmp_path / "run", settings=LIGHT)
    out = tmp_path / "out"
    drawn = []

    def cut_short(*args):
        drawn.append(args)
        if len(drawn) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("vitaepp.evaluation.reconstruction.write_volumes", cut_short)
        with pytest.raises(KeyboardInterrupt):
            reconstruct(run, store.path, out, subjects=5)
    assert len([*out.glob("*.png")]) == 3
    once = reconstruct(run, store.path, out, subjects=1)
    assert [file.stem for file in out.glob("*.png")] == [*once.subject]
    assert len([*out.glob("*.npz")]) == 1


@pytest.mark.parametrize(
    "facts", [{"subjects": 5}, {"subjects": [3]}, {"subjects": ["a"], "modalities": None}, [1]]
)
def test_by_damaged_facts_no_file_is_of_an_earlier_call(tmp_path, facts):
    whole = {"modalities": ["t1"], **facts} if isinstance(facts, dict) else facts
    (tmp_path / "reconstruction.json").write_text(json.dumps(whole))
    assert _earlier(tmp_path, ["t1"]) == []


def test_visible_voxels_stay_and_the_same_seed_hides_the_same(make_store, tmp_path):
    store = make_store()
    run = pretrain(store.path, tmp_path / "run", settings=(*LIGHT, "model.mask_ratio=0.5"))
    method, _ = load_method(run)
    image = torch.from_numpy(store.read([0])).float()
    first, visible = reconstruct_images(method, image, Draws(0, 0, [0]))
    again, same = reconstruct_images(method, image, Draws(0, 0, [0]))
    assert torch.equal(first[visible], image[visible])
    assert not torch.allclose(first[~visible], image[~visible])
    assert visible.float().mean() == 0.5
    assert torch.equal(visible, same)
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("psnr", "ssim", "told"),
    [
        ([20.0], [0.5], "1 subject: PSNR 20.00 dB, SSIM 0.500"),
        ([20.0, 24.0], [0.5, 0.7], "2 subjects: PSNR 22.00 ± 2.83 dB, SSIM 0.600 ± 0.141"),
    ],
)
def test_the_summary_of_one_subject_has_no_deviation(psnr, ssim, told):
    names = [f"s{i}" for i in range(len(psnr))]
    table = pd.DataFrame({"subject": names, "psnr": psnr, "ssim": ssim})
    assert reconstruction_summary(table) == told


def test_psnr_and_ssim_of_known_images():
    image = torch.rand(1, 2, 16, 16) * 255
    assert image_quality(image, image) == pytest.approx((100, 1), abs=1e-4)
    psnr, ssim = image_quality(image + 25.5, image)
    assert psnr == pytest.approx(20, abs=1e-3)
    assert ssim < 1


def test_subjects_that_were_not_trained_on_come_first(make_store):
    store = make_store(splits=True)
    assert choose_rows(store, 2) == [3, 7]
    assert choose_rows(store, 4) == [3, 7, 0, 6]
    assert choose_rows(store, None)[:2] == [3, 7]
    assert sorted(choose_rows(store, None)) == list(range(8))


def test_missing_modalities_are_shown_as_such_and_not_measured(make_store, tmp_path):
    store = make_store()
    run = pretrain(store.path, tmp_path / "run", settings=LIGHT)
    lacks = np.ones((8, 2), bool)
    lacks[0, 0] = False
    table = pd.read_parquet(store.path / "table.parquet")
    table["modality_present"] = lacks.tolist()
    table.to_parquet(store.path / "table.parquet", index=False)
    fewer = make_store(modalities=("t2",), name="fewer")
    for name, path in (("one", store.path), ("all", fewer.path)):
        out = tmp_path / name
        found = reconstruct(run, path, out, subjects=2)
        assert np.isfinite(found[["psnr", "ssim"]].to_numpy()).all()
        first, last = found.subject
        channels = np.load(out / f"{first}.npz")["channels"].tolist()
        assert channels == ["t1 (missing)", "t2"]
        assert not (out / f"{first}_t1.nii.gz").exists()
        assert (out / f"{first}_t2.nii.gz").is_file()
        assert (out / f"{last}_t1.nii.gz").exists() == (name == "one")
