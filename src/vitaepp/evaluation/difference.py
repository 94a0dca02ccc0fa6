"""The difference between two methods that went through the same folds, with interval and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Flags, Floats, Indices
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError, nearest
from vitaepp.evaluation.bootstrap import (
    Interval,
    Predictions,
    Score,
    bootstrap_difference,
    bootstrap_folds,
)
from vitaepp.evaluation.delong import delong_test
from vitaepp.evaluation.measures import leading_metric, measures_of, task_of
from vitaepp.evaluation.result import METHOD, Evaluation
from vitaepp.evaluation.scores import predicted_codes
from vitaepp.evaluation.statistics import (
    TTest,
    corrected_resampled_t_test,
    crossed_t_test,
    mcnemar,
    sign_flip_test,
)
from vitaepp.presentation.names import metric_name

#: What two evaluations must share, and what it is called where they do not.
_SHARED = {
    "task": "task",
    "label": "label",
    "protocol": "protocol",
    "positive": "positive class",
    "classes": "classes",
    "n": "subjects",
    "persons": "persons",
}


@dataclass(frozen=True)
class Difference:
    """How much better one method is than another in a metric, and how sure that is.

    Attributes:
        metric: a name of the task's measures.
        mean: variant minus reference, the mean over folds and seeds.
        p: two-sided; None where no test is possible.
        test: its name; None where no test is possible.
        interval: bootstrap over persons; None where there are no predictions.
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
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Difference:
        """What `to_json` gave."""
        interval = values["interval"]
        found = None if interval is None else Interval(**interval)
        return cls(**{**values, "interval": found})


def difference_between(
    variant: Sequence[Evaluation],
    reference: Sequence[Evaluation],
    *,
    metric: str | None = None,
    variant_key: str = METHOD,
    reference_key: str = METHOD,
) -> Difference:
    """The difference between two methods that went through the same folds.

    With several folds the test is the corrected resampled t-test. Seeds that share their folds are
    crossed with them (`statistics.crossed_t_test`); seeds that draw new ones are repetitions of the
    cross-validation. On one test split it is McNemar's exact test, or with several seeds its
    extension, the exact sign-flip test over subjects; both are for accuracy and, with two classes,
    for sensitivity and specificity. The AUC of one split is compared by DeLong's test, of several
    seeds the mean of their AUCs; where both are without variance, such as 1 and 0.5, by the test of
    the accuracy.
    Where predictions tell that a person has several subjects, intervals and tests of one split keep
    these together. Whatever has no test, or lacks the predictions that it needs, has `p` or
    `interval` None and a `reason`.

    Args:
        variant: one evaluation for each seed.
        reference: the same seeds of the other method, in the same order.
        metric: by default the one that is reported first.
        variant_key: `method`, or the control of `variant` that is meant.
        reference_key: likewise, of `reference`; a method is compared with its own control by
            giving the same evaluations twice.

    Raises:
        EvaluationError: the evaluations were not measured on the same label and folds, or there
            is no such metric or control.
    """
    if not variant or len(variant) != len(reference):
        raise EvaluationError(
            f"{len(variant)} evaluations against {len(reference)}; a comparison needs one of each "
            "seed on either side"
        )
    pairs = list(zip(variant, reference, strict=True))
    for one, other in pairs:
        _require_same_folds(one, other)
    for other in variant[1:]:
        _require_same(other, variant[0])
    metric = known_metric(metric, variant[0])
    differences = np.array(
        [
            [
                np.nan if None in (a[metric], b[metric]) else a[metric] - b[metric]
                for a, b in zip(one.folds(variant_key), other.folds(reference_key), strict=True)
            ]
            for one, other in pairs
        ]
    )
    seeds, folds = differences.shape
    difference = Difference(metric, float(differences.mean()), None, None, None, folds, seeds)
    if not np.isfinite(differences).all():
        return replace(difference, reason=f"the {metric_name(metric)} of a fold is not defined")
    if folds > 1:
        test = _test_over_folds(variant, differences)
        difference = replace(difference, p=test.p, test="corrected resampled t-test")
    lacking = [e for e in (*variant, *reference) if e.predictions is None]
    if lacking:
        where = "" if lacking[0].path is None else " beside " + "/".join(lacking[0].path.parts[-2:])
        return replace(
            difference,
            reason=f"no predictions.parquet{where} tells whether the same subjects were tested",
        )
    _require_same_subjects([*variant, *reference])
    try:
        persons = _persons([variant[0], reference[0]])
    except EvaluationError as error:
        return replace(difference, reason=str(error))
    if variant[0].task != "classification":
        return _of_values(difference, variant, reference, variant_key, reference_key, persons)
    first = _repetitions(variant, variant_key)
    second = _repetitions(reference, reference_key)
    interval = bootstrap_difference(first, second, metric, persons=persons)
    difference = replace(difference, interval=interval)
    if folds > 1:
        return difference
    relevant = _decided(first[0].codes, metric, len(variant[0].metrics["classes"]))
    if relevant is None and metric == "auc":
        delong = _delong(first, second, persons)
        if delong["p"] is not None or not difference.mean:
            reason = delong.get("reason")
            return replace(difference, p=delong["p"], test="DeLong's test", reason=reason)
        # Each parts the classes wholly, or not at all, so that the AUC has no variance.
        all_of_them = np.ones(len(first[0].codes), np.bool_)
        p, name = _test_on_one_split(first, second, all_of_them, persons)
        return replace(difference, p=p, test=f"{name} of the accuracy")
    if relevant is None:
        title = metric_name(metric)
        return replace(
            difference, reason=f"no test of the {title} of one test split is implemented"
        )
    p, name = _test_on_one_split(first, second, relevant, persons)
    return replace(difference, p=p, test=name)


def _of_values(
    difference: Difference,
    variant: Sequence[Evaluation],
    reference: Sequence[Evaluation],
    variant_key: str,
    reference_key: str,
    persons: Persons | None,
) -> Difference:
    """Interval and test of what is no class; on one split there is a test of the MAE of values."""
    from scipy.stats import wilcoxon

    keys = variant_key, reference_key
    interval = _interval(difference.metric, variant, reference, keys, persons)
    difference = replace(difference, interval=interval)
    title = metric_name(difference.metric)
    if interval is None:
        why = f"no interval: resampled subjects do not give the {title}"
        difference = replace(difference, reason=why)
    if difference.folds > 1:
        return difference
    if difference.metric != "mae" or variant[0].task != "regression" or len(variant) > 1:
        why = f"no test of the {title} of one test split is implemented"
        return replace(difference, reason=difference.reason or why)
    errors = [
        np.abs(e.scores(key) - e.rows()["label"].to_numpy(np.float64))
        for e, key in ((variant[0], variant_key), (reference[0], reference_key))
    ]
    lead, of = errors[0] - errors[1], "subjects"
    if persons is not None:
        lead, of = _by_person(lead, persons[_numbers_of(variant[0])]), "persons"
    p = float(wilcoxon(lead).pvalue) if np.any(lead) else 1.0
    return replace(difference, p=p, test=f"Wilcoxon's signed-rank test over {of}")


def _interval(
    metric: str,
    variant: Sequence[Evaluation],
    reference: Sequence[Evaluation],
    keys: tuple[str, str],
    persons: Persons | None,
) -> Interval | None:
    """The bootstrap of a difference over persons, the same in every repetition."""

    def lead(one: Evaluation, rows: Flags, scores: Sequence[Any]) -> Score:
        truth, (first, second) = one.rows()[rows], [s[rows] for s in scores]
        return lambda w: (
            one.weighted(metric, truth, first, w) - one.weighted(metric, truth, second, w)
        )

    folds = []
    for one, other in zip(variant, reference, strict=True):
        subjects, fold = _numbers_of(one), one.rows()["fold"].to_numpy()
        scores = [e.scores(key) for e, key in zip((one, other), keys, strict=True)]
        for k in np.unique(fold):
            folds.append((subjects[fold == k], lead(one, fold == k, scores)))
    who = np.arange(len(variant[0].rows())) if persons is None else persons
    return bootstrap_folds(folds, who)


def _numbers_of(evaluation: Evaluation) -> Indices:
    """A number for the subject of each row, the same in every repetition, 0 … N-1."""
    return np.unique(evaluation.rows()["subject"], return_inverse=True)[1].astype(np.intp)


def _persons(evaluations: Sequence[Evaluation]) -> Persons | None:
    """The person of each subject by its number, by the first that knows; None where none does."""
    for evaluation in evaluations:
        if (of_rows := evaluation.persons()) is not None:
            persons = np.empty_like(of_rows)
            persons[_numbers_of(evaluation)] = of_rows
            return persons
    return None


def _by_person(values: npt.NDArray[Any], persons: Persons) -> Floats:
    """The sum of each person's values."""
    summed = np.bincount(np.unique(persons, return_inverse=True)[1], values)
    return np.asarray(summed, np.float64)


def known_metric(metric: str | None, evaluation: Evaluation) -> str:
    """The metric that is compared: the given one, or what the protocol reports first.

    Raises:
        EvaluationError: no such metric.
    """
    metric = metric or leading_metric(evaluation.metrics)
    known = measures_of(evaluation.metrics).names
    if metric not in known:
        raise EvaluationError(f"no metric {metric!r}; {nearest(metric, known)}")
    return metric


def _require_same(one: Evaluation, other: Evaluation) -> None:
    """Refuse evaluations of different questions."""
    for key, title in _SHARED.items():
        a, b = (task_of(e) if key == "task" else e.get(key) for e in (one, other))
        if key in ("classes", "positive") and _texts(a) == _texts(b):
            continue  # 1 and "1" are the same class, which predictions have as text
        # Evaluations of earlier versions do not say how many persons there were.
        if a != b and (key != "persons" or None not in (a, b)):
            raise EvaluationError(
                f"{one.source}: {title} {a!r}, but {other.source} has {b!r}; only "
                "evaluations of the same can be compared"
            )
    a, b = len(one["folds"]), len(other["folds"])
    if a != b:
        raise EvaluationError(
            f"{one.source}: {a} folds, but {other.source} has {b}; evaluate both with "
            "the same `folds`"
        )


def _texts(value: Any) -> list[str]:
    return [str(v) for v in (value if isinstance(value, list) else [value])]


def _require_same_folds(one: Evaluation, other: Evaluation) -> None:
    """Refuse evaluations on other folds, by their predictions or, without, by seed and sizes."""
    _require_same(one, other)
    difference = folds_differ(one, other)
    if difference:
        raise EvaluationError(f"{one.source} and {other.source}: {difference}")


def folds_differ(one: Evaluation, other: Evaluation) -> str | None:
    """In what the folds of two evaluations differ; None where they are the same."""
    if one.predictions is not None and other.predictions is not None:
        a, b = one.rows(), other.rows()
        for column, title, remedy in (
            ("subject", "subjects", "of the same subjects"),
            ("label", "labels", "with the same table of labels"),  # on which folds depend
            ("fold", "folds", "with the same seed"),
        ):
            by_subject = [t.sort_values(["subject", "fold"])[column].tolist() for t in (a, b)]
            if by_subject[0] != by_subject[1]:
                return f"the tested {title} differ; evaluate both {remedy}"
        return None
    for key, remedy in (
        ("seed", "with the same seed"),
        ("sizes", "of the same subjects and labels"),
    ):
        if one.metrics[key] != other.metrics[key]:
            return (
                f"{key} {one.metrics[key]} against {other.metrics[key]}, so that the folds "
                f"differ; evaluate both {remedy}"
            )
    return None


def _require_same_subjects(evaluations: Sequence[Evaluation]) -> None:
    """Refuse repetitions of which one tested others, or somebody twice."""
    first = sorted(evaluations[0].rows()["subject"])
    for evaluation in evaluations:
        if sorted(evaluation.rows()["subject"]) != first or len(set(first)) < len(first):
            raise EvaluationError(
                f"{evaluation.source} and {evaluations[0].source}: the tested subjects "
                "differ; give every seed the same store"
            )


def _repetitions(evaluations: Sequence[Evaluation], key: str) -> list[Predictions]:
    """What a method says in each repetition, with one number a subject in all of them."""
    return [
        Predictions(_numbers_of(e), e.rows()["fold"].to_numpy(np.intp), e.codes(), e.scores(key))
        for e in evaluations
    ]


def _test_over_folds(evaluations: Sequence[Evaluation], differences: Floats) -> TTest:
    """The t-test of `(seed, fold)` differences, by whether seeds share their folds."""
    sizes = [size for evaluation in evaluations for size in evaluation.metrics["sizes"]]
    train, test = (float(np.mean([size[part] for size in sizes])) for part in ("train", "test"))
    if all(folds_differ(evaluations[0], other) is None for other in evaluations[1:]):
        return crossed_t_test(differences, train=train, test=test)
    return corrected_resampled_t_test(
        differences.ravel(), train=train, test=test, repetitions=len(evaluations)
    )


def _decided(codes: Indices, metric: str, classes: int) -> Flags | None:
    """The subjects whose share of right ones is the metric; None where it is no such share."""
    if metric == "accuracy":
        return np.ones(len(codes), np.bool_)
    side = {"sensitivity": 1, "specificity": 0}.get(metric)
    return None if classes > 2 or side is None else codes == side


def _delong(
    first: Sequence[Predictions], second: Sequence[Predictions], persons: Persons | None
) -> dict[str, Any]:
    """DeLong's test of the mean AUC over seeds.

    Each seed is a stretch of its own, whose AUCs are averaged. The rows of a subject,
    or of a person, are one cluster (Obuchowski 1997), because all seeds test the same.
    """
    if len(first) == 1:
        who = None if persons is None else persons[first[0].subjects]
        return delong_test(first[0].codes, first[0].scores, second[0].scores, persons=who)
    seeds = np.repeat(np.arange(len(first)), [len(p.codes) for p in first])
    subjects = np.concatenate([p.subjects for p in first])
    one, other = (np.concatenate([p.scores for p in side]) for side in (first, second))
    codes = np.concatenate([p.codes for p in first])
    who = subjects if persons is None else persons[subjects]
    return delong_test(codes, one, other, seeds, persons=who)


def _test_on_one_split(
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    relevant: Flags,
    persons: Persons | None,
) -> tuple[float, str]:
    """The p of who is right more often on one test set, and the test's name."""
    one, other = (
        np.array([(predicted_codes(p.scores) == p.codes)[relevant] for p in side])
        for side in (first, second)
    )
    if len(first) == 1 and persons is None:
        return mcnemar(one[0], other[0]).p, "McNemar's exact test"
    difference = one.sum(axis=0, dtype=np.int64) - other.sum(axis=0, dtype=np.int64)
    if persons is None:
        return sign_flip_test(difference), "exact sign-flip test over subjects"
    summed = _by_person(difference, persons[first[0].subjects][relevant]).astype(np.int64)
    return sign_flip_test(summed), "exact sign-flip test over persons"
