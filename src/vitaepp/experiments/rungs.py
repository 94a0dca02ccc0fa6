"""The rungs of a ladder: what each reached, what it cost, and which one to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.evaluation.difference import Difference, difference_between
from vitaepp.evaluation.measures import leading_metric, measures_of
from vitaepp.evaluation.result import METHOD, Evaluation
from vitaepp.evaluation.statistics import holm
from vitaepp.evaluation.summary import (
    all_doubts,
    count_tested,
    count_text,
    subjects_text,
    with_ends,
)
from vitaepp.presentation import numbers, tables
from vitaepp.presentation.charts import Figure, Line, line_chart, side_by_side
from vitaepp.presentation.drawing import Style
from vitaepp.presentation.names import metric_name, metric_title
from vitaepp.system.files import write_json, write_text
from vitaepp.system.results import ResultFiles

#: A difference with a smaller corrected p is taken for real.
LEVEL = 0.05

#: What a ladder writes.
FILES = ResultFiles(
    "ladder",
    {
        "ladder.json": ("rungs", "metric"),
        "ladder.csv": (
            *("rung", "key", "name", r"\w+_(mean|std)", "minutes", "difference", "p", "p_holm"),
        ),
    },
    last=("ladder.json",),
    unsigned=("ladder.md", "ladder.png"),
)


@dataclass(frozen=True)
class Rung:
    """One way to answer the question, the simpler ones first.

    Attributes:
        key: one of `RUNGS` in `experiments/climber.py`.
        name: in print.
        evaluation: what was measured.
        features: `method`, or the control of `evaluation` that is meant.
        minutes: what it took on this machine by itself: its training, features and models.
    """

    key: str
    name: str
    evaluation: Evaluation
    features: str = METHOD
    minutes: float = 0.0

    @property
    def part(self) -> dict[str, Any]:
        """Its `folds`, `mean` and `std`."""
        metrics = self.evaluation.metrics
        return metrics if self.features == METHOD else metrics["controls"][self.features]

    @property
    def budget(self) -> list[dict[str, Any]]:
        """What it reached with few labels; empty where that was not measured."""
        rows = self.evaluation.metrics.get("budget") or []
        return [row for row in rows if row["features"] == self.features]

    def against(self, other: Rung, metric: str) -> Difference:
        """This rung minus another."""
        return difference_between(
            [self.evaluation],
            [other.evaluation],
            metric=metric,
            variant_key=self.features,
            reference_key=other.features,
        )


@dataclass(frozen=True, repr=False)
class Ladder:
    """All rungs of a cohort, from the bottom.

    Attributes:
        rungs: at least two.
        left_out: rungs that there are not, with the reason.
        facts: command, machine and so on.
    """

    rungs: tuple[Rung, ...]
    left_out: dict[str, str]
    facts: dict[str, Any]

    @property
    def metric(self) -> str:
        """What rungs are compared by."""
        return leading_metric(self.rungs[0].evaluation.metrics)

    @property
    def doubts(self) -> list[str]:
        """What is to be checked about the labels and subjects, each line once."""
        return all_doubts(rung.evaluation for rung in self.rungs)

    def steps(self) -> list[tuple[Difference | None, float | None]]:
        """Of each rung the difference to the one below, and its p corrected for all (Holm)."""
        differences = [r.against(below, self.metric) for below, r in pairwise(self.rungs)]
        tested = [i for i, d in enumerate(differences) if d.p is not None]
        corrected = dict(
            zip(tested, holm([float(differences[i].p or 0) for i in tested]), strict=True)
        )
        return [(None, None), *((d, corrected.get(i)) for i, d in enumerate(differences))]

    @property
    def taken(self) -> Rung:
        """The lowest rung that no higher one is shown to be better than."""
        for i, rung in enumerate(self.rungs[:-1]):
            higher = [r.against(rung, self.metric) for r in self.rungs[i + 1 :]]
            p = [float(d.p) for d in higher if d.p is not None]
            gains = [self._gain(d.mean) for d in higher if d.p is not None]
            if not any(q < LEVEL and gain > 0 for q, gain in zip(holm(p), gains, strict=True)):
                return rung
        return self.rungs[-1]

    @property
    def recommendation(self) -> str:
        """What to do, in plain words."""
        taken, best = self.taken, self._best()
        advice = {
            "prior": "No rung is shown to tell this label better than guessing does. Check the "
            "label, or collect more subjects, before you train anything.",
            "metadata": "No image model is shown to beat metadata alone. Run vitaepp audit before "
            "you believe one.",
            "raw": "Do not pre-train for this label: use raw intensities.",
            "simple": "Do not pre-train for this label: use simple intensity and shape features.",
            "gradients": "Do not pre-train for this label: use histograms of oriented gradients.",
            "untrained": "Training is not shown to help for this label: use the untrained encoder.",
            "public": "Do not pre-train for this label: use the public encoder as it is.",
            "vitae": f"Pre-training pays; {taken.name} is enough.",
            "vitae++": f"Pre-training pays: use {taken.name}, and a simple model on its features.",
            "scratch": "Train a network on the labels; pre-training is not shown to help it.",
            "finetuned": "Pre-train, and fine-tune the encoder.",
        }[taken.key]
        why = f" {metric_title(self.metric)} is {self._text(taken)} for {taken.name}"
        if best is taken:
            why += ", the best of all rungs."
        else:
            metrics = taken.evaluation.metrics
            subjects = subjects_text(int(metrics["n"]), count_tested(metrics))
            why += (
                f", and {self._text(best)} for {best.name}, but no higher rung is shown to be "
                f"better with {subjects} (p < {LEVEL}, corrected)."
            )
        return advice + why

    def __str__(self) -> str:
        return "\n".join([tables.aligned(self._cells()), "", *self._below()])

    def __repr__(self) -> str:
        return f"Ladder({', '.join(f'{r.key} {self._text(r)}' for r in self.rungs)})"

    def _repr_html_(self) -> str:
        return tables.html(self._cells(), *self._below())

    def _below(self) -> list[str]:
        return [self.recommendation, *(f"without {k}: {w}" for k, w in self.left_out.items())]

    def to_frame(self) -> pd.DataFrame:
        """A row a rung, unrounded."""
        return pd.DataFrame(
            [
                {
                    "rung": row["rung"],
                    "key": row["key"],
                    "name": row["name"],
                    **{f"{m}_mean": v for m, v in row["mean"].items()},
                    **{f"{m}_std": v for m, v in row["std"].items()},
                    "minutes": row["minutes"],
                    "difference": (row["difference"] or {}).get("mean"),
                    "p": (row["difference"] or {}).get("p"),
                    "p_holm": row["p_holm"],
                }
                for row in self.to_json()["rungs"]
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, unrounded."""
        names = measures_of(self.rungs[0].evaluation.metrics).names
        rungs = [
            {
                "rung": i,
                "key": rung.key,
                "name": rung.name,
                "mean": {m: rung.part["mean"][m] for m in names},
                "std": {m: rung.part["std"][m] for m in names},
                "folds": rung.part["folds"],
                "minutes": round(rung.minutes, 2),
                "difference": None if step is None else step.to_json(),
                "p_holm": p,
                "budget": rung.budget,
            }
            for i, (rung, (step, p)) in enumerate(zip(self.rungs, self.steps(), strict=True))
        ]
        return {
            **self.facts,
            "metric": self.metric,
            "rungs": rungs,
            "left_out": self.left_out,
            "doubts": self.doubts,
            "taken": self.taken.key,
            "recommendation": self.recommendation,
        }

    def save(self, out: Path) -> None:
        """Write ladder.md, .csv, .png and, last, .json."""
        facts = [f"- {name}: {_told(v)}" for name, v in self.facts.items() if v is not None]
        asked = [f"- to be checked: {doubt}" for doubt in self.doubts]
        missing = [f"- without {key}: {why}" for key, why in self.left_out.items()]
        lines = [tables.markdown(self._cells()), "", self.recommendation, ""]
        if few := self._few_labels():
            title = f"{metric_name(self.metric)} with few labels, and where 95 of 100 trainings lie"
            lines += [f"{title}:", "", tables.markdown(few), ""]
        lines += [*asked, *missing, *facts, ""]
        with FILES.written(out) as staged:
            write_text(staged / "ladder.md", "\n".join(lines))
            table = self.to_frame().to_csv(index=False, lineterminator="\n")
            write_text(staged / "ladder.csv", table)
            side_by_side(self.figures()).save(staged / "ladder.png")
            write_json(staged / "ladder.json", self.to_json())

    def figures(self) -> list[Figure]:
        """The rungs beside each other, and over the number of labels."""
        metric, title = self.metric, metric_title(self.metric)
        rungs = [r for r in self.rungs if r.part["mean"][metric] is not None]
        places = np.arange(len(rungs), dtype=float)
        means = np.array([r.part["mean"][metric] for r in rungs], float)
        deviations = np.array([r.part["std"][metric] or 0.0 for r in rungs], float)
        drawn = line_chart(
            [Line(places, means, Style("line", 0), deviations)],
            says=f"{title} of each rung: " + ", ".join(f"{r.name} {self._text(r)}" for r in rungs),
            x_name="rung, from the simplest",
            x_ticks=places.tolist(),
        )
        assert drawn is not None
        names = [(Style("line", 0), f"{i}  {r.name}") for i, r in enumerate(rungs)]
        figures = [Figure(f"{title} of each rung", "", drawn, names)]
        shown = [r for r in rungs if len(r.budget) > 1 and r.key != "prior"]
        curves = [
            Line(
                np.array([row["labels"] for row in r.budget]),
                np.array([row["mean"][metric] for row in r.budget], float),
                Style("line", i),
            )
            for i, r in enumerate(shown)
        ]
        chart = (
            line_chart(
                curves, says=f"{title} over the number of labels", x_name="labelled subjects"
            )
            if curves
            else None
        )
        if chart is not None:
            legend = [(Style("line", i), r.name) for i, r in enumerate(shown)]
            figures.append(Figure(f"{title} with few labels", "", chart, legend))
        return figures

    def _few_labels(self) -> list[list[str]]:
        """The leading metric of each rung by the number of labels; empty where it was not asked."""
        sizes = sorted({row["labels"] for rung in self.rungs for row in rung.budget})
        lines = [["", *map(count_text, sizes)]]
        for rung in self.rungs:
            cells = {row["labels"]: with_ends(row, self.metric) for row in rung.budget}
            lines += [[rung.name, *(cells.get(size, "") for size in sizes)]] if cells else []
        return lines if len(lines) > 1 else []

    def _best(self) -> Rung:
        defined = [r for r in self.rungs if r.part["mean"][self.metric] is not None]
        return max(defined, key=lambda rung: self._gain(rung.part["mean"][self.metric]))

    def _gain(self, difference: float) -> float:
        return measures_of(self.rungs[0].evaluation.metrics).gain(self.metric, difference, 0.0)

    def _text(self, rung: Rung) -> str:
        part = rung.part
        return numbers.with_spread(part["mean"][self.metric], part["std"][self.metric])

    def _cells(self) -> Sequence[Sequence[str]]:
        names = measures_of(self.rungs[0].evaluation.metrics).names
        header = ["rung", "", *map(metric_name, names), "minutes"]
        lines = [[*header, f"Δ {metric_name(self.metric)}", "p (Holm)"]]
        for i, (rung, (step, p)) in enumerate(zip(self.rungs, self.steps(), strict=True)):
            part = rung.part
            texts = [numbers.with_spread(part["mean"][m], part["std"][m]) for m in names]
            lines.append(
                [
                    str(i),
                    rung.name,
                    *texts,
                    f"{rung.minutes:.1f}",
                    "" if step is None else numbers.difference(step.mean),
                    "" if p is None else numbers.p_value(p),
                ]
            )
        return lines


def _told(fact: Any) -> str:
    """A fact in print; settings that are none are the defaults."""
    if isinstance(fact, list):
        return ", ".join(f"`{v}`" if isinstance(v, str) else str(v) for v in fact) or "the defaults"
    return str(fact)
