"""What the images of a store are, and how two stores differ: facts alone, read without the images.

An encoder keeps these facts of its training's store, so this module needs neither Zarr nor pandas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.system.text import as_typed

#: Channels of a colour picture.
RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class StoreInfo:
    """What the images of a store are; two stores with equal info can be joined.

    Attributes:
        modalities: channel names, in order.
        size: voxels per spatial axis; its length is the number of spatial axes.
        spacing: voxel size in mm per axis, or None where images were scaled to fit the size.
        dtype: stored type, `float16` or `uint8`; intensities are in [0, 255].
        center: what crops are centred on: `mask`, `foreground` or `image`.
        clip: percentiles that became 0 and 255, or None for minimum and maximum.
        window: modalities with a window of their own: name, and the intensities that became 0 and
            255; None where there is none.
        statistics: `foreground` where percentiles were taken over it; None for the whole volume.
        mask_values: values of the masks that crops are centred on; None for all but 0.
        unit: of the spacing where it is not mm: `pixels` of pictures and arrays, which have no
            physical space.
        masks: True where each subject's mask is kept beside its images; None where not.
        mask_names: what values of these masks are called, where a source says it. Names are no
            fact of the images, so stores are not compared by them.
        more: other settings of `prepare` that shape images, where they are not the defaults: name
            and value.
    """

    modalities: tuple[str, ...]
    size: tuple[int, ...]
    spacing: tuple[float, ...] | None
    dtype: str
    center: str
    clip: tuple[float, float] | None = None
    window: tuple[tuple[str, float, float], ...] | None = None
    statistics: str | None = None
    mask_values: tuple[int, ...] | None = None
    unit: str | None = None
    masks: bool | None = None
    mask_names: tuple[tuple[int, str], ...] = field(default=(), compare=False)
    more: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> StoreInfo:
        """What `asdict` gave, from JSON or as it was.

        Raises:
            TypeError: other names than ours.
        """
        return cls(**with_tuples(values))

    def window_of(self, modality: str) -> tuple[float, float] | None:
        """The intensities that became 0 and 255 wherever a modality has a window."""
        return next(((low, high) for m, low, high in self.window or () if m == modality), None)

    def stored(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Intensities in [0, 255] in the type that they are stored in."""
        return (np.rint(image) if self.dtype == "uint8" else image).astype(self.dtype)

    @property
    def intensities(self) -> str:
        """How intensities were chosen, in words; empty where it is by minimum and maximum."""
        parts = [f"{name} {low:g} to {high:g}" for name, low, high in self.window or ()]
        if self.clip or self.statistics:
            first, last = self.clip or (0, 100)
            over = f" of the {self.statistics}" if self.statistics else ""
            parts.append(f"{'else ' * bool(parts)}percentiles {first:g} to {last:g}{over}")
        return ", ".join(parts)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of `prepare` that make such images."""
        same = ("size", "spacing", "modalities", "center", "dtype", "clip", "statistics")
        window = {m: ((low + high) / 2, high - low) for m, low, high in self.window or ()}
        own = {name: getattr(self, name) for name in (*same, "mask_values")}
        return own | {"window": window or None} | dict(self.more)

    @property
    def facts(self) -> dict[str, Any]:
        """All but the names in masks, by what it is called; what is unset is left out."""
        values = asdict(self)
        more = dict(values.pop("more"))
        del values["mask_names"]
        return {k: v for k, v in (values | more).items() if v is not None}

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.size)

    @property
    def directed(self) -> bool:
        """Whether the axes run to the patient's right, front and head, as those of scans do."""
        return self.ndim == 3 and self.spacing is not None and self.unit is None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image: (channel, *space)."""
        return (len(self.modalities), *self.size)


@dataclass(frozen=True)
class Account:
    """What the latest call of `prepare` found in its source, and what of it a store does not have.

    It holds counts and reasons alone, no names of subjects or files, so that a run and a page can
    keep it.

    Attributes:
        found: subjects of the source.
        failed: subjects that could not be prepared, by reason.
        left_out: images of the source that belong to no subject or were not chosen, by reason.
    """

    found: int
    failed: Mapping[str, int]
    left_out: Mapping[str, int]

    @classmethod
    def parse(cls, values: Any) -> Account | None:
        """What `asdict` gave, from JSON; None for anything else."""
        try:
            return cls(int(values["found"]), _counts(values["failed"]), _counts(values["left_out"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def _counts(values: Any) -> dict[str, int]:
    return {str(reason): int(count) for reason, count in values.items()}


def unlike(store: StoreInfo, other: StoreInfo) -> list[str]:
    """How images were prepared in another way than others, a text for each difference.

    Size, stored type, modalities and kept masks may differ. What shapes intensities is compared for
    the modalities that both have.

    Example:
        >>> first = StoreInfo(("t1",), (96, 96), (1.0, 1.0), "float16", "mask")
        >>> unlike(first, StoreInfo(("t1",), (96, 96), (2.0, 2.0), "uint8", "mask"))
        ['spacing 1,1 instead of 2,2']
    """
    shared = [m for m in store.modalities if m in other.modalities]
    differing = []
    for name in store.facts | other.facts:
        if name not in ("modalities", "size", "dtype", "masks"):
            have, want = _compared(store, name, shared), _compared(other, name, shared)
            if not alike(have, want):
                differing.append(f"{name} {as_typed(have, want)} instead of {as_typed(want, have)}")
    return differing


def _compared(info: StoreInfo, name: str, modalities: Sequence[str]) -> Any:
    windows = {m: info.window_of(m) for m in modalities}
    if name == "window":
        return {m: window for m, window in windows.items() if window}
    if name in ("clip", "statistics") and all(windows.values()):
        return None  # nothing is left that they could shape
    if name == "clip":
        return info.clip or (0.0, 100.0)
    return info.facts.get(name)


def alike(one: Any, other: Any) -> bool:
    """Whether two settings or facts are equal but for the rounding of headers, a thousandth."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[k], other[k]) for k in one)
    numbers = all(
        isinstance(values, tuple) and all(isinstance(v, int | float) for v in values)
        for values in (one, other)
    ) and len(one) == len(other)
    return one == other or (numbers and bool(np.allclose(one, other, rtol=1e-3)))


def difference(existing: StoreInfo, wanted: StoreInfo) -> str:
    """Every field in which a store differs from the one that is wanted, as text for an error."""
    have, want = existing.facts, wanted.facts
    differing = []
    for name in (k for k in have | want if have.get(k) != want.get(k)):
        one, other = have.get(name), want.get(name)
        if name == "window":
            one, other = (_compared(i, name, i.modalities) for i in (existing, wanted))
        differing.append(f"{name} {as_typed(one, other)} there, {as_typed(other, one)} asked")
    return ", ".join(differing)


def with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that they were."""
    return {k: _as_tuple(v) for k, v in values.items()}


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list) else value
