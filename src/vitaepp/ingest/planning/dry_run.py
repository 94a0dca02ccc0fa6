"""A dry run: what prepare would take of a source, and what it would make of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
        lines = [*self._found(), *self._sizes(), *self._labels(), *self._made()]
        lines += self._not_taken()
        lines += self._series() if self.show_series else []
        return fact_list(lines)

    def _found(self) -> list[tuple[str, str]]:
        cohort, found = self.cohort, self.fingerprint
        lines = account(cohort, self.table, self.spec)
        for modality, lacking in found.missing.items():
            lines.append((f"{modality} missing in", _few(lacking)))
        has = Counter(m for s in cohort.subjects for m in s.files if m not in self.spec.files)
        if has:
            lines.append(("not used", ", ".join(f"{m} (in {n})" for m, n in has.items())))
        return lines

    def _sizes(self) -> list[tuple[str, str]]:
        lines = []
        modalities, total = self.spec.files, len(self.cohort.subjects)
        for modality in modalities:
            seen = [h for h in self.fingerprint.headers if h.modality == modality]
            if not seen:
                continue
            of = f" {modality}" if len(modalities) > 1 else ""
            lines.append((f"size{of}", f"{_ranges([h.size for h in seen])} voxels"))
            if seen[0].spacing:
                lines.append((f"spacing{of}", f"{_ranges([h.spacing for h in seen])} mm"))
                axes = Counter(h.orientation for h in seen)
                told = ", ".join(f"{name}: {n}" for name, n in axes.most_common())
                lines.append((f"orientation{of}", told))
            if (values := self.fingerprint.intensities.get(modality)) is not None:
                low, high = values.robust
                lines.append(
                    (
                        f"intensity{of}",
                        f"{values.low:g} to {values.high:g}, 99 % within {low:.4g} to {high:.4g} "
                        f"(in {values.subjects} of {counted(total, 'subject')})",
                    )
                )
        return lines

    def _labels(self) -> list[tuple[str, str]]:
        table = self.table
        lines = []
        for name in (c for c in table.columns if c not in RESERVED_COLUMNS):
            lines.append((f"label {name}", column_counts(table[name].infer_objects())))
        return lines

    def _made(self) -> list[tuple[str, str]]:
        info = self.spec.info
        what = (
            f"{spec_in_words(self.spec)}, {info.dtype}; at most {_bytes(self.store_bytes)} on disk"
        )
        lines = [("store", what)]
        lines += [(f"  {c.name.removeprefix('prepare.')}", c.reason) for c in self.choices]
        return lines

    def _not_taken(self) -> list[tuple[str, str]]:
        left_out = self.cohort.left_out
        lines = [(f"  {path}", reason) for path, reason in left_out[:SHOWN]]
        if lines:
            lines = [("left out", str(len(left_out))), *lines, *_more(left_out)]
        failed = self.fingerprint.unreadable
        if failed:
            lines.append(
                (
                    "unreadable",
                    f"would fail: {counted(len({f.subject for f in failed}), 'subject')}",
                )
            )
            lines += [(f"  {f.subject}", f.reason) for f in failed[:SHOWN]]
            lines += _more(failed)
        return lines

    def _series(self) -> list[tuple[str, str]]:
        """Every description, as the table of patterns needs it, with its number of series."""
        counts = Counter(self.cohort.unknown_series)
        if not counts:
            return [("unknown series", "none; `series=TABLE` is not needed")]
        lines = [("unknown series", "descriptions for the column pattern of `series=TABLE`")]
        return [
            *lines,
            *((f"  {text or '(none)'}", f"{n} series") for text, n in counts.most_common()),
        ]


def _more(items: Sequence[object]) -> list[tuple[str, str]]:
    return [("  …", f"and {len(items) - SHOWN} more")] if len(items) > SHOWN else []


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
    told = count / 1000
    for unit in ("kB", "MB", "GB"):
        if told < 1000:
            return f"{told:.3g} {unit}"
        told /= 1000
    return f"{told:.3g} TB"
