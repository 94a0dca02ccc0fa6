"""Evaluate an embedding: linear classifiers on it and on its controls, over the same folds.

DIR/
  metrics.json          the contract: protocol, label, n, classes, folds, mean, std, controls
  predictions.parquet   a row per tested subject: fold, label, decision scores of all
  map.csv               the embedding in two dimensions: subject, label, x, y
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.embeddings import CONTROLS, Embeddings, control_path
from vitaepp.data.splits import canonical_splits
from vitaepp.data.store import PARTICIPANT
from vitaepp.data.storeinfo import StoreInfo, unlike
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.classifier import Protocol, fit, outer_folds
from vitaepp.evaluation.labels import (
    Class,
    Labels,
    read_labels,
    require_in_both,
    require_members,
    told_order,
)
from vitaepp.evaluation.map import embedding_map, map_rows
from vitaepp.evaluation.participants import Persons, persons_of, require_apart
from vitaepp.evaluation.scores import fold_scores, spread
from vitaepp.evaluation.summary import headline
from vitaepp.system.files import atomic_path, check_writable, file_stem, write_json
from vitaepp.system.progress import counted, say, track

#: Name of the embedding itself, beside those of its controls, in predictions.parquet.
METHOD = "method"

_Array = npt.NDArray[np.floating[Any]]


class Metrics(dict[str, Any]):
    """What metrics.json holds, and what `compare` needs beside it.

    Attributes:
        path: the metrics.json.
        predictions: as in predictions.parquet.
    """

    def __init__(self, values: Mapping[str, Any], path: Path, predictions: pd.DataFrame) -> None:
        super().__init__(values)
        self.path = path
        self.predictions = predictions

    def __repr__(self) -> str:
        return f"Metrics({headline(self)})"


@dataclass(frozen=True)
class _Fold:
    train: npt.NDArray[np.intp]
    test: npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Measured:
    """One set of features, measured: scores and decisions per fold, and the C of each."""

    folds: list[dict[str, float]]
    decisions: list[npt.NDArray[np.float64]]
    chosen: list[float]

    def to_json(self) -> dict[str, Any]:
        mean, std = spread(self.folds)
        return {"folds": self.folds, "mean": mean, "std": std, "C": self.chosen}


def evaluate(
    embeddings: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    label: str,
    out: str | os.PathLike[str],
    protocol: str | None = None,
    seed: int = 0,
    folds: int = 5,
    any_store: bool = False,
    positive: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    id_column: str | None = None,
) -> Metrics:
    """Measure with a linear classifier how much an embedding tells about a label.

    Protocol `svm` is the paper's for 3D: a linear SVM in stratified five-fold nested
    cross-validation, 20 % of each training part held out to choose C, refit on all of it. Protocol
    `linear` is the paper's for 2D: a linear probe (multinomial logistic regression) on given train
    and test splits, 20 % of train held out for its C; subjects of any other split take no part.
    Features are standardised on the training part. AUC is taken from the decision function;
    sensitivity and specificity, with two classes, at its zero.

    The controls that lie beside the embeddings, an untrained encoder and raw intensities (reduced
    by PCA inside each training part), go through the very same folds.

    Args:
        embeddings: Parquet file of `vitaepp embed`; or one an outer fold, in the order of
            `plan_folds`, whose encoder was pre-trained without this fold's test subjects (the
            strict protocol), which is checked.
        label: column of classes; subjects where it is empty are left out.
        out: folder for metrics.json, predictions.parquet and map.csv. A report finds it inside
            the run, or is given it.
        protocol: `svm` or `linear`; unset, `linear` where labelled subjects are split into train
            and test, else `svm`.
        seed: draws the folds and the held-out parts.
        folds: outer folds of `svm`; at least 2.
        any_store: also where several files were embedded from stores that were prepared in
            different ways.
        positive: the class that sensitivity is of, where there are two; unset, the last in sort
            order, numbers by size and text by alphabet.
        labels: CSV, TSV or XLSX whose columns are joined to the embeddings by subject; those that
            they have already are this table's, and told where they differ.
        id_column: its column of subjects. Unset: `subject`, `subject_id`, `participant_id` or
            `patient`.

    Returns:
        What metrics.json holds, which `compare` takes as it is. Standard deviations are the
        sample's over folds, None for one fold.

    Raises:
        EvaluationError: the file, the label or the splits do not allow the evaluation.
        SourceError: the table of labels cannot be joined.

    Source:
        Prabhakar et al. 2023, section 4, "Evaluation strategy, classifier, and metrics".
    """
    if Path(out).exists() and not Path(out).is_dir():
        raise EvaluationError(f"{out}: is a file; --out names a folder")
    strict = not isinstance(embeddings, str | os.PathLike)
    paths = [Path(e) for e in embeddings] if strict else [Path(embeddings)]  # type: ignore[union-attr,arg-type]
    every = [_sorted_by_subject(Embeddings.load(path), path) for path in paths]
    embedded = every[0]
    for path, other in zip(paths, every, strict=True):
        _require_same_subjects(path, other, paths[0], embedded)
        _require_like_store(path, other, paths[0], embedded, any_store)
    if told := embedded.provenance.get("unlike"):
        say(f"{paths[0]}: embedded with {', '.join(told)} in the encoder's training")
    if told := embedded.provenance.get("unfinished"):
        say(f"{paths[0]}: the training had not ended: {told}")
    if labels is not None:
        embedded = _with_labels(embedded, Path(labels), id_column)
    elif id_column is not None:
        raise EvaluationError("--id-column names a column of --labels; give that, too")
    found, chosen, parts = _plan(embedded.table, label, protocol, folds, seed)
    _refuse_other_label(Path(out), label)
    check_writable(Path(out) / "metrics.json")
    # Classifiers are fitted on classes in sort order, so that the choice of the positive one
    # changes what numbers are called, and none of them.
    shown_labels = found.with_positive(positive)
    if told := told_order(found):
        say(told)
    if found.missing:
        say(f"{found.missing} of {len(embedded.table)} subjects have no {label}; they are left out")
    used = np.unique(np.concatenate([np.r_[p.train, p.test] for p in parts]))
    if len(used) < len(found.rows):
        others = len(found.rows) - len(used)
        be = "is" if others == 1 else "are"
        say(f"{counted(others, 'subject')} {be} neither in train nor in test")
    subjects = embedded.table["subject"].to_numpy()[found.rows]
    if strict:
        if len(every) != len(parts):
            raise EvaluationError(
                f"{len(every)} files of embeddings for {len(parts)} folds; give one a fold"
            )
        for path, other, part in zip(paths, every, parts, strict=True):
            _refuse_leak(path, other, set(subjects[part.test]))
    controls = _load_controls(paths[0], embedded, any_store)
    persons = persons_of(embedded.table.iloc[found.rows])
    features = {METHOD: [e.features for e in every] * (1 if strict else len(parts))}
    features |= {name: [c.features] * len(parts) for name, c in controls.items()}
    tasks = [(name, k) for name in features for k in range(len(parts))]
    measured = {name: _Measured([], [], []) for name in features}
    for name, k in track(tasks, f"evaluate {label}", len(tasks), unit="classifiers"):
        rows = features[name][k][found.rows]
        _measure(
            measured[name],
            chosen,
            rows,
            (found, shown_labels),
            persons,
            parts[k],
            seed + k,
            pca=name == "raw",
        )

    shown = map_rows(len(found.rows), seed=seed)
    points, how = embedding_map(embedded.features[found.rows[shown]], seed=seed)
    metrics = {
        "protocol": chosen,
        "label": label,
        "n": len(used),
        "classes": list(shown_labels.classes),
        "positive": shown_labels.classes[1] if len(found.classes) == 2 else None,
        "positive_by": "the last in order" if positive is None else "choice",
        "persons": len(np.unique(persons[used])),
        "persons_by": PARTICIPANT if PARTICIPANT in embedded.table else "subject",
        **measured[METHOD].to_json(),
        "controls": {
            name: {"what": CONTROLS[name], **measured[name].to_json()} for name in controls
        },
        "members": _members(shown_labels, used),
        "sizes": [{"train": len(p.train), "test": len(p.test)} for p in parts],
        "left_out": {
            "unlabelled": found.missing,
            "other splits": len(found.rows) - len(used),
        },
        "features": int(embedded.features.shape[1]),
        "pretraining": "without each fold's test subjects" if strict else "as the run says",
        "std_is": "sample standard deviation over folds",
        "map": how if len(shown) == len(found.rows) else f"{how}, {len(shown)} random subjects",
        "seed": seed,
        "labels_from": None if labels is None else Path(labels).name,
        "provenance": _provenance(every),
    }
    predictions = _predictions(subjects, shown_labels, parts, measured)
    points_table = pd.DataFrame(
        {
            "subject": subjects[shown],
            "label": [str(found.values[i]) for i in shown],
            "x": points[:, 0],
            "y": points[:, 1],
        }
    )
    _write(Path(out), metrics, predictions, points_table)
    return Metrics(metrics, Path(out) / "metrics.json", predictions)


def plan_folds(
    table: pd.DataFrame,
    label: str,
    protocol: str | None = None,
    folds: int = 5,
    seed: int = 0,
) -> list[tuple[list[str], list[str]]]:
    """The subjects that `evaluate` fits on and tests, fold by fold, without evaluating.

    Args:
        table: `subject`, `split` and label columns, as a store or embeddings have them.
        label: column of classes.
        protocol: as in `evaluate`.
        folds: outer folds of `svm`.
        seed: draws the folds.

    Raises:
        EvaluationError: the label or the splits do not allow it.
    """
    ordered = table.assign(subject=table["subject"].astype(str))
    ordered = ordered.sort_values("subject", kind="stable", ignore_index=True)
    labels, _, parts = _plan(ordered, label, protocol, folds, seed)
    subjects = ordered["subject"].to_numpy()[labels.rows]
    return [(list(subjects[p.train]), list(subjects[p.test])) for p in parts]


def _plan(
    table: pd.DataFrame, label: str, protocol: str | None, folds: int, seed: int
) -> tuple[Labels, Protocol, list[_Fold]]:
    """Which labelled rows train and test in each fold, or an error where that cannot be.

    Rows of `table` are in the order of their subjects.
    """
    if folds < 2:
        raise EvaluationError(f"folds={folds}: cross-validation needs at least 2")
    if protocol not in (None, "svm", "linear"):
        raise EvaluationError(f"no protocol {protocol!r}; known are linear, svm")
    labels = read_labels(table, label)
    labelled = table.iloc[labels.rows]
    persons = persons_of(labelled)
    splits = canonical_splits(labelled["split"]).to_numpy()
    given = {"train", "test"} <= set(splits)
    if protocol == "linear" or (protocol is None and given):
        require_in_both(labels, list(splits))
        sides = {side: np.flatnonzero(splits == side) for side in ("train", "test")}
        require_apart(labelled, sides)
        return labels, "linear", [_Fold(**sides)]
    # With two folds, a training part is half a class, and must itself be split once more.
    require_members(labels, folds if folds > 2 else 4, persons)
    fold_of = outer_folds(labels.codes, folds=folds, seed=seed, persons=persons)
    parts = [
        _Fold(np.flatnonzero(fold_of != k), np.flatnonzero(fold_of == k)) for k in range(folds)
    ]
    return labels, "svm", parts


def _with_labels(embedded: Embeddings, labels: Path, id_column: str | None) -> Embeddings:
    """Embeddings with the columns of a label table, by subject."""
    from vitaepp.data.labels import join_labels, say_missing

    table, without = join_labels(
        embedded.table,
        labels,
        id_column=id_column,
        origin="the embeddings",
        replacing=True,
    )
    say_missing(labels.name, without, len(table))
    return replace(embedded, table=table)


def _refuse_other_label(folder: Path, label: str) -> None:
    """Refuse to write over the evaluation of another label."""
    try:
        there = json.loads((folder / "metrics.json").read_bytes())["label"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # nothing, or nothing whole
    if there != label:
        raise EvaluationError(
            f"{folder}: holds the evaluation of label {there!r}; give that of {label!r} a folder "
            f"of its own, as --out {folder.with_name(f'{folder.name}-{file_stem(label)}')}"
        )


def _refuse_leak(path: Path, embedded: Embeddings, tested: set[Any]) -> None:
    """Refuse embeddings whose encoder was pre-trained on subjects that they are tested on."""
    if "pretrained_on" not in embedded.provenance:
        say(
            f"{path}: does not tell which subjects its encoder was pre-trained on; see to it that "
            "its fold's test subjects are not among them"
        )
        return
    trained = embedded.provenance["pretrained_on"]
    if trained is None or tested & set(trained):
        raise EvaluationError(
            f"{path}: its encoder was pre-trained on subjects that its fold tests; pre-train it "
            "with --subjects, on the fold's training part only"
        )


def _require_same_subjects(
    path: Path, embedded: Embeddings, first_path: Path, first: Embeddings
) -> None:
    if list(embedded.table["subject"]) != list(first.table["subject"]):
        raise EvaluationError(
            f"{path}: holds other subjects than {first_path.name}; run vitaepp embed again"
        )


def _require_like_store(
    path: Path, embedded: Embeddings, first_path: Path, first: Embeddings, any_store: bool
) -> None:
    """Refuse features of images that were prepared in another way, as far as files tell."""
    facts = [e.provenance.get("prepared") or {} for e in (embedded, first)]
    if any_store or not all(facts):
        return
    try:
        told = unlike(*(StoreInfo.parse(f) for f in facts))
    except TypeError:
        return  # another version's
    if told:
        raise EvaluationError(
            f"{path}: embedded from a store with {', '.join(told)} in that of {first_path.name}; "
            "embed both from one store, or go on with any_store=True"
        )


def _sorted_by_subject(embedded: Embeddings, path: Path) -> Embeddings:
    """Rows in the order of their subjects, so that folds are tied to them and not to the file."""
    subjects = embedded.table["subject"].astype(str)
    twice = subjects[subjects.duplicated()]
    if len(twice):
        raise EvaluationError(f"{path}: subject {twice.iloc[0]!r} is there twice; embed again")
    order = np.argsort(subjects.to_numpy(dtype=object), kind="stable")
    table = embedded.table.assign(subject=subjects).iloc[order].reset_index(drop=True)
    return Embeddings(table, embedded.features[order], embedded.provenance)


def _load_controls(path: Path, embedded: Embeddings, any_store: bool) -> dict[str, Embeddings]:
    controls = {}
    for name in CONTROLS:
        file = control_path(path, name)
        if not file.is_file():
            continue
        control = _sorted_by_subject(Embeddings.load(file), file)
        _require_same_subjects(file, control, path, embedded)
        _require_like_store(file, control, path, embedded, any_store)
        controls[name] = control
    missing = [CONTROLS[name] for name in CONTROLS if name not in controls]
    if missing:
        say(
            f"no control beside {path}: {' and '.join(missing)}; a number without its controls "
            "says nothing, vitaepp embed writes them"
        )
    return controls


def _measure(
    measured: _Measured,
    protocol: Protocol,
    features: _Array,
    labels: tuple[Labels, Labels],
    persons: Persons,
    part: _Fold,
    seed: int,
    pca: bool,
) -> None:
    """Fit on the classes of the first labels, and score by those of the second."""
    train = part.train
    fitted_on, scored_by = labels
    fitted = fit(
        protocol,
        features[train],
        fitted_on.codes[train],
        seed=seed,
        pca=pca,
        persons=persons[train],
    )
    decision = fitted.decision(features[part.test])
    if scored_by.classes != fitted_on.classes:
        decision = -decision
    measured.folds.append(fold_scores(scored_by.codes[part.test], decision))
    measured.decisions.append(decision)
    measured.chosen.append(fitted.C)


def _members(labels: Labels, used: npt.NDArray[np.intp]) -> dict[str, int]:
    counts = np.bincount(labels.codes[used], minlength=len(labels.classes))
    return {str(c): int(n) for c, n in zip(labels.classes, counts, strict=True)}


def score_columns(name: str, classes: list[Class] | tuple[Class, ...]) -> list[str]:
    """Columns of predictions.parquet that hold the decision scores of one set of features.

    >>> score_columns("raw", ["high", "low"]), score_columns("raw", [1, 2, 3])
    (['raw'], ['raw:1', 'raw:2', 'raw:3'])
    """
    return [name] if len(classes) == 2 else [f"{name}:{c}" for c in classes]


def _predictions(
    subjects: npt.NDArray[Any],
    labels: Labels,
    parts: list[_Fold],
    measured: Mapping[str, _Measured],
) -> pd.DataFrame:
    tested = np.concatenate([p.test for p in parts])
    columns: dict[str, Any] = {
        "subject": subjects[tested],
        "fold": np.repeat(np.arange(len(parts)), [len(p.test) for p in parts]),
        "label": [str(labels.values[i]) for i in tested],
    }
    for name, result in measured.items():
        decisions = np.concatenate(result.decisions)
        scores = decisions.reshape(len(tested), -1)
        names = score_columns(name, labels.classes)
        columns |= dict(zip(names, scores.T, strict=True))
    return pd.DataFrame(columns)


def _provenance(every: Sequence[Embeddings]) -> dict[str, Any]:
    """Where the embeddings come from: of several, the run and the encoder of each fold.

    Run and store by name: results are passed on, and where folders lay is nobody's business. An
    older version's embeddings have paths. Lists of subjects stay with the embeddings.
    """
    folders = ("run", "store")
    facts = [
        {
            k: Path(v).name if k in folders else v
            for k, v in one.provenance.items()
            if k != "pretrained_on"
        }
        for one in every
    ]
    if len(facts) == 1:
        return facts[0]
    return facts[0] | {name: [one.get(name) for one in facts] for name in ("run", "encoder")}


def _write(
    folder: Path, metrics: dict[str, Any], predictions: pd.DataFrame, points: pd.DataFrame
) -> None:
    with atomic_path(folder / "predictions.parquet") as temporary:
        predictions.to_parquet(temporary, index=False)
    with atomic_path(folder / "map.csv") as temporary:
        points.to_csv(temporary, index=False)
    # Last, because a report takes a folder for complete when it finds this file.
    write_json(folder / "metrics.json", metrics)
