"""Types of settings: how a value may be written, and what it must be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from vitaepp.errors import RecipeError, nearest
from vitaepp.system.text import as_typed

#: What an embedding may be pooled from.
POOLS = ("mean", "std", "max", "cls", "grid", "gridmax", "gradients")


def _listed(value: Any) -> Any:
    """Accept `"a,b"` for `["a", "b"]`."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _one_or_per_axis(value: Any) -> Any:
    """Accept `96`, `"96,96,64"`, `[96]` or `(96, 96, 64)`; one value stands for every axis."""
    return (value,) if isinstance(value, int | float) else _listed(value)


PerAxisInt = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...],
    BeforeValidator(_one_or_per_axis),
    Field(min_length=1, max_length=3),
]


PerAxisFloat = Annotated[
    tuple[Annotated[float, Field(gt=0)], ...],
    BeforeValidator(_one_or_per_axis),
    Field(min_length=1, max_length=3),
]


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


Integers = Annotated[
    tuple[int, ...], BeforeValidator(_one_or_per_axis), AfterValidator(lambda v: tuple(sorted(v)))
]


Weight = Annotated[float, Field(ge=0)]


#: Usual windows of CT by name: centre and width in Hounsfield units.
WINDOWS = {
    "brain": (40.0, 80.0),
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "abdomen": (50.0, 400.0),
    "bone": (400.0, 1800.0),
}


def kinds_in(kind: Any) -> list[Any]:
    """The types that a setting's type is made of.

    >>> kinds_in(tuple[float, ...] | None)
    [<class 'float'>, Ellipsis, <class 'NoneType'>]
    """
    parts = get_args(kind)
    return [inner for part in parts for inner in kinds_in(part)] if parts else [kind]


def number(value: Any) -> Any:
    """A number with an exponent, which YAML takes for text unless it has a point; else the value.

    >>> number("1e3"), number("all"), number(3)
    (1000.0, 'all', 3)
    """
    exponent = isinstance(value, str) and re.fullmatch(r"[-+]?\d*\.?\d+e[-+]?\d+", value, re.I)
    return float(value) if exponent else value


def _share(value: Any) -> Any:
    """Accept `0.4` for `(0.4, 1)`, `"0.4,1"` or `(0.4, 1)`."""
    return (value, 1.0) if isinstance(value, int | float) else _listed(value)


def _rising_share(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] <= 1:
        raise ValueError("two shares are needed, above 0 and up to 1, the smaller one first")
    return value


def _in_unit_range(value: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0 <= v <= 1 for v in value):
        raise ValueError("give intensities in [0, 1]: stored ones divided by 255")
    return value


def _flips(value: Any) -> Any:
    """Accept `"0,2"`, `0` or `(0, 2)` beside the names."""
    named = isinstance(value, str) and not value[:1].isdigit()
    return value if named else _one_or_per_axis(value)


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] < value[1] <= 100:
        raise ValueError("two percentiles are needed, from 0 to 100, the lower one first")
    return value


def _window(value: Any) -> Any:
    """Accept the name of a window, `"40,400"` or `(40, 400)`."""
    if not isinstance(value, str) or "," in value:
        return _listed(value)
    if value not in WINDOWS:
        raise ValueError(f"no window {value}, nor CENTRE,WIDTH; {nearest(value, WINDOWS)}")
    return WINDOWS[value]


def checked_pool(value: str) -> str:
    """The parts that an embedding is pooled from, joined by `+`.

    Raises:
        ValueError: there is no such part, or one is named twice.
    """
    parts = value.split("+")
    if wrong := [part for part in parts if part not in POOLS]:
        raise ValueError(f"no pooling {wrong[0]!r}; join any of {', '.join(POOLS)} by +")
    if len(set(parts)) < len(parts):
        raise ValueError(f"{value} names a pooling twice")
    return value


def _windows(value: Any) -> Any:
    """Accept `{"ct": "lung"}`, or `"ct=lung"` as on a command line, one or several."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        return value
    pairs = [str(item).partition("=") for item in value]
    if not all(name and text for name, _, text in pairs):
        raise ValueError("write modality=window, such as ct=lung or ct=40,400")
    return {name.strip(): text.strip() for name, _, text in pairs}


Percentiles = Annotated[tuple[float, float], BeforeValidator(_listed), AfterValidator(_rising)]


Shares = Annotated[tuple[float, float], BeforeValidator(_share), AfterValidator(_rising_share)]


Beta = Annotated[float, Field(ge=0, lt=1)]


Betas = Annotated[tuple[Beta, Beta], BeforeValidator(_listed)]


Intensities = Annotated[
    tuple[float, ...], BeforeValidator(_one_or_per_axis), AfterValidator(_in_unit_range)
]


Kept = Annotated[
    tuple[Literal["size", "side"], ...],
    BeforeValidator(lambda value: () if value in (None, "", "none") else _listed(value)),
    AfterValidator(lambda v: tuple(sorted(set(v)))),
]


Pool = Annotated[str, AfterValidator(checked_pool)]


Flips = Annotated[
    Literal["sides", "all", "none"] | tuple[Annotated[int, Field(ge=0, le=2)], ...],
    BeforeValidator(_flips),
]


Window = Annotated[tuple[float, Annotated[float, Field(gt=0)]], BeforeValidator(_window)]


Windows = Annotated[dict[str, Window], BeforeValidator(_windows)]


def per_axis(values: Sequence[Any], ndim: int, name: str) -> tuple[Any, ...]:
    """Spread one value over `ndim` axes, or check that there is one for each.

    Args:
        values: one, or one an axis.
        ndim: number of axes.
        name: of the setting or the argument, for the error.

    >>> per_axis((8,), 3, "model.patch_size")
    (8, 8, 8)
    """
    if len(values) == 1:
        return tuple(values) * ndim
    if len(values) != ndim:
        given = f"{name}={as_typed(values)}"
        raise RecipeError(
            f"{given if '.' in name else f'`{given}`'} has {len(values)} values, but the images "
            f"have {ndim} axes; give one value or {ndim}"
        )
    return tuple(values)
