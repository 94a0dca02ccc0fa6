"""Questions: evaluations that asked the same, with their comparison and the tables of both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vitaepp.errors import EvaluationError, one_line
from vitaepp.evaluation.comparison import Comparison, compare_evaluations, shared_draws
from vitaepp.evaluation.harmonize import SCALE
from vitaepp.evaluation.measures import leading_metric, measures_of
from vitaepp.evaluation.result import METHOD, Evaluation, score_columns
from vitaepp.evaluation.summary import Row, pooled_rows, summary_rows
from vitaepp.presentation import tables
from vitaepp.presentation.names import metric_name
from vitaepp.reporting.contents import Evaluation as Shown
from vitaepp.reporting.contents import RunContents
from vitaepp.system.progress import counted, warn


@dataclass(frozen=True)
class Entry:
    """One evaluation of one run.

    Attributes:
        name: different from those of the other entries of its question.
        run: whose encoder was evaluated.
        shown: the evaluation as a report reads it, for figures.
        draws: the same with its predictions, of each draw of the folds that all entries share.
        predictions: the name that its predictions get in the dossier.
    """

    name: str
    run: RunContents
    shown: Shown
    draws: tuple[Evaluation, ...]
    predictions: str

    @property
    def evaluation(self) -> Evaluation:
        """In the folds that were drawn first."""
        return self.draws[0]

    def tested(self) -> pd.DataFrame:
        """The predictions of all draws; `draw` counts them from 0 where there are several."""
        tables = [draw.predictions for draw in self.draws if draw.predictions is not None]
        if len(tables) == 1:
            return tables[0]
        return pd.concat([table.assign(draw=i) for i, table in enumerate(tables)])


@dataclass(frozen=True)
class Question:
    """Evaluations of one label, over the same folds.

    Attributes:
        number: from 1 on, in the names of files.
        title: label and protocol, in words.
        entries: those that are compared; the first is the reference.
        comparison: with the controls; None where there is nothing to compare.
    """

    number: int
    title: str
    entries: tuple[Entry, ...]
    comparison: Comparison | None

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What the first evaluation measured; label, classes and folds are those of all."""
        return self.entries[0].evaluation.metrics

    @property
    def draws(self) -> tuple[Evaluation, ...]:
        """Of the first evaluation, one a draw of the folds; those of the others are the same."""
        return self.entries[0].draws

    @property
    def rows(self) -> list[tuple[str, Entry, Row]]:
        """Every set of features: its name, its evaluation and its scores."""
        return [
            (entry.name if row.key == METHOD else f"{entry.name}: {row.name}", entry, row)
            for entry in self.entries
            for row in pooled_rows(entry.draws)
        ]

    def results(self) -> tuple[list[list[str]], pd.DataFrame]:
        """Every set of features with its metrics: as text, and unrounded."""
        names = measures_of(self.metrics).names
        lines = [["", *map(metric_name, names)]]
        lines += [[name, *map(row.text, names)] for name, _, row in self.rows]
        records = [
            {"name": name}
            | {
                f"{metric}_{statistic}": values[metric]
                for metric in names
                for statistic, values in (("mean", row.mean), ("std", row.std))
            }
            for name, _, row in self.rows
        ]
        return lines, pd.DataFrame(records)

    def subjects(self) -> tuple[list[list[str]], pd.DataFrame]:
        """How many subjects each fold trains on and tests: as text, and as numbers."""
        evaluation = self.entries[0].evaluation
        classes = [str(c) for c in self.metrics["classes"]]
        tested = evaluation.predictions
        assert tested is not None  # questions_of leaves out what has none
        label = tested["label"].astype(str)
        counts = pd.DataFrame({name: label == name for name in classes}, index=tested.index)
        if evaluation.task == "multilabel":
            counts = pd.DataFrame({name: tested[f"label:{name}"] for name in classes})
        elif evaluation.task == "survival":
            counts, classes = tested[["event"]], ["event"]
        records = []
        for k, size in enumerate(self.metrics["sizes"]):
            of_fold = counts[tested["fold"] == k].sum()
            records.append(
                {"fold": k + 1, "train": size["train"], "test": size["test"]}
                | {name: int(of_fold[name]) for name in classes}
            )
        lines = [["fold", "train", "test", *(f"test: {name}" for name in classes)]]
        lines += [
            [str(record["fold"]), *(f"{record[name]:,}" for name in ("train", "test", *classes))]
            for record in records
        ]
        return lines, pd.DataFrame(records)

    def index(self) -> dict[str, Any]:
        """Which table stands on which predictions, for `verify.py`."""
        classes = self.metrics["classes"]
        names = [name for name, _, _ in self.rows]
        compared = [row.name for row in self.comparison.rows] if self.comparison else []
        return {
            "number": self.number,
            "title": self.title,
            "label": self.metrics["label"],
            "task": self.entries[0].evaluation.task,
            "classes": [str(c) for c in classes],
            "metrics": list(measures_of(self.metrics).names),
            "folds": len(self.metrics["folds"]),
            "train": [size["train"] for draw in self.draws for size in draw["sizes"]],
            "metric": self.comparison.metric if self.comparison else leading_metric(self.metrics),
            "rows": [
                {
                    "name": name,
                    "predictions": entry.predictions,
                    "columns": score_columns(row.key, classes, entry.evaluation.task),
                }
                for name, entry, row in self.rows
            ],
            "compared": [names.index(name) for name in compared],
        }


def questions_of(runs: Sequence[RunContents]) -> list[Question]:
    """The evaluations of runs by what they asked; what cannot be verified is told and left out."""
    grouped: dict[Any, list[tuple[RunContents, Shown, Evaluation]]] = {}
    for run in runs:
        for shown in run.evaluations:
            where = f"{run.name}/{run.location_of(shown)}"
            evaluation = _measured(shown, where)
            if evaluation is not None:
                grouped.setdefault(_key(shown, evaluation), []).append((run, shown, evaluation))
    titles = [key[0] for key in grouped]
    first = [members[0][2] for members in grouped.values()]
    for facts in (
        [_design(evaluation) for evaluation in first],
        [_harmonized(evaluation) for evaluation in first],
        [f", seed {evaluation['seed']}" for evaluation in first],
        [f", {counted(evaluation['n'], 'subject')}" for evaluation in first],
        [f", positive {p}" if (p := e.get("positive")) is not None else "" for e in first],
        [f", {number}" for number in range(1, len(first) + 1)],
    ):
        titles = _distinct(titles, facts)
    questions = []
    for number, (title, members) in enumerate(zip(titles, grouped.values(), strict=True), start=1):
        names = _names(members, several=len(runs) > 1)
        draws = shared_draws([evaluation for _, _, evaluation in members])
        entries = tuple(
            Entry(name, run, shown, tuple(own), f"predictions-{number}-{i}.parquet")
            for i, (name, (run, shown, _), own) in enumerate(
                zip(names, members, draws, strict=True), start=1
            )
        )
        questions.append(Question(number, title, entries, _compared(entries)))
    return questions


def _design(evaluation: Evaluation) -> str:
    """How subjects were shared out, as the end of a title."""
    folds, group = len(evaluation["folds"]), evaluation.get("group") or {}
    if group.get("tested_alone"):
        return f", each {group['column']} left out once"
    if folds == 1:
        return ", given split"
    whole = f" of whole groups of {group['column']}" if group else ""
    return f", {folds} folds{whole}"


def _harmonized(evaluation: Evaluation) -> str:
    """What was taken out of features, as the end of a title."""
    if not (harmonized := evaluation.get("harmonized")):
        return ""
    how = "centred and scaled" if harmonized["how"] == SCALE else "harmonised by ComBat"
    return f", {how} for each {harmonized['column']}"


def _distinct(titles: Sequence[str], facts: Sequence[str]) -> list[str]:
    """Titles with a fact where there are several of a name, and the facts differ."""
    of_title: dict[str, set[str]] = {}
    for title, fact in zip(titles, facts, strict=True):
        of_title.setdefault(title, set()).add(fact)
    return [t + f * (len(of_title[t]) > 1) for t, f in zip(titles, facts, strict=True)]


def write_table(
    folder: Any, stem: str, lines: tables.Lines, frame: pd.DataFrame, note: str
) -> None:
    """A table as Markdown, LaTeX and CSV."""
    from vitaepp.system.files import write_text

    write_text(folder / f"{stem}.md", f"{tables.markdown(lines)}\n\n{note}\n")
    write_text(folder / f"{stem}.tex", tables.latex(lines, comment=note))
    write_text(folder / f"{stem}.csv", frame.to_csv(None, index=False, lineterminator="\n"))


def _measured(shown: Shown, where: str) -> Evaluation | None:
    try:
        evaluation = Evaluation.load(shown.folder)
        for key in evaluation.measured:
            evaluation.scores(key)
    except EvaluationError as error:
        warn(f"{where}: is not in the dossier: {one_line(error)}")
        return None
    return evaluation


def _key(shown: Shown, evaluation: Evaluation) -> tuple[str, ...]:
    """What is the same of evaluations that can be compared: the question, and who was tested."""
    tested = evaluation.rows().to_csv(index=False).encode()
    shared = ("positive", "classes", "n", "persons", "group", "harmonized")
    facts = [str(evaluation.get(key)) for key in shared]
    return (shown.title, *facts, hashlib.sha256(tested).hexdigest())


def _names(members: Sequence[tuple[RunContents, Shown, Evaluation]], *, several: bool) -> list[str]:
    """A name for each evaluation: its method, and the run and the place that tell it apart."""
    names = [
        summary_rows(evaluation)[0].name + (f", {run.name}" if several else "")
        for run, _, evaluation in members
    ]
    return [
        f"{name}, {run.location_of(shown)}" if names.count(name) > 1 else name
        for name, (run, shown, _) in zip(names, members, strict=True)
    ]


def _compared(entries: Sequence[Entry]) -> Comparison | None:
    named = {entry.name: entry.evaluation for entry in entries}
    controls = any(len(entry.evaluation.measured) > 1 for entry in entries)
    if len(entries) == 1 and not controls:
        return None
    return compare_evaluations(named, controls=controls)
