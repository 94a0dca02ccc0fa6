"""Charts: lines, ROC curves, maps of subjects, strips of folds, and rows of pictures."""

from __future__ import annotations

import base64
import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from vitaepp.presentation.drawing import (
    FONT_SIZE,
    Dot,
    Drawing,
    Label,
    Number,
    Picture,
    Shape,
    Stroke,
    Style,
    data_uri,
    moved,
)

Scale = Literal["linear", "log", "symlog"]
Values = npt.NDArray[np.floating[Any]]

_MOST_POINTS = 400
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MARKER = 3.6


@dataclass(frozen=True)
class Line:
    """A series of points, drawn as a line.

    Attributes:
        x: positions.
        y: values; what is not finite is left out.
        style: kind of line, and series.
        spread: of each value, drawn as a bar to either side; each value has a marker then. Of two
            rows, the first is below the values and the second above.
    """

    x: Values
    y: Values
    style: Style
    spread: Values | None = None


@dataclass(frozen=True)
class Figure:
    """A chart with its words.

    Attributes:
        title: above it.
        note: below the title, how it was made.
        drawing: the chart.
        legend: the style of each series, and its name.
        table: the numbers that are drawn, the head first.
    """

    title: str
    note: str
    drawing: Drawing
    legend: Sequence[tuple[Style, str]] = ()
    table: Sequence[Sequence[object]] = ()

    @property
    def keys(self) -> list[tuple[Drawing, str]]:
        """The legend, each style as a small drawing."""
        return [(Drawing(24, 10, "", (_key(style),), "key"), name) for style, name in self.legend]

    @property
    def downloads(self) -> list[tuple[str, str, str]]:
        """Kind, file name and data URI of each form in which a page can be asked for it."""
        name = re.sub(r"\W+", "-", self.title.lower()).strip("-") or "figure"
        whole = side_by_side([self]) if self.legend else self.drawing
        forms = [("SVG", f"{name}.svg", data_uri(whole.on_paper().encode(), "svg+xml"))]
        if self.table:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(self.table)
            content = base64.b64encode(text.getvalue().encode()).decode()
            forms.append(("CSV", f"{name}.csv", f"data:text/csv;base64,{content}"))
        return forms


def _key(style: Style) -> Shape:
    """How a legend shows a style."""
    if style.kind == "dot":
        return Dot(12, 5, _MARKER, Style("point", style.series))
    return Stroke(((1, 5), (23, 5)), style)


@dataclass(frozen=True)
class _Axis:
    low: Number
    high: Number
    start: Number
    end: Number
    transform: Callable[[Number], Number] = float
    ticks: Sequence[Number] = ()

    def __call__(self, value: Number) -> Number:
        low, high = self.transform(self.low), self.transform(self.high)
        share = (self.transform(value) - low) / (high - low)
        return self.start + share * (self.end - self.start)


def line_chart(
    lines: Sequence[Line],
    *,
    says: str,
    scale: Scale = "linear",
    x_name: str = "epoch",
    y_name: str = "",
    x_ticks: Sequence[Number] | None = None,
) -> Drawing | None:
    """Lines over epochs, or over what else `x_name` says; None where no value is finite.

    Args:
        lines: drawn in order, the last on top.
        says: what the chart shows, for screen readers.
        scale: of the values.
        x_name: below the horizontal axis.
        y_name: beside the vertical axis, of a chart that stands beside those of `unit_chart`.
        x_ticks: positions that are named there; round numbers without it.
    """
    width, height, left, right, top, bottom = 340, 200, 48, 10, 10, 34
    if y_name:
        width, height, left = 420, 300, 56
    kept = [_finite(line, scale) for line in lines]
    xs = np.concatenate([line.x for line in kept])
    ys = np.concatenate([end for line in kept for end in _ends(line)])
    if not len(xs):
        return None
    x = _axis(float(xs.min()), float(xs.max()), left, width - right, "linear", 6)
    if x_ticks is not None:  # kept off the edges, where their markers would be cut
        pad = 0.06 * ((max(x_ticks) - min(x_ticks)) or 1.0)
        x = _Axis(min(x_ticks) - pad, max(x_ticks) + pad, left, width - right, float, x_ticks)
    y = _axis(float(ys.min()), float(ys.max()), height - bottom, top, scale, 5)
    shapes = _frame(x, y, (width, height), x_name, y_name)
    for number, line in enumerate(kept):
        # Bars of one position stand beside each other.
        aside = 0.0 if line.spread is None else 6 * (number - (len(kept) - 1) / 2)
        shapes += moved(_line(line, x, y), aside, 0)
    return Drawing(width, height, says, tuple(shapes))


def choose_scale(values: Values) -> Scale:
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


def roc_chart(curves: Sequence[Line], *, says: str) -> Drawing:
    """ROC curves in the unit square, with the diagonal of chance."""
    return unit_chart(curves, says=says, x_name="1 − specificity", y_name="sensitivity")


def unit_chart(curves: Sequence[Line], *, says: str, x_name: str, y_name: str) -> Drawing:
    """Curves in the unit square, with its diagonal.

    Args:
        curves: drawn in order, the last on top; both axes in [0, 1].
        says: what the chart shows, for screen readers.
        x_name: below the horizontal axis.
        y_name: beside the vertical axis.
    """
    side, left, right, top, bottom = 420, 48, 12, 10, 40
    ticks = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    x = _Axis(0.0, 1.0, left, side - right, ticks=ticks)
    y = _Axis(0.0, 1.0, side - bottom, top, ticks=ticks)
    shapes = _frame(x, y, (side, side), x_name, y_name)
    shapes.append(Stroke(((x(0), y(0)), (x(1), y(1))), Style("chance")))
    for curve in curves:
        shapes += _line(curve, x, y)
    return Drawing(side, side, says, tuple(shapes))


def scatter(
    x: Values, y: Values, series: Sequence[int], tips: Sequence[str], *, says: str
) -> Drawing | None:
    """Subjects in the plane, each with the marker of its series; None where no place is finite.

    Args:
        x: positions from left to right.
        y: positions from bottom to top.
        series: of each subject.
        tips: what is shown of each when it is pointed at.
        says: what the chart shows, for screen readers.
    """
    side, margin = 420, 16
    places = np.column_stack([x, y]).astype(np.float64)
    rows = np.flatnonzero(np.isfinite(places).all(axis=1))
    if not len(rows):
        return None
    shown = places[rows]
    middle = (shown.max(axis=0) + shown.min(axis=0)) / 2
    unit = (side / 2 - margin) / (float(np.abs(shown - middle).max()) or 1.0)
    radius = 5.2 if len(rows) <= 150 else 3.8 if len(rows) <= 500 else 2.8
    edge = ((0.5, 0.5), (side - 0.5, 0.5), (side - 0.5, side - 0.5), (0.5, side - 0.5), (0.5, 0.5))
    shapes: list[Shape] = [Stroke(edge, Style("rail"))]
    for row, (across, up) in zip(map(int, rows), (shown - middle) * unit, strict=True):
        style = Style("dot", series[row])
        shapes.append(Dot(side / 2 + across, side / 2 - up, radius, style, tips[row]))
    return Drawing(side, side, says, tuple(shapes))


def dots_chart(
    x: Values,
    y: Values,
    series: Sequence[int],
    tips: Sequence[str],
    *,
    limits: tuple[Number, Number],
    says: str,
    x_name: str,
    y_name: str,
) -> Drawing | None:
    """Subjects by two numbers of each, with dotted lines at limits; None where none is finite.

    Args:
        x: from left to right.
        y: from bottom to top.
        series: of each subject.
        tips: what is shown of each when it is pointed at.
        limits: of either number, in their units; the second is drawn below 0, too.
        says: what the chart shows, for screen readers.
        x_name: below the horizontal axis.
        y_name: beside the vertical axis.
    """
    side, left, right, top, bottom = 420, 48, 12, 10, 40
    rows = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if not len(rows):
        return None
    right_end, upper = limits
    ends = [(v[rows].min(), v[rows].max()) for v in (x, y)]
    across = _axis(*_wider(*ends[0], right_end), left, side - right, "linear", 6)
    up = _axis(*_wider(*ends[1], upper, -upper), side - bottom, top, "linear", 6)
    shapes = _frame(across, up, (side, side), x_name, y_name)
    at = across(right_end)
    shapes.append(Stroke(((at, up.start), (at, up.end)), Style("chance")))
    for level in (up(upper), up(-upper)):
        shapes.append(Stroke(((across.start, level), (across.end, level)), Style("chance")))
    radius = 5.2 if len(rows) <= 150 else 3.8 if len(rows) <= 500 else 2.8
    for row in rows.tolist():
        centre = across(float(x[row])), up(float(y[row]))
        shapes.append(Dot(*centre, radius, Style("dot", series[row]), tips[row]))
    return Drawing(side, side, says, tuple(shapes))


def _wider(*values: Number) -> tuple[float, float]:
    """The range of values with some room beside them."""
    low, high = float(min(values)), float(max(values))
    pad = 0.05 * (high - low)
    return low - pad, high + pad


def strip(
    folds: Sequence[Number],
    mean: Number,
    std: Number | None,
    *,
    low: Number,
    high: Number,
    chance: Number | None,
    series: int,
) -> Drawing:
    """One row's folds as dots, their mean as a bar and a standard deviation either side."""
    width, height = 180, 22
    at = _Axis(low, high, 6, width - 6)
    middle = height / 2
    shapes: list[Shape] = [Stroke(((6, middle), (width - 6, middle)), Style("rail"))]
    if chance is not None and low <= chance <= high:
        shapes.append(Stroke(((at(chance), 2), (at(chance), 20)), Style("chance")))
    if std is not None:
        ends = at(max(low, mean - std)), at(min(high, mean + std))
        shapes.append(Stroke(((ends[0], middle), (ends[1], middle)), Style("spread", series)))
    for value in folds if len(folds) > 1 else []:
        shapes.append(Dot(at(value), middle, 2.6, Style("fold", series)))
    shapes.append(Stroke(((at(mean), 4), (at(mean), 18)), Style("mean", series)))
    says = f"mean {mean:.3f}; folds {', '.join(f'{v:.3f}' for v in folds)}"
    return Drawing(width, height, says, tuple(shapes), "strip")


def side_by_side(figures: Sequence[Figure]) -> Drawing:
    """Figures as one drawing for a paper, with titles above and legends below."""
    gap, head, line = 24, 20, 16
    shapes: list[Shape] = []
    x, height = 0.0, 0.0
    for figure in figures:
        drawing = figure.drawing
        shapes += moved(drawing.shapes, x, head)
        shapes.append(Label(x + drawing.width / 2, head - 7, figure.title, head=True))
        y = head + drawing.height + 4
        for style, name in figure.legend:
            shapes += moved([_key(style), Label(30, 9, name, "start")], x + 48, y)
            y += line
        x += drawing.width + gap
        height = max(height, y)
    says = "; ".join(figure.drawing.says for figure in figures)
    return Drawing(x - gap, height + 4, says, tuple(shapes))


def picture_rows(
    rows: Sequence[tuple[str, Sequence[Image.Image]]],
    heads: Sequence[str],
    *,
    width: Number,
    height: Number,
    says: str,
) -> Drawing:
    """Pictures in rows for a paper, each row with its name at the left.

    Args:
        rows: a name, and one picture for each head.
        heads: above the columns.
        width: of a picture, in pixels of the drawing.
        height: likewise.
        says: what the pictures show, for screen readers.
    """
    gap, top, left = 6, 20, 18
    shapes: list[Shape] = []
    for column, head in enumerate(heads):
        middle = left + column * (width + gap) + width / 2
        shapes.append(Label(middle, top - 7, head, head=True))
    for row, (name, pictures) in enumerate(rows):
        y = top + row * (height + gap)
        shapes.append(Label(12, y + height / 2, name, turned=True))
        for column, picture in enumerate(pictures):
            shapes.append(Picture(left + column * (width + gap), y, width, height, picture))
    size = left + len(heads) * (width + gap) - gap, top + len(rows) * (height + gap)
    return Drawing(*size, says, tuple(shapes))


def _finite(line: Line, scale: Scale) -> Line:
    """The finite points, thinned where they are more than can be seen."""
    keep = np.isfinite(line.x) & np.isfinite(line.y)
    if scale == "log":
        keep &= line.y > 0
    rows = np.flatnonzero(keep)
    step = max(1, math.ceil(len(rows) / _MOST_POINTS))
    rows = np.unique(np.r_[rows[::step], rows[-1:]])
    spread = None if line.spread is None else np.nan_to_num(line.spread[..., rows])
    return Line(line.x[rows], line.y[rows], line.style, spread)


def _ends(line: Line) -> tuple[Values, Values]:
    """How far the bars of a line reach, down and up; its values where it has none."""
    spread = 0.0 if line.spread is None else line.spread
    below, above = np.broadcast_to(spread, (2, len(line.y)))
    return line.y - below, line.y + above


def _line(line: Line, x: _Axis, y: _Axis) -> list[Shape]:
    """A line; its markers and bars where it has a spread, a dot where it is a single point."""
    points = tuple((x(float(a)), y(float(b))) for a, b in zip(line.x, line.y, strict=True))
    series = line.style.series
    shapes: list[Shape] = []
    if len(points) > 1:
        shapes.append(Stroke(points, line.style))
    if line.spread is not None:
        for a, low, high in zip(line.x, *_ends(line), strict=True):
            ends = y(float(low)), y(float(high))
            at = x(float(a))
            bar = Style("error", series)
            shapes.append(Stroke(((at, ends[0]), (at, ends[1])), bar))
            shapes += [Stroke(((at - 3, end), (at + 3, end)), bar) for end in ends]
    if line.spread is not None or len(points) == 1:
        shapes += [Dot(a, b, _MARKER, Style("point", series or 0)) for a, b in points]
    return shapes


def _axis(low: Number, high: Number, start: int, end: int, scale: Scale, about: int) -> _Axis:
    if high == low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - (0 if scale == "log" else pad), high + pad
    if scale == "log":
        return _Axis(low, high, start, end, math.log10, _log_ticks(low, high))
    if scale == "symlog":
        size = max(abs(low), abs(high))
        unit = size / 1e3
        decade = math.floor(math.log10(size))
        powers = [10.0**power for power in range(decade - 2, decade + 1)]
        ticks = sorted(v for v in (0.0, *powers, *(-p for p in powers)) if low <= v <= high)
        return _Axis(low, high, start, end, lambda v: math.asinh(v / unit), ticks)
    step = _nice_step((high - low) / about)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return _Axis(low, high, start, end, float, [i * step for i in range(first, last + 1)])


def _nice_step(rough: Number) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)


def _log_ticks(low: Number, high: Number) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for multiples in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        ticks = [m * 10.0**p for p in decades for m in multiples]
        inside = [t for t in ticks if low <= t <= high]
        if len(inside) >= 3:
            break
    return inside[:: math.ceil(len(inside) / 6)] if inside else [low, high]


def _frame(x: _Axis, y: _Axis, size: tuple[int, int], x_name: str, y_name: str = "") -> list[Shape]:
    """Lines of the grid, ticks and names of the axes."""
    shapes: list[Shape] = []
    for tick in y.ticks:
        at = y(tick)
        shapes.append(Stroke(((x.start, at), (x.end, at)), Style("grid")))
        shapes.append(Label(x.start - 6, at + 3.5, _number(tick), "end"))
    for tick in x.ticks:
        shapes.append(Label(x(tick), y.start + FONT_SIZE + 4, _number(tick)))
    shapes.append(Label((x.start + x.end) / 2, size[1] - 3, x_name))
    if y_name:
        shapes.append(Label(FONT_SIZE, (y.start + y.end) / 2, y_name, turned=True))
    return shapes


def _number(value: Number) -> str:
    """A tick's label, with a true minus sign, and powers of ten where decimals would be long."""
    text = f"{value:.6g}"
    if "e" in text or (value != 0 and abs(value) < 1e-3):
        mantissa, _, power = f"{value:.1e}".partition("e")
        mantissa = mantissa.removesuffix(".0")
        front = {"1": "", "-1": "-"}.get(mantissa, f"{mantissa}·")
        text = f"{front}10{str(int(power)).translate(_RAISED)}"
    return text.replace("-", "−")
