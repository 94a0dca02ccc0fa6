"""Drawings: shapes in pixels, as SVG for a page and as PNG or PDF for a paper.

A drawing says where its shapes are and of which kind they are; what a kind looks like is defined
here once, for both. In a page the looks are CSS classes (`css`), so that colours follow a light or
dark screen. Series differ in colour and in dash or marker, so that they can be told apart in grey
and by people who see colours differently.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from vitaepp.system.extras import require
from vitaepp.system.files import atomic_path, write_text

#: Coordinates, in pixels.
Number = float | int

Point = tuple[Number, Number]


@dataclass(frozen=True)
class Series:
    """How one series differs from the others.

    Attributes:
        light: its colour on a light ground, and on paper.
        dark: its colour on a dark ground.
        dash: lengths of dashes and gaps in pixels; empty: a solid line.
        marker: the corners of its marker, for a radius of 1; empty: a circle.
    """

    light: str
    dark: str
    dash: tuple[Number, ...] = ()
    marker: tuple[Point, ...] = ()


def _star(*radii: Number, corners: int, turned: Number = 0.0) -> tuple[Point, ...]:
    """Corners of a polygon whose radii alternate; the first is above the middle."""
    angles = [math.tau * (i / corners + turned) for i in range(corners)]
    sizes = [radii[i % len(radii)] for i in range(corners)]
    return tuple((r * math.sin(a), -r * math.cos(a)) for r, a in zip(sizes, angles, strict=True))


SERIES = (
    Series("#1f5fa8", "#6fabee"),
    Series("#cf6a1f", "#f0a060", (6, 4), _star(1.25, corners=4, turned=1 / 8)),
    Series("#2d8a68", "#63c6a0", (2, 3.2), _star(1.35, corners=3)),
    Series("#8757ad", "#c09ae0", (9, 3.5, 2, 3.5), _star(1.35, corners=4)),
    Series("#b53f4a", "#ee8790", (12, 4), _star(1.5, 0.6, corners=8, turned=1 / 8)),
    Series("#85741f", "#cdbb63", (6, 3, 2, 3, 2, 3), _star(1.5, 0.6, corners=8)),
    Series("#2f8799", "#72c4d4", (3, 1.5), _star(1.35, corners=3, turned=1 / 2)),
    Series("#59616b", "#a9b2bb", (1, 1.8), _star(1.6, 0.7, corners=10)),
)


@dataclass(frozen=True)
class _Look:
    """What a kind of shape looks like; its colour is the series' where that is empty."""

    width: Number = 1.0
    opacity: Number = 1.0
    colour: str = ""
    dash: tuple[Number, ...] = ()


#: The page's own colours, on paper; in a page they are variables of these names.
PAPER = {
    "ink": "#1c2024",
    "soft": "#5c646d",
    "faint": "#e5e2db",
    "grid": "#edebe5",
    "panel": "#ffffff",
}

_LINES = {
    "line": _Look(1.8),
    "thin": _Look(0.8, 0.38),
    "dashed": _Look(1.2, dash=(5, 3)),
    "error": _Look(1.2),
    "spread": _Look(6.0, 0.22),
    "mean": _Look(2.4),
    "only": _Look(1.8, colour="soft"),
    "grid": _Look(colour="grid"),
    "rail": _Look(colour="faint"),
    "chance": _Look(1.0, 0.75, "soft", (1.5, 3)),
    "box": _Look(colour="soft"),
}
_DOTS = {"dot": _Look(0.7, 0.88), "fold": _Look(0.0, 0.6), "point": _Look(0.0)}

#: Pixels of a text's size.
FONT_SIZE = 11

FONTS = "Inter, Helvetica, Arial, sans-serif"

_DASHED = ("line",)  # kinds that a series dashes
_POINTS_A_PIXEL = 0.75
_DOTS_AN_INCH = 240


def css() -> str:
    """The looks as CSS; the page defines the variables `--ink`, `--soft`, `--grid`, … itself."""
    rules = [f".chart text {{ fill: var(--soft); font-size: {FONT_SIZE}px; }}"]
    rules.append(".chart .head { fill: var(--ink); }")
    for name, look in (*_LINES.items(), *_DOTS.items()):
        stroke = f"stroke: var(--{look.colour}); " if look.colour else ""
        dash = f"stroke-dasharray: {_numbers(look.dash)}; " if look.dash else ""
        fill = "" if name in _DOTS else "fill: none; "
        rules.append(
            f".{name} {{ {fill}{stroke}{dash}stroke-width: {look.width:g}; "
            f"opacity: {look.opacity:g}; }}"
        )
    rules.append(".line { stroke-linejoin: round; } .dot { stroke: var(--panel); }")
    own = [name for name, look in _LINES.items() if not look.colour]
    for i, series in enumerate(SERIES):
        lines = ", ".join(f".{name}.s{i}" for name in own)
        dots = ", ".join(f".{name}.s{i}" for name in _DOTS)
        rules.append(f"{lines} {{ stroke: var(--s{i}); }} {dots} {{ fill: var(--s{i}); }}")
        if series.dash:
            dashed = ", ".join(f".{name}.s{i}" for name in _DASHED)
            rules.append(f"{dashed} {{ stroke-dasharray: {_numbers(series.dash)}; }}")
    return "\n".join(rules)


def paper_css() -> str:
    """The looks as CSS with the colours of paper, for SVG outside of a page."""
    colours = PAPER | {f"s{i}": series.light for i, series in enumerate(SERIES)}
    looks = re.sub(r"var\(--(\w+)\)", lambda match: colours[match[1]], css())
    return f"{looks}\n.chart text {{ font-family: {FONTS}; }}"


@dataclass(frozen=True)
class Style:
    """The kind of a shape, and its series.

    Attributes:
        kind: `line`, `thin`, `dot` …
        series: its number; None for what belongs to none.
    """

    kind: str
    series: int | None = None

    @property
    def css(self) -> str:
        """Its classes in a page."""
        return self.kind if self.series is None else f"{self.kind} s{self.series % len(SERIES)}"

    @property
    def of_series(self) -> Series:
        """How its series differs from the others; the first where it belongs to none."""
        return SERIES[(self.series or 0) % len(SERIES)]

    def on_paper(self) -> dict[str, Any]:
        """Its looks as matplotlib's arguments."""
        look = (_LINES | _DOTS)[self.kind]
        dash = look.dash or (self.of_series.dash if self.kind in _DASHED else ())
        width = look.width * _POINTS_A_PIXEL
        # matplotlib counts dashes in widths of the line.
        pattern = (0, tuple(d / look.width for d in dash)) if dash else "solid"
        colour = PAPER[look.colour] if look.colour else self.of_series.light
        return {"color": colour, "alpha": look.opacity, "lw": width, "linestyle": pattern}


@dataclass(frozen=True)
class Stroke:
    """A line through points; of a single one nothing is seen."""

    points: tuple[Point, ...]
    style: Style

    def svg(self) -> str:
        """As SVG."""
        points = " ".join(f"{px(x)},{px(y)}" for x, y in self.points)
        return f'<polyline class="{self.style.css}" points="{points}"/>'

    def paint(self, axes: Any) -> None:
        """Onto matplotlib's axes."""
        axes.plot(*zip(*self.points, strict=True), **self.style.on_paper(), clip_on=False)


@dataclass(frozen=True)
class Dot:
    """The marker of a series.

    Attributes:
        says: what a page shows when it is pointed at.
    """

    x: Number
    y: Number
    radius: Number
    style: Style
    says: str = ""

    def _corners(self) -> list[Point]:
        marker = self.style.of_series.marker
        return [(self.x + self.radius * a, self.y + self.radius * b) for a, b in marker]

    def svg(self) -> str:
        """As SVG."""
        says = escape(self.says)
        tip = f' data-tip="{says}"><title>{says}</title></' if says else None
        corners = " ".join(f"{px(a)},{px(b)}" for a, b in self._corners())
        name, where = "polygon", f'points="{corners}"'
        if not corners:
            name, where = "circle", f'cx="{px(self.x)}" cy="{px(self.y)}" r="{self.radius:g}"'
        return f'<{name} class="{self.style.css}" {where}' + (f"{tip}{name}>" if tip else "/>")

    def paint(self, axes: Any) -> None:
        """Onto matplotlib's axes."""
        from matplotlib.patches import Circle, Polygon

        look = self.style.on_paper()
        shown = {"facecolor": look["color"], "alpha": look["alpha"], "lw": 0}
        corners = self._corners()
        circle = Circle((self.x, self.y), self.radius, **shown)
        axes.add_patch(Polygon(corners, **shown) if corners else circle)


@dataclass(frozen=True)
class Label:
    """A line of text.

    Attributes:
        x, y: its anchor, on the line that letters stand on.
        anchor: which part of it is there.
        turned: whether it runs upwards.
        head: whether it is a title, which is darker.
    """

    x: Number
    y: Number
    text: str
    anchor: Literal["start", "middle", "end"] = "middle"
    turned: bool = False
    head: bool = False

    def svg(self) -> str:
        """As SVG."""
        where = f'x="{px(self.x)}" y="{px(self.y)}"'
        if self.turned:
            where = f'transform="translate({px(self.x)} {px(self.y)}) rotate(-90)"'
        head = ' class="head"' if self.head else ""
        return f'<text{head} {where} text-anchor="{self.anchor}">{escape(self.text)}</text>'

    def paint(self, axes: Any) -> None:
        """Onto matplotlib's axes."""
        across = {"start": "left", "middle": "center", "end": "right"}[self.anchor]
        axes.text(
            self.x,
            self.y,
            # A dollar sign would start a formula.
            self.text.replace("$", r"\$"),
            ha="right" if self.turned else across,
            va="center" if self.turned else "baseline",
            rotation=90 if self.turned else 0,
            fontsize=FONT_SIZE * _POINTS_A_PIXEL,
            color=PAPER["ink" if self.head else "soft"],
        )


@dataclass(frozen=True)
class Picture:
    """An image, scaled to a width and a height."""

    x: Number
    y: Number
    width: Number
    height: Number
    image: Image.Image

    def svg(self) -> str:
        """As SVG, with the image inside."""
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        size = f'width="{px(self.width)}" height="{px(self.height)}"'
        uri = data_uri(buffer.getvalue(), "png")
        return f'<image x="{px(self.x)}" y="{px(self.y)}" {size} href="{uri}"/>'

    def paint(self, axes: Any) -> None:
        """Onto matplotlib's axes."""
        extent = (self.x, self.x + self.width, self.y + self.height, self.y)
        axes.imshow(self.image, extent=extent, aspect="auto", interpolation="nearest")


Shape = Stroke | Dot | Label | Picture


@dataclass(frozen=True)
class Drawing:
    """Shapes, the last on top.

    Attributes:
        width, height: in pixels.
        says: what it shows, for people who do not see it.
        shapes: in the order in which they are painted.
        kind: its CSS class in a page.
    """

    width: Number
    height: Number
    says: str
    shapes: tuple[Shape, ...] = field(repr=False)
    kind: str = "chart"

    def svg(self) -> str:
        """The drawing as SVG for a page that holds `css()`."""
        role = f'role="img" aria-label="{escape(self.says)}"' if self.says else 'aria-hidden="true"'
        shapes = "".join(shape.svg() for shape in self.shapes)
        box = f"0 0 {px(self.width)} {px(self.height)}"
        return f'<svg class="{self.kind}" viewBox="{box}" {role}>{shapes}</svg>'

    #: Templates take it for markup.
    __html__ = svg

    def save(self, path: Path) -> None:
        """Write an SVG, PNG or PDF file for a paper, whole or not at all.

        Its title is what the drawing says.
        """
        if path.suffix == ".svg":
            write_text(path, self.on_paper())
            return
        require("matplotlib", "report", "a figure in a file needs")
        from matplotlib.figure import Figure

        inches = [side * _POINTS_A_PIXEL / 72 for side in (self.width, self.height)]
        figure = Figure(figsize=(inches[0], inches[1]))
        axes = figure.add_axes((0, 0, 1, 1))
        for shape in self.shapes:
            shape.paint(axes)
        axes.set(xlim=(0, self.width), ylim=(self.height, 0), aspect="auto")
        axes.axis("off")
        # Without a date, so that the same results give the same bytes.
        undated: dict[str, Any] = {"CreationDate": None} if path.suffix == ".pdf" else {}
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=_DOTS_AN_INCH, metadata={"Title": self.says, **undated})

    def on_paper(self) -> str:
        """As SVG that needs no page around it."""
        shapes = "".join(shape.svg() for shape in self.shapes)
        width, height = px(self.width), px(self.height)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{self.kind}" width="{width}" '
            f'height="{height}" viewBox="0 0 {width} {height}"><title>{escape(self.says)}</title>'
            f"<style>{paper_css()}</style>{shapes}</svg>\n"
        )


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of an image as a URI that needs no other file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def moved(shapes: Iterable[Shape], x: Number, y: Number) -> tuple[Shape, ...]:
    """Shapes elsewhere."""
    return tuple(
        replace(shape, points=tuple((a + x, b + y) for a, b in shape.points))
        if isinstance(shape, Stroke)
        else replace(shape, x=shape.x + x, y=shape.y + y)
        for shape in shapes
    )


def px(value: Number) -> Number:
    """A coordinate to a tenth of a pixel, without a needless point."""
    rounded = round(float(value), 1)
    return int(rounded) if rounded.is_integer() else rounded


def _numbers(values: Sequence[Number]) -> str:
    return " ".join(f"{value:g}" for value in values)
