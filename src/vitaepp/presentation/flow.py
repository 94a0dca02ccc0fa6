"""Flow diagrams: where subjects went, in boxes from top to bottom."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from vitaepp.presentation.drawing import Drawing, Label, Number, Shape, Stroke, Style

_MAIN, _ASIDE, _BETWEEN = 250, 270, 36
_WIDTH = _MAIN + _BETWEEN + _ASIDE
_LINE, _PADDING, _GAP, _HEAD = 15, 10, 26, 4

#: Pixels that a letter is wide; the widest fonts that a page may get are narrower.
_LETTER = 6.3

#: Boxes of the last row that stand abreast.
_ABREAST = 5


@dataclass(frozen=True)
class Box:
    """A title, and lines below it."""

    title: str
    lines: Sequence[str] = ()

    def rows(self, width: Number) -> list[tuple[str, bool]]:
        """Its lines as they fit into a width, and whether each is of the title."""
        letters = int((width - 2 * _PADDING) / _LETTER)
        return [
            (row, head)
            for text, head in ((self.title, True), *((line, False) for line in self.lines))
            for row in textwrap.wrap(text, letters)
        ]


@dataclass(frozen=True)
class Stage:
    """A box of the main way, and what leaves the way before it is reached."""

    box: Box
    lost: Box | None = None


def flow_chart(stages: Sequence[Stage], last: Sequence[Box] = (), *, says: str) -> Drawing:
    """Boxes from top to bottom, those that leave the way at the right, and a last row.

    Args:
        stages: the main way; what the first one loses is above it and not drawn.
        last: boxes side by side into which the last stage is divided.
        says: what the diagram shows, for screen readers.
    """
    shapes: list[Shape] = []
    middle: Number = _MAIN / 2
    y: Number = 1
    for number, stage in enumerate(stages):
        if number:
            start, y = y, y + _GAP
            if stage.lost is not None:
                height = _height(stage.lost, _ASIDE)
                shapes += _arrow(
                    (middle, y + height / 2 - 8), (_MAIN + _BETWEEN, y + height / 2 - 8)
                )
                shapes += _box(stage.lost, _MAIN + _BETWEEN, y - 8, _ASIDE)
                y += height + _GAP / 2
            shapes += _arrow((middle, start), (middle, y))
        shapes += _box(stage.box, 1, y, _MAIN)
        y += _height(stage.box, _MAIN)
    for first in range(0, len(last), _ABREAST):
        row = last[first : first + _ABREAST]
        across = min(len(last), _ABREAST)
        width = _MAIN if across == 1 else (_WIDTH - (across - 1) * 10) / across
        height = max(_height(box, width) for box in row)
        top = y + _GAP
        if not first:
            rail = y + _GAP / 2
            centres = [1 + i * (width + 10) + width / 2 for i in range(len(row))]
            ends = min(middle, centres[0]), max(middle, centres[-1])
            shapes.append(Stroke(((middle, y), (middle, rail)), Style("box")))
            shapes.append(Stroke(((ends[0], rail), (ends[1], rail)), Style("box")))
            for x in centres:
                shapes += _arrow((x, rail), (x, top))
        else:
            top = y + 10
        for i, box in enumerate(row):
            shapes += _box(box, 1 + i * (width + 10), top, width, height)
        y = top + height
    return Drawing(_WIDTH + 2, y + 1, says, tuple(shapes), "chart flow")


def _height(box: Box, width: Number) -> Number:
    return 2 * _PADDING + _LINE * len(box.rows(width)) - 3


def _box(box: Box, x: Number, y: Number, width: Number, height: Number = 0) -> list[Shape]:
    right, bottom = x + width, y + (height or _height(box, width))
    corners = ((x, y), (right, y), (right, bottom), (x, bottom), (x, y))
    return [
        Stroke(corners, Style("box")),
        *(
            Label(x + _PADDING, y + _PADDING + _LINE * i + 9, row, "start", head=head)
            for i, (row, head) in enumerate(box.rows(width))
        ),
    ]


def _arrow(start: tuple[Number, Number], end: tuple[Number, Number]) -> list[Shape]:
    """A line with a head, straight down or to the right."""
    (x, y), style = end, Style("box")
    down = start[0] == end[0]
    sides = ((-_HEAD, -_HEAD), (_HEAD, -_HEAD)) if down else ((-_HEAD, -_HEAD), (-_HEAD, _HEAD))
    head = ((x + sides[0][0], y + sides[0][1]), (x, y), (x + sides[1][0], y + sides[1][1]))
    return [Stroke((start, end), style), Stroke(head, style)]
