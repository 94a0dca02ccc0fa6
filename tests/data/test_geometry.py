"""A crop puts every landmark where it was, whatever the scanner's axes."""

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import scipy.ndimage as ndi
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from vitaepp.data.geometry import (
    Grid,
    centroid,
    closest_ras,
    crop_grid,
    fit_grid,
    foreground,
    overlaps,
    resample,
    rescale,
)
from vitaepp.data.nifti import write_scan
from vitaepp.ingest.readers.scans import read_scan

properties = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def grids(draw, oblique=80.0):
    size = tuple(draw(st.integers(4, 14)) for _ in range(3))
    order = draw(st.permutations(range(3)))
    flips = [draw(st.sampled_from([-1, 1])) for _ in range(3)]
    rotvec = np.radians([draw(st.floats(-oblique, oblique)) for _ in range(3)]) / 2
    x, y, z = rotvec
    rotation = expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]))
    affine = np.eye(4)
    affine[:3, :3] = rotation @ (np.eye(3) * flips)[:, order]
    affine[:3, :3] *= [draw(st.floats(0.5, 3)) for _ in range(3)]
    affine[:3, 3] = [draw(st.floats(-100, 100)) for _ in range(3)]
    return Grid(size, affine)


def ramp(grid: Grid, gradient=(1.0, -2.0, 0.5), at_origin=7.0) -> np.ndarray:
    """An image whose value is a linear function of world position: interpolation is exact."""
    world = grid.to_world(np.moveaxis(np.indices(grid.size), 0, -1))
    return world @ np.array(gradient) + at_origin


@properties
@given(grids())
def test_closest_ras_agrees_with_nibabel_and_keeps_every_voxel_in_place(grid):
    ras = closest_ras(grid)
    assert np.all(np.diag(ras.affine)[:3] != 0)
    corners = {tuple(np.round(c, 6)) for c in grid.corners()}
    assert {tuple(np.round(c, 6)) for c in ras.corners()} == corners
    strongest = np.sort(np.abs(grid.direction), axis=0)[-2:]
    if (strongest[1] - strongest[0] > 0.2).all() and (
        np.abs(grid.direction).max(axis=0) > 0.8
    ).all():
        image = nib.as_closest_canonical(nib.Nifti1Image(np.zeros(grid.size), grid.affine))
        np.testing.assert_allclose(ras.affine, image.affine, atol=1e-9)


@properties
@given(grids(), st.integers(4, 9), st.floats(0.6, 2.5), st.data())
def test_a_crop_shows_each_world_position_its_own_value(grid, size, spacing, data):
    center = grid.to_world([data.draw(st.floats(0, n - 1)) for n in grid.size])
    target = crop_grid(grid, (spacing,) * 3, (size,) * 3, center)
    np.testing.assert_allclose(target.spacing, spacing)
    # The centre is met to half a voxel.
    assert np.abs(target.to_index(center) - (size - 1) / 2).max() <= 0.5 + 2e-3
    result = resample(ramp(grid), grid, target, background=-999.0)
    inside = grid.to_index(target.to_world(np.moveaxis(np.indices(target.size), 0, -1)))
    well_inside = ((inside >= 0) & (inside <= np.array(grid.size) - 1)).all(-1)
    outside = ((inside < -0.51) | (inside > np.array(grid.size) - 0.49)).any(-1)
    np.testing.assert_allclose(result[well_inside], ramp(target)[well_inside], atol=1e-6)
    assert (result[outside] == -999.0).all()


@properties
@given(grids(oblique=0.0), st.integers(3, 20), st.data())
def test_at_its_own_spacing_a_scan_is_copied_bit_by_bit_in_any_orientation(grid, size, data):
    rng = np.random.default_rng(0)
    image = rng.random(grid.size)
    center = grid.to_world([data.draw(st.floats(-3, n + 3)) for n in grid.size])
    ras = closest_ras(grid)
    target = crop_grid(grid, ras.spacing, (size,) * 3, center)
    result = resample(image, grid, target, background=-1.0)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(image, grid.affine))
    padded = np.pad(canonical.get_fdata(), 40, constant_values=-1.0)
    first = np.rint(ras.to_index(target.affine[:3, 3])).astype(int) + 40
    expected = padded[tuple(slice(f, f + size) for f in first)]
    assert np.array_equal(result, expected)


@properties
@given(grids(), st.integers(0, 2))
def test_the_crop_does_not_depend_on_how_the_file_is_stored(grid, axis):
    image = np.random.default_rng(0).random(grid.size)
    flipped = Grid(grid.size, grid.affine.copy())
    flipped.affine[:3, 3] += flipped.affine[:3, axis] * (grid.size[axis] - 1)
    flipped.affine[:3, axis] *= -1
    crops = []
    for stored, values in ((grid, image), (flipped, np.flip(image, axis))):
        target = crop_grid(stored, (1.3,) * 3, (6,) * 3, grid.center + 0.01)
        crops.append((target.affine, resample(values, stored, target, 0.0)))
    np.testing.assert_allclose(crops[0][0], crops[1][0], atol=1e-6)
    np.testing.assert_allclose(crops[0][1], crops[1][1], atol=1e-6)


def test_a_landmark_in_a_file_is_where_simpleitk_says_it_is(tmp_path):
    rng = np.random.default_rng(3)
    for angles in ([0, 0, 0], [10, -7, 12], [95, 3, -40]):
        rotation = sitk.Euler3DTransform((0, 0, 0.0), *np.radians(angles)).GetMatrix()
        image = sitk.GetImageFromArray(np.zeros((30, 34, 28), np.float32))
        image.SetSpacing((1.1, 0.9, 1.7))
        image.SetDirection(rotation)
        image.SetOrigin(rng.uniform(-50, 50, 3).tolist())
        image[11, 17, 14] = 100.0
        landmark = np.array(image.TransformIndexToPhysicalPoint((11, 17, 14))) * [-1, -1, 1]
        sitk.WriteImage(image, tmp_path / "x.nii.gz")
        scan = read_scan(tmp_path / "x.nii.gz", "x")
        np.testing.assert_allclose(scan.grid.to_world([11, 17, 14]), landmark, atol=1e-4)
        target = crop_grid(scan.grid, (0.5,) * 3, (24,) * 3, landmark)
        crop = resample(scan.values, scan.grid, target, 0.0)
        np.testing.assert_allclose(target.to_world(ndi.center_of_mass(crop)), landmark, atol=0.1)


def test_resampling_is_simpleitks_own_on_the_same_grid(tmp_path):
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.random((12, 14, 16)).astype(np.float32))
    image.SetSpacing((1.5, 1.0, 2.5))
    image.SetDirection(sitk.Euler3DTransform((0, 0, 0.0), 0.1, 0.2, -0.1).GetMatrix())
    sitk.WriteImage(image, tmp_path / "x.nii")
    scan = read_scan(tmp_path / "x.nii", "x")
    target = crop_grid(scan.grid, (3.0, 1.2, 1.0), (5, 8, 11), scan.grid.center)
    write_scan(tmp_path / "grid.nii", np.zeros(target.size, np.float32), target.affine)
    expected = sitk.Resample(
        sitk.ReadImage(tmp_path / "x.nii"),
        sitk.ReadImage(tmp_path / "grid.nii"),
        sitk.Transform(),
        sitk.sitkLinear,
        -5.0,
    )
    ours = resample(scan.values, scan.grid, target, -5.0)
    np.testing.assert_allclose(ours, sitk.GetArrayFromImage(expected).T, atol=2e-4)


@pytest.mark.parametrize("angle", [0.0, 0.3])
def test_rounding_of_a_header_neither_adds_nor_removes_a_slice(angle):
    """Target voxels on the very border of a scan, half a voxel beyond its outer ones."""
    values = np.random.default_rng(0).random((8, 8, 12))
    steps = np.diag([1, 1, 0.5, 1])
    steps[2, 3] = -1.5
    grids = []
    for error in (0, 1e-7, -1e-7):
        affine = np.eye(4)
        affine[:3, :3] = expm(np.cross(np.eye(3), [angle, 0, angle])) * [1, 1, 2 * (1 + error)]
        grids.append(Grid(values.shape, affine))
    target = Grid((8, 8, 30), grids[0].affine @ steps)
    found = [resample(values, grid, target, -5.0) for grid in grids]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-4)
    covered = (found[0] != -5).any(axis=(0, 1))
    assert covered.tolist() == [2 <= k <= 26 for k in range(30)]
    np.testing.assert_allclose(found[0][:, :, 2], values[:, :, 0], atol=1e-4)


@properties
@given(grids())
def test_written_scans_are_where_nibabel_reads_them(grid):
    values = np.random.default_rng(0).random(grid.size).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        write_scan(f"{folder}/x.nii", values, grid.affine.ravel())
        found = nib.load(f"{folder}/x.nii")
        np.testing.assert_allclose(found.affine, grid.affine, atol=1e-4)
        assert np.array_equal(found.get_fdata(dtype=np.float32), values)
        again = read_scan(Path(folder) / "x.nii", "x")
    np.testing.assert_allclose(again.grid.affine, grid.affine, atol=1e-4)


@properties
@given(grids())
def test_centroid_is_the_mean_world_position_of_the_mask(grid):
    mask = np.random.default_rng(0).random(grid.size) > 0.7
    mask[0, 0, 0] = True
    expected = nib.affines.apply_affine(grid.affine, np.argwhere(mask)).mean(axis=0)
    np.testing.assert_allclose(centroid(mask, grid), expected, atol=1e-8)


@properties
@given(st.integers(2, 40), st.integers(2, 40), st.integers(2, 24), st.integers(2, 24))
def test_fitting_shows_the_whole_picture_in_proportion(height, width, rows, columns):
    picture = Grid.of_indices((height, width))
    target = fit_grid(picture, (rows, columns))
    np.testing.assert_allclose(target.center, picture.center, atol=1e-9)
    assert target.spacing[0] == pytest.approx(target.spacing[1])
    extent = np.array(target.size) * target.spacing
    assert (extent >= np.array(picture.size) - 1e-9).all()
    assert np.isclose(extent, picture.size).any()
    # A flat picture stays flat, and what lies beyond it is background.
    flat = rescale(np.full(picture.size, 9.0), picture, target, background=2.0)
    index = target.to_world(np.moveaxis(np.indices(target.size), 0, -1))
    inside = ((index > -0.49) & (index < np.array(picture.size) - 0.51)).all(-1)
    np.testing.assert_allclose(flat[inside], 9.0)
    beyond = ((index < -0.51) | (index > np.array(picture.size) - 0.49)).any(-1)
    np.testing.assert_allclose(flat[beyond], 2.0)


def test_shrinking_smooths_by_the_published_width_then_interpolates():
    picture = np.random.default_rng(0).random((42, 35))
    source = Grid.of_indices(picture.shape)
    target = fit_grid(source, (12, 10))
    sigma = np.sqrt(3.5**2 - 1) / 2.354820045
    smooth = ndi.gaussian_filter(np.pad(picture, 30), sigma, truncate=12)
    weight = ndi.gaussian_filter(np.pad(np.ones_like(picture), 30), sigma, truncate=12)
    smooth = (smooth / np.maximum(weight, 1e-12))[30:-30, 30:-30]
    where = np.moveaxis(target.to_world(np.moveaxis(np.indices(target.size), 0, -1)), -1, 0)
    expected = ndi.map_coordinates(smooth, where, order=1, mode="nearest")
    np.testing.assert_allclose(rescale(picture, source, target, 0.0), expected, atol=1e-6)
    # A checkerboard, the finest pattern there is, becomes grey and not a coarser pattern.
    board = np.indices((64, 64)).sum(0) % 2 * 100.0
    source = Grid.of_indices(board.shape)
    shrunk = rescale(board, source, fit_grid(source, (20, 20)), 0.0)
    assert np.abs(shrunk - 50).max() < 3


@pytest.mark.parametrize("shape", [(7, 5), (6, 6, 6)])
def test_a_picture_of_the_right_size_is_copied(shape):
    picture = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    grid = Grid.of_indices(shape)
    assert np.array_equal(rescale(picture, grid, fit_grid(grid, shape), 0.0), picture)
    padded = fit_grid(grid, tuple(n + 4 for n in shape[:1]) + shape[1:])
    assert np.array_equal(rescale(picture, grid, padded, 0.0)[2:-2], picture)


def test_foreground_is_the_bright_class():
    image = np.random.default_rng(0).normal(10, 1, (20, 20, 20))
    image[5:9, 5:9, 5:9] += 100
    assert np.array_equal(foreground(image), image > 50)


def test_boxes_that_do_not_meet_are_distinct():
    here = Grid((10, 10, 10), np.eye(4))
    far = Grid((5, 5, 5), np.eye(4))
    far.affine[:3, 3] = 30
    assert overlaps(here, here)
    assert not overlaps(here, far)
