"""The results: evaluations of one question in one table, each with its controls and folds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitaepp.evaluation.measures import leading_metric, measures_of
from vitaepp.evaluation.summary import (
    Row,
    all_doubts,
    design_text,
    persons_text,
    rows_over_draws,
    verdict,
)
from vitaepp.presentation.charts import strip
from vitaepp.presentation.drawing import Drawing
from vitaepp.presentation.names import metric_name, metric_title
from vitaepp.reporting.contents import Evaluation, RunContents
from vitaepp.reporting.sections.header import SERIES

_Named = tuple[str, Evaluation]


@dataclass(frozen=True)
class Result:
    """A line of the table: one set of features of one run.

    Attributes:
        run: which run, and where its evaluation lies, as far as that tells it from others.
        row: its metrics.
        cells: the metrics as text.
        best: whether its mean is the highest of the table.
        strip: its folds.
    """

    run: str
    row: Row
    cells: list[str]
    best: bool
    strip: Drawing


def comparisons(runs: Sequence[RunContents], others: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Evaluations of one label, protocol, positive class, folds and sites in one table each.

    Args:
        runs: whose evaluations are shown.
        others: evaluations that belong to none of them.
    """
    named: list[_Named] = []
    for run in runs:
        for evaluation in run.evaluations:
            name = [run.name] if len(runs) > 1 else []
            if len(run.evaluations) > 1:
                name.append(run.location_of(evaluation))
            named.append((" · ".join(name), evaluation))
    named += [(str(other.folder), other) for other in others]
    grouped: dict[Any, list[_Named]] = {}
    for name_, evaluation in named:
        facts = ("positive", "seed", "n", "sizes", "group", "harmonized")
        alike = [str(evaluation.metrics.get(fact)) for fact in facts]
        folds = len(evaluation.metrics["folds"])
        key = (evaluation.title, *alike, folds, _draws(evaluation.metrics))
        grouped.setdefault(key, []).append((name_, evaluation))
    doubts = [doubt for run in runs for _, s in run.extras for doubt in s.doubts.items()]
    return [_comparison(key[0], members, doubts) for key, members in grouped.items()]


def _comparison(
    title: str, members: Sequence[_Named], doubts: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    first = members[0][1].metrics
    metric = leading_metric(first)
    measures = measures_of(first)
    rows = [
        (name, row) for name, evaluation in members for row in rows_over_draws(evaluation.metrics)
    ]
    chance = _chance(members[0][1], metric)
    values = [float(v) for _, row in rows for f in row.folds if (v := f[metric]) is not None]
    values += [] if chance is None else [chance]
    shares = metric in measures.unit_interval
    low = _tenth_below(min(values)) if shares else min(values, default=0.0)
    high = 1.0 if shares else max(values, default=1.0)
    means = [mean for _, row in rows if (mean := row.mean[metric]) is not None]
    best = max(means, key=lambda mean: measures.gain(metric, mean, 0.0), default=None)
    results = [
        Result(
            run=name,
            row=row,
            cells=[row.text(m) for m in measures.names],
            best=mean == best,
            strip=strip(
                [value for fold in row.folds if (value := fold[metric]) is not None],
                mean,
                row.std[metric],
                low=low,
                high=high,
                chance=chance,
                series=SERIES[row.key],
            ),
        )
        for name, row in rows
        if (mean := row.mean[metric]) is not None
    ]
    return {
        "title": title,
        "metric": metric_name(metric),
        "columns": [metric_title(m) for m in measures.names],
        "column": measures.names.index(metric),
        "folds": len(first["folds"]),
        "draws": _draws(first),
        "results": results,
        "verdicts": [(name, verdict(evaluation.metrics)) for name, evaluation in members],
        "doubts": [
            *all_doubts(evaluation.metrics for _, evaluation in members),
            *(doubt for label, doubt in doubts if label == str(first["label"])),
        ],
        "setting": _setting(first),
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "chance": None if chance is None else f"{chance:.2f}",
        "uncontrolled": any(not evaluation.metrics.get("controls") for _, evaluation in members),
    }


def _draws(metrics: Mapping[str, Any]) -> int:
    """How often the folds were drawn."""
    return (metrics.get("repeats") or {"number": 1})["number"]


def _tenth_below(value: float) -> float:
    """The next tenth below, so that the strips of one table begin at one round number.

    >>> _tenth_below(0.47), _tenth_below(0.0)
    (0.4, 0.0)
    """
    return max(0.0, math.floor(value * 10 - 1e-9) / 10)


def _chance(evaluation: Evaluation, metric: str) -> float | None:
    """What guessing reaches: an AUC of 0.5, or the share of the largest class among the tested."""
    if metric in ("auc", "c_index"):
        return 0.5
    if metric != "accuracy":
        return None
    tested = evaluation.predictions
    if tested is None or "label" not in tested:
        return None
    return float(tested["label"].value_counts(normalize=True).max())


def _setting(metrics: Mapping[str, Any]) -> str:
    """How it was measured, in one line."""
    parts = []
    if isinstance(metrics.get("n"), int):
        parts.append(persons_text(metrics))
    parts += design_text(metrics)
    folds, sizes = len(metrics["folds"]), metrics.get("sizes") or []
    if folds > 1 or metrics["protocol"] == "svm":
        spread = ", mean ± sample standard deviation over them"
        drawn = f", drawn {draws} times" if (draws := _draws(metrics)) > 1 else ""
        parts.append(f"{folds} outer folds{drawn}{spread}" if folds > 1 else "1 outer fold")
    elif sizes:
        parts.append(f"trained on {sizes[0]['train']:,}, tested on {sizes[0]['test']:,}")
    if metrics.get("positive") is not None:
        parts.append(f"positive class: {metrics['positive']}")
    left_out = metrics.get("left_out")
    if isinstance(left_out, dict) and left_out.get("unlabelled"):
        parts.append(f"{left_out['unlabelled']:,} without a label left out")
    return "; ".join(parts)
