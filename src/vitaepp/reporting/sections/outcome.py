"""What an evaluation says beyond its table: intervals, survival, another cohort, few labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vitaepp.evaluation.measures import leading_metric, measures_of
from vitaepp.evaluation.summary import labels_text, rows_over_draws, summary_rows
from vitaepp.presentation import numbers
from vitaepp.presentation.charts import Figure, Line, line_chart
from vitaepp.presentation.drawing import Style
from vitaepp.presentation.names import GOALS, metric_name, metric_title
from vitaepp.reporting.contents import Evaluation
from vitaepp.reporting.sections.clinical import text
from vitaepp.reporting.sections.header import SERIES

_Values = list[tuple[str, str]]


def outcome(result: Evaluation) -> dict[str, Any] | None:
    """Intervals of metrics, of each label, or of survival with its curves; None of classes."""
    report = result.metrics.get("clinical")
    if not isinstance(report, Mapping):
        return None
    if result.task == "multilabel":
        return {"values": labels_text(result.metrics), "figures": []}
    if result.task in ("regression", "ordinal"):
        mean = result.metrics["mean"]
        values = [
            (metric_title(m), _with_interval(m, mean[m], ends))
            for m, ends in report.items()
            if ends and mean.get(m) is not None
        ]
        return {"values": values, "figures": []}
    if result.task == "survival":
        figure = _survival(report["halves"])
        values = list(_of_survival(report, folds=len(result.metrics["folds"])))
        return {"values": values, "figures": [figure] if figure else []}
    return None


def _with_interval(metric: str, value: float, ends: Mapping[str, float]) -> str:
    digits = numbers.digits_of(metric, value)
    return f"{value:.{digits}f} {numbers.interval(ends['low'], ends['high'], digits)}"


def _of_survival(report: Mapping[str, Any], folds: int) -> Iterator[tuple[str, str]]:
    concordance, halves = report["concordance"], report["halves"]
    if concordance.get("low") is not None:
        interval = numbers.interval(concordance["low"], concordance["high"])
        yield "Harrell's concordance", f"{concordance['value']:.3f} {interval}"
    over_time = report.get("over_time") or {"auc": [], "brier": {"value": None}}
    for one in over_time["auc"]:
        if one["auc"] is not None:
            area = numbers.with_spread(one["auc"], one["std"])
            share = f"{one['quantile']:.0%} of the training part's events had come by then"
            yield f"AUC at time {one['time']:.4g}", f"{area}; {share}"
    brier = over_time["brier"]
    if brier["value"] is not None:
        yield (
            "Integrated Brier score",
            f"{numbers.with_spread(brier['value'], brier['std'])}; "
            f"{brier['reference']:.3f} by the training part's Kaplan-Meier curve for everybody",
        )
    if halves.get("logrank"):
        p = numbers.p_value(halves["logrank"]["p"], "p")
        guide = "; over folds a guide, and no test" if folds > 1 else ""
        yield "Log-rank test of the halves", f"{p}{guide}"


def _survival(halves: Mapping[str, Any]) -> Figure | None:
    lines, legend = [], []
    table: list[list[object]] = []
    for i, name in enumerate(("low", "high")):
        curve = halves.get(name)
        if not curve:
            continue
        # A curve of steps: each value holds until the next time.
        time = np.repeat(np.asarray(curve["time"], float), 2)[1:]
        survival = np.repeat(np.asarray(curve["survival"], float), 2)[:-1]
        lines.append(Line(time, survival, Style("line", i)))
        legend.append((Style("line", i), f"{name} risk, {curve['n']} subjects"))
        table += [[f"time, {name} risk", *curve["time"]], [f"survival, {name}", *curve["survival"]]]
    drawing = (
        line_chart(
            lines,
            says="Kaplan-Meier curves of subjects at low and at high risk",
            x_name="time",
            y_name="share without an event",
        )
        if lines
        else None
    )
    if drawing is None:
        return None
    note = "of test subjects, above and below the median risk of their training part"
    return Figure("Survival", note, drawing, legend, table)


def outside(result: Evaluation) -> _Values | None:
    """Each metric inside and in another cohort; None where none was tested."""
    cohort = result.metrics.get("external")
    if not isinstance(cohort, Mapping):
        return None
    names = {row.key: row.name for row in summary_rows(result.metrics)}
    parts = {"method": cohort["mean"]} | {k: c["mean"] for k, c in cohort["controls"].items()}
    metric = leading_metric(result.metrics)
    inside = {row.key: row.text(metric) for row in rows_over_draws(result.metrics)}
    title = metric_name(metric)
    values = [
        (
            str(names.get(key, key)),
            f"{title} {inside[key]} inside, {_value(metric, mean[metric])} outside",
        )
        for key, mean in parts.items()
    ]
    for goal, point in ((cohort.get("clinical") or {}).get("operating") or {}).items():
        sides = [f"{side} {text(point[side])}" for side in ("sensitivity", "specificity")]
        values.append((f"Outside, threshold for {GOALS[goal]}", f"{', '.join(sides)}"))
    return [("Cohort", f"{cohort['name']}, {cohort['n']:,} subjects"), *values]


def _value(metric: str, value: float | None) -> str:
    return numbers.with_spread(value, None, numbers.digits_of(metric, value))


def repeated(result: Evaluation) -> _Values | None:
    """The leading metric over several draws of the folds; None where there was one."""
    draws = result.metrics.get("repeats")
    if not isinstance(draws, Mapping):
        return None
    metric, names = draws["metric"], {row.key: row.name for row in summary_rows(result.metrics)}
    values = [("Draws of the folds", f"{draws['number']}")]
    for key, part in ({"method": draws} | draws["controls"]).items():
        digits = numbers.digits_of(metric, part["mean"][metric])
        text = numbers.with_spread(part["mean"][metric], part["std"][metric], digits)
        lead = part.get("difference") or {"mean": None}
        if lead["mean"] is not None:
            text += f"; the lead over it is {numbers.difference(lead['mean'], digits)}"
            if (ends := lead["interval"]) is not None:
                text += f" {numbers.interval(ends['low'], ends['high'], digits)}"
            text += f", {numbers.p_value(lead['p'], 'p')}" if lead["p"] is not None else ""
        values.append((str(names.get(key, key)), f"{metric_name(metric)} {text}"))
    return values


def few_labels(result: Evaluation) -> Figure | None:
    """The leading metric over the number of labels; None where that was not measured."""
    rows = result.metrics.get("budget")
    if not rows:
        return None
    metric = leading_metric(result.metrics)
    measures = measures_of(result.metrics)
    lines, legend = [], []
    table: list[list[object]] = [["features", "labels", "mean", "low", "high"]]
    for row in summary_rows(result.metrics):
        own = [r for r in rows if r["features"] == row.key and r["mean"][metric] is not None]
        if not own:
            continue
        style = Style("line", SERIES[row.key])
        labels, mean, low, high = (
            np.array([r["labels"] if k == "labels" else r[k][metric] for r in own], float)
            for k in ("labels", "mean", "low", "high")
        )
        lines.append(Line(labels, mean, style, np.stack([mean - low, high - mean])))
        legend.append((style, row.name))
        table += [
            [row.name, r["labels"], r["mean"][metric], r["low"][metric], r["high"][metric]]
            for r in own
        ]
    drawing = (
        line_chart(
            lines,
            says=f"{metric_title(metric)} over the number of labelled subjects",
            x_name="labelled subjects",
            y_name=metric_title(metric),
        )
        if lines
        else None
    )
    if drawing is None:
        return None
    note = f"mean {metric_name(metric)} over draws and folds; bars: 95 of 100 trainings"
    note += ", in the first draw of the folds" if result.metrics.get("repeats") else ""
    note += ", lower is better" if metric in measures.lower_is_better else ""
    return Figure("Few labels", note, drawing, legend, table)
