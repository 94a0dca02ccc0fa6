"""Writing a store: subjects are staged by any number of processes, and committed by one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr
from zarr.storage import MemoryStore

from vitaepp.data.storearrays import StoredArray, arrays_of, chunk_key, create_array, lacking_rows
from vitaepp.data.storefiles import FORMAT, read_info, read_table
from vitaepp.data.storeinfo import Account, StoreInfo, difference, with_tuples
from vitaepp.data.storetable import OF_MASKS, RESERVED_COLUMNS, Failure, Record
from vitaepp.errors import StoreError
from vitaepp.system.compat import zarr_buffer
from vitaepp.system.files import to_json
from vitaepp.system.progress import counted, say
from vitaepp.system.storage import folder_at
from vitaepp.system.text import first_few
from vitaepp.system.urls import Location


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
            existing = read_info(self._folder)
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
            table = read_table(self._folder)
            of_masks = table.get("mask_checksum", [""] * len(table))
            checksums = zip(table["checksum"], of_masks, strict=True)
            committed = dict(zip(table["subject"], checksums, strict=True))
            kinds = arrays_of(self.info)
            lost = {row for k in kinds for row in lacking_rows(self._folder, k, len(table))}
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
            old = read_table(self._folder)
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
                for kind in arrays_of(self.info):
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

    def _link(self, kind: StoredArray, order: Sequence[str], staged: dict[str, Record]) -> None:
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
            create_array(MemoryStore(described), len(order), kind)
        if (after := described["zarr.json"].to_bytes()) != before:
            self._folder.write(described_at, after)
        self._folder.copy(
            {
                _staged_file(subject, kind.staged): f"{kind.name}/{chunk_key(row, kind)}"
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
        self._say_gone(old, gone, set(labels["subject"]))
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
        without = ("subject", "split", *(() if self.info.masks else OF_MASKS))
        return table[[*names, *(c for c in RESERVED_COLUMNS if c not in without)]]

    def _say_gone(self, old: pd.DataFrame, gone: set[str], given: set[str]) -> None:
        """Say which labels are removed from the subjects of this source, and who keeps them."""
        here = old["subject"].astype(str).isin(given)
        known = old[sorted(gone)].notna()
        lost = known.loc[here, known[here].any()]
        if lost.empty:
            return
        kept = int(known.loc[~here, lost.columns].any(axis=1).sum())
        still = f", kept for {counted(kept, 'subject')} outside this source or failed"
        say(
            f"{self.path}: labels of an earlier run that this one does not give are removed: "
            f"{', '.join(map(str, lost))} (of {counted(int(lost.any(axis=1).sum()), 'subject')}"
            f"{still if kept else ''}); to keep them, prepare with a table that has them"
        )


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
    chunks = {k.staged: _encoded(k, values[k.name]) for k in arrays_of(info)}
    if mask is not None:
        record = replace(record, mask_labels=tuple(np.unique(mask[mask > 0]).tolist()))
    # The record comes last: a subject is staged when it is there, and it is of these chunks.
    folder.remove(_staged_file(record.subject, ".json"))
    # The folder is the writer's: a process that outlived its run must not make it again.
    for suffix, chunk in chunks.items():
        folder.write(_staged_file(record.subject, suffix), chunk, parents=False)
    folder.write(_staged_file(record.subject, ".json"), _json(asdict(record)), parents=False)


def _encoded(kind: StoredArray, values: npt.NDArray[Any]) -> bytes:
    """A subject's chunk as it lies on disk."""
    if values.shape != kind.shape:
        raise ValueError(
            f"{kind.name}: {values.shape} of a subject, where the store has {kind.shape}"
        )
    array, chunks = _encoder(kind, threading.get_ident())
    array[0] = values.astype(kind.dtype)
    return bytes(chunks[chunk_key(0, kind)].to_bytes())


@lru_cache(maxsize=8)
def _encoder(kind: StoredArray, _thread: int) -> tuple[zarr.Array[Any], dict[str, Any]]:
    """An array of one subject in memory and its chunks as they lie on disk, to encode with.

    Each thread has its own: it holds the subject that was written last.
    """
    chunks: dict[str, Any] = {}
    return create_array(MemoryStore(chunks), 1, kind), chunks


def _staged_file(subject: str, suffix: str) -> str:
    # Subject keys may hold any character, so that files are named by digest.
    return f".staged/{hashlib.sha256(subject.encode()).hexdigest()[:32]}{suffix}"


def _json(value: Any) -> bytes:
    return to_json(value).encode()


def _natural_type(column: pd.Series[Any]) -> pd.Series[Any]:
    """Infer a column's type; integers stay integers where some are missing."""
    known = column.dropna()
    if 0 < len(known) < len(column) and all(_is_whole(v) for v in known):
        return column.astype("Int64")
    return column.infer_objects()


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
