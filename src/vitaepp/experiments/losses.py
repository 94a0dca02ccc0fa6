"""Experiments on the training itself: the loss over epochs, and whether it diverged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Numbers
from vitaepp.data.runfolder import RunFolder
from vitaepp.experiments.catalogue import Variant
from vitaepp.experiments.kind import Folders, Kind, Measured
from vitaepp.experiments.results import Cell, Row
from vitaepp.presentation.charts import Figure, Line, line_chart, side_by_side
from vitaepp.presentation.drawing import Drawing, Style

#: Share of the epochs that is averaged before losses are compared.
TENTH = 0.1

_METRICS = ("first_loss", "lowest_loss", "last_loss", "diverged")

_SHOWN = {"loss": "training loss (Eq. 4)", "loss/reconstruction": "L_rec on its own"}


@dataclass(frozen=True)
class Course:
    """How a loss went, in means over a tenth of the epochs.

    Attributes:
        first: of the first tenth.
        lowest: of whichever stretch of a tenth is lowest.
        last: of the last tenth.
        diverged: whether the loss was not finite, or ended nearer to `first` than to `lowest`.
    """

    first: float
    lowest: float
    last: float
    diverged: bool


def course(losses: Numbers) -> Course:
    """Follow a loss over its epochs, and say whether it diverged.

    A training that fell and then lost more than half of what it had gained has diverged, whatever
    the loss's unit or sign. One that never fell has not: it did not learn.

    Args:
        losses: one an epoch, in order.

    Example:
        >>> course(np.array([4.0, 2.0, 1.0, 1.1])).diverged
        False
        >>> course(np.array([4.0, 2.0, 1.0, 3.0])).diverged
        True
    """
    if not np.isfinite(losses).all():
        return Course(float(losses[0]), float(np.nanmin(losses)), float("nan"), True)
    width = max(1, round(TENTH * len(losses)))
    means = np.convolve(losses, np.full(width, 1 / width), mode="valid")
    first, lowest, last = float(means[0]), float(means.min()), float(means[-1])
    return Course(first, lowest, last, last - lowest > 0.5 * (first - lowest) > 0)


class Losses(Kind):
    """How the loss of each variant went; a training that failed is shown as far as it came."""

    what = "the loss of trainings"

    def run(self, variant: Variant, seed: int) -> Path:
        """Train a variant."""
        return self.setup.trained(variant, seed)

    def after_failure(self, variant: Variant, seed: int) -> Path | None:
        """The run folder: how the training failed is what is asked here."""
        return self.setup.run_folder(variant, seed).path

    def measured(self, folders: Folders) -> Measured:
        """The loss at the start, at its lowest and at the end, and whether it diverged."""
        tables = {v.key: [_epochs(path) for path in folders[v.key]] for v in self.done(folders)}
        rows = [
            Row(key, self.names[key], self._cells(own))
            for key, own in tables.items()
            if not any(table.empty for table in own)
        ]
        figure = _curves({self.names[key]: own for key, own in tables.items()})
        rule = (
            "the loss is not finite, or has lost more than half of what it had gained: its mean "
            "over the last tenth of epochs is nearer to that of the first tenth than to that of "
            "the lowest"
        )
        return Measured(_METRICS, rows, figure=figure, facts={"diverged": rule})

    def _cells(self, tables: Sequence[pd.DataFrame]) -> dict[str, Cell]:
        courses = [course(table["loss"].to_numpy(float)) for table in tables]
        ended = [len(table) >= self.setup.recipe.optim.epochs for table in tables]
        diverged = [float(c.diverged or not e) for c, e in zip(courses, ended, strict=True)]
        values = (*zip(*((c.first, c.lowest, c.last) for c in courses), strict=True), diverged)
        return {metric: Cell.of(own) for metric, own in zip(_METRICS, values, strict=True)}


def _epochs(run: Path) -> pd.DataFrame:
    """The epochs of a run; none where it failed in the first."""
    file = RunFolder(run).metrics_file
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def _curves(tables: Mapping[str, Sequence[pd.DataFrame]]) -> Drawing | None:
    """The training loss over epochs, a line a seed (Figure 2, right), and L_rec beside it."""
    figures = []
    for column, title in _SHOWN.items():
        lines = [
            Line(table["epoch"].to_numpy(float), table[column].to_numpy(float), Style("line", i))
            for i, own in enumerate(tables.values())
            for table in own
            if column in table
        ]
        chart = line_chart(lines, says=f"{title} over epochs") if lines else None
        if chart is not None:
            legend = [(Style("line", i), name) for i, name in enumerate(tables)]
            figures.append(Figure(title, "", chart, legend))
    return side_by_side(figures) if figures else None
