"""The account of what was taken for what, which prepare and its dry run give."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from vitaepp.data.store import PARTICIPANT, Failure, column_counts
from vitaepp.data.storeinfo import Account
from vitaepp.ingest.layouts import Cohort
from vitaepp.ingest.readers.items import ArrayItem, Item, VolumeItem, own_files, place_of
from vitaepp.ingest.task import ImageSpec
from vitaepp.system.progress import counted

Lines = Iterator[tuple[str, str]]


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
    for note in cohort.notes:
        yield "note", note


def note_lines(notes: Mapping[str, int], subjects: int) -> Lines:
    """What had to be decided about files, each with how often."""
    for note, count in notes.items():
        yield "note", f"{count} of {counted(subjects, 'subject')}: {note}"


def account_of(cohort: Cohort, failures: Sequence[Failure], spec: ImageSpec) -> Account:
    """The counts that a store keeps of its source, without any name of a subject or file."""
    files = {s.subject: [f for item in s.items for f in own_files(item)] for s in cohort.subjects}
    reasons = (_nameless(f, files.get(f.subject, []), spec) for f in failures)
    left_out = Counter(why for _, why in cohort.left_out)
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
