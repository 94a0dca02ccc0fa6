"""Store: the prepared data on disk, one Zarr v3 array of images and one table of subjects.

    STORE/
      store.json      what the images are: modalities, size, spacing, dtype, centring
      images.zarr     (subject, channel, *space), one chunk a subject, intensities in [0, 255]
      masks.zarr      (subject, *space), uint8 labels on the images' grid (only where they are kept)
      table.parquet   row i describes image i: subject, split, labels, geometry, intensity, source
      failures.csv    subjects that could not be prepared, each with its reason (only if any)
      account.json    how many subjects were found, failed and were left out, by reason

The table is the authority: a subject is in the store when it has a row there. Subjects are first
*staged*, each on its own as finished chunk files, by any number of processes; `commit` links the
chunks into the arrays and then replaces the table. A crash at any moment leaves the last committed
store, and the staged subjects for the next run.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import FsspecStore, MemoryStore

from vitaepp.data.arrays import Flags
from vitaepp.data.storeinfo import Account, StoreInfo, difference, with_tuples
from vitaepp.errors import StoreError, StoreNotFoundError, one_line
from vitaepp.system.compat import zarr_buffer
from vitaepp.system.files import to_json
from vitaepp.system.paths import instead_of
from vitaepp.system.progress import counted, say
from vitaepp.system.storage import Folder, LocalFolder, folder_at
from vitaepp.system.text import dimensions, evenly, fact_list, first_few
from vitaepp.system.urls import Location

FORMAT = 1

#: A label column that says whose images a subject's are, where one person has several; evaluation
#: keeps those of one person on one side of every split.
PARTICIPANT = "participant"


@dataclass(frozen=True)
class Record:
    """What is known of one prepared image, besides its labels.

    Attributes:
        subject: unique key.
        affine: homogeneous matrix, row by row: index in the crop to world coordinates (RAS+, mm)
            in 3D; index to (row, column) of the original image in 2D.
        intensity_min: per modality, the original intensity that became 0.
        intensity_max: per modality, the original intensity that became 255.
        source: per modality, where it came from, relative to the source.
        checksum: digest of the source files and everything that shaped the image.
        source_size: voxels per axis of its first image, before it was resampled and cropped, in the
            order of the crop's axes; empty where an earlier version prepared it.
        source_spacing: spacing of that image along these axes in mm; 1 in pictures.
        mask_checksum: digest of the file of its mask; empty where it has no mask, or none is kept.
        mask_labels: values of its mask as it is kept, without 0; None without a mask. `stage`
            finds them.
        modality_present: per modality, whether the subject has it; empty where it has all. One
            that it lacks is zero in the image, and has no intensities (0) and no source.
        crop_center: what this crop is centred on: `mask`, `foreground` or `image`; empty where
            images are scaled as a whole.
        prepare_notes: what had to be decided about its files, in words that are the same for
            every subject and name no file.
    """

    subject: str
    affine: tuple[float, ...]
    intensity_min: tuple[float, ...]
    intensity_max: tuple[float, ...]
    source: tuple[str, ...]
    checksum: str
    modality_present: tuple[bool, ...] = ()
    crop_center: str = ""
    prepare_notes: tuple[str, ...] = ()
    source_size: tuple[int, ...] = ()
    source_spacing: tuple[float, ...] = ()
    mask_checksum: str = ""
    mask_labels: tuple[int, ...] | None = None

    @property
    def checksums(self) -> tuple[str, str]:
        """Digests of what shaped its image and its mask."""
        return self.checksum, self.mask_checksum


#: Columns that every store has; all others are the user's labels.
RESERVED_COLUMNS = ("subject", "split", *(f.name for f in fields(Record) if f.name != "subject"))

#: Those of them that only a store with masks has.
OF_MASKS = ("mask_checksum", "mask_labels")

#: Those of them that stores of earlier versions lack.
ADDED_LATER = ("modality_present", "source_size", "source_spacing", *OF_MASKS)

#: What helps where `prepare` cannot mend a store.
ANEW = "prepare its source into a new folder, or delete this one and prepare it again"


@dataclass(frozen=True)
class Failure:
    """A subject that could not be prepared, and why, in one line."""

    subject: str
    reason: str


class Store:
    """A prepared data set, opened for reading.

    Example:
        >>> store = Store("store")                        # doctest: +SKIP
        >>> store.images[0].shape, store.table.subject[0]   # doctest: +SKIP
        ((4, 96, 96, 96), 'BraTS19_2013_0_1')

    Attributes:
        path: its folder, or its URL.
        info: what its images are.
        table: row i describes image i.

    Raises:
        StoreError: the folder is missing or not a store.
        StorageError: a URL that cannot be opened.
    """

    def __init__(self, path: Location) -> None:
        self._folder = folder_at(path)
        self.path: Path | str = self._folder.path
        self.info = _read_info(self._folder)
        if not self._folder.exists("table.parquet"):
            raise StoreError(f"{self.path}: no subject is prepared yet; run prepare to the end")
        self.table: pd.DataFrame = _read_table(self._folder)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        shape = dimensions(self.info.size)
        subjects, modalities = counted(len(self), "subject"), " ".join(self.info.modalities)
        return f"Store({str(self.path)!r}: {subjects}, {modalities}, {shape})"

    def __getitem__(self, subject: SupportsIndex | str) -> npt.NDArray[np.float32]:
        """The image of one subject, `(channel, *space)`, float32, intensities in [0, 255].

        It is a copy that may be written to. What else is known of the subject is in its row of
        `table`; its mask, where masks are kept, is given by `read_masks`.

        Args:
            subject: its row (from the end where negative), or its name.

        Raises:
            IndexError: no such row.
            StoreError: no such subject.
        """
        if isinstance(subject, str):
            rows = np.flatnonzero(self.table["subject"] == subject)
            if not len(rows):
                raise StoreError(f"{self.path}: no subject {subject!r}; table.subject names all")
            row = int(rows[0])
        else:
            row = subject.__index__()
            if not -len(self) <= row < len(self):
                raise IndexError(f"{self.path}: row {row} of {counted(len(self), 'subject')}")
        return self.read([row % len(self)])[0].astype(np.float32)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self._folder.name

    @cached_property
    def images(self) -> zarr.Array[Any]:
        """The Zarr array `(subject, channel, *space)`, intensities in [0, 255]."""
        return self._open(_images(self.info))

    @cached_property
    def present(self) -> Flags:
        """Which modalities each subject has, `(subject, channel)`; the others are zero."""
        shape = (len(self), len(self.info.modalities))
        if "modality_present" not in self.table:  # made before there was such a thing
            return np.ones(shape, bool)
        return np.array(self.table["modality_present"].tolist(), bool).reshape(shape)

    @cached_property
    def masks(self) -> zarr.Array[Any] | None:
        """The Zarr array `(subject, *space)` of masks on the images' grid; None without masks.

        Nonzero is inside; values are the mask's own labels. It is zero throughout for subjects
        without a mask: `masked` tells them from those whose mask is empty.
        """
        return self._open(_masks(self.info)) if self.has_masks else None

    @property
    def has_masks(self) -> bool:
        """Whether the store keeps masks; not every subject needs to have one."""
        return bool(self.info.masks)

    @cached_property
    def masked(self) -> Flags:
        """Which subjects have a mask that is kept, `(subject,)`."""
        if not self.has_masks:
            return np.zeros(len(self), bool)
        return self._mask_labels.notna().to_numpy(bool)

    @cached_property
    def mask_labels(self) -> dict[int, str]:
        """Values that occur in the masks, without 0, which is background, and their names.

        A value that no source has named is called by its number.
        """
        if not self.has_masks:
            return {}
        names = dict(self.info.mask_names)
        values_there = {int(v) for values in self._mask_labels.dropna() for v in values}
        return {value: names.get(value, str(value)) for value in sorted(values_there)}

    @property
    def _mask_labels(self) -> pd.Series[Any]:
        if "mask_labels" not in self.table:
            raise StoreError(
                f"{self.path}: an older version kept its masks and did not note their labels; "
                "prepare the store again, which adds them"
            )
        return self.table["mask_labels"]

    def _open(self, kind: _Array) -> zarr.Array[Any]:
        try:
            array = zarr.open_array(_inside(self._folder, kind.name), mode="r")
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            raise StoreError(
                f"{self.path}: {kind.name} is missing or damaged; prepare the store again"
            ) from None
        if array.shape[1:] != kind.shape or array.shape[0] < len(self):
            raise StoreError(
                f"{self.path}: {kind.name} holds {array.shape}, but the table and store.json say "
                f"{(len(self), *kind.shape)}; prepare the store again"
            )
        if lacking := _lacking(self._folder, kind, len(self)):
            raise StoreError(
                f"{self.path}: {kind.name} lacks {len(lacking)} of {counted(len(self), 'subject')} "
                f"({first_few([*self.table['subject'].iloc[lacking]])}); copy it whole, or prepare "
                "the store again"
            )
        return array

    def fingerprint(self, rows: Sequence[int] | None = None) -> str:
        """A digest of some rows' images and of how they were prepared; labels play no part.

        Args:
            rows: which, and where they stand; all by default.
        """
        # What is unset counts as not there, so that new fields change no store's digest.
        info = {name: fact for name, fact in self.info.facts.items() if name != "masks"}
        table = self.table[["subject", "checksum"]].astype(str)
        table = table if rows is None else table.iloc[list(rows)]
        digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode())
        digest.update(table.to_csv(header=False).encode())
        return digest.hexdigest()

    @property
    def label_columns(self) -> list[str]:
        """Names of the user's own columns."""
        return [str(c) for c in self.table.columns if c not in RESERVED_COLUMNS]

    def centred_otherwise(self) -> dict[str, int]:
        """How many crops are centred on something else than the store's, by what that is.

        Where a mask is empty or lacking, it is the foreground.
        """
        if "crop_center" not in self.table:  # made before there was such a thing
            return {}
        other = ~self.table["crop_center"].isin(["", self.info.center])
        counts = self.table["crop_center"][other].value_counts()
        return {str(on): int(count) for on, count in counts.items()}

    def summary(self, sample: int = 32) -> str:
        """What the store holds, as text of several lines, for people to read.

        Args:
            sample: subjects, evenly spread, whose images are read for the mean intensities.
        """
        return f"store {self.path}\n{fact_list(self._facts(sample))}"

    def _facts(self, sample: int) -> Iterator[tuple[str, str]]:
        info, n = self.info, len(self)
        space = f"{dimensions(info.size)}, whole images scaled to fit"
        if info.spacing is not None:
            unit = f" {info.unit}" if info.unit else ""
            spacing = f"{dimensions(info.spacing)}{unit}"
            space = f"{dimensions(info.size)}, spacing {spacing}, around the {info.center}"
        yield "subjects", str(n)
        yield "image", f"{space}, {info.dtype}"
        yield "modalities", ", ".join(info.modalities)
        if others := self.centred_otherwise():
            counts = (f"{count} around the {center}" for center, count in others.items())
            yield "  of these", ", ".join(counts)
        if info.intensities:
            yield "intensities", f"{info.intensities} became 0 to 255"
        rows = self.spread(sample)
        images = self.read(rows).astype(np.float32)
        for i, modality in enumerate(info.modalities):
            shown, facts = images[self.present[rows, i], i], []
            if len(shown):
                whole = "all subjects" if n > 1 else "the one subject"
                over = counted(len(shown), "subject") if len(shown) < n else whole
                facts.append(f"intensity {shown.mean():.1f} ± {shown.std():.1f} over {over}")
            if lacking := n - int(self.present[:, i].sum()):
                facts.append(f"missing in {lacking} of {n}")
            yield f"  {modality}", "; ".join(facts)
        if self.has_masks:
            whose = f"{self.masked.sum()} of {counted(n, 'subject')}"
            named = (
                f"{v} {name}" if name != str(v) else name for v, name in self.mask_labels.items()
            )
            yield "masks", f"{whose}; labels {', '.join(named) or 'none'}"
        if self.table["split"].any():
            yield "split", column_counts(self.table["split"].replace("", None))
        for name in self.label_columns:
            yield f"label {name}", column_counts(self.table[name])
        if self._folder.exists("failures.csv"):
            yield from self._failures()

    @property
    def account(self) -> Account | None:
        """What the latest `prepare` found; None of a store of an earlier version."""
        if not self._folder.exists("account.json"):
            return None
        try:
            return Account.parse(json.loads(self._folder.read("account.json")))
        except ValueError:
            return None

    def _failures(self) -> Iterator[tuple[str, str]]:
        try:
            failed = pd.read_csv(io.BytesIO(self._folder.read("failures.csv")), dtype=str)
            first = failed[["subject", "reason"]].head(3)
        except (ValueError, KeyError):
            yield "failed", "failures.csv cannot be read"
            return
        yield "failed", f"{counted(len(failed), 'subject')}, named in failures.csv"
        for subject, reason in first.itertuples(index=False):
            yield f"  {subject}", str(reason)

    def to_dict(self) -> dict[str, Any]:
        """What a program wants to know of the store without reading it, JSON throughout."""
        counts = self.table["split"].value_counts().sort_index()
        lacking = len(self) - self.present.sum(axis=0)
        return {
            "path": str(self.path),
            "subjects": len(self),
            "splits": {str(split): int(count) for split, count in counts.items() if split},
            "labels": {c: int(self.table[c].notna().sum()) for c in self.label_columns},
            "missing": {
                modality: int(count)
                for modality, count in zip(self.info.modalities, lacking, strict=True)
                if count
            },
            **self.info.facts,
            **({"masked": int(self.masked.sum())} if self.has_masks else {}),
            **({"mask_labels": self.mask_labels} if self.has_masks else {}),
        }

    def spread(self, most: int | None = None) -> list[int]:
        """At most so many rows, spread evenly from the first to the last; all by default."""
        return evenly(len(self), most)

    def read(self, rows: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[Any]:
        """Images of some rows, `(len(rows), channel, *space)`, in the stored type; a copy."""
        return self._read(self.images, _images(self.info), rows)

    def read_masks(
        self, rows: Sequence[int] | npt.NDArray[np.integer[Any]]
    ) -> npt.NDArray[np.uint8]:
        """Masks of some rows, `(len(rows), *space)`, with the labels of `mask_labels`; a copy.

        Raises:
            StoreError: the store keeps no masks, or they are damaged.
        """
        if self.masks is None:
            raise StoreError(
                f"{self.path}: keeps no masks; prepare its source with `keep_masks` into another "
                "folder"
            )
        return self._read(self.masks, _masks(self.info), rows)

    def _read(
        self, array: zarr.Array[Any], kind: _Array, rows: Sequence[int] | npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        """Rows of an array.

        Raises:
            StoreError: one of them is damaged or lost.
        """
        if len(rows) == 0:
            return np.empty((0, *array.shape[1:]), array.dtype)
        own = (np.asarray(rows) % len(self)).tolist()
        try:
            values = np.asarray(array.oindex[np.asarray(rows)])
        except (ValueError, RuntimeError) as error:  # each codec has its own
            if len(own) > 1:
                for row in own:  # the message names the first that it is
                    self._read(array, kind, [row])
            raise self._unreadable(kind, own[0], f"damaged ({one_line(error)})") from None
        for row, value in zip(own, values, strict=True):
            # Zarr takes a lost chunk for zeros; an image of zeros has a chunk, too.
            chunk = f"{kind.name}/{_chunk_key(row, kind)}"
            if not value.view(bool).any() and not self._folder.exists(chunk):
                raise self._unreadable(kind, row, "lost")
        return values

    def check_finite(self, rows: Iterable[int]) -> None:
        """Refuse images that hold NaN or infinity, which `prepare` never writes.

        It reads them once more: for when something that was computed from them is not finite.

        Raises:
            StoreError: naming the first.
        """
        for row in rows:
            if not np.isfinite(self.read([row])).all():
                raise self._unreadable(_images(self.info), row, "not finite (NaN or infinity)")

    def _unreadable(self, kind: _Array, row: int, what: str) -> StoreError:
        return StoreError(
            f"{self.path}: {kind.name}/c/{row}, of subject {self.table['subject'].iloc[row]}, is "
            f"{what}; delete this folder and prepare the store again, which makes the subject anew"
        )

    def batches(
        self, batch_size: int, rows: Sequence[int] | None = None
    ) -> Iterator[npt.NDArray[Any]]:
        """Images in order, `batch_size` at a time."""
        rows = range(len(self)) if rows is None else rows
        for start in range(0, len(rows), batch_size):
            yield self.read(rows[start : start + batch_size])


class StoreWriter:
    """The one process that may add to a store; others can only `stage` for it.

    Holds a lock that the operating system takes back when the process dies.

    Example:
        >>> with StoreWriter("store", info) as writer:                  # doctest: +SKIP
        ...     stage("store", info, image, record)     # from any process
        ...     writer.commit(labels, failures=[])

    Raises:
        StoreError: the folder holds something else, a store of other settings, or is in use.
    """

    def __init__(self, path: Location, info: StoreInfo) -> None:
        self._folder = folder_at(path)
        self.path: Path | str = self._folder.path
        self.info = info
        self._refuse_others()
        self._folder.make()
        with ExitStack() as lock:
            try:
                self._lock = lock.enter_context(self._folder.lock())
            except BlockingIOError:
                raise StoreError(
                    f"{self.path}: another prepare is writing here; wait for it to end"
                ) from None
            self._refuse_others()  # one that held the lock until now may have made a store
            self._folder.remove_leftovers()
            self._folder.write("store.json", _json({"format": FORMAT} | asdict(info)))
            self._folder.make(".staged")
            self._held = lock.pop_all()

    def _refuse_others(self) -> None:
        if self._folder.is_file:
            raise StoreError(f"{self.path}: is a file; a store is a folder")
        if self._folder.exists("store.json"):
            existing = _read_info(self._folder)
            if existing != self.info:
                raise StoreError(
                    f"{self.path}: holds a different store ({difference(existing, self.info)}); "
                    "prepare into another folder, or remove it first"
                )
        elif any(n != ".lock" and not n.startswith(".tmp-") for n in self._folder.entries()):
            raise StoreError(f"{self.path}: not empty and not a store; choose another folder")

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def checksums(self) -> dict[str, tuple[str, str]]:
        """Digests of every subject that is finished, committed or staged, by its key.

        They are empty where the subject's image or mask was lost, so that it is made again.
        """
        committed = {}
        if self._folder.exists("table.parquet"):
            table = _read_table(self._folder)
            of_masks = table.get("mask_checksum", [""] * len(table))
            checksums = zip(table["checksum"], of_masks, strict=True)
            committed = dict(zip(table["subject"], checksums, strict=True))
            lost = {
                row for k in _arrays(self.info) for row in _lacking(self._folder, k, len(table))
            }
            committed |= {table["subject"].iloc[row]: ("", "") for row in lost}
        return committed | {record.subject: record.checksums for record in self._staged()}

    def commit(
        self, labels: pd.DataFrame, failures: Sequence[Failure], account: Account | None = None
    ) -> None:
        """Make every staged subject part of the store.

        Rows of subjects that were there keep their place; new ones follow in the order of
        `labels`. A staged subject that was there before (its source changed) replaces its image.
        Label columns that `labels` lacks are removed from its subjects, and told. A subject that
        was there and failed keeps its image and its labels: those belong together.

        Args:
            labels: one row a subject of the source, with `subject`, `split` and label columns.
            failures: written to failures.csv; an empty list removes the file.
            account: of the source, written to account.json; None removes that of another source.
        """
        old = pd.DataFrame(columns=["subject"])
        if self._folder.exists("table.parquet"):
            old = _read_table(self._folder)
        staged = {record.subject: record for record in self._staged()}
        failed = {failure.subject for failure in failures} - staged.keys()
        labels = labels[~labels["subject"].astype(str).isin(failed)]
        self._say_kept(old, staged, failed)
        kept = dict.fromkeys(old["subject"].astype(str))
        new = [s for s in labels["subject"].astype(str) if s in staged and s not in kept]
        order = [*kept, *new]
        self._lock.check()
        if order:
            table = self._table(order, old, staged, labels).to_parquet(None, index=False)
            # All that needs room on the disk comes first: a full one leaves the store as it was.
            with self._folder.replacing("table.parquet", table):
                for kind in _arrays(self.info):
                    self._link(kind, order, staged)
        if failures:
            listed = pd.DataFrame([asdict(f) for f in failures], columns=["subject", "reason"])
            self._folder.write("failures.csv", listed.to_csv(None, index=False).encode())
        else:
            self._folder.remove("failures.csv")
        if account is not None:
            self._folder.write("account.json", _json(asdict(account)))
        else:
            self._folder.remove("account.json")
        # A record that outlives its chunk would be in the way of the next run.
        self._folder.remove_folder(".staged", first=".json")

    def _say_kept(self, old: pd.DataFrame, staged: Mapping[str, Record], failed: set[str]) -> None:
        """Say which subjects that were there have another image now, and which have failed."""
        if old.empty:
            return
        checksums = dict(zip(old["subject"].astype(str), old["checksum"], strict=True))
        other = [s for s, r in staged.items() if checksums.get(s, r.checksum) != r.checksum]
        if other:
            say(
                f"{self.path}: {counted(len(other), 'subject')} of the same name had another image "
                f"({first_few(other)}); image and labels are this source's now. If these are other "
                "people, prepare this source into another store, and the first one again"
            )
        if stayed := [s for s in checksums if s in failed]:
            say(
                f"{self.path}: {counted(len(stayed), 'subject')} that failed now "
                f"({first_few(stayed)}) keep image and labels of an earlier run"
            )

    def _staged(self) -> list[Record]:
        names = [n for n in self._folder.entries(".staged") if not n.startswith(".tmp-")]
        files = self._folder.read_all([f".staged/{n}" for n in names if n.endswith(".json")])
        return [Record(**with_tuples(json.loads(data))) for data in files.values()]

    def _link(self, kind: _Array, order: Sequence[str], staged: dict[str, Record]) -> None:
        """Make an array as long as the table will be, and put the staged chunks into it."""
        described: dict[str, Any] = {}
        described_at, before = f"{kind.name}/zarr.json", b""
        if self._folder.exists(described_at):
            before = self._folder.read(described_at)
            described["zarr.json"] = zarr_buffer(before)
        try:
            array = zarr.open_array(MemoryStore(described), mode="r+")
            array.resize((len(order), *kind.shape))
        except (ValueError, KeyError, TypeError, FileNotFoundError):  # missing or damaged
            described.clear()
            _create_array(MemoryStore(described), len(order), kind)
        if (after := described["zarr.json"].to_bytes()) != before:
            self._folder.write(described_at, after)
        self._folder.copy(
            {
                _staged_file(subject, kind.staged): f"{kind.name}/{_chunk_key(row, kind)}"
                for row, subject in enumerate(order)
                if subject in staged
            }
        )

    def _table(
        self,
        order: Sequence[str],
        old: pd.DataFrame,
        staged: dict[str, Record],
        labels: pd.DataFrame,
    ) -> pd.DataFrame:
        facts = old.set_index("subject", drop=False).to_dict("index")
        labels = labels.assign(subject=labels["subject"].astype(str))
        fresh = labels.set_index("subject").to_dict("index")
        rows, channels = [], len(self.info.modalities)
        gone = {c for c in old.columns if c not in RESERVED_COLUMNS and c not in labels.columns}
        for subject in order:
            row = {"subject": subject, "split": ""} | dict(facts.get(subject, {}))
            if subject in fresh:
                row = {k: v for k, v in row.items() if k not in gone} | fresh[subject]
            if subject in staged:
                row |= {
                    k: list(v) if isinstance(v, tuple) else v
                    for k, v in asdict(staged[subject]).items()
                }
            # Records that do not say, and rows from before there was such a thing, have all.
            row["modality_present"] = list(row.get("modality_present", ())) or [True] * channels
            row["crop_center"] = row.get("crop_center", "")
            for name in ("prepare_notes", "source_size", "source_spacing"):
                row[name] = list(row.get(name, ()))
            row["mask_checksum"] = row.get("mask_checksum", "")
            of_mask = row.get("mask_labels")
            row["mask_labels"] = None if of_mask is None else list(of_mask)
            rows.append(row)
        table = pd.DataFrame(rows, dtype=object).apply(_natural_type)
        names = ["subject", "split", *(c for c in table.columns if c not in RESERVED_COLUMNS)]
        if gone:
            say(
                f"{self.path}: labels of an earlier run that this one does not give are removed: "
                f"{', '.join(sorted(gone))}; to keep them, prepare with a table that has them"
            )
        without = ("subject", "split", *(() if self.info.masks else OF_MASKS))
        return table[[*names, *(c for c in RESERVED_COLUMNS if c not in without)]]


class _Array(NamedTuple):
    """An array of a store, one chunk a subject.

    Attributes:
        name: of its folder in the store.
        shape: of one subject.
        dtype: of its values.
        axes: their names.
        staged: suffix of a subject's staged chunk.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str, ...]
    staged: str


def _images(info: StoreInfo) -> _Array:
    return _Array("images.zarr", info.shape, info.dtype, ("channel", *_space(info)), ".chunk")


def _masks(info: StoreInfo) -> _Array:
    return _Array("masks.zarr", info.size, "uint8", _space(info), ".mask")


def _space(info: StoreInfo) -> tuple[str, ...]:
    return ("x", "y", "z") if info.ndim == 3 else ("row", "column")


def _arrays(info: StoreInfo) -> tuple[_Array, ...]:
    return (_images(info), _masks(info)) if info.masks else (_images(info),)


def stage(
    path: Location,
    info: StoreInfo,
    image: npt.NDArray[Any],
    record: Record,
    mask: npt.NDArray[np.uint8] | None = None,
) -> None:
    """Finish one subject for the next commit; safe from any process, whole or not at all.

    Args:
        path: the store.
        info: what its images are.
        image: `(channel, *space)`, intensities in [0, 255].
        record: what is known of it.
        mask: `(*space)`, for a store that keeps masks; zero without it.
    """
    folder = folder_at(path)
    values = {
        "images.zarr": info.stored(image),
        "masks.zarr": np.zeros(info.size) if mask is None else mask,
    }
    chunks = {k.staged: _encoded(k, values[k.name]) for k in _arrays(info)}
    if mask is not None:
        record = replace(record, mask_labels=tuple(np.unique(mask[mask > 0]).tolist()))
    # The record comes last: a subject is staged when it is there, and it is of these chunks.
    folder.remove(_staged_file(record.subject, ".json"))
    # The folder is the writer's: a process that outlived its run must not make it again.
    for suffix, chunk in chunks.items():
        folder.write(_staged_file(record.subject, suffix), chunk, parents=False)
    folder.write(_staged_file(record.subject, ".json"), _json(asdict(record)), parents=False)


def _encoded(kind: _Array, values: npt.NDArray[Any]) -> bytes:
    """A subject's chunk as it lies on disk."""
    if values.shape != kind.shape:
        raise ValueError(
            f"{kind.name}: {values.shape} of a subject, where the store has {kind.shape}"
        )
    array, chunks = _encoder(kind, threading.get_ident())
    array[0] = values.astype(kind.dtype)
    return bytes(chunks[_chunk_key(0, kind)].to_bytes())


@lru_cache(maxsize=8)
def _encoder(kind: _Array, _thread: int) -> tuple[zarr.Array[Any], dict[str, Any]]:
    """An array of one subject in memory and its chunks as they lie on disk, to encode with.

    Each thread has its own: it holds the subject that was written last.
    """
    chunks: dict[str, Any] = {}
    return _create_array(MemoryStore(chunks), 1, kind), chunks


def _create_array(memory: MemoryStore, length: int, kind: _Array) -> zarr.Array[Any]:
    return zarr.create_array(
        memory,
        shape=(length, *kind.shape),
        chunks=(1, *kind.shape),
        dtype=kind.dtype,
        # A third of the default level's time for a tenth more bytes; readers do not need it. The
        # checksum costs 4 bytes and no time that can be measured; without it, most flipped bits
        # are read as other voxels.
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=0,
        dimension_names=("subject", *kind.axes),
        config={"write_empty_chunks": True},
    )


def _lacking(folder: Folder, kind: _Array, rows: int) -> list[int]:
    """The rows of an array that have no chunk; Zarr would take them for zeros."""
    chunks = {_chunk_key(row, kind).removeprefix("c/"): row for row in range(rows)}
    return [chunks[name] for name in folder.lacking(f"{kind.name}/c", [*chunks])]


def _chunk_key(row: int, kind: _Array) -> str:
    """Path of a row's chunk inside the array, by Zarr v3's default chunk key encoding."""
    return "/".join(("c", str(row), *("0" for _ in kind.shape)))


def _staged_file(subject: str, suffix: str) -> str:
    # Subject keys may hold any character, so that files are named by digest.
    return f".staged/{hashlib.sha256(subject.encode()).hexdigest()[:32]}{suffix}"


def _inside(folder: Folder, name: str) -> Path | str | FsspecStore:
    """What Zarr opens an array of a folder by."""
    if isinstance(folder, LocalFolder):
        return folder.path / name
    if "::" in folder.path:  # of a chained URL, as zip://::FILE, the path is not at the end
        return FsspecStore.from_mapper(folder.mapping(name), read_only=True)
    return f"{folder.path}/{name}"


def _json(value: Any) -> bytes:
    return to_json(value).encode()


def _read_table(folder: Folder) -> pd.DataFrame:
    """A store's table.

    Raises:
        StoreError: it is damaged, or not a store's.
    """
    try:
        table = pd.read_parquet(io.BytesIO(folder.read("table.parquet")))
        present = {*table.columns}
    except (pa.ArrowException, ValueError):
        present = set()
    needed = [c for c in RESERVED_COLUMNS if c not in ADDED_LATER]
    if not present.issuperset(needed):
        raise StoreError(f"{folder}: table.parquet is damaged or not ours; {ANEW}")
    return table


def _natural_type(column: pd.Series[Any]) -> pd.Series[Any]:
    """Infer a column's type; integers stay integers where some are missing."""
    known = column.dropna()
    if 0 < len(known) < len(column) and all(_is_whole(v) for v in known):
        return column.astype("Int64")
    return column.infer_objects()


def column_counts(column: pd.Series[Any], most: int = 8) -> str:
    """Values of a column with their counts, or its range where it is a measurement."""
    known = column.dropna()
    missing = f", {len(column) - len(known)} missing" if len(known) < len(column) else ""
    if known.nunique() > most:
        if pd.api.types.is_numeric_dtype(known):
            return f"{known.min():g} to {known.max():g}, median {known.median():g}{missing}"
        return f"{known.nunique()} different values{missing}"
    counts = known.value_counts().sort_index()
    return ", ".join(f"{value}: {count}" for value, count in counts.items()) + missing


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _read_info(folder: Folder) -> StoreInfo:
    if not folder.exists("store.json"):
        raise StoreNotFoundError(f"{folder}: {instead_of('store', str(folder))}")
    try:
        values = json.loads(folder.read("store.json"))
        info = StoreInfo.parse(values) if values.pop("format") == FORMAT else None
        if info is not None:
            # What is no type, size or spacing is an error here, rather than anywhere later.
            _ = np.dtype(info.dtype), *map(int, info.size), *map(float, info.spacing or ())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(f"{folder}: store.json is damaged or not ours; {ANEW}") from None
    if info is None:
        raise StoreError(f"{folder}: made by another version of vitaepp; {ANEW}")
    return info


def stored_info(path: Location) -> StoreInfo | None:
    """What a store that was begun holds, or None where there is none.

    Raises:
        StoreError: its store.json is damaged.
    """
    folder = folder_at(path)
    return _read_info(folder) if folder.exists("store.json") else None
