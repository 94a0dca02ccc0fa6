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

Here a store is read. `storewriter` writes it, `storetable` says what its columns mean, and
`storearrays` how images lie in Zarr.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from vitaepp.data.arrays import Flags
from vitaepp.data.masks import ignored_values
from vitaepp.data.storearrays import (
    StoredArray,
    chunk_key,
    images_of,
    lacking_rows,
    masks_of,
    opened_by,
)
from vitaepp.data.storefiles import read_info, read_table
from vitaepp.data.storeinfo import Account
from vitaepp.data.storetable import RESERVED_COLUMNS, column_counts
from vitaepp.errors import StoreError, one_line
from vitaepp.system.progress import counted
from vitaepp.system.storage import folder_at
from vitaepp.system.text import dimensions, evenly, fact_list, first_few
from vitaepp.system.urls import Location


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
        self.info = read_info(self._folder)
        if not self._folder.exists("table.parquet"):
            raise StoreError(f"{self.path}: no subject is prepared yet; run prepare to the end")
        self.table: pd.DataFrame = read_table(self._folder)

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
        return self._open(images_of(self.info))

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

        0 is background; other values are the mask's own labels, or `ignored`. It is zero throughout
        for subjects without a mask: `masked` tells them from those whose mask is empty.
        """
        return self._open(masks_of(self.info)) if self.has_masks else None

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
        """Values that occur in the masks and are labels, rising, and their names.

        That is without 0, which is background, and without those `ignored`. A value that no source
        has named is called by its number.
        """
        names = dict(self.info.mask_names)
        labels = sorted({v for values in self.values_of_masks for v in values} - {*self.ignored})
        return {value: names.get(value, str(value)) for value in labels}

    @cached_property
    def ignored(self) -> tuple[int, ...]:
        """Values that occur in the masks and say nothing of their voxels: neither label nor 0.

        `ignored_values` says what it is in one mask; it is then so in all of them.
        """
        if "mask_labels" not in self.table:
            return ()
        names = dict(self.info.mask_names)
        of_masks = (ignored_values(values, names) for values in self.values_of_masks)
        return tuple(sorted(set().union(*of_masks)))

    def labelled(self, rows: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Flags:
        """Where the masks of some rows have a label, `(len(rows), *space)`."""
        return ~np.isin(self.read_masks(rows), [0, *self.ignored])

    @property
    def values_of_masks(self) -> list[list[int]]:
        """The values of each mask that is kept, without 0, rising."""
        masks = self._mask_labels.dropna() if self.has_masks else ()
        return [sorted(map(int, values)) for values in masks]

    @property
    def _mask_labels(self) -> pd.Series[Any]:
        if "mask_labels" not in self.table:
            raise StoreError(
                f"{self.path}: an older version kept its masks and did not note their labels; "
                "prepare the store again, which adds them"
            )
        return self.table["mask_labels"]

    def _open(self, kind: StoredArray) -> zarr.Array[Any]:
        try:
            array = zarr.open_array(opened_by(self._folder, kind.name), mode="r")
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            raise StoreError(
                f"{self.path}: {kind.name} is missing or damaged; prepare the store again"
            ) from None
        if array.shape[1:] != kind.shape or array.shape[0] < len(self):
            raise StoreError(
                f"{self.path}: {kind.name} holds {array.shape}, but the table and store.json say "
                f"{(len(self), *kind.shape)}; prepare the store again"
            )
        if lacking := lacking_rows(self._folder, kind, len(self)):
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
            ignored = f"; {first_few(self.ignored)} is ignored" if self.ignored else ""
            yield "masks", f"{whose}; labels {', '.join(named) or 'none'}{ignored}"
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
            **({"ignored": [*self.ignored]} if self.ignored else {}),
        }

    def spread(self, most: int | None = None) -> list[int]:
        """At most so many rows, spread evenly from the first to the last; all by default."""
        return evenly(len(self), most)

    def read(self, rows: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[Any]:
        """Images of some rows, `(len(rows), channel, *space)`, in the stored type; a copy."""
        return self._read(self.images, images_of(self.info), rows)

    def read_masks(
        self, rows: Sequence[int] | npt.NDArray[np.integer[Any]]
    ) -> npt.NDArray[np.uint8]:
        """Masks of some rows, `(len(rows), *space)`; a copy.

        Values are those of `mask_labels`, 0 for background, and those `ignored`.

        Raises:
            StoreError: the store keeps no masks, or they are damaged.
        """
        if self.masks is None:
            raise StoreError(
                f"{self.path}: keeps no masks; prepare its source with `keep_masks` into another "
                "folder"
            )
        return self._read(self.masks, masks_of(self.info), rows)

    def _read(
        self, array: zarr.Array[Any], kind: StoredArray, rows: Sequence[int] | npt.NDArray[Any]
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
            chunk = f"{kind.name}/{chunk_key(row, kind)}"
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
                raise self._unreadable(images_of(self.info), row, "not finite (NaN or infinity)")

    def _unreadable(self, kind: StoredArray, row: int, what: str) -> StoreError:
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
