"""Ordered classes, such as grades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from vitaepp.data.arrays import Floats
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.ordinal import fit_ordinal, ordinal_scores, weighted
from vitaepp.evaluation.tasks.base import Fitted, Tested, Training
from vitaepp.evaluation.tasks.classification import Classification, codes_of


class Ordinal(Classification):
    """Classes that are numbers, in the order of these."""

    task = "ordinal"

    def __init__(self, table: pd.DataFrame, label: str) -> None:
        super().__init__(table, label)
        classes = self.labels.classes
        if len(classes) < 3 or not all(isinstance(c, int | float) for c in classes):
            shown = ", ".join(str(c) for c in classes[:5])
            raise EvaluationError(
                f"label {label!r}: task ordinal takes three or more classes that are numbers, but "
                f"they are {shown}; number them in their order, or use task classification"
            )

    def order(self) -> str:
        """Nothing: the order is what is asked for."""
        return ""

    def default_protocol(self, split: bool) -> str:
        """There is one model, a row of logistic regressions."""
        return "linear"

    def fit(self, protocol: str, part: Training) -> Fitted:
        """Logistic regressions of "higher than this class"."""
        if protocol != "linear":
            raise EvaluationError(f"protocol {protocol} is not of task ordinal; use linear")
        return fit_ordinal(part.features, self.labels.codes[part.rows], **part.how)

    def learn(self, fitted: Fitted, part: Training) -> None:
        """Nothing: the model has its probabilities and thresholds."""

    def clinical(self, tested: Tested) -> dict[str, Any]:
        """Intervals of the metrics, by a bootstrap over persons."""
        return self.intervals(tested, self.measures.names)

    @staticmethod
    def rescored(truth: pd.DataFrame, decision: Floats, classes: Sequence[Any]) -> dict[str, float]:
        """Quadratic weighted kappa, MAE of ranks, Spearman, AUC of the cumulative splits."""
        return ordinal_scores(codes_of(truth, classes), decision)

    @staticmethod
    def weighted(
        metric: str, truth: pd.DataFrame, decision: Floats, classes: Sequence[Any], weights: Floats
    ) -> Floats:
        """The same."""
        return weighted(metric, codes_of(truth, classes), decision, weights)
