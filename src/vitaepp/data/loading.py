"""Batches of a store for training, from memory if the store fits, in an order set by a seed."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context, util
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vitaepp.data.arrays import Flags
from vitaepp.data.splits import canonical_splits, split_word
from vitaepp.data.store import Store
from vitaepp.errors import RecipeError, nearest
from vitaepp.recipe.sections import DataSettings
from vitaepp.system.devices import carried
from vitaepp.system.host import free_memory
from vitaepp.system.progress import counted
from vitaepp.system.text import first_few
from vitaepp.system.urls import in_one_process

#: Share of the free memory that `cache=auto` may use.
CACHE_SHARE = 0.5

#: Bytes that the path of a socket may have on every system; and those of its name below the folder
#: of temporary files.
SOCKET_PATH, SOCKET_NAME = 104, 32

#: Where sockets lie if that folder's path is too long.
SHORT_FOLDER = Path("/tmp")

#: Images, their rows in the store, and the weight of their mean. The rows are a list, because a
#: tensor would go to the GPU with the images, and reading it would wait for the GPU's other work.
Batch = tuple[Shaped[Tensor, "batch channel *space"], list[int], float]


class Part(NamedTuple):
    """The images of one process in one step.

    Attributes:
        rows: rows of the store, at least one.
        weight: weight of the mean over these images. With it, the mean over processes and over the
            steps of an update is the mean over the update's images, even if parts differ in size.
            It is 0 if no image was left for this process, which then uses another's image.
    """

    rows: list[int]
    weight: float


@dataclass(eq=False)
class EpochOrder(Sampler[Part]):
    """The steps of one epoch: a permutation that depends only on seed and epoch.

    Every process gets its part of each joint batch. Together, N processes see the same images as
    one process with N times the batch, and K accumulated steps the same as one step with K times
    the batch.

    Attributes:
        rows: rows of the store to train on.
        batch_size: images per process and step.
        seed: seed of the run.
        rank: number of this process.
        processes: number of processes.
        smallest: images that a joint batch needs. Above 1, its images depend on each other, and
            each process needs its own image. A smaller rest at the end of an epoch is left out;
            these are different images in each epoch.
        accumulate: number of steps whose gradients make one update.
    """

    rows: Sequence[int]
    batch_size: int
    seed: int
    rank: int = 0
    processes: int = 1
    smallest: int = 1
    accumulate: int = 1
    epoch: int = field(default=0, init=False)
    begin: tuple[int, int] = field(default=(0, 0), init=False)

    def __post_init__(self) -> None:
        self.joint = self.batch_size * self.processes
        self.smallest = max(self.smallest, self.processes) if self.smallest > 1 else 1

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch."""
        self.epoch = epoch

    def go_on(self, epoch: int, step: int) -> None:
        """Begin this epoch after `step` steps, as a resumed training does."""
        self.epoch = epoch
        self.begin = (epoch, step)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.rows), self.joint)
        return whole * (self.joint >= self.smallest) + (rest >= self.smallest)

    def __iter__(self) -> Iterator[Part]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)
        batches = [order[i * self.joint : (i + 1) * self.joint] for i in range(len(self))]
        done = self.begin[1] if self.epoch == self.begin[0] else 0
        for step in range(done, len(batches)):
            first = step - step % self.accumulate
            updated = sum(map(len, batches[first : first + self.accumulate]))
            own = np.array_split(batches[step], self.processes)[self.rank]
            weight = len(own) * self.processes * self.accumulate / updated
            yield Part((own if len(own) else batches[step][:1]).tolist(), weight)


class StoreImages(Dataset[Batch]):
    """The images of a store, indexed by lists of rows.

    Args:
        path: the store.
        cache: device that holds all images, or None to read them from disk each time.
    """

    def __init__(self, path: str | os.PathLike[str], cache: torch.device | None) -> None:
        self.path = path
        self.images: Tensor | None = None
        self._store: Store | None = None
        if cache is not None:
            store = Store(path)
            dtype = getattr(torch, store.info.dtype)
            self.images = torch.empty((len(store), *store.info.shape), dtype=dtype, device=cache)
            for block, images in zip(self.images.split(64), store.batches(64), strict=True):
                block.copy_(torch.from_numpy(images))

    def __getitem__(self, part: Part) -> Batch:
        if self.images is not None:
            index = carried(torch.tensor(part.rows), self.images.device)
            return self.images[index], part.rows, part.weight
        if self._store is None:  # it is opened in the process that reads
            self._store = Store(self.path)
        return torch.from_numpy(self._store.read(part.rows)), part.rows, part.weight


class TrainingLoader(DataLoader[Batch]):
    """A loader that measures how long training waits for it.

    Attributes:
        waited: total waiting time in seconds.
    """

    waited = 0.0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch's is a class
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def training_rows(
    store: Store, settings: DataSettings, subjects: Sequence[str] | None = None
) -> list[int]:
    """The rows to train on: those of the requested split; else of `train`, if it exists; else all.

    If `without_label` names a column, only rows with an empty value in it are used.

    Args:
        store: prepared store.
        settings: `split` and `without_label`.
        subjects: if given, only these subjects are used.

    Raises:
        RecipeError: the split, the label or a subject does not exist, or no row is left.
    """
    split, label = settings.split, settings.without_label
    splits = canonical_splits(store.table["split"])
    if split is None:
        split = "train" if (splits == "train").any() else None
    elif not (splits == split).any():
        split = split_word(split) or split
    chosen = np.ones(len(store), bool) if split is None else (splits == split).to_numpy()
    if not chosen.any():
        known = sorted(set(splits) - {""})
        hint = nearest(str(split), known) if known else "the store has no splits"
        raise RecipeError(f"data.split={split}: no subject of {store.path} is in it; {hint}")
    if label is not None:
        chosen = chosen & unlabelled(store, label, f"data.without_label={label}")
        if not chosen.any():
            raise RecipeError(
                f"data.without_label={label}: every subject of the training split of {store.path} "
                "has this label"
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
                f"{store.path}: none of {counted(len(subjects), 'listed subject')} can be trained "
                "on; list subjects of its training split, one per line, as in the column subject"
            )
    return np.flatnonzero(chosen).tolist()


def trained_among(
    store: Store, settings: DataSettings, rows: Sequence[int], subjects: Sequence[str]
) -> tuple[list[str], str]:
    """Those of the listed subjects that are trained on, and a line about the others, if any.

    Args:
        store: prepared store.
        settings: `without_label` may be why.
        rows: what `training_rows` gives for the listed subjects.
        subjects: that the user listed; one that is listed twice counts once.
    """
    keys = set(store.table["subject"].astype(str).iloc[list(rows)])
    listed = dict.fromkeys(subjects)
    used, others = ([s for s in listed if (s in keys) == there] for there in (True, False))
    if not others:
        return used, ""
    verb = "is" if len(others) == 1 else "are"
    label = "" if settings.without_label is None else f", or without {settings.without_label},"
    return used, (
        f"{len(others)} of {counted(len(listed), 'listed subject')} {verb} not in the training "
        f"split{label} and {verb} not trained on: {first_few(others)}"
    )


def unlabelled(store: Store, label: str, setting: str) -> Flags:
    """Which subjects of a store have no value of a label, `(subject,)`.

    Raises:
        RecipeError: the store has no such label; the message begins with `setting`.
    """
    known = store.label_columns
    if label not in known:
        hint = nearest(label, known) if known else "the store has no labels"
        raise RecipeError(f"{setting}: no such label; {hint}")
    values = store.table[label]
    return (values.isna() | (values.astype(str).str.strip() == "")).to_numpy(bool)


def training_loader(
    store: Store, settings: DataSettings, order: EpochOrder, device: torch.device, sharing: int = 1
) -> TrainingLoader:
    """Load batches in the given order, from memory if the store fits into it.

    Args:
        store: prepared store.
        settings: `cache` and `workers`.
        order: the rows of each step.
        device: device of the training.
        sharing: number of processes on this machine; each holds a copy of the store.
    """
    cache = cache_device(store, settings, device, sharing)
    # Reading processes do not see what is in this one's memory.
    workers = 0 if cache is not None or in_one_process(store.path) else settings.workers
    options: dict[str, Any] = {}
    if workers:
        # Zarr runs threads, which a forked process would not have.
        options = {"multiprocessing_context": spawning(), "persistent_workers": True}
    return TrainingLoader(
        StoreImages(store.path, cache),
        sampler=order,  # it yields whole batches, hence batch_size=None
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=workers,
        pin_memory=device.type == "cuda" and (cache is None or cache.type == "cpu"),
        **options,
    )


def _unchanged(batch: Any) -> Any:
    return batch


def cache_device(
    store: Store, settings: DataSettings, device: torch.device, sharing: int = 1
) -> torch.device | None:
    """The device that holds the whole store: the training's device, the CPU, or None.

    With `auto`, it is the training's device if that is a GPU and the store needs less than half of
    its free memory; else the CPU, if the copies of all processes need less than half of its free
    memory.
    """
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
    return memory if size * sharing < CACHE_SHARE * free_memory() else None


def spawning() -> SpawnContext:
    """How processes are started that hand over tensors.

    They talk over sockets in a folder below `TMPDIR`. If that path is too long for a socket, as on
    some clusters, a process that reads images can hand none over, and training would wait for it
    for ever. The sockets then lie below `/tmp`.
    """
    length = len(os.fsencode(tempfile.gettempdir())) + SOCKET_NAME
    if length > SOCKET_PATH and os.access(SHORT_FOLDER, os.W_OK):
        before, tempfile.tempdir = tempfile.tempdir, str(SHORT_FOLDER)
        try:
            util.get_temp_dir()  # it is made once, and kept
        finally:
            tempfile.tempdir = before
    return get_context("spawn")
