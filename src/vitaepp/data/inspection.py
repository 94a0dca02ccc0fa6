"""The content of a store for people: as text, and as contact sheets of its subjects.

A contact sheet shows every subject in a small cell: the middle axial, coronal and sagittal slice of
each modality, with intensities as stored (0 is black, 255 is white). If the store keeps masks,
slices go through the largest cross-section of the subject's mask, and its outline is drawn.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from vitaepp.data.arrays import Flags
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.errors import StoreError
from vitaepp.presentation.planes import (
    GAP,
    GROUND,
    LINE,
    TEXT,
    are_colours,
    fitting,
    font,
    framed,
    missing_tile,
    planes,
    stacked,
    tile,
)
from vitaepp.system.files import atomic_path
from vitaepp.system.progress import counted, track
from vitaepp.system.urls import Location

#: Longest side of a volume or picture in a cell, in pixels.
SIDE = 96

#: Width and height of a page, in pixels; a larger cell gets its own page.
PAGE = (2000, 2600)

#: Number of subjects in the picture that a run keeps, and its page size (three volumes abreast).
OF_RUN, PAGE_OF_RUN = 6, (960, 10_000)

_MARGIN = 14


def inspect(
    store: Location, *, pictures: str | os.PathLike[str] | None = None, subjects: int | None = None
) -> str:
    """Describe a store as text and, on request, draw contact sheets of its subjects.

    Args:
        store: folder or URL.
        pictures: PNG file to write. If one page is not enough, numbered files are written:
            `sheet_001.png`, `sheet_002.png`, … instead of `sheet.png`.
        subjects: number of subjects to show, spread evenly over the store. Unset: all.

    Raises:
        StoreError: the folder is missing or not a store, or `pictures` is not a PNG file.
    """
    opened = Store(store)
    if pictures is None:
        if subjects is not None:
            raise StoreError("`subjects` needs `pictures`; name a file: `pictures=x.png`")
        return opened.summary()
    target = Path(pictures)
    if target.suffix.lower() != ".png" or target.is_dir():
        raise StoreError(f"{target}: `pictures` needs a PNG file, for example sheet.png")
    sheet = ContactSheet(opened, opened.spread(subjects), PAGE)
    files = [target]
    if len(sheet) > 1:
        numbers = range(1, len(sheet) + 1)
        files = [target.with_stem(f"{target.stem}_{number:03d}") for number in numbers]
    for file, page in zip(files, track(sheet, "drawing", len(sheet), "pages"), strict=True):
        save_page(page, file)
    last = f" to {files[-1].name}" if len(files) > 1 else ""
    shown = f"{counted(len(sheet.rows), 'subject')} in {files[0]}{last}"
    return f"{opened.summary()}\npictures of {shown}"


def save_page(page: Image.Image, path: Path) -> None:
    """Write a page as a PNG file, whole or not at all."""
    with atomic_path(path) as temporary:
        page.save(temporary)


class ContactSheet:
    """Pages of small pictures; iterating draws them one after the other.

    Attributes:
        rows: rows of the store's table that are shown, in this order.
    """

    def __init__(self, store: Store, rows: Sequence[int], page: tuple[int, int] = PAGE) -> None:
        """Lay out subjects on pages.

        Args:
            store: the store with the subjects.
            rows: rows of its table.
            page: width and height of a page, in pixels.
        """
        self.rows = list(rows)
        self._store = store
        self._cells = Cells(store.info)
        self._width, self._height = self._cells.size
        across = max(1, (page[0] - _MARGIN) // (self._width + _MARGIN))
        down = max(1, (page[1] - 3 * LINE) // (self._height + _MARGIN))
        if len(self.rows) <= across * down:  # one page, as close to a square as possible
            square = math.sqrt(len(self.rows) * self._height / self._width)
            wanted = max(math.ceil(square), math.ceil(len(self.rows) / down))
            across = max(1, min(across, wanted, len(self.rows)))
        self._across, self._per_page = across, across * down

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self._per_page)

    def __iter__(self) -> Iterator[Image.Image]:
        for number in range(len(self)):
            start = number * self._per_page
            yield self._page(self.rows[start : start + self._per_page], number + 1)

    def _page(self, rows: Sequence[int], number: int) -> Image.Image:
        top = 2 * LINE + (LINE if len(self._cells.planes) > 1 else 0)
        width = _MARGIN + self._across * (self._width + _MARGIN)
        height = top + math.ceil(len(rows) / self._across) * (self._height + _MARGIN)
        page = Image.new("RGB", (width, height), GROUND)
        text = ImageDraw.Draw(page)
        title = fitting(self._title(number), width - 2 * _MARGIN)
        text.text((_MARGIN, 8), title, fill=TEXT, font=font(), anchor="lt")
        for index, row in enumerate(rows):
            down, across = divmod(index, self._across)
            x = _MARGIN + across * (self._width + _MARGIN)
            if down == 0:
                left = x
                for plane, (wide, _) in zip(self._cells.planes, self._cells.frames, strict=True):
                    text.text((left + wide / 2, top - LINE), plane.name, TEXT, font(), "mt")
                    left += wide + GAP
            page.paste(self._cell(row), (x, top + down * (self._height + _MARGIN)))
        return page

    def _title(self, number: int) -> str:
        shown, total = len(self.rows), len(self._store)
        title = counted(total, "subject") if shown == total else f"{shown:,} of {total:,} subjects"
        if self._cells.planes[0].marks is not None:
            title += "; R: the patient's right"
        return title + (f"; page {number} of {len(self)}" if len(self) > 1 else "")

    def _cell(self, row: int) -> Image.Image:
        """The cell of one subject, with the outline of its mask."""
        store = self._store
        return self._cells.draw(
            store.read([row])[0],
            store.present[row],
            [str(store.table["subject"].iloc[row])],
            store.labelled([row])[0] if store.has_masks else None,
        )


class Cells:
    """Small pictures of subjects, all of one size: a line a modality, with a picture a plane.

    Attributes:
        planes: that each shows.
        frames: width and height of a picture in each plane, in pixels.
        size: width and height of a cell.
    """

    def __init__(self, info: StoreInfo, side: int = SIDE) -> None:
        """Lay out a cell.

        Args:
            info: what the images are.
            side: longest side of a volume or picture, in pixels.
        """
        self._info = info
        self.planes = planes(info.ndim, info.directed)
        extents = [plane.extent(info.size, info.spacing) for plane in self.planes]
        scale = side / max(max(extent) for extent in extents)
        self._sizes = [(max(1, round(w * scale)), max(1, round(h * scale))) for w, h in extents]
        self.frames = [framed(size) for size in self._sizes]
        self._colour = are_colours(info.modalities, info.ndim)
        lines = 1 if self._colour else len(info.modalities)
        width = sum(w + GAP for w, _ in self.frames) - GAP
        self.size = width, lines * (LINE + max(h for _, h in self.frames) + GAP) - GAP

    def draw(
        self,
        image: npt.NDArray[Any],
        present: Sequence[bool] | Flags,
        captions: Sequence[str],
        mask: Flags | None = None,
    ) -> Image.Image:
        """The cell of one subject.

        Args:
            image: `(channel, *space)`, intensities in [0, 255].
            present: which channels the subject has.
            captions: lines of text above it; each but one makes the cell higher.
            mask: `(*space)`, whose largest cross-section is shown and outlined.
        """
        if self._colour:
            shown = [("", np.moveaxis(image, 0, -1), True)]
        else:
            shown = list(zip(self._info.modalities, image, map(bool, present), strict=True))
        lines: list[tuple[str, list[Image.Image]]]
        lines = [(text, [Image.new("RGB", (self.size[0], 0))]) for text in captions[:-1]]
        for index, (name, channel, has_modality) in enumerate(shown):
            label = name if len(shown) > 1 else ""
            if index == 0:
                label = ", ".join(text for text in (captions[-1], label) if text)
            pictures = []
            for plane, size in zip(self.planes, self._sizes, strict=True):
                if not has_modality:
                    pictures.append(missing_tile(framed(size)))
                    continue
                index_of_slice, outline = None, None
                if mask is not None:
                    index_of_slice = plane.largest(mask)
                    outline = plane.cut(mask, index_of_slice)
                cut = plane.cut(channel, index_of_slice)
                pictures.append(tile(cut, size, plane.marks, outline))
            lines.append((label, pictures))
        return stacked(lines)
