"""Prepares one subject: reads its files, resamples them to its crop, and stages the result."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vitaepp.data import geometry
from vitaepp.data.arrays import Floats
from vitaepp.data.geometry import Grid
from vitaepp.data.storeinfo import RGB
from vitaepp.data.storetable import Failure, Record
from vitaepp.data.storewriter import stage
from vitaepp.errors import SubjectError, one_line
from vitaepp.ingest.intensities import has_few_levels, intensity_range, shows_nothing
from vitaepp.ingest.layouts import SubjectFiles
from vitaepp.ingest.layouts.names import other_modality, stem
from vitaepp.ingest.lesions import grid_of_mask, kept_labels, lesion
from vitaepp.ingest.pseudonyms import pseudonym, without_names
from vitaepp.ingest.readers.arrays import read_array, read_given
from vitaepp.ingest.readers.dicom_header import MOST_UNEVEN
from vitaepp.ingest.readers.image import Image, is_grey, to_grey
from vitaepp.ingest.readers.items import ArrayItem, GivenItem, Item, SeriesItem, files_of, name_of
from vitaepp.ingest.readers.pictures import read_picture
from vitaepp.ingest.readers.scans import read_grid, read_scan
from vitaepp.ingest.task import ImageSpec, Task
from vitaepp.system.text import dimensions, first_few

#: Part of the checksums of kept masks: raised when the same file would give another mask.
MASK_VERSION = b"2"

#: If a crop keeps a smaller share of the foreground, a note says so.
LEAST_KEPT = 0.95
CUT_OFF = (
    "the crop cuts off more than 5 % of the foreground; without `size` and `spacing`, or with a "
    "larger `size`, the scan is kept whole"
)

#: A scan or a crop that is less than so many voxels of the other is in another unit.
TOO_FEW = 2
NO_MASK = (
    "no mask, on which the run's crops are centred; the crop is centred on the foreground instead"
)
CUT_MASK = "the crop cuts off more than 5 % of the mask; a larger `size` would keep it"
NO_LESION = (
    "the mask holds {}, and not the values of the lesion ({}); the crop is centred on the "
    "foreground instead"
)
FEW_LEVELS = (
    "99.8 % of the crop's voxels have two of 256 grey levels, because a few voxels are far "
    "brighter or darker; `clip=0.5,99.5` would show the others"
)
EMPTY_MASK = "the mask is empty; the crop is centred on the foreground instead"


@dataclass(frozen=True, eq=False)
class Mask:
    """A subject's mask.

    Attributes:
        image: the mask as it was read.
        grid: the grid of its voxels, which may differ from its header.
        name: its name in error messages.
        notes: decisions that were made to read it.
    """

    image: Image
    grid: Grid
    name: str
    notes: tuple[str, ...]


class Channel(NamedTuple):
    """One channel of a subject on the grid of its crop.

    Attributes:
        values: intensities in [0, 255].
        low: the original intensity that became 0.
        high: the original intensity that became 255.
        source: its file; empty if the subject lacks the modality.
    """

    values: npt.NDArray[np.float32]
    low: float
    high: float
    source: str


def prepare_subject(spec: ImageSpec, task: Task) -> bool | Failure:
    """Stage one subject; True if it was prepared, False if it already was, or the failure."""
    try:
        checksums = _checksums(spec, task)
        if checksums == task.known:
            return False
        image, record, mask = _make(spec, task, checksums)
    except Exception as error:  # any error of one subject must not stop the others
        return _failed(spec, task, error)
    stage(spec.store, spec.info, image, record, mask)
    return True


def made(
    spec: ImageSpec, task: Task
) -> tuple[npt.NDArray[Any], Record, npt.NDArray[np.uint8] | None] | Failure:
    """A subject's image and mask as a store would hold them, and its record, in memory."""
    try:
        image, record, mask = _make(spec, task, ("", ""))
    except Exception as error:  # any error of one subject must not stop the others
        return _failed(spec, task, error)
    return spec.info.stored(image), record, mask


def _failed(spec: ImageSpec, task: Task, error: Exception) -> Failure:
    """The record of a subject that an error kept from being prepared."""
    reason = one_line(error)
    if not isinstance(error, SubjectError):
        reason = f"{type(error).__name__}: {reason.replace(f'{spec.root}{os.sep}', '')}"
    return failure_of(spec, task.files, reason)


def failure_of(spec: ImageSpec, subject: SubjectFiles, reason: str) -> Failure:
    """The record of a subject that cannot be prepared; with a secret, it has no file names."""
    if spec.secret is not None:
        reason = without_names(reason, subject.own_files, spec.root, spec.secret)
    return Failure(subject.subject, reason)


def _checksums(spec: ImageSpec, task: Task) -> tuple[str, str]:
    """Digests of what shapes the image, and of the mask; empty where none is kept.

    A mask that no crop is centred on does not shape the image.
    """
    digest, of_mask = hashlib.sha256(spec.digest), ""
    if task.array is not None:
        digest.update(f"{task.array.shape} {task.array.dtype}".encode())
        digest.update(task.array.tobytes())
        return digest.hexdigest(), of_mask
    present = modalities_of(spec, task.files)
    if len(present) < len(spec.files):
        digest.update(f"only {present}".encode())
    files = [task.files.files[modality] for modality in present]
    if (mask := mask_of(spec, task.files)) is not None:
        if spec.info.center == "mask":
            files.append(mask)
        if spec.info.masks:
            of_mask = hashlib.sha256(MASK_VERSION + _contents(spec, [mask])).hexdigest()
    digest.update(_contents(spec, files))
    return digest.hexdigest(), of_mask


def _contents(spec: ImageSpec, items: Iterable[Item]) -> bytes:
    """The digests of the files of some images, one after the other."""
    digests = []
    for path in chain.from_iterable(map(files_of, items)):
        if not path.is_file():
            raise SubjectError(f"{named(spec, path)}: no such file")
        with open(path, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return b"".join(digests)


def modalities_of(spec: ImageSpec, subject: SubjectFiles) -> list[str]:
    """The wanted modalities that a subject has.

    Raises:
        SubjectError: it has none.
    """
    present = [modality for modality in spec.files if modality in subject.files]
    if not present:
        has = ", ".join(subject.files) or "none"
        raise SubjectError(f"has no file for {' or '.join(spec.files)}; it has {has}")
    return present


def mask_of(spec: ImageSpec, subject: SubjectFiles) -> Item | None:
    """The mask of a subject if it is used, to centre the crop or to be kept.

    Raises:
        SubjectError: it has none, and its crop is to be centred on it.
    """
    if spec.info.center == "mask" and subject.mask is None and not spec.without_masks:
        raise SubjectError("has no mask to centre on; add one, or use `center=foreground`")
    return subject.mask if spec.info.center == "mask" or spec.info.masks else None


def named(spec: ImageSpec, item: Item) -> str:
    """The name of an image in errors and records: its path in the source, or its pseudonym."""
    if isinstance(item, GivenItem):
        return item.name
    name = name_of(item, spec.root)
    return name if spec.secret is None else pseudonym(spec.secret, name)


def image_of(spec: ImageSpec, item: Item, *, constant: bool = False, mask: bool = False) -> Image:
    """Read an image, or a mask, of a cohort that is a file.

    Raises:
        SubjectError: it cannot be read, or its voxels are all equal without `constant`.
    """
    name = named(spec, item)
    if isinstance(item, GivenItem):
        return read_given(item.values, item.affine, name, constant=constant)
    if spec.kind == "scans" and not isinstance(item, ArrayItem):
        return read_scan(item, name, constant=constant)
    if isinstance(item, Path):
        return read_picture(item, name, constant=constant, mask=mask)
    raise TypeError(f"{item} among {spec.kind}")


def grid_of(spec: ImageSpec, item: Item) -> Grid:
    """The grid of an image, from its header, or from the whole file if the header lacks it.

    Raises:
        SubjectError: it cannot be read.
    """
    ndim = 3 if spec.kind == "scans" else 2
    grid = read_grid(item, named(spec, item), ndim=ndim)
    return image_of(spec, item, constant=True).grid if grid is None else grid


def _images(
    spec: ImageSpec, task: Task, lost: dict[str, SubjectError]
) -> Iterator[tuple[str, str, Image]]:
    """Yield each present modality with the name and the content of its file, one at a time.

    A DICOM series that cannot be read is added to `lost`.
    """
    for modality in modalities_of(spec, task.files):
        item = task.files.files[modality]
        name = named(spec, item)
        try:
            image = image_of(spec, item) if task.array is None else read_array(task.array, name)
        except SubjectError as error:
            if not isinstance(item, SeriesItem):
                raise
            lost[modality] = error
        else:
            yield modality, name, image


def _make(
    spec: ImageSpec, task: Task, checksums: tuple[str, str]
) -> tuple[npt.NDArray[np.float32], Record, npt.NDArray[np.uint8] | None]:
    """Read a subject and resample it; returns intensities in [0, 255], record, and kept mask."""
    made: dict[str, list[Channel]] = {}
    lost: dict[str, SubjectError] = {}
    images = _images(spec, task, lost)
    first = next(images, None)
    if first is None:
        raise next(iter(lost.values()))
    reference = first[2].grid
    mask = _read_mask(spec, task.files, *first[1:])
    target, center, crop_notes = _target(spec, mask, *first[1:])
    notes = list(crop_notes)
    for modality, name, image in chain([first], images):
        notes += [f"{modality}: {note}" for note in image.notes]
        item = task.files.files[modality]
        if isinstance(item, Path) and (other := other_modality(stem(item.name), modality)):
            notes.append(f"{modality}: {other} by the name of its file")
        if not image.physical and image.grid.size != reference.size:
            raise SubjectError(
                f"{name}: is {dimensions(image.grid.size)}, but the first modality is "
                f"{dimensions(reference.size)}; all pictures of a subject must have one size"
            )
        if not np.allclose(image.pixel or 1.0, first[2].pixel or 1.0, rtol=MOST_UNEVEN - 1):
            raise SubjectError(
                f"{name}: its pixels have another shape than those of the first modality; all "
                "pictures of a subject must have pixels of one shape"
            )
        if (error := _misplaced(image, target, name, first[2], first[1])) is not None:
            if modality == first[0] or not isinstance(item, SeriesItem):
                raise error
            lost[modality] = error
            continue
        low, high = intensity_range(image, modality, spec.info, name)
        several = _values(spec, image)
        if len(several) == 1 and not is_grey(image):
            notes.append(f"{modality}: in colour, and kept as grey")
        move = geometry.resample if image.physical else geometry.rescale
        made[modality] = [
            Channel(_to_bytes(move(values, image.grid, target, low), low, high), low, high, name)
            for values in several
        ]
        windowed = spec.info.window_of(modality) is not None
        crops = [c.values for c in made[modality]]
        if all(shows_nothing(v, windowed=windowed) for v in crops) or all(
            np.ptp(spec.info.stored(v)) == 0 for v in crops
        ):
            least, most = image.values.min(), image.values.max()
            shown = f"; {low:g} to {high:g} is shown, the scan is {least:g} to {most:g}"
            raise SubjectError(
                f"{name}: all voxels of its crop have one value{shown}; it shows "
                "nothing of the scan: check the affine, the window, and the centre of the crop"
            )
        limited = windowed or spec.info.clip is not None
        if not limited and all(has_few_levels(v, image.values) for v in crops):
            notes.append(f"{modality}: {FEW_LEVELS}")
    notes += [
        f"{modality}: zero, because its series cannot be used ({e.kind})"
        for modality, e in lost.items()
    ]
    kept = None
    if mask is not None and spec.info.masks:
        kept, mask_notes = _kept(mask, dict(spec.info.mask_names), target)
        notes += [note for note in mask_notes if note not in notes]
    absent = [Channel(np.zeros(spec.info.size, np.float32), 0.0, 0.0, "")]
    channels = [c for modality in spec.files for c in made.get(modality, absent)]
    # Along the axes of the crop, so that subjects that were stored in other orders compare.
    original = geometry.closest_ras(reference) if first[2].physical else reference
    record = Record(
        subject=task.files.subject,
        affine=tuple((target.affine.ravel() + 0.0).tolist()),  # + 0.0 removes negative zeros
        intensity_min=tuple(c.low for c in channels),
        intensity_max=tuple(c.high for c in channels),
        source=tuple(c.source for c in channels),
        checksum=checksums[0],
        modality_present=tuple(bool(c.source) for c in channels),
        crop_center=center,
        prepare_notes=tuple(notes),
        source_size=tuple(map(int, original.size)),
        source_spacing=tuple(map(float, original.spacing)),
        mask_checksum=checksums[1],
    )
    return np.stack([c.values for c in channels]), record, kept


def _values(spec: ImageSpec, image: Image) -> list[npt.NDArray[Any]]:
    """The values of the channels that one file becomes."""
    if spec.info.modalities != RGB or len(spec.files) > 1:
        return [to_grey(image)]
    if image.is_colour:
        return [image.values[..., i] for i in range(3)]
    return [image.values] * 3


def _target(
    spec: ImageSpec, mask: Mask | None, name: str, reference: Image
) -> tuple[Grid, str, tuple[str, ...]]:
    """The grid of a subject's crop, the kind of its centre, and notes on decisions."""
    info, center = spec.info, spec.info.center
    notes = () if mask is None else mask.notes
    pixel = np.array(reference.pixel or 1.0)
    if info.spacing is None:
        return geometry.fit_grid(reference.grid, info.size, pixel), "", notes
    middle = reference.grid.center
    if center == "mask" and mask is None:  # this is allowed for new scans of a run
        center, notes = "foreground", (*notes, NO_MASK)
    if mask is not None and center == "mask":
        middle_of_mask, lesion_notes = _center_of_mask(spec, mask, name, reference)
        notes += lesion_notes
        if middle_of_mask is None:
            center = "foreground"
        else:
            middle = middle_of_mask
    if center == "foreground":
        middle = geometry.centroid(geometry.foreground(to_grey(reference)), reference.grid)
    target = geometry.crop_grid(reference.grid, info.spacing / pixel, info.size, middle)
    if center != "mask" and _share_kept(reference, target) < LEAST_KEPT:
        notes = (*notes, CUT_OFF)
    return target, center, notes


def _misplaced(
    image: Image, target: Grid, name: str, reference: Image, first: str
) -> SubjectError | None:
    """Why an image and its crop show nothing of each other; None if they do.

    Args:
        image: one of a subject's images.
        target: the crop.
        name: of the image in error messages.
        reference: the subject's first image, on which the crop is placed.
        first: its name in error messages.
    """
    if not geometry.overlaps(image.grid, target):
        where = f"outside the crop of {first}; check its affine, and the centre of the crop"
        if not geometry.overlaps(image.grid, reference.grid):
            where = f"beside {first}, by their headers; the affine of one of the two is wrong"
        return SubjectError(f"{name}: lies entirely {where}", kind="lies elsewhere")
    if not image.physical:
        return None
    scan, crop, wrong = image.grid, target, ""
    if _less_than_a_few(scan, crop):
        wrong = f"its {dimensions(scan.size)} voxels together are less than {TOO_FEW} of the crop's"
    elif _less_than_a_few(crop, scan):
        wrong = f"the whole crop is less than {TOO_FEW} of its voxels"
    if not wrong:
        return None
    sizes = f"{dimensions(scan.spacing)} mm by its header, the crop's {dimensions(crop.spacing)} mm"
    return SubjectError(
        f"{name}: {wrong}; its voxels are {sizes}: check the unit and affine of this scan, and of "
        "the others",
        kind="has voxels of a wrong size",
    )


def _less_than_a_few(one: Grid, other: Grid) -> bool:
    """Whether a grid's longest side is shorter than a few of another's voxels are wide."""
    longest = max(one.size * one.spacing)
    return bool(max(one.size) > TOO_FEW and longest < TOO_FEW * min(other.spacing))


def _share_kept(reference: Image, target: Grid) -> float:
    """The share of an image's foreground that a crop keeps."""
    if geometry.holds(target, reference.grid.corners()).all():
        return 1.0
    image = to_grey(reference)
    few, grid = geometry.thinned(image, reference.grid)
    seen = geometry.foreground(few)
    if not seen.any():  # a lesion of few voxels lies between those that are left
        seen, grid = geometry.foreground(image), reference.grid
    return geometry.share_inside(seen, grid, target) if seen.any() else 1.0


def _read_mask(spec: ImageSpec, subject: SubjectFiles, name: str, reference: Image) -> Mask | None:
    """Read the mask of a subject; None if it has none, or if it is not used."""
    path = mask_of(spec, subject)
    if path is None:
        return None
    mask_name = named(spec, path)
    image = image_of(spec, path, constant=True, mask=True)
    grid, grid_notes = grid_of_mask(image, reference, mask_name, name)
    notes = tuple(f"mask: {note}" for note in image.notes) + grid_notes
    return Mask(image, grid, mask_name, notes)


def _kept(
    mask: Mask, names: Mapping[int, str], target: Grid
) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """A mask resampled to its subject's crop, and notes on decisions."""
    try:
        labels, inside, notes = kept_labels(mask.image, names)
    except ValueError as error:
        raise SubjectError(
            f"{mask.name}: the mask has {one_line(error)}; kept masks need labels from 0 to 255: "
            "change the labels, or prepare without `keep_masks`"
        ) from None
    if inside.any() and geometry.share_inside(inside, mask.grid, target) < LEAST_KEPT:
        notes = (*notes, CUT_MASK)
    return geometry.resample(labels, mask.grid, target, 0.0, nearest=True).astype(np.uint8), notes


def _center_of_mask(
    spec: ImageSpec, mask: Mask, name: str, reference: Image
) -> tuple[Floats | None, tuple[str, ...]]:
    """The centroid of the lesion, None if the mask shows no lesion, and notes on decisions."""
    inside, notes = lesion(mask.image, dict(spec.info.mask_names), spec.info.mask_values)
    if not inside.any():
        held = [f"{value:g}" for value in np.unique(to_grey(mask.image)) if value]
        wanted = ", ".join(map(str, spec.info.mask_values or ()))
        none = NO_LESION.format(first_few(held), wanted) if held and wanted else EMPTY_MASK
        return None, (*notes, none)
    center = geometry.centroid(inside, mask.grid)
    index = reference.grid.to_index(center)
    if np.any((index < -0.5) | (index > np.array(reference.grid.size) - 0.5)):
        raise SubjectError(
            f"{mask.name}: the mask's centre lies outside {name}; its affine is wrong, or it is "
            "another subject's"
        )
    return center, notes


def _to_bytes(values: Floats, low: float, high: float) -> npt.NDArray[np.float32]:
    if (low, high) != (0.0, 255.0):
        # In this order, even the full range of a double does not overflow.
        values = values / 2
        values -= low / 2
        values /= high / 2 - low / 2
        values *= 255
    return np.clip(values, 0, 255).astype(np.float32)
