"""What a source holds: subjects, their files, and what lies below a path that a user gave."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pandas as pd

from vitaepp.data.splits import split_word
from vitaepp.errors import SourceError, nearest
from vitaepp.ingest.layouts.masks import mask_files
from vitaepp.ingest.readers import PICTURE_SUFFIXES, SCAN_SUFFIXES, npy_axes, suffix_of
from vitaepp.ingest.readers.items import Item

#: The name of the one image of a subject, where a layout has no modalities.
SINGLE = "image"

#: What tells a folder that this package wrote: a file, what it begins with, and what it is.
OWN_OUTPUTS = (
    ("store.json", b"{", "a store"),
    ("recipe.yaml", b"method:", "a run"),
    ("metrics.csv", b"subject,psnr,ssim", "a folder of reconstructions"),
)

#: Modalities in the order in which they become channels; BraTS up to 2020, then since 2021.
KNOWN_MODALITIES = (
    *("flair", "t1", "t1ce", "t1gd", "t2"),
    *("t2f", "t1n", "t1c", "t2w"),
    *("t1w", "pd", "adc", "dwi", "swi", "ct", "pet"),
)

ILLEGIBLE = "its name is not UTF-8; rename it"

Kind = Literal["scans", "pictures", "arrays"]

#: Types of the files that are read as scans, and as pictures.
SUFFIXES: Mapping[Kind, tuple[str, ...]] = {"scans": SCAN_SUFFIXES, "pictures": PICTURE_SUFFIXES}


@dataclass(frozen=True)
class SubjectFiles:
    """One subject of a source.

    Attributes:
        subject: unique key.
        files: where each modality is; one that the subject lacks is absent.
        mask: segmentation of the same space, if any.
        split: `train`, `val`, `test` or whatever the source says; may be empty.
        labels: values of label columns that the layout itself gives.
    """

    subject: str
    files: Mapping[str, Item]
    mask: Item | None = None
    split: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cohort:
    """What a source holds.

    Attributes:
        layout: what it was recognised as, for messages.
        kind: how its images are read: scans (3D, physical space), pictures (2D), arrays.
        root: folder that recorded paths are relative to.
        subjects: in the order of the store.
        modalities: that most subjects have, in order; `image` alone where a layout has none.
        classes: values of `label` in the source's own order, where it has one.
        unlabelled: values that the data set's own tables put where a label is missing.
        left_out: what looked like images and is not taken, each with why, for a user to read;
            relative to the source.
        notes: what was taken for what where it could be doubted, a line each; no names of
            subjects, which may not be for everybody's eyes.
        unknown_series: descriptions of DICOM series that no pattern knows, one a series. Free text
            that may hold names: for the screen of who asks, and for no file.
    """

    layout: str
    kind: Kind
    root: Path
    subjects: tuple[SubjectFiles, ...]
    modalities: tuple[str, ...] = (SINGLE,)
    classes: tuple[str, ...] = ()
    unlabelled: tuple[Any, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    unknown_series: tuple[str, ...] = field(default=(), repr=False)

    @property
    def has_masks(self) -> bool:
        """Whether most subjects of every split have a mask; public test sets have none."""
        shares: dict[str, list[bool]] = defaultdict(list)
        for subject in self.subjects:
            shares[subject.split].append(subject.mask is not None)
        return all(2 * sum(masks) > len(masks) for masks in shares.values())

    def lacking(self, modalities: Sequence[str]) -> dict[str, int]:
        """How many subjects lack each of these modalities; those that nobody lacks are absent."""
        counts = Counter(m for s in self.subjects for m in modalities if m not in s.files)
        return {m: counts[m] for m in modalities if counts[m]}

    def table(self) -> pd.DataFrame:
        """Subject, split and the layout's own label columns; one row a subject."""
        rows = [{"subject": s.subject, "split": s.split, **s.labels} for s in self.subjects]
        return pd.DataFrame(rows, dtype=object)

    def items(self, modality: str) -> list[Item]:
        """The images of a modality, of those subjects that have it."""
        return [s.files[modality] for s in self.subjects if modality in s.files]

    def of_first_classes(self, number: int) -> Cohort:
        """The subjects of the first classes alone, in the source's own order of classes.

        Raises:
            SourceError: the source has no classes, or fewer.
        """
        if number > len(self.classes):
            raise SourceError(
                f"prepare.classes={number}: {self.layout} has {len(self.classes) or 'no'} classes"
            )
        first = self.classes[:number]
        subjects = tuple(s for s in self.subjects if s.labels.get("label") in first)
        return replace(self, subjects=subjects, classes=first)

    def choose(self, asked: Sequence[str] | None) -> tuple[str, ...]:
        """The modalities to use, in order: those asked for, or the layout's.

        Raises:
            SourceError: one that no subject has, or one named twice.
        """
        if asked is None:
            return self.modalities
        known = {m for s in self.subjects for m in s.files}
        for name in asked:
            if name not in known:
                raise SourceError(f"modality {name}: no subject has it; {nearest(name, known)}")
        if not asked or len(set(asked)) < len(asked):
            raise SourceError(f"modalities {','.join(asked)}: give each once, and at least one")
        return tuple(asked)


@dataclass(frozen=True)
class Source:
    """A path that a user gave, and what lies below it.

    Attributes:
        path: file or folder.
        asked: modalities that the user named, if any.
        series: the user's own table of DICOM series, if any.
        mask_pattern: the user's own pattern of the names of masks, if any.
        layout: the layout that the user named, if any.
        id_column: the column of subjects of a manifest, if the user named it.
        only: the one file below `path` that is meant, if the user gave a file.
    """

    path: Path
    asked: tuple[str, ...] | None = None
    series: Path | None = None
    mask_pattern: str | None = None
    layout: str | None = None
    id_column: str | None = None
    only: str | None = None

    @property
    def files(self) -> tuple[PurePosixPath, ...]:
        """Every file below a folder, relative to it, sorted; without what systems leave behind.

        Links are followed where they stay inside.
        """
        return self._listing[0]

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """What is not among the files although it is there, each with why."""
        return self._listing[1]

    @cached_property
    def _listing(self) -> tuple[tuple[PurePosixPath, ...], tuple[tuple[str, str], ...]]:
        if self.only is not None:  # a link, too: it was named
            legible = _legible(self.only)
            if legible != self.only:
                return (), ((legible, ILLEGIBLE),)
            return (PurePosixPath(self.only),), ()
        found: list[PurePosixPath] = []
        left_out: list[tuple[str, str]] = []
        root, seen = os.path.realpath(self.path), set()
        for folder, below, names in os.walk(self.path, followlinks=True):
            if (real := os.path.realpath(folder)) in seen:
                below.clear()
                continue
            seen.add(real)
            inside = PurePosixPath(Path(folder).relative_to(self.path).as_posix())
            for entries in (below, names):
                entries[:] = sorted(name for name in entries if not _is_junk(name))
                for name in list(entries):
                    if reason := _why_not(root, os.path.join(folder, name)):
                        entries.remove(name)
                        left_out.append((_legible(inside / name), reason))
            found += [inside / name for name in names]
        return tuple(found), tuple(left_out)

    @cached_property
    def masks(self) -> Mapping[Kind, frozenset[PurePosixPath]]:
        """The masks among the scans, and among the pictures."""
        return {
            kind: mask_files(self.path, self.ending_in(suffixes), self.mask_pattern)
            for kind, suffixes in SUFFIXES.items()
        }

    def images(self, kind: Kind) -> list[PurePosixPath]:
        """The scans or the pictures that are no masks."""
        return [f for f in self.ending_in(SUFFIXES[kind]) if f not in self.masks[kind]]

    def ending_in(self, suffixes: tuple[str, ...]) -> list[PurePosixPath]:
        """The files of some types; arrays in `.npy` are of one or another by their axes."""
        found = [f for f in self.files if suffix_of(f.name, suffixes)]
        if ".npy" not in suffixes:
            return found
        axes = 3 if suffixes == SCAN_SUFFIXES else 2
        return [
            file
            for file in found
            if not file.name.lower().endswith(".npy") or npy_axes(self.path / file) in (0, axes)
        ]


def split_of(path: PurePosixPath) -> str:
    """The split that a part of a path names, or an empty string."""
    return next(filter(None, map(split_word, path.parts)), "")


def below(folder: PurePosixPath, files: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """The files inside a folder."""
    return [f for f in files if f.is_relative_to(folder)]


def common_folder(files: Sequence[PurePosixPath]) -> PurePosixPath:
    """The deepest folder that holds all files."""
    if not files:
        return PurePosixPath()
    return PurePosixPath(os.path.commonpath([f.parent for f in files]))


def usual_modalities(subjects: Sequence[SubjectFiles]) -> tuple[str, ...]:
    """Modalities that more than half of the subjects have, in the usual order of channels."""
    counts = Counter(m for s in subjects for m in s.files)
    usual = [m for m, count in counts.items() if 2 * count > len(subjects)]
    rank = {m: i for i, m in enumerate(KNOWN_MODALITIES)}
    order = sorted(usual or counts, key=lambda m: (rank.get(m.lower(), len(rank)), m))
    return tuple(order)


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _why_not(root: str, path: str) -> str:
    """Why an entry of a folder is not looked at; empty if it is."""
    if _legible(name := os.path.basename(path)) != name:
        return ILLEGIBLE
    if (own := _own_output(path)) is not None:
        return own
    if os.path.islink(path):
        real = os.path.realpath(path)
        if os.path.commonpath([root, real]) != root:
            return "is a link that leads out of the source; copy what it points to"
    elif not os.path.isfile(path) and not os.path.isdir(path):
        return "is no file, but a device, a pipe or a socket"
    return ""


def _own_output(path: str) -> str | None:
    """Why a folder that this package wrote is not looked at; None for any other."""
    for name, head, what in OWN_OUTPUTS:
        file = os.path.join(path, name)
        if os.path.isfile(file):
            with open(file, "rb") as opened:
                if opened.read(len(head)) == head:
                    return f"is {what} of vitaepp"
    return None


def _legible(path: str | PurePosixPath) -> str:
    """A path as text that can be written anywhere; unchanged where it is UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")
