"""The test over repeated folds: how often it finds a difference, also where there is none.

    python benchmarks/repeated_folds.py [--cohorts 500]

Two sets of features of the same subjects tell as much about a class; in the last row, one tells
more. Ridge classifiers on both go through stratified five-fold cross-validation, drawn 1, 3 and 10
times. Each pair is the share of cohorts with p < 0.05: with `1/J` of all folds (Bouckaert and Frank
2004), and with that of one draw, as `corrected_resampled_t_test` has it.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.metrics import roc_auc_score

from vitaepp.evaluation.classifier import outer_folds
from vitaepp.evaluation.statistics import corrected_resampled_t_test

DRAWS = (1, 3, 10)

#: Subjects, features, effect on each set, correlation of the two sets, share of the positive class.
COHORTS = (
    (130, 20, (0.4, 0.4), 0.0, 0.5),
    (130, 200, (0.5, 0.5), 0.5, 0.5),
    (60, 20, (0.5, 0.5), 0.5, 0.5),
    (260, 50, (0.3, 0.3), 0.3, 0.25),
    (130, 20, (0.4, 0.6), 0.5, 0.5),
)


def ridge(x: np.ndarray, codes: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Decisions of a ridge classifier, by its dual."""
    centre, y = x.mean(axis=0), 2.0 * codes - 1
    x = x - centre
    dual = np.linalg.solve(x @ x.T + 0.3 * len(y) * np.eye(len(y)), y - y.mean())
    return (tested - centre) @ (x.T @ dual)


def found(cohort: tuple, random: np.random.Generator) -> list[bool]:
    """Whether p < 0.05 in one cohort, by either formula, for each number of draws."""
    n, width, effects, correlation, share = cohort
    codes = (random.permutation(n) < n * share).astype(int)
    common = np.sqrt(correlation) * random.normal(size=(n, width))
    sets = [
        common
        + np.sqrt(1 - correlation) * random.normal(size=(n, width))
        + effect * codes[:, None] * (np.arange(width) < 4)
        for effect in effects
    ]
    leads = []
    for _ in range(max(DRAWS)):
        fold_of = outer_folds(codes, folds=5, seed=int(random.integers(2**31)))
        for k in range(5):
            train, test = fold_of != k, fold_of == k
            areas = [
                roc_auc_score(codes[test], ridge(x[train], codes[train], x[test])) for x in sets
            ]
            leads.append(areas[0] - areas[1])
    d, sizes = np.array(leads), {"train": 0.8 * n, "test": 0.2 * n}
    return [
        corrected_resampled_t_test(d[: 5 * draws], repetitions=of, **sizes).p < 0.05
        for draws in DRAWS
        for of in (1, draws)
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=500)
    asked = parser.parse_args()
    print("subjects, features, effects, correlation, positives: share of p < 0.05, all / one draw")
    for cohort in COHORTS:
        random = np.random.default_rng(7)
        shares = np.mean([found(cohort, random) for _ in range(asked.cohorts)], axis=0)
        pairs = [
            f"{draws} draws {every:.3f} / {one:.3f}"
            for draws, every, one in zip(DRAWS, shares[::2], shares[1::2], strict=True)
        ]
        print(*cohort, "  ", ", ".join(pairs), flush=True)
