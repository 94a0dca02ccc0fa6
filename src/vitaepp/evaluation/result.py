"""Evaluation: what classifiers measured, as an object with its files.

DIR/
  metrics.json          the contract: protocol, label, n, classes, folds, mean, std, controls
  predictions.parquet   a row per tested subject: fold, label, decision scores of all; a number for
                        its person, where a person has several
  map.csv               the embedding in two dimensions: subject, label, x, y
  external.parquet      a row per subject of another cohort, if one was tested
  budget.csv            a row per training on few labels, if asked for
  repeats.csv           a row per draw of the folds, set of features and fold, if several were
  repeats.parquet       predictions of the further draws, and the seed of each
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Floats, Indices
from vitaepp.errors import EvaluationError, EvaluationNotFoundError, nearest, one_line
from vitaepp.evaluation.measures import TASKS, Measures, measures_of, spread, task_of
from vitaepp.evaluation.origin import warn_of_other
from vitaepp.evaluation.summary import (
    headline,
    summary_cells,
    summary_notes,
    summary_rows,
    summary_table,
)
from vitaepp.presentation.tables import html
from vitaepp.system.files import atomic_path, write_json
from vitaepp.system.paths import instead_of
from vitaepp.system.progress import warn
from vitaepp.system.results import ResultFiles

#: Name of the embedding itself, beside those of its controls, in predictions.parquet.
METHOD = "method"

#: Column of predictions.parquet with a number for the person of each subject, if some have several.
PERSON = "person"

#: Columns of predictions.parquet that are no scores.
_TRUE = ("subject", "fold", "label", "time", "event", PERSON)

_REQUIRED = ("protocol", "label", "n", "classes", "folds", "mean", "std", "sizes", "seed")

#: Columns of what is true of each subject and was said of it; features of an embedding are none.
_TOLD = (
    "subject",
    "label",
    "(label:.*|time|event)?",
    f"{METHOD}(:.*)?",
    "((untrained|raw|mean|scratch)(:.*)?)?",
)

#: Further columns of a table with scores.
_METRICS = r"(\w+)?"

#: What `evaluate` writes. A report takes a folder for complete when it finds metrics.json.
FILES = ResultFiles(
    "evaluate",
    {
        "metrics.json": ("label", "folds", "mean", "std"),
        "predictions.parquet": (*_TOLD, "fold", f"({PERSON})?"),
        "repeats.parquet": (*_TOLD, "fold", f"({PERSON})?", "seed"),
    },
    last=("metrics.json",),
    beside={
        "map.csv": ("subject", "label", "x", "y"),
        "external.parquet": _TOLD,
        "budget.csv": ("labels", "draw", "fold", "features", _METRICS),
        "repeats.csv": ("seed", "fold", "features", "name", _METRICS),
    },
)


@dataclass(frozen=True, eq=False, repr=False)
class Metrics(Mapping[str, Any]):
    """A mapping of what metrics.json holds: `evaluation["mean"]["auc"]`.

    `mean` is of the first draw of the folds. Where there are several, `repeats` has the means over
    all, which are printed.

    Attributes:
        metrics: the content of metrics.json.
    """

    metrics: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.metrics[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Metrics):
    """What simple models measured of an embedding and of its controls.

    Attributes:
        metrics: the content of metrics.json.
        predictions: a row per tested subject: `subject`, `fold`, `label` and decision scores; None
            where they were not kept.
        points: the embedding in two dimensions: `subject`, `label`, `x`, `y`; None where it was
            read from a file, as nothing is measured on it.
        path: of the metrics.json that it was read from or saved to; None for one in memory.
        external: a row per subject of the external cohort, if one was tested.
        budget: a row per training on few labels, if asked for.
        repeats: a row per draw of the folds, set of features and fold, if there were several.
        further: as `predictions`, of the further draws, with their `seed`.
    """

    predictions: pd.DataFrame | None = None
    points: pd.DataFrame | None = None
    path: Path | None = None
    external: pd.DataFrame | None = None
    budget: pd.DataFrame | None = None
    repeats: pd.DataFrame | None = None
    further: pd.DataFrame | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Evaluation:
        """Read a metrics.json, or the one in a folder, and the predictions beside it.

        A warning says where the run has another encoder now, or other embeddings.

        Raises:
            EvaluationError: missing, damaged, not of `vitaepp evaluate`, or with predictions
                that belong to another evaluation.
        """
        path = Path(path)
        file = path / "metrics.json" if path.suffix != ".json" and not path.is_file() else path
        if not file.is_file():
            folder = file.parent if file.name == "metrics.json" else file
            raise EvaluationNotFoundError(f"{path}: {instead_of('evaluation', folder)}")
        try:
            metrics = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise EvaluationError(
                f"{file}: damaged, not JSON ({one_line(error)}); name the metrics.json of an "
                "evaluation or its folder, or evaluate again"
            ) from None
        if problem := _problem(metrics):
            raise EvaluationError(
                f"{file}: not a metrics.json that this version can read: {problem}"
            )
        predictions = _read_predictions(file.with_name("predictions.parquet"))
        evaluation = cls(metrics, predictions, path=file)
        evaluation._require_own_predictions()
        if isinstance(metrics.get("repeats"), Mapping):
            evaluation = evaluation._with_draws(file.parent)
        provenance = metrics.get("provenance")
        model = metrics.get("classifier") or metrics["protocol"]
        if isinstance(provenance, Mapping):
            warn_of_other(file, provenance)
            if provenance.get("method") == "raw" and "reduced" not in metrics:
                warn(
                    f"{file}: an earlier version measured raw intensities here without PCA, unlike "
                    "where they are the control; evaluate again"
                )
            elif "scaled" not in metrics and model not in ("knn", "finetune"):
                warn(
                    f"{file}: an earlier version measured this, with features that hardly vary "
                    "magnified, and a control of raw intensities that was too weak; evaluate again"
                )
        return evaluation

    def save(self, folder: str | os.PathLike[str]) -> Evaluation:
        """Write metrics.json and the tables into a folder.

        Returns:
            The same evaluation, which knows its path now.
        """
        folder = Path(folder)
        tables = {
            "predictions.parquet": self.predictions,
            "map.csv": self.points,
            "external.parquet": self.external,
            "budget.csv": self.budget,
            "repeats.csv": self.repeats,
            "repeats.parquet": self.further,
        }
        with FILES.written(folder) as staged:
            for name, table in tables.items():
                if table is None:
                    continue
                with atomic_path(staged / name) as temporary:
                    if name.endswith(".csv"):
                        table.to_csv(temporary, index=False)
                    else:
                        table.to_parquet(temporary, index=False)
            write_json(staged / "metrics.json", self.metrics)
        return replace(self, path=folder / "metrics.json")

    def __repr__(self) -> str:
        return f"Evaluation({headline(self)})"

    def __str__(self) -> str:
        return summary_table(self)

    def _repr_html_(self) -> str:
        return html(summary_cells(self), *summary_notes(self))

    def to_frame(self) -> pd.DataFrame:
        """The scores of each fold, of the embedding and of each control.

        Returns:
            One row a set of features and fold: `features` (`method`, `untrained` or `raw`), its
            `name` in print, `fold`, then the metrics, each in [0, 1].
        """
        return pd.DataFrame(
            [
                {"features": row.key, "name": row.name, "fold": k, **scores}
                for row in summary_rows(self)
                for k, scores in enumerate(row.folds)
            ]
        )

    @property
    def draws(self) -> list[Evaluation]:
        """An evaluation for each draw of the folds, this one first.

        It is the only one where there was one draw, or where an earlier version did not keep the
        predictions of the others.
        """
        if self.repeats is None or self.further is None:
            return [self]
        names, every = measures_of(self.metrics).names, [self]
        for seed in self.metrics["repeats"]["seeds"][1:]:
            scores = self.repeats[self.repeats["seed"] == seed]
            folds = {
                str(key): [dict(zip(names, row, strict=True)) for row in rows[[*names]].to_numpy()]
                for key, rows in scores.groupby("features")
            }
            own = self.further[self.further["seed"] == seed]
            predictions = own.drop(columns="seed").reset_index(drop=True)
            every.append(self.redrawn(seed, folds, predictions))
        return every

    def redrawn(
        self, seed: int, folds: Mapping[str, Sequence[dict[str, float]]], predictions: pd.DataFrame
    ) -> Evaluation:
        """The same question in other folds of the same subjects.

        Args:
            seed: that drew them.
            folds: the scores of each, of `method` and of each control.
            predictions: in these folds.
        """
        whole = sum(self.metrics["sizes"][0].values())
        tested = [int((predictions["fold"] == k).sum()) for k in range(len(folds[METHOD]))]
        parts: dict[str, Any] = {}
        for key in self.measured:
            mean, std = spread(folds[key])
            parts[key] = {"folds": list(folds[key]), "mean": mean, "std": std}
        metrics = self.metrics | parts.pop(METHOD) | {"controls": parts, "seed": seed}
        metrics["sizes"] = [{"train": whole - test, "test": test} for test in tested]
        return Evaluation(metrics, predictions, path=self.path)

    @property
    def source(self) -> str:
        """Where it comes from, for messages: its path, or what it is of."""
        return str(self.path or f"evaluation of {self.metrics['label']!r} in memory")

    @property
    def measured(self) -> list[str]:
        """`method` and the controls, as far as they were measured."""
        return [METHOD, *(self.metrics.get("controls") or {})]

    def folds(self, key: str) -> list[dict[str, float]]:
        """The scores of each fold, of the method or of a control.

        Raises:
            EvaluationError: there is no such control.
        """
        if key not in self.measured:
            raise EvaluationError(f"{self.source}: has no {key!r}; {nearest(key, self.measured)}")
        part = self.metrics if key == METHOD else self.metrics["controls"][key]
        return list(part["folds"])

    def rows(self) -> pd.DataFrame:
        """Who was tested and what is true of them, in an order that does not depend on a file.

        Returns:
            `subject`, `fold`, `label`; of several labels `label:NAME`, of survival `time` and
            `event`; `person`, a number, where some have several subjects.

        Raises:
            EvaluationError: there are no predictions.
        """
        table = self._sorted()
        return table[[c for c in map(str, table) if c in _TRUE or c.startswith("label:")]]

    def codes(self) -> Indices:
        """The true class of each of `rows`, as an index into the classes."""
        code = {str(c): i for i, c in enumerate(self.metrics["classes"])}
        return np.array([code[label] for label in self._sorted()["label"]], np.intp)

    def persons(self) -> Indices | None:
        """A number for the person of each of `rows`; None where every subject is another person.

        Raises:
            EvaluationError: the predictions do not tell, as those of an earlier version.
        """
        table, facts = self._sorted(), self.metrics
        if PERSON in table:
            return table[PERSON].to_numpy(np.intp)
        # Those who are only trained on count among `persons`, too. Versions that keep doubts write
        # the column wherever it is needed.
        unknown = len(table) >= facts["n"] or "doubts" not in facts
        if facts.get("persons", facts["n"]) < facts["n"] and unknown:
            raise EvaluationError(
                f"{self.source}: its predictions do not tell which subjects are of one person; "
                "evaluate again"
            )
        return None

    def scores(self, key: str) -> Floats:
        """Decision scores of each of `rows`: `(row,)` for two classes, else `(row, class)`.

        Raises:
            EvaluationError: the predictions are missing, or lack this control.
        """
        table = self._sorted()
        columns = score_columns(key, self.metrics["classes"], self.task)
        if not set(columns) <= set(table.columns):
            raise EvaluationError(
                f"{self.source}: its predictions have no {columns[0]!r}; evaluate again"
            )
        scores = table[columns].to_numpy(np.float64)
        return scores[:, 0] if len(columns) == 1 else scores

    def _has(self, key: str) -> bool:
        """Whether the predictions have the scores of a set of features."""
        columns = score_columns(key, self.metrics["classes"], self.task)
        return self.predictions is not None and set(columns) <= set(self.predictions.columns)

    def _sorted(self) -> pd.DataFrame:
        if self.predictions is None:
            raise EvaluationError(f"{self.source}: has no predictions; evaluate again")
        return self.predictions.sort_values(["fold", "subject"], ignore_index=True)

    @property
    def task(self) -> str:
        """A name in `measures.TASKS`."""
        return task_of(self.metrics)

    def rescored(self, truth: pd.DataFrame, scores: Floats) -> dict[str, float]:
        """Metrics of some rows of the predictions, as far as these rows alone give them."""
        from vitaepp.evaluation.tasks import TARGETS

        return TARGETS[self.task].rescored(truth, scores, self.metrics["classes"])

    def weighted(
        self,
        metric: str,
        truth: pd.DataFrame,
        scores: Floats,
        weights: Floats,
    ) -> Floats:
        """A metric of some rows of the predictions, each there as often as its weight says.

        Args:
            metric: a name of the task's measures.
            truth: of `rows`.
            scores: of the same.
            weights: `(resample, row)`, counts.

        Returns:
            `(resample,)`; NaN where these rows alone do not give it.
        """
        from vitaepp.evaluation.tasks import TARGETS

        return TARGETS[self.task].weighted(metric, truth, scores, self.metrics["classes"], weights)

    def _with_draws(self, folder: Path) -> Evaluation:
        """With the scores and predictions of further draws, where these were kept."""
        further = _read_predictions(folder / "repeats.parquet")
        if further is None:
            return self
        try:
            repeats = pd.read_csv(folder / "repeats.csv", float_precision="round_trip")
            evaluation = replace(self, repeats=repeats, further=further)
            draws, means = evaluation.draws, {METHOD: self.metrics["repeats"]["mean"]}
            means |= {k: part["mean"] for k, part in self.metrics["repeats"]["controls"].items()}
        except (OSError, ValueError, KeyError) as error:
            raise EvaluationError(
                f"{folder / 'repeats.csv'}: missing or damaged ({one_line(error)}); evaluate again"
            ) from None
        for draw in draws[1:]:
            draw._require_own_predictions("repeats.parquet")
        for key, mean in means.items():
            if not _equal(spread([f for draw in draws for f in draw.folds(key)])[0], mean):
                raise EvaluationError(
                    f"{self.source}: repeats.csv beside it is of another evaluation; evaluate again"
                )
        return evaluation

    def _require_own_predictions(self, file: str = "predictions.parquet") -> None:
        """Predictions that do not give the metrics beside them are of another evaluation."""
        if self.predictions is None:
            return
        same = set(self.predictions["fold"]) == set(range(len(self.folds(METHOD))))
        # What is the same for all, as the mean of the training part, may have no column.
        for key in [k for k in self.measured if same and (k == METHOD or self._has(k))]:
            table, scores = self._sorted(), self.scores(key)
            fold = table["fold"].to_numpy()
            for k, stated in enumerate(self.folds(key)):
                try:
                    measured = self.rescored(table[fold == k], scores[fold == k])
                except KeyError:  # other classes, or other columns
                    same = False
                    break
                same = same and _equal(measured, stated)
        if not same:
            raise EvaluationError(
                f"{self.source}: {file} beside it is of another evaluation; evaluate again"
            )


def score_columns(name: str, classes: Sequence[Any], task: str = "classification") -> list[str]:
    """Columns of predictions.parquet that hold the decision scores of one set of features.

    >>> score_columns("raw", ["high", "low"]), score_columns("raw", [1, 2, 3])
    (['raw'], ['raw:1', 'raw:2', 'raw:3'])
    >>> score_columns("raw", ["edema", "mass"], "multilabel"), score_columns("raw", [])
    (['raw:edema', 'raw:mass'], ['raw'])
    """
    one = not classes or (len(classes) == 2 and task != "multilabel")
    return [name] if one else [f"{name}:{c}" for c in classes]


def _problem(metrics: Any) -> str | None:
    """What keeps a JSON value from being an evaluation's metrics; None where nothing does."""
    if not isinstance(metrics, dict):
        return "it holds no object"
    missing = [name for name in _REQUIRED if name not in metrics]
    if missing:
        return f"it has no {missing[0]!r}"
    controls = metrics.get("controls") or {}
    if not isinstance(controls, dict):
        return "its controls are no object"
    if task_of(metrics) not in TASKS:
        return f"its task {task_of(metrics)!r} is not known"
    measures = measures_of(metrics)
    count = 0
    for name, part in {METHOD: metrics, **controls}.items():
        folds = part.get("folds") if isinstance(part, dict) else None
        if not isinstance(folds, list) or not folds:
            return f"the folds of {name!r} are not whole"
        each = {f"fold {k} of {name!r}": fold for k, fold in enumerate(folds)}
        each[f"the mean of {name!r}"] = part.get("mean")
        for where, scores in each.items():
            if problem := _wrong_scores(scores, where, measures):
                return problem
        if not set(measures.names) <= set(part.get("std") or ()):
            return f"the std of {name!r} is not whole"
        count = count or len(folds)
        if len(folds) != count:
            return f"{name!r} has {len(folds)} folds, but the method {count}"
        if not _equal(spread(folds)[0], part["mean"]):
            return f"the mean of {name!r} is not that of its folds"
    sizes = metrics["sizes"]
    if not isinstance(sizes, list) or len(sizes) != count or not all(map(_is_size, sizes)):
        return "its sizes do not fit its folds"
    if not isinstance(metrics["classes"], list) or not isinstance(metrics["n"], int):
        return "its classes or subjects are not whole"
    return None


def _equal(measured: Mapping[str, float | None], stated: Mapping[str, float | None]) -> bool:
    """Whether metrics agree; of those that are undefined, whether both are."""
    for name in measured:
        values = [one.get(name) for one in (measured, stated)]
        value, other = (np.nan if v is None else v for v in values)
        if np.isfinite(value) != np.isfinite(other):
            return False
        if np.isfinite(value) and abs(value - other) > 1e-9 * max(1.0, abs(other)):
            return False
    return True


def _wrong_scores(scores: Any, where: str, measures: Measures) -> str | None:
    """What keeps a JSON value from being the scores of a fold, or their mean."""
    if not isinstance(scores, dict):
        return f"{where} is no object"
    for name in measures.names:
        if name not in scores:
            return f"it has no {name!r} in {where}: written by another version; evaluate again"
        value = scores[name]
        if value is not None and not isinstance(value, int | float):
            return f"{name} of {where} is {value!r}, no number"
        if value is not None and name in measures.unit_interval and not 0 <= value <= 1:
            return f"{name} of {where} is {value:g}, outside 0 to 1"
    return None


def _is_size(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(k), int) and value[k] > 0 for k in ("train", "test")
    )


def _read_predictions(path: Path) -> pd.DataFrame | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    try:
        table = pq.read_table(path).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise EvaluationError(f"{path}: damaged ({one_line(error)}); evaluate again") from None
    lacking = {"subject", "fold", "label"} - set(table.columns)
    if lacking:
        raise EvaluationError(f"{path}: has no column {min(lacking)!r}; evaluate again")
    label = table["label"]
    label = label if pd.api.types.is_float_dtype(label) else label.astype(str)
    return table.assign(subject=table["subject"].astype(str), label=label)
