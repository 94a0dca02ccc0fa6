"""ROC curves of the folds of an evaluation, and what their mean is taken over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd


def mean_roc(
    predictions: pd.DataFrame, columns: Sequence[str], classes: Sequence[str]
) -> tuple[npt.NDArray[np.float64], list[npt.NDArray[np.float64]]]:
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


def _roc_on(
    grid: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    order = np.argsort(-score, kind="stable")
    # Subjects of equal score pass the threshold together.
    last = np.r_[np.diff(score[order]) != 0, True]
    hits = np.r_[0, np.cumsum(positive[order])[last]] / positive.sum()
    false = np.r_[0, np.cumsum(~positive[order])[last]] / (~positive).sum()
    # A curve rises at one position; of equal positions the highest counts, and 0 stays at 0.
    curve = np.interp(grid, false, hits)
    curve[0] = 0.0
    return curve
