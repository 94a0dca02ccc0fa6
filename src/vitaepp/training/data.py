"""Batches of a store for training: held in memory where it fits, in an order that a seed gives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vitaepp.errors import RecipeError, nearest
from vitaepp.recipe import DataSettings
from vitaepp.store import Store

#: Share of the free memory that `cache=auto` is ready to fill.
CACHE_SHARE = 0.5

Batch = tuple[Shaped[Tensor, "batch channel *space"], Int[Tensor, " batch"]]


class EpochOrder(Sampler[list[int]]):
    """Batches of one epoch: a permutation that depends on seed and epoch alone.

    Every process takes its part of each joint batch, so that N processes see together what one
    process with N times the batch would see.

    Args:
        rows: what is sampled.
        batch_size: per process.
        seed: of the run.
        rank: which process this is.
        processes: how many there are.
        smallest: images that a batch of a process needs; what is left over at the end of an epoch
            and is fewer is left out, others in each epoch.
    """

    def __init__(
        self,
        rows: Sequence[int],
        batch_size: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        smallest: int = 1,
    ) -> None:
        self.rows = np.asarray(rows)
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.smallest = smallest
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(len(self.rows) // self.processes, self.batch_size)
        return whole * (self.batch_size >= self.smallest) + (rest >= max(self.smallest, 1))

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)
        joint = self.batch_size * self.processes
        whole = len(order) - len(order) % self.processes
        for start in range(0, whole, joint):
            batch = order[start : min(start + joint, whole)]
            share = len(batch) // self.processes
            if share < self.smallest:
                return
            yield batch[self.rank * share : (self.rank + 1) * share].tolist()


class StoreImages(Dataset[Batch]):
    """Images of a store by lists of rows.

    Args:
        path: the store.
        place: where all images are held, or None to read them from disk each time.
    """

    def __init__(self, path: str | os.PathLike[str], place: torch.device | None) -> None:
        self.path = path
        self.images: Tensor | None = None
        self._store: Store | None = None
        if place is not None:
            store = Store(path)
            dtype = getattr(torch, store.info.dtype)
            self.images = torch.empty((len(store), *store.info.shape), dtype=dtype, device=place)
            for block, images in zip(self.images.split(64), store.batches(64), strict=True):
                block.copy_(torch.from_numpy(images))

    def __getitem__(self, rows: list[int]) -> Batch:
        index = torch.tensor(rows)
        if self.images is not None:
            return self.images[index.to(self.images.device)], index
        if self._store is None:  # opened in the process that reads
            self._store = Store(self.path)
        return torch.from_numpy(self._store.read(rows)), index


def training_rows(
    store: Store, settings: DataSettings, subjects: Sequence[str] | None = None
) -> list[int]:
    """Rows to train on: the split that is asked for, or `train` where there is one, or all.

    Of these, where `without_label` names a column, only those in which it is empty.

    Args:
        store: prepared store.
        settings: which split, and which label must be missing.
        subjects: of these, those that are named here only.

    Raises:
        RecipeError: the split, the label or a subject does not exist, or nobody is left.
    """
    split, label = settings.split, settings.without_label
    splits = store.table["split"].fillna("").astype(str)
    if split is None:
        split = "train" if (splits == "train").any() else None
    chosen = np.ones(len(store), bool) if split is None else (splits == split).to_numpy()
    if not chosen.any():
        known = sorted(set(splits) - {""})
        hint = nearest(str(split), known) if known else "the store has no splits"
        raise RecipeError(f"data.split={split}: no subject of {store.path} is in it; {hint}")
    if label is not None:
        known = store.label_columns
        if label not in known:
            hint = nearest(label, known) if known else "the store has no labels"
            raise RecipeError(f"data.without_label={label}: no such label; {hint}")
        values = store.table[label]
        chosen = chosen & (values.isna() | (values.astype(str).str.strip() == "")).to_numpy(bool)
        if not chosen.any():
            raise RecipeError(
                f"data.without_label={label}: every subject of {store.path} that would be trained "
                "on has this label"
            )
    if subjects is not None:
        keys = store.table["subject"].astype(str)
        missing = sorted(set(subjects) - set(keys))
        if missing:
            raise RecipeError(
                f"subject {missing[0]}: not in {store.path}; {nearest(missing[0], keys)}"
            )
        chosen = chosen & keys.isin(list(subjects)).to_numpy()
        if not chosen.any():
            raise RecipeError(
                f"{store.path}: none of the {len(subjects)} subjects can be trained on"
            )
    return np.flatnonzero(chosen).tolist()


def training_loader(
    store: Store,
    settings: DataSettings,
    order: EpochOrder,
    device: torch.device,
) -> DataLoader[Batch]:
    """Load batches in the given order, from memory where the store fits there."""
    place = cache_place(store, settings, device)
    workers = settings.workers if place is None else 0
    options: dict[str, Any] = {}
    if workers:
        # Zarr runs threads, which a forked process would not have.
        options = {"multiprocessing_context": "spawn", "persistent_workers": True}
    return DataLoader(
        StoreImages(store.path, place),
        sampler=order,  # yields lists of rows, hence batch_size=None
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=device.type == "cuda" and (place is None or place.type == "cpu"),
        **options,
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def cache_place(store: Store, settings: DataSettings, device: torch.device) -> torch.device | None:
    """Where the store is held: the device, memory, or nowhere."""
    if settings.cache == "none":
        return None
    if settings.cache == "device":
        return device
    memory = torch.device("cpu")
    if settings.cache == "memory":
        return memory
    size = len(store) * int(np.prod(store.info.shape)) * np.dtype(store.info.dtype).itemsize
    if device.type == "cuda" and size < CACHE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return device
    return memory if size < CACHE_SHARE * free_memory() else None


def free_memory() -> int:
    """Bytes of memory that can be had without swapping."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
