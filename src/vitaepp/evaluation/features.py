"""Evaluate features that are in memory: the same classifiers on them and on their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.arrays import Indices
from vitaepp.data.participants import Persons, no_participant, person_doubts, persons_of
from vitaepp.data.splits import canonical_splits
from vitaepp.data.storetable import PARTICIPANT
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.budget import Budget, measure_budget, summarised
from vitaepp.evaluation.external import Cohort, checked_candidates, known_controls, tested_outside
from vitaepp.evaluation.folds import FOLDS, Fold, Shared, by_subject, groups_of, share_out
from vitaepp.evaluation.front import SCALED
from vitaepp.evaluation.harmonize import COMBAT, LEAST, harmonization, known_sites
from vitaepp.evaluation.labels import group_doubts
from vitaepp.evaluation.map import embedding_map, map_rows
from vitaepp.evaluation.measured import Measured, measure, predicted
from vitaepp.evaluation.question import ALL_CONTROLS, MEAN, Candidates, Features, Question, one_of
from vitaepp.evaluation.repeats import (
    known_repeats,
    measure_again,
    other_draws,
    summarised_repeats,
    why_drawn_once,
)
from vitaepp.evaluation.result import METHOD, Evaluation
from vitaepp.evaluation.tasks import read_target
from vitaepp.evaluation.tasks.base import Target
from vitaepp.evaluation.tasks.classification import Classification
from vitaepp.system.progress import counted, say, warn
from vitaepp.system.text import first_few


def evaluate_features(
    features: Features | Candidates | Sequence[Features],
    table: pd.DataFrame,
    label: str,
    *,
    controls: Mapping[str, Features | Candidates] | None = None,
    task: str = "classification",
    protocol: str | None = None,
    seed: int = 0,
    folds: int = FOLDS,
    positive: str | None = None,
    time: str | None = None,
    event: str | None = None,
    group: str | None = None,
    leave_one_group_out: bool = False,
    harmonize: bool | str = False,
    sites: str | None = None,
    external: Cohort | None = None,
    budget: Sequence[Budget] = (),
    repeats: int | None = None,
    reduce: bool = False,
    draw_map: bool = True,
    provenance: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Measure with a simple model how much features tell about a label.

    Tasks, protocols and options are those of `vitaepp.evaluate`, which does this from file to file.
    The controls go through the very same folds.

    Args:
        features: `(subject, feature)`, row i of the subject in row i of the table. Or one array an
            outer fold, in the order of `plan_folds`, where the encoder of each fold was trained
            without its test subjects. Or several candidates by name, such as other poolings, of
            which each training part chooses one together with the strength of the model.
        table: one row a subject, with `subject` and the label column; `split` for given train and
            test parts, and `participant` where one person has several images.
        label: column to predict; subjects where it is empty are left out.
        controls: `(subject, feature)` each, of the same subjects: `untrained`, features of an
            untrained encoder, and `raw`, intensities, which are reduced by PCA in each fold. A
            control may have candidates, too.
        task: `classification`, `multilabel`, `ordinal`, `regression` or `survival`.
        protocol: `svm`, `linear` or `knn`; unset, the task's own.
        seed: draws the folds and the held-out parts.
        folds: outer folds of cross-validation; at least 2.
        positive: the class that sensitivity is of, where there are two; unset, the last in sort
            order.
        time: for survival, the column of times.
        event: for survival, the column of events.
        group: column whose groups no fold splits.
        leave_one_group_out: test each group by models that saw none of it.
        harmonize: centre and scale the features of each group, as the training part has it;
            `combat` does it by ComBat.
        sites: column of the groups that are harmonised, which folds may split; that of `group` by
            default.
        external: other subjects, on which models of all labelled subjects are tested once.
        budget: numbers of labelled subjects to fit on, and `all`.
        repeats: draws of the folds, by this seed and the next ones. Unset: ten where fewer than
            300 subjects are cross-validated, without candidates and groups; else one.
        reduce: reduce the features by PCA in each fold, as those of `raw` always are.
        draw_map: draw the features in two dimensions, which takes seconds.
        provenance: facts about the features to be kept with the result: `method`, `name`, …

    Raises:
        EvaluationError: features, label or splits do not allow the evaluation.

    Source:
        Prabhakar et al. 2023, section 4, "Evaluation strategy, classifier, and metrics".

    Example:
        >>> grade = np.arange(40) % 2
        >>> table = pd.DataFrame({"subject": range(40), "grade": grade})
        >>> noise = np.random.default_rng(0).normal(size=(40, 3))
        >>> result = evaluate_features(noise + 9 * grade[:, None], table, "grade")
        >>> result["mean"]["auc"], result["n"], len(result.to_frame())
        (1.0, 40, 5)
    """
    ordered = by_subject(table)
    target = read_target(ordered, label, task, positive=positive, time=time, event=event)
    one_encoder = isinstance(features, np.ndarray | Mapping)

    def share(seed: int) -> Shared:
        return share_out(
            target,
            ordered,
            seed=seed,
            protocol=protocol,
            folds=folds,
            group=group,
            leave_one_group_out=leave_one_group_out,
        )

    inside = _Labelled(ordered, target, share(seed))
    parts = inside.shared.folds
    why = why_drawn_once(inside.shared, strict=not one_encoder)
    if folds != FOLDS and why is not None and len(parts) != folds:
        say(f"`folds`={folds} has no effect: {why}")
    once = group is not None or isinstance(features, Mapping)
    times = known_repeats(repeats, inside.shared, strict=not one_encoder, once=once)
    seeds = range(seed + 1, seed + times)
    draws = other_draws(share, seeds, inside.shared, asked=repeats is not None)
    encoded = _of_folds(features, ordered, parts, external)
    given = known_controls(controls or {}, ordered)
    sets = {METHOD: [_of(one, target.rows) for one in encoded] * (len(parts) // len(encoded))}
    sets |= {name: [_of(one, target.rows)] * len(parts) for name, one in given.items()}
    if task == "regression":
        sets[MEAN] = [one_of(each) for each in sets[METHOD]]
    first = next(iter(sets[METHOD][0].values()))

    doubts = _tell(inside, protocol, group)
    if one_encoder and draw_map and (doubt := _repeated(first, inside.people)):
        doubts.append(doubt)
    how, site_of = _harmonized(inside.table, harmonize, sites or group, given=sites is not None)
    for column in dict.fromkeys(name for name in (group, sites) if name is not None):
        doubts += group_doubts(column, groups_of(inside.table, column))
    if site_of is not None:
        doubts += _harmony_doubts(target, parts, site_of, how, sites or group)
    for doubt in doubts:
        warn(doubt)

    reduced = frozenset({"raw", METHOD} if reduce else {"raw"})
    persons = inside.shared.persons
    question = Question(target, inside.shared.protocol, persons, site_of, reduced, how)
    measured = measure(question, sets, parts, seed, f"evaluate {target.name}")
    points, drawn = None, None
    if draw_map:
        points, drawn = _map(first, inside.subjects, target.truth(), seed)
    metrics = inside.facts(task, measured) | {
        "features": int(first.shape[1]),
        "pretraining": "as the run says" if one_encoder else "without each fold's test subjects",
        "std_is": "sample standard deviation over folds",
        "map": drawn,
        "seed": seed,
        "labels_from": None,
        "doubts": doubts,
        "provenance": dict(provenance or {}),
    }
    if isinstance(features, Mapping):
        metrics["candidates"] = {n: int(one.shape[1]) for n, one in encoded[0].items()}
    if group is not None:
        metrics["group"] = {
            "column": group,
            "groups": len(set(groups_of(inside.table, group))),
            "tested_alone": inside.shared.groups,
            "not_tested": inside.shared.untested,
        }
    if question.protocol != "knn":
        metrics["scaled"] = SCALED
    if reduce:
        metrics["reduced"] = "PCA in each training part"
    if how:
        metrics["harmonized"] = {"column": sites or group, "how": how}

    outside = learning = repeated = further = None
    if external is not None:
        metrics["external"], outside, asked = tested_outside(
            question, sets, external, seed, inside.table
        )
        doubts += asked
    if budget:

        def on_few(name: str, k: int, train: Indices, seed: int) -> dict[str, float]:
            return question.tested(name, sets[name][k], train, parts[k].test, seed)[2]

        learning = measure_budget(budget, target, parts, persons, [*sets], seed, on_few)
        metrics["budget"] = summarised(learning, task)
    predictions = predicted(inside.subjects, inside.people, target, parts, measured)
    if draws:
        every = [
            *measure_again(
                Evaluation(metrics, predictions),
                question,
                {name: each[0] for name, each in sets.items()},
                draws,
                inside.subjects,
                inside.people,
                asked=repeats is not None,
            )
        ]
        if len(every) > 1:
            metrics["repeats"], repeated, further = summarised_repeats(every)
    return Evaluation(
        metrics,
        predictions,
        points,
        external=outside,
        budget=learning,
        repeats=repeated,
        further=further,
    )


@dataclass(frozen=True)
class _Labelled:
    """The subjects that have the label, and how they are shared out.

    Attributes:
        everyone: a row a subject, in their order.
        target: what is predicted of the labelled.
        shared: their folds.
    """

    everyone: pd.DataFrame
    target: Target
    shared: Shared

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row each."""
        return self.everyone.iloc[self.target.rows]

    @cached_property
    def people(self) -> Persons:
        """The person of each."""
        return persons_of(self.table)

    @cached_property
    def subjects(self) -> npt.NDArray[Any]:
        """The name of each."""
        return self.table["subject"].to_numpy()

    @cached_property
    def used(self) -> Indices:
        """Positions of those that a fold trains on or tests."""
        return np.unique(np.concatenate([np.r_[p.train, p.test] for p in self.shared.folds]))

    @property
    def in_other_splits(self) -> int:
        """How many have a split that is neither train nor test, where these are given."""
        return len(self.target.rows) - len(self.used) if self.shared.given else 0

    def facts(self, task: str, measured: Mapping[str, Measured]) -> dict[str, Any]:
        """What metrics.json says first: of whom, and what was measured."""
        target, parts = self.target, self.shared.folds
        told = {name: one.to_json(target, parts, self.people) for name, one in measured.items()}
        method = told.pop(METHOD)
        return {
            "task": task,
            "protocol": self.shared.protocol,
            "label": target.name,
            "n": len(self.used),
            "classes": list(target.classes),
            **target.facts(self.used),
            "persons": len(np.unique(self.people[self.used])),
            "persons_by": PARTICIPANT if PARTICIPANT in self.everyone else "subject",
            **method,
            "controls": {name: {"what": ALL_CONTROLS[name], **of} for name, of in told.items()},
            "sizes": [{"train": len(p.train), "test": len(p.test)} for p in parts],
            "left_out": {"unlabelled": target.missing, "other splits": self.in_other_splits},
        }


def _of_folds(
    features: Features | Candidates | Sequence[Features],
    ordered: pd.DataFrame,
    parts: Sequence[Fold],
    external: Cohort | None,
) -> list[Candidates]:
    """Features as candidates by name, in the order of the subjects: one for all folds, or each.

    Raises:
        EvaluationError: they do not fit the subjects or the folds.
    """
    if isinstance(features, np.ndarray | Mapping):
        return [checked_candidates(features, ordered, "features")]
    if len(features) != len(parts):
        raise EvaluationError(
            f"{len(features)} sets of features for {len(parts)} folds; give one a fold"
        )
    if external is not None:
        raise EvaluationError("`external` needs one encoder; the strict protocol has one a fold")
    return [checked_candidates(one, ordered, "features") for one in features]


def _harmonized(
    labelled: pd.DataFrame, harmonize: bool | str, column: str | None, *, given: bool
) -> tuple[str, Any]:
    """How features are harmonised, and the site of each labelled subject; empty and None if not.

    Raises:
        EvaluationError: one is asked for without the other.
    """
    how = harmonization(harmonize)
    if how and column is None:
        raise EvaluationError(
            "`harmonize` needs a column of sites or scanners, as `sites=site`, or `group=site` for "
            "folds that keep sites whole"
        )
    if given and not how:
        raise EvaluationError("`sites` names what `harmonize` takes out; give that, too")
    return how, groups_of(labelled, column) if how and column is not None else None


def _harmony_doubts(
    target: Target, parts: Sequence[Fold], site_of: Any, how: str, column: str | None
) -> list[str]:
    """What harmonisation may take out beside the site, and whom it leaves as they are."""
    doubts = []
    if isinstance(target, Classification):
        classes = pd.Series(target.truth()["label"].to_numpy()).groupby(site_of).nunique()
        if len(classes) > 1 and classes.max() == 1:
            doubts.append(
                f"each {column} has one class of {target.name} alone: what is taken out of "
                "features with the site is the label, too"
            )
    if how == COMBAT:
        unknown = [set(site_of[p.test]) - set(known_sites(site_of[p.train])) for p in parts]
        if some := sorted(set().union(*unknown)):
            doubts.append(
                f"ComBat is not told of {counted(len(some), 'group')} of {column} by the "
                f"training part that tests them, which has fewer than {LEAST} of their subjects: "
                f"{first_few(some)}; their features stay as they are"
            )
    return doubts


def _of(candidates: Candidates, rows: Indices) -> Candidates:
    return {name: values[rows] for name, values in candidates.items()}


def _map(
    features: Features, subjects: npt.NDArray[Any], truth: pd.DataFrame, seed: int
) -> tuple[pd.DataFrame, str]:
    """The features in two dimensions, and how they were drawn."""
    rows = map_rows(len(features), seed=seed)
    places, how = embedding_map(features[rows], seed=seed)
    points = pd.DataFrame(places, columns=["x", "y"])
    points.insert(0, "subject", subjects[rows])
    points.insert(1, "label", truth["label"].to_numpy()[rows])
    return points, how if len(rows) == len(features) else f"{how}, {len(rows)} random subjects"


def _tell(inside: _Labelled, protocol: str | None, group: str | None) -> list[str]:
    """Say what a person should know about the labels and their folds; what to ask of them."""
    target, shared, labelled = inside.target, inside.shared, inside.table
    if isinstance(target, Classification) and (order := target.order()):
        say(order)
    for note in shared.notes:
        say(note)
    if PARTICIPANT in labelled and (without := int(no_participant(labelled).sum())):
        say(
            f"{counted(without, 'subject')} of {len(labelled)} have no participant: each counts as "
            "a person of its own"
        )
    if target.missing:
        total = len(inside.everyone)
        say(f"{target.missing} of {total} subjects {target.lacking}; they are left out")
    if others := inside.in_other_splits:
        be = "is" if others == 1 else "are"
        say(f"{counted(others, 'subject')} {be} neither in train nor in test")
    splits = _split_doubts(inside.everyone, shared, protocol, group)
    return [*target.doubts(), *splits, *person_doubts(labelled)]


def _split_doubts(
    ordered: pd.DataFrame, shared: Shared, protocol: str | None, group: str | None
) -> list[str]:
    """What to say where a table has splits that are not used."""
    splits = sorted(set(canonical_splits(ordered["split"])) - {""})
    if shared.given or len(splits) < 2 or (protocol == "svm" and group is None):
        return []
    if group is not None:
        return [f"splits {', '.join(splits)} are not used: the folds follow the groups of {group}"]
    return [
        f"splits {', '.join(splits)} are not used: without both train and test, protocol "
        f"{shared.protocol} draws its own folds over all subjects"
    ]


def _repeated(features: Features, persons: Persons) -> str:
    """What to say of subjects that cannot be told apart by their features; empty if all can."""
    rows = pd.util.hash_pandas_object(pd.DataFrame(features), index=False)
    if rows.nunique() == 1:
        return (
            "all subjects have the same features, which can tell nothing: the encoder has "
            "collapsed, or all images are the same"
        )
    twice = rows.map(pd.Series(persons).groupby(rows).nunique()) > 1
    if not twice.any():
        return ""
    return (
        f"{counted(int(twice.sum()), 'subject')} have exactly the same features as another, "
        "probably because an image is there under two names; results are too good where one of "
        "them is trained on and the other tested; a column participant keeps them together"
    )
