"""The grid of a store that suits its source: the paper's, unless the images do not fit it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import ceil, prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Floats
from vitaepp.data.geometry import Grid, closest_ras
from vitaepp.data.storefiles import stored_info
from vitaepp.errors import SubjectError
from vitaepp.ingest.layouts import Cohort
from vitaepp.ingest.planning.spec import DEFAULT_SIZE
from vitaepp.ingest.readers.pictures import pixel_of
from vitaepp.ingest.subject import grid_of
from vitaepp.ingest.task import ImageSpec
from vitaepp.recipe.choices import Choice
from vitaepp.recipe.sections import PrepareSettings
from vitaepp.system.text import dimensions, evenly, first_few

#: Subjects, evenly spread, whose headers decide; a hundred know the quantiles well enough.
SAMPLE = 100

#: 1 mm fits where the finest axis is at most twice as fine or as coarse: resampling then neither
#: throws away nor makes up more than every second voxel of it.
FINEST = (0.5, 2.0)

#: nnU-Net's factor between axes from which images count as anisotropic.
ANISOTROPIC = 3.0

#: Sides are multiples of the patch, and hold at least two.
MULTIPLE = 8
SMALLEST = 16

#: Share of the images that a side of the crop holds whole.
SHARE = 0.95

#: A scan so many times longer or shorter than the median scan is in another unit: metres are 1000,
#: and patches and whole bodies in one cohort are less.
UNLIKE = 50.0


def choose_grid(
    spec: ImageSpec, cohort: Cohort, settings: PrepareSettings
) -> tuple[ImageSpec, tuple[Choice, ...]]:
    """Choose size and spacing where the user did not.

    A store that was begun keeps its own, so that subjects can be added. Else they are the
    defaults, unless the headers of a sample of the subjects say that these do not fit.

    Args:
        spec: what to make of the cohort by default.
        cohort: the source.
        settings: settings that the user gave; they are not touched.

    Returns:
        The spec to follow, and what was chosen, each with its reason.

    Raises:
        StoreError: the spec's store is damaged.
    """
    info = spec.info
    existing = stored_info(spec.store)
    if existing is not None and existing.ndim == info.ndim and spec.kind != "arrays":
        spacing = info.spacing if settings.spacing or existing.spacing is None else existing.spacing
        size = info.size if settings.size else existing.size
        unit = existing.unit if spec.kind == "pictures" else info.unit
        return replace(spec, info=replace(info, size=size, spacing=spacing, unit=unit)), ()
    if spec.kind == "arrays" or (settings.size and (settings.spacing or spec.kind == "pictures")):
        return spec, ()
    grids, unlike = alike(reference_grids(spec, cohort))
    if not grids:
        return spec, ()
    if spec.kind == "scans" and info.center == "image" and not settings.size:
        return _whole(spec, grids, settings, unlike)
    choices = []
    spacing = info.spacing
    if spec.kind == "scans" and not settings.spacing:
        spacing, why = _spacing(grids, info.spacing or ())
        choices.append(Choice("prepare.spacing", list(spacing), why + unlike))
    size = info.size
    if not settings.size:
        size, why = _size(grids, spacing, DEFAULT_SIZE[spec.kind][0])
        choices.append(Choice("prepare.size", list(size), why + unlike * (not choices)))
    return replace(spec, info=replace(info, size=size, spacing=spacing)), tuple(choices)


def _whole(
    spec: ImageSpec, grids: Sequence[Grid], settings: PrepareSettings, unlike: str = ""
) -> tuple[ImageSpec, tuple[Choice, ...]]:
    """A grid that holds every scan whole: without a mask, nobody knows what may be cut off.

    The spacing is the usual one, or as much coarser as it takes to need no more voxels than the
    default crop has; one that the user gave stays. `unlike` names the scans that are not counted.
    """
    usual, why = _spacing(grids, spec.info.spacing or ())
    spacing = spec.info.spacing if settings.spacing else usual
    extents = np.max([np.array(grid.size) * grid.spacing for grid in grids], axis=0)
    budget = DEFAULT_SIZE["scans"][0] ** 3
    size = _sides(extents / np.array(spacing))
    if not settings.spacing:
        step = 0
        while prod(size) > budget:
            step += 1
            spacing = tuple(float(f"{s * (1 + step / 20):.3g}") for s in usual)
            size = _sides(extents / np.array(spacing))
        if step:
            why = f"the finest at which {budget} voxels, those of the default crop, hold a scan"
    reason = f"without masks every scan is kept whole; they reach up to {dimensions(extents)} mm"
    choices = [Choice("prepare.size", list(size), reason + unlike)]
    if not settings.spacing:
        choices.insert(0, Choice("prepare.spacing", list(spacing or ()), why))
    return replace(spec, info=replace(spec.info, size=size, spacing=spacing)), tuple(choices)


def reference_grids(spec: ImageSpec, cohort: Cohort) -> dict[str, Grid]:
    """Where the reference image of each of a sample of subjects lies, in RAS order of axes.

    A picture's voxels have the sides of its pixels, of which the shorter is 1. Images that cannot
    be read are left out: they are named when their turn comes.
    """
    grids = {}
    for row in evenly(len(cohort.subjects), SAMPLE):
        subject, files = cohort.subjects[row].subject, cohort.subjects[row].files
        for item in [files[m] for m in spec.files if m in files][:1]:
            with suppress(SubjectError):
                grid = grid_of(spec, item)
                if spec.kind == "scans":
                    grids[subject] = closest_ras(grid)
                else:
                    pixel = pixel_of(item) if isinstance(item, Path) else ()
                    grids[subject] = Grid(grid.size, np.diag([*(pixel or (1.0, 1.0)), 1.0]))
    return grids


def alike(grids: Mapping[str, Grid]) -> tuple[list[Grid], str]:
    """The grids that are about as long as most, and a clause that names the others.

    One header with another unit must not make the voxels of all others too coarse or too fine.
    """
    longest = {subject: max(grid.size * grid.spacing) for subject, grid in grids.items()}
    median = float(np.exp(np.median(np.log([*longest.values()])))) if longest else 0.0
    unlike = [s for s, v in longest.items() if not median / UNLIKE <= v <= median * UNLIKE]
    if not unlike:
        return [*grids.values()], ""
    reach = first_few([f"{subject}, {longest[subject]:.4g} mm" for subject in unlike])
    return [grid for subject, grid in grids.items() if subject not in unlike], (
        f"; not counted, because most reach about {median:.4g} mm: {reach}; check the unit and the "
        "affine of the header"
    )


def _spacing(grids: Sequence[Grid], default: tuple[float, ...]) -> tuple[tuple[float, ...], str]:
    """The default where it suits the finest axis, else nnU-Net's target spacing."""
    spacings = np.array([grid.spacing for grid in grids])
    sizes = np.array([grid.size for grid in grids])
    median = np.median(spacings, axis=0)
    fact = f"the scans' median spacing is {dimensions(median)} mm"
    low, high = FINEST
    if low <= median.min() / min(default) <= high:
        return default, f"the default, as in the paper: {fact}"
    target = tuple(float(f"{v:.3g}") for v in target_spacing(spacings, sizes))
    return target, f"nnU-Net's rule, because 1 mm would be too far off: {fact}"


def target_spacing(spacings: Floats, sizes: npt.NDArray[np.integer]) -> Floats:
    """The spacing that images of one cohort are resampled to.

    The median of each axis; but where one axis is coarser than the others by more than a factor of
    three, and has as many times fewer voxels, its 10th percentile, so that the many thin slices of
    some are not averaged away for the thick slices of others.

    Args:
        spacings: of each image, `(image, axis)`.
        sizes: voxels of each image, `(image, axis)`.

    Source:
        Isensee et al. 2021, nnU-Net, Nature Methods 18; `determine_fullres_target_spacing` of
        its code.
    """
    target = np.median(spacings, axis=0)
    voxels = np.median(sizes, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != worst]
    coarse = target[worst] > ANISOTROPIC * target[others].max()
    few = voxels[worst] * ANISOTROPIC < voxels[others].min()
    if coarse and few:
        thin = float(np.percentile(spacings[:, worst], 10))
        target[worst] = max(thin, target[others].max())
    return np.asarray(target)


def _size(
    grids: Sequence[Grid], spacing: tuple[float, ...] | None, default: int
) -> tuple[tuple[int, ...], str]:
    """The default, or per axis what holds most images whole, where that is less."""
    extents = np.array([np.array(grid.size) * grid.spacing for grid in grids])
    voxels = extents / np.array(spacing or 1.0)
    # Higher, so that the value is one that an image has; less a hair for what headers round.
    most = np.quantile(voxels, SHARE, axis=0, method="higher")
    size = tuple(max(min(side, default), min(SMALLEST, default)) for side in _sides(most))
    kind, at = ("scans", " at this spacing") if spacing else ("pictures", "")
    fact = f"{SHARE:.0%} of the {kind} have at most {dimensions(np.ceil(most - 1e-3))} voxels{at}"
    if set(size) == {default}:
        return size, f"the default; {fact}"
    return size, f"{fact}, rounded up to multiples of {MULTIPLE}; {default} would be padding"


def _sides(voxels: Floats) -> tuple[int, ...]:
    """Voxels rounded up to sides that patches divide; less a hair for what headers round."""
    return tuple(max(ceil((v - 1e-3) / MULTIPLE) * MULTIPLE, SMALLEST) for v in voxels.tolist())
