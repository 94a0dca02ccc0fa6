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
                left = x
                for plane, (wide, _) in zip(self._planes, self._frames, strict=True):
                    text.text((left + wide / 2, top - LINE), plane.name, TEXT, font(), "mt")
                    left += wide + GAP
            page.paste(self._cell(row), (x, top + down * (self._height + _MARGIN)))
        return page

    def _title(self, number: int) -> str:
        shown, total = len(self.rows), len(self._store)
        title = counted(total, "subject") if shown == total else f"{shown:,} of {total:,} subjects"
        if self._planes[0].marks is not None:
            title += "; R: the patient's right"
        return title + (f"; page {number} of {len(self)}" if len(self) > 1 else "")

    def _cell(self, row: int) -> Image.Image:
        """The cell of one subject: a line per modality, with a picture per plane."""
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
        for index, (name, channel, has_modality) in enumerate(shown):
            label = name if len(shown) > 1 else ""
            if index == 0:
                label = f"{subject}, {label}" if label else subject
            pictures = []
            for plane, size in zip(self._planes, self._sizes, strict=True):
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
