"""How a number is written: with its spread, as an interval, as a p value, as a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean, stdev

#: Digits after the point; PSNR, in decibels, has fewer.
_DIGITS = {"psnr": 2}

#: Metrics in the unit of a label, which may be any.
_IN_UNITS = ("mae", "rmse")

#: Below this a p value is written as an inequality.
_SMALLEST_P = 0.001


def digits_of(metric: str, value: float | None = None) -> int:
    """How many digits after the point a metric is given.

    Args:
        metric: its name.
        value: what it is about; an error in the unit of a label gets more digits where it is small.

    >>> digits_of("auc"), digits_of("mae", 61.2), digits_of("mae", 5.3e-5), digits_of("r2", 1e-4)
    (3, 3, 7, 3)
    """
    if metric in _IN_UNITS and value and math.isfinite(value) and abs(value) < 0.01:
        return min(12, 2 - math.floor(math.log10(abs(value))))
    return _DIGITS.get(metric, 3)


def with_spread(mean: float | None, spread: float | None, digits: int = 3) -> str:
    """A mean and, where there is one, its standard deviation.

    >>> with_spread(0.7523, 0.1119), with_spread(0.7523, None), with_spread(None, None)
    ('0.752 ± 0.112', '0.752', 'undefined')
    """
    if mean is None:
        return "undefined"
    text = f"{mean:.{digits}f}"
    return text if spread is None else f"{text} ± {spread:.{digits}f}"


def mean_and_spread(values: Iterable[float], digits: int = 3) -> str:
    """Mean ± sample standard deviation of the finite values; empty where there are none.

    >>> [mean_and_spread(values, 2) for values in ([20.0, 24.0], [20.0], [])]
    ['22.00 ± 2.83', '20.00', '']
    """
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return ""
    return with_spread(fmean(finite), stdev(finite) if len(finite) > 1 else None, digits)


def difference(value: float, digits: int = 3) -> str:
    """A difference, always with its sign.

    >>> difference(0.0213), difference(-0.25)
    ('+0.021', '-0.250')
    """
    return f"{value:+.{digits}f}"


def interval(low: float, high: float, digits: int = 3) -> str:
    """The ends of an interval.

    >>> interval(-0.034, 0.0781)
    '[-0.034, 0.078]'
    """
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def p_value(p: float, name: str = "") -> str:
    """A p value, with its name where it stands in a sentence.

    >>> p_value(0.0004), p_value(0.0321), p_value(0.58, "p"), p_value(0.0004, "p")
    ('< 0.001', '0.032', 'p = 0.58', 'p < 0.001')
    """
    if p < _SMALLEST_P:
        return f"{name} < {_SMALLEST_P}".strip()
    number = f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    return f"{name} = {number}" if name else number


def duration(seconds: float) -> str:
    """A time, in the units that people would use for it.

    >>> duration(42.0), duration(200.0), duration(9000.0)
    ('42 s', '3 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
