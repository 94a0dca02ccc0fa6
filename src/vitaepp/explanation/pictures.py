"""Panels of maps: the image and what was found in it side by side, with numbers underneath."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw

from vitaepp.data.arrays import Floats, Numbers
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.explanation.lattice import spread
from vitaepp.explanation.words import HEADS
from vitaepp.presentation.drawing import SERIES
from vitaepp.presentation.planes import GAP, GROUND, LINE, TEXT, Plane, font, planes, stacked, tile
from vitaepp.system.files import atomic_path

#: What speaks for a score, and what against it; they differ for people who see few colours, too.
FOR, AGAINST = (236, 98, 52), (58, 128, 230)

#: How much of a colour covers the image where a map is strongest.
COVER = 0.8


def overlay(image: npt.NDArray[Any], values: Numbers) -> Floats:
    """A grey image with a signed map over it, `(*space, 3)`, intensities in [0, 255].

    Args:
        image: `(*space)`, intensities in [0, 255].
        values: `(*space)`; the largest, whatever its sign, has the full colour.
    """
    most = np.abs(values).max()
    strength = values / most if most > 0 else values
    colour = np.where(strength[..., None] > 0, FOR, AGAINST)
    cover = COVER * np.abs(strength)[..., None]
    return (1 - cover) * image.astype(np.float64)[..., None] + cover * colour


def region_colours(regions: npt.NDArray[np.integer[Any]]) -> Floats:
    """A colour for each region, `(*space, 3)`.

    Args:
        regions: `(*space)`, from 1 on.
    """
    palette = [(0, 0, 0), *(ImageColor.getrgb(series.light) for series in SERIES)]
    return np.array(palette, np.float64)[regions]


def columns_of(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.uint8]]:
    """The image, then each map over it, by their heads: `(*space)` or `(*space, 3)`.

    Args:
        arrays: of one subject, as in its `.npz` file.
    """
    image, cells = arrays["image"], arrays["parts"]
    grey = image if image.ndim == cells.ndim else image.mean(axis=-1)
    columns = {"image": image}
    for name, head in HEADS.items():
        if name not in arrays:
            continue
        values = arrays[name]
        if name in ("patches", "deviations"):
            shown = 255 * spread(values, grey.shape)
        elif name == "regions":
            shown = region_colours(spread(values, grey.shape))
        else:
            shown = overlay(grey, density(values, cells, grey.shape))
        columns[head] = shown.round().astype(np.uint8)
    return columns


def density(values: Numbers, parts: npt.NDArray[np.integer[Any]], size: Sequence[int]) -> Numbers:
    """Values of parts, shared evenly among the voxels of each.

    Args:
        values: `(*grid)`, that of its part for each cell.
        parts: `(*grid)`, the part that each cell belongs to.
        size: voxels per axis.

    Returns:
        `(*size)`.
    """
    voxels = np.bincount(spread(parts, size).ravel())
    return spread(values / voxels[parts], size)


def strength_of(arrays: Mapping[str, npt.NDArray[Any]]) -> Numbers:
    """How much there is to see at each voxel, `(*space)`: Shapley values where the image has any.

    Args:
        arrays: of one subject, as in its `.npz` file.
    """
    image, cells = arrays["image"], arrays["parts"]
    grey = image if image.ndim == cells.ndim else image.mean(axis=-1)
    body = (grey > grey.mean()).astype(np.float64)
    strength = body * np.abs(density(arrays["shapley"], cells, grey.shape))
    return strength if strength.any() else body


def slice_of(view: Plane, strength: Numbers) -> int | None:
    """The slice in which a map is strongest, the middle one of equals; None of a flat image."""
    if view.across is None:
        return None
    others = tuple(axis for axis in range(strength.ndim) if axis != view.across)
    profile = strength.sum(axis=others)
    equal = np.flatnonzero(np.isclose(profile, profile.max()))
    return int(equal[len(equal) // 2])


def draw_maps(
    path: Path, arrays: Mapping[str, npt.NDArray[Any]], info: StoreInfo, caption: Sequence[str]
) -> None:
    """A picture with a column a map and a row a plane, and lines of text underneath.

    Args:
        path: of the PNG file.
        arrays: of the subject, as in its `.npz` file; its lesion is outlined in the image.
        info: of the store, for proportions and directions.
        caption: the lines.
    """
    from vitaepp.evaluation.reconstruction import panel_sizes  # with torch; a report needs neither

    views = planes(info.ndim, info.directed)
    columns, strength = columns_of(arrays), strength_of(arrays)
    lines = []
    for view, size in zip(views, panel_sizes(views, info), strict=True):
        index = slice_of(view, strength)
        tiles = []
        for head, values in columns.items():
            layers = [values] if values.ndim == info.ndim else list(np.moveaxis(values, -1, 0))
            picture = np.stack([view.cut(layer, index) for layer in layers], axis=-1).squeeze()
            outline = None
            if head == "image" and "lesion" in arrays:
                outline = view.cut(arrays["lesion"], index)
            tiles.append(tile(picture, size, view.marks, outline))
        lines.append((view.name, tiles))
    with atomic_path(path) as temporary:
        captioned(stacked(lines, list(columns)), caption).save(temporary)


def captioned(page: Image.Image, lines: Sequence[str]) -> Image.Image:
    """A picture with lines of text underneath; the page becomes wider where a line needs it."""
    width = max([page.width, *(round(font().getlength(line)) + 6 for line in lines)])
    whole = Image.new("RGB", (width, page.height + GAP + LINE * len(lines)), GROUND)
    whole.paste(page)
    text = ImageDraw.Draw(whole)
    for i, line in enumerate(lines):
        text.text((3, page.height + GAP + LINE * i), line, fill=TEXT, font=font(), anchor="lt")
    return whole
