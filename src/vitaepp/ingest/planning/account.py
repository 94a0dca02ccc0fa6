"""The account of what was taken for what, and the dry run: what would be made of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.storeinfo import Account
from vitaepp.data.storetable import PARTICIPANT, RESERVED_COLUMNS, Failure, column_counts
from vitaepp.ingest.layouts import Cohort
from vitaepp.ingest.planning.fingerprint import Fingerprint
from vitaepp.ingest.planning.spec import spec_in_words
from vitaepp.ingest.readers.items import ArrayItem, Item, VolumeItem, own_files, place_of
from vitaepp.ingest.task import ImageSpec
from vitaepp.recipe.choices import Choice
from vitaepp.system.progress import counted
from vitaepp.system.text import dimensions, fact_list

Lines = Iterator[tuple[str, str]]


#: Subjects and files that a list shows by name.
SHOWN = 10

#: Different values that are shown one by one.
FEW = 6


def account(cohort: Cohort, table: pd.DataFrame, spec: ImageSpec) -> Lines:
    """What a source was taken for: files, channels, masks, splits and persons, a line each.

    Args:
        cohort: the source.
        table: subject, split and labels, one row a subject.
        spec: which modalities are read.
    """
    subjects = cohort.subjects
    total = len(subjects)
    yield "layout", cohort.layout
    yield "subjects", f"{total}: {files_in_words(cohort)}, {len(cohort.left_out)} left out"
    for modality in spec.files:
        yield f"channel {modality}", _like(spec, cohort.items(modality), total)
    masks = [s.mask for s in subjects if s.mask is not None]
    if masks:
        yield "masks", _like(spec, masks, total)
    split = table["split"].replace("", None)
    if split.notna().any():
        yield "split", column_counts(split)
    if PARTICIPANT in table:
        persons = table[PARTICIPANT].nunique() + int(table[PARTICIPANT].isna().sum())
        yield PARTICIPANT, f"{counted(persons, 'person')} for {counted(total, 'subject')}"
    for note in cohort.told:
        yield "note", note


def note_lines(notes: Mapping[str, int], subjects: int) -> Lines:
    """What had to be decided about files, each with how often."""
    for note, count in notes.items():
        yield "note", f"{count} of {counted(subjects, 'subject')}: {note}"


def account_of(cohort: Cohort, failures: Sequence[Failure], spec: ImageSpec) -> Account:
    """The counts that a store keeps of its source, without any name of a subject or file."""
    files = {subject.subject: subject.own_files for subject in cohort.subjects}
    reasons = (_nameless(f, files.get(f.subject, ()), spec) for f in failures)
    # What to do about it, after the reason, is for who prepares; the report and a paper have this.
    left_out = Counter(why.partition("; ")[0] for _, why in cohort.left_out)
    return Account(len(cohort.subjects), dict(Counter(reasons)), dict(left_out))


def _nameless(failure: Failure, files: Sequence[Path], spec: ImageSpec) -> str:
    """The reason of a failure without the names of the subject and its files."""
    if spec.secret is not None:
        return "could not be read or prepared"
    names = {failure.subject, *map(str, files)}
    for file in files:
        inside = file.relative_to(spec.root) if file.is_relative_to(spec.root) else file
        names |= {inside.as_posix(), *inside.parts}
    reason = failure.reason
    for name in sorted(names, key=len, reverse=True):
        reason = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "its file", reason)
    return reason.removeprefix("its file: ")


def files_in_words(cohort: Cohort) -> str:
    """How many files were taken as images, and how many as masks."""
    images = Counter(i for s in cohort.subjects for i in s.files.values())
    if cohort.kind == "arrays":
        return f"{counted(len(images), 'image')} of arrays"
    taken = {file for item in images for file in own_files(item)}
    masks = {s.mask for s in cohort.subjects if s.mask is not None}
    kind = cohort.kind.removesuffix("s")
    as_images = kind if len(taken) == 1 else cohort.kind
    return f"{counted(len(taken), 'file')} taken as {as_images}, {len(masks)} as masks"


def _like(spec: ImageSpec, items: Sequence[Item], total: int) -> str:
    """How many subjects have an image, and where that of the first is."""
    share = f"{len(items)} of {total}"
    if not items or spec.secret is not None:  # names are not for everybody's eyes
        return share
    index = f"[{items[0].index}]" if isinstance(items[0], VolumeItem | ArrayItem) else ""
    return f"{share}, such as {place_of(items[0], spec.root)}{index}"


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
            yield "failures", f"would fail: {subjects}"
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
