"""Compare finished evaluations: differences with intervals and tests, as a table.

OUT/
  comparison.md, .csv, .tex   the table, for a page, a program, a paper
  comparison.json             all of it, unrounded
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.errors import EvaluationError, nearest
from vitaepp.evaluation.evaluation import METHOD, Metrics
from vitaepp.evaluation.outcome import Outcome
from vitaepp.evaluation.scores import METRICS, predicted_codes
from vitaepp.evaluation.statistics import (
    Interval,
    Predictions,
    TTest,
    bootstrap_difference,
    corrected_resampled_t_test,
    crossed_t_test,
    holm,
    mcnemar,
    sign_flip_test,
)
from vitaepp.evaluation.summary import Row as Scores
from vitaepp.evaluation.summary import leading_metric, summary_rows
from vitaepp.presentation import numbers, tables
from vitaepp.presentation.names import metric_name
from vitaepp.presentation.numbers import p_value
from vitaepp.system.files import write_json, write_text
from vitaepp.system.progress import counted

__all__ = ["Comparison", "ComparisonRow", "Difference", "Outcome", "compare", "compare_outcomes"]

#: A difference is called one where chance alone makes it less often than this.
SIGNIFICANT = 0.05

#: What two evaluations must share, and what it is called where they do not.
_SHARED = {
    "label": "label",
    "protocol": "protocol",
    "positive": "positive class",
    "classes": "classes",
    "n": "subjects",
    "persons": "persons",
}

_Codes = npt.NDArray[np.intp]

#: An evaluation as people have it: where it is, or what `evaluate` returned.
Evaluated = str | os.PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """How much better one method is than another in a metric, and how sure that is.

    Attributes:
        metric: a name of `scores.METRICS`.
        mean: variant minus reference, the mean over folds and seeds.
        p: two-sided; None where no test is possible.
        test: its name; None where no test is possible.
        interval: bootstrap over subjects; None where there are no predictions.
        folds: folds of each seed.
        seeds: repetitions.
        reason: why `p` or `interval` is None; None where neither is.
    """

    metric: str
    mean: float
    p: float | None
    test: str | None
    interval: Interval | None
    folds: int
    seeds: int
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields, JSON throughout."""
        interval = None if self.interval is None else self.interval.to_json()
        return {
            "metric": self.metric,
            "mean": self.mean,
            "p": self.p,
            "test": self.test,
            "interval": interval,
            "folds": self.folds,
            "seeds": self.seeds,
            "reason": self.reason,
        }


def compare_outcomes(
    variant: Sequence[Outcome],
    reference: Sequence[Outcome],
    *,
    metric: str | None = None,
    variant_key: str = METHOD,
    reference_key: str = METHOD,
) -> Difference:
    """The difference between two methods that went through the same folds.

    With several folds the test is the corrected resampled t-test. Seeds that share their folds are
    crossed with them (`statistics.crossed_t_test`); seeds that draw new ones are repeated
    cross-validation. On one test split it is McNemar's exact test, or with several seeds its
    extension, the exact sign-flip test over subjects; both are for accuracy and, with two classes,
    for sensitivity and specificity. The AUC of one split, and whatever lacks the predictions that
    it needs, has `p` or `interval` None and a `reason`.

    Args:
        variant: one outcome for each seed.
        reference: the same seeds of the other method, in the same order.
        metric: by default AUC in cross-validation and accuracy on one test split.
        variant_key: `method`, or the control of `variant` that is meant.
        reference_key: likewise, of `reference`; a method is compared with its own control by
            giving the same outcomes twice.

    Raises:
        EvaluationError: the outcomes were not measured on the same label and folds, or there is no
            such metric or control.
    """
    if not variant or len(variant) != len(reference):
        raise EvaluationError(
            f"{len(variant)} outcomes against {len(reference)}; a comparison needs one of each "
            "seed on either side"
        )
    pairs = list(zip(variant, reference, strict=True))
    for one, other in pairs:
        _require_same_folds(one, other)
    for other in variant[1:]:
        _require_same(other, variant[0])
    metric = _metric(metric, variant[0])
    differences = np.array(
        [
            [
                a[metric] - b[metric]
                for a, b in zip(one.folds(variant_key), other.folds(reference_key), strict=True)
            ]
            for one, other in pairs
        ]
    )
    seeds, folds = differences.shape
    found = Difference(metric, float(differences.mean()), None, None, None, folds, seeds)
    lacking = [o for o in (*variant, *reference) if o.predictions is None]
    reason = None
    if lacking:
        path = lacking[0].path
        reason = f"no predictions.parquet beside {path.parent.name}/{path.name}"
    if not lacking:
        first, second = (
            _repetitions(outcomes, key)
            for outcomes, key in ((variant, variant_key), (reference, reference_key))
        )
        found = replace(found, interval=bootstrap_difference(first, second, metric))
    if folds > 1:
        test = _test_over_folds(variant, differences)
        name = "corrected resampled t-test"
        return replace(found, p=test.p, test=name, reason=reason)
    if lacking:
        return replace(found, reason=reason)
    relevant = _decided(first[0].codes, metric, len(variant[0].metrics["classes"]))
    if relevant is None:
        title = metric_name(metric)
        return replace(found, reason=f"no test of the {title} of one test split is implemented")
    p, name = _test_on_one_split(first, second, relevant)
    return replace(found, p=p, test=name)


@dataclass(frozen=True)
class ComparisonRow:
    """One line of a comparison.

    Attributes:
        name: what it is called, different in every row.
        scores: its four metrics.
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
    """

    rows: tuple[ComparisonRow, ...]
    metric: str
    label: str
    n: int

    def __repr__(self) -> str:
        rows = ", ".join(f"{row.name} {row.scores.text(self.metric)}" for row in self.rows)
        subjects = counted(self.n, "subject")
        return f"Comparison({metric_name(self.metric)} of {self.label}, {subjects}: {rows})"

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    @property
    def reference(self) -> ComparisonRow:
        """The row that the others are compared with."""
        return self.rows[0]

    @property
    def sentences(self) -> list[str]:
        """What each comparison shows, in plain words, and never more than its test does."""
        compared = sum(row.p_holm is not None for row in self.rows)
        return [_sentence(row, self.reference.name, compared) for row in self.rows[1:]]

    def to_markdown(self) -> str:
        """The table and its sentences for a Markdown page."""
        table = tables.markdown(self._cells())
        return "\n".join([table, "", *(f"- {s}" for s in self.sentences), "", self._note(), ""])

    def to_csv(self) -> str:
        """The table unrounded, one column a number; what is not there is empty."""
        columns = ["name", *(f"{m}_{part}" for m in METRICS for part in ("mean", "std"))]
        columns += ["metric", "difference", "low", "high", "level", "p", "p_holm", "test"]
        columns += ["folds", "sentence"]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        for row, sentence in zip(self.rows, ["", *self.sentences], strict=True):
            found = row.difference
            interval = found.interval if found else None
            values: list[Any] = [row.name]
            values += [v for m in METRICS for v in (row.scores.mean[m], row.scores.std[m])]
            values += [self.metric, found.mean if found else None]
            values += [interval.low, interval.high, interval.level] if interval else [None] * 3
            values += [found.p, row.p_holm, found.test] if found else [None] * 3
            writer.writerow([*values, len(row.scores.folds), sentence])
        return out.getvalue()

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
            raise EvaluationError(f"{folder}: is a file; --out names a folder")
        write_text(folder / "comparison.md", self.to_markdown())
        write_text(folder / "comparison.csv", self.to_csv())
        write_text(folder / "comparison.tex", self.to_latex())
        write_json(folder / "comparison.json", self.to_json())

    def __str__(self) -> str:
        return "\n".join([tables.aligned(self._cells()), "", *self.sentences, "", self._note()])

    def _cells(self) -> list[list[str]]:
        """The table as text; intervals and Holm's correction only where there are any."""
        several = sum(row.p_holm is not None for row in self.rows) > 1
        level = next((i.level for d in self._differences() if (i := d.interval)), None)
        header = ["", *map(metric_name, METRICS), f"Δ {metric_name(self.metric)}"]
        header += [] if level is None else [f"{level:.0%} interval"]
        lines = [[*header, "p", *(["p (Holm)"] if several else [])]]
        for row in self.rows:
            cells = [row.name, *(row.scores.text(m) for m in METRICS)]
            found = row.difference
            cells += [numbers.difference(found.mean) if found else "reference"]
            if level is not None:
                cells += [_interval(found) if found else ""]
            cells += [p_value(found.p) if found and found.p is not None else ""]
            cells += [p_value(row.p_holm) if row.p_holm is not None else ""] if several else []
            lines.append(cells)
        return lines

    def _differences(self) -> list[Difference]:
        return [row.difference for row in self.rows if row.difference is not None]

    def _note(self) -> str:
        tests = sorted({d.test for d in self._differences() if d.test})
        seen = [
            f"{self.label}, {counted(self.n, 'subject')}",
            *(f"p: {test}, two-sided" for test in tests),
        ]
        if any(d.interval for d in self._differences()):
            seen.append("interval: bootstrap over subjects, trained models as they are")
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
        metric: of the differences; by default AUC in cross-validation, accuracy on a test split.
        controls: show the controls of each evaluation as rows, too. A control that several
            evaluations share, as raw intensities, is shown once.

    Raises:
        EvaluationError: an evaluation is missing or damaged, or does not go with the others.
    """
    outcomes = [_outcome(e) for given in evaluations for e in _each(given)]
    if len({o.path.resolve() for o in outcomes}) < len(outcomes):
        raise EvaluationError("the same evaluation is given twice")
    if not outcomes or (len(outcomes) == 1 and not controls):
        raise EvaluationError(
            f"{counted(len(outcomes), 'evaluation')} given; name a second one to compare with, or "
            "add --controls to compare it with its own controls"
        )
    names = _names([o.path for o in outcomes])
    first = _position(reference, outcomes, names)
    order = [first, *(i for i in range(len(outcomes)) if i != first)]
    base = outcomes[first]
    metric = _metric(metric, base)
    rows: list[ComparisonRow] = []
    shown: list[tuple[str, Any]] = []
    for i in order:
        for scores in summary_rows(outcomes[i].metrics):
            key = scores.key
            if key != METHOD and (not controls or (key, scores.folds) in shown):
                continue
            shown.append((key, scores.folds))
            difference = None
            if rows:
                difference = compare_outcomes([outcomes[i]], [base], metric=metric, variant_key=key)
            name = names[i] if key == METHOD else f"{names[i]}: {scores.name}"
            rows.append(ComparisonRow(name, scores, difference, None))
    tested = [i for i, row in enumerate(rows) if row.difference and row.difference.p is not None]
    corrected = holm([d.p for i in tested if (d := rows[i].difference) and d.p is not None])
    for i, p in zip(tested, corrected, strict=True):
        rows[i] = replace(rows[i], p_holm=p)
    return Comparison(tuple(rows), metric, str(base.metrics["label"]), int(base.metrics["n"]))


def _each(given: Evaluated | Sequence[Evaluated]) -> Sequence[Evaluated]:
    return given if isinstance(given, list | tuple) else [given]  # type: ignore[list-item]


def _outcome(evaluated: Evaluated) -> Outcome:
    if isinstance(evaluated, Metrics):
        return Outcome.of(evaluated)
    if not isinstance(evaluated, str | os.PathLike):
        raise EvaluationError(
            f"{type(evaluated).__name__} is no evaluation; give what vitaepp.evaluate returned, a "
            "metrics.json, or its folder"
        )
    return Outcome.load(evaluated)


def _metric(asked: str | None, outcome: Outcome) -> str:
    metric = asked or leading_metric(outcome.metrics)
    if metric not in METRICS:
        raise EvaluationError(f"no metric {metric!r}; {nearest(metric, METRICS)}")
    return metric


def _require_same(one: Outcome, other: Outcome) -> None:
    """Refuse outcomes of different questions."""
    facts = [(o.metrics, o.path) for o in (one, other)]
    for key, title in _SHARED.items():
        a, b = (metrics.get(key) for metrics, _ in facts)
        # Evaluations of earlier versions do not say how many persons there were.
        if a != b and (key != "persons" or None not in (a, b)):
            raise EvaluationError(
                f"{one.path}: {title} {a!r}, but {other.path} has {b!r}; only evaluations of the "
                "same can be compared"
            )
    a, b = (len(metrics["folds"]) for metrics, _ in facts)
    if a != b:
        raise EvaluationError(
            f"{one.path}: {a} folds, but {other.path} has {b}; evaluate both with the same --folds"
        )


def _require_same_folds(one: Outcome, other: Outcome) -> None:
    """Refuse outcomes whose folds differ, by their predictions or, without, by seed and sizes."""
    _require_same(one, other)
    difference = _folds_differ(one, other)
    if difference:
        raise EvaluationError(f"{one.path} and {other.path}: {difference}")


def _folds_differ(one: Outcome, other: Outcome) -> str | None:
    """In what the folds of two outcomes differ; None where they are the same."""
    if one.predictions is not None and other.predictions is not None:
        a, b = one.rows(), other.rows()
        for column, title in (("subject", "subjects"), ("fold", "folds"), ("label", "labels")):
            by_subject = [t.sort_values(["subject", "fold"])[column].tolist() for t in (a, b)]
            if by_subject[0] != by_subject[1]:
                return f"the tested {title} differ; evaluate both with the same seed"
        return None
    for key in ("seed", "sizes"):
        if one.metrics[key] != other.metrics[key]:
            return (
                f"{key} {one.metrics[key]} against {other.metrics[key]}, so that the folds "
                "differ; evaluate both with the same seed"
            )
    return None


def _repetitions(outcomes: Sequence[Outcome], key: str) -> list[Predictions]:
    """What a method says in each repetition, with one number a subject in all of them."""
    number = {s: i for i, s in enumerate(sorted(outcomes[0].rows()["subject"]))}
    repetitions = []
    for outcome in outcomes:
        rows = outcome.rows()
        if set(rows["subject"]) != set(number) or len(rows) != len(number):
            raise EvaluationError(
                f"{outcome.path} and {outcomes[0].path}: the tested subjects differ; give every "
                "seed the same store"
            )
        subjects = np.array([number[s] for s in rows["subject"]], np.intp)
        folds = rows["fold"].to_numpy(np.intp)
        repetitions.append(Predictions(subjects, folds, outcome.codes(), outcome.scores(key)))
    return repetitions


def _test_over_folds(outcomes: Sequence[Outcome], differences: npt.NDArray[np.float64]) -> TTest:
    """The t-test of `(seed, fold)` differences, by whether seeds share their folds."""
    sizes = [size for outcome in outcomes for size in outcome.metrics["sizes"]]
    train, test = (float(np.mean([size[part] for size in sizes])) for part in ("train", "test"))
    if all(_folds_differ(outcomes[0], other) is None for other in outcomes[1:]):
        return crossed_t_test(differences, train=train, test=test)
    return corrected_resampled_t_test(differences.ravel(), train=train, test=test)


def _decided(codes: _Codes, metric: str, classes: int) -> npt.NDArray[np.bool_] | None:
    """The subjects whose share of right ones is the metric; None where it is no such share."""
    if metric == "accuracy":
        return np.ones(len(codes), np.bool_)
    if classes > 2 or metric == "auc":
        return None
    return codes == (1 if metric == "sensitivity" else 0)


def _test_on_one_split(
    first: Sequence[Predictions], second: Sequence[Predictions], relevant: npt.NDArray[np.bool_]
) -> tuple[float, str]:
    """The p of who is right more often on one test set, and the test's name."""
    one, other = (
        np.array([(predicted_codes(p.scores) == p.codes)[relevant] for p in side])
        for side in (first, second)
    )
    if len(first) == 1:
        return mcnemar(one[0], other[0]).p, "McNemar's exact test"
    difference = one.sum(axis=0, dtype=np.int64) - other.sum(axis=0, dtype=np.int64)
    return sign_flip_test(difference), "exact sign-flip test over subjects"


def _position(
    reference: Evaluated | None, outcomes: Sequence[Outcome], names: Sequence[str]
) -> int:
    if reference is None:
        return 0
    if isinstance(reference, Metrics):
        reference = reference.path
    asked = str(reference)
    if asked in names:
        return names.index(asked)
    meant = Path(asked).resolve()
    for i, outcome in enumerate(outcomes):
        if meant in (outcome.path.resolve(), outcome.path.parent.resolve()):
            return i
    raise EvaluationError(f"no evaluation {asked!r} here; {nearest(asked, names)}")


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each evaluation: its folder, without what all share, with what tells it apart.

    >>> _names([Path(p) for p in ("a/run/evaluation/metrics.json", "b/run/evaluation/m.json")])
    ['a', 'b']
    """
    parts = [list(path.resolve().parent.parts[1:]) or ["/"] for path in paths]
    while len(parts) > 1 and len({p[-1] for p in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [p[:-1] for p in parts]
    depth = 1
    while len({tuple(p[-depth:]) for p in parts}) < len({tuple(p) for p in parts}):
        depth += 1
    names = ["/".join(p[-depth:]) for p in parts]
    # Two files of one folder: only their own names tell them apart.
    if len(set(names)) < len(names):
        names = [f"{name}/{path.name}" for name, path in zip(names, paths, strict=True)]
    return names


def _sentence(row: ComparisonRow, reference: str, comparisons: int) -> str:
    """What the test of one row shows, in plain words."""
    found = row.difference
    if found is None:
        raise ValueError("the reference is compared with nothing")
    facts = [f"{numbers.difference(found.mean)} {metric_name(found.metric)}"]
    if found.interval:
        facts.append(f"{found.interval.level:.0%} interval {_interval(found)}")
    if found.p is None:
        return f"{row.name} against {reference}: not tested, {found.reason}; {', '.join(facts)}"
    p, after = found.p, ""
    facts.append(p_value(p, "p"))
    if comparisons > 1 and row.p_holm is not None:
        facts[-1] += f" ({p_value(row.p_holm)} corrected for {comparisons} comparisons)"
        p = row.p_holm
        after = " after correction" if found.p < SIGNIFICANT <= p else ""
    if p >= SIGNIFICANT:
        between = f"between {row.name} and {reference}"
        return f"no difference {between} can be told{after}: {', '.join(facts)}"
    verb = "ahead of" if found.mean > 0 else "behind"
    sentence = f"{row.name} is {verb} {reference}: {', '.join(facts)}"
    if found.interval and found.interval.low <= 0 <= found.interval.high:
        return f"{sentence}; the interval holds zero, so that this is weak evidence"
    return sentence


def _interval(found: Difference) -> str:
    interval = found.interval
    return "" if interval is None else numbers.interval(interval.low, interval.high)
