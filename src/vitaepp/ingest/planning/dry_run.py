"""A dry run: what prepare would take of a source, and what it would make of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.store import RESERVED_COLUMNS, column_counts
from vitaepp.ingest.layouts import Cohort
from vitaepp.ingest.planning.account import account
from vitaepp.ingest.planning.fingerprint import Fingerprint
from vitaepp.ingest.planning.spec import spec_in_words
from vitaepp.ingest.task import ImageSpec
from vitaepp.recipe.choices import Choice
from vitaepp.system.progress import counted
from vitaepp.system.text import dimensions, fact_list

#: Subjects and files that a list shows by name.
SHOWN = 10

#: Different values that are shown one by one.
FEW = 6


@dataclass(frozen=True)
class DryRun:
    """What prepare would do; `str` gives it as text for people to read.

    Attributes:
        cohort: what the source was recognised as.
        table: subject, split and labels, one row a subject.
        spec: what would be made.
        choices: size and spacing where they were chosen, with reasons.
        fingerprint: what the headers tell.
        show_series: whether the text has the descriptions of series that no pattern knows.
    """

    cohort: Cohort
    table: pd.DataFrame
    spec: ImageSpec
    choices: tuple[Choice, ...]
    fingerprint: Fingerprint
    show_series: bool = False

    @property
    def store_bytes(self) -> int:
        """Bytes of the store's images, before they are compressed."""
        info = self.spec.info
        return len(self.table) * prod(info.shape) * np.dtype(info.dtype).itemsize

    def to_dict(self) -> dict[str, Any]:
        """What a program wants to know of it, JSON throughout."""
        return {
            "layout": self.cohort.layout,
            "subjects": len(self.table),
            "left_out": [list(one) for one in self.cohort.left_out],
            "missing": {k: len(v) for k, v in self.fingerprint.missing.items()},
            "failures": [asdict(failure) for failure in self.fingerprint.unreadable],
            "choices": [asdict(choice) for choice in self.choices],
            "store": self.spec.info.facts,
            "store_bytes": self.store_bytes,
        }

    def __str__(self) -> str:
        return fact_list(self._facts())

    def _facts(self) -> Iterator[tuple[str, str]]:
        cohort, spec = self.cohort, self.spec
        yield from account(cohort, self.table, spec)
        for modality, lacking in self.fingerprint.missing.items():
            yield f"{modality} missing in", _few(lacking)
        has = Counter(m for s in cohort.subjects for m in s.files if m not in spec.files)
        if has:
            yield "not used", ", ".join(f"{m} (in {n})" for m, n in has.items())
        for modality in spec.files:
            yield from self._sizes(modality, f" {modality}" if len(spec.files) > 1 else "")
        for name in (c for c in self.table.columns if c not in RESERVED_COLUMNS):
            yield f"label {name}", column_counts(self.table[name].infer_objects())
        size = _bytes(self.store_bytes)
        yield "store", f"{spec_in_words(spec)}, {spec.info.dtype}; at most {size} on disk"
        for choice in self.choices:
            yield f"  {choice.name.removeprefix('prepare.')}", choice.reason
        if cohort.left_out:
            yield "left out", str(len(cohort.left_out))
            yield from _first(cohort.left_out)
        if failed := self.fingerprint.unreadable:
            subjects = counted(len({f.subject for f in failed}), "subject")
            yield "unreadable", f"would fail: {subjects}"
            yield from _first([(f.subject, f.reason) for f in failed])
        if self.show_series:
            yield from self._series()

    def _sizes(self, modality: str, of: str) -> Iterator[tuple[str, str]]:
        """Size, spacing, orientation and intensities of a modality, named `of` in the lines."""
        seen = [h for h in self.fingerprint.headers if h.modality == modality]
        if not seen:
            return
        yield f"size{of}", f"{_ranges([h.size for h in seen])} voxels"
        if seen[0].spacing:
            yield f"spacing{of}", f"{_ranges([h.spacing for h in seen])} mm"
            axes = Counter(h.orientation for h in seen)
            yield f"orientation{of}", ", ".join(f"{name}: {n}" for name, n in axes.most_common())
        if (values := self.fingerprint.intensities.get(modality)) is not None:
            low, high = values.robust
            yield (
                f"intensity{of}",
                f"{values.low:g} to {values.high:g}, 99 % within {low:.4g} to {high:.4g} "
                f"(in {values.subjects} of {counted(len(self.cohort.subjects), 'subject')})",
            )

    def _series(self) -> Iterator[tuple[str, str]]:
        """Every description, as the table of patterns needs it, with its number of series."""
        counts = Counter(self.cohort.unknown_series)
        use = "descriptions for the column pattern of `series=TABLE`"
        yield "unknown series", use if counts else "none; `series=TABLE` is not needed"
        for text, number in counts.most_common():
            yield f"  {text or '(none)'}", f"{number} series"


def _first(lines: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The first lines of a list, indented, and how many more there are."""
    for name, text in lines[:SHOWN]:
        yield f"  {name}", text
    if len(lines) > SHOWN:
        yield "  …", f"and {len(lines) - SHOWN} more"


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{shown}, … ({len(names)} in all)" if len(names) > SHOWN else shown


def _ranges(vectors: Sequence[tuple[Any, ...]]) -> str:
    """Vectors in words: one by one with their counts where they are few, else the range by axis."""
    counts = Counter(tuple(v) for v in vectors)
    if len(counts) == 1:
        return dimensions(next(iter(counts)))
    if len(counts) <= FEW:
        return ", ".join(f"{dimensions(vector)}: {n}" for vector, n in counts.most_common())
    values = np.array(vectors)
    low, high = values.min(axis=0), values.max(axis=0)
    return (
        f"{dimensions(low)} to {dimensions(high)}, median {dimensions(np.median(values, axis=0))}"
    )


def _bytes(count: int) -> str:
    amount = count / 1000
    for unit in ("kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
