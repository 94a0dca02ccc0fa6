"""Permutation tests whose units are participants."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from vitaepp.data.arrays import Flags, Floats, Indices, Numbers
from vitaepp.data.participants import Persons

#: How often values are shuffled. The smallest p is 1 / 2000, which stays significant among a
#: hundred tests.
SHUFFLES = 1999

#: Folds of the ridge regression, and the strengths of its penalty, as multiples of the mean square
#: of a standardised feature.
FOLDS = 5
PENALTIES = (0.1, 1.0, 10.0, 100.0)

#: Values of shuffled targets that are held at once.
AT_ONCE = 4_000_000


def shuffles(
    persons: Persons, *, seed: int, strata: Persons | None = None, count: int = SHUFFLES
) -> Iterator[Indices]:
    """Rows whose values each subject gets instead of its own, anew in every shuffle.

    A participant gets the values of one other participant, subject by subject; of one with fewer
    subjects, in turn.

    Args:
        persons: `(subject,)`, a number for the person of each.
        seed: of the shuffles.
        strata: `(subject,)`, numbers; participants get values only from those of their own stratum,
            which is that of their first subject. Unset, from all.
        count: how many shuffles.

    Example:
        >>> next(shuffles(np.array([0, 0, 1, 1]), seed=0)).tolist()
        [2, 3, 0, 1]
    """
    _, first, person, sizes = np.unique(
        persons, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(person, kind="stable")
    slot = np.empty(len(persons), np.intp)
    slot[order] = np.arange(len(persons)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows_of = np.empty((len(sizes), sizes.max()), np.intp)
    starts = np.cumsum(sizes) - sizes
    for position in range(sizes.max()):
        rows_of[:, position] = order[starts + position % sizes]
    stratum = np.zeros(len(sizes), np.intp) if strata is None else strata[first]
    members = np.argsort(stratum, kind="stable")
    random = np.random.default_rng(seed)
    donor = np.empty(len(sizes), np.intp)
    for _ in range(count):
        donor[members] = np.lexsort((random.random(len(sizes)), stratum))
        yield rows_of[donor[person], slot]


def blocks_of_shuffles(
    persons: Persons, size: int, *, seed: int, strata: Persons | None = None, count: int = SHUFFLES
) -> Iterator[Indices]:
    """The same shuffles, several at a time, `(shuffle, subject)`.

    Args:
        persons: of each subject.
        size: values that a shuffle takes; `AT_ONCE` of them are held at a time.
        seed: of the shuffles.
        strata: as in `shuffles`.
        count: how many shuffles there are in all.
    """
    each = shuffles(persons, seed=seed, strata=strata, count=count)
    while block := list(islice(each, max(1, AT_ONCE // size))):
        yield np.stack(block)


def p_of(observed: float, shuffled: Floats) -> float:
    """How often shuffled values give at least what was observed, which counts as one of them.

    Source:
        Phipson and Smyth 2010, "Permutation p-values should never be zero".

    Example:
        >>> p_of(0.9, np.array([0.1, 0.5, 0.95]))
        0.5
    """
    # A hair of rounding must not tell a shuffle that changes nothing from what was observed.
    return float((1 + (shuffled >= observed - 1e-12).sum()) / (1 + len(shuffled)))


def association_test(
    features: Numbers, targets: Numbers, persons: Persons, *, seed: int, count: int = SHUFFLES
) -> float:
    """Do features tell targets of participants that were not trained on? A p, one-sided.

    Ridge regression predicts the standardised targets in five folds that split no participant. What
    is tested is the correlation of predictions and targets, all columns together, at the best of
    four penalties. Targets are then shuffled between participants, and all of it is done again,
    the choice of the penalty included, so that p is exact where participants are exchangeable. A
    permutation that keeps the predictions would not be: folds share their training parts, and 5 %
    would become some 12 %.

    Ridge regression because its predictions are linear in the targets: two thousand fits cost one
    product of matrices.

    Args:
        features: `(subject, feature)`.
        targets: `(subject, column)`: one for each class, or numbers.
        persons: `(subject,)`, the person of each; at least five.
        seed: of folds and shuffles.
        count: of shuffles.

    Source:
        Ojala and Garriga 2010, "Permutation tests for studying classifier performance", test 1.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(40, 3))
        >>> association_test(x, x[:, :1] + 1, np.arange(40), seed=0)
        0.0005
    """
    _, person = np.unique(persons, return_inverse=True)
    count_of_persons = int(person.max()) + 1
    fold_of = np.random.default_rng(seed).permutation(count_of_persons)[person] % FOLDS
    smoothers = [_smoother(features, fold_of != k, fold_of == k) for k in range(FOLDS)]
    spread = targets.std(axis=0)
    scaled = (targets - targets.mean(axis=0)) / np.where(spread > 0, spread, 1)
    observed = _correlations(scaled[:, None], fold_of, smoothers)[0]
    blocks = blocks_of_shuffles(persons, scaled.size, seed=seed, count=count)
    values = [_correlations(scaled[rows.T], fold_of, smoothers) for rows in blocks]
    return p_of(float(observed), np.concatenate(values))


def _smoother(features: Numbers, train: Flags, test: Flags) -> tuple[Floats, Floats, Floats]:
    """What makes predictions of training targets: left, the squared singular values, and right."""
    inner = features[train].astype(np.float64)
    spread = inner.std(axis=0)
    scale = np.where(spread > 1e-9, spread, np.inf) * np.sqrt(features.shape[1])
    mean = inner.mean(axis=0)
    u, s, vt = np.linalg.svd((inner - mean) / scale, full_matrices=False)
    keep = s > 1e-9 * max(s[0], 1e-300)
    u, s, vt = u[:, keep], s[keep], vt[keep]
    return ((features[test] - mean) / scale) @ vt.T * s, s**2, u.T


def _correlations(targets: Floats, fold_of: Indices, smoothers: Any) -> Floats:
    """The correlation with predictions of each shuffle, at its best penalty.

    Args:
        targets: `(subject, shuffle, column)`.
        fold_of: `(subject,)`.
        smoothers: of each fold.
    """
    n, shuffled, columns = targets.shape
    product = np.zeros((len(PENALTIES), shuffled))
    square = np.zeros((len(PENALTIES), shuffled))
    for k, (left, squares, right) in enumerate(smoothers):
        train, test = targets[fold_of != k], targets[fold_of == k]
        rotated = right @ (train - train.mean(axis=0)).reshape(len(train), -1)
        for j, penalty in enumerate(PENALTIES):
            predicted = (left / (squares + penalty)) @ rotated
            predicted = predicted.reshape(len(test), shuffled, columns)
            product[j] += (predicted * test).sum(axis=(0, 2))
            square[j] += (predicted**2).sum(axis=(0, 2))
    return np.asarray((product / np.sqrt(np.maximum(square, 1e-300) * n * columns)).max(axis=0))
