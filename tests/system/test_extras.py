"""What only an extra installs is asked for where it is needed, by one line that names the extra."""

import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import vitaepp
from vitaepp.data.tables import read_table
from vitaepp.errors import MissingPackageError, StorageError
from vitaepp.system.extras import require
from vitaepp.system.urls import filesystem

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.fixture
def workbook(tmp_path):
    (tmp_path / "labels.xlsx").write_bytes(b"PK")
    return tmp_path / "labels.xlsx"


# Looked up before a package is taken away, because other libraries import some of them, too.
report, experiment, prepare = vitaepp.report, vitaepp.experiment, vitaepp.prepare
fit = vitaepp.fit

CALLS = {
    "jinja2": ("report", lambda folder: report(folder)),
    "matplotlib": (
        "report",
        lambda folder: experiment("edge-decay", folder / "no store", folder / "out"),
    ),
    "skops": ("model", lambda folder: fit(folder / "e.parquet", "label", folder / "model")),
    "openpyxl": ("xlsx", lambda folder: read_table(folder / "labels.xlsx")),
    "distributed": (
        "dask",
        lambda folder: prepare(folder / "a.npz", folder / "store", dask="tcp://host:1"),
    ),
}


@pytest.mark.parametrize("package", CALLS)
def test_a_package_that_is_missing_is_one_line_with_its_extra(
    monkeypatch, tmp_path, workbook, package
):
    np.savez(
        tmp_path / "a.npz",
        **{f"{part}_images": np.zeros((2, 8, 8), np.uint8) for part in ("train", "val", "test")},
        **{f"{part}_labels": np.zeros((2, 1), np.uint8) for part in ("train", "val", "test")},
    )
    extra, call = CALLS[package]
    assert any(r.startswith(package) for r in EXTRAS[extra])
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError) as error:
        call(tmp_path)
    line = str(error.value)
    assert "\n" not in line
    assert f" {package}, which is not installed; " in line
    assert line.endswith(f"pip install 'vitaepp[{extra}]'")


def test_a_package_that_is_broken_says_why(monkeypatch, tmp_path):
    (tmp_path / "broken_package.py").write_text("import package_that_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError, match=r"cannot be imported: No module .*it_needs"):
        require("broken_package", "report", "a report needs")


def test_a_url_of_the_hub_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(StorageError, match=r"pip install 'vitaepp\[hub\]'"):
        filesystem("hf://datasets/a/b")


def test_all_is_every_extra_of_users():
    (names,) = EXTRAS["all"]
    assert set(names.removeprefix("vitaepp[").removesuffix("]").split(",")) == (
        set(EXTRAS) - {"all", "bench", "dev", "docs"}
    )
