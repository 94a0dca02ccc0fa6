"""Cohorts and sources: subjects with their files, and the files below a path that a user gave."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pandas as pd

from vitaepp.data.suffixes import PICTURE_SUFFIXES, SCAN_SUFFIXES
from vitaepp.errors import SourceError, nearest
from vitaepp.ingest.layouts.masks import mask_files
from vitaepp.ingest.layouts.names import modality_in, without_synonym
from vitaepp.ingest.readers.arrays import npy_axes
from vitaepp.ingest.readers.items import Item, own_files
from vitaepp.system.paths import kind_of
from vitaepp.system.progress import counted

#: The name of a subject's only image, if its layout has no modalities.
SINGLE = "image"


#: Why an image is left out in favour of another. File names may be confidential, so it has none.
PLAINER = "the one with the plainer name, or the first, is used"

#: Modalities in the order in which they become channels: BraTS up to 2020, since 2021, others.
KNOWN_MODALITIES = (
    *("flair", "t1", "t1ce", "t1gd", "t2"),
    *("t2f", "t1n", "t1c", "t2w"),
    *("t1w", "pd", "adc", "dwi", "swi", "ct", "pet"),
)

ILLEGIBLE = "its name is not UTF-8; rename it"

Kind = Literal["scans", "pictures", "arrays"]

#: File types that are read as scans, and as pictures.
SUFFIXES: Mapping[Kind, tuple[str, ...]] = {"scans": SCAN_SUFFIXES, "pictures": PICTURE_SUFFIXES}


def another(reason: str) -> str | None:
    """The modality of which another image is used, by the reason why one is left out.

    >>> another("another t1; the one with the plainer name is used"), another("no image")
    ('t1', None)
    """
    found = re.match(r"another ([^;,]+)", reason)
    return None if found is None else found[1]


@dataclass(frozen=True)
class SubjectFiles:
    """One subject of a source.

    Attributes:
        subject: unique key.
        files: the image of each modality that the subject has.
        mask: its segmentation, in the same space, if there is one.
        split: `train`, `val`, `test` or the source's own word; may be empty.
        labels: values of the label columns that the layout itself provides.
        doubts: what a user should check about its files, in words that are the same for others.
    """

    subject: str
    files: Mapping[str, Item]
    mask: Item | None = None
    split: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    @property
    def items(self) -> tuple[Item, ...]:
        """Its images, and its mask if it has one."""
        return (*self.files.values(), *(() if self.mask is None else (self.mask,)))

    @property
    def own_files(self) -> tuple[Path, ...]:
        """The files that these name; a header may keep its voxels in another file."""
        return tuple(file for item in self.items for file in own_files(item))


@dataclass(frozen=True)
class Cohort:
    """The subjects of a source.

    Attributes:
        layout: the layout that was recognised, in words for messages.
        kind: how its images are read: scans (3D, physical space), pictures (2D) or arrays.
        root: the folder that recorded paths are relative to.
        subjects: in the order of the store.
        modalities: those that most subjects have, in order; only `image` if the layout has none.
        classes: values of `label` in the source's own order, if it has one.
        unlabelled: values by which the data set's own tables mark a missing label.
        left_out: images that are not used, each with the reason; paths relative to the source.
        mask_names: what the values of masks are called, if the source says so.
        notes: decisions that a user should check, one line each. They name no subjects, because
            names may be confidential.
        unknown_series: descriptions of the DICOM series that match no pattern. They are free text
            and may hold patients' names, so they are shown on request and never written to a file.
    """

    layout: str
    kind: Kind
    root: Path
    subjects: tuple[SubjectFiles, ...]
    modalities: tuple[str, ...] = (SINGLE,)
    classes: tuple[str, ...] = ()
    unlabelled: tuple[Any, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    mask_names: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()
    unknown_series: tuple[str, ...] = field(default=(), repr=False)

    @property
    def told(self) -> tuple[str, ...]:
        """What a user should check: of the whole source, and of how many subjects."""
        doubts = Counter(doubt for subject in self.subjects for doubt in subject.doubts)
        return (*self.notes, *(f"{counted(n, 'subject')}: {what}" for what, n in doubts.items()))

    @property
    def has_masks(self) -> bool:
        """Whether most subjects of every split have a mask; public test sets often have none."""
        shares: dict[str, list[bool]] = defaultdict(list)
        for subject in self.subjects:
            shares[subject.split].append(subject.mask is not None)
        return all(2 * sum(masks) > len(masks) for masks in shares.values())

    def lacking(self, modalities: Sequence[str]) -> dict[str, int]:
        """How many subjects lack each modality; modalities that all subjects have are omitted."""
        counts = Counter(m for s in self.subjects for m in modalities if m not in s.files)
        return {m: counts[m] for m in modalities if counts[m]}

    def table(self) -> pd.DataFrame:
        """Subject, split and the layout's own label columns, one row per subject."""
        rows = [{"subject": s.subject, "split": s.split, **s.labels} for s in self.subjects]
        return pd.DataFrame(rows, dtype=object)

    def items(self, modality: str) -> list[Item]:
        """The images of a modality, from the subjects that have it."""
        return [s.files[modality] for s in self.subjects if modality in s.files]

    def of_first_classes(self, number: int) -> Cohort:
        """Only the subjects of the first `number` classes, in the source's own order of classes.

        Raises:
            SourceError: the source has no classes, or fewer than that.
        """
        if number > len(self.classes):
            raise SourceError(
                f"`classes={number}`: {self.layout} has {len(self.classes) or 'no'} classes"
            )
        first = self.classes[:number]
        subjects = tuple(s for s in self.subjects if s.labels.get("label") in first)
        return replace(self, subjects=subjects, classes=first)

    def choose(self, requested: Sequence[str] | None, *, of_run: bool = False) -> tuple[str, ...]:
        """The modalities to use, in order: the requested ones, or the layout's own.

        Args:
            requested: their names.
            of_run: whether they are those of a run, whose encoder has a channel for each: then
                some may be lacking, but not by another name.

        Raises:
            SourceError: no subject has one of them, or with `of_run` any, or one is named twice.
        """
        if requested is None:
            return self.modalities
        known = {m for s in self.subjects for m in s.files}
        if of_run:
            self.refuse_misnamed(requested)
        for name in requested:
            if name not in known and not (of_run and known.intersection(requested)):
                raise SourceError(f"modality {name}: no subject has it; {nearest(name, known)}")
        if not requested or len(set(requested)) < len(requested):
            raise SourceError(
                f"modalities {','.join(requested)}: name at least one, and each only once"
            )
        return tuple(requested)

    def refuse_misnamed(self, known: Sequence[str]) -> None:
        """Refuse a source that has a known modality by another name alone, as `T2` or `t2w` for t2.

        It would be left out, and the known one be zero. Other modalities may be lacking.

        Raises:
            SourceError: such a modality, with those that are known.
        """
        has = {m for s in self.subjects for m in s.files}
        for name in known:
            for other in sorted(has - {*known}) if name not in has else ():
                if _plain_name(other) == _plain_name(name):
                    raise SourceError(
                        f"modality {other}: known are {', '.join(known)}, and no subject has "
                        f"{name}; if {other} is {name}, call it so in a manifest"
                    )


def _plain_name(modality: str) -> str:
    return modality_in(modality) or without_synonym(modality)


@dataclass(frozen=True)
class Source:
    """A path that a user gave, and the files below it.

    Attributes:
        path: file or folder.
        requested: modalities that the user requests, if any.
        series: the user's own table of DICOM series, if any.
        mask_pattern: the user's own pattern of the names of masks, if any.
        layout: the layout that the user named, if any.
        id_column: the column of a manifest that names subjects, if the user gave it.
        only: the only file below `path` to use, if the user gave a file.
    """

    path: Path
    requested: tuple[str, ...] | None = None
    series: Path | None = None
    mask_pattern: str | None = None
    layout: str | None = None
    id_column: str | None = None
    only: str | None = None

    @property
    def files(self) -> tuple[PurePosixPath, ...]:
        """Every file below the folder, relative to it and sorted, without hidden files.

        Links are followed if they stay inside the folder.
        """
        return self._listing[0]

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """Entries of the folder that are not among the files, each with the reason."""
        return self._listing[1]

    @cached_property
    def _listing(self) -> tuple[tuple[PurePosixPath, ...], tuple[tuple[str, str], ...]]:
        if self.only is not None:  # it may be a link, because the user named it
            legible = _legible(self.only)
            if legible != self.only:
                return (), ((legible, ILLEGIBLE),)
            return (PurePosixPath(self.only),), ()
        files: list[PurePosixPath] = []
        left_out: list[tuple[str, str]] = []
        root, seen = os.path.realpath(self.path), set()
        for folder, below, names in os.walk(self.path, followlinks=True):
            if (real := os.path.realpath(folder)) in seen:
                below.clear()
                continue
            seen.add(real)
            inside = PurePosixPath(Path(folder).relative_to(self.path).as_posix())
            for entries in (below, names):
                entries[:] = sorted(n for n in entries if n[0] != "." and n != "__MACOSX")
                for name in list(entries):
                    if reason := _why_not(root, os.path.join(folder, name)):
                        entries.remove(name)
                        left_out.append((_legible(inside / name), reason))
            files += [inside / name for name in names]
        return tuple(files), tuple(left_out)

    @cached_property
    def masks(self) -> Mapping[Kind, frozenset[PurePosixPath]]:
        """The masks among the scans, and among the pictures."""
        return {
            kind: mask_files(self.path, self.ending_in(suffixes), self.mask_pattern)
            for kind, suffixes in SUFFIXES.items()
        }

    def images(self, kind: Kind) -> list[PurePosixPath]:
        """The scans, or the pictures, that are not masks."""
        return [f for f in self.ending_in(SUFFIXES[kind]) if f not in self.masks[kind]]

    def ending_in(self, suffixes: tuple[str, ...]) -> list[PurePosixPath]:
        """The files with one of these suffixes; a `.npy` is a scan or a picture by its axes.

        One of more axes, which cannot be read, counts as a scan, so that it fails by name.
        """
        matching = [f for f in self.files if f.name.lower().endswith(suffixes)]
        if ".npy" not in suffixes:
            return matching
        axes = range(3, 33) if suffixes == SCAN_SUFFIXES else (2,)
        return [
            file
            for file in matching
            if not file.name.lower().endswith(".npy") or npy_axes(self.path / file) in (0, *axes)
        ]

    def cohort(
        self,
        layout: str,
        subjects: Sequence[SubjectFiles],
        *,
        kind: Kind = "scans",
        modalities: tuple[str, ...] | None = None,
        left_out: Mapping[PurePosixPath, str] | Iterable[tuple[str, str]] = (),
        **more: tuple[Any, ...],
    ) -> Cohort:
        """The cohort of these subjects, whose modalities are those that most of them have.

        Args:
            layout: the layout that was recognised, in words for messages.
            subjects: in the order of the store.
            kind: how images are read.
            modalities: in place of those that most subjects have.
            left_out: files that are not used, each with the reason.
            more: other fields of `Cohort`.
        """
        if isinstance(left_out, Mapping):
            left_out = ((file.as_posix(), why) for file, why in left_out.items())
        return Cohort(
            layout,
            kind,
            self.path.absolute(),
            tuple(subjects),
            modalities or usual_modalities(subjects),
            left_out=tuple(left_out),
            **more,
        )


def below(folder: PurePosixPath, files: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """The files inside a folder."""
    return [f for f in files if f.is_relative_to(folder)]


def common_folder(files: Sequence[PurePosixPath]) -> PurePosixPath:
    """The deepest folder that holds all files."""
    if not files:
        return PurePosixPath()
    return PurePosixPath(os.path.commonpath([f.parent for f in files]))


def usual_modalities(subjects: Sequence[SubjectFiles]) -> tuple[str, ...]:
    """The modalities that more than half of the subjects have, in the usual order of channels."""
    counts = Counter(m for s in subjects for m in s.files)
    usual = [m for m, count in counts.items() if 2 * count > len(subjects)]
    rank = {m: i for i, m in enumerate(KNOWN_MODALITIES)}
    order = sorted(usual or counts, key=lambda m: (rank.get(m.lower(), len(rank)), m))
    return tuple(order)


def _why_not(root: str, path: str) -> str:
    """The reason to leave out an entry of a folder; empty if it is used."""
    if _legible(name := os.path.basename(path)) != name:
        return ILLEGIBLE
    if os.path.isdir(path) and (kind := kind_of(path)) in ("store", "run", "reconstruction"):
        return f"is a {kind} of vitaepp"
    if os.path.islink(path):
        real = os.path.realpath(path)
        if os.path.commonpath([root, real]) != root:
            return "is a link that leads out of the source; copy what it points to"
    elif not os.path.isfile(path) and not os.path.isdir(path):
        return "is not a file but a device, a pipe or a socket"
    return ""


def _legible(path: str | PurePosixPath) -> str:
    """A path as text that can be written anywhere; valid UTF-8 stays unchanged."""
    return os.fsencode(path).decode("utf-8", "replace")
