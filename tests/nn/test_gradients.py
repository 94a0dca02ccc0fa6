"""Histograms of oriented gradients: against a loop over voxels, and what must not change them."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from vitaepp.experiments.gradients import oriented_gradients
from vitaepp.nn import gradients
from vitaepp.nn.gradients import directions, histograms


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("shape", "grid"), [((16, 32), (4, 8)), ((4, 12, 16), (1, 3, 4))])
def test_histograms_agree_with_a_loop_over_voxels(shape, grid):
    image = random(1, 2, *shape)
    ndim, axes = len(shape), directions(len(shape)).numpy()
    made = histograms(image).numpy()
    assert made.shape == (1, 2, {2: 9, 3: 13}[ndim], *grid)
    slopes = [ndimage.sobel(image[0, 1].numpy(), axis=a, mode="nearest") for a in range(ndim)]
    slopes = np.stack(slopes, -1) / {2: 8, 3: 32}[ndim]
    wanted = np.zeros(made.shape[2:])
    for voxel in itertools.product(*map(range, shape)):
        cell = tuple(v * c // n for v, c, n in zip(voxel, grid, shape, strict=True))
        slope = slopes[voxel]
        wanted[(np.argmax(np.abs(axes @ slope)), *cell)] += np.linalg.norm(slope)
    wanted /= np.linalg.norm(wanted, axis=0)
    assert np.allclose(made[0, 1], wanted, atol=1e-3)


@pytest.mark.parametrize("ndim", [2, 3])
def test_directions_are_apart_and_none_is_the_opposite_of_another(ndim):
    axes = directions(ndim)
    assert torch.allclose(axes.norm(dim=1), torch.ones(len(axes)))
    between = (axes @ axes.T).abs().fill_diagonal_(0)
    assert between.max() < 0.95


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_nearest_direction_is_that_of_the_largest_projection(ndim):
    image = random(2, 1, *(12,) * ndim)
    projected = torch.stack(gradients.sobel(image), dim=-1) @ directions(ndim).T
    length, nearest = gradients.oriented(image)
    assert torch.equal(nearest.long(), projected.abs().argmax(dim=-1))
    assert torch.allclose(length, torch.stack(gradients.sobel(image)).norm(dim=0))


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_ramp_has_the_direction_of_its_slope(ndim):
    axes = directions(ndim)
    grid = torch.stack(torch.meshgrid(*[torch.arange(8.0)] * ndim, indexing="ij"), -1)
    for k, axis in enumerate(axes):
        ramp = (grid @ axis)[None, None]
        inner = histograms(ramp)[(0, 0, slice(None), *(slice(1, -1),) * ndim)]
        assert (inner.argmax(dim=0) == k).all()


def test_brightness_contrast_and_bright_for_dark_change_nothing():
    # Whole numbers have edges exactly along the axes, halfway between two directions.
    for image in (random(1, 1, 16, 16), torch.round(3 * random(1, 1, 16, 16))):
        same = histograms(image)
        for other in (image + 3, -image, 5 * image, 1.1 * image - 0.3):
            assert torch.allclose(histograms(other), same, atol=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_flat_border_does_not_spoil_the_derivative_of_an_image(ndim):
    image = random(1, 1, *(16,) * ndim)
    image[:, :, :6] = 0
    plain = histograms(image)
    image.requires_grad_()
    found = histograms(image)
    assert torch.equal(found.detach(), plain)
    (weights,) = torch.autograd.grad((found * random(*found.shape)).sum(), image)
    assert weights.isfinite().all()
    assert weights[:, :, 8:].abs().max() > 0


def test_flat_images_and_missing_channels_are_zeros(make_store):
    assert (histograms(torch.ones(1, 1, 16, 16, 16)) == 0).all()
    store = make_store(subjects=4, size=(16, 16, 16), modalities=("t1", "t2"))
    store.table["modality_present"] = [[True, True], [True, False]] * 2
    features = oriented_gradients(store)
    assert features.shape == (4, 2 * 13 * 64)
    assert np.isfinite(features).all()
    t1, t2 = features[:, : 13 * 64], features[:, 13 * 64 :]
    assert (np.abs(t1).sum(axis=1) > 0).all()
    assert (np.abs(t2).sum(axis=1) > 0).tolist() == [True, False, True, False]
