"""Which subjects a classifier is fitted on and which it is tested on, fold by fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.arrays import Indices
from vitaepp.data.cells import MISSING
from vitaepp.data.participants import Persons, persons_of
from vitaepp.data.splits import canonical_splits
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.classifier import PROTOCOLS, outer_folds
from vitaepp.evaluation.labels import Labels, label_column
from vitaepp.evaluation.tasks.base import Target
from vitaepp.evaluation.tasks.classification import Classification
from vitaepp.system.progress import counted
from vitaepp.system.text import first_few

#: What the name of a group begins with that is one subject without a group.
OWN = "subject "

#: How many folds are drawn if nobody says it, as in the paper.
FOLDS = 5

#: With fewer groups in a training part, none of them is held out to choose a strength.
MANY_GROUPS = 10


@dataclass(frozen=True)
class Fold:
    """Positions among the labelled subjects.

    Attributes:
        train: what the classifier is fitted on.
        test: what it is tested on.
    """

    train: Indices
    test: Indices


def plan_folds(
    table: pd.DataFrame, label: str, protocol: str | None = None, folds: int = FOLDS, seed: int = 0
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
) -> tuple[Labels, str, list[Fold]]:
    """The labels, the protocol, and the folds of the labelled rows of a table `by_subject`.

    Raises:
        EvaluationError: the label or the splits do not allow it.
    """
    target = Classification(table, label)
    shared = share_out(target, table, protocol=protocol, folds=folds, seed=seed)
    return target.labels, shared.protocol, shared.folds


@dataclass(frozen=True)
class Shared:
    """How labelled subjects are shared out.

    Attributes:
        protocol: `svm`, `linear` or `knn`.
        folds: one a test part.
        groups: the group that each fold tests; empty unless one is left out at a time.
        given: whether the parts are the table's own, train and test.
        persons: `(labelled,)`, whose subjects stay together where a strength is chosen.
        untested: groups that are too small to be tested alone.
        notes: what a person should know of the groups.
    """

    protocol: str
    folds: list[Fold]
    groups: list[str]
    given: bool
    persons: Persons
    untested: list[str]
    notes: list[str]


def share_out(
    target: Target,
    table: pd.DataFrame,
    *,
    protocol: str | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    group: str | None = None,
    leave_one_group_out: bool = False,
) -> Shared:
    """Share the labelled subjects of a table `by_subject` out into folds.

    Args:
        target: what is predicted of them.
        table: one row a subject.
        protocol: `svm`, `linear` or `knn`; unset, the target's own.
        folds: how many are drawn.
        seed: draws them.
        group: a column, as of sites or scanners, whose groups no fold splits.
        leave_one_group_out: each group is tested once, by models that saw none of it.

    Raises:
        EvaluationError: labels, splits or groups do not allow it.
    """
    if folds < 2:
        raise EvaluationError(f"folds={folds}: cross-validation needs at least 2")
    if protocol not in (None, *PROTOCOLS):
        raise EvaluationError(f"no protocol {protocol!r}; known are {', '.join(PROTOCOLS)}")
    labelled = table.iloc[target.rows]
    splits = canonical_splits(labelled["split"]).to_numpy()
    sides = {side: np.flatnonzero(splits == side) for side in ("train", "test")}
    # The SVM of classes is the paper's cross-validation; that of values follows the table.
    crossed = protocol == "svm" and target.default_protocol(False) == "svm"
    given = group is None and not crossed and all(map(len, sides.values()))
    protocol = protocol or target.default_protocol(given)
    persons = persons_of(labelled)
    notes: list[str] = []
    if group is None:
        if leave_one_group_out:
            raise EvaluationError("`leave_one_group_out` needs a column of groups, as `group=site`")
        if given or (protocol == "linear" and target.default_protocol(False) == "svm"):
            target.require_train_and_test(**sides)
            require_apart(labelled, sides)
            return Shared(protocol, [Fold(**sides)], [], True, persons, [], [])
    else:
        names = groups_of(labelled, group)
        if own := sum(str(name).startswith(OWN) for name in names):
            notes.append(
                f"{counted(own, 'subject')} without {group}: each counts as a group of its own "
                f"(missing are empty cells and the words {', '.join(filter(None, MISSING))})"
            )
        notes += _group_doubts(group, names)
        if leave_one_group_out:
            return _one_group_out(target, protocol, group, names, persons, notes)
        together = _joined(persons, pd.factorize(names)[0])
        _require_groups(target, group, together, folds)
    if group is None:
        together = persons
        target.require_members(folds, persons)
    every = isinstance(target, Classification)
    fold_of = outer_folds(target.strata, folds=folds, seed=seed, persons=together, every=every)
    parts = [Fold(np.flatnonzero(fold_of != k), np.flatnonzero(fold_of == k)) for k in range(folds)]
    if not all(target.scored(p.train, p.test) for p in parts):
        raise EvaluationError(
            f"label {target.name!r} cannot be split into {folds} folds that can be scored each; "
            "choose another `seed` or fewer `folds`, or label more"
        )
    return Shared(protocol, parts, [], False, _inner(target, parts, persons, together), [], notes)


def _require_groups(target: Target, group: str, together: Persons, folds: int) -> None:
    """Refuse groups that are too few for cross-validation."""
    strata = target.strata if isinstance(target, Classification) else np.zeros(len(together), int)
    counts = [len(np.unique(together[strata == s])) for s in np.unique(strata)]
    if min(counts) < folds:
        raise EvaluationError(
            f"column {group!r}: {counted(min(counts), 'group')} with subjects of each class of "
            f"{target.name!r} are too few for {folds} folds, which keep groups whole; ask for "
            "fewer `folds`, or for `leave_one_group_out`"
        )


def _inner(target: Target, parts: Sequence[Fold], persons: Persons, together: Persons) -> Persons:
    """Whose rows stay together where a strength is chosen: groups, where they are many.

    A handful of sites cannot be split once more, so that there persons are held out.
    """
    for part in parts:
        codes, groups = target.strata[part.train], together[part.train]
        if min(len(np.unique(groups[codes == c])) for c in np.unique(codes)) < MANY_GROUPS:
            return persons
    return together


def _group_doubts(group: str, names: npt.NDArray[np.object_]) -> list[str]:
    """What to say of groups that may not be meant."""
    different = set(map(str, names))
    if len(different) <= len(names) / 2:
        return []
    return [
        f"column {group!r} has {len(different)} groups in {counted(len(names), 'subject')}: most "
        "are one subject, as of a measurement; is it the column of sites?"
    ]


def groups_of(table: pd.DataFrame, group: str) -> npt.NDArray[np.object_]:
    """The group of each subject, as text; subjects without one are a group each.

    Raises:
        EvaluationError: no such column, or one group only.
    """
    column = label_column(table, group)
    names = column.astype(object).where(column.notna(), "").astype(str).str.strip().to_numpy(object)
    if len(set(names)) < 2:
        raise EvaluationError(f"column {group!r} has one group only; name another one as `group`")
    own = np.array([f"{OWN}{s}" for s in table["subject"]], object)
    return np.where(names == "", own, names)


def _one_group_out(
    target: Target,
    protocol: str,
    group: str,
    names: npt.NDArray[np.object_],
    persons: Persons,
    notes: list[str],
) -> Shared:
    parts, tested, untested, elsewhere = [], [], [], 0
    for name in sorted(set(names)):
        test = np.flatnonzero(names == name)
        # A person who was scanned at two sites is not trained on where one of them is tested.
        elsewhere += int(((names != name) & np.isin(persons, persons[test])).sum())
        train = np.flatnonzero((names != name) & ~np.isin(persons, persons[test]))
        if target.scored(train, test):
            parts.append(Fold(train, test))
            tested.append(str(name))
        else:
            untested.append(str(name))
    if len(parts) < 2:
        raise EvaluationError(
            f"column {group!r}: {counted(len(parts), 'group')} of {len(set(names))} can be tested "
            f"alone, as a test needs every class of {target.name!r}; join groups, or use `group` "
            "without `leave_one_group_out`"
        )
    if untested:
        notes.append(
            f"{counted(len(untested), 'group')} of {group} cannot be tested alone (too few, or of "
            f"one class), and are only trained on: {first_few(untested)}"
        )
    if elsewhere:
        notes.append(
            f"people were scanned in several groups of {group}: {counted(elsewhere, 'image')} of "
            "those tested are left out of the training parts, all folds together"
        )
    together = _joined(persons, pd.factorize(names)[0])
    inner = _inner(target, parts, persons, together)
    return Shared(protocol, parts, tested, False, inner, untested, notes)


def _joined(one: Persons, other: Indices) -> Persons:
    """Numbers that subjects share where they share either of two, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    shift = int(one.max()) + 1
    nodes = shift + int(other.max()) + 1
    graph = coo_array((np.ones(len(one), bool), (one, other + shift)), shape=(nodes, nodes))
    return np.asarray(connected_components(graph, directed=False)[1][one], np.intp)


def require_apart(table: pd.DataFrame, rows: dict[str, Indices]) -> None:
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
