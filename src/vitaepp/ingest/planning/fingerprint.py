"""The fingerprint of a source: what its headers tell, and a glance at its intensities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.geometry import Grid, closest_ras, simpleitk
from vitaepp.data.storetable import Failure
from vitaepp.errors import SourceError, SubjectError, one_line
from vitaepp.ingest.intensities import intensity_range
from vitaepp.ingest.layouts import Cohort, SubjectFiles
from vitaepp.ingest.planning.spec import arrays_of
from vitaepp.ingest.readers.image import Image, to_grey
from vitaepp.ingest.readers.items import Item, SeriesItem
from vitaepp.ingest.subject import (
    failure_of,
    grid_of,
    image_of,
    mask_of,
    modalities_of,
    named,
)
from vitaepp.ingest.task import ImageSpec
from vitaepp.ingest.workers.pool import run_each
from vitaepp.system.progress import track
from vitaepp.system.text import evenly

#: Subjects, evenly spread, whose voxels are read for the ranges of intensities.
INTENSITY_SAMPLE = 8

#: nnU-Net's robust range: percentiles that few bright voxels do not move.
PERCENTILES = (0.5, 99.5)

#: Headers that travel to a process together.
BATCH = 16


@dataclass(frozen=True)
class Header:
    """What the header of one image tells.

    Attributes:
        modality: which of its subject's images it is.
        size: voxels per axis; of scans in RAS order.
        spacing: voxel size per axis in mm, in the same order; empty without a physical space.
        orientation: where the file's own axes run, as `RAS`; empty without a physical space.
    """

    modality: str
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str


@dataclass(frozen=True)
class Intensities:
    """Intensities of a modality over the sampled subjects.

    Attributes:
        low: the lowest.
        high: the highest.
        robust: mean of the subjects' 0.5th and 99.5th percentiles.
        subjects: how many were read.
    """

    low: float
    high: float
    robust: tuple[float, float]
    subjects: int


@dataclass(frozen=True)
class Fingerprint:
    """What a source holds, by its headers.

    Attributes:
        headers: of every image whose header could be read.
        missing: by modality, the subjects that lack it, or whose only series of it cannot be read.
        intensities: by modality, of a few subjects.
        unreadable: subjects that lack what is needed, or with an image that cannot be read, each
            with the reason.
    """

    headers: tuple[Header, ...]
    missing: dict[str, tuple[str, ...]]
    intensities: dict[str, Intensities]
    unreadable: tuple[Failure, ...]


@dataclass(frozen=True)
class _Seen:
    """What was found of one subject; ranges are (low, robust low, robust high, high).

    Series in `lost` cannot be read; beside others, they are as if they were not there.
    """

    headers: tuple[Header, ...]
    ranges: dict[str, tuple[float, float, float, float]]
    failures: tuple[Failure, ...]
    lost: frozenset[tuple[str, str]] = frozenset()


def fingerprint(spec: ImageSpec, cohort: Cohort, workers: int | None = None) -> Fingerprint:
    """Read the headers of a cohort, and the voxels of a few of its subjects.

    A file that cannot be read is listed. Nothing of a header but geometry is taken.

    Args:
        spec: which modalities are read, and how.
        cohort: the source.
        workers: processes. Unset: one a core.
    """
    seen = list(
        _array_looks(spec, cohort) if spec.kind == "arrays" else _looks(spec, cohort, workers)
    )
    lost = frozenset[tuple[str, str]]().union(*(one.lost for one in seen))
    missing = {
        modality: tuple(
            s.subject
            for s in cohort.subjects
            if modality not in s.files or (s.subject, modality) in lost
        )
        for modality in spec.files
    }
    rank = {s.subject: i for i, s in enumerate(cohort.subjects)}
    failures = [failure for one in seen for failure in one.failures]
    return Fingerprint(
        headers=tuple(header for one in seen for header in one.headers),
        missing={modality: lacking for modality, lacking in missing.items() if lacking},
        intensities=_intensities(spec, seen),
        unreadable=tuple(sorted(failures, key=lambda f: rank[f.subject])),
    )


def voxel_sample(total: int) -> set[int]:
    """Which of so many subjects are looked at beyond their headers, evenly spread."""
    return set(evenly(total, INTENSITY_SAMPLE))


def _looks(spec: ImageSpec, cohort: Cohort, workers: int | None) -> Iterator[_Seen]:
    total = len(cohort.subjects)
    with_voxels = voxel_sample(total)
    looks = [(subject, i in with_voxels) for i, subject in enumerate(cohort.subjects)]
    seen = run_each(partial(_look, spec), looks, total, died=_died, workers=workers, batch=BATCH)
    return track(seen, "reading headers", total)


def _died(look: tuple[SubjectFiles, bool]) -> _Seen:
    failure = Failure(look[0].subject, "the process that read it died twice")
    return _Seen((), {}, (failure,))


def _look(spec: ImageSpec, look: tuple[SubjectFiles, bool]) -> _Seen:
    """Look at a subject, and at its voxels where they are wanted, too."""
    headers, ranges, failures = [], {}, []
    lost: dict[str, Failure] = {}
    subject, voxels = look
    images: dict[str, Item] = {}
    try:
        images = {m: subject.files[m] for m in modalities_of(spec, subject)}
        if (mask := mask_of(spec, subject)) is not None:
            images["mask"] = mask
    except SubjectError as error:
        failures.append(failure_of(spec, subject, one_line(error)))
    for modality, item in images.items():
        try:
            grid = grid_of(spec, item)
            if modality == "mask":
                continue  # its header is read only to know that it can be
            headers.append(_header(modality, grid, spec.kind == "scans"))
            if voxels:
                image = image_of(spec, item)
                ranges[modality] = _range(to_grey(image))
        except SubjectError as error:
            failure = failure_of(spec, subject, one_line(error))
            if isinstance(item, SeriesItem) and modality != "mask":
                lost[modality] = failure
            else:
                failures.append(failure)
        except Exception as error:  # whatever it is, the other subjects go on
            reason = f"{modality}: {type(error).__name__} while it was read"
            failures.append(Failure(subject.subject, reason))
        else:
            if voxels:
                failures += _outside_window(spec, subject, modality, image)
    if lost.keys() == images.keys() - {"mask"}:
        return _Seen(tuple(headers), ranges, (*failures, *islice(lost.values(), 1)))
    gone = frozenset((subject.subject, modality) for modality in lost)
    return _Seen(tuple(headers), ranges, tuple(failures), gone)


def _outside_window(
    spec: ImageSpec, subject: SubjectFiles, modality: str, image: Image
) -> list[Failure]:
    """Why the window of a modality does not fit an image, if it does not."""
    try:
        intensity_range(image, modality, spec.info, named(spec, subject.files[modality]))
    except SubjectError as error:
        return [failure_of(spec, subject, one_line(error))]
    return []


def _array_looks(spec: ImageSpec, cohort: Cohort) -> Iterator[_Seen]:
    """Items of an array have one shape, and are read front to back: the first stand for all."""
    modality = spec.files[0]
    try:
        first = list(
            islice(arrays_of(s.files[modality] for s in cohort.subjects), INTENSITY_SAMPLE)
        )
    except SourceError as error:
        yield _Seen((), {}, (Failure(cohort.subjects[0].subject, one_line(error)),))
        return
    for values in first:
        yield _Seen((), {modality: _range(values)}, ())
    for _ in cohort.subjects:
        yield _Seen((Header(modality, spec.info.size, (), ""),), {}, ())


def _header(modality: str, grid: Grid, physical: bool) -> Header:
    if not physical:
        return Header(modality, grid.size, (), "")
    ras = closest_ras(grid)
    spacing = tuple(float(f"{v:.6g}") for v in ras.spacing)  # less what single precision adds
    return Header(modality, ras.size, spacing, orientation_of(grid))


def orientation_of(grid: Grid) -> str:
    """Where the axes of a grid run, each by the world axis that it is nearest to.

    >>> orientation_of(Grid((2, 2, 2), np.diag([-1.0, 1.0, 1.0, 1.0])))
    'LAS'
    """
    lps = np.diag([-1, -1, 1]) @ grid.direction
    orient = simpleitk().DICOMOrientImageFilter
    return str(orient.GetOrientationFromDirectionCosines(lps.ravel().tolist()))


def _range(values: npt.NDArray[Any]) -> tuple[float, float, float, float]:
    low, high = np.percentile(values, PERCENTILES)
    return float(values.min()), float(low), float(high), float(values.max())


def _intensities(spec: ImageSpec, seen: list[_Seen]) -> dict[str, Intensities]:
    intensities = {}
    for modality in spec.files:
        ranges = np.array([one.ranges[modality] for one in seen if modality in one.ranges])
        if len(ranges):
            low, high = float(ranges[:, 0].min()), float(ranges[:, 3].max())
            robust = (float(ranges[:, 1].mean()), float(ranges[:, 2].mean()))
            intensities[modality] = Intensities(low, high, robust, len(ranges))
    return intensities
