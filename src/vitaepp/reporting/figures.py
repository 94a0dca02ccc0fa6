"""Figures as inline SVG, drawn by hand: small, sharp, in the page's own fonts and colours.

Colours are CSS classes (`s0` … `s7`) that the page defines for light and dark, so that a figure
has no colour of its own. Coordinates are rounded to a tenth of a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

Scale = Literal["linear", "log", "symlog"]

#: Colours that the page defines; more series than these take them again.
COLOURS = 8

_MOST_POINTS = 400
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Line:
    """A series of points, drawn as a line.

    Attributes:
        x: positions.
        y: values; what is not finite is left out.
        style: CSS classes, for example `s0 dashed`.
    """

    x: npt.NDArray[np.floating[Any]]
    y: npt.NDArray[np.floating[Any]]
    style: str = "s0"


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: int
    end: int
    transform: Callable[[float], float]
    ticks: list[float]

    def __call__(self, value: float) -> float:
        low, high = self.transform(self.low), self.transform(self.high)
        share = (self.transform(value) - low) / (high - low)
        return self.start + share * (self.end - self.start)


def line_chart(
    lines: Sequence[Line], *, name: str, scale: Scale = "linear", x_name: str = "epoch"
) -> Markup:
    """Lines over epochs.

    Args:
        lines: drawn in order, the last on top.
        name: said to screen readers.
        scale: of the values.
        x_name: below the horizontal axis.
    """
    width, height, left, right, top, bottom = 340, 200, 48, 10, 10, 34
    kept = [_finite(line, scale) for line in lines]
    xs = np.concatenate([line.x for line in kept])
    ys = np.concatenate([line.y for line in kept])
    if not len(xs):
        return Markup("")
    x = _axis(float(xs.min()), float(xs.max()), left, width - right, "linear", 6)
    y = _axis(float(ys.min()), float(ys.max()), height - bottom, top, scale, 5)
    parts = [_frame(x, y, width, height, left, right, top, bottom, x_name)]
    parts += [_polyline(line, x, y) for line in kept]
    return _svg(width, height, name, parts)


def choose_scale(values: npt.NDArray[np.floating[Any]]) -> Scale:
    """A scale that shows values of very different size: log, or symmetric log with signs.

    >>> choose_scale(np.array([1.0, 2.0])), choose_scale(np.array([1.0, 100.0]))
    ('linear', 'log')
    >>> choose_scale(np.array([-1.0, 0.0, 100.0]))
    'symlog'
    """
    sizes = np.abs(values[np.isfinite(values)])
    sizes = sizes[sizes > 0]
    if not len(sizes) or sizes.max() / sizes.min() < 12:
        return "linear"
    return "log" if np.nanmin(values) > 0 else "symlog"


def roc_chart(curves: Sequence[Line], *, name: str) -> Markup:
    """ROC curves in the unit square, with the diagonal of chance."""
    width, height, left, right, top, bottom = 420, 420, 48, 12, 10, 40
    x = _Axis(0.0, 1.0, left, width - right, lambda v: v, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    y = _Axis(0.0, 1.0, height - bottom, top, lambda v: v, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    parts = [
        _frame(x, y, width, height, left, right, top, bottom, "1 − specificity", "sensitivity")
    ]
    parts.append(
        Markup('<line class="chance" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
            x(0.0), y(0.0), x(1.0), y(1.0)
        )
    )
    parts += [_polyline(curve, x, y) for curve in curves]
    return _svg(width, height, name, parts)


def scatter(points: pd.DataFrame, classes: Sequence[str], *, name: str) -> Markup:
    """Subjects in the plane, coloured by label; each says its key when pointed at.

    Args:
        points: `subject`, `label`, `x`, `y`.
        classes: labels in the order of their colours.
        name: said to screen readers.
    """
    width, height, margin = 420, 420, 16
    shown = points[np.isfinite(points["x"]) & np.isfinite(points["y"])]
    if shown.empty:
        return Markup("")
    middle = (shown[["x", "y"]].max() + shown[["x", "y"]].min()) / 2
    reach = float((shown[["x", "y"]] - middle).abs().max().max()) or 1.0
    unit = (width / 2 - margin) / reach
    radius = 5.2 if len(shown) <= 150 else 3.8 if len(shown) <= 500 else 2.8
    colour = {label: f"s{i % COLOURS}" for i, label in enumerate(classes)}
    dot = Markup('<circle class="dot {}" cx="{}" cy="{}" r="{}" data-tip="{}"><title>{}</title>')
    parts = [Markup('<rect class="ground" width="{}" height="{}" rx="6"/>').format(width, height)]
    for row in shown.itertuples():
        says = f"{row.subject} · {row.label}"
        parts.append(
            dot.format(
                colour.get(str(row.label), "s7"),
                _px(width / 2 + (float(row.x) - middle["x"]) * unit),
                _px(height / 2 - (float(row.y) - middle["y"]) * unit),
                radius,
                says,
                says,
            )
            + Markup("</circle>")
        )
    return _svg(width, height, name, parts)


def strip(
    folds: Sequence[float],
    mean: float,
    std: float | None,
    *,
    low: float,
    high: float,
    chance: float | None,
    style: str,
) -> Markup:
    """One row's folds as dots, their mean as a bar and a standard deviation either side."""
    width, height = 180, 22
    at = _Axis(low, high, 6, width - 6, lambda v: v, [])
    mid = height / 2
    parts = [Markup('<line class="rail" x1="6" x2="{}" y1="{}" y2="{}"/>').format(174, mid, mid)]
    if chance is not None and low <= chance <= high:
        parts.append(
            Markup('<line class="chance" x1="{0}" x2="{0}" y1="2" y2="20"/>').format(
                _px(at(chance))
            )
        )
    if std is not None:
        bounds = _px(at(max(low, mean - std))), _px(at(min(high, mean + std)))
        parts.append(
            Markup('<line class="spread {}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                style, *bounds, mid, mid
            )
        )
    for value in folds if len(folds) > 1 else []:
        parts.append(
            Markup('<circle class="fold {}" cx="{}" cy="{}" r="2.6"/>').format(
                style, _px(at(value)), mid
            )
        )
    parts.append(
        Markup('<line class="mean {0}" x1="{1}" x2="{1}" y1="4" y2="18"/>').format(
            style, _px(at(mean))
        )
    )
    says = f"mean {mean:.3f}; folds {', '.join(f'{v:.3f}' for v in folds)}"
    return _svg(width, height, says, parts, css="strip")


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
        found = [
            _roc_on(grid, label == positive, part[column].to_numpy(np.float64))
            for column, positive in zip(columns, positives, strict=True)
            if 0 < (label == positive).sum() < len(label)
        ]
        if found:
            curves.append(np.mean(found, axis=0))
    return grid, curves


def _roc_on(
    grid: npt.NDArray[np.float64],
    positive: npt.NDArray[np.bool_],
    score: npt.NDArray[np.float64],
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


def _finite(line: Line, scale: Scale) -> Line:
    keep = np.isfinite(line.x) & np.isfinite(line.y)
    if scale == "log":
        keep &= line.y > 0
    x, y = line.x[keep], line.y[keep]
    step = max(1, math.ceil(len(x) / _MOST_POINTS))
    rows = np.unique(np.r_[np.arange(0, len(x), step), len(x) - 1]) if len(x) else np.arange(0)
    return Line(x[rows], y[rows], line.style)


def _axis(low: float, high: float, start: int, end: int, scale: Scale, about: int) -> _Axis:
    if high == low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - (0 if scale == "log" else pad), high + pad
    if scale == "log":
        ticks = _log_ticks(low, high)
        return _Axis(low, high, start, end, math.log10, ticks)
    if scale == "symlog":
        size = max(abs(low), abs(high))
        unit = size / 1e3
        ticks = [0.0]
        decade = math.floor(math.log10(size))
        for power in range(decade - 2, decade + 1, 1):
            ticks += [v for v in (10.0**power, -(10.0**power)) if low <= v <= high]
        return _Axis(low, high, start, end, lambda v: math.asinh(v / unit), sorted(ticks))
    step = _nice_step((high - low) / about)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return _Axis(low, high, start, end, lambda v: v, [i * step for i in range(first, last + 1)])


def _nice_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for multiples in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        ticks = [m * 10.0**p for p in decades for m in multiples]
        inside = [t for t in ticks if low <= t <= high]
        if len(inside) >= 3:
            break
    return inside[:: math.ceil(len(inside) / 6)] if inside else [low, high]


def _frame(
    x: _Axis,
    y: _Axis,
    width: int,
    height: int,
    left: int,
    right: int,
    top: int,
    bottom: int,
    x_name: str,
    y_name: str = "",
) -> Markup:
    parts = []
    for tick in y.ticks:
        at = _px(y(tick))
        parts.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
                '<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>'
            ).format(left, width - right, at, at, left - 6, _px(at + 3.5), _number(tick))
        )
    for tick in x.ticks:
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                _px(x(tick)), height - bottom + 15, _number(tick)
            )
        )
    parts.append(
        Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            _px((left + width - right) / 2), height - 3, x_name
        )
    )
    if y_name:
        middle = (top + height - bottom) / 2
        parts.append(
            Markup(
                '<text class="axis" transform="translate(11 {}) rotate(-90)" '
                'text-anchor="middle">{}</text>'
            ).format(_px(middle), y_name)
        )
    return Markup("").join(parts)


def _polyline(line: Line, x: _Axis, y: _Axis) -> Markup:
    if len(line.x) == 1:
        return Markup('<circle class="fold {}" cx="{}" cy="{}" r="2.6"/>').format(
            line.style, _px(x(float(line.x[0]))), _px(y(float(line.y[0])))
        )
    points = " ".join(
        f"{_px(x(float(a)))},{_px(y(float(b)))}" for a, b in zip(line.x, line.y, strict=True)
    )
    return Markup('<polyline class="line {}" points="{}"/>').format(line.style, points)


def _svg(width: int, height: int, name: str, parts: Sequence[Markup], css: str = "chart") -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        css, width, height, name, Markup("").join(parts)
    )


def _px(value: float | int) -> float | int:
    rounded = round(float(value), 1)
    return int(rounded) if rounded.is_integer() else rounded


def _number(value: float) -> str:
    """A tick's label, with a true minus sign, and powers of ten where decimals would be long."""
    text = f"{value:.6g}"
    if "e" in text or (value != 0 and abs(value) < 1e-3):
        mantissa, _, power = f"{value:.1e}".partition("e")
        mantissa = mantissa.removesuffix(".0")
        front = {"1": "", "-1": "-"}.get(mantissa, f"{mantissa}·")
        text = f"{front}10{str(int(power)).translate(_RAISED)}"
    return text.replace("-", "−")
