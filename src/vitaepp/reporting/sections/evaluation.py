"""The pictures of an evaluation: its ROC curve and the map of its embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.evaluation.result import score_columns
from vitaepp.evaluation.scores import mean_roc
from vitaepp.evaluation.summary import candidates_text, summary_rows
from vitaepp.presentation.charts import Figure, Line, roc_chart, scatter
from vitaepp.presentation.drawing import Style
from vitaepp.reporting.contents import Evaluation
from vitaepp.reporting.sections.clinical import clinical
from vitaepp.reporting.sections.header import SERIES
from vitaepp.reporting.sections.outcome import few_labels, outcome, outside, repeated


def evaluation(result: Evaluation, folder: str) -> dict[str, Any]:
    """What the page shows of an evaluation that lies at `folder`."""
    classes = [str(c) for c in result.metrics.get("classes") or []]
    drawn = _map(result, classes)
    lacks = ["The curves need predictions.parquet."] if result.predictions is None else []
    if drawn is None and not result.fine_tuned:  # which changes the embedding in every fold
        lacks.append("The map needs map.csv.")
    return {
        "title": f"{result.title} · {folder}",
        "whose": result.whose,
        "roc": _roc(result, classes),
        "map": drawn,
        "clinical": clinical(result),
        "outcome": outcome(result),
        "outside": outside(result),
        "repeated": repeated(result),
        "few_labels": few_labels(result),
        # What is not repeated with each draw.
        "of_first": ", in the first draw of the folds" if result.metrics.get("repeats") else "",
        "chosen": _chosen(result),
        "candidates": candidates_text(result.metrics),
        "lacks": " ".join(lacks),
    }


def _chosen(result: Evaluation) -> str:
    """What each fold chose on its held-out parts; empty for several labels."""
    chosen = result.metrics.get("C") or []
    return ", ".join(f"{c:.3g}" for c in chosen if isinstance(c, int | float))


def _roc(result: Evaluation, classes: Sequence[str]) -> Figure | None:
    predictions = result.predictions
    if result.task != "classification":
        return None
    if predictions is None or len(classes) < 2 or not {"fold", "label"} <= set(predictions):
        return None
    folds: list[Line] = []
    means: list[Line] = []
    legend: list[tuple[Style, str]] = []
    columns_of: dict[str, Any] = {}
    for row in summary_rows(result.metrics):
        columns = score_columns(row.key, list(classes))
        if not set(columns) <= set(predictions):
            continue
        grid, curves = mean_roc(predictions, columns, classes)
        if not curves:
            continue
        if row.key == "method" and len(curves) > 1:
            folds = [Line(grid, curve, Style("thin", SERIES[row.key])) for curve in curves]
        style = Style("line", SERIES[row.key])
        means.append(Line(grid, np.mean(curves, axis=0), style))
        columns_of |= {"1 - specificity": grid, row.name: np.asarray(means[-1].y, np.float64)}
        legend.append((style, f"{row.name}, AUC {row.text('auc')}"))
    if not means:
        return None
    drawing = roc_chart([*folds, *reversed(means)], says=f"ROC of {result.title}")
    note = "mean of the folds; thin lines are the folds" if folds else "on the test split"
    if result.metrics.get("repeats"):
        note += ", of the first draw"
    if len(classes) > 2:
        note += "; one class against the rest, averaged"
    table = [list(columns_of), *np.column_stack(list(columns_of.values())).tolist()]
    return Figure("ROC", note, drawing, legend, table)


def _map_labels(
    result: Evaluation, labels: pd.Series[Any], classes: Sequence[str]
) -> tuple[pd.Series[Any], list[str]]:
    """What points of the map are coloured by: classes, thirds of values, or events."""
    if result.task == "survival":
        shown = labels.astype(str).str.split().str[0].map({"event": "event", "none": "no event"})
        return shown, ["event", "no event"]
    if result.task == "regression":
        values = labels.astype(float)
        low, high = values.quantile([1 / 3, 2 / 3])
        names = [f"up to {low:.4g}", f"{low:.4g} to {high:.4g}", f"above {high:.4g}"]
        third = (values > low).astype(int) + (values > high).astype(int)
        return third.map(dict(enumerate(names))), names
    shown = labels.astype(str)
    return shown, list(classes) if set(shown) <= set(classes) else sorted(set(shown))


def _map(result: Evaluation, classes: Sequence[str]) -> Figure | None:
    points = result.points
    if points is None or points.empty:
        return None
    labels, names = _map_labels(result, points["label"], classes)
    number = {name: i for i, name in enumerate(names)}
    drawing = scatter(
        points["x"].to_numpy(),
        points["y"].to_numpy(),
        [number.get(label, len(names)) for label in labels],
        [f"{subject} · {label}" for subject, label in zip(points["subject"], labels, strict=True)],
        says=f"Map of the embedding by {result.title}",
    )
    if drawing is None:
        return None
    note = str(result.metrics.get("map") or "two dimensions")
    legend = [(Style("dot", i), name) for name, i in number.items()]
    columns = ["subject", "label", "x", "y"]
    table = [columns, *points[columns].to_numpy().tolist()]
    return Figure("Map of the embedding", note, drawing, legend, table)
