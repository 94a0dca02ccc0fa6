"""What a run folder holds for its report: what is missing is None, what is broken is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import yaml
from PIL import Image

from vitaepp.errors import one_line
from vitaepp.files import file_stem
from vitaepp.runfolder import RunFolder

Value = TypeVar("Value")


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run: the content of its metrics.json and of the tables beside it."""

    metrics: dict[str, Any]
    predictions: pd.DataFrame | None
    points: pd.DataFrame | None

    @property
    def title(self) -> str:
        """The label and the protocol, in words."""
        protocol = {"svm": "linear SVM", "linear": "linear probe"}
        name = str(self.metrics["protocol"])
        return f"{self.metrics['label']}, {protocol.get(name, name)}"


@dataclass(frozen=True)
class Reconstruction:
    """Files of a reconstruction: metrics per subject, and what there is to look at.

    Attributes:
        metrics: `subject`, `psnr` in dB, `ssim`; None where the table is missing.
        volumes: `.npz` files by subject, with `original`, `masked` and `reconstruction`.
        panels: `.png` files by subject, of those without an `.npz`.
    """

    metrics: pd.DataFrame | None
    volumes: dict[str, Path]
    panels: dict[str, Path]


@dataclass(frozen=True)
class RunContents:
    """Everything a report says about one run.

    Attributes:
        name: the folder's name, made unique among the runs of a report.
        path: the folder as it was given, for the commands that make what is missing.
        recipe: settings as plain values, and their text.
        summary: what pretrain wrote about data, model and machine; every key is optional.
        training: a row an epoch, or None.
        prepared: contact sheet of the store that it was trained on, or None.
        evaluations: in the order of their label and protocol.
        reconstruction: or None.
        broken: a line for every file that could not be read.
    """

    name: str
    path: Path
    recipe: dict[str, Any]
    recipe_text: str
    summary: dict[str, Any]
    training: pd.DataFrame | None
    prepared: Image.Image | None
    evaluations: list[Evaluation]
    reconstruction: Reconstruction | None
    broken: list[str] = field(default_factory=list)


def read_run(path: str | os.PathLike[str], name: str) -> RunContents:
    """Read what a run folder holds.

    Raises:
        RunError: the folder is not a run.
    """
    run = RunFolder(path)
    broken: list[str] = []

    def attempt(file: Path, read: Callable[[Path], Value]) -> Value | None:
        """Read a file that need not be there; a damaged one is named, not fatal."""
        if not file.is_file():
            return None
        try:
            return read(file)
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, pa.ArrowException) as e:
            broken.append(f"{file.relative_to(run.path)} cannot be read: {one_line(e)}")
            return None

    text = attempt(run.recipe_file, lambda f: f.read_text(encoding="utf-8")) or ""
    recipe = attempt(run.recipe_file, lambda f: _mapping(yaml.safe_load(f.read_bytes())))
    training = attempt(run.metrics_file, _read_training)
    evaluations: dict[str, Evaluation] = {}
    for file in sorted(run.path.rglob("metrics.json")):
        metrics = attempt(file, lambda f: _mapping(json.loads(f.read_bytes())))
        if not metrics or "protocol" not in metrics:
            continue
        if not _complete(metrics):
            broken.append(f"{file.relative_to(run.path)} lacks parts of an evaluation")
            continue
        predictions = attempt(file.with_name("predictions.parquet"), pd.read_parquet)
        points = attempt(file.with_name("map.csv"), _read_points)
        # A run may hold the same evaluation twice, as its own copy and where it was asked for.
        key = json.dumps(metrics, sort_keys=True)
        evaluations.setdefault(key, Evaluation(metrics, predictions, points))
    return RunContents(
        name=name,
        path=Path(path),
        recipe=recipe or {},
        recipe_text=text,
        summary=attempt(run.summary_file, lambda f: _mapping(json.loads(f.read_bytes()))) or {},
        training=training,
        prepared=attempt(run.pictures, _read_picture),
        evaluations=sorted(evaluations.values(), key=lambda e: e.title),
        reconstruction=_read_reconstruction(run, attempt),
        broken=broken,
    )


def unique_names(paths: list[Path]) -> list[str]:
    """A short name for each folder: its own, with as many parents as it takes to tell them apart.

    >>> unique_names([Path("a/run"), Path("b/run"), Path("c")])
    ['a/run', 'b/run', 'c']
    """
    parts = [path.resolve().parts if not path.name else path.parts for path in paths]
    names = [p[-1] for p in parts]
    depth = 1
    while len(set(names)) < len(names) and depth < max(len(p) for p in parts):
        depth += 1
        names = [
            "/".join(p[-depth:]) if names.count(n) > 1 else n
            for p, n in zip(parts, names, strict=True)
        ]
    return names


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"a mapping is expected, found {type(value).__name__}")
    return value


def _complete(metrics: dict[str, Any]) -> bool:
    needed = ("label", "folds", "mean", "std")
    controls = metrics.get("controls") or {}
    return all(k in metrics for k in needed) and all(
        k in part for part in controls.values() for k in needed[1:]
    )


def _read_training(file: Path) -> pd.DataFrame:
    table = pd.read_csv(file)
    if "epoch" not in table:
        raise ValueError("no column epoch")
    numbers = table.apply(pd.to_numeric, errors="coerce")
    return numbers.dropna(subset=["epoch"])


def _read_picture(file: Path) -> Image.Image:
    try:
        with Image.open(file, formats=["PNG"]) as picture:
            return picture.convert("RGB")
    except (SyntaxError, Image.DecompressionBombError) as error:  # how Pillow calls damages
        raise ValueError(one_line(error)) from None


def _read_points(file: Path) -> pd.DataFrame:
    table = pd.read_csv(file, dtype={"subject": str, "label": str}, keep_default_na=False)
    return table[["subject", "label", "x", "y"]].astype({"x": float, "y": float})


def _read_reconstruction(run: RunFolder, attempt: Callable[..., Any]) -> Reconstruction | None:
    folder = run.reconstruction
    if not folder.is_dir():
        return None
    metrics = attempt(
        folder / "metrics.csv",
        lambda f: pd.read_csv(f, dtype={"subject": str})[["subject", "psnr", "ssim"]],
    )
    # Files are named after the subject, but not every key can be a file's name.
    named = {} if metrics is None else {file_stem(s): s for s in metrics["subject"]}
    volumes = {named.get(f.stem, f.stem): f for f in sorted(folder.glob("*.npz"))}
    pictures = {named.get(f.stem, f.stem): f for f in sorted(folder.glob("*.png"))}
    panels = {subject: f for subject, f in pictures.items() if subject not in volumes}
    if metrics is None and not volumes and not panels:
        return None
    return Reconstruction(metrics, volumes, panels)
