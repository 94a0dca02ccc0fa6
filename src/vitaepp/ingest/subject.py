"""One subject: its files read, put on its grid, and staged; or why it failed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.errors import SubjectError, one_line
from vitaepp.ingest.geometry import (
    Floats,
    Grid,
    centroid,
    crop_grid,
    fit_grid,
    foreground,
    overlaps,
    resample,
    rescale,
)
from vitaepp.ingest.items import ArrayItem, Item, VolumeItem, files_of
from vitaepp.ingest.layouts import SubjectFiles
from vitaepp.ingest.planning import COLOURS, Plan
from vitaepp.ingest.readers import Image, read_array, read_picture, read_scan, to_grey
from vitaepp.store import Failure, Record, stage


@dataclass(frozen=True, eq=False)
class Task:
    """One subject to prepare.

    Attributes:
        files: where its images are.
        array: its image where that is an item of an array: those are read front to back.
        known: checksum of what the store already holds of it.
    """

    files: SubjectFiles
    array: npt.NDArray[Any] | None
    known: str | None


def prepare_subject(plan: Plan, task: Task) -> bool | Failure:
    """Stage one subject: True if it was made, False if it was there, or why it failed."""
    subject = task.files
    try:
        checksum = _checksum(plan, task)
        if checksum == task.known:
            return False
        image, record = _make(plan, task, checksum)
    except SubjectError as error:
        return Failure(subject.subject, one_line(error))
    except Exception as error:  # whatever it is, the other subjects go on
        told = one_line(error).replace(f"{plan.root}{os.sep}", "")
        return Failure(subject.subject, f"{type(error).__name__}: {told}")
    stage(plan.store, plan.info, image, record)
    return True


def _checksum(plan: Plan, task: Task) -> str:
    digest = hashlib.sha256(plan.digest)
    if task.array is not None:
        digest.update(f"{task.array.shape} {task.array.dtype}".encode())
        digest.update(task.array.tobytes())
        return digest.hexdigest()
    files = [_file(task.files, modality) for modality in plan.files]
    if plan.info.center == "mask":
        files.append(_mask(task.files))
    for path in chain.from_iterable(map(files_of, files)):
        if not path.is_file():
            raise SubjectError(f"{_named(plan, path)}: no such file")
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _file(subject: SubjectFiles, modality: str) -> Item:
    item = subject.files.get(modality)
    if item is not None:
        return item
    has = ", ".join(subject.files) or "none"
    raise SubjectError(f"has no file for modality {modality}; it has {has}")


def _mask(subject: SubjectFiles) -> Item:
    if subject.mask is None:
        raise SubjectError("has no mask to centre on; give it one, or use center=foreground")
    return subject.mask


def _named(plan: Plan, item: Item) -> str:
    """An image as errors and records name it: relative to the source, never absolute."""
    if isinstance(item, VolumeItem):
        return f"{_named(plan, item.file)}[{item.index}]"
    if isinstance(item, ArrayItem):
        return f"{item.file.name}:{item.key}[{item.index}]"
    absolute = Path(os.path.abspath(item))
    root = Path(os.path.abspath(plan.root))
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else item.name


def _read(plan: Plan, item: Item, *, constant: bool = False) -> Image:
    name = _named(plan, item)
    if plan.kind == "scans" and not isinstance(item, ArrayItem):
        return read_scan(item, name, constant=constant)
    if isinstance(item, Path):
        return read_picture(item, name, constant=constant)
    raise TypeError(f"{item} among {plan.kind}")


def _images(plan: Plan, task: Task) -> Iterator[tuple[str, Image]]:
    """Each file's name and content, read when its turn comes."""
    if task.array is not None:
        name = _named(plan, task.files.files[plan.files[0]])
        yield name, read_array(task.array, name)
        return
    for modality in plan.files:
        path = _file(task.files, modality)
        yield _named(plan, path), _read(plan, path)


def _make(plan: Plan, task: Task, checksum: str) -> tuple[npt.NDArray[np.float32], Record]:
    """Read a subject and put it on its grid, intensities in [0, 255]."""
    channels: list[npt.NDArray[np.float32]] = []
    lows, highs, sources = [], [], []
    images = _images(plan, task)
    first = next(images)
    reference, target = first[1].grid, _target(plan, task.files, *first)
    for name, image in chain([first], images):
        if not image.physical and image.grid.size != reference.size:
            raise SubjectError(
                f"{name}: is {_shape(image.grid)}, but the first modality is {_shape(reference)}; "
                "pictures of one subject have one size"
            )
        if not overlaps(image.grid, target):
            raise SubjectError(f"{name}: lies wholly outside of the crop; its affine is off")
        low, high = _range(image)
        for values in _values(plan, image):
            move = resample if image.physical else rescale
            channels.append(_to_bytes(move(values, image.grid, target, low), low, high))
            lows.append(low)
            highs.append(high)
            sources.append(name)
    record = Record(
        subject=task.files.subject,
        affine=tuple((target.affine.ravel() + 0.0).tolist()),  # no negative zeros
        intensity_min=tuple(lows),
        intensity_max=tuple(highs),
        source=tuple(sources),
        checksum=checksum,
    )
    return np.stack(channels), record


def _values(plan: Plan, image: Image) -> list[npt.NDArray[Any]]:
    """The channels that one file makes."""
    if plan.info.modalities != COLOURS or len(plan.files) > 1:
        return [to_grey(image)]
    if image.is_colour:
        return [image.values[..., i] for i in range(3)]
    return [image.values] * 3


def _target(plan: Plan, subject: SubjectFiles, name: str, reference: Image) -> Grid:
    """The grid of a subject's crop."""
    info = plan.info
    if info.spacing is None:
        return fit_grid(reference.grid, info.size)
    if info.center == "mask":
        path = _mask(subject)
        mask = _read(plan, path, constant=True)
        values = to_grey(mask)
        if mask.grid.size != reference.grid.size:
            raise SubjectError(
                f"{_named(plan, path)}: the mask is {_shape(mask.grid)}, but {name} is "
                f"{_shape(reference.grid)}; they must have one shape"
            )
        if not values.any():
            raise SubjectError(f"{_named(plan, path)}: the mask is empty; nothing to centre on")
        center = centroid(values, mask.grid)
    elif info.center == "foreground":
        center = centroid(foreground(to_grey(reference)), reference.grid)
    else:
        center = reference.grid.center
    return crop_grid(reference.grid, info.spacing, info.size, center)


def _shape(grid: Grid) -> str:
    return "×".join(str(n) for n in grid.size)


def _range(image: Image) -> tuple[float, float]:
    """The intensities that become 0 and 255."""
    if not image.physical and image.values.dtype == np.uint8:
        return 0.0, 255.0
    return float(image.values.min()), float(image.values.max())


def _to_bytes(values: Floats, low: float, high: float) -> npt.NDArray[np.float32]:
    if (low, high) != (0.0, 255.0):
        # In this order the full range of a double does not overflow.
        values = values / 2
        values -= low / 2
        values /= high / 2 - low / 2
        values *= 255
    return np.clip(values, 0, 255).astype(np.float32)
