"""What a store holds, for people: as text, and as contact sheets of its subjects.

A contact sheet shows every subject in a small cell: the middle axial, coronal and sagittal slice of
each modality, intensities as they are stored (0 is black, 255 is white). Where the store keeps
masks, slices go through the largest part of the subject's mask, and its outline is drawn.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vitaepp.data.store import Store
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

#: Pixels of the longest side of a volume, or of a picture, in a cell.
SIDE = 96

#: Pixels that a page is wide and high; a cell that is larger has a page of its own.
PAGE = (2000, 2600)

#: The subjects whose picture a run keeps, and the size of its page: three volumes side by side.
OF_RUN, PAGE_OF_RUN = 6, (960, 10_000)

_MARGIN = 14


def inspect(
    store: Location,
    *,
    pictures: str | os.PathLike[str] | None = None,
    subjects: int | None = None,
) -> str:
    """What a store holds, as text for a reader, and on request as contact sheets.

    Args:
        store: folder or URL.
        pictures: PNG file to write. What one page does not hold goes to several, numbered:
            `sheet_001.png`, `sheet_002.png`, … instead of `sheet.png`.
        subjects: how many to show, spread evenly over the store; all without it.

    Raises:
        StoreError: the folder is missing or not a store, or `pictures` is no PNG file.
    """
    opened = Store(store)
    if pictures is None:
        if subjects is not None:
            raise StoreError(
                "`subjects` goes with `pictures`: name a file for them, `pictures=x.png`"
            )
        return opened.summary()
    target = Path(pictures)
    if target.suffix.lower() != ".png" or target.is_dir():
        raise StoreError(f"{target}: `pictures` names a PNG file, for example sheet.png")
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
    """Pages of small pictures, drawn one after the other when they are asked for.

    Attributes:
        rows: the subjects that are shown, in this order.
    """

    def __init__(self, store: Store, rows: Sequence[int], page: tuple[int, int] = PAGE) -> None:
        """Lay out subjects on pages.

        Args:
            store: where they are.
            rows: of its table.
            page: pixels that a page is wide and high.
        """
        self.rows = list(rows)
        self._store = store
        info = store.info
        self._planes = planes(info.ndim, info.directed)
        extents = [plane.extent(info.size, info.spacing) for plane in self._planes]
        scale = SIDE / max(max(extent) for extent in extents)
        self._sizes = [(max(1, round(w * scale)), max(1, round(h * scale))) for w, h in extents]
        self._frames = [framed(size) for size in self._sizes]
        self._colour = are_colours(info.modalities, info.ndim)
        lines = 1 if self._colour else len(info.modalities)
        self._width = sum(w + GAP for w, _ in self._frames) - GAP
        self._height = lines * (LINE + max(h for _, h in self._frames) + GAP) - GAP
        across = max(1, (page[0] - _MARGIN) // (self._width + _MARGIN))
        down = max(1, (page[1] - 3 * LINE) // (self._height + _MARGIN))
        if len(self.rows) <= across * down:  # one page, as near to a square as it goes
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
        top = 2 * LINE + (LINE if len(self._planes) > 1 else 0)
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
                at = x
                for plane, (wide, _) in zip(self._planes, self._frames, strict=True):
                    text.text((at + wide / 2, top - LINE), plane.name, TEXT, font(), "mt")
                    at += wide + GAP
            page.paste(self._cell(row), (x, top + down * (self._height + _MARGIN)))
        return page

    def _title(self, number: int) -> str:
        shown, there = len(self.rows), len(self._store)
        told = counted(there, "subject") if shown == there else f"{shown:,} of {there:,} subjects"
        if self._planes[0].marks is not None:
            told += "; R: the patient's right"
        return told + (f"; page {number} of {len(self)}" if len(self) > 1 else "")

    def _cell(self, row: int) -> Image.Image:
        """One subject: a line a modality, of a picture a plane."""
        image = self._store.read([row])[0]
        masks = self._store.masks
        mask = None if masks is None else np.asarray(masks[row]) != 0
        subject = str(self._store.table["subject"].iloc[row])
        if self._colour:
            shown = [("", np.moveaxis(image, 0, -1), True)]
        else:
            names, present = self._store.info.modalities, self._store.present[row]
            shown = list(zip(names, image, present, strict=True))
        lines = []
        for index, (name, channel, there) in enumerate(shown):
            label = name if len(shown) > 1 else ""
            if index == 0:
                label = f"{subject}, {label}" if label else subject
            pictures = []
            for plane, size in zip(self._planes, self._sizes, strict=True):
                if not there:
                    pictures.append(missing_tile(framed(size)))
                    continue
                at, outline = None, None
                if mask is not None:
                    at = plane.largest(mask)
                    outline = plane.cut(mask, at)
                pictures.append(tile(plane.cut(channel, at), size, plane.marks, outline))
            lines.append((label, pictures))
        return stacked(lines)
