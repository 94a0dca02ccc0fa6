"""Compare finished evaluations: differences with intervals and tests, as a table.

OUT/
  comparison.md, .csv, .tex   the table, for a page, a program, a paper
  comparison.json             all of it, unrounded
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from vitaepp.errors import EvaluationError, nearest
from vitaepp.evaluation.difference import (
    Difference,
    difference_between,
    folds_differ,
    known_metric,
)
from vitaepp.evaluation.measures import Measures, measures_of
from vitaepp.evaluation.result import METHOD, Evaluation
from vitaepp.evaluation.statistics import holm
from vitaepp.evaluation.summary import (
    SIGNIFICANT,
    count_tested,
    pooled_rows,
    subjects_text,
    summary_rows,
)
from vitaepp.evaluation.summary import Row as Scores
from vitaepp.presentation import numbers, tables
from vitaepp.presentation.names import metric_name
from vitaepp.presentation.numbers import p_value
from vitaepp.system.files import write_json, write_text
from vitaepp.system.paths import unique_names
from vitaepp.system.progress import counted
from vitaepp.system.results import ResultFiles

#: An evaluation as people have it: where it is, or what `evaluate` returned.
Evaluated = str | os.PathLike[str] | Mapping[str, Any]  # a Mapping, to say what is wrong with it

#: What `compare` writes.
FILES = ResultFiles(
    "compare",
    {
        "comparison.json": ("metric", "reference", "rows"),
        "comparison.csv": (
            *("name", r"\w+_(mean|std)", "metric", "difference", "low", "high", "level"),
            *("p", "p_holm", "test", "folds", "sentence"),
        ),
    },
    last=("comparison.json",),
    unsigned=("comparison.md", "comparison.tex"),
)


@dataclass(frozen=True)
class ComparisonRow:
    """One line of a comparison.

    Attributes:
        name: what it is called, different in every row.
        scores: its metrics.
        difference: to the reference; None in the reference's own row.
        p_holm: the p of `difference`, corrected for the number of comparisons (Holm).
    """

    name: str
    scores: Scores
    difference: Difference | None
    p_holm: float | None


@dataclass(frozen=True)
class Comparison:
    """Evaluations beside each other, each against the reference.

    Attributes:
        rows: the reference first.
        metric: in which the differences are.
        label: what was predicted.
        n: subjects.
        tested: those of them that the scores are of.
        draws: of the folds that all share, over which means, differences and tests are.
        not_shared: whether there is but one, and some evaluation has more.
        measures: the metrics of the rows, and which of them are errors.
    """

    rows: tuple[ComparisonRow, ...]
    metric: str
    label: str
    n: int
    tested: int
    measures: Measures
    draws: int = 1
    not_shared: bool = False

    def __repr__(self) -> str:
        rows = ", ".join(f"{row.name} {row.scores.text(self.metric)}" for row in self.rows)
        subjects = subjects_text(self.n, self.tested)
        return f"Comparison({metric_name(self.metric)} of {self.label}, {subjects}: {rows})"

    def _repr_html_(self) -> str:
        return tables.html(self._cells(), *self.sentences, self._note())

    @property
    def reference(self) -> ComparisonRow:
        """The row that the others are compared with."""
        return self.rows[0]

    @property
    def sentences(self) -> list[str]:
        """What each comparison shows, in plain words, and never more than its test does."""
        compared = sum(row.p_holm is not None for row in self.rows)
        return [
            _verdict(row, row.difference, self.reference, compared, self.measures)
            + _remarks(row.difference)
            for row in self.rows
            if row.difference is not None
        ]

    def to_markdown(self) -> str:
        """The table and its sentences for a Markdown page."""
        table = tables.markdown(self._cells())
        return "\n".join([table, "", *(f"- {s}" for s in self.sentences), "", self._note(), ""])

    def to_frame(self) -> pd.DataFrame:
        """The table unrounded, one row an evaluation and one column a number.

        Returns:
            `name`, mean and standard deviation of each metric, then the `metric` of the
            `difference` to the reference, its interval (`low`, `high`, `level`), `p`, `p_holm`
            and `test`, the number of `folds`, and the `sentence`. What is not there is missing.
        """
        rows = []
        for row, sentence in zip(self.rows, ["", *self.sentences], strict=True):
            values: dict[str, Any] = {"name": row.name}
            for metric in self.measures.names:
                values[f"{metric}_mean"] = row.scores.mean[metric]
                values[f"{metric}_std"] = row.scores.std[metric]
            difference = {} if row.difference is None else row.difference.to_json()
            interval = difference.get("interval") or {}
            values |= {"metric": self.metric, "difference": difference.get("mean")}
            values |= {end: interval.get(end) for end in ("low", "high", "level")}
            values |= {"p": difference.get("p"), "p_holm": row.p_holm}
            values |= {"test": difference.get("test"), "folds": len(row.scores.folds)}
            rows.append(values | {"sentence": sentence})
        return pd.DataFrame(rows)

    def to_csv(self) -> str:
        """`to_frame` as CSV; what is not there is empty."""
        return self.to_frame().to_csv(None, index=False, lineterminator="\n")

    def to_latex(self) -> str:
        """The table for a paper; it needs the package booktabs."""
        return tables.latex(self._cells(), comment=self._note())

    def to_json(self) -> dict[str, Any]:
        """All of it, unrounded."""
        rows = []
        for row, sentence in zip(self.rows, [None, *self.sentences], strict=True):
            rows.append(
                {
                    "name": row.name,
                    "what": row.scores.name,
                    "mean": dict(row.scores.mean),
                    "std": dict(row.scores.std),
                    "difference": None if row.difference is None else row.difference.to_json(),
                    "p_holm": row.p_holm,
                    "sentence": sentence,
                }
            )
        return {
            "label": self.label,
            "n": self.n,
            "tested": self.tested,
            "draws": self.draws,
            "metric": self.metric,
            "reference": self.reference.name,
            "rows": rows,
        }

    def save(self, out: str | os.PathLike[str]) -> None:
        """Write comparison.md, .csv, .tex and .json into a folder.

        Raises:
            EvaluationError: `out` is a file.
        """
        folder = Path(out)
        if folder.exists() and not folder.is_dir():
            raise EvaluationError(f"{folder}: is a file; give a folder")
        with FILES.written(folder) as staged:
            write_text(staged / "comparison.md", self.to_markdown())
            write_text(staged / "comparison.csv", self.to_csv())
            write_text(staged / "comparison.tex", self.to_latex())
            write_json(staged / "comparison.json", self.to_json())

    def __str__(self) -> str:
        return "\n".join([tables.aligned(self._cells()), "", *self.sentences, "", self._note()])

    def _cells(self) -> list[list[str]]:
        """The table as text; intervals and Holm's correction only where there are any."""
        several = sum(row.p_holm is not None for row in self.rows) > 1
        level = next((i.level for d in self._differences() if (i := d.interval)), None)
        header = ["", *map(metric_name, self.measures.names), f"Δ {metric_name(self.metric)}"]
        header += [] if level is None else [f"{level:.0%} interval"]
        digits = numbers.digits_of(self.metric, self.reference.scores.mean[self.metric])
        lines = [[*header, "p", *(["p (Holm)"] if several else [])]]
        for row in self.rows:
            cells = [row.name, *(row.scores.text(m) for m in self.measures.names)]
            difference = row.difference
            cells += [numbers.difference(difference.mean, digits) if difference else "reference"]
            if level is not None:
                cells += [_interval(difference, digits) if difference else ""]
            cells += [p_value(difference.p) if difference and difference.p is not None else ""]
            cells += [p_value(row.p_holm) if row.p_holm is not None else ""] if several else []
            lines.append(cells)
        return lines

    def _differences(self) -> list[Difference]:
        return [row.difference for row in self.rows if row.difference is not None]

    def _note(self) -> str:
        tests = sorted({d.test for d in self._differences() if d.test})
        seen = [
            f"{self.label}, {subjects_text(self.n, self.tested)}",
            *(f"p: {test}, two-sided" for test in tests),
        ]
        if any(d.interval for d in self._differences()):
            seen.append("interval: bootstrap over persons, trained models as they are")
        if self.draws > 1:
            seen.append(f"over {self.draws} draws of the folds")
        elif self.not_shared:
            seen.append("of the first draw of the folds, the only one that all are known to share")
        seen += sorted({d.reason for d in self._differences() if d.reason})
        return "; ".join(seen) + "."


def compare(
    *evaluations: Evaluated | Sequence[Evaluated],
    reference: Evaluated | None = None,
    metric: str | None = None,
    controls: bool = False,
) -> Comparison:
    """Put finished evaluations beside each other, each against a reference.

    Args:
        evaluations: what `evaluate` returned, metrics.json files, or their folders, one by one or
            as a list; all of the same label, measured over the same folds.
        reference: one of them, or its name in the table; the first by default.
        metric: of the differences; by default the one that is reported first.
        controls: show the controls of each evaluation as rows, too. A control that several
            evaluations share, as raw intensities, is shown once.

    Raises:
        EvaluationError: an evaluation is missing or damaged, or does not go with the others.
    """
    lists: list[Sequence[Evaluated]] = [
        given if isinstance(given, list | tuple) else [given]  # type: ignore[list-item]
        for given in evaluations
    ]
    return compare_evaluations(
        [_loaded(evaluation) for given in lists for evaluation in given],
        reference=reference,
        metric=metric,
        controls=controls,
    )


def compare_evaluations(
    evaluations: Sequence[Evaluation] | Mapping[str, Evaluation],
    *,
    reference: Evaluated | None = None,
    metric: str | None = None,
    controls: bool = False,
) -> Comparison:
    """Put evaluations that are in memory beside each other, each against a reference.

    Args:
        evaluations: of the same label, measured over the same folds. With names, these are the
            names in the table; else they are taken from where the evaluations lie, or from their
            methods.
        reference: one of them, its name in the table, or its path; the first by default.
        metric: of the differences; by default the one that is reported first.
        controls: show the controls of each evaluation as rows, too. A control that several
            evaluations share, as raw intensities, is shown once.

    Raises:
        EvaluationError: the evaluations do not go with each other.
    """
    every = list(evaluations.values() if isinstance(evaluations, Mapping) else evaluations)
    if len({id(e) if e.path is None else e.path.resolve() for e in every}) < len(every):
        raise EvaluationError("the same evaluation is given twice")
    if not every or (len(every) == 1 and not controls):
        raise EvaluationError(
            f"{counted(len(every), 'evaluation')} given; name a second one to compare with, or "
            "ask for the controls of this one"
        )
    names = list(evaluations) if isinstance(evaluations, Mapping) else _names(every)
    first = _position(reference, every, names)
    base = every[first]
    metric = known_metric(metric, base)
    draws = shared_draws(every)
    rows: list[ComparisonRow] = []
    shown: list[tuple[str, Any]] = []
    for i in (first, *(i for i in range(len(every)) if i != first)):
        for scores in pooled_rows(draws[i]):
            key = scores.key
            if key != METHOD and (not controls or (key, scores.folds) in shown):
                continue
            shown.append((key, scores.folds))
            difference = None
            if rows:
                difference = difference_between(
                    draws[i], draws[first], metric=metric, variant_key=key
                )
            name = names[i] if key == METHOD else f"{names[i]}: {scores.name}"
            rows.append(ComparisonRow(name, scores, difference, None))
    compared = [i for i, row in enumerate(rows) if row.difference and row.difference.p is not None]
    corrected = holm([d.p for i in compared if (d := rows[i].difference) and d.p is not None])
    for i, p in zip(compared, corrected, strict=True):
        rows[i] = replace(rows[i], p_holm=p)
    measures = measures_of(base.metrics)
    label, n = str(base["label"]), int(base["n"])
    tested = count_tested(base.metrics)
    several = any(e.metrics.get("repeats") for e in every)
    number = len(draws[first])
    return Comparison(
        tuple(rows), metric, label, n, tested, measures, number, several and number == 1
    )


def shared_draws(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """Of each evaluation, those of its draws of the folds that all others have, too, by the seed.

    The first draw always counts, because evaluations are compared over the same folds; where the
    first ones differ, it is the only one.
    """
    every = [{draw["seed"]: draw for draw in each.draws} for each in evaluations]
    base, starts = every[0], [next(iter(draws.items())) for draws in every]
    alike = all(s == starts[0][0] and not folds_differ(starts[0][1], d) for s, d in starts)
    shared = [
        seed
        for seed, draw in base.items()
        if alike and all(seed in each and not folds_differ(draw, each[seed]) for each in every)
    ]
    return [
        [draws[s] for s in shared] if shared else [draws[seed]]
        for draws, (seed, _) in zip(every, starts, strict=True)
    ]


def _loaded(evaluation: Evaluated) -> Evaluation:
    if isinstance(evaluation, Evaluation):
        return evaluation
    if isinstance(evaluation, str | os.PathLike):
        return Evaluation.load(evaluation)
    raise EvaluationError(
        f"{type(evaluation).__name__} is no evaluation; give what vitaepp.evaluate returned, a "
        "metrics.json, or its folder"
    )


def _position(
    reference: Evaluated | None, evaluations: Sequence[Evaluation], names: Sequence[str]
) -> int:
    """Which evaluation is the reference, by itself, its name or its path."""
    if reference is None:
        return 0
    if isinstance(reference, Evaluation):
        name, path = reference.source, reference.path
    else:
        name, path = str(reference), Path(str(reference))
        if name in names:
            return names.index(name)
    for i, evaluation in enumerate(evaluations):
        own = evaluation.path
        paths = [] if own is None else [own.resolve(), own.parent.resolve()]
        if evaluation is reference or (path is not None and path.resolve() in paths):
            return i
    raise EvaluationError(f"no evaluation {name!r} here; {nearest(name, names)}")


def _names(evaluations: Sequence[Evaluation]) -> list[str]:
    """A name for each evaluation: of its folder, or of its method for one in memory."""
    paths = [e.path for e in evaluations if e.path is not None]
    folders = iter(_names_of(paths) if paths else ())
    names = [next(folders) if e.path else summary_rows(e)[0].name for e in evaluations]
    return [f"{n} {i}" if names.count(n) > 1 else n for i, n in enumerate(names, start=1)]


def _names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each evaluation: its folder, without what all share, with what tells it apart.

    >>> _names_of([Path(p) for p in ("a/run/evaluation/metrics.json", "b/run/evaluation/m.json")])
    ['a', 'b']
    """
    parts = [path.resolve().parent.parts[1:] or ("/",) for path in paths]
    while len(parts) > 1 and len({p[-1] for p in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [p[:-1] for p in parts]
    names = unique_names([Path(*p) for p in parts])
    # Two files of one folder: only their own names tell them apart.
    if len(set(names)) < len(names):
        names = [f"{name}/{path.name}" for name, path in zip(names, paths, strict=True)]
    return names


def _remarks(difference: Difference) -> str:
    """What to think of an interval without width, and of a p of 0."""
    remarks = ""
    if difference.interval and difference.interval.low == difference.interval.high:
        remarks += (
            "; the interval has no width: the difference is the same whichever of these subjects "
            "are drawn, so it says nothing about other subjects"
        )
    if difference.p == 0 and difference.folds > 1:
        remarks += "; all folds differ by the same amount, so p has no spread to go by"
    return remarks


def _verdict(
    row: ComparisonRow,
    difference: Difference,
    reference: ComparisonRow,
    comparisons: int,
    measures: Measures,
) -> str:
    """Which is ahead, with its numbers."""
    base, metric = reference.name, difference.metric
    digits = numbers.digits_of(metric, reference.scores.mean[metric])
    facts = [f"{numbers.difference(difference.mean, digits)} {metric_name(difference.metric)}"]
    if difference.interval:
        facts.append(f"{difference.interval.level:.0%} interval {_interval(difference, digits)}")
    if difference.p is None:
        return f"{row.name} against {base}: not tested, {difference.reason}; {', '.join(facts)}"
    p, after = difference.p, ""
    facts.append(p_value(p, "p"))
    if comparisons > 1 and row.p_holm is not None:
        facts[-1] += f" ({p_value(row.p_holm)} corrected for {comparisons} comparisons)"
        p = row.p_holm
        after = " after correction" if difference.p < SIGNIFICANT <= p else ""
    excludes_zero = (
        difference.interval and not difference.interval.low <= 0 <= difference.interval.high
    )
    if p >= SIGNIFICANT:
        sentence = f"{row.name} and {base} do not differ significantly{after}"
        but = "; the interval excludes 0, but takes the trained models as they are"
        return f"{sentence}: {', '.join(facts)}{but if excludes_zero else ''}"
    better = measures.gain(difference.metric, difference.mean, 0.0) > 0
    verb = "ahead of" if better else "behind"
    sentence = f"{row.name} is {verb} {base}: {', '.join(facts)}"
    if difference.interval and not excludes_zero:
        return f"{sentence}; the interval holds zero, so this is weak evidence"
    return sentence


def _interval(difference: Difference, digits: int) -> str:
    interval = difference.interval
    return "" if interval is None else numbers.interval(interval.low, interval.high, digits)
