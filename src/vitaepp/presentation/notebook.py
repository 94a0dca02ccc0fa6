"""How a notebook shows a result: what it says, and its table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from html import escape

import pandas as pd

#: Lines of text, and rows and columns of a table, that are shown at most.
LINES, ROWS, COLUMNS = 10, 10, 12


class Tabular(ABC):
    """A result that is also a table; a notebook shows the beginning of its text and its table."""

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """The result as one table."""

    def _repr_html_(self) -> str:
        lines = str(self).splitlines()
        shown = lines[:LINES] + ["…"] * (len(lines) > LINES)
        table = self.to_frame().to_html(index=False, border=0, max_rows=ROWS, max_cols=COLUMNS)
        return "".join(f"<p>{escape(line)}</p>" for line in shown) + table
