"""An encoder loads with torch and safetensors, wherever it is handed on to."""

import subprocess
import sys
from dataclasses import replace

from tests.conftest import TINY
from vitaepp.encoder.model import Encoder
from vitaepp.recipe.recipe import Recipe

#: What preparing, training and evaluating need, and an encoder does not.
HEAVY = ("fsspec", "lightning", "matplotlib", "monai", "pandas", "pyarrow", "pydantic", "rich")
HEAVY += ("scipy", "sklearn", "SimpleITK", "typer", "zarr")

PROGRAM = """
import sys, torch, vitaepp
for folder in sys.argv[1:3]:
    before = {*sys.modules}
    encoder = vitaepp.Encoder.from_pretrained(folder)
    features = encoder(torch.zeros(1, len(encoder.config.modalities), 16, 16))
    assert features.shape == (1, encoder.dim)
    roots = {name.split(".")[0] for name in sys.modules if name not in before}
    print("loaded", *sorted(roots.intersection(sys.argv[3:])))
"""


def test_loading_an_encoder_imports_nothing_that_it_does_not_need(make_store, tmp_path):
    store = make_store(subjects=1, size=(16, 16))
    recipe = Recipe.load(settings=TINY)
    config = Encoder.untrained(recipe, store.info).config
    Encoder(replace(config, epochs=3)).save(tmp_path / "run" / "encoder")
    recipe.save(tmp_path / "run" / "recipe.yaml")
    folders = [str(tmp_path / "run" / "encoder"), str(tmp_path / "run")]
    command = [sys.executable, "-c", PROGRAM, *folders, *HEAVY, "yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Of a run it looks up whether training has ended.
    assert done.stdout.splitlines() == ["loaded", "loaded yaml"]
