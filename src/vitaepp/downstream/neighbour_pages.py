"""Pages with the images of neighbours and of near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from vitaepp.auditing.images import correlation
from vitaepp.data.inspection import Cells
from vitaepp.data.store import Store
from vitaepp.downstream.nearest import Cohort
from vitaepp.downstream.queries import NewScans
from vitaepp.presentation.planes import stacked

#: Neighbours of a query on the page, and the pairs on the page of near-duplicates.
SHOWN_NEIGHBOURS, SHOWN_PAIRS = 5, 30


class Pictures:
    """Pages with the images of subjects and of new scans."""

    def __init__(self, store: Store, new: NewScans | None) -> None:
        self._store, self._new = store, new
        self._rows = {str(s): i for i, s in enumerate(store.table["subject"])}
        self._cells = Cells(store.info, 144 if store.info.ndim == 2 else 96)
        self._mean: npt.NDArray[np.float32] | None = None

    def _image(self, name: str, new: bool) -> tuple[npt.NDArray[Any], Any]:
        """An image in the order of the store's modalities, and which of them are there."""
        if new and self._new is not None:
            i = self._new.names.index(name)
            return self._new.images[i], self._new.present[i]
        row = self._rows[name]
        return self._store.read([row])[0], self._store.present[row]

    def _cell(self, name: str, new: bool, caption: str) -> Image.Image:
        image, present = self._image(name, new)
        return self._cells.draw(image, present, [name, caption])

    def page(self, table: pd.DataFrame, queries: Sequence[Any], cohort: Cohort) -> Image.Image:
        """A line a query: its image, then those of its neighbours."""
        values = dict(zip(cohort.subjects, cohort.values, strict=True))
        label = "" if cohort.labels is None else f"{cohort.labels.name} "
        lines = []
        for query in queries:
            rows = table[table["query"] == query].head(SHOWN_NEIGHBOURS)
            own = values.get(query, "") if self._new is None else ""
            cells = [self._cell(query, True, f"{label}{own}" if own else "")]
            for row in rows.itertuples():
                caption = [f"{row.similarity:.2f}", f"{label}{row.label}" if row.label else ""]
                caption += ["same participant"] if row.same_participant else []
                cells.append(self._cell(row.subject, False, ", ".join(t for t in caption if t)))
            lines.append(("", cells))
        heads = ["query", *(f"neighbour {rank}" for rank in range(1, SHOWN_NEIGHBOURS + 1))]
        return stacked(lines, heads[: len(lines[0][1])])

    def pairs(self, duplicates: pd.DataFrame) -> Image.Image:
        """Pairs side by side, three in a line."""
        cells = []
        for row in duplicates.head(SHOWN_PAIRS).itertuples():
            caption = f"similarity {row.similarity:.3f}"
            cells += [
                self._cell(str(row.subject), self._new is not None, caption),
                self._cell(str(row.other), False, f"correlation {row.correlation:.3f}"),
            ]
        return stacked([("", cells[start : start + 6]) for start in range(0, len(cells), 6)])

    def correlation(self, first: str, second: str, new: bool) -> float:
        """Of two images, after the mean of the cohort's is taken off; 1 of equal ones."""
        if self._mean is None:
            sample = self._store.read(self._store.spread(64)).astype(np.float32)
            self._mean = sample.mean(axis=0)
        one, other = self._image(first, new)[0], self._image(second, False)[0]
        return round(correlation(one, other, self._mean), 4)
