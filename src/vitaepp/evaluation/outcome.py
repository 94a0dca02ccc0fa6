"""A finished evaluation, read back from its folder and checked."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.errors import EvaluationError, nearest, one_line
from vitaepp.evaluation.evaluation import METHOD, Metrics, score_columns
from vitaepp.evaluation.scores import METRICS, fold_scores
from vitaepp.system.files import to_json
from vitaepp.system.paths import instead_of

_REQUIRED = ("protocol", "label", "n", "classes", "folds", "mean", "std", "sizes", "seed")


@dataclass(frozen=True)
class Outcome:
    """One finished evaluation, as `vitaepp evaluate` left it.

    Attributes:
        path: its metrics.json.
        metrics: what that holds.
        predictions: the table of predictions.parquet beside it; None where there is none.
    """

    path: Path
    metrics: dict[str, Any]
    predictions: pd.DataFrame | None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Outcome:
        """Read a metrics.json, or the one in a folder, and the predictions beside it.

        Raises:
            EvaluationError: missing, damaged, not of `vitaepp evaluate`, or with predictions
                that belong to another evaluation.
        """
        path = Path(path)
        file = path / "metrics.json" if path.suffix != ".json" and not path.is_file() else path
        if not file.is_file():
            folder = file.parent if file.name == "metrics.json" else file
            raise EvaluationError(f"{path}: {instead_of('evaluation', folder)}")
        path = file
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise EvaluationError(
                f"{path}: damaged, not JSON ({one_line(error)}); name the metrics.json of an "
                "evaluation or its folder, or evaluate again"
            ) from None
        lacking = _lacking(metrics)
        if lacking:
            raise EvaluationError(f"{path}: not a metrics.json of vitaepp evaluate: {lacking}")
        outcome = cls(path, metrics, _read_predictions(path.with_name("predictions.parquet")))
        outcome._require_own_predictions()
        return outcome

    @classmethod
    def of(cls, metrics: Metrics) -> Outcome:
        """What `evaluate` returned, as if it were read back."""
        return cls(metrics.path, json.loads(to_json(metrics)), metrics.predictions)

    @property
    def keys(self) -> list[str]:
        """`method` and the controls that were measured."""
        return [METHOD, *(self.metrics.get("controls") or {})]

    def folds(self, key: str) -> list[dict[str, float]]:
        """The scores of each fold, of the method or of a control.

        Raises:
            EvaluationError: there is no such control.
        """
        if key not in self.keys:
            raise EvaluationError(f"{self.path}: has no {key!r}; {nearest(key, self.keys)}")
        part = self.metrics if key == METHOD else self.metrics["controls"][key]
        return list(part["folds"])

    def rows(self) -> pd.DataFrame:
        """Subject, fold and label of every prediction, in an order that does not depend on a file.

        Raises:
            EvaluationError: there are no predictions.
        """
        return self._sorted()[["subject", "fold", "label"]]

    def codes(self) -> npt.NDArray[np.intp]:
        """The true class of each of `rows`, as an index into the classes."""
        code = {str(c): i for i, c in enumerate(self.metrics["classes"])}
        return np.array([code[label] for label in self._sorted()["label"]], np.intp)

    def scores(self, key: str) -> npt.NDArray[np.float64]:
        """Decision scores of each of `rows`: `(row,)` for two classes, else `(row, class)`.

        Raises:
            EvaluationError: the predictions are missing, or lack this control.
        """
        table = self._sorted()
        columns = score_columns(key, self.metrics["classes"])
        if not set(columns) <= set(table.columns):
            raise EvaluationError(
                f"{self.path.with_name('predictions.parquet')}: has no {columns[0]!r}; evaluate "
                "again"
            )
        scores = table[columns].to_numpy(np.float64)
        return scores[:, 0] if len(columns) == 1 else scores

    def _sorted(self) -> pd.DataFrame:
        if self.predictions is None:
            raise EvaluationError(f"{self.path}: no predictions.parquet beside it; evaluate again")
        return self.predictions.sort_values(["fold", "subject"], ignore_index=True)

    def _require_own_predictions(self) -> None:
        """Predictions that do not give the metrics beside them are of another evaluation."""
        if self.predictions is None:
            return
        known = {str(c) for c in self.metrics["classes"]}
        folds = self.folds(METHOD)
        same = set(self.predictions["label"]) <= known
        same = same and set(self.predictions["fold"]) == set(range(len(folds)))
        if same:
            fold, codes, scores = self.rows()["fold"].to_numpy(), self.codes(), self.scores(METHOD)
            for k, stated in enumerate(folds):
                found = fold_scores(codes[fold == k], scores[fold == k])
                same = same and all(abs(found[m] - stated[m]) < 1e-9 for m in METRICS)
        if not same:
            raise EvaluationError(
                f"{self.path}: predictions.parquet beside it is of another evaluation; evaluate "
                "again"
            )


def _lacking(metrics: Any) -> str | None:
    """What keeps a JSON value from being an evaluation's metrics; None where nothing does."""
    if not isinstance(metrics, dict):
        return "it holds no object"
    missing = [name for name in _REQUIRED if name not in metrics]
    if missing:
        return f"it has no {missing[0]!r}"
    controls = metrics.get("controls") or {}
    if not isinstance(controls, dict):
        return "its controls are no object"
    count = 0
    for name, part in {METHOD: metrics, **controls}.items():
        folds = part.get("folds") if isinstance(part, dict) else None
        if not isinstance(folds, list) or not folds or not all(map(_is_scores, folds)):
            return f"the folds of {name!r} are not whole"
        if not _is_scores(part.get("mean")) or not set(METRICS) <= set(part.get("std") or ()):
            return f"the mean or std of {name!r} is not whole"
        count = count or len(folds)
        if len(folds) != count:
            return f"{name!r} has {len(folds)} folds, but the method {count}"
    sizes = metrics["sizes"]
    if not isinstance(sizes, list) or len(sizes) != count or not all(map(_is_size, sizes)):
        return "its sizes do not fit its folds"
    if not isinstance(metrics["classes"], list) or not isinstance(metrics["n"], int):
        return "its classes or subjects are not whole"
    return None


def _is_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(m), int | float) and 0 <= value[m] <= 1 for m in METRICS
    )


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
    return table.assign(subject=table["subject"].astype(str), label=table["label"].astype(str))
