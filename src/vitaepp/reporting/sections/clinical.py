"""What a clinic asks of a classifier: its probabilities, and what acting on them gains.

An evaluation that has `clinical` in its metrics is shown with it; others have no such part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vitaepp.data.arrays import Floats
from vitaepp.presentation import numbers
from vitaepp.presentation.charts import Figure, Line, line_chart, unit_chart
from vitaepp.presentation.drawing import Style
from vitaepp.presentation.names import GOALS
from vitaepp.reporting.contents import Evaluation

#: Net benefits below this are not drawn: acting on everybody costs without bound.
LEAST_BENEFIT = -0.1

_VALUES = {
    "auc": "AUC",
    "average_precision": "Average precision",
    "balanced_accuracy": "Balanced accuracy",
    "brier": "Brier score",
}


def clinical(result: Evaluation) -> dict[str, Any] | None:
    """Values with intervals, calibration and decision curve; None where there are none."""
    report = result.metrics.get("clinical")
    if not isinstance(report, Mapping) or result.task != "classification":
        return None
    label = str(result.metrics["label"])
    figures = [f for f in (_calibration(report, label), _benefit(report, label)) if f]
    values = list(_values(report))
    return {"values": values, "figures": figures} if values or figures else None


def _values(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, name in _VALUES.items():
        if shown := text(report.get(key)):
            yield name, shown
    calibration = report.get("calibration") or {}
    for key in ("slope", "intercept"):
        if shown := text(calibration.get(key)):
            yield f"Calibration {key}", shown
    for goal, point in (report.get("operating") or {}).items():
        for side in ("sensitivity", "specificity"):
            if shown := text(point.get(side)):
                yield f"{side.capitalize()}, threshold for {GOALS.get(goal, goal)}", shown


def text(value: Any) -> str:
    """A value with its interval; empty where there is none."""
    if not isinstance(value, Mapping) or value.get("value") is None:
        return ""
    number = f"{value['value']:.3f}"
    if value.get("low") is None or value.get("high") is None:
        return number
    return f"{number} {numbers.interval(value['low'], value['high'])}"


def _calibration(report: Mapping[str, Any], label: str) -> Figure | None:
    classes = (report.get("calibration") or {}).get("classes") or {}
    lines, legend = [], []
    table: list[tuple[object, ...]] = [("class", "predicted", "observed", "low", "high", "n")]
    for i, (name, of_class) in enumerate(classes.items()):
        curve = of_class["curve"]
        keys = ("predicted", "observed", "n")
        predicted, observed, n = (np.asarray(curve[k], np.float64) for k in keys)
        low, high = _intervals(observed, n)
        spread = np.stack([observed - low, high - observed])
        lines.append(Line(predicted, observed, Style("line", i), spread))
        legend.append((Style("line", i), f"{label} = {name}"))
        columns = [name] * len(n), predicted, observed, low, high, curve["n"]
        table += zip(*columns, strict=True)
    if not lines:
        return None
    drawing = unit_chart(
        lines,
        says="Calibration: share of positive subjects over predicted probability",
        x_name="predicted probability",
        y_name="share that is positive",
    )
    note = "groups of equal size, with 95 % intervals; on the diagonal is right"
    return Figure("Calibration", note, drawing, legend, table)


def _intervals(share: Floats, n: Floats) -> Floats:
    """The 95 % intervals (Wilson's) of shares of n subjects, `(low or high, group)`."""
    from scipy.stats import binomtest

    counts = zip(np.rint(share * n).astype(int), n.astype(int), strict=True)
    each = [binomtest(k, m).proportion_ci(0.95, method="wilson") for k, m in counts]
    return np.array(each, np.float64).reshape(-1, 2).T


def _benefit(report: Mapping[str, Any], label: str) -> Figure | None:
    curve = report.get("decision_curve") or {}
    if not curve.get("classes"):
        return None
    threshold = np.asarray(curve["threshold"], np.float64)
    lines, legend = [Line(threshold, np.zeros_like(threshold), Style("chance"))], []
    table: list[list[object]] = [["threshold", *threshold.tolist()]]
    for i, (name, of_class) in enumerate(curve["classes"].items()):
        for kind, key in (("line", "model"), ("dashed", "all")):
            benefit = np.asarray(of_class[key], np.float64)
            how = "act by the classifier" if key == "model" else "act on everybody"
            title = f"{label} = {name}: {how}"
            shown = np.where(benefit >= LEAST_BENEFIT, benefit, np.nan)
            lines.append(Line(threshold, shown, Style(kind, i)))
            legend.append((Style(kind, i), title))
            table.append([title, *benefit.tolist()])
    drawing = line_chart(
        lines,
        says="Net benefit over the threshold of acting",
        x_name="threshold probability",
        y_name="net benefit",
    )
    if drawing is None:
        return None
    note = "true positives a subject, less the false ones by their weight; dotted: act on nobody"
    return Figure("Decision curve", note, drawing, legend, list(zip(*table, strict=True)))
