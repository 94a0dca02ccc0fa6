"""Slices as radiologists look at them: the planes of a volume, and the marks of its sides.

This file alone decides how a stored image becomes a picture; panels, the report, contact sheets and
the figures of experiments all take their slices from here. Scans are stored with axes to the
patient's right, front and head (RAS). They are shown as if one stood at the foot of the bed: the
patient's right is on the screen's left, front and head are up; seen from the side, the nose points
to the left. Marks name the nearest direction where a scan is oblique. Pictures, and volumes of bare
arrays, have no directions: they are shown as they are stored, without marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

#: What lies at the end and at the start of each axis of a stored scan.
ENDS = (("R", "L"), ("A", "P"), ("S", "I"))

#: Plane of the slices across each axis of a stored scan.
NAMES = ("sagittal", "coronal", "axial")

#: Colours of marks and outlines; anatomy is grey, so that neither is taken for it.
MARK = (255, 205, 95)
OUTLINE = (255, 92, 92)
TEXT = (208, 212, 216)
GROUND = (24, 27, 30)
BLACK = (0, 0, 0)

#: Pixels between the pictures of a panel, and of a line of text above them.
GAP = 4
LINE = 16

#: Pixels of a side at least: a thin slab gets a black ground, so that its marks can be read.
LEAST_SIDE = 36

#: Channels that together are the colours of a flat image.
_COLOUR_NAMES = (("r", "g", "b"), ("red", "green", "blue"))


@dataclass(frozen=True)
class Marks:
    """What lies at the four sides of a picture: R, L, A, P, S or I."""

    left: str
    right: str
    top: str
    bottom: str


@dataclass(frozen=True)
class Plane:
    """One way to look at images.

    Attributes:
        name: `axial`, `coronal`, `sagittal`; `across axis 1` where there are no directions;
            empty for a flat image.
        across: the axis that a slice lies across; None for a flat image.
        marks: what is at the sides; None where there are no directions.
    """

    name: str
    across: int | None
    marks: Marks | None

    def cut(self, image: npt.NDArray[Any], index: int | None = None) -> npt.NDArray[Any]:
        """A slice as a picture, rows from top to bottom, columns from left to right.

        Args:
            image: `(*space)`, one channel, or anything else on its grid, such as a mask. A flat
                image may have a last axis of colours.
            index: of the slice; the middle one without it.
        """
        if self.across is None:
            return image
        index = image.shape[self.across] // 2 if index is None else index
        picture = np.take(image, index, self.across)
        # The end of either axis comes to the left or to the top.
        return picture if self.marks is None else picture[::-1, ::-1].T

    def largest(self, mask: npt.NDArray[np.bool_]) -> int | None:
        """The slice with the most of a mask `(*space)`; None where that is empty, or flat."""
        if self.across is None or not mask.any():
            return None
        others = tuple(axis for axis in range(mask.ndim) if axis != self.across)
        return int(np.count_nonzero(mask, axis=others).argmax())

    def extent(
        self, size: Sequence[int], spacing: Sequence[float] | None = None
    ) -> tuple[float, float]:
        """Width and height of a slice in the unit of the spacing; in voxels without it.

        Args:
            size: voxels per spatial axis.
            spacing: of the voxels, per axis.
        """
        lengths = np.multiply(size, 1.0 if spacing is None else spacing).tolist()
        first, second = (length for axis, length in enumerate(lengths) if axis != self.across)
        return (second, first) if self.marks is None else (first, second)


def planes(ndim: int, directed: bool) -> tuple[Plane, ...]:
    """How to look at images: axial, coronal and sagittal, or what comes nearest to it.

    Args:
        ndim: spatial axes, two or three.
        directed: whether axes run to the patient's right, front and head.

    Example:
        >>> [plane.name for plane in planes(3, directed=True)]
        ['axial', 'coronal', 'sagittal']
        >>> planes(3, directed=True)[0].marks
        Marks(left='R', right='L', top='A', bottom='P')
    """
    if ndim == 2:
        return (Plane("", None, None),)
    return tuple(_plane(axis, directed) for axis in (2, 1, 0))


def _plane(across: int, directed: bool) -> Plane:
    if not directed:
        return Plane(f"across axis {across + 1}", across, None)
    columns, rows = (ends for axis, ends in enumerate(ENDS) if axis != across)
    return Plane(NAMES[across], across, Marks(*columns, *rows))


def are_colours(channels: Sequence[str], ndim: int) -> bool:
    """Whether channels are the red, green and blue of one flat image."""
    return ndim == 2 and tuple(name.lower() for name in channels) in _COLOUR_NAMES


def tile(
    picture: npt.NDArray[Any],
    size: tuple[int, int],
    marks: Marks | None = None,
    outline: npt.NDArray[np.bool_] | None = None,
    finer: int = 1,
) -> Image.Image:
    """A picture in a given size, with marks at its sides and the outline of a mask.

    Enlarged voxels stay visible as rectangles; where the picture becomes smaller, voxels are
    averaged.

    Args:
        picture: `(row, column)` or `(row, column, 3)`, intensities in [0, 255].
        size: width and height in pixels; the tile is of `framed(size)`.
        marks: to draw.
        outline: `(row, column)`, a mask whose border is drawn.
        finer: how often larger than on a screen the marks are, for a picture that is printed.
    """
    values = np.ascontiguousarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    drawn = Image.fromarray(values).resize(size, Image.Resampling.BOX).convert("RGB")
    if outline is not None and outline.any():
        shape = Image.fromarray(np.ascontiguousarray(outline).astype(np.uint8) * 255)
        inside = np.asarray(shape.resize(size, Image.Resampling.BOX)) > 0
        drawn.paste(OUTLINE, mask=Image.fromarray(border(inside)))
    width, height = framed(size)
    if (width, height) != size:
        ground = Image.new("RGB", (width, height))
        ground.paste(drawn, ((width - size[0]) // 2, (height - size[1]) // 2))
        drawn = ground
    if marks is not None:
        letters = ImageDraw.Draw(drawn)
        style = font(finer * min(16, max(11, min(width, height) // (8 * finer))))
        for text, at, anchor in (
            (marks.left, (3, height / 2), "lm"),
            (marks.right, (width - 3, height / 2), "rm"),
            (marks.top, (width / 2, 3), "mt"),
            (marks.bottom, (width / 2, height - 3), "mb"),
        ):
            letters.text(at, text, MARK, style, anchor, stroke_width=finer, stroke_fill=BLACK)
    return drawn


def framed(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the tile of a picture of this size."""
    return max(size[0], LEAST_SIDE), max(size[1], LEAST_SIDE)


def border(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Pixels of a mask that touch one outside of it, as 255."""
    around = np.pad(inside, 1)
    deep = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.asarray(inside & ~deep, np.uint8) * np.uint8(255)


def missing_tile(size: tuple[int, int]) -> Image.Image:
    """A picture in place of a missing one, which says so and cannot be taken for a scan."""
    drawn = Image.new("RGB", size, (64, 64, 64))
    middle = (size[0] / 2, size[1] / 2)
    ImageDraw.Draw(drawn).text(middle, "missing", fill=(224, 224, 224), font=font(), anchor="mm")
    return drawn


def stacked(
    lines: Sequence[tuple[str, Sequence[Image.Image]]], heads: Sequence[str] = ()
) -> Image.Image:
    """Lines of pictures below each other, each with its text above.

    Args:
        lines: a text, and pictures side by side; at least one line.
        heads: text above each column of the first line, on a line of its own.
    """
    widths = [sum(p.width + GAP for p in pictures) - GAP for _, pictures in lines]
    heights = [LINE + max(p.height for p in pictures) + GAP for _, pictures in lines]
    above = LINE if heads else 0
    page = Image.new("RGB", (max(widths), above + sum(heights) - GAP), GROUND)
    text = ImageDraw.Draw(page)
    x, y = 0, above
    for head, picture in zip(heads, lines[0][1], strict=False):
        text.text((x + picture.width / 2, 3), head, fill=TEXT, font=font(), anchor="mt")
        x += picture.width + GAP
    for (label, pictures), height in zip(lines, heights, strict=True):
        text.text((2, y + 3), fitting(label, page.width - 2), fill=TEXT, font=font(), anchor="lt")
        x = 0
        for picture in pictures:
            page.paste(picture, (x, y + LINE))
            x += picture.width + GAP
        y += height
    return page


def fitting(text: str, width: int) -> str:
    """A text that is at most `width` pixels wide; a longer one loses its middle."""
    shown, kept = text, len(text)
    while kept > 2 and font().getlength(shown) > width:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return shown


@cache
def font(size: int = 11) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, so that pictures are the same on every machine."""
    return ImageFont.load_default(size)
