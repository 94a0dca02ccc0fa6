"""What is measured of each kind of prediction, and which of it is compared first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitaepp.errors import EvaluationError, nearest


@dataclass(frozen=True)
class Measures:
    """The metrics of a task.

    Attributes:
        names: in the order of tables and of metrics.json.
        leading: the one that is compared first.
        lower_is_better: those that are errors.
        unit_interval: those that lie between 0 and 1.
    """

    names: tuple[str, ...]
    leading: str
    lower_is_better: frozenset[str] = frozenset()
    unit_interval: frozenset[str] = frozenset()

    def gain(self, metric: str, value: float, other: float) -> float:
        """How much better `value` is than `other`, above zero where it is better."""
        return other - value if metric in self.lower_is_better else value - other


_OF_CLASSES = Measures(
    ("auc", "sensitivity", "specificity", "accuracy"),
    "auc",
    unit_interval=frozenset({"auc", "sensitivity", "specificity", "accuracy"}),
)

#: By the name of the task: what is taken in every fold and compared, each with a bootstrap. What is
#: only reported is in the `clinical` part of metrics.json.
TASKS = {
    "classification": _OF_CLASSES,
    "multilabel": _OF_CLASSES,
    "ordinal": Measures(
        ("kappa", "mae", "spearman", "auc", "accuracy"),
        "kappa",
        frozenset({"mae"}),
        frozenset({"auc", "accuracy"}),
    ),
    "regression": Measures(
        ("mae", "rmse", "r2", "pearson", "spearman"), "mae", frozenset({"mae", "rmse"})
    ),
    "survival": Measures(
        ("c_index", "c_uno", "auc"), "c_index", unit_interval=frozenset({"c_index", "c_uno", "auc"})
    ),
}


def known_task(task: str) -> str:
    """The name of a task.

    Raises:
        EvaluationError: there is no such task.
    """
    if task not in TASKS:
        raise EvaluationError(f"no task {task!r}; {nearest(task, TASKS)}")
    return task


def task_of(metrics: Mapping[str, Any]) -> str:
    """The task of a metrics.json; of an older version's, classification."""
    return str(metrics.get("task") or "classification")


def measures_of(metrics: Mapping[str, Any]) -> Measures:
    """What was measured, from the content of a metrics.json."""
    return TASKS[known_task(task_of(metrics))]


def leading_metric(metrics: Mapping[str, Any]) -> str:
    """What is compared first: of several classes on a test split accuracy, as in the paper."""
    several = len(metrics.get("classes") or ()) > 2
    if task_of(metrics) == "classification" and metrics["protocol"] == "linear" and several:
        return "accuracy"
    return measures_of(metrics).leading


def spread(
    folds: Sequence[Mapping[str, float | None]],
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Mean and standard deviation over folds, per metric.

    The deviation is the sample's (divided by folds - 1). Of a single fold there is none; it is None
    rather than a zero that would claim certainty. A metric that no fold defines has mean None.
    """
    mean: dict[str, float | None] = {}
    std: dict[str, float | None] = {}
    for name in folds[0]:
        given = (fold[name] for fold in folds)
        values = [v for v in given if v is not None and np.isfinite(v)]
        mean[name] = float(np.mean(values)) if values else None
        std[name] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return mean, std
