"""Views: what each does to known images, and that every sample has its own draws."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from vitaepp.errors import RecipeError
from vitaepp.methods.base import augmented_view
from vitaepp.recipe.recipe import Recipe
from vitaepp.recipe.sections import AugmentationSettings, ViewSettings
from vitaepp.views import draws
from vitaepp.views.draws import Draws
from vitaepp.views.transforms import (
    adjust_gamma,
    channel_moments,
    crop_sides,
    flipped_axes,
    random_view,
    resample,
    rotation_matrix,
    standardize,
)

QUIET = ("crop=1", "flip=none", "rotation=0", "scale=0", "log_gamma=0", "noise=0")


def still(**settings):
    """A view that is the image, but for what is set."""
    none = {"crop": 1, "flip": "none", "rotation": 0, "scale": 0, "log_gamma": 0, "noise": 0}
    return AugmentationSettings(**(none | settings))


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


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("space", [(20, 16), (12, 20, 16)])
def test_crop_flip_and_rotation_in_one_resampling_agree_with_scipy(space, turned):
    ndim = len(space)
    images = random(2, 2, *space)
    images = torch.from_numpy(ndimage.gaussian_filter(images.numpy(), (0, 0, *(1.5,) * ndim)))
    steps = torch.tensor([[0.8, -0.6, 1.05][:ndim], [1.0] * ndim])
    centres = torch.tensor([[0.1, -0.15, 0.0][:ndim], [0.0] * ndim])
    radians, rotation = None, np.eye(ndim)
    if turned:
        turns = 1 if ndim == 2 else 3
        radians = torch.tensor([[0.17] * turns, [0.0] * turns])
        radians[0, 0] = -0.1
        rotation = rotation_matrix(radians)[0].numpy()
    out = resample(images, steps, centres, radians)
    assert torch.allclose(out[1], images[1], atol=1e-5)
    matrix = rotation.T @ np.diag(steps[0].numpy())
    middle = (np.array(space) - 1) / 2
    offset = middle + centres[0].numpy() * space - matrix @ middle
    for channel in range(2):
        wanted = ndimage.affine_transform(
            images[0, channel].numpy(), matrix, offset, order=1, mode="grid-constant"
        )
        assert np.allclose(out[0, channel].numpy(), wanted, atol=2e-4)


@pytest.mark.parametrize("space", [(9, 8), (5, 6, 7)])
def test_a_view_that_is_only_mirrored_is_one_of_the_mirrored_images(space):
    axes = range(len(space))
    image = random(1, 1, *space).expand(32, 1, *[-1] * len(space)).contiguous()
    flip = tuple(axes) if len(space) == 2 else "all"
    views = random_view(image, Draws(0, 0, range(32)), still(flip=flip))
    mirrored = {
        chosen: image[0].flip([1 + axis for axis in chosen])
        for count in range(len(space) + 1)
        for chosen in combinations(axes, count)
    }
    found = {
        chosen for view in views for chosen, wanted in mirrored.items() if torch.equal(view, wanted)
    }
    assert found == set(mirrored)
    # Beside a crop that takes everything, the same by interpolation.
    again = random_view(image, Draws(0, 0, range(32)), still(flip=flip, scale=1e-9))
    assert torch.allclose(again, views, atol=1e-5)


def test_left_and_right_are_mirrored_by_default_and_other_axes_on_request():
    for space, axis in (((8, 8), 1), ((6, 6, 6), 0)):
        ramp = torch.arange(float(space[axis])) / space[axis]
        shape = [-1 if a == axis else 1 for a in range(len(space))]
        image = ramp.view(1, 1, *shape).expand(16, 1, *space).contiguous()
        views = random_view(image, Draws(0, 0, range(16)), still(flip="sides"))
        mirrored = [torch.equal(view, image[0].flip(1 + axis)) for view in views]
        assert 2 < sum(mirrored) < 14
        assert torch.equal(random_view(image, Draws(0, 0, range(16)), still()), image)
    with pytest.raises(RecipeError, match="flip=2, but the images have axes 0 to 1"):
        flipped_axes((2,), 2)


@pytest.mark.parametrize("ndim", [2, 3])
def test_crops_have_the_volume_and_the_sides_that_are_asked_for(ndim):
    sides = crop_sides(random(500, 1), random(500, ndim), (0.2, 0.5), 4 / 3)
    volumes = sides.prod(dim=1)
    assert 0.19 < volumes.min() < 0.22
    assert 0.48 < volumes.max() < 0.51
    longest, shortest = sides.amax(dim=1), sides.amin(dim=1)
    assert 1.2 < (longest / shortest).max() < 4 / 3 + 1e-4
    assert (crop_sides(random(9, 1), random(9, ndim), (1.0, 1.0), 1.0) == 1).all()
    assert crop_sides(random(99, 1), random(99, ndim), (0.9, 1.0), 2.0).max() <= 1


@pytest.mark.parametrize("space", [(32, 32), (16, 16, 16)])
def test_a_crop_shows_a_part_of_the_image_enlarged(space):
    """Of a ramp, a crop is a ramp within it, as much less steep as it is smaller."""
    ramp = (torch.arange(float(space[0])) / space[0]).view(1, 1, -1, *(1,) * (len(space) - 1))
    image = ramp.expand(40, 1, *space).contiguous()
    views = random_view(image, Draws(0, 0, range(40)), still(crop=(0.3, 0.9), aspect=1.0))
    inner = views[:, 0, 1:-1].flatten(2)[..., 0]
    slopes = inner.diff(dim=1)
    assert torch.allclose(slopes, slopes[:, :1].expand_as(slopes), atol=1e-5)
    volumes = (slopes[:, 0] * space[0]) ** len(space)
    assert 0.29 < volumes.min() < 0.45
    assert 0.75 < volumes.max() < 0.91
    assert inner.min() >= 0
    assert inner.max() <= 1


def test_rotations_are_rotations():
    matrix = rotation_matrix(random(5, 3) - 0.5)
    assert torch.allclose(matrix @ matrix.transpose(1, 2), torch.eye(3).expand(5, 3, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.det(matrix), torch.ones(5), atol=1e-6)


@pytest.mark.parametrize("space", [(16, 16), (16, 16, 16)])
def test_every_sample_has_its_own_draws_wherever_it_stands(space):
    image = random(1, 2, *space).expand(4, -1, *space[:0], *(-1,) * len(space)).contiguous()
    settings = AugmentationSettings()
    views = random_view(image, Draws(7, 3, [10, 11, 12, 13]), settings)
    assert not torch.allclose(views[0], views[1])
    part = random_view(image[:2], Draws(7, 3, [12, 10]), settings)
    assert torch.allclose(part[0], views[2], atol=1e-6)
    assert torch.allclose(part[1], views[0], atol=1e-6)
    other = random_view(image, Draws(7, 4, [10, 11, 12, 13]), settings)
    assert not torch.allclose(other[0], views[0])


def test_views_without_strength_are_the_image():
    image = random(2, 1, 8, 8, 8)
    assert random_view(image, Draws(0, 0, [0, 1]), still()) is image


def test_noise_has_a_deviation_within_its_range():
    image = torch.full((64, 1, 16, 16), 0.5)
    noisy = random_view(image, Draws(0, 0, range(64)), still(noise=0.1))
    deviation = (noisy - 0.5).flatten(1).std(1)
    assert deviation.max() < 0.11
    assert deviation.min() < 0.01
    assert deviation.mean() == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(
    "setting", ["crop=0.5", "flip=all", "rotation=10", "scale=0.1", "log_gamma=0.3", "noise=0.1"]
)
@pytest.mark.parametrize("which", ["first", "second"])
def test_each_view_is_augmented_as_it_is_set_and_the_other_is_not(which, setting):
    quiet = [f"views.{w}.{s}" for w in ("first", "second") for s in QUIET]
    views = Recipe.load(settings=[*quiet, f"views.{which}.{setting}"]).views
    image = random(4, 1, 12, 12, 12)
    other = {"first": "second", "second": "first"}[which]
    rows = range(4)
    changed = augmented_view(image, Draws(0, 0, rows), views, which, None)
    unchanged = augmented_view(image, Draws(0, 0, rows), views, other, None)
    assert torch.equal(unchanged, standardize(image))
    assert not torch.allclose(changed, unchanged, atol=1e-2)


def test_both_views_are_augmented_by_default():
    image, views = random(4, 1, 16, 16), ViewSettings()
    for which in ("first", "second"):
        view = augmented_view(image, Draws(0, 0, range(4)), views, which, None)
        usual = standardize(image)
        assert not any(torch.allclose(view[i], usual[i], atol=0.1) for i in range(4))


def test_the_views_of_a_run_of_an_older_version_are_what_they_were():
    old = {"normalize": "foreground", "log_gamma": 0.2, "rotation": 5, "scale": 0.0, "noise": 0.3}
    views = Recipe.parse({"views": old | {"modality_dropout": 0.0}}).views
    image = random(2, 1, 8, 8)
    assert random_view(image, Draws(0, 0, [0, 1]), views.first) is image
    assert views.normalize == "foreground"
    assert views.second == still(log_gamma=0.2, rotation=5, noise=0.3)
    with pytest.raises(RecipeError, match=r"views\.first\.rotation"):
        Recipe.load(settings="views.rotation=3")


def test_moments_are_numpys_also_of_a_large_flat_image():
    images = 0.5 + 1e-3 * torch.rand(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = channel_moments(images)
    expected = images.double().numpy()
    assert mean.item() == pytest.approx(expected.mean(), rel=1e-6)
    assert std.item() == pytest.approx(expected.std(), rel=1e-4)


def test_hashed_numbers_are_splitmix_and_normal():
    """Published numbers of SplitMix64 for the seed 1234567; then what they become."""
    state = torch.tensor([1234567])
    found = [draws._mixed(state + draws._wrapped(i * draws._GOLDEN)).item() for i in (1, 2)]
    assert [value % 2**64 for value in found] == [6457827717110365317, 3203168211198807973]
    seeds = torch.tensor([draws.sample_seed(0, 0, i) for i in range(8)])
    like = torch.empty(8, 2, 64, 64)
    numbers = draws.hashed_normal(seeds, 1, like)
    assert numbers.shape == like.shape
    for row in (*numbers.flatten(1), numbers[:, :, 5].flatten()):
        assert stats.kstest(row.numpy(), "norm").pvalue > 1e-3
    others = [draws.hashed_normal(seeds, 2, like), numbers.flip(0), numbers.roll(1, -1)]
    for other in others:  # fields, samples and places have nothing to do with each other
        assert abs((numbers * other).mean()) < 5 / numbers.numel() ** 0.5
    assert torch.equal(draws.hashed_normal(seeds[3:5], 1, like[3:5]), numbers[3:5])
