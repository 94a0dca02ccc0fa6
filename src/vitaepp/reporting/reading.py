"""Reading a run folder for its report.

Evaluations and reconstructions are found wherever they lie in the run. Each says which weights made
it (`data/origin.py`); those of other weights than the run's are named, but not shown.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import yaml
from PIL import Image

from vitaepp.data.origin import other_encoder
from vitaepp.data.runfolder import RunFolder, weights_id
from vitaepp.errors import RunError, one_line
from vitaepp.evaluation.origin import rewritten
from vitaepp.reporting.contents import Evaluation, Explanation, Reconstruction, RunContents
from vitaepp.reporting.extras import FILES, Make, Section
from vitaepp.system.files import file_stem
from vitaepp.system.paths import instead_of, kind_of

Value = TypeVar("Value")


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
    # An evaluation that was copied within the run is shown once, and the one that `fit` keeps in a
    # model, without its predictions, only where it lies nowhere else.
    for folder in sorted(files.folders("metrics.json"), key=lambda f: kind_of(f) == "model"):
        if evaluation := _read_evaluation(files, folder):
            evaluations.setdefault(_measured(evaluation.metrics), evaluation)
    reconstructions = [
        reconstruction
        for folder in files.folders("reconstruction.json", "metrics.csv")
        if folder != run.path and (reconstruction := _read_reconstruction(files, folder))
    ]
    explanations = [
        explanation
        for folder in files.folders("explain.json")
        if (explanation := _read_explanation(files, folder))
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
        explanations=[],
        broken=files.broken,
        weights=weights,
        extras=_read_extras(files, weights),
    )
    owned = filter(contents.owns, evaluations.values())
    contents.evaluations.extend(sorted(owned, key=lambda e: (e.fine_tuned, e.title, e.folder)))
    contents.reconstructions.extend(filter(contents.owns, reconstructions))
    contents.explanations.extend(filter(contents.owns, explanations))
    for result in (*evaluations.values(), *reconstructions, *explanations):
        if not contents.owns(result):
            files.name_broken(result.folder, f"is not shown: {result.whose}; make it again")
        elif isinstance(result, Evaluation) and (
            why := rewritten(result.folder, result.provenance)
        ):
            files.name_broken(result.folder, f"is shown, although {why}; evaluate again")
    return contents


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
            self.name_broken(file, f"cannot be read: {one_line(e)}")
            return None

    def name_broken(self, file: Path, reason: str) -> None:
        """Add a line for a file that is not shown."""
        self.broken.append(f"{file.relative_to(self.root)} {reason}")

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
    path: str | os.PathLike[str], read: Callable[[_Files, Path], Value | None], name: str, kind: str
) -> Value:
    folder = Path(path).parent if Path(path).name == name else Path(path)
    files = _Files(folder)
    result = read(files, folder) if folder.is_dir() else None
    if files.broken:
        raise RunError(f"{folder}: {files.broken[0]}")
    if result is None:
        raise RunError(f"{path}: {instead_of(kind, path)}")
    return result


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
        files.name_broken(file, "lacks parts of an evaluation")
        return None
    predictions = files.attempt(folder / "predictions.parquet", pd.read_parquet)
    points = files.attempt(folder / "map.csv", _read_points)
    evaluation = Evaluation(folder, None, metrics, predictions, points)
    return replace(evaluation, weights=evaluation.provenance.get("encoder"))


def _measured(metrics: dict[str, Any]) -> str:
    """What tells an evaluation from others: not its folder, nor digits that rounding changes."""
    facts = {k: v for k, v in metrics.items() if k not in ("clinical", "controls", "provenance")}
    facts["controls"] = {k: c["folds"] for k, c in (metrics.get("controls") or {}).items()}
    provenance = metrics.get("provenance")
    if isinstance(provenance, dict):
        facts["provenance"] = {k: v for k, v in provenance.items() if k != "embeddings"}
    return json.dumps(facts, sort_keys=True)


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


def _read_extras(files: _Files, weights: str | None) -> list[tuple[str, Section]]:
    """Sections of other verbs; not those that say that they are of other weights."""
    sections = []
    for name, make in FILES.items():
        for folder in files.folders(name):
            file = folder / name
            content = files.attempt(file, lambda f: json.loads(f.read_bytes()))
            if content is None:
                continue
            facts = content[0] if isinstance(content, list) and content else content
            says = isinstance(facts, dict) and "encoder" in facts
            why = other_encoder(facts["encoder"] if says else None, weights)
            if says and why:
                files.name_broken(file, f"is not shown: {why}; make it again")
            elif section := files.attempt(file, partial(_made, make, content)):
                sections.append((folder.relative_to(files.root).as_posix(), section))
                if why:  # as of an earlier version
                    files.name_broken(file, f"is shown, although {why}; make it again")
    return sections


def _made(make: Make, content: Any, file: Path) -> Section:
    return make(content, file.parent)


def _read_picture(file: Path) -> Image.Image:
    try:
        with Image.open(file, formats=["PNG"]) as picture:
            return picture.convert("RGB")
    except (SyntaxError, Image.DecompressionBombError) as error:  # Pillow's for damaged files
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
            files.name_broken(folder, "holds a reconstruction that did not end; run it again")
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


def _read_explanation(files: _Files, folder: Path) -> Explanation | None:
    facts = files.attempt(folder / "explain.json", _read_mapping)
    if facts is None:
        return None
    needed = {"explained", "taken_away", "patch_maps", "maps", "subjects"}
    own = {"subject", "explained", "total", "sum", "baseline", "error", "maps"}
    if not needed <= set(facts) or not all(own <= set(subject) for subject in facts["subjects"]):
        files.name_broken(folder / "explain.json", "lacks parts of what explain writes")
        return None
    names = [str(subject["subject"]) for subject in facts["subjects"]]
    volumes = {name: folder / f"{file_stem(name)}.npz" for name in names}
    there = {name: file for name, file in volumes.items() if file.is_file()}
    return Explanation(folder, facts.get("encoder"), facts, there)
