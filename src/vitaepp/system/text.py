"""How messages write sizes and lists of facts; one place, so that they read the same everywhere."""

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


def fact_list(facts: Sequence[tuple[str, str]]) -> str:
    """Names and what is known of each, in two columns.

    >>> print(fact_list([("size", "96×96"), ("spacing", "1×1 mm")]))
    size     96×96
    spacing  1×1 mm
    """
    width = max((len(name) for name, _ in facts), default=0)
    return "\n".join(f"{name:<{width}}  {text}".rstrip() for name, text in facts)
