"""What a run folder holds for its report: what is missing is None, what is broken is named.

Evaluations and reconstructions are found wherever they lie in the run. They say which weights they
are of (`runfolder.weights_id`); those of others than the run's are named, and not shown as its own.
"""

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

from vitaepp.data.runfolder import RunFolder, weights_id
from vitaepp.errors import RunError, one_line
from vitaepp.system.files import file_stem
from vitaepp.system.paths import instead_of

Value = TypeVar("Value")


@dataclass(frozen=True)
class Result:
    """What was measured of an encoder.

    Attributes:
        folder: where it lies, inside the run or as it was given.
        weights: of which it is, a list where each fold has its own; None where it does not say.
    """

    folder: Path
    weights: str | list[Any] | None


@dataclass(frozen=True)
class Evaluation(Result):
    """The content of a metrics.json and of the tables beside it."""

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
class Reconstruction(Result):
    """Files of a reconstruction: metrics per subject, and what there is to look at.

    Attributes:
        metrics: `subject`, `psnr` in dB, `ssim`.
        volumes: `.npz` files by subject, with `original`, `masked` and `reconstruction`.
        panels: `.png` files by subject, of those without an `.npz`.
    """

    metrics: pd.DataFrame
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
        evaluations: in the order of their label, protocol and folder.
        reconstructions: in the order of their folders.
        broken: a line for everything that is not shown.
        weights: what tells its weights from others; None before the first checkpoint.
    """

    name: str
    path: Path
    recipe: dict[str, Any]
    recipe_text: str
    summary: dict[str, Any]
    training: pd.DataFrame | None
    prepared: Image.Image | None
    evaluations: list[Evaluation]
    reconstructions: list[Reconstruction]
    broken: list[str] = field(default_factory=list)
    weights: str | None = None

    def owns(self, result: Result) -> bool:
        """Whether a result is of the weights that this run has now."""
        return self.weights is not None and result.weights == self.weights


def read_run(path: str | os.PathLike[str], name: str) -> RunContents:
    """Read what a run folder holds.

    Raises:
        RunError: the folder is not a run.
    """
    run = RunFolder(path)
    files = _Files(run.path)
    text = files.attempt(run.recipe_file, lambda f: f.read_text(encoding="utf-8")) or ""
    recipe = files.attempt(run.recipe_file, lambda f: _mapping(yaml.safe_load(f.read_bytes())))
    evaluations: dict[str, Evaluation] = {}
    for folder in files.folders("metrics.json"):
        if evaluation := _read_evaluation(files, folder):
            # What lies there twice, because it was copied, is shown once.
            evaluations.setdefault(json.dumps(evaluation.metrics, sort_keys=True), evaluation)
    reconstructions = [
        found
        for folder in files.folders("reconstruction.json", "metrics.csv")
        if folder != run.path and (found := _read_reconstruction(files, folder))
    ]
    weights = weights_id(run.path)
    contents = RunContents(
        name=name,
        path=run.path,
        recipe=recipe or {},
        recipe_text=text,
        summary=files.attempt(run.summary_file, _read_mapping) or {},
        training=files.attempt(run.metrics_file, _read_training),
        prepared=files.attempt(run.pictures, _read_picture),
        evaluations=[],
        reconstructions=[],
        broken=files.broken,
        weights=weights,
    )
    contents.evaluations.extend(sorted(filter(contents.owns, evaluations.values()), key=_order))
    contents.reconstructions.extend(filter(contents.owns, reconstructions))
    for result in (*evaluations.values(), *reconstructions):
        if not contents.owns(result):
            files.say(result.folder, f"is not shown: {whose(result)}; make it again")
    return contents


def whose(result: Result) -> str:
    """Of which weights a result is that is not of a run's own, in words."""
    if result.weights is None:
        return "it does not say of which encoder it is"
    if isinstance(result.weights, list):
        return f"it is of {len(result.weights)} encoders, one a fold"
    return "it is of another encoder than this run has now"


def read_evaluation(path: str | os.PathLike[str]) -> Evaluation:
    """Read an evaluation that the user named.

    Raises:
        RunError: there is none, or a part of it cannot be read.
    """
    return _read_named(path, _read_evaluation, "metrics.json", "evaluation")


def read_reconstruction(path: str | os.PathLike[str]) -> Reconstruction:
    """Read a reconstruction that the user named.

    Raises:
        RunError: there is none, or a part of it cannot be read.
    """
    return _read_named(path, _read_reconstruction, "metrics.csv", "reconstruction")


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


class _Files:
    """Reads files of a folder; a damaged one is named, not fatal.

    Attributes:
        broken: a line for every file that could not be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.broken: list[str] = []

    def attempt(self, file: Path, read: Callable[[Path], Value]) -> Value | None:
        """Read a file that need not be there."""
        if not file.is_file():
            return None
        try:
            return read(file)
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, pa.ArrowException) as e:
            self.say(file, f"cannot be read: {one_line(e)}")
            return None

    def say(self, file: Path, what: str) -> None:
        """Name a file that is not shown."""
        self.broken.append(f"{file.relative_to(self.root)} {what}")

    def folders(self, *names: str) -> list[Path]:
        """The folders with such a file; hidden ones are what killed commands left."""
        files = [file for name in names for file in self.root.rglob(name)]
        return sorted(
            {
                file.parent
                for file in files
                if not any(part.startswith(".") for part in file.relative_to(self.root).parts)
            }
        )


def _read_named(
    path: str | os.PathLike[str],
    read: Callable[[_Files, Path], Value | None],
    name: str,
    kind: str,
) -> Value:
    folder = Path(path).parent if Path(path).name == name else Path(path)
    files = _Files(folder)
    found = read(files, folder) if folder.is_dir() else None
    if files.broken:
        raise RunError(f"{folder}: {files.broken[0]}")
    if found is None:
        raise RunError(f"{path}: {instead_of(kind, path)}")
    return found


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"a mapping is expected, found {type(value).__name__}")
    return value


def _read_mapping(file: Path) -> dict[str, Any]:
    return _mapping(json.loads(file.read_bytes()))


def _read_evaluation(files: _Files, folder: Path) -> Evaluation | None:
    file = folder / "metrics.json"
    metrics = files.attempt(file, _read_mapping)
    if not metrics or "protocol" not in metrics:
        return None
    if not _complete(metrics):
        files.say(file, "lacks parts of an evaluation")
        return None
    predictions = files.attempt(folder / "predictions.parquet", pd.read_parquet)
    points = files.attempt(folder / "map.csv", _read_points)
    provenance = metrics.get("provenance")
    weights = provenance.get("encoder") if isinstance(provenance, dict) else None
    return Evaluation(folder, weights, metrics, predictions, points)


def _order(evaluation: Evaluation) -> tuple[str, Path]:
    return evaluation.title, evaluation.folder


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


def _read_reconstruction(files: _Files, folder: Path) -> Reconstruction | None:
    facts = files.attempt(folder / "reconstruction.json", _read_mapping)
    table = folder / "metrics.csv"
    metrics = files.attempt(
        table, lambda f: pd.read_csv(f, dtype={"subject": str}, keep_default_na=False)
    )
    if metrics is None or not {"subject", "psnr", "ssim"} <= set(metrics):
        if facts and not table.is_file():
            files.say(folder, "holds a reconstruction that did not end; run it again")
        return None  # or a table of something else
    for name in ("psnr", "ssim"):
        metrics[name] = pd.to_numeric(metrics[name], errors="coerce")
    # Only what the table names: another reconstruction may have left its files here before.
    stems = {subject: folder / file_stem(subject) for subject in metrics["subject"]}
    volumes, pictures = (
        {s: f for s, stem in stems.items() if (f := stem.with_name(stem.name + suffix)).is_file()}
        for suffix in (".npz", ".png")
    )
    panels = {subject: file for subject, file in pictures.items() if subject not in volumes}
    return Reconstruction(folder, (facts or {}).get("encoder"), metrics, volumes, panels)
