"""Outcome: what was measured of masks, fold by fold, beside controls."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Floats
from vitaepp.data.participants import Persons
from vitaepp.evaluation.measures import spread
from vitaepp.evaluation.result import Metrics
from vitaepp.evaluation.statistics import corrected_resampled_t_test
from vitaepp.presentation import numbers
from vitaepp.presentation.notebook import Tabular
from vitaepp.system.files import write_json


@dataclass(frozen=True, eq=False, repr=False)
class Outcome(Metrics, Tabular):
    """The scores of masks, as `outcome["mean"]["dice"]`.

    Attributes:
        metrics: the content of metrics.json.
        table: a row a tested subject.
    """

    table: pd.DataFrame

    def __repr__(self) -> str:
        return f"Outcome({self._line(self.metrics['metric'])})"

    def __str__(self) -> str:
        lines = [self._line(metric) for metric in self.metrics["mean"]]
        lead = self.metrics["difference"]
        difference = f"{lead['metric']}: fine-tuned minus from scratch {lead['mean']:+.3f}"
        how = "not tested" if lead["p"] is None else f"p = {lead['p']:.2g}"
        return "\n".join([*lines, f"{difference}, {how} ({lead['test']})"])

    def to_frame(self) -> pd.DataFrame:
        """The scores of each fold, one row a set of predictions and fold."""
        return pd.DataFrame(
            [
                {"predictions": name, "fold": k, **fold}
                for name, one in self._sets().items()
                for k, fold in enumerate(one["folds"])
            ]
        )

    def save(self, out: str | os.PathLike[str]) -> Outcome:
        """Write metrics.json."""
        write_json(Path(out) / "metrics.json", self.metrics)
        return self

    def _sets(self) -> dict[str, Any]:
        return {"fine-tuned": self.metrics} | self.metrics["controls"]

    def _line(self, metric: str) -> str:
        return f"{metric}: " + ", ".join(
            f"{name} {numbers.with_spread(one['mean'][metric], one['std'][metric])}"
            for name, one in self._sets().items()
        )


def summarised(folds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Folds with their mean and sample deviation, metric by metric; None where it is undefined."""
    mean, std = spread(folds)
    kept = [{k: float(v) if np.isfinite(v) else None for k, v in fold.items()} for fold in folds]
    return {"folds": kept, "mean": mean, "std": std}


def _mean_of_persons(values: Floats, persons: Persons | None) -> tuple[Floats, str]:
    """One value a person, the mean over its subjects, and the word for what there is one of."""
    if persons is None or len(np.unique(persons)) == len(persons):
        return values, "subjects"
    _, who = np.unique(persons, return_inverse=True)
    return np.bincount(who, values) / np.bincount(who), "persons"


def difference(
    metric: str,
    by_fold: Floats,
    by_subject: Floats,
    sizes: Sequence[Mapping[str, int]],
    persons: Persons | None = None,
) -> dict[str, Any]:
    """How much higher a metric is of fine-tuned networks than from scratch, and its test.

    Over several folds it is the corrected resampled t-test. On one split it is Wilcoxon's
    signed-rank test over persons, which takes the trained networks as they are.

    Args:
        metric: that is compared.
        by_fold: the difference in each fold.
        by_subject: the difference of each test subject.
        sizes: `train` and `test` subjects of each fold.
        persons: the person of each test subject; unset, each is another.
    """
    from scipy.stats import wilcoxon

    facts: dict[str, Any] = {"metric": metric, "mean": float(by_fold.mean())}
    if len(by_fold) > 1:
        train, test = (float(np.mean([size[part] for size in sizes])) for part in ("train", "test"))
        p = corrected_resampled_t_test(by_fold, train=train, test=test).p
        return facts | {"p": p, "test": "corrected resampled t-test over folds"}
    values, over = _mean_of_persons(by_subject, persons)
    p = float(wilcoxon(values).pvalue) if np.any(values) else 1.0
    return facts | {"p": p, "test": f"Wilcoxon's signed-rank test over {over}"}
