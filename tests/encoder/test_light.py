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
before = {*sys.modules}
encoder = vitaepp.Encoder.from_pretrained(sys.argv[1])
features = encoder(torch.zeros(1, len(encoder.config.modalities), 16, 16))
assert features.shape == (1, encoder.dim)
roots = {name.split(".")[0] for name in sys.modules if name not in before}
print(*sorted(roots.intersection(sys.argv[2:])))
"""


def loaded(folder):
    command = [sys.executable, "-c", PROGRAM, str(folder), *HEAVY, "yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_loading_an_encoder_imports_nothing_that_it_does_not_need(make_store, tmp_path):
    store = make_store(subjects=1, size=(16, 16))
    recipe = Recipe.load(settings=TINY)
    config = Encoder.untrained(recipe, store.info).config
    Encoder(replace(config, epochs=3)).save(tmp_path / "run" / "encoder")
    assert loaded(tmp_path / "run" / "encoder") == []
    # Of a run it looks up whether training has ended.
    recipe.save(tmp_path / "run" / "recipe.yaml")
    assert loaded(tmp_path / "run") == ["yaml"]
