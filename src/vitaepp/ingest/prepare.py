"""prepare: raw files to a store, in parallel, resumable, each subject whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, groupby, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.errors import RecipeError, SourceError, StoreError, SubjectError, one_line
from vitaepp.ingest.arrays import open_array
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
from vitaepp.ingest.layouts import (
    ArrayItem,
    Cohort,
    Kind,
    SubjectFiles,
    join_labels,
    recognise,
)
from vitaepp.ingest.pool import run_each
from vitaepp.ingest.readers import (
    Image,
    is_grey,
    read_array,
    read_picture,
    read_scan,
    space_of,
    to_grey,
)
from vitaepp.progress import say, track
from vitaepp.recipe import PrepareSettings, Recipe, per_axis
from vitaepp.store import Failure, Record, StoreInfo, StoreWriter, stage

#: Part of every checksum: raised when the same files would give other images.
METHOD_VERSION = 1

DEFAULT_SIZE = {"scans": (96,), "pictures": (224,)}
DEFAULT_SPACING = (1.0,)

#: What the system says when a disk, a quota or a limit on file sizes is reached.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: Pictures looked at to tell a grey cohort from a coloured one.
COLOUR_SAMPLE = 32
COLOURS = ("red", "green", "blue")

#: Tasks that travel to a process together: scans take seconds, pictures milliseconds.
BATCH = {"scans": 1, "pictures": 32, "arrays": 8}


@dataclass(frozen=True)
class PrepareResult:
    """What a call of `prepare` did.

    Attributes:
        store: the store's folder.
        prepared: subjects that were made in this run.
        skipped: subjects that were there already, from the same files and settings.
        failures: subjects that could not be prepared, as in the store's failures.csv.
    """

    store: Path
    prepared: int
    skipped: int
    failures: tuple[Failure, ...]


def prepare(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    size: int | Sequence[int] | str | None = None,
    spacing: int | float | Sequence[int | float] | str | None = None,
    modalities: Sequence[str] | str | None = None,
    center: str | None = None,
    dtype: str | None = None,
    classes: int | None = None,
    labels: str | os.PathLike[str] | None = None,
    settings: PrepareSettings | None = None,
    workers: int | None = None,
) -> PrepareResult:
    """Turn raw files into a store.

    Scans are put on a grid of RAS axes with the given spacing by one linear interpolation from
    their native grid, cropped around the centre; where the crop leaves the volume it is filled
    with background, the volume's minimum. The minimum and maximum of each whole modality become 0
    and 255. Pictures and bare arrays without a spacing are scaled as a whole to fit into the size;
    with one, in pixels, they are cropped like scans. 8-bit pictures keep their values.

    Run again, it prepares what is new or changed, and what failed before.

    Args:
        source: manifest, folder or archive in a known layout, or `.npz` with MedMNIST's keys.
        store: folder to make or to add to.
        size: voxels of the crop, one value or one an axis. Unset: 96 for scans, 224 for pictures,
            their own size for arrays.
        spacing: voxel size in mm (pixels of the original for pictures and arrays). Unset: 1 mm for
            scans, none for others.
        modalities: channels in order; for pictures `grey` or `rgb`. Unset: what is found.
        center: what the crop is centred on: `mask` (its centroid), `foreground` (centroid of the
            voxels above Otsu's threshold in the first modality) or `image`. Unset: the mask
            where there are masks, else the image.
        dtype: how intensities are stored, `float16` or `uint8`. Unset: float16.
        classes: only the first so many classes, in the source's own order. Unset: all.
        labels: CSV, TSV or XLSX with a `subject` column; its other columns become labels.
        settings: where arguments that are unset come from.
        workers: processes. Unset: one a core.

    Returns:
        Counts, and the subjects that failed.

    Raises:
        RecipeError: a setting that is not valid or does not fit this source.
        SourceError: no known layout, a broken manifest or label file, an unknown modality.
        StoreError: the target holds something else, is in use, or cannot be written.
    """
    given = {
        "size": size,
        "spacing": spacing,
        "modalities": modalities,
        "center": center,
        "dtype": dtype,
        "classes": classes,
    }
    values = (settings or PrepareSettings()).model_dump()
    values |= {name: value for name, value in given.items() if value is not None}
    asked = Recipe.parse({"prepare": values}, where="prepare").prepare

    cohort = recognise(source, asked.modalities)
    if asked.classes is not None:
        cohort = cohort.of_first_classes(asked.classes)
    table = cohort.table()
    if labels is not None:
        table, without = join_labels(table, labels, cohort.unlabelled)
        if without:
            shown = ", ".join(without[:3]) + (", …" if len(without) > 3 else "")
            say(
                f"{Path(labels).name}: no row for {len(without)} of {len(table)} subjects "
                f"({shown}); their labels are empty"
            )
    plan = _plan(cohort, asked, Path(store))
    say(f"{Path(source).name}: {cohort.layout}, {len(cohort.subjects)} subjects; {_said(plan)}")

    prepared = skipped = 0
    failures: list[Failure] = []
    try:
        with StoreWriter(store, plan.info) as writer:
            outcomes = run_each(
                partial(_prepare_subject, plan),
                _tasks(cohort, plan, writer.checksums()),
                len(cohort.subjects),
                died=_died,
                workers=workers,
                batch=BATCH[cohort.kind],
            )
            for outcome in track(outcomes, "preparing", len(cohort.subjects)):
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                else:
                    prepared += outcome
                    skipped += not outcome
            others = writer.checksums().keys() - {s.subject for s in cohort.subjects}
            if others:
                say(f"{len(others)} subjects of the store are not in this source; they stay")
            rank = {s.subject: i for i, s in enumerate(cohort.subjects)}
            failures.sort(key=lambda f: rank[f.subject])
            writer.commit(table, failures)
    except OSError as error:
        told = f"{store}: cannot be written: {error.strerror or one_line(error)}"
        if error.errno in FULL:
            told += "; make room and run prepare again, it goes on from what is finished"
        raise StoreError(told) from error
    return PrepareResult(Path(store), prepared, skipped, tuple(failures))


@dataclass(frozen=True)
class Plan:
    """All that a process needs to know to prepare any subject of a cohort.

    Attributes:
        info: the store's images.
        store: its folder.
        root: folder that recorded paths are relative to.
        kind: how images are read.
        files: modalities to read; a colour picture is one file and three channels.
    """

    info: StoreInfo
    store: Path
    root: Path
    kind: Kind
    files: tuple[str, ...]

    @property
    def digest(self) -> bytes:
        """Digest of every setting that shapes an image."""
        shaping = [METHOD_VERSION, asdict(self.info), self.kind, self.files]
        return hashlib.sha256(json.dumps(shaping).encode()).digest()


@dataclass(frozen=True, eq=False)
class _Task:
    files: SubjectFiles
    array: npt.NDArray[Any] | None
    known: str | None


def _plan(cohort: Cohort, asked: PrepareSettings, store: Path) -> Plan:
    files, channels = _channels(cohort, asked.modalities)
    own = _array_size(cohort) if cohort.kind == "arrays" else DEFAULT_SIZE[cohort.kind]
    ndim = {"scans": 3, "pictures": 2, "arrays": len(own)}[cohort.kind]
    spacing = asked.spacing or (DEFAULT_SPACING if cohort.kind == "scans" else None)
    center = asked.center
    if spacing is None and center not in (None, "image"):
        raise RecipeError(
            f"prepare.center={center}: images without a spacing are scaled as a whole; "
            "give a spacing in pixels to crop them"
        )
    if center is None:
        center = "mask" if cohort.has_masks and spacing is not None else "image"
    if center == "mask" and all(s.mask is None for s in cohort.subjects):
        raise SourceError(
            f"{cohort.layout} without masks: center=mask needs them; use foreground or image"
        )
    info = StoreInfo(
        modalities=channels,
        size=per_axis(asked.size or own, ndim, "prepare.size"),
        spacing=None if spacing is None else per_axis(spacing, ndim, "prepare.spacing"),
        dtype=asked.dtype,
        center=center,
    )
    return Plan(info, store, cohort.root, cohort.kind, files)


def _said(plan: Plan) -> str:
    info = plan.info
    size = "×".join(str(n) for n in info.size)
    channels = ", ".join(info.modalities)
    if info.spacing is None:
        return f"{channels}, scaled to fit {size}"
    unit = "mm" if plan.kind == "scans" else "pixels"
    spacing = "×".join(f"{s:g}" for s in sorted(set(info.spacing)))
    return f"{channels}, {size} voxels of {spacing} {unit} around the {info.center}"


def _channels(
    cohort: Cohort, asked: tuple[str, ...] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which files to read, and which channels they make."""
    if cohort.kind == "scans":
        files = cohort.choose(asked)
        return files, files
    colours = {("grey",): ("grey",), ("gray",): ("grey",), ("rgb",): COLOURS, COLOURS: COLOURS}
    if asked in colours and len(cohort.modalities) == 1:
        return cohort.modalities, colours[asked]
    try:
        files = cohort.choose(asked)
    except SourceError:
        if len(cohort.modalities) > 1:
            raise
        raise SourceError(f"modalities {','.join(asked or ())}: pictures are grey or rgb") from None
    if len(files) > 1:
        return files, files
    grey = all(is_grey(image) for image in _sample(cohort, files[0]))
    return files, ("grey",) if grey else COLOURS


def _sample(cohort: Cohort, modality: str) -> Iterator[Image]:
    """Some images of a cohort, the same at every call."""
    items = [s.files[modality] for s in cohort.subjects if modality in s.files]
    # Arrays are read front to back, so that its first items stand for all.
    spread = np.linspace(0, len(items) - 1, min(COLOUR_SAMPLE, len(items))).astype(int)
    arrays = islice(_arrays(items), COLOUR_SAMPLE)
    for item in arrays if cohort.kind == "arrays" else (items[i] for i in spread):
        try:
            if isinstance(item, Path):
                yield read_picture(item, item.name)
            elif isinstance(item, np.ndarray):
                yield read_array(item, modality)
        except SubjectError:
            continue  # it will be named when its turn comes


def _arrays(items: Iterable[Path | ArrayItem]) -> Iterator[npt.NDArray[Any]]:
    """The arrays of a cohort's items, which follow the order of their files."""
    members = (item for item in items if isinstance(item, ArrayItem))
    for (file, key), group in groupby(members, key=lambda i: (i.file, i.key)):
        wanted = {item.index for item in group}
        for index, image in enumerate(open_array(file, key)):
            if index in wanted:
                wanted.remove(index)
                yield image
        if wanted:
            raise SourceError(f"{file.name}: {key} changed while it was read; run prepare again")


def _array_size(cohort: Cohort) -> tuple[int, ...]:
    item = cohort.subjects[0].files[cohort.modalities[0]]
    if not isinstance(item, ArrayItem):
        raise TypeError(f"{item} is no array")
    shape = open_array(item.file, item.key).shape[1:]
    space = space_of(shape)
    if len(space) not in (2, 3):
        raise SourceError(
            f"{item.file.name}: {item.key} holds images of shape {shape}; they have two or three "
            "spatial axes, and at most a last one of colour"
        )
    return space


def _tasks(cohort: Cohort, plan: Plan, known: Mapping[str, str]) -> Iterator[_Task]:
    arrays: Iterator[npt.NDArray[Any] | None] = repeat(None)
    if cohort.kind == "arrays":
        arrays = _arrays(s.files[plan.files[0]] for s in cohort.subjects)
    for subject, array in zip(cohort.subjects, arrays, strict=False):
        yield _Task(subject, array, known.get(subject.subject))


def _died(task: _Task) -> bool | Failure:
    return Failure(
        task.files.subject,
        "the process that read it died twice: not enough memory, or a crash of the image library",
    )


def _prepare_subject(plan: Plan, task: _Task) -> bool | Failure:
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


def _checksum(plan: Plan, task: _Task) -> str:
    digest = hashlib.sha256(plan.digest)
    if task.array is not None:
        digest.update(f"{task.array.shape} {task.array.dtype}".encode())
        digest.update(task.array.tobytes())
        return digest.hexdigest()
    files = [_file(task.files, modality) for modality in plan.files]
    if plan.info.center == "mask":
        files.append(_mask(task.files))
    for path in files:
        if not path.is_file():
            raise SubjectError(f"{_named(plan, path)}: no such file")
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _file(subject: SubjectFiles, modality: str) -> Path:
    item = subject.files.get(modality)
    if isinstance(item, Path):
        return item
    has = ", ".join(subject.files) or "none"
    raise SubjectError(f"has no file for modality {modality}; it has {has}")


def _mask(subject: SubjectFiles) -> Path:
    if subject.mask is None:
        raise SubjectError("has no mask to centre on; give it one, or use center=foreground")
    return subject.mask


def _named(plan: Plan, path: Path) -> str:
    """A file as errors and records name it: relative to the source, never absolute."""
    absolute = Path(os.path.abspath(path))
    root = Path(os.path.abspath(plan.root))
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path.name


def _read(plan: Plan, path: Path, *, constant: bool = False) -> Image:
    read = read_scan if plan.kind == "scans" else read_picture
    return read(path, _named(plan, path), constant=constant)


def _images(plan: Plan, task: _Task) -> Iterator[tuple[str, Image]]:
    """Each file's name and content, read when its turn comes."""
    if task.array is not None:
        item = task.files.files[plan.files[0]]
        name = f"{item.file.name}:{item.key}[{item.index}]" if isinstance(item, ArrayItem) else ""
        yield name, read_array(task.array, name)
        return
    for modality in plan.files:
        path = _file(task.files, modality)
        yield _named(plan, path), _read(plan, path)


def _make(plan: Plan, task: _Task, checksum: str) -> tuple[npt.NDArray[np.float32], Record]:
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
        values = (values / 2 - low / 2) / (high / 2 - low / 2) * 255
    return np.clip(values, 0, 255).astype(np.float32)
