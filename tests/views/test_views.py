"""Views: what each does to known images, and that every sample has its own draws."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from vitaepp.recipe.sections import ViewSettings
from vitaepp.views.draws import Draws
from vitaepp.views.transforms import (
    adjust_gamma,
    affine,
    channel_moments,
    random_view,
    rotation_matrix,
    standardize,
)


def random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("over", ["crop", "foreground"])
def test_standardised_channels_have_unit_moments(over):
    images = 30 + 200 * random(2, 3, 8, 8, 8)
    z = standardize(images, over).flatten(2)
    assert z.mean(2).abs().max() < 1e-4
    assert (z.std(2, correction=0) - 1).abs().max() < 1e-4


def test_foreground_statistics_ignore_the_background():
    images = random(1, 1, 8, 8) + 1
    images[..., :4] = 0
    z = standardize(images, "foreground")
    assert z[..., 4:].mean().abs() < 1e-5
    assert z[..., 4:].std(correction=0) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("over", ["crop", "foreground"])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 255.0])
def test_constant_images_and_masks_stay_finite(over, value):
    constant = torch.full((1, 1, 8, 8, 8), value)
    assert torch.equal(standardize(constant, over), torch.zeros_like(constant))
    mask = constant.clone()
    mask[..., :3] = 0
    z = standardize(mask, over)
    assert z.abs().max() < 10


def test_gamma_keeps_black_and_white_and_orders_the_rest():
    images = torch.tensor([0.0, 0.25, 1.0]).view(1, 1, 1, 3).repeat(2, 1, 1, 1)
    out = adjust_gamma(images, torch.tensor([np.log(2.0), 0.0], dtype=torch.float32))
    assert torch.allclose(out[0].flatten(), torch.tensor([0.0, 0.0625, 1.0]))
    assert torch.allclose(out[1], images[1])


@pytest.mark.parametrize("space", [(20, 16), (12, 20, 16)])
def test_affine_agrees_with_scipy(space):
    ndim = len(space)
    images = random(2, 1, *space)
    images = torch.from_numpy(ndimage.gaussian_filter(images.numpy(), (0, 0, *(1.5,) * ndim)))
    turns = 1 if ndim == 2 else 3
    radians = torch.tensor([[0.17] * turns, [0.0] * turns])
    radians[0, 0] = -0.1
    scales = torch.tensor([[1.1, 0.9, 1.05][:ndim], [1.0] * ndim])
    out = affine(images, radians, scales)
    assert torch.allclose(out[1], images[1], atol=1e-5)
    matrix = (rotation_matrix(radians)[0] * scales[0]).numpy()
    inverse = np.linalg.inv(matrix)
    centre = (np.array(space) - 1) / 2
    wanted = ndimage.affine_transform(
        images[0, 0].numpy(), inverse, centre - inverse @ centre, order=1, mode="grid-constant"
    )
    inside = (slice(3, -3),) * ndim
    assert np.allclose(out[0, 0].numpy()[inside], wanted[inside], atol=2e-4)


def test_rotations_are_rotations():
    matrix = rotation_matrix(random(5, 3) - 0.5)
    assert torch.allclose(matrix @ matrix.transpose(1, 2), torch.eye(3).expand(5, 3, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.det(matrix), torch.ones(5), atol=1e-6)


@pytest.mark.parametrize("space", [(16, 16), (16, 16, 16)])
def test_every_sample_has_its_own_draws_wherever_it_stands(space):
    image = random(1, 2, *space).expand(4, -1, *space[:0], *(-1,) * len(space)).contiguous()
    settings = ViewSettings()
    views = random_view(image, Draws(7, 3, [10, 11, 12, 13]), settings)
    assert not torch.allclose(views[0], views[1])
    part = random_view(image[:2], Draws(7, 3, [12, 10]), settings)
    assert torch.allclose(part[0], views[2], atol=1e-6)
    assert torch.allclose(part[1], views[0], atol=1e-6)
    other = random_view(image, Draws(7, 4, [10, 11, 12, 13]), settings)
    assert not torch.allclose(other[0], views[0])


def test_views_without_strength_are_the_image():
    image = random(2, 1, 8, 8, 8)
    still = ViewSettings(log_gamma=0, rotation=0, scale=0, noise=0)
    assert torch.allclose(random_view(image, Draws(0, 0, [0, 1]), still), image, atol=1e-6)


def test_noise_has_a_deviation_within_its_range():
    image = torch.full((64, 1, 16, 16), 0.5)
    noisy = random_view(
        image,
        Draws(0, 0, range(64)),
        ViewSettings(log_gamma=0, rotation=0, scale=0, noise=0.1),
    )
    deviation = (noisy - 0.5).flatten(1).std(1)
    assert deviation.max() < 0.11
    assert deviation.min() < 0.01
    assert deviation.mean() == pytest.approx(0.05, abs=0.012)


def test_moments_are_numpys_also_of_a_large_flat_image():
    images = 0.5 + 1e-3 * torch.rand(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = channel_moments(images)
    expected = images.double().numpy()
    assert mean.item() == pytest.approx(expected.mean(), rel=1e-6)
    assert std.item() == pytest.approx(expected.std(), rel=1e-4)
