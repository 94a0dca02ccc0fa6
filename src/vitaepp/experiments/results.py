"""What an experiment found: rows of a table, ready to be written in any format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.evaluation.bootstrap import LEVEL, Interval
from vitaepp.presentation import numbers
from vitaepp.presentation.notebook import Tabular
from vitaepp.system.files import without_nan


@dataclass(frozen=True)
class Cell:
    """A mean and a sample standard deviation; a single value has none."""

    mean: float | None
    std: float | None

    def text(self, metric: str) -> str:
        """As `0.846 ± 0.034`."""
        return numbers.with_spread(self.mean, self.std, numbers.digits_of(metric))

    @classmethod
    def of(cls, values: Sequence[float]) -> Cell:
        """The mean and spread of values."""
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), std)


@dataclass(frozen=True)
class Versus:
    """A difference from another row, over the same subjects.

    Attributes:
        metric: what is compared.
        against: the other row's name.
        mean: of the differences.
        low: lower end of the bootstrap interval, where there is one.
        high: its upper end.
        level: of the interval.
        p: two-sided, where the test is possible.
        test: which one; empty where none is possible.
        reason: why p or the interval is missing, where one is.
    """

    metric: str
    against: str
    mean: float
    low: float | None
    high: float | None
    level: float
    p: float | None
    test: str
    reason: str = ""

    def text(self) -> str:
        """As `+0.021 [-0.034, 0.078]`."""
        digits = numbers.digits_of(self.metric)
        text = numbers.difference(self.mean, digits)
        if self.low is None or self.high is None:
            return text
        return f"{text} {numbers.interval(self.low, self.high, digits)}"

    def p_text(self) -> str:
        """As `0.043`, or `< 0.001`; empty where there is no test."""
        return "" if self.p is None else numbers.p_value(self.p)


def ends(interval: Interval | None) -> tuple[float | None, float | None, float]:
    """Low, high and level of an interval as `Versus` has them, also where there is none."""
    if interval is None:
        return None, None, LEVEL
    return interval.low, interval.high, interval.level


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        key: the variant's, or a control's.
        name: in print.
        cells: by metric.
        versus: differences from the reference, by metric.
        controls: differences from the controls, by control.
        at: position on the figure's horizontal axis.
        note: why there is no result, where there is none.
        control: whether it is one.
    """

    key: str
    name: str
    cells: Mapping[str, Cell]
    versus: Mapping[str, Versus] = field(default_factory=dict)
    controls: Mapping[str, Versus] = field(default_factory=dict)
    at: float | None = None
    note: str = ""
    control: bool = False


@dataclass(frozen=True)
class Result(Tabular):
    """What an experiment found.

    Attributes:
        key: the experiment's.
        title: what it reproduces.
        metrics: columns, the compared one first.
        rows: variants in the paper's order, then controls.
        facts: how it was made, by name, in print.
        settings: what the recipe changes, as `name=value`.
        samples: of a reconstruction, `PSNR/SSIM` of single subjects by variant, as in Table 5.
    """

    key: str
    title: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    facts: Mapping[str, str]
    settings: tuple[str, ...]
    samples: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def failed(self) -> list[Row]:
        """Variants without a result."""
        return [row for row in self.rows if row.note and not row.cells]

    def __str__(self) -> str:
        return f"{self.key}: {self.title}"

    def to_frame(self) -> pd.DataFrame:
        """One row a variant and control, in plain numbers."""
        records = []
        for row in self.rows:
            record: dict[str, object] = {
                "variant": row.key,
                "name": row.name,
                "control": row.control,
            }
            for metric, cell in row.cells.items():
                record |= {f"{metric}_mean": cell.mean, f"{metric}_std": cell.std}
            for metric, versus in row.versus.items():
                name = f"{metric}_difference"
                record |= {
                    "against": versus.against,
                    name: versus.mean,
                    f"{name}_low": versus.low,
                    f"{name}_high": versus.high,
                    f"{metric}_p": versus.p,
                    f"{metric}_test": versus.test,
                    f"{metric}_reason": versus.reason,
                }
            records.append(record | {"note": row.note})
        return pd.DataFrame(records)

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values; None for what is not finite."""
        plain: dict[str, Any] = without_nan(asdict(self))
        return plain
