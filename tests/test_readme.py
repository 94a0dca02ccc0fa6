"""What README.md and docs/use.md tell users to type, run as it stands on a small cohort."""

import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import vitaepp
from tests.cli.conftest import vitaepp as command  # noqa: F401
from tests.conftest import LIGHT
from tests.ingest import dicom_files

ROOT = Path(__file__).parents[1]

#: What is added to a command, so that it ends within seconds.
SHORTER = {
    "finetune": "--folds 2 --set optim.epochs=1 --set optim.updates=1",
    "ladder": "--rungs prior,raw --budget 10,all --folds 2",
    "explain": "--pairs 1 --parts 8",
}


def blocks(page: str, section: str, language: str) -> list[str]:
    """The code blocks of a section, without comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    part = text.split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"^```{language}\n(.*?)^```", part, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a label `grade`, a run with embeddings, and the scans of two new patients."""
    root = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    lines = ["subject,grade"]
    for i in range(20):
        volume = rng.normal(100, 10, (16, 16, 16))
        volume[4:12, 4:12, 4:12] += 40 * (i % 2)
        nifti(root / f"scans/s{i:02d}/t1.nii.gz", volume)
        lines.append(f"s{i:02d},{i % 2}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    vitaepp.prepare(root / "scans", root / "store", labels=root / "labels.csv", size=16)
    vitaepp.pretrain(root / "store", root / "run", settings=LIGHT)
    vitaepp.embed(root / "run", root / "store", root / "run/embeddings.parquet")
    vitaepp.evaluate(root / "run/embeddings.parquet", "grade", root / "run/evaluation", folds=2)
    new = rng.normal(100, 10, (16, 16, 16))
    nifti(root / "p01.nii.gz", new)
    dicom_files.series(root / "p02/dicom", new.astype(np.uint16), step=(0, 0, 1))
    return root


def nifti(path: Path, volume: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(volume.astype(np.float32), np.eye(4)).to_filename(path)


@pytest.mark.parametrize(
    ("page", "section"), [("README.md", "Use it"), ("docs/use.md", "In commands")]
)
def test_the_commands_as_they_stand(command, home, monkeypatch, page, section):  # noqa: F811
    pytest.importorskip("onnx")
    monkeypatch.chdir(home)
    [block] = blocks(page, section, "")
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "vitaepp"
        words += SHORTER.get(words[1], "").split()
        status, _, err = command(*words[1:])
        assert status == 0, f"{line}\n{err}"
    assert list(pd.read_csv("predictions.csv")["subject"]) == ["p01", "dicom"]


@pytest.mark.parametrize(
    ("page", "section"), [("README.md", "In Python"), ("docs/use.md", "In ten lines of Python")]
)
def test_the_lines_of_python_as_they_stand(home, monkeypatch, page, section):
    monkeypatch.chdir(home)
    scans = sorted(Path("scans").glob("*/t1.nii.gz"))
    names = {"scans": scans, "grades": [i % 2 for i in range(len(scans))]}
    [block] = blocks(page, section, "python")
    exec(compile(block, page, "exec"), names)
    assert names["features"].shape == (2, names["encoder"].dim)
