"""Evaluate features that are in memory: the same classifiers on them and on their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.embeddings import CONTROLS
from vitaepp.data.participants import Persons, persons_of
from vitaepp.data.splits import canonical_splits
from vitaepp.data.store import PARTICIPANT
from vitaepp.errors import EvaluationError, nearest
from vitaepp.evaluation.classifier import Protocol, fit
from vitaepp.evaluation.folds import Fold, by_subject, labelled_folds
from vitaepp.evaluation.labels import Labels, doubts, told_order
from vitaepp.evaluation.map import embedding_map, map_rows
from vitaepp.evaluation.result import METHOD, Evaluation, score_columns
from vitaepp.evaluation.scores import fold_scores, spread
from vitaepp.system.progress import counted, say, track, warn

Features = npt.NDArray[Any]


@dataclass(frozen=True)
class _Measured:
    """One set of features, measured: in each fold its scores, its decisions and the chosen C."""

    folds: list[dict[str, float]] = field(default_factory=list)
    decisions: list[npt.NDArray[np.float64]] = field(default_factory=list)
    chosen: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        mean, std = spread(self.folds)
        return {"folds": self.folds, "mean": mean, "std": std, "C": self.chosen}


def evaluate_features(
    features: Features | Sequence[Features],
    table: pd.DataFrame,
    label: str,
    *,
    controls: Mapping[str, Features] | None = None,
    protocol: str | None = None,
    seed: int = 0,
    folds: int = 5,
    positive: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Measure with a linear classifier how much features tell about a label.

    The protocols are those of `vitaepp.evaluate`, which does this from file to file. The controls
    go through the very same folds.

    Args:
        features: `(subject, feature)`, row i of the subject in row i of the table. Or one array an
            outer fold, in the order of `plan_folds`, where the encoder of each fold was trained
            without its test subjects.
        table: one row a subject, with `subject` and the label column; `split` for given train and
            test parts, and `participant` where one person has several images.
        label: column of classes; subjects where it is empty are left out.
        controls: `(subject, feature)` each, of the same subjects: `untrained`, features of an
            untrained encoder, and `raw`, intensities, which are reduced by PCA in each fold.
        protocol: `svm` or `linear`; unset, `linear` where labelled subjects are split into train
            and test, else `svm`.
        seed: draws the folds and the held-out parts.
        folds: outer folds of `svm`; at least 2.
        positive: the class that sensitivity is of, where there are two; unset, the last in sort
            order.
        provenance: facts about the features to be kept with the result: `method`, `name`, …

    Raises:
        EvaluationError: arrays and table do not fit, or the label or the splits do not allow it.

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
    labels, chosen, parts = labelled_folds(ordered, label, protocol, folds, seed)
    # Classifiers are fitted on classes in sort order, so that the choice of the positive one
    # changes what numbers are called, and none of them.
    shown = labels.with_positive(positive)
    for_all_folds = isinstance(features, np.ndarray)
    each = [features] if isinstance(features, np.ndarray) else list(features)
    if not for_all_folds and len(each) != len(parts):
        raise EvaluationError(
            f"{len(each)} sets of features for {len(parts)} folds; give one a fold"
        )
    each = [_checked(one, ordered, "features") for one in each]
    controls = _known_controls(controls or {}, ordered)
    if order := told_order(labels):
        say(order)
    for doubt in (*doubts(labels), *_split_doubts(ordered, chosen, protocol)):
        warn(doubt)
    if labels.missing:
        say(f"{labels.missing} of {len(table)} subjects have no {label}; they are left out")
    used = np.unique(np.concatenate([np.r_[p.train, p.test] for p in parts]))
    if others := len(labels.rows) - len(used):
        be = "is" if others == 1 else "are"
        say(f"{counted(others, 'subject')} {be} neither in train nor in test")

    labelled = ordered.iloc[labels.rows]
    persons = persons_of(labelled)
    for values in each if for_all_folds else ():
        if doubt := _repeated(values[labels.rows], persons):
            warn(doubt)
    sets = {METHOD: each * (len(parts) // len(each))}
    sets |= {name: [values] * len(parts) for name, values in controls.items()}
    measured = {name: _Measured() for name in sets}
    tasks = [(name, k) for name in sets for k in range(len(parts))]
    for name, k in track(tasks, f"evaluate {label}", len(tasks), unit="classifiers"):
        rows = sets[name][k][labels.rows]
        one = (chosen, rows, labels, shown, persons, parts[k], seed + k)
        _measure(measured[name], *one, pca=name == "raw")

    mapped = map_rows(len(labels.rows), seed=seed)
    places, how = embedding_map(each[0][labels.rows[mapped]], seed=seed)
    metrics = {
        "protocol": chosen,
        "label": label,
        "n": len(used),
        "classes": list(shown.classes),
        "positive": shown.classes[1] if len(shown.classes) == 2 else None,
        "positive_by": "the last in order" if positive is None else "choice",
        "persons": len(np.unique(persons[used])),
        "persons_by": PARTICIPANT if PARTICIPANT in table else "subject",
        **measured[METHOD].to_json(),
        "controls": {
            name: {"what": CONTROLS[name], **measured[name].to_json()} for name in controls
        },
        "members": _members(shown, used),
        "sizes": [{"train": len(p.train), "test": len(p.test)} for p in parts],
        "left_out": {"unlabelled": labels.missing, "other splits": others},
        "features": int(each[0].shape[1]),
        "pretraining": "as the run says" if for_all_folds else "without each fold's test subjects",
        "std_is": "sample standard deviation over folds",
        "map": how if len(mapped) == len(labels.rows) else f"{how}, {len(mapped)} random subjects",
        "seed": seed,
        "labels_from": None,
        "provenance": dict(provenance or {}),
    }
    subjects = labelled["subject"].to_numpy()
    points = pd.DataFrame(places, columns=["x", "y"])
    points.insert(0, "subject", subjects[mapped])
    points.insert(1, "label", [str(labels.values[i]) for i in mapped])
    return Evaluation(metrics, _predictions(subjects, shown, parts, measured), points)


def _checked(features: Features, ordered: pd.DataFrame, title: str) -> Features:
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
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        subject = ordered["subject"][int(np.flatnonzero(~finite)[0])]
        raise EvaluationError(f"{title} of subject {subject} are not finite; embed again")
    return features[ordered.index.to_numpy()]


def _split_doubts(ordered: pd.DataFrame, chosen: Protocol, given: str | None) -> list[str]:
    """What to say where a table has splits, but not those that protocol linear needs."""
    splits = sorted(set(canonical_splits(ordered["split"])) - {""})
    if chosen != "svm" or given is not None or len(splits) < 2:
        return []
    return [
        f"splits {', '.join(splits)} are not used: without both train and test, protocol svm draws "
        "its own folds over all subjects"
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


def _known_controls(controls: Mapping[str, Features], ordered: pd.DataFrame) -> dict[str, Features]:
    for name in controls:
        if name not in CONTROLS:
            raise EvaluationError(f"no control {name!r}; {nearest(name, CONTROLS)}")
    return {
        name: _checked(controls[name], ordered, f"control {name}: its features")
        for name in CONTROLS
        if name in controls
    }


def _measure(
    measured: _Measured,
    protocol: Protocol,
    features: Features,
    labels: Labels,
    shown: Labels,
    persons: Persons,
    part: Fold,
    seed: int,
    *,
    pca: bool,
) -> None:
    """Fit on the classes of `labels`, and score by those of `shown`."""
    train = part.train
    fitted = fit(
        protocol, features[train], labels.codes[train], seed=seed, pca=pca, persons=persons[train]
    )
    decision = fitted.decision(features[part.test])
    if shown.classes != labels.classes:
        decision = -decision
    measured.folds.append(fold_scores(shown.codes[part.test], decision))
    measured.decisions.append(decision)
    measured.chosen.append(fitted.C)


def _members(labels: Labels, used: npt.NDArray[np.intp]) -> dict[str, int]:
    counts = np.bincount(labels.codes[used], minlength=len(labels.classes))
    return {str(c): int(n) for c, n in zip(labels.classes, counts, strict=True)}


def _predictions(
    subjects: npt.NDArray[Any], labels: Labels, parts: list[Fold], measured: Mapping[str, _Measured]
) -> pd.DataFrame:
    tested = np.concatenate([p.test for p in parts])
    columns: dict[str, Any] = {
        "subject": subjects[tested],
        "fold": np.repeat(np.arange(len(parts)), [len(p.test) for p in parts]),
        "label": [str(labels.values[i]) for i in tested],
    }
    for name, result in measured.items():
        scores = np.concatenate(result.decisions).reshape(len(tested), -1)
        columns |= dict(zip(score_columns(name, labels.classes), scores.T, strict=True))
    return pd.DataFrame(columns)
