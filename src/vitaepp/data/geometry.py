"""Geometry: grids of voxels, and how an image is resampled to the grid of a crop.

An image is an array and a `Grid`. World coordinates of scans are RAS+ in mm (NIfTI's convention),
so that 3D arrays are indexed (x, y, z) from left to right, back to front, feet to head. Pictures
and bare arrays have no physical space; their world coordinates are the indices of the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Flags, Floats

#: One vector of coordinates or many; the last axis counts the coordinates.
Vectors = Sequence[Any] | npt.NDArray[Any]

#: Grids that differ by less than this, in voxels, over the whole crop count as equal; NIfTI stores
#: its affine in single precision.
VOXEL_TOLERANCE = 1e-3

#: Axes count as perpendicular if the scalar product of their directions is below this.
SHEAR_TOLERANCE = 1e-4

#: About how many voxels are used to estimate a share.
MANY_VOXELS = 20_000

#: About how many voxels are used to find the foreground.
SOME_VOXELS = 200_000

#: Largest plausible distance from the scanner's middle, in mm.
FARTHEST = 1e9

#: Least volume that unit vectors along the axes must span; below it they lie nearly in a plane.
LEAST_VOLUME = 0.1

#: Full width at half maximum of a Gaussian, in standard deviations.
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


def simpleitk() -> Any:
    """SimpleITK, imported when an image is first used; training does not need it."""
    return import_module("SimpleITK")


class _Buffer:
    """Gives numpy access to the memory of a SimpleITK image, and keeps the image alive."""

    def __init__(self, image: Any) -> None:
        self.image = image
        self.__array_interface__ = simpleitk().GetArrayViewFromImage(image).__array_interface__


def array_of(image: Any) -> npt.NDArray[Any]:
    """The values of a SimpleITK image, axes reversed, as a read-only view of its memory."""
    return np.asarray(_Buffer(image))


@dataclass(frozen=True, eq=False)
class Grid:
    """A lattice of voxels in space.

    Attributes:
        size: voxels per axis.
        affine: homogeneous matrix, index to world; `(n + 1, n + 1)`.
    """

    size: tuple[int, ...]
    affine: Floats

    @classmethod
    def of_indices(cls, size: Sequence[int]) -> Grid:
        """The grid of an image without physical space: world coordinates are its indices."""
        return cls(tuple(size), np.eye(len(size) + 1))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.size)

    @property
    def spacing(self) -> Floats:
        """Distance between neighbours along each axis."""
        return np.asarray(np.linalg.norm(self.affine[:-1, :-1], axis=0))

    @property
    def direction(self) -> Floats:
        """Unit vectors of the axes, as columns."""
        return np.asarray(self.affine[:-1, :-1] / self.spacing)

    @property
    def center(self) -> Floats:
        """World position of the middle of the grid."""
        return self.to_world((np.array(self.size) - 1) / 2)

    def to_world(self, index: Vectors) -> Floats:
        """World coordinates of (fractional) indices, `(..., n)`."""
        return np.asarray(np.asarray(index) @ self.affine[:-1, :-1].T + self.affine[:-1, -1])

    def to_index(self, world: Vectors) -> Floats:
        """Fractional indices of world coordinates, `(..., n)`."""
        shifted = np.asarray(world) - self.affine[:-1, -1]
        return np.asarray(np.linalg.solve(self.affine[:-1, :-1], shifted[..., None])[..., 0])

    def corners(self) -> Floats:
        """World positions of the corner voxels' middles, `(2^n, n)`."""
        return self.to_world(list(product(*((0, n - 1) for n in self.size))))


def is_usable(affine: Floats) -> bool:
    """Whether an affine puts voxels at finite positions, and not all in one plane."""
    with np.errstate(all="ignore"):
        grid = Grid((1,) * (len(affine) - 1), affine)
        volume = abs(np.linalg.det(affine))
        spread = volume / np.prod(grid.spacing)
    near = np.abs(affine).max() <= FARTHEST  # this is false for NaN
    return bool(near and volume > 1e-12 and spread > LEAST_VOLUME)


def farthest_apart(grid: Grid, affine: Floats) -> float:
    """The largest distance, in voxels, by which another affine moves a voxel of a grid."""
    corners = Grid.of_indices(grid.size).corners()
    moved = grid.to_index(Grid(grid.size, affine).to_world(corners))
    return float(np.linalg.norm(moved - corners, axis=1).max())


def straightened(grid: Grid) -> Grid:
    """The grid with perpendicular axes; axes with finer spacing change less."""
    affine = grid.affine.copy()
    affine[:-1, :-1] = _straight(grid) * grid.spacing
    return Grid(grid.size, affine)


def closest_ras(grid: Grid) -> Grid:
    """The same voxels with axes permuted and flipped to point right, anterior and superior.

    Oblique axes stay oblique. Each world axis gets the grid axis that is most parallel to it; the
    choice is joint, so that the permutation is the best one even at 45 degrees.
    """
    axes = range(grid.ndim)
    along = np.abs(grid.direction)
    order = max(permutations(axes), key=lambda p: sum(along[w, a] for w, a in enumerate(p)))
    size = tuple(grid.size[a] for a in order)
    affine = grid.affine.copy()
    affine[:-1, :-1] = grid.affine[:-1, list(order)]
    for axis in axes:
        if affine[axis, axis] < 0:
            affine[:-1, -1] += affine[:-1, axis] * (size[axis] - 1)
            affine[:-1, axis] *= -1
    return Grid(size, affine)


def crop_grid(reference: Grid, spacing: Vectors, size: Sequence[int], center: Vectors) -> Grid:
    """The grid of a crop around a point, with the reference's axes in RAS order.

    The crop's voxels lie on the lattice of the given spacing that starts at the reference's first
    voxel (in RAS order). So a scan that already has this spacing is copied, not interpolated, and
    two crops of one scan share their voxels. The centre is exact to half a voxel. The crop of a
    sheared scan (gantry tilt) has perpendicular axes; those with finest spacing keep directions.

    Args:
        reference: grid of the scan.
        spacing: spacing of the crop, in world units per axis.
        size: size of the crop, in voxels.
        center: world point in the middle of the crop.
    """
    ras = closest_ras(reference)
    lattice = ras.affine.copy()
    lattice[:-1, :-1] = _straight(ras) * np.asarray(spacing, float)
    middle = Grid(ras.size, lattice).to_index(center)
    # A centre between two voxels goes to the lower one, even with rounding errors.
    first = np.ceil(middle - (np.array(size) - 1) / 2 - 0.5 - VOXEL_TOLERANCE)
    lattice[:-1, -1] += lattice[:-1, :-1] @ first
    return Grid(tuple(size), lattice)


def _straight(grid: Grid) -> Floats:
    """Perpendicular directions of a grid's axes; axes with finer spacing change less."""
    direction = grid.direction
    if np.allclose(direction.T @ direction, np.eye(grid.ndim), atol=SHEAR_TOLERANCE):
        return direction
    order = np.argsort(grid.spacing, kind="stable")
    perpendicular, upper = np.linalg.qr(direction[:, order])
    direction[:, order] = perpendicular * np.sign(np.diag(upper))
    return direction


def fit_grid(reference: Grid, size: Sequence[int], pixel: Vectors | float = 1.0) -> Grid:
    """The centred grid of this size that holds the whole image as large as possible.

    Proportions are kept, so that along some axes the grid extends beyond the image.

    Args:
        reference: grid of the image.
        size: size of the result, whose voxels are squares or cubes.
        pixel: true sides of a voxel of a reference whose world coordinates are its indices.
    """
    extent = np.array(reference.size) * reference.spacing * pixel
    affine = reference.affine.copy()
    affine[:-1, :-1] = reference.direction * (np.max(extent / np.array(size)) / np.asarray(pixel))
    affine[:-1, -1] = reference.center - affine[:-1, :-1] @ ((np.array(size) - 1) / 2)
    return Grid(tuple(size), affine)


def centroid(mask: npt.NDArray[Any], grid: Grid) -> Floats:
    """World position of the centre of mass of the nonzero voxels."""
    inside = mask != 0
    total = np.count_nonzero(inside)
    index = []
    for axis, length in enumerate(mask.shape):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        index.append(np.dot(np.count_nonzero(inside, axis=others), np.arange(length)) / total)
    return grid.to_world(index)


def foreground(image: npt.NDArray[Any]) -> Flags:
    """Voxels above Otsu's threshold (Otsu 1979), which splits intensities into two classes."""
    sitk = simpleitk()
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(np.ascontiguousarray(image.T).astype(np.float32)))
    above = image > otsu.GetThreshold()
    return np.asarray(above if above.any() else image > image.min())


def overlaps(source: Grid, target: Grid) -> bool:
    """Whether the box of `target` can meet the box of `source`."""
    index = source.to_index(target.corners())
    below = index.max(axis=0) < -0.5
    above = index.min(axis=0) > np.array(source.size) - 0.5
    return not bool(np.any(below | above))


def share_inside(mask: Flags, source: Grid, target: Grid) -> float:
    """The share of a mask's voxels that lie inside another grid, from a sample of its voxels.

    Args:
        mask: mask with at least one nonzero voxel, of `source`'s size.
        source: grid of the mask.
        target: the other grid.
    """
    voxels = np.argwhere(mask)
    few = voxels[:: max(1, len(voxels) // MANY_VOXELS)]
    return float(holds(target, source.to_world(few)).mean())


def thinned(image: npt.NDArray[Any], grid: Grid) -> tuple[npt.NDArray[Any], Grid]:
    """Every second, third, … voxel along each axis of a large image, and the grid of these."""
    step = max(1, round((image.size / SOME_VOXELS) ** (1 / image.ndim)))
    few = image[(slice(None, None, step),) * image.ndim]
    affine = grid.affine.copy()
    affine[:-1, :-1] *= step
    return few, Grid(few.shape, affine)


def holds(grid: Grid, points: Floats) -> Flags:
    """Which world points lie in a grid's box, which ends half a voxel beyond the outer voxels."""
    index = grid.to_index(points)
    return np.asarray(((index >= -0.5) & (index <= np.array(grid.size) - 0.5)).all(axis=1))


def resample(
    image: npt.NDArray[Any], source: Grid, target: Grid, background: float, *, nearest: bool = False
) -> Floats:
    """Values of an image at the voxels of another grid, by linear interpolation in space.

    If the grids share their voxels, values are copied exactly. Nothing is smoothed; the result is
    that of SimpleITK's resampling. Farther than half a voxel from the image's outermost voxels, the
    result is `background`.

    Args:
        image: values of any real type, of `source`'s size.
        source: grid of the image.
        target: grid of the result.
        background: value outside the image.
        nearest: use the value of the nearest voxel instead, as labels need.
    """
    copied = _copy(image, source, target, background)
    if copied is not None:
        return copied
    index = source.to_index(target.corners())
    # The part of the image that the target covers, with the neighbours needed for interpolation.
    first = np.clip(np.floor(index.min(axis=0)).astype(int) - 1, 0, source.size)
    stop = np.clip(np.ceil(index.max(axis=0)).astype(int) + 2, 0, source.size)
    if (stop <= first).any():
        return np.full(target.size, background, float)
    part = image[tuple(slice(*ends) for ends in zip(first, stop, strict=True))]
    # Half a voxel beyond the outermost ones, rounding would decide; so SimpleITK gets one more on
    # each side, and what is outside is told here.
    part = np.pad(part, 1, mode="edge")
    sitk = simpleitk()
    # SimpleITK's axes are the reverse of numpy's. Any world works if both grids use the same.
    moving = sitk.GetImageFromArray(np.ascontiguousarray(part.T))
    moving.SetSpacing(source.spacing.tolist())
    moving.SetDirection(source.direction.ravel().tolist())
    moving.SetOrigin(source.to_world(first - 1).tolist())
    # The target's axes are given in reverse order, so that the result is in numpy's order.
    result = sitk.Resample(
        moving,
        target.size[::-1],
        sitk.Transform(source.ndim, sitk.sitkIdentity),
        sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
        target.affine[:-1, -1].tolist(),
        target.spacing[::-1].tolist(),
        target.direction[:, ::-1].ravel().tolist(),
        float(background),
        sitk.sitkFloat64,
    )
    values = array_of(result)
    if (np.abs(index - (np.array(source.size) - 1) / 2) <= np.array(source.size) / 2).all():
        return values
    return np.where(_inside(source, target), values, background)


def _inside(source: Grid, target: Grid) -> Flags:
    """Which voxels of `target` lie in the box of `source`, half a voxel beyond its outer ones.

    Returns:
        What broadcasts to `target`'s size.
    """
    step = np.linalg.solve(source.affine, target.affine)
    along = np.ix_(*map(np.arange, target.size))  # stays thin where axes are parallel
    inside = np.ones((1,) * target.ndim, np.bool_)
    for axis, length in enumerate(source.size):
        moves = [
            step[axis, i] * along[i]
            for i, n in enumerate(target.size)
            if abs(step[axis, i]) * n > 1e-6
        ]
        position = sum(moves, start=step[axis, -1])
        inside = inside & (np.abs(position - (length - 1) / 2) <= length / 2 + VOXEL_TOLERANCE)
    return inside


def rescale(image: npt.NDArray[Any], source: Grid, target: Grid, background: float) -> Floats:
    """Values of a picture on a larger or smaller grid with the same axes, without aliasing.

    This is like `resample`, but an axis that shrinks by a factor f is first smoothed by a Gaussian.
    Its width changes the point spread of a voxel from one size to the other: FWHM² = f² - 1 in
    source voxels. Each axis is one small matrix product, so thousands of pictures take seconds.

    Source:
        Cardoso et al. 2015, Scale factor point spread function matching: beyond aliasing in image
        resampling, MICCAI.
    """
    copied = _copy(image, source, target, background)
    if copied is not None:
        return copied
    start = source.to_index(target.affine[:-1, -1])
    factors = target.spacing / source.spacing
    values = image.astype(float) - background
    for axis in range(source.ndim):
        weights = _axis_weights(
            source.size[axis], target.size[axis], float(start[axis]), float(factors[axis])
        )
        values = np.moveaxis(np.tensordot(weights, values, axes=(1, axis)), 0, axis)
    return np.asarray(values + background)


@lru_cache(maxsize=64)
def _axis_weights(length: int, wanted: int, start: float, factor: float) -> Floats:
    """Matrix `(wanted, length)`: smoothing, then linear interpolation at `start + i * factor`."""
    position = start + factor * np.arange(wanted)
    inside = (position >= -0.5 - VOXEL_TOLERANCE) & (position <= length - 0.5 + VOXEL_TOLERANCE)
    clamped = np.clip(position, 0, length - 1)[:, None]
    lower = np.floor(clamped)
    weights = np.zeros((wanted, length))
    # Only the two neighbours of each position, as a `length` × `length` matrix would be too large.
    for neighbour, share in ((lower, 1 - (clamped - lower)), (lower + 1, clamped - lower)):
        distance = np.arange(length) - neighbour
        if factor > 1:
            sigma = np.sqrt(factor**2 - 1) / FWHM_PER_SIGMA
            smooth = np.exp(-0.5 * (distance / sigma) ** 2)
            smooth /= smooth.sum(axis=1, keepdims=True)
        else:
            smooth = distance == 0
        weights += share * inside[:, None] * smooth
    return weights


def _copy(image: npt.NDArray[Any], source: Grid, target: Grid, background: float) -> Floats | None:
    """The target's values if its voxels are voxels of the source, else None."""
    step = np.linalg.solve(source.affine, target.affine)
    whole = np.rint(step)
    linear = whole[:-1, :-1]
    moves = np.abs(linear)
    if not (np.all(moves.sum(axis=0) == 1) and np.all(moves.sum(axis=1) == 1)):
        return None
    drift = np.abs(step - whole)[:-1] @ np.array([*target.size, 1])
    if drift.max() > VOXEL_TOLERANCE:
        return None
    # Axis i of the target runs along axis order[i] of the source, forwards or backwards.
    order = [int(np.argmax(np.abs(linear[:, i]))) for i in range(target.ndim)]
    oriented = np.transpose(image, order)
    result = np.full(target.size, background, float)
    take, put = [], []
    for i, axis in enumerate(order):
        first, length = int(whole[axis, -1]), source.size[axis]
        if linear[axis, i] < 0:
            oriented = np.flip(oriented, i)
            first = length - 1 - first
        take.append(slice(max(first, 0), max(min(first + target.size[i], length), 0)))
        put.append(slice(take[-1].start - first, take[-1].stop - first))
        if take[-1].stop <= take[-1].start:
            return result
    result[tuple(put)] = oriented[tuple(take)]
    return result
