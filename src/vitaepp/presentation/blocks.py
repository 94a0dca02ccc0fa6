"""Pictures on a terminal: grey half blocks, shades of blocks, or letters, as the terminal can show.

>>> import numpy as np
>>> ramp = np.linspace(0, 255, 10)[None].repeat(2, axis=0)
>>> in_characters({"a ramp": ramp}, 10, LETTERS)
['a ramp', ' .:-=+*#%@']
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from io import TextIOBase
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

#: From black to white, on a dark ground; the second for terminals without Unicode.
SHADES, LETTERS = " ░▒▓█", " .:-=+*#%@"

#: Columns between pictures, and the most columns of one.
GAP, WIDEST = 2, 48

#: The upper half of a character cell, whose lower half has the colour of the ground.
HALF = "▀"


def draw(pictures: Mapping[str, npt.NDArray[Any]], file: TextIOBase | None = None) -> bool:
    """Draw grey pictures side by side on a terminal, over its width; elsewhere nothing.

    Args:
        pictures: by their titles, `(row, column)`, all of one shape, intensities in [0, 255].
        file: to write to, standard output by default.

    Returns:
        Whether something was drawn.
    """
    from rich.console import Console

    console = Console(file=cast(IO[str], file or sys.stdout), highlight=False)
    if not console.is_terminal or not pictures:
        return False
    columns = min(WIDEST, (console.width - GAP * (len(pictures) - 1)) // len(pictures))
    if columns < 8:  # nothing can be seen in it
        return False
    unicode = console.encoding.lower().replace("-", "").startswith("utf8")
    if unicode and console.color_system is not None and not console.no_color:
        for line in in_greys(pictures, columns):
            console.print(line, no_wrap=True, crop=False)
    else:
        for text in in_characters(pictures, columns, SHADES if unicode else LETTERS):
            console.out(text)
    return True


def in_greys(pictures: Mapping[str, npt.NDArray[Any]], columns: int) -> list[Any]:
    """Lines of half blocks, two pixels a character, as rich's texts."""
    from rich.text import Text

    lines = [Text(_titles(pictures, columns))]
    shown = [_resized(picture, columns, 2) for picture in pictures.values()]
    for row in range(0, len(shown[0]), 2):
        line = Text()
        for i, picture in enumerate(shown):
            line.append(" " * GAP * (i > 0))
            for upper, lower in zip(picture[row], picture[row + 1], strict=True):
                line.append(HALF, f"rgb({upper},{upper},{upper}) on rgb({lower},{lower},{lower})")
        lines.append(line)
    return lines


def in_characters(
    pictures: Mapping[str, npt.NDArray[Any]], columns: int, characters: str
) -> list[str]:
    """Lines of characters, from the darkest to the brightest.

    Args:
        pictures: by their titles, `(row, column)`, all of one shape, intensities in [0, 255].
        columns: of each picture.
        characters: from black to white.
    """
    shown = [_resized(picture, columns, 1) for picture in pictures.values()]
    levels = [picture.astype(int) * len(characters) // 256 for picture in shown]
    return [
        _titles(pictures, columns),
        *(
            (" " * GAP).join("".join(characters[i] for i in picture[row]) for picture in levels)
            for row in range(len(levels[0]))
        ),
    ]


def _titles(pictures: Mapping[str, Any], columns: int) -> str:
    return (" " * GAP).join(f"{title[:columns]:<{columns}}" for title in pictures).rstrip()


def _resized(picture: npt.NDArray[Any], columns: int, pixels: int) -> npt.NDArray[np.uint8]:
    """A picture of so many columns, with one or two pixels a line; a cell is as high as two wide.

    Enlarged voxels stay visible; where the picture becomes smaller, voxels are averaged.
    """
    height, width = picture.shape
    lines = max(1, round(columns * height / width / 2))
    values = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(values))
    return np.asarray(image.resize((columns, lines * pixels), Image.Resampling.BOX))
