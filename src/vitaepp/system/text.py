"""How messages write sizes and lists of names and facts, so that they read the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any


def dimensions(values: Iterable[Any]) -> str:
    """One number for each axis, as people write them.

    >>> dimensions((96, 96, 0.5)), dimensions((0.4296875, 3.0))
    ('96×96×0.5', '0.4297×3')
    """
    return "×".join(str(v) if isinstance(v, Integral) else f"{v:.4g}" for v in values)


def as_typed(value: Any, beside: Any = None) -> str:
    """A value as people type it as a setting.

    Args:
        value: of a setting, or a fact of a store; None where it is unset.
        beside: the value that it is held against: what is unset beside yes or no, is no.

    >>> as_typed((96, 96, 64)), as_typed({"ct": (40.0, 400.0)}), as_typed(None)
    ('96,96,64', 'ct=40,400', 'none')
    >>> as_typed(True), as_typed(None, True), as_typed(1e-4), as_typed(4 / 3)
    ('yes', 'no', '0.0001', '1.3333333333333333')
    """
    if isinstance(value, dict):
        return " ".join(f"{k}={as_typed(v)}" for k, v in value.items()) or "none"
    if isinstance(value, tuple | list):
        return ",".join(as_typed(v) for v in value) or "none"
    if isinstance(value, bool) or (value is None and isinstance(beside, bool)):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def listed(parts: Iterable[str]) -> str:
    """A list in a sentence.

    Example:
        >>> listed(["t1", "t2", "flair"])
        't1, t2 and flair'
    """
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def be(count: int) -> str:
    """The verb of so many in the past: was, or were."""
    return "was" if count == 1 else "were"


def first_few(names: Sequence[Any]) -> str:
    """The first three of a list, and whether there are more.

    >>> first_few(["a", "b"]), first_few("abcd")
    ('a, b', 'a, b, c, …')
    """
    return ", ".join(map(str, names[:3])) + (", …" if len(names) > 3 else "")


def evenly(total: int, most: int | None = None) -> list[int]:
    """At most so many of `total` rows, spread evenly from the first to the last; all by default.

    >>> evenly(10, 4), evenly(3, 4), evenly(2)
    ([0, 3, 6, 9], [0, 1, 2], [0, 1])
    """
    count = total if most is None else min(most, total)
    return [round(i * (total - 1) / max(count - 1, 1)) for i in range(count)]


def fact_list(facts: Iterable[tuple[str, str]]) -> str:
    """Names and what is known of each, in two columns.

    >>> print(fact_list([("size", "96×96"), ("spacing", "1×1 mm")]))
    size     96×96
    spacing  1×1 mm
    """
    facts = list(facts)
    width = max((len(name) for name, _ in facts), default=0)
    return "\n".join(f"{name:<{width}}  {text}".rstrip() for name, text in facts)
