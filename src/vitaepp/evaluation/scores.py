"""Scores of a classifier on one fold, and ROC curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Flags, Floats, Indices


def fold_scores(codes: Indices, decision: Floats) -> dict[str, float]:
    """AUC, sensitivity, specificity and accuracy of decision scores.

    With two classes the second is the positive one and the decision is positive above zero. With
    more, each class is held against the rest: the AUC of its own score, and the sensitivity and
    specificity of choosing it because its score is the largest; all averaged over classes with
    equal weight (macro).

    Args:
        codes: `(subject,)`, the true class; every class must occur.
        decision: `(subject,)` for two classes, `(subject, class)` for more.

    Returns:
        The metrics of `measures.TASKS`, each in [0, 1].

    Example:
        >>> fold_scores(np.array([0, 0, 1, 1]), np.array([-2.0, 0.5, 0.4, 3.0]))
        {'auc': 0.75, 'sensitivity': 1.0, 'specificity': 0.5, 'accuracy': 0.75}
    """
    predicted = predicted_codes(decision)
    if decision.ndim == 1:
        return {
            "auc": auc(codes == 1, decision),
            "sensitivity": float(np.mean(predicted[codes == 1] == 1)),
            "specificity": float(np.mean(predicted[codes == 0] == 0)),
            "accuracy": float(np.mean(predicted == codes)),
        }
    classes = range(decision.shape[1])
    return {
        "auc": float(np.mean([auc(codes == c, decision[:, c]) for c in classes])),
        "sensitivity": float(np.mean([np.mean(predicted[codes == c] == c) for c in classes])),
        "specificity": float(np.mean([np.mean(predicted[codes != c] != c) for c in classes])),
        "accuracy": float(np.mean(predicted == codes)),
    }


def predicted_codes(decision: Floats) -> Indices:
    """The class that decision scores choose: above zero with two classes, else the largest.

    Args:
        decision: `(subject,)` or `(subject, class)`.
    """
    if decision.ndim == 1:
        return (decision > 0).astype(np.intp)
    return decision.argmax(axis=1)


def auc(positive: Flags, score: Floats) -> float:
    """Area under the ROC curve: how often a positive outscores a negative, ties counting half.

    Computed from ranks (Mann and Whitney 1947), exactly.

    Args:
        positive: `(subject,)`, with both values present.
        score: `(subject,)`, larger for more positive.

    Example:
        >>> auc(np.array([False, True, True]), np.array([0.1, 0.1, 0.9]))
        0.75
    """
    from scipy.stats import rankdata

    n = int(positive.sum())
    wins = float(rankdata(score)[positive].sum()) - n * (n + 1) / 2
    return float(wins / (n * (len(score) - n)))


def mean_roc(
    predictions: pd.DataFrame, columns: Sequence[str], classes: Sequence[str]
) -> tuple[Floats, list[Floats]]:
    """Sensitivity over 1 − specificity, per fold, on a common grid.

    With more than two classes, each is held against the rest and the curves are averaged.

    Args:
        predictions: `fold`, `label` and score columns.
        columns: the score columns of one set of features, one, or one per class.
        classes: labels as text, in sort order.

    Returns:
        The grid in [0, 1], and a curve for every fold; their mean is the mean ROC.

    Source:
        Fawcett 2006, "An introduction to ROC analysis", vertical averaging.
    """
    grid = np.linspace(0, 1, 101)
    positives = classes[1:] if len(columns) == 1 else classes
    curves = []
    for _, part in predictions.groupby("fold", sort=True):
        label = part["label"].astype(str).to_numpy()
        tprs = [
            _roc_on(grid, label == positive, part[column].to_numpy(np.float64))
            for column, positive in zip(columns, positives, strict=True)
            if 0 < (label == positive).sum() < len(label)
        ]
        if tprs:
            curves.append(np.mean(tprs, axis=0))
    return grid, curves


def _roc_on(grid: Floats, positive: Flags, score: Floats) -> Floats:
    order = np.argsort(-score, kind="stable")
    # Subjects of equal score pass the threshold together.
    last = np.r_[np.diff(score[order]) != 0, True]
    hits = np.r_[0, np.cumsum(positive[order])[last]] / positive.sum()
    false = np.r_[0, np.cumsum(~positive[order])[last]] / (~positive).sum()
    # A curve rises at one position; of equal positions the highest counts, and 0 stays at 0.
    curve = np.interp(grid, false, hits)
    curve[0] = 0.0
    return curve


def one_against_rest(codes: Indices, scores: Floats) -> list[tuple[Flags, Floats]]:
    """Who is positive, and the score for it: of the second of two classes, or of each of more."""
    if scores.ndim == 1:
        return [(codes == 1, scores)]
    return [(codes == c, scores[:, c]) for c in range(scores.shape[1])]
