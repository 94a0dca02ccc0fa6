"""Batches of a store for training: held in memory where it fits, in an order that a seed gives."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vitaepp.data.splits import canonical_splits, split_word
from vitaepp.data.store import Store
from vitaepp.errors import RecipeError, nearest
from vitaepp.recipe.sections import DataSettings
from vitaepp.system.host import free_memory
from vitaepp.system.progress import counted

#: Share of the free memory that `cache=auto` is ready to fill.
CACHE_SHARE = 0.5

#: Images, their rows in the store, and what the mean over them counts for. The rows are no tensor:
#: that would follow the images to a GPU, and to read it there waits for all that the GPU has to do.
Batch = tuple[Shaped[Tensor, "batch channel *space"], list[int], float]


class Part(NamedTuple):
    """What one process sees in one step.

    Attributes:
        rows: rows of the store, at least one.
        weight: what the mean over them counts for, so that the mean over processes and over the
            steps of an update is the mean over the update's images, however uneven the parts are.
            0 where there was nothing left for this process, which then looks at another's image.
    """

    rows: list[int]
    weight: float


class EpochOrder(Sampler[Part]):
    """Steps of one epoch: a permutation that depends on seed and epoch alone.

    Every process takes its part of each joint batch, so that N processes see together what one
    process with N times the batch would see; and K steps that make one update see what one step
    with K times the batch would see.

    Args:
        rows: what is sampled.
        batch_size: per process.
        seed: of the run.
        rank: which process this is.
        processes: how many there are.
        smallest: images that a joint batch needs. Above 1, its images depend on each other, and
            each process needs one of its own. What is left over at the end of an epoch and is
            fewer is left out, others in each epoch.
        accumulate: steps whose gradients make one update.
    """

    def __init__(
        self,
        rows: Sequence[int],
        batch_size: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        smallest: int = 1,
        accumulate: int = 1,
    ) -> None:
        self.rows = np.asarray(rows)
        self.joint = batch_size * processes
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.smallest = max(smallest, processes) if smallest > 1 else 1
        self.accumulate = accumulate
        self.epoch = 0
        self.begin = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def go_on(self, epoch: int, step: int) -> None:
        """Begin that epoch after so many steps, as a resumed training does."""
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

    def __getitem__(self, part: Part) -> Batch:
        if self.images is not None:
            index = torch.tensor(part.rows, device=self.images.device)
            return self.images[index], part.rows, part.weight
        if self._store is None:  # opened in the process that reads
            self._store = Store(self.path)
        return torch.from_numpy(self._store.read(part.rows)), part.rows, part.weight


class TrainingLoader(DataLoader[Batch]):
    """A loader that counts the seconds in which training waits for it.

    Attributes:
        waited: seconds so far.
    """

    waited = 0.0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch


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
                f"{store.path}: of {counted(len(subjects), 'listed subject')} none can be trained "
                "on; list subjects of its training split, one a line, as table.subject names them"
            )
    return np.flatnonzero(chosen).tolist()


def training_loader(
    store: Store,
    settings: DataSettings,
    order: EpochOrder,
    device: torch.device,
    sharing: int = 1,
) -> TrainingLoader:
    """Load batches in the given order, from memory where the store fits there.

    Args:
        store: prepared store.
        settings: where it is to be held.
        order: what is loaded when.
        device: where training runs.
        sharing: processes on this machine, each of which holds the store.
    """
    place = cache_place(store, settings, device, sharing)
    workers = settings.workers if place is None else 0
    options: dict[str, Any] = {}
    if workers:
        # Zarr runs threads, which a forked process would not have.
        options = {"multiprocessing_context": "spawn", "persistent_workers": True}
    return TrainingLoader(
        StoreImages(store.path, place),
        sampler=order,  # yields whole batches, hence batch_size=None
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=device.type == "cuda" and (place is None or place.type == "cpu"),
        **options,
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def cache_place(
    store: Store, settings: DataSettings, device: torch.device, sharing: int = 1
) -> torch.device | None:
    """Where the store is held: the device, memory, or nowhere.

    With `auto`, the device if it is a GPU and the store fills less than half of its free memory;
    else memory, if the copies of all processes fill less than half of what is free there.
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
