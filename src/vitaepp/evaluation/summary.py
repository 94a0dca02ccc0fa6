"""The result in words and in a small table: which is ahead, the embedding or its controls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import stdev
from typing import Any

from vitaepp.data.storetable import PARTICIPANT
from vitaepp.evaluation.harmonize import SCALE
from vitaepp.evaluation.measures import leading_metric, measures_of, spread, task_of
from vitaepp.presentation.names import CONTROLS, CONTROLS_IN_SENTENCES, GOALS, metric_name
from vitaepp.presentation.numbers import digits_of, interval, p_value, with_spread
from vitaepp.presentation.tables import aligned
from vitaepp.recipe.methods import METHODS
from vitaepp.system.progress import counted
from vitaepp.system.text import first_few

#: A difference is called one where chance alone makes it less often than this.
SIGNIFICANT = 0.05

#: Most classes that are counted one by one in a line.
MOST_COUNTED = 10


@dataclass(frozen=True)
class Row:
    """One line of the results table.

    Attributes:
        key: `method` or the control's name.
        name: what it is called in print.
        mean: each metric's mean over folds; None where no fold defines it.
        std: each metric's sample standard deviation, None for a single fold.
        folds: the metrics of each fold.
    """

    key: str
    name: str
    mean: Mapping[str, float | None]
    std: Mapping[str, float | None]
    folds: tuple[Mapping[str, float | None], ...]

    def text(self, metric: str) -> str:
        """A metric as `0.846 ± 0.034`, or `0.846` where there is one fold only."""
        mean = self.mean[metric]
        return with_spread(mean, self.std[metric], digits_of(metric, mean))


def display_name(facts: Mapping[str, Any]) -> str:
    """What a method is called in print; `embedding` where it is not known.

    Args:
        facts: of embeddings or a run: `name`, which tells its losses, or only `method`.

    >>> display_name({"method": "vitae", "name": "ViT-AE + L_edge"}), display_name({})
    ('ViT-AE + L_edge', 'embedding')
    """
    method = str(facts.get("method") or "embedding")
    title = METHODS[method].title if method in METHODS else CONTROLS.get(method, method)
    return str(facts.get("name") or title)


def summary_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """The embedding and its controls, from the content of a metrics.json."""
    parts = [("method", display_name(metrics.get("provenance") or {}), metrics)]
    controls = metrics.get("controls") or {}
    parts += [(k, name, controls[k]) for k, name in CONTROLS.items() if k in controls]
    return [
        Row(key, name, part["mean"], part["std"], tuple(part["folds"])) for key, name, part in parts
    ]


def rows_over_draws(metrics: Mapping[str, Any]) -> list[Row]:
    """As `summary_rows`; means and deviations are over all draws of the folds that were made."""
    rows = summary_rows(metrics)
    if not isinstance(draws := metrics.get("repeats"), Mapping):
        return rows
    over = {"method": draws} | draws["controls"]
    return [replace(row, mean=over[row.key]["mean"], std=over[row.key]["std"]) for row in rows]


def pooled_rows(draws: Sequence[Mapping[str, Any]]) -> list[Row]:
    """As `summary_rows` of the first; means and deviations are over the folds of all draws."""
    every = [summary_rows(metrics) for metrics in draws]
    pooled = []
    for row, *others in zip(*every, strict=True):
        mean, std = spread([fold for one in (row, *others) for fold in one.folds])
        pooled.append(replace(row, mean=mean, std=std) if others else row)
    return pooled


def headline(metrics: Mapping[str, Any]) -> str:
    """The leading metric of the embedding and its controls, in one line."""
    metric = leading_metric(metrics)
    rows = ", ".join(f"{row.name} {row.text(metric)}" for row in rows_over_draws(metrics))
    subjects = subjects_text(metrics["n"], count_tested(metrics))
    return f"{metric_name(metric)} of {metrics['label']}, {subjects}: {rows}"


def verdict(metrics: Mapping[str, Any]) -> str:
    """One sentence that says which is ahead, the embedding or its best control, and how clearly.

    Folds are shared, so that differences are taken fold by fold; a lead within one standard
    deviation of them is no clear winner. This is a description, not a significance test; over
    several draws of the folds, the sentence has the test's p instead.
    """
    method, *controls = rows_over_draws(metrics)
    metric = leading_metric(metrics)
    title = metric_name(metric)
    if not controls:
        return (
            f"{method.name} reaches {title} {method.text(metric)}, but has no control beside it: "
            "whether training helped cannot be said."
        )
    measures = measures_of(metrics)
    values = {r.key: mean for r in (method, *controls) if (mean := r.mean[metric]) is not None}
    if undefined := [r.name for r in (method, *controls) if r.key not in values]:
        return f"{title} is not defined for {undefined[0]}: whether training helped cannot be said."
    control = max(controls, key=lambda row: measures.gain(metric, values[row.key], 0.0))
    name, verb = CONTROLS_IN_SENTENCES[control.key]
    gain = measures.gain(metric, values[method.key], values[control.key])
    lead = abs(gain)
    digits = digits_of(metric, max(values[method.key], values[control.key]))
    if lead < 0.5 * 10**-digits:
        level = f"{values[method.key]:.{digits}f}"
        return f"{method.name} and {name} are level, at {title} {level}."
    if gain > 0:
        first, second, sentence = method, control, f"{method.name} leads {name}"
    else:
        first, second = control, method
        sentence = f"{name[0].upper()}{name[1:]} {verb} {method.name}"
    of_first, of_second = (f"{values[row.key]:.{digits}f}" for row in (first, second))
    sentence += f" by {lead:.{digits}f} {title} ({of_first} against {of_second})"
    if (draws := metrics.get("repeats")) is not None:
        p = draws["controls"][control.key]["difference"]["p"]
        how = "not " * (p is None or p >= SIGNIFICANT)
        test = ": not tested" if p is None else f": {how}significant ({p_value(p, 'p')})"
        return f"{sentence}, over {draws['number']} draws of the folds{test}."
    if len(first.folds) < 2:
        if metric == "accuracy" and lead < 2 * _binomial_deviation(metrics, values[second.key]):
            return f"{sentence}, less than chance alone can make on a test set of this size."
        return f"{sentence}, on one test split."
    pairs = [(a[metric], b[metric]) for a, b in zip(first.folds, second.folds, strict=True)]
    differences = [measures.gain(metric, a, b) for a, b in pairs if a is not None and b is not None]
    deviation = stdev(differences) if len(differences) > 1 else 0.0
    if lead < deviation:
        return (
            f"{sentence}, less than the spread of that difference over folds "
            f"({deviation:.{digits}f}): no clear winner."
        )
    wins = sum(d > 0 for d in differences)
    return f"{sentence}, and in {wins} of {len(differences)} folds."


def summary_cells(metrics: Mapping[str, Any]) -> list[list[str]]:
    """The embedding and its controls as lines of text, the header first."""
    names = measures_of(metrics).names
    lines = [[row.name, *map(row.text, names)] for row in rows_over_draws(metrics)]
    return [["", *map(metric_name, names)], *lines]


def all_doubts(evaluations: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is to be checked about the labels and subjects of some metrics.json, each line once."""
    lines: dict[str, None] = {}
    for metrics in evaluations:
        doubts = metrics.get("doubts")
        lines |= dict.fromkeys(map(str, doubts if isinstance(doubts, list) else []))
    return list(lines)


def summary_table(metrics: Mapping[str, Any]) -> str:
    """A plain-text table of the embedding and its controls, and the sentence of `verdict`.

    Args:
        metrics: what `evaluate` returned, or the content of a metrics.json.
    """
    return "\n".join([aligned(summary_cells(metrics)), *summary_notes(metrics)])


def summary_notes(metrics: Mapping[str, Any]) -> list[str]:
    """What stands below the table: who was tested, what options added, and the verdict."""
    notes = [persons_text(metrics)] if "n" in metrics else []
    if design := design_text(metrics):
        notes.append("; ".join(design))
    if metrics.get("positive") is not None:
        notes.append(f"positive class: {metrics['label']} = {metrics['positive']}")
        if metrics.get("positive_by") != "choice":
            notes[-1] += ", the last in order; `positive` chooses another"
    if positives := metrics.get("positives"):
        shown = ", ".join(f"{name} = {value}" for name, value in positives.items())
        notes.append(f"positive classes: {shown}, the last in order")
    notes += [*candidates_text(metrics), *outside_text(metrics)]
    of_first = [*undefined_text(metrics), *over_time_text(metrics)]
    of_first += [f"{label}: {text}" for label, text in labels_text(metrics)]
    of_first += budget_text(metrics)
    several = metrics.get("repeats") is not None
    notes += [f"in the first draw of the folds, {line}" if several else line for line in of_first]
    notes += repeats_text(metrics)
    if unlike := (metrics.get("provenance") or {}).get("unlike"):
        notes.append(f"the store was prepared with {', '.join(unlike)} in the encoder's training")
    return [*notes, "", verdict(metrics)]


def candidates_text(metrics: Mapping[str, Any]) -> list[str]:
    """The candidates, and which of them how many training parts chose; [] without any.

    >>> candidates_text({"candidates": {"mean": 8, "cls": 8}, "candidate": ["cls", "mean", "cls"]})
    ['candidates: mean, cls', 'embedding: the training parts chose cls (2 of 3), mean (1 of 3)']
    """
    names = list(metrics.get("candidates") or ())
    parts = [("method", display_name(metrics.get("provenance") or {}), metrics)]
    controls = metrics.get("controls") or {}
    parts += [(k, title, controls[k]) for k, title in CONTROLS.items() if k in controls]
    lines = [f"candidates: {', '.join(names)}"] if names else []
    for _, title, part in parts:
        chosen = part.get("candidate") or []
        counts = sorted(((chosen.count(n), n) for n in names if n in chosen), key=lambda c: -c[0])
        shown = ", ".join(f"{name} ({count} of {len(chosen)})" for count, name in counts)
        if shown:
            lines.append(f"{title}: the training parts chose {shown}")
    return lines


def undefined_text(metrics: Mapping[str, Any]) -> list[str]:
    """Which means are of some folds alone, because a metric is not defined in the others."""
    rows, lines = summary_rows(metrics), dict[str, list[str]]()
    for row in rows:
        for metric in measures_of(metrics).names:
            count = sum(fold[metric] is not None for fold in row.folds)
            if 0 < count < len(row.folds):
                line = f"{metric_name(metric)} is the mean of {count} of {len(row.folds)} folds"
                lines.setdefault(line, []).append(row.name)
    return [
        f"{line}{'' if len(names) == len(rows) else ' for ' + ' and '.join(names)}; it is not "
        "defined in the others"
        for line, names in lines.items()
    ]


def over_time_text(metrics: Mapping[str, Any]) -> list[str]:
    """The AUC at times and the integrated Brier score, of survival; [] of other tasks."""
    scores = (metrics.get("clinical") or {}).get("over_time")
    if not scores:
        return []
    folds = len(metrics["folds"])
    areas = [
        f"{with_spread(one['auc'], one['std'])} at {one['time']:.4g}"
        + ("" if one["folds"] == folds else f" ({one['folds']} of {folds} folds)")
        for one in scores["auc"]
        if one["auc"] is not None
    ]
    lines = [f"time-dependent AUC: {', '.join(areas)}"] if areas else []
    if (brier := scores["brier"])["value"] is not None:
        lines.append(
            f"integrated Brier score: {with_spread(brier['value'], brier['std'])}, less is better; "
            f"{brier['reference']:.3f} by the Kaplan-Meier curve of the training part"
        )
    return lines


def labels_text(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What there is of each of several labels; [] of other tasks.

    >>> area = {"value": 0.8, "low": 0.7, "high": 0.9}
    >>> report = {"n": 60, "positives": {"1": 9}, "auc": area, "average_precision": area}
    >>> labels_text({"clinical": {"labels": {"edema": report}}})
    [('edema', 'AUC 0.800 [0.700, 0.900], average precision 0.800 [0.700, 0.900], 9 of 60')]
    """
    lines = []
    for name, report in ((metrics.get("clinical") or {}).get("labels") or {}).items():
        scores = [
            f"{title} {value['value']:.3f} {interval(value['low'], value['high'])}"
            for title, value in (
                ("AUC", report["auc"]),
                ("average precision", report["average_precision"]),
            )
            if None not in (value["value"], value["low"])
        ]
        (positive,) = report["positives"].values()
        lines.append((name, ", ".join([*scores, f"{positive:,} of {report['n']:,}"])))
    return lines


def outside_text(metrics: Mapping[str, Any]) -> list[str]:
    """What the other cohort gave, also at thresholds that were chosen inside; [] without one."""
    outside = metrics.get("external")
    if not isinstance(outside, Mapping):
        return []
    metric = leading_metric(metrics)
    mean = outside["mean"][metric]
    score = f"{metric_name(metric)} {with_spread(mean, None, digits_of(metric, mean))}"
    lines = [f"outside, in {outside['name']} ({counted(outside['n'], 'subject')}): {score}"]
    for goal, point in ((outside.get("clinical") or {}).get("operating") or {}).items():
        values = [point[side]["value"] for side in ("sensitivity", "specificity")]
        if None not in values:
            lines.append(
                f"outside, at the threshold chosen inside for {GOALS[goal]}: sensitivity "
                f"{values[0]:.3f}, specificity {values[1]:.3f}"
            )
    return lines


def persons_text(metrics: Mapping[str, Any]) -> str:
    """How many persons stand behind how many subjects, in words.

    Args:
        metrics: content of a metrics.json.

    >>> persons_text({"n": 120, "persons": 60, "persons_by": "participant"})
    '120 subjects of 60 persons'
    >>> persons_text({"n": 120, "persons": 120, "persons_by": "subject"})
    '120 subjects; without a column participant, each counts as a person of its own'
    """
    subjects = subjects_text(metrics["n"], count_tested(metrics))
    if "persons" not in metrics:  # of an earlier version
        return subjects
    if metrics["persons_by"] != PARTICIPANT:
        return f"{subjects}; without a column {PARTICIPANT}, each counts as a person of its own"
    return f"{subjects} of {metrics['persons']:,} persons"


def design_text(metrics: Mapping[str, Any]) -> list[str]:
    """How many there are of what is predicted, and what was done about groups and sites.

    >>> design_text({"members": {"0": 15, "1": 9}, "harmonized": {"column": "site", "how": SCALE}})
    ['15 of class 0, 9 of class 1', 'features centred and scaled for each site']
    """
    parts = []
    if members := metrics.get("members"):
        which = "with" if task_of(metrics) == "multilabel" else "of class"
        counts = ", ".join(f"{count:,} {which} {name}" for name, count in members.items())
        parts.append(counts if len(members) <= MOST_COUNTED else f"{len(members)} classes")
    if "events" in metrics:
        parts.append(counted(metrics["events"], "event"))
    if isinstance(group := metrics.get("group"), Mapping):
        tested, column = len(group["tested_alone"]), group["column"]
        of = f"{tested} of " * bool(group["not_tested"]) + str(group["groups"])
        how = "each left out once" if tested else "none split by a fold"
        parts.append(f"{of} groups of {column}, {how}")
        if group["not_tested"]:
            parts.append(f"not tested: {first_few(group['not_tested'])}")
    if harmonized := metrics.get("harmonized"):
        done = "centred and scaled" if harmonized["how"] == SCALE else "harmonised by ComBat"
        parts.append(f"features {done} for each {harmonized['column']}")
    return parts


def budget_text(metrics: Mapping[str, Any]) -> list[str]:
    """The leading metric at each number of labels, a line a number; [] where it was not measured.

    >>> row = {"labels": 6.0, "mean": {"mae": 0.5}, "low": {"mae": 0.4}, "high": {"mae": 0.6}}
    >>> rows = [row | {"features": name} for name in ("method", "raw")]
    >>> budget_text({"task": "regression", "budget": rows})
    ['with 6 labels: MAE 0.500 [0.400, 0.600], raw 0.500 [0.400, 0.600]']
    """
    rows = metrics.get("budget") or []
    lines = []
    for labels, whole in dict.fromkeys((row["labels"], row.get("all")) for row in rows):
        metric = leading_metric(metrics)
        values = [
            f"{row['features']} " * (row["features"] != "method") + with_ends(row, metric)
            for row in rows
            if (row["labels"], row.get("all")) == (labels, whole)
        ]
        lines.append(f"with {count_text(labels)} labels: {metric_name(metric)} {', '.join(values)}")
    return lines


def repeats_text(metrics: Mapping[str, Any]) -> list[str]:
    """The leading metric over several draws of the folds, with tests; [] where there was one.

    >>> control = {"mean": {"auc": 0.6}, "difference": {"p": 0.01}}
    >>> own = {"number": 10, "metric": "auc", "mean": {"auc": 0.7}, "controls": {"raw": control}}
    >>> repeats_text({"repeats": own})
    ['over 10 draws of the folds: AUC 0.700, raw 0.600 (p = 0.010)']
    """
    if not isinstance(own := metrics.get("repeats"), Mapping):
        return []
    metric = own["metric"]
    digits = digits_of(metric, own["mean"][metric])
    values = [with_spread(own["mean"][metric], None, digits)]
    for key, control in own["controls"].items():
        p = control["difference"]["p"]
        test = "no test" if p is None else p_value(p, "p")
        values.append(f"{key} {with_spread(control['mean'][metric], None, digits)} ({test})")
    name = metric_name(metric)
    return [f"over {own['number']} draws of the folds: {name} {', '.join(values)}"]


def with_ends(row: Mapping[str, Any], metric: str) -> str:
    """The mean of a row of `budget`, and the range that 95 of 100 trainings lie in."""
    mean, low, high = (row[name][metric] for name in ("mean", "low", "high"))
    digits = digits_of(metric, mean)
    ends = "" if low is None else f" {interval(low, high, digits)}"
    return with_spread(mean, None, digits) + ends


def count_text(count: float) -> str:
    """A number of labels, which may be a mean over folds.

    >>> count_text(78468.0), count_text(62.4)
    ('78,468', '62.4')
    """
    return f"{count:,.1f}".removesuffix(".0")


def subjects_text(n: int, tested: int) -> str:
    """The number of subjects, and of those that were tested where a split leaves others untested.

    >>> subjects_text(5840, 624), subjects_text(130, 130)
    ('5,840 subjects, 624 of them tested', '130 subjects')
    """
    subjects = counted(n, "subject")
    return f"{subjects}, {tested:,} of them tested" if 0 < tested < n else subjects


def count_tested(metrics: Mapping[str, Any]) -> int:
    """Subjects that were tested; 0 where this is not known."""
    return sum(int(size["test"]) for size in metrics.get("sizes") or [])


def _binomial_deviation(metrics: Mapping[str, Any], accuracy: float) -> float:
    """Standard deviation of an accuracy by chance alone; 0 where the tested are not known."""
    n = count_tested(metrics)
    return float((accuracy * (1 - accuracy) / n) ** 0.5) if n else 0.0
