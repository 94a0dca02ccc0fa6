"""Other subjects: a cohort on which models of all labelled subjects are tested once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.embeddings import CONTROLS
from vitaepp.data.labels import meant
from vitaepp.data.participants import participants_in, persons_of
from vitaepp.data.suffixes import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of
from vitaepp.errors import EvaluationError, nearest
from vitaepp.evaluation.folds import by_subject
from vitaepp.evaluation.question import MEAN, Candidates, Features, Question, one_of
from vitaepp.evaluation.result import METHOD, score_columns
from vitaepp.evaluation.tasks.base import Tested
from vitaepp.presentation.names import metric_name
from vitaepp.system.progress import counted, warn

#: An external AUC below this, and fewer subjects than this, are asked about.
LOW, FEW = 0.4, 20


@dataclass(frozen=True)
class Cohort:
    """Features of other subjects, for a test outside of the cohort that models are fitted on.

    Attributes:
        features: `(subject, feature)`, of the same encoder; or the same candidates as inside.
        table: one row a subject, with the same label columns.
        controls: of the same subjects.
        name: what it is called.
    """

    features: Features | Candidates
    table: pd.DataFrame
    controls: Mapping[str, Features | Candidates] = field(default_factory=dict)
    name: str = "external"


def tested_outside(
    question: Question,
    sets: Mapping[str, Sequence[Candidates]],
    cohort: Cohort,
    seed: int,
    within: pd.DataFrame,
) -> tuple[dict[str, Any], pd.DataFrame, list[str]]:
    """Models of all labelled subjects, tested on another cohort, once.

    Nothing is chosen there: thresholds and probabilities are those of the cohort inside.

    Args:
        question: with the target inside.
        sets: features of the labelled subjects inside, by name.
        cohort: the other one.
        seed: draws held-out parts.
        within: the labelled subjects inside, a row each.

    Returns:
        What metrics.json holds of it, the predictions, and what to ask, a line each.
    """
    inside = question.target
    ordered = by_subject(cohort.table, f"{cohort.name}: ")
    try:
        outside = inside.of_other(ordered)
    except EvaluationError as error:
        raise EvaluationError(f"{cohort.name}, the external cohort: {error}") from None
    given = {METHOD: checked_candidates(cohort.features, ordered, f"{cohort.name}: features")}
    given |= known_controls(cohort.controls, ordered)
    labelled = ordered.iloc[outside.rows]
    those_inside = next(iter(sets[METHOD][0].values()))
    those_outside = next(iter(one_of(given[METHOD]).values()))[outside.rows]
    doubts = [
        *inside.doubts_outside(outside),
        *_shared(within, labelled, those_inside, those_outside),
    ]
    # Sites are called A or 1 everywhere: those outside are scaled like any that was not trained on.
    sites = None if question.sites is None else np.full(len(labelled), "\0 outside", object)
    everyone = np.arange(len(inside.rows))
    people, tested = persons_of(labelled), np.arange(len(labelled))
    truth = outside.truth()
    columns: dict[str, Any] = {"subject": labelled["subject"].to_numpy(), **truth}
    scored: dict[str, dict[str, Any]] = {}
    for name, rows in sets.items():
        if name not in given and name != MEAN:
            continue
        those = one_of(given[METHOD]) if name == MEAN else given[name]
        _require_same(cohort.name, rows[0], those)
        model = question.fit(name, rows[0], everyone, seed)
        decision = model.decision(those[model.candidate][outside.rows], sites)
        scores = outside.scores(tested, decision, inside, everyone)
        scored[name] = {"mean": {k: v if np.isfinite(v) else None for k, v in scores.items()}}
        # Thresholds and probabilities are those of the cohort inside.
        learned = [question.learn(model, rows[0], everyone, seed)]
        report = outside.clinical(Tested(tested, np.zeros_like(tested), decision, people, learned))
        if report is not None:
            scored[name]["clinical"] = report
        shaped = decision.reshape(len(labelled), -1).T
        columns |= dict(zip(score_columns(name, inside.classes, inside.task), shaped, strict=True))
    for metric in ("auc", "c_index"):
        area = scored[METHOD]["mean"].get(metric)
        if area is not None and area < LOW:
            coded = "events" if inside.task == "survival" else "classes"
            doubts.append(
                f"{metric_name(metric)} {area:.2f} is worse than chance; are the {coded} coded the "
                "other way round there?"
            )
            break
    labels = (scored[METHOD].get("clinical") or {}).get("labels") or {}
    for label, report in labels.items():
        area = report["auc"]["value"]
        if area is not None and area < LOW:
            doubts.append(
                f"AUC {area:.2f} of {label} is worse than chance; is it coded the other way round "
                "there?"
            )
    if len(outside.rows) < FEW:
        doubts.append(f"{counted(len(outside.rows), 'subject')} can show very little")
    doubts = [f"{cohort.name}, the external cohort: {doubt}" for doubt in doubts]
    for doubt in doubts:
        warn(doubt)
    facts = {
        "name": cohort.name,
        "n": len(outside.rows),
        "persons": len(np.unique(people)),
        **scored.pop(METHOD),
        "controls": scored,
        "left_out": {"unlabelled": outside.missing},
        **{k: v for k, v in outside.facts(tested).items() if k == "members"},
    }
    return facts, pd.DataFrame(columns), doubts


def _shared(
    within: pd.DataFrame, outside: pd.DataFrame, features: Features, others: Features
) -> list[str]:
    """What to say of subjects outside who may be people inside, a line each."""
    lines = []
    people = set(map(_person, participants_in(within) | set(map(str, within["subject"]))))
    for what, names in (
        ("subject", set(map(str, outside["subject"]))),
        ("participant", participants_in(outside)),
    ):
        if both := [name for name in sorted(names) if _person(name) in people]:
            lines.append(
                f"{counted(len(both), what)} have the name of a person inside, such as "
                f"{both[0]}; if they are the same people, this is no external test"
            )
    if features.shape[1] == others.shape[1]:
        own, new = (
            pd.util.hash_pandas_object(pd.DataFrame(f.astype(np.float32)), index=False)
            for f in (features, others)
        )
        if count := int(new.isin(own).sum()):
            lines.append(
                f"{counted(count, 'subject')} have exactly the same features as a subject inside, "
                "probably because the same image is in both; leave it out of one of them"
            )
    return lines


def _person(name: str) -> str | float:
    """A name however it is written: in other letters, as a number, as that of a file."""
    return meant(name.removesuffix(suffix_of(name, (*SCAN_SUFFIXES, *PICTURE_SUFFIXES))))


def _require_same(cohort: str, inside: Candidates, outside: Candidates) -> None:
    """Refuse a cohort with other candidates, or with other features."""
    for name, values in inside.items():
        of_candidate = f" of candidate {name!r}" if name else ""
        if name not in outside:
            raise EvaluationError(
                f"{cohort}: has no features{of_candidate}; embed it with the same `pools`"
            )
        if values.shape[1] != outside[name].shape[1]:
            raise EvaluationError(
                f"{cohort}: {outside[name].shape[1]} features{of_candidate}, but {values.shape[1]} "
                "inside; embed both by the same encoder"
            )


def checked_candidates(
    features: Features | Candidates, ordered: pd.DataFrame, title: str
) -> Candidates:
    """Features, or several by name, in the order of a table `by_subject`.

    Raises:
        EvaluationError: there are none, or they are not a row of finite numbers for each subject.
    """
    if isinstance(features, np.ndarray):
        return {"": checked_features(features, ordered, title)}
    if not features:
        raise EvaluationError(f"{title}: no candidate to choose from; give one or more by name")
    return {
        name: checked_features(one, ordered, f"{title} of candidate {name!r}")
        for name, one in features.items()
    }


def checked_features(features: Features, ordered: pd.DataFrame, title: str) -> Features:
    """Features in the order of a table `by_subject`.

    Raises:
        EvaluationError: not one row of finite numbers for each subject.
    """
    count = len(ordered)
    if features.ndim != 2 or len(features) != count:
        raise EvaluationError(
            f"{title} have shape {features.shape}, but the table has {counted(count, 'subject')}; "
            "give (subject, feature)"
        )
    with np.errstate(over="ignore"):  # squares of what single precision holds are finite
        finite = np.isfinite(features.astype(np.float32)).all(axis=1)
    if not finite.all():
        subject = ordered["subject"][int(np.flatnonzero(~finite)[0])]
        raise EvaluationError(f"{title} of subject {subject} are not finite; embed again")
    return features[ordered.index.to_numpy()]


def known_controls(
    controls: Mapping[str, Features | Candidates], ordered: pd.DataFrame
) -> dict[str, Candidates]:
    """Controls that are known, in the order of a table `by_subject`.

    Raises:
        EvaluationError: there is no such control, or its features are not whole.
    """
    for name in controls:
        if name not in CONTROLS:
            raise EvaluationError(f"no control {name!r}; {nearest(name, CONTROLS)}")
    return {
        name: checked_candidates(controls[name], ordered, f"control {name}: its features")
        for name in CONTROLS
        if name in controls
    }
