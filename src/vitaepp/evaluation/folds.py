"""Which subjects a classifier is fitted on and which it is tested on, fold by fold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.participants import persons_of
from vitaepp.data.splits import canonical_splits
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.classifier import Protocol, outer_folds
from vitaepp.evaluation.labels import Labels, read_labels, require_in_both, require_members


@dataclass(frozen=True)
class Fold:
    """Positions among the labelled subjects.

    Attributes:
        train: what the classifier is fitted on.
        test: what it is tested on.
    """

    train: npt.NDArray[np.intp]
    test: npt.NDArray[np.intp]


def plan_folds(
    table: pd.DataFrame, label: str, protocol: str | None = None, folds: int = 5, seed: int = 0
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

    Example:
        >>> table = pd.DataFrame({"subject": list("abcdef"), "grade": [0, 1] * 3})
        >>> plan_folds(table.assign(split=["train"] * 4 + ["test"] * 2), "grade")
        [(['a', 'b', 'c', 'd'], ['e', 'f'])]
    """
    ordered = by_subject(table)
    labels, _, parts = labelled_folds(ordered, label, protocol, folds, seed)
    subjects = ordered["subject"].to_numpy()[labels.rows]
    return [(list(subjects[p.train]), list(subjects[p.test])) for p in parts]


def by_subject(table: pd.DataFrame, source: str = "the table: ") -> pd.DataFrame:
    """A table in the order of its subjects, so that folds do not depend on the order of a file.

    Subjects and splits become text. The index says in which row of the given table each stood.

    Args:
        table: one row a subject.
        source: where it is from, which begins an error.

    Raises:
        EvaluationError: it has no column `subject`, or a subject twice.
    """
    if "subject" not in table:
        raise EvaluationError(f"{source}has no column subject; give one row a subject, named there")
    ordered = table.reset_index(drop=True)
    split = pd.Series(ordered.get("split", ""), index=ordered.index, dtype=object).fillna("")
    ordered = ordered.assign(subject=ordered["subject"].astype(str), split=split)
    twice = ordered["subject"][ordered["subject"].str.strip().duplicated()]
    if len(twice):
        raise EvaluationError(f"{source}subject {twice.iloc[0]!r} is there twice; give each once")
    return ordered.sort_values("subject", kind="stable")


def labelled_folds(
    table: pd.DataFrame, label: str, protocol: str | None, folds: int, seed: int
) -> tuple[Labels, Protocol, list[Fold]]:
    """The labels, the protocol, and the folds of the labelled rows of a table `by_subject`.

    Raises:
        EvaluationError: the label or the splits do not allow it.
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
        return labels, "linear", [Fold(**sides)]
    # With two folds, a training part is half a class, and must itself be split once more.
    require_members(labels, folds if folds > 2 else 4, persons)
    fold_of = outer_folds(labels.codes, folds=folds, seed=seed, persons=persons)
    return (
        labels,
        "svm",
        [Fold(np.flatnonzero(fold_of != k), np.flatnonzero(fold_of == k)) for k in range(folds)],
    )


def require_apart(table: pd.DataFrame, rows: dict[str, npt.NDArray[np.intp]]) -> None:
    """Refuse a split that has one person on both sides.

    Args:
        table: one row a subject.
        rows: of `train` and of `test`.

    Raises:
        EvaluationError: naming a subject of either side.
    """
    persons = persons_of(table)
    both = np.intersect1d(persons[rows["train"]], persons[rows["test"]])
    if len(both):
        subjects = table["subject"].to_numpy()
        first, second = (
            subjects[side[persons[side] == both[0]][0]] for side in (rows["train"], rows["test"])
        )
        raise EvaluationError(
            f"{first} in train and {second} in test are of one participant ({len(both)} such); "
            "give all images of a participant one split"
        )
