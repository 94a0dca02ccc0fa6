"""The paper's figures, drawn from an experiment's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.experiments.results import TITLES, Result
from vitaepp.presentation.planes import MARK, Marks, Plane
from vitaepp.system.files import atomic_path

_COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")


def draw_sweep(result: Result, path: Path) -> None:
    """Each metric over the masking ratio, with its standard deviation (Figure 2, left)."""
    figure, axes = _figure(5.2, 3.4)
    rows = sorted((r for r in result.rows if r.at is not None and r.cells), key=lambda r: r.at or 0)
    for colour, metric in zip(_COLOURS, result.metrics, strict=False):
        x = [row.at for row in rows]
        mean = [row.cells[metric].mean for row in rows]
        std = [row.cells[metric].std or 0.0 for row in rows]
        axes.errorbar(
            x, mean, std, color=colour, label=TITLES[metric], marker="o", capsize=3, linewidth=1.5
        )
    axes.set_xlabel("masking ratio p")
    axes.set_xticks([row.at for row in rows])
    axes.legend(frameon=False)
    _save(figure, path)


def draw_losses(curves: Mapping[str, Sequence[pd.DataFrame]], path: Path) -> None:
    """The training loss over epochs, a line a seed (Figure 2, right), and L_rec beside it.

    Args:
        curves: by the variant's name, the metrics.csv of each seed.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    shown = {"loss": "training loss (Eq. 4)", "loss/reconstruction": "L_rec on its own"}
    for axes, (column, title) in zip(figure.subplots(1, 2), shown.items(), strict=True):
        for colour, (name, tables) in zip(_COLOURS, curves.items(), strict=False):
            for i, table in enumerate(tables):
                if column in table:
                    label = name if i == 0 else None
                    axes.plot(table["epoch"], table[column], color=colour, label=label, lw=1.3)
        axes.set_xlabel("epoch")
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    _save(figure, path)


def draw_reconstructions(
    panels: Sequence[tuple[str, Mapping[str, npt.NDArray[np.uint8]]]],
    path: Path,
    plane: Plane,
    extent: tuple[float, float],
) -> None:
    """Middle slices of subjects: original, masked, and what each variant makes of it (Figure 3).

    Args:
        panels: per subject its name, and pictures by what they are called, `(row, column)` or
            `(row, column, 3)`; `original` among them.
        path: of the picture.
        plane: of the slices; the marks of its sides are drawn.
        extent: width and height of a slice in one unit, for true proportions.
    """
    _save(reconstruction_figure(panels, plane, extent), path)


def reconstruction_figure(
    panels: Sequence[tuple[str, Mapping[str, npt.NDArray[np.uint8]]]],
    plane: Plane,
    extent: tuple[float, float],
) -> Any:
    """The figure that `draw_reconstructions` saves."""
    from matplotlib.figure import Figure

    names = list(panels[0][1])
    width = 1.7 * len(names)
    height = (1.7 * extent[1] / extent[0] + 0.2) * len(panels)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(len(panels), len(names), squeeze=False)
    for line, (subject, pictures) in zip(grid, panels, strict=True):
        # One window a row: a few bright voxels would leave the rest of a scan dark.
        top = max(float(np.percentile(pictures["original"], 99.5)), 1.0)
        for axes, name in zip(line, names, strict=True):
            rows, columns = pictures[name].shape[:2]
            axes.imshow(
                pictures[name],
                cmap="gray",
                vmin=0,
                vmax=top,
                interpolation="nearest",
                aspect=extent[1] / rows / (extent[0] / columns),
            )
            if plane.marks is not None:
                _mark(axes, plane.marks)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if subject == panels[0][0]:
                axes.set_title(name, fontsize=8)
        line[0].set_ylabel(f"{subject}, {plane.name}" if plane.name else subject, fontsize=7)
    return figure


def _mark(axes: Any, marks: Marks) -> None:
    """Letters at the four sides of a picture."""
    from matplotlib.patheffects import withStroke

    for text, x, y, across, along in (
        (marks.left, 0.02, 0.5, "left", "center"),
        (marks.right, 0.98, 0.5, "right", "center"),
        (marks.top, 0.5, 0.98, "center", "top"),
        (marks.bottom, 0.5, 0.02, "center", "bottom"),
    ):
        axes.text(
            x,
            y,
            text,
            transform=axes.transAxes,
            ha=across,
            va=along,
            fontsize=7,
            color=tuple(part / 255 for part in MARK),
            path_effects=[withStroke(linewidth=1.5, foreground="black")],
        )


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=160)
