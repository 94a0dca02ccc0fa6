"""Experiments on the training itself: the loss over epochs, and whether it diverged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from vitaepp.data.runfolder import RunFolder
from vitaepp.experiments.catalogue import Variant
from vitaepp.experiments.divergence import course
from vitaepp.experiments.kind import Folders, Kind, Measured
from vitaepp.experiments.results import Cell, Row
from vitaepp.presentation.charts import Figure, Line, line_chart, side_by_side
from vitaepp.presentation.drawing import Drawing, Style

_METRICS = ("first_loss", "lowest_loss", "last_loss", "diverged")

_SHOWN = {"loss": "training loss (Eq. 4)", "loss/reconstruction": "L_rec on its own"}


class Losses(Kind):
    """How the loss of each variant went; a training that failed is shown as far as it came."""

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
