"""Encoders in other formats give the same features, read by the other program."""

import json
import os
import re
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import vitaepp
from tests.conftest import LIGHT, encoder_like
from vitaepp.encoder.model import Encoder
from vitaepp.errors import MissingPackageError, RecipeError, RunError


def by_onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    told = session.get_modelmeta().custom_metadata_map["vitaepp"]
    return session.run(None, {"images": images})[0], told


def by_torchscript(path, images):
    files = {"vitaepp": ""}
    module = torch.jit.load(path, _extra_files=files)
    return module(torch.from_numpy(images)).numpy(force=True), files["vitaepp"]


def by_torch_export(path, images):
    files = {"vitaepp": ""}
    module = torch.export.load(path, extra_files=files).module()
    return module(torch.from_numpy(images)).numpy(force=True), files["vitaepp"]


def paths_in(file):
    """Parts of a file that hold a path of this machine."""
    parts = {file.name: file.read_bytes()}
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    folders = [os.fsencode(p) for p in (Path(vitaepp.__file__).parent, file.parent, sys.prefix)]
    return [name for name, part in parts.items() if any(folder in part for folder in folders)]


@pytest.mark.parametrize(
    ("to", "read"),
    [
        ("onnx", by_onnx),
        ("torchscript", by_torchscript),
        pytest.param("torch-export", by_torch_export, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("size", [(16, 16), (24, 40), (16, 16, 16)])
def test_features_are_the_same_in_any_batch(make_store, tmp_path, size, to, read):
    encoder = encoder_like(make_store(size=size))
    encoder.save(tmp_path / "encoder")
    out = vitaepp.export(tmp_path / "encoder", tmp_path / f"e.{to}", to)
    assert not paths_in(out)
    rng = np.random.default_rng(0)
    for count in (1, 3):
        images = rng.uniform(0, 255, (count, 2, *size)).astype(np.float32)
        found, told = read(str(out), images)
        assert np.abs(found - encoder.embed_images(images)).max() < 1e-4
    # A channel of one colour is flat, in whatever order another program adds its values.
    flat = np.repeat(images[:1], 60, axis=0)
    flat[:, 0] = np.linspace(0.1, 255, 60, dtype=np.float32).reshape(-1, *(1,) * len(size))
    found, _ = read(str(out), flat)
    assert np.abs(found - encoder.embed_images(flat)).max() < 1e-4
    assert json.loads(told)["prepared"]["spacing"] == [1] * len(size)
    assert json.loads(told)["modalities"] == ["t1", "t2"]


def test_a_format_or_package_that_is_not_there_is_one_line(clinic, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match="no format 'onx' to export to; did you mean onnx"):
        vitaepp.export(clinic / "encoder", tmp_path / "x", "onx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'vitaepp\[onnx\]'"):
        vitaepp.export(clinic / "encoder", tmp_path / "x", "onnx")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match="holds something else"):
        vitaepp.export(clinic / "encoder", clinic, "hf")


def test_a_folder_of_the_hub_has_a_card_and_loads(clinic, tmp_path):
    encoder = Encoder.from_pretrained(clinic / "encoder")
    folder = vitaepp.export(clinic / "encoder", tmp_path / "hf", "hf")
    assert "Nothing was handed on with the encoder about" in (folder / "README.md").read_text()
    evaluation = vitaepp.evaluate(clinic / "e.parquet", "kind", tmp_path / "evaluation")
    card = (encoder.save_pretrained(folder, evaluation) / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: vitaepp\n")
    auc = evaluation["mean"]["auc"]
    for text in (f"| this encoder | {auc:.3f} ±", "| raw intensities (PCA) | ", "## Not for"):
        assert text in card
    assert re.search(r"\| prepared: center \| image \|", card)
    paths = [clinic / "scans" / "p00.png"]
    found = Encoder.from_pretrained(folder).embed_files(paths)
    assert np.array_equal(found, encoder.embed_files(paths))


class Hub(types.ModuleType):
    """Stands for the Hub, which no test can reach: a folder for each model."""

    def __init__(self, root):
        super().__init__("huggingface_hub")
        self.root = root

    def snapshot_download(self, name, allow_patterns):
        if not (self.root / name).is_dir():
            raise OSError("404 Client Error.\nRepository Not Found")
        return str(self.root / name)

    def HfApi(self, token):
        return self

    def create_repo(self, name, private, exist_ok):
        (self.root / name).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, repo_id, folder_path):
        import shutil

        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return f"https://huggingface.co/{repo_id}"


def test_a_card_shows_no_number_of_an_earlier_encoder(make_store, tmp_path):
    store, run = make_store(subjects=20, size=(16, 16)), tmp_path / "run"
    vitaepp.pretrain(store.path, run, settings=LIGHT)
    vitaepp.embed(run, store.path, run / "e.parquet")
    vitaepp.evaluate(run / "e.parquet", "bright", run / "evaluation")
    card = (vitaepp.export(run, tmp_path / "a", "hf") / "README.md").read_text()
    assert "A linear classifier of `bright`" in card
    vitaepp.pretrain(store.path, run, settings=(*LIGHT, "optim.epochs=4"), resume=True)
    card = (vitaepp.export(run, tmp_path / "b", "hf") / "README.md").read_text()
    assert "Nothing was handed on" in card
    assert "A linear classifier" not in card


def test_the_hub(clinic, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path))
    encoder = Encoder.from_pretrained(clinic / "encoder")
    assert encoder.push_to_hub("me/mine") == "https://huggingface.co/me/mine"
    assert (tmp_path / "me" / "mine" / "README.md").is_file()
    assert Encoder.from_pretrained("hf-hub:me/mine").config == encoder.config
    with pytest.raises(RunError, match="hf-hub:me/none: cannot be had from the Hub: 404") as error:
        Encoder.from_pretrained("hf-hub:me/none")
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'vitaepp\[hub\]'"):
        encoder.push_to_hub("me/mine")
