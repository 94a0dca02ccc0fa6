"""The training of a run: facts about it, and its losses over epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.presentation.charts import Figure, Line, Scale, choose_scale, line_chart
from vitaepp.presentation.drawing import Style
from vitaepp.presentation.names import LOSSES
from vitaepp.presentation.numbers import duration
from vitaepp.reporting.contents import RunContents
from vitaepp.system.text import dimensions

_SCALES = {"linear": "", "log": "log scale", "symlog": "symmetric log scale"}


def facts(run: RunContents) -> list[tuple[str, str]]:
    """What is known of the training, as a short list."""
    return [
        (name, f"{value:,}" if isinstance(value, int) else str(value))
        for name, value in _facts(run)
        if value not in (None, "", [], {})
    ]


def _facts(run: RunContents) -> Iterator[tuple[str, Any]]:
    summary, store, model = run.summary, run.store, run.section("model")
    yield "Subjects in the store", store.get("subjects")
    yield "Trained on", summary.get("trained_on")
    yield "Modalities", ", ".join(run.modalities)
    yield "Size", dimensions(store.get("size") or [])
    spacing = dimensions(store.get("spacing") or [])
    yield "Spacing", f"{spacing} {run.unit}" if spacing else None
    yield "Patch", dimensions(model.get("patch_size") or [])
    ratio = model.get("mask_ratio")
    yield "Patches hidden", f"{ratio:.0%}" if isinstance(ratio, int | float) else None
    for part in ("encoder", "decoder", "heads"):
        yield f"Parameters, {part}", run.parameters.get(part)
    done, wanted = run.epochs
    if wanted is not None:
        yield "Epochs", f"{wanted:,}" if done >= wanted else f"{done:,} of {wanted:,}"
    yield "Steps", summary.get("steps")
    seconds = summary.get("seconds")
    yield "Time", duration(float(seconds)) if isinstance(seconds, int | float) else None
    yield "Device", summary.get("device")
    yield "Precision", summary.get("precision")
    versions = summary.get("versions")
    if isinstance(versions, dict):
        yield "Versions", ", ".join(f"{name} {version}" for name, version in versions.items())


def losses(run: RunContents) -> list[Figure]:
    """The total, the weighted terms together, and every term by itself."""
    if run.training is None:
        return []
    figure, only = partial(_figure, run.training), Style("only")
    terms = {term: Style("line", i) for i, term in enumerate(LOSSES)}
    weighted = {f"weighted/{term}": style for term, style in terms.items()}
    figures = [
        figure("Total loss", {"loss": only}),
        figure("Weighted terms", weighted, "they add up to the total"),
        *(figure(f"{LOSSES[t]}, raw", {f"loss/{t}": style}) for t, style in terms.items()),
    ]
    collapsed = "near 0 the features have collapsed"
    figures.append(figure("Spread of features", {"feature_spread": only}, collapsed, "linear"))
    for column in map(str, run.training.columns):
        if column.startswith("knn/"):
            title = f"Neighbours that share {column.removeprefix('knn/')}"
            note = "balanced accuracy on training subjects; not for choosing between models"
            figures.append(figure(title, {column: only}, note, "linear"))
    figures.append(figure("Learning rate", {"lr": only}, scale="linear"))
    return [drawn for drawn in figures if drawn is not None]


def _figure(
    table: pd.DataFrame,
    title: str,
    columns: Mapping[str, Style],
    note: str = "",
    scale: Scale | None = None,
) -> Figure | None:
    """The columns that metrics.csv has, over epochs; None where it has none of them."""
    present = {c: s for c, s in columns.items() if c in table and table[c].notna().any()}
    if not present:
        return None
    table = table.dropna(subset=list(present), how="all")  # a watched label has values now and then
    values = {column: table[column].to_numpy(np.float64) for column in present}
    scale = scale or choose_scale(np.concatenate(list(values.values())))
    if scale == "symlog" and len(present) == 1:
        scale = "linear"  # signs are kept on a log scale only where terms are compared
    epochs = table["epoch"].to_numpy(np.float64)
    lines = [Line(epochs, values[column], style) for column, style in present.items()]
    drawing = line_chart(lines, says=f"{title} over epochs", scale=scale)
    if drawing is None:
        return None
    names = [(style, column.partition("/")[2]) for column, style in present.items()]
    notes = "; ".join(text for text in (note, _SCALES[scale]) if text)
    rows = table[["epoch", *present]].to_numpy().tolist()
    return Figure(
        title, notes, drawing, names if len(names) > 1 else [], [("epoch", *present), *rows]
    )
