"""Charts: any values can be drawn, nothing leaves its frame, and colour is never all there is."""

import re
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from vitaepp.presentation.charts import (
    Figure,
    Line,
    choose_scale,
    line_chart,
    picture_rows,
    scatter,
    side_by_side,
)
from vitaepp.presentation.drawing import SERIES, Dot, Label, Picture, Stroke, Style, css

LINE = Style("line", 0)


def places(drawing):
    """Every coordinate of a drawing."""
    for shape in drawing.shapes:
        yield from shape.points if isinstance(shape, Stroke) else [(shape.x, shape.y)]


@pytest.mark.parametrize(
    "y",
    [
        [1.0],
        [2.0, 2.0, 2.0],
        [0.0, 0.0],
        [np.nan, 1.0, np.inf],
        [1e-9, 1e3],
        [-1.0, 0.0, 1e4],
        [-5.0],
    ],
)
def test_any_series_can_be_drawn(y):
    values = np.array(y)
    line = Line(np.arange(len(y), dtype=float), values, LINE)
    chart = line_chart([line], says="x", scale=choose_scale(values))
    for x, y in places(chart):
        assert -1 <= x <= chart.width + 1
        assert -1 <= y <= chart.height + 1
    assert line_chart([Line(np.array([0.0]), np.array([np.nan]), LINE)], says="x") is None


def test_long_series_are_thinned_and_keep_their_ends():
    x = np.arange(5000.0)
    chart = line_chart([Line(x, x, LINE)], says="x")
    (line,) = (s for s in chart.shapes if isinstance(s, Stroke) and s.style == LINE)
    assert len(line.points) <= 401
    assert line.points[-1][0] == chart.width - 10


def test_a_spread_is_drawn_to_either_side_of_its_marker():
    x, y = np.array([0.5, 0.75]), np.array([0.6, 0.8])
    line = Line(x, y, LINE, spread=np.array([0.1, 0.05]))
    chart = line_chart([line], says="x", x_ticks=[0.5, 0.75])
    dots = [s for s in chart.shapes if isinstance(s, Dot)]
    bars = [s for s in chart.shapes if isinstance(s, Stroke) and s.style.kind == "error"]
    assert len(dots) == 2
    upright = [b for b in bars if b.points[0][0] == b.points[1][0]]
    for dot, bar in zip(dots, upright, strict=True):
        (x0, low), (_, high) = bar.points
        assert x0 == dot.x
        assert low - dot.y == pytest.approx(dot.y - high)
    assert {s.text for s in chart.shapes if isinstance(s, Label)} >= {"0.5", "0.75"}
    uneven = line_chart([Line(x, y, LINE, np.array([[0.2, 0.1], [0.0, 0.05]]))], says="x")
    marks = [s.y for s in uneven.shapes if isinstance(s, Dot)]
    bars = [s.points for s in uneven.shapes if isinstance(s, Stroke) and s.style.kind == "error"]
    (_, low), (_, high) = bars[0]
    assert high == pytest.approx(marks[0])  # nothing above the first value
    assert low > marks[0]
    two = line_chart([line, line], says="x", x_ticks=[0.5, 0.75])
    at = {s.x for s in two.shapes if isinstance(s, Dot)}
    assert len(at) == 4  # beside each other, not on each other


def test_a_map_keeps_inside_its_frame():
    x, y = np.array([1e6, -1e6, 0]), np.array([0, 1, np.nan])
    drawn = scatter(x, y, [0, 1, 0], ["a", "b", "c"], says="map")
    dots = [s for s in drawn.shapes if isinstance(s, Dot)]
    assert [d.says for d in dots] == ["a", "b"]
    assert all(0 <= v <= drawn.width for d in dots for v in (d.x, d.y))
    assert scatter(y[2:], y[2:], [0], ["c"], says="map") is None


def test_series_are_distinct_without_their_colours():
    for a, b in combinations(SERIES, 2):
        assert a.dash != b.dash
        assert a.marker != b.marker


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_colours_have_the_contrast_that_graphics_need():
    """WCAG 2.1, 1.4.11: a ratio of 3 to the ground, in light, in dark and on paper."""
    for series in SERIES:
        for colour, ground in ((series.light, "#fbfaf7"), (series.dark, "#14171a")):
            bright, dim = sorted((luminance(colour), luminance(ground)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 3


def test_svg_says_what_it_shows_and_escapes_it():
    points = np.array([0.0, 1.0])
    drawn = scatter(points, points, [0, 1], ["<b>", "&"], says='"map" <x>')
    svg = drawn.svg()
    assert 'role="img" aria-label="&quot;map&quot; &lt;x&gt;"' in svg
    assert "<b>" not in svg
    assert "<title>&lt;b&gt;</title>" in svg
    # Every class that is used has its looks.
    used = {name for found in re.findall(r'class="([^"]*)"', svg) for name in found.split()}
    assert all(f".{name}" in css() for name in used)


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_a_figure_for_a_paper_has_its_title_and_no_date(tmp_path, suffix):
    x = np.array([0.0, 1.0])
    chart = line_chart([Line(x, x, Style("line", i)) for i in range(2)], says="Loss over epochs")
    figure = Figure("Loss", "", chart, [(Style("line", 0), "a"), (Style("line", 1), "b $ c")])
    drawing = side_by_side([figure, figure])
    assert {s.text for s in drawing.shapes if isinstance(s, Label)} >= {"Loss", "a", "b $ c"}
    assert drawing.width > 2 * chart.width
    first, second = (tmp_path / f"{name}{suffix}" for name in "ab")
    drawing.save(first)
    drawing.save(second)
    assert first.read_bytes() == second.read_bytes()
    if suffix == ".png":
        with Image.open(first) as picture:
            assert picture.text["Title"] == "Loss over epochs; Loss over epochs"
            ratio = picture.width / picture.height
            assert ratio == pytest.approx(drawing.width / drawing.height, rel=0.01)
            # The first line rises from the lower left in the colour of its series.
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        blue = np.abs(pixels - [0x1F, 0x5F, 0xA8]).sum(-1) < 30
        assert blue.any()


def test_rows_of_pictures_keep_their_order_and_proportions():
    pictures = [Image.new("RGB", (4, 2), colour) for colour in ("red", "blue")]
    drawing = picture_rows([("a", pictures)], ["one", "two"], width=40, height=20, says="x")
    shown = [s for s in drawing.shapes if isinstance(s, Picture)]
    assert [s.image for s in shown] == pictures
    assert shown[0].x + shown[0].width < shown[1].x
    assert all((s.width, s.height) == (40, 20) for s in shown)
