"""Do errors gather in a subgroup? The AUC in each, and a test that all are told equally well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.auditing.permutation import SHUFFLES, blocks_of_shuffles, p_of
from vitaepp.data.arrays import Flags, Floats, Indices
from vitaepp.data.participants import Persons
from vitaepp.evaluation import bootstrap
from vitaepp.evaluation.result import METHOD, Evaluation

#: Participants of each class that a subgroup needs, so that its AUC says anything.
FEWEST = 5


@dataclass(frozen=True, eq=False)
class Decisions:
    """What a classifier said of the subjects that it was tested on.

    Attributes:
        subjects: `(row,)`, their keys.
        persons: `(row,)`, the person of each.
        codes: `(row,)`, their classes.
        folds: `(row,)`, where each was tested.
        columns: for each class that is held against the rest, its rows and their scores; of two
            classes, the positive one alone.
    """

    subjects: npt.NDArray[Any]
    persons: Persons
    codes: Indices
    folds: Indices
    columns: list[tuple[Flags, Floats]]

    @classmethod
    def of(cls, evaluation: Evaluation, person_of: pd.Series[Any]) -> Decisions:
        """The decisions of an evaluation.

        Args:
            evaluation: with its predictions.
            person_of: a number for the person of each subject, by its key.
        """
        rows, codes, scores = evaluation.rows(), evaluation.codes(), evaluation.scores(METHOD)
        columns = [(codes == 1, scores)]
        if scores.ndim == 2:
            columns = [(codes == c, scores[:, c]) for c in range(scores.shape[1])]
        subjects = rows["subject"].to_numpy()
        persons = person_of.loc[subjects].to_numpy(np.intp)
        return cls(subjects, persons, codes, rows["fold"].to_numpy(np.intp), columns)

    def auc(self, weights: Floats) -> Floats:
        """The AUC of weighted rows, over the pairs of subjects that were tested in one fold.

        Scores of two folds do not compare. Folds count by their pairs; so a subgroup that is small
        in each has an AUC all the same. Of more than two classes it is the mean over them.

        Args:
            weights: `(resample, row)`, how often each row is there.

        Returns:
            `(resample,)`; NaN where there is no pair.
        """
        values = []
        for positive, scores in self.columns:
            won = np.zeros(len(weights))
            pairs = np.zeros(len(weights))
            for fold in np.unique(self.folds):
                rows = self.folds == fold
                w, is_positive = weights[:, rows], positive[rows]
                count = w[:, is_positive].sum(axis=1) * w[:, ~is_positive].sum(axis=1)
                won += count * np.nan_to_num(bootstrap.weighted_auc(is_positive, scores[rows], w))
                pairs += count
            values.append(bootstrap.ratio(won, pairs))
        return bootstrap.mean_of_defined(np.stack(values, axis=-1))

    def interval(self, among: Flags | None = None) -> bootstrap.Interval:
        """A 95 % interval of the AUC, had other participants been tested: a bootstrap of them.

        Args:
            among: `(row,)`, a subgroup; unset, all rows.
        """
        rows = np.ones(len(self.codes), bool) if among is None else among
        resamples = bootstrap.resampled_persons(self.codes, self.persons, bootstrap.RESAMPLES, 0)
        values = np.concatenate([self.auc(w * rows) for w in resamples])
        return bootstrap.percentiles(values[np.isfinite(values)])


@dataclass(frozen=True)
class Subgroup:
    """One subgroup: its subjects, and how well they are told; no AUC where they are too few."""

    name: str
    n: int
    participants: int
    auc: float | None
    interval: bootstrap.Interval | None


@dataclass(frozen=True)
class Errors:
    """How errors are spread over the subgroups of a fact.

    Attributes:
        groups: all of them, by name.
        worst: the one with the lowest AUC.
        gap: how much lower that is than the AUC of all others together.
        p: of all subgroups being told equally well, not corrected.
    """

    groups: list[Subgroup]
    worst: Subgroup
    gap: float
    p: float


def errors_by(
    decisions: Decisions, groups: pd.Series[Any], *, seed: int, count: int = SHUFFLES
) -> Errors | None:
    """Compare the AUC of subgroups, by `spread_test`.

    Args:
        decisions: of the classifier.
        groups: the subgroup of each subject, by its key; missing where unknown.
        seed: of the shuffles.
        count: of shuffles.

    Returns:
        None where there are not two subgroups of some size.
    """
    of_row = groups.reindex(decisions.subjects).to_numpy(object)
    names = sorted({g for g in of_row if isinstance(g, str)})
    inside = np.array([of_row == name for name in names], bool).reshape(len(names), len(of_row))
    large = [
        all(
            len(np.unique(decisions.persons[rows & (decisions.codes == c)])) >= FEWEST
            for c in np.unique(decisions.codes)
        )
        for rows in inside
    ]
    if sum(large) < 2:
        return None
    aucs = decisions.auc(inside.astype(float))
    of_groups = [
        Subgroup(
            name,
            int(rows.sum()),
            len(np.unique(decisions.persons[rows])),
            float(auc) if enough else None,
            decisions.interval(rows) if enough else None,
        )
        for name, rows, auc, enough in zip(names, inside, aucs, large, strict=True)
    ]
    tested = inside[large].astype(float)
    worst = int(np.nanargmin(np.where(large, aucs, np.nan)))
    others = tested.sum(axis=0) * ~inside[worst]
    gap = float(decisions.auc(others[None])[0] - aucs[worst])
    p = spread_test(decisions, tested, seed=seed, count=count)
    return Errors(of_groups, of_groups[worst], gap, p)


def spread_test(decisions: Decisions, inside: Floats, *, seed: int, count: int = SHUFFLES) -> float:
    """Are all subgroups told equally well? A p.

    Subgroups are shuffled between participants who were tested in one fold and are of one class.
    What is compared is how far each AUC is from that of all, the mean square, where a subgroup
    counts by its size. It is one test, however many subgroups there are.

    Args:
        decisions: of the classifier.
        inside: `(subgroup, row)`, 1 where a row is of a subgroup.
        seed: of the shuffles.
        count: of shuffles.
    """
    strata = decisions.folds * (decisions.codes.max() + 1) + decisions.codes
    observed = _spread(decisions, inside[None])
    blocks = blocks_of_shuffles(
        decisions.persons, inside.size, seed=seed, strata=strata, count=count
    )
    values = [_spread(decisions, np.moveaxis(inside[:, rows], 1, 0)) for rows in blocks]
    return p_of(float(observed[0]), np.concatenate(values))


def _spread(decisions: Decisions, inside: Floats) -> Floats:
    """How far subgroups are from the AUC of all, the mean square by size.

    Args:
        decisions: of the classifier.
        inside: `(shuffle, subgroup, row)`, 1 where a row is of a subgroup.

    Returns:
        `(shuffle,)`.
    """
    shuffled, groups, rows = inside.shape
    aucs = decisions.auc(inside.reshape(-1, rows)).reshape(shuffled, groups)
    middle = decisions.auc(inside.sum(axis=1))[:, None]
    sizes = inside.sum(axis=2)
    return np.asarray(np.nansum(sizes * (aucs - middle) ** 2, axis=1) / sizes.sum(axis=1))
