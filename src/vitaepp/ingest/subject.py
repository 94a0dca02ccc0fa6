"""One subject: its files read, put on its grid, and staged; or why it failed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vitaepp.data.geometry import (
    Floats,
    Grid,
    centroid,
    crop_grid,
    fit_grid,
    foreground,
    holds,
    overlaps,
    resample,
    rescale,
    share_inside,
    thinned,
)
from vitaepp.data.store import Failure, Record, stage
from vitaepp.errors import SubjectError, one_line
from vitaepp.ingest.intensities import intensity_range, shows_nothing
from vitaepp.ingest.layouts import SubjectFiles
from vitaepp.ingest.lesions import grid_of_mask, kept_labels, lesion
from vitaepp.ingest.pseudonyms import pseudonym, without_names
from vitaepp.ingest.readers import (
    Image,
    read_array,
    read_grid,
    read_picture,
    read_scan,
    to_grey,
)
from vitaepp.ingest.readers.items import (
    ArrayItem,
    Item,
    SeriesItem,
    VolumeItem,
    files_of,
    own_files,
)
from vitaepp.ingest.task import COLOURS, Plan, Task
from vitaepp.system.text import dimensions

#: A crop that keeps less of the foreground is told.
LEAST_KEPT = 0.95
CUT_OFF = (
    "the crop cuts off more than 5 % of the foreground; without --size and --spacing, or with a "
    "larger --size, the scan is kept whole"
)
NO_MASK = (
    "no mask, which the run's crops are centred on; the crop is centred on the foreground instead"
)
EMPTY_MASK = "the mask is empty; the crop is centred on the foreground instead"


@dataclass(frozen=True, eq=False)
class Mask:
    """A subject's mask.

    Attributes:
        image: as it was read.
        grid: where its voxels lie, which may be other than its header says.
        name: what to call it in an error.
        notes: what had to be decided.
    """

    image: Image
    grid: Grid
    name: str
    notes: tuple[str, ...]


class Channel(NamedTuple):
    """One modality of a subject on its grid.

    Attributes:
        values: intensities in [0, 255].
        low: the original intensity that became 0.
        high: the original intensity that became 255.
        source: where it came from; empty where the subject has no such modality.
    """

    values: npt.NDArray[np.float32]
    low: float
    high: float
    source: str


def prepare_subject(plan: Plan, task: Task) -> bool | Failure:
    """Stage one subject: True if it was made, False if it was there, or why it failed."""
    subject = task.files
    try:
        checksum = _checksum(plan, task)
        if checksum == task.known:
            return False
        image, record, mask = _make(plan, task, checksum)
    except SubjectError as error:
        return Failure(subject.subject, _told(plan, task, one_line(error)))
    except Exception as error:  # whatever it is, the other subjects go on
        told = one_line(error).replace(f"{plan.root}{os.sep}", "")
        return Failure(subject.subject, _told(plan, task, f"{type(error).__name__}: {told}"))
    stage(plan.store, plan.info, image, record, mask)
    return True


def _told(plan: Plan, task: Task, reason: str) -> str:
    """A reason as it may be written: without the names of files where subjects have other names."""
    if plan.secret is None:
        return reason
    items = [*task.files.files.values(), *([task.files.mask] if task.files.mask else [])]
    files = [file for item in items for file in own_files(item)]
    return without_names(reason, files, plan.root, plan.secret)


def _checksum(plan: Plan, task: Task) -> str:
    digest = hashlib.sha256(plan.digest)
    if task.array is not None:
        digest.update(f"{task.array.shape} {task.array.dtype}".encode())
        digest.update(task.array.tobytes())
        return digest.hexdigest()
    present = _present(plan, task.files)
    if len(present) < len(plan.files):
        digest.update(f"only {present}".encode())
    files = [task.files.files[modality] for modality in present]
    if (mask := _mask(plan, task.files)) is not None:
        files.append(mask)
    for path in chain.from_iterable(map(files_of, files)):
        if not path.is_file():
            raise SubjectError(f"{_named(plan, path)}: no such file")
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _present(plan: Plan, subject: SubjectFiles) -> list[str]:
    """The modalities that a subject has, of those that are wanted."""
    present = [modality for modality in plan.files if modality in subject.files]
    if not present:
        has = ", ".join(subject.files) or "none"
        raise SubjectError(f"has no file for {' or '.join(plan.files)}; it has {has}")
    return present


def _mask(plan: Plan, subject: SubjectFiles) -> Item | None:
    """The mask of a subject where it is used: to centre on, or to be kept."""
    if plan.info.center == "mask" and subject.mask is None and not plan.without_masks:
        raise SubjectError("has no mask to centre on; give it one, or use center=foreground")
    return subject.mask if plan.info.center == "mask" or plan.info.masks else None


def _named(plan: Plan, item: Item) -> str:
    """An image as errors and records name it: relative to the source, or its pseudonym."""
    name = _path_of(plan, item)
    return name if plan.secret is None else pseudonym(plan.secret, name)


def _path_of(plan: Plan, item: Item) -> str:
    """Where an image is, relative to the source, never absolute."""
    if isinstance(item, VolumeItem):
        return f"{_path_of(plan, item.file)}[{item.index}]"
    if isinstance(item, ArrayItem):
        return f"{item.file.name}:{item.key}[{item.index}]"
    if isinstance(item, SeriesItem):
        one = len(item.files) == 1
        return _path_of(plan, item.files[0] if one else Path(os.path.commonpath(item.files)))
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


def image_of(plan: Plan, item: Item) -> Image:
    """An image of a cohort that is a file, read whole.

    Raises:
        SubjectError: it cannot be read.
    """
    return _read(plan, item)


def grid_of(plan: Plan, item: Item) -> Grid:
    """Where the voxels of an image are: by its header, or read whole where that does not tell.

    Raises:
        SubjectError: it cannot be read.
    """
    ndim = 3 if plan.kind == "scans" else 2
    grid = read_grid(item, _named(plan, item), ndim=ndim)
    return _read(plan, item, constant=True).grid if grid is None else grid


def failure_of(plan: Plan, subject: SubjectFiles, error: SubjectError) -> Failure:
    """A subject and why it cannot be read, as it may be written."""
    return Failure(subject.subject, _told(plan, Task(subject, None, None), one_line(error)))


def _images(
    plan: Plan, task: Task, lost: dict[str, SubjectError]
) -> Iterator[tuple[str, str, Image]]:
    """Each present modality with its file's name and content, read when its turn comes.

    A DICOM series that cannot be read is put among those that are lost.
    """
    for modality in _present(plan, task.files):
        item = task.files.files[modality]
        name = _named(plan, item)
        try:
            read = _read(plan, item) if task.array is None else read_array(task.array, name)
        except SubjectError as error:
            if not isinstance(item, SeriesItem):
                raise
            lost[modality] = error
        else:
            yield modality, name, read


def _make(
    plan: Plan, task: Task, checksum: str
) -> tuple[npt.NDArray[np.float32], Record, npt.NDArray[np.uint8] | None]:
    """Read a subject and put it on its grid, intensities in [0, 255], and the mask to keep."""
    made: dict[str, list[Channel]] = {}
    lost: dict[str, SubjectError] = {}
    images = _images(plan, task, lost)
    first = next(images, None)
    if first is None:
        raise next(iter(lost.values()))
    reference = first[2].grid
    mask = _read_mask(plan, task.files, *first[1:])
    target, center, told = _target(plan, mask, *first[1:])
    notes = list(told)
    for modality, name, image in chain([first], images):
        notes += [f"{modality}: {note}" for note in image.notes]
        if not image.physical and image.grid.size != reference.size:
            raise SubjectError(
                f"{name}: is {dimensions(image.grid.size)}, but the first modality is "
                f"{dimensions(reference.size)}; pictures of one subject have one size"
            )
        if not overlaps(image.grid, target):
            error = SubjectError(
                f"{name}: lies wholly outside of the crop; its affine is off", kind="lies elsewhere"
            )
            if modality == first[0] or not isinstance(task.files.files[modality], SeriesItem):
                raise error
            lost[modality] = error
            continue
        low, high = intensity_range(image, modality, plan.info, name)
        move = resample if image.physical else rescale
        made[modality] = [
            Channel(_to_bytes(move(values, image.grid, target, low), low, high), low, high, name)
            for values in _values(plan, image)
        ]
        windowed = plan.info.window_of(modality) is not None
        if all(shows_nothing(c.values, windowed=windowed) for c in made[modality]):
            least, most = image.values.min(), image.values.max()
            shown = f"; {low:g} to {high:g} is shown, the scan is {least:g} to {most:g}"
            raise SubjectError(
                f"{name}: its crop has one value throughout{shown * windowed}; it shows nothing of "
                "the scan: check the affine, the window, and what the crop is centred on"
            )
    notes += [
        f"{modality}: zero, as its series cannot be used ({e.kind})" for modality, e in lost.items()
    ]
    kept = None
    if mask is not None and plan.info.masks:
        kept, decided = _kept(mask, target)
        notes += [note for note in decided if note not in notes]
    absent = [Channel(np.zeros(plan.info.size, np.float32), 0.0, 0.0, "")]
    channels = [c for modality in plan.files for c in made.get(modality, absent)]
    record = Record(
        subject=task.files.subject,
        affine=tuple((target.affine.ravel() + 0.0).tolist()),  # no negative zeros
        intensity_min=tuple(c.low for c in channels),
        intensity_max=tuple(c.high for c in channels),
        source=tuple(c.source for c in channels),
        checksum=checksum,
        modality_present=tuple(bool(c.source) for c in channels),
        crop_center=center,
        prepare_notes=tuple(notes),
    )
    return np.stack([c.values for c in channels]), record, kept


def _values(plan: Plan, image: Image) -> list[npt.NDArray[Any]]:
    """The channels that one file makes."""
    if plan.info.modalities != COLOURS or len(plan.files) > 1:
        return [to_grey(image)]
    if image.is_colour:
        return [image.values[..., i] for i in range(3)]
    return [image.values] * 3


def _target(
    plan: Plan, mask: Mask | None, name: str, reference: Image
) -> tuple[Grid, str, tuple[str, ...]]:
    """The grid of a subject's crop, what it is centred on, and what had to be decided."""
    info, center = plan.info, plan.info.center
    notes = () if mask is None else mask.notes
    if info.spacing is None:
        return fit_grid(reference.grid, info.size), "", notes
    at = reference.grid.center
    if center == "mask" and mask is None:  # as a run's new scans may
        center, notes = "foreground", (*notes, NO_MASK)
    if mask is not None and center == "mask":
        found, which = _center_of_mask(plan, mask, name, reference)
        notes += which
        if found is None:
            center = "foreground"
        else:
            at = found
    if center == "foreground":
        at = centroid(foreground(to_grey(reference)), reference.grid)
    target = crop_grid(reference.grid, info.spacing, info.size, at)
    if center != "mask" and _share_kept(reference, target) < LEAST_KEPT:
        notes = (*notes, CUT_OFF)
    return target, center, notes


def _share_kept(reference: Image, target: Grid) -> float:
    """Share of an image's foreground that a crop keeps."""
    if holds(target, reference.grid.corners()).all():
        return 1.0
    few, grid = thinned(to_grey(reference), reference.grid)
    return share_inside(foreground(few), grid, target)


def _read_mask(plan: Plan, subject: SubjectFiles, name: str, reference: Image) -> Mask | None:
    """The mask of a subject, where it is used and there is one."""
    path = _mask(plan, subject)
    if path is None:
        return None
    named = _named(plan, path)
    image = _read(plan, path, constant=True)
    grid, where = grid_of_mask(image, reference, named, name)
    return Mask(image, grid, named, tuple(f"mask: {note}" for note in image.notes) + where)


def _kept(mask: Mask, target: Grid) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """A mask on the grid of its subject's images, and what had to be decided."""
    try:
        labels, notes = kept_labels(mask.image)
    except ValueError as error:
        raise SubjectError(
            f"{mask.name}: the mask has {one_line(error)}; kept masks have labels from 0 to 255: "
            "write it so, or prepare without --keep-masks"
        ) from None
    return resample(labels, mask.grid, target, 0.0, nearest=True).astype(np.uint8), notes


def _center_of_mask(
    plan: Plan, mask: Mask, name: str, reference: Image
) -> tuple[Floats | None, tuple[str, ...]]:
    """The centroid of the lesion, None where the mask shows none, and what had to be decided."""
    inside, notes = lesion(mask.image, plan.info.mask_values)
    if not inside.any():
        return None, (*notes, EMPTY_MASK)
    center = centroid(inside, mask.grid)
    index = reference.grid.to_index(center)
    if np.any((index < -0.5) | (index > np.array(reference.grid.size) - 0.5)):
        raise SubjectError(
            f"{mask.name}: the mask's centre lies outside of {name}; its affine is off, or it is "
            "another subject's"
        )
    return center, notes


def _to_bytes(values: Floats, low: float, high: float) -> npt.NDArray[np.float32]:
    if (low, high) != (0.0, 255.0):
        # In this order the full range of a double does not overflow.
        values = values / 2
        values -= low / 2
        values /= high / 2 - low / 2
        values *= 255
    return np.clip(values, 0, 255).astype(np.float32)
