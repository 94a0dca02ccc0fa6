"""How good a model is that saw few labels: subsets of each training part, drawn several times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Indices
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.folds import Fold
from vitaepp.evaluation.measures import TASKS
from vitaepp.evaluation.tasks.base import Target
from vitaepp.system.progress import track

#: How often the subjects to label are drawn.
DRAWS = 5

#: What is trained on all subjects of a training part.
ALL = "all"

Budget = int | str


def parse_budget(text: str) -> list[Budget]:
    """Numbers of labels, and `all`, from a list with commas.

    Raises:
        EvaluationError: something else is in it.

    >>> parse_budget("10,50,all")
    [10, 50, 'all']
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [p for p in parts if p != ALL and not (p.isdecimal() and int(p) > 0)]
    if wrong or not parts:
        raise EvaluationError(
            f"budget {wrong[0] if wrong else text!r}: give numbers of labelled subjects and all, "
            "as 10,20,50,all"
        )
    return [p if p == ALL else int(p) for p in parts]


def nested_order(strata: Indices, persons: Persons, seed: Sequence[int]) -> Indices:
    """An order of training rows whose every beginning is a sample balanced over the classes.

    It begins with two rows of each class, of different persons, so that even the smallest sample
    can be split once more.

    Args:
        strata: `(row,)`, codes of the classes.
        persons: `(row,)`.
        seed: of the draw.
    """
    shuffled = np.random.default_rng(seed).permutation(len(strata))
    # The k-th of n members of a class comes when a share k / n of all is drawn.
    due = np.empty(len(strata))
    first = np.zeros(len(strata), bool)
    for code in np.unique(strata):
        members = shuffled[strata[shuffled] == code]
        due[members] = (np.arange(len(members)) + 0.5) / len(members)
        first[members[np.sort(np.unique(persons[members], return_index=True)[1])[:2]]] = True
    return np.lexsort((due, ~first)).astype(np.intp)


def checked_budget(budget: Sequence[Budget], target: Target, parts: Sequence[Fold]) -> list[int]:
    """The numbers of a budget, each once, in rising order.

    Raises:
        EvaluationError: more labels than a training part has, or fewer than a model needs.
    """
    most = min(len(part.train) for part in parts)
    classes = len(np.unique(target.strata))
    sizes = sorted({size for size in budget if isinstance(size, int)})
    for number in sizes:
        if number > most:
            raise EvaluationError(
                f"budget {number}: a training part has {most} labelled subjects; ask for fewer, or "
                f"for {ALL}"
            )
        if number < max(4, 2 * classes):
            raise EvaluationError(
                f"budget {number}: a model needs {max(4, 2 * classes)} labelled subjects, two of "
                f"each {target.stratum} at least; ask for more"
            )
    return sizes


def measure_budget(
    budget: Sequence[Budget],
    target: Target,
    parts: Sequence[Fold],
    persons: Persons,
    sets: Sequence[str],
    seed: int,
    measure: Callable[[str, int, Indices, int], dict[str, float]],
) -> pd.DataFrame:
    """Scores of models that were fitted on so many subjects of each training part.

    Args:
        budget: numbers of subjects, and `all`.
        target: what is predicted.
        parts: the folds.
        persons: `(labelled,)`.
        sets: names of the features.
        seed: of the draws.
        measure: of a set, a fold, training rows and a seed: the metrics on the fold's test part.

    Returns:
        A row a budget, draw, fold and set of features: `labels` (a number), `all`, `draw`, `fold`,
        `features`, and the metrics.

    Raises:
        EvaluationError: more labels than a training part has, or fewer than a model needs.
    """
    sizes = checked_budget(budget, target, parts)
    wanted: list[Budget] = [*sizes, *([ALL] * (ALL in budget))]
    jobs = [
        (size, draw, k, name)
        for size in wanted
        for draw in range(1 if size == ALL else DRAWS)
        for k in range(len(parts))
        for name in sets
    ]
    rows = []
    for size, draw, k, name in track(jobs, "budget of labels", len(jobs), unit="classifiers"):
        train = parts[k].train
        if isinstance(size, int):
            order = nested_order(target.strata[train], persons[train], [seed + k, draw])
            train = np.sort(train[order[:size]])
        facts = {"labels": len(train), "all": size == ALL, "draw": draw, "fold": k}
        rows.append(facts | {"features": name} | measure(name, k, train, seed + k + 1000 * draw))
    return pd.DataFrame(rows)


def summarised(table: pd.DataFrame, task: str) -> list[dict[str, Any]]:
    """Mean and range of each budget and set of features, JSON throughout.

    Args:
        table: of `measure_budget`.
        task: whose metrics they are.

    Returns:
        A dictionary a budget and set: `labels` (mean over folds), `features`, `trainings`, `mean`,
        `low` and `high` (2.5th and 97.5th percentile over draws and folds), and for the controls
        `wins`, the share of trainings in which the embedding was better in the leading metric.
    """
    measures = TASKS[task]
    result = []
    table = table.assign(size=np.where(table["all"], np.inf, table["labels"]))
    for (_, name), part in table.groupby(["size", "features"], sort=False):
        values = part[[*measures.names]].astype(float)
        row: dict[str, Any] = {
            "labels": float(part["labels"].mean()),
            "all": bool(part["all"].iloc[0]),
            "features": name,
            "trainings": len(part),
            "mean": _plain(values.mean()),
            "low": _plain(values.quantile(0.025)),
            "high": _plain(values.quantile(0.975)),
        }
        if name != "method":
            own = table[(table["size"] == part["size"].iloc[0]) & (table["features"] == "method")]
            pairs = own.merge(part, on=["draw", "fold"], suffixes=("", ":other"))
            lead = measures.leading
            gain = [
                measures.gain(lead, a, b)
                for a, b in zip(pairs[lead], pairs[f"{lead}:other"], strict=True)
            ]
            row["wins"] = float(np.mean([(g > 0) + 0.5 * (g == 0) for g in gain]))
        result.append(row)
    return result


def few_labels(metrics: Mapping[str, Any]) -> dict[int, dict[str, dict[str, float | None]]]:
    """The mean metrics of each set of features at each number of labels below all.

    Args:
        metrics: content of a metrics.json; without a budget there are none.

    >>> row = {"labels": 20.0, "all": False, "features": "raw", "mean": {"auc": 0.7}}
    >>> few_labels({"budget": [row, row | {"labels": 90.0, "all": True}]})
    {20: {'raw': {'auc': 0.7}}}
    """
    found: dict[int, dict[str, dict[str, float | None]]] = {}
    for row in metrics.get("budget") or ():
        if not row["all"]:
            found.setdefault(round(row["labels"]), {})[row["features"]] = row["mean"]
    return found


def _plain(values: pd.Series) -> dict[str, float | None]:
    return {str(k): None if pd.isna(v) else float(v) for k, v in values.items()}
