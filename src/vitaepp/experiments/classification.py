"""Experiments on frozen features: a linear classifier, compared over the same folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vitaepp.errors import RecipeError
from vitaepp.evaluation.budget import DRAWS, checked_budget, few_labels
from vitaepp.evaluation.difference import Difference, difference_between
from vitaepp.evaluation.folds import by_subject, plan_folds, share_out
from vitaepp.evaluation.measures import TASKS, leading_metric, spread
from vitaepp.evaluation.result import METHOD, Evaluation
from vitaepp.evaluation.summary import persons_text
from vitaepp.evaluation.tasks import read_target
from vitaepp.experiments.catalogue import Variant
from vitaepp.experiments.kind import Folders, Kind, Measured
from vitaepp.experiments.results import Cell, Row, Versus, ends
from vitaepp.nn.backbones import BACKBONES
from vitaepp.presentation.charts import Figure, Line, line_chart, side_by_side
from vitaepp.presentation.drawing import Drawing, Style
from vitaepp.presentation.names import metric_title

#: Controls as a variant is compared with them.
_CONTROLS = {"untrained": "its untrained encoder", "raw": "raw intensities"}

_CLASSIFIERS = {
    "svm": "linear SVM, nested cross-validation, {} folds",
    "linear": "linear probe on the given training and test split",
    "knn": "nearest neighbours",
}


class Classification(Kind):
    """Each variant against its reference and its controls, by the tests of `difference_between`."""

    what = "a classifier on all subjects"
    takes = ("label", "protocol", "pretrain_per_fold", "budget")

    def check(self) -> None:
        """Refuse a missing label, and one that does not allow the folds of every seed."""
        super().check()
        setup = self.setup
        if not setup.label:
            columns = ", ".join(setup.store.label_columns) or "none"
            raise RecipeError(
                f"experiment {self.experiment.key} needs `label=COLUMN`; {setup.store.path} has "
                f"{columns}"
            )
        labelled = setup.store.table[["subject", "split", *setup.store.label_columns]]
        for seed in range(setup.seeds):
            plan_folds(labelled, setup.label, setup.protocol, seed=seed)
        if setup.budget:
            ordered = by_subject(labelled)
            target = read_target(ordered, setup.label, "classification")
            shared = share_out(target, ordered, protocol=setup.protocol)
            checked_budget(setup.budget, target, shared.folds)

    def run(self, variant: Variant, seed: int) -> Path:
        """Train, embed and evaluate a variant."""
        return self.setup.evaluated(variant, seed)

    def measured(self, folders: Folders) -> Measured:
        """Scores of variants and controls, with their differences."""
        evaluations = {
            key: [Evaluation.load(path) for path in paths] for key, paths in folders.items()
        }
        names = TASKS["classification"].names
        if not evaluations:
            return Measured(self.experiment.metrics or names, [], facts=self._facts({}))
        facts = next(iter(evaluations.values()))[0].metrics
        lead = leading_metric(facts)
        metrics = self.experiment.metrics or (lead, *(m for m in names if m != lead))
        metrics = (*metrics, *(f"{metrics[0]}@{labels}" for labels in self.setup.budget))
        rows: list[Row] = []
        controls: dict[str, Row] = {}
        for variant in self.done(folders):
            own = evaluations[variant.key]
            reference = evaluations.get(variant.against)
            versus = {}
            if reference is not None:
                difference = difference_between(own, reference, metric=metrics[0])
                versus[metrics[0]] = _versus(difference, self.names[variant.against])
            rows.append(
                Row(
                    variant.key,
                    self.names[variant.key],
                    _cells(own, METHOD, metrics),
                    versus,
                    self._against_controls(variant, own, metrics, controls),
                    variant.at,
                )
            )
        # Raw intensities last, below what has a network.
        ordered = sorted(controls.values(), key=lambda row: row.key == "raw")
        figure = _sweep(rows, metrics) if any(row.at is not None for row in rows) else None
        return Measured(metrics, [*rows, *ordered], figure=figure, facts=self._facts(facts))

    def _against_controls(
        self,
        variant: Variant,
        own: Sequence[Evaluation],
        metrics: Sequence[str],
        controls: dict[str, Row],
    ) -> dict[str, Versus]:
        """The differences of a variant from its controls; rows of new controls are added."""
        differences = {}
        backbone = self.setup.recipe_of(variant, 0).model.backbone
        for control, name in _CONTROLS.items():
            if not all(control in evaluation.metrics["controls"] for evaluation in own):
                continue
            difference = difference_between(own, own, metric=metrics[0], reference_key=control)
            differences[name] = _versus(difference, name)
            # Shipped variants of one backbone begin with the same weights.
            untrained = control == "untrained"
            key = f"untrained-{backbone}" if untrained else control
            title = f"untrained {BACKBONES[backbone]}" if untrained else name
            row = Row(key, title, _cells(own, control, metrics), control=True)
            if controls.setdefault(key, row).cells != row.cells:
                # A sweep may compare models of several sizes, each with an untrained encoder.
                key = f"{key}-{variant.key}"
                title = f"{title} of {self.names[variant.key]}"
                controls[key] = replace(row, key=key, name=title)
        return differences

    def _facts(self, metrics: Mapping[str, Any]) -> dict[str, str]:
        facts = {}
        if metrics:
            classifier = _CLASSIFIERS[str(metrics["protocol"])]
            facts["label"] = f"{self.setup.label}, {persons_text(metrics)}"
            if metrics.get("positive") is not None:
                facts["positive class"] = str(metrics["positive"])
            facts["evaluated by"] = classifier.format(len(metrics["folds"]))
            facts["±"] = "sample standard deviation over folds and seeds"
            if self.setup.budget:
                facts["±"] += f"; with few labels over seeds, each the mean of {DRAWS} draws"
        facts["protocol"] = (
            "strict: pre-trained anew for each fold, without its test subjects"
            if self.setup.per_fold
            else "the paper's: pre-trained once, without labels, on the subjects above"
        )
        return facts


def _cells(evaluations: Sequence[Evaluation], key: str, metrics: Sequence[str]) -> dict[str, Cell]:
    """Mean and spread over all folds of all seeds; with few labels, of the means of each seed."""
    mean, std = spread([fold for evaluation in evaluations for fold in evaluation.folds(key)])
    cells = {}
    for metric in metrics:
        name, _, labels = metric.partition("@")
        if labels:
            values = [few_labels(e)[int(labels)][key][name] for e in evaluations]
            cells[metric] = Cell.of([float("nan" if v is None else v) for v in values])
        else:
            cells[metric] = Cell(mean[metric], std[metric])
    return cells


def _versus(difference: Difference, against: str) -> Versus:
    d = difference
    why = "" if d.p is not None and d.interval is not None else d.reason or ""
    return Versus(d.metric, against, d.mean, *ends(d.interval), d.p, d.test or "", why)


def _sweep(rows: Sequence[Row], metrics: Sequence[str]) -> Drawing | None:
    """Each metric over the masking ratio, with its standard deviation (Figure 2, left)."""
    shown = [(row.at, row.cells) for row in rows if row.at is not None]
    shown.sort(key=lambda one: one[0])
    ratios = [at for at, _ in shown]
    lines, legend = [], []
    for number, metric in enumerate(metrics):
        cells = [cells[metric] for _, cells in shown]
        style = Style("line", number)
        mean = np.array([cell.mean for cell in cells])
        std = np.array([cell.std or 0.0 for cell in cells])
        lines.append(Line(np.array(ratios), mean, style, std))
        legend.append((style, metric_title(metric)))
    says = f"{' and '.join(name for _, name in legend)} over the masking ratio"
    chart = line_chart(lines, says=says, x_name="masking ratio p", x_ticks=ratios)
    return None if chart is None else side_by_side([Figure("", "", chart, legend)])
