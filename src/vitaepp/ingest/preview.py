"""A dry run: what prepare would take of a source, and what it would make of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.choices import Choice, by
from vitaepp.ingest.fingerprint import Fingerprint, fingerprint
from vitaepp.ingest.layouts import Cohort
from vitaepp.ingest.planning import Plan, said
from vitaepp.store import RESERVED_COLUMNS, column_counts

#: Subjects and files that a list shows by name.
SHOWN = 10

#: Different values that are shown one by one.
FEW = 6


@dataclass(frozen=True)
class Preview:
    """What prepare would do; `str` gives it as text for people to read.

    Attributes:
        cohort: what the source was recognised as.
        table: subject, split and labels, one row a subject.
        plan: what would be made.
        choices: size and spacing where they were chosen, with reasons.
        fingerprint: what the headers tell.
    """

    cohort: Cohort
    table: pd.DataFrame
    plan: Plan
    choices: tuple[Choice, ...]
    fingerprint: Fingerprint

    @property
    def store_bytes(self) -> int:
        """Bytes of the store's images, before they are compressed."""
        info = self.plan.info
        return len(self.table) * prod(info.shape) * np.dtype(info.dtype).itemsize

    def __str__(self) -> str:
        lines = [*self._found(), *self._geometry(), *self._labels(), *self._made()]
        lines += self._not_taken()
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {text}".rstrip() for name, text in lines)

    def _found(self) -> list[tuple[str, str]]:
        cohort, found, total = self.cohort, self.fingerprint, len(self.cohort.subjects)
        lines = [("layout", cohort.layout), ("subjects", str(total))]
        has = Counter(m for s in cohort.subjects for m in s.files)
        for modality in self.plan.files:
            lines.append((f"modality {modality}", f"{has[modality]} of {total} subjects"))
            if lacking := found.missing.get(modality):
                lines.append(("  missing in", _few(lacking)))
        unused = [m for m in has if m not in self.plan.files]
        if unused:
            lines.append(("not used", ", ".join(f"{m} (in {has[m]})" for m in unused)))
        masks = sum(s.mask is not None for s in cohort.subjects)
        if masks:
            lines.append(("masks", f"{masks} of {total} subjects"))
        lines += [("note", note) for note in cohort.notes]
        return lines

    def _geometry(self) -> list[tuple[str, str]]:
        lines = []
        modalities, total = self.plan.files, len(self.cohort.subjects)
        for modality in modalities:
            seen = [g for g in self.fingerprint.geometries if g.modality == modality]
            if not seen:
                continue
            of = f" {modality}" if len(modalities) > 1 else ""
            lines.append((f"size{of}", f"{_ranges([g.size for g in seen])} voxels"))
            if seen[0].spacing:
                lines.append((f"spacing{of}", f"{_ranges([g.spacing for g in seen])} mm"))
                axes = Counter(g.orientation for g in seen)
                told = ", ".join(f"{name}: {n}" for name, n in axes.most_common())
                lines.append((f"orientation{of}", told))
            if (values := self.fingerprint.intensities.get(modality)) is not None:
                low, high = values.robust
                lines.append(
                    (
                        f"intensity{of}",
                        f"{values.low:g} to {values.high:g}, 99 % within {low:.4g} to {high:.4g} "
                        f"(in {values.subjects} of {total} subjects)",
                    )
                )
        return lines

    def _labels(self) -> list[tuple[str, str]]:
        table = self.table
        lines = []
        if table["split"].replace("", None).notna().any():
            lines.append(("split", column_counts(table["split"].replace("", None))))
        for name in (c for c in table.columns if c not in RESERVED_COLUMNS):
            lines.append((f"label {name}", column_counts(table[name].infer_objects())))
        return lines

    def _made(self) -> list[tuple[str, str]]:
        info = self.plan.info
        what = f"{said(self.plan)}, {info.dtype}; at most {_bytes(self.store_bytes)} on disk"
        lines = [("store", what)]
        lines += [(f"  {c.name.removeprefix('prepare.')}", c.reason) for c in self.choices]
        return lines

    def _not_taken(self) -> list[tuple[str, str]]:
        lines: list[tuple[str, str]] = []
        left_out = self.cohort.left_out
        if left_out:
            lines.append(("left out", str(len(left_out))))
            lines += [(f"  {path}", reason) for path, reason in left_out[:SHOWN]]
            lines += _more(left_out)
        failed = self.fingerprint.unreadable
        if failed:
            lines.append(("unreadable", f"would fail: {len({f.subject for f in failed})} subjects"))
            lines += [(f"  {f.subject}", f.reason) for f in failed[:SHOWN]]
            lines += _more(failed)
        return lines


def preview(
    cohort: Cohort,
    table: pd.DataFrame,
    plan: Plan,
    choices: tuple[Choice, ...],
    workers: int | None = None,
) -> Preview:
    """Look at a cohort as prepare would take it; nothing is written."""
    return Preview(cohort, table, plan, choices, fingerprint(plan, cohort, workers))


def _more(items: Sequence[object]) -> list[tuple[str, str]]:
    return [("  …", f"and {len(items) - SHOWN} more")] if len(items) > SHOWN else []


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{shown}, … ({len(names)} in all)" if len(names) > SHOWN else shown


def _ranges(vectors: Sequence[tuple[Any, ...]]) -> str:
    """Vectors in words: one by one with their counts where they are few, else the range by axis."""
    counts = Counter(tuple(v) for v in vectors)
    if len(counts) == 1:
        return by(next(iter(counts)))
    if len(counts) <= FEW:
        return ", ".join(f"{by(vector)}: {n}" for vector, n in counts.most_common())
    values = np.array(vectors)
    low, high = values.min(axis=0), values.max(axis=0)
    return f"{by(low)} to {by(high)}, median {by(np.median(values, axis=0))}"


def _bytes(count: int) -> str:
    told = count / 1000
    for unit in ("kB", "MB", "GB"):
        if told < 1000:
            return f"{told:.3g} {unit}"
        told /= 1000
    return f"{told:.3g} TB"
