"""Properties of the losses, and independent references."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from vitaepp.errors import RecipeError
from vitaepp.losses import perceptual as perceptual_module
from vitaepp.losses.contrastive import contrastive_loss, feature_spread
from vitaepp.losses.edge import edge_loss, gaussian_blur, gradient_magnitude
from vitaepp.losses.perceptual import (
    PerceptualLoss,
    channels_in_turn,
    feature_distance,
    spread_slices,
    take_images,
)
from vitaepp.losses.reconstruction import patch_moments, reconstruction_loss
from vitaepp.nn.gradients import sobel
from vitaepp.nn.vgg import VGG16


@pytest.fixture(scope="module")
def vgg():
    return VGG16("random")


def random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("ndim", [2, 3])
def test_gradients_of_a_ramp_are_its_slope_in_every_axis(ndim):
    slopes = torch.tensor([2.0, -3.0, 0.5][:ndim])
    axes = torch.meshgrid(*(torch.arange(7.0) for _ in range(ndim)), indexing="ij")
    ramp = sum(s * a for s, a in zip(slopes, axes, strict=True))[None, None]
    inside = (0, 0, *(slice(1, -1),) * ndim)
    for derivative, slope in zip(sobel(ramp), slopes, strict=True):
        assert torch.allclose(derivative[inside], slope.expand(5), atol=1e-5)
    length = gradient_magnitude(ramp, eps=0.0)[inside]
    assert torch.allclose(length, slopes.square().sum().sqrt().expand(5), atol=1e-5)


@pytest.mark.parametrize("shape", [(9, 7), (6, 9, 7)])
def test_sobel_agrees_with_scipy(shape):
    image = random(2, 3, *shape)
    norm = {2: 8, 3: 32}[len(shape)]
    for axis, derivative in enumerate(sobel(image)):
        for b in range(2):
            for c in range(3):
                wanted = ndimage.sobel(image[b, c].numpy(), axis=axis, mode="nearest") / norm
                assert np.allclose(derivative[b, c], wanted, atol=1e-6)


@pytest.mark.parametrize("shape", [(30, 25), (30, 25, 28)])
def test_blur_agrees_with_scipy(shape):
    image = random(1, 2, *shape)
    wanted = ndimage.gaussian_filter(image[0, 1].numpy(), 2.0, mode="nearest", truncate=4.0)
    assert np.allclose(gaussian_blur(image, 2.0)[0, 1], wanted, atol=1e-5)


def test_a_perfect_reconstruction_has_no_loss(vgg):
    image = random(2, 1, 16, 16, 16)
    patches = random(2, 8, 64)
    perceptual = PerceptualLoss(vgg, slices="all")
    assert edge_loss(image, image) == 0
    assert perceptual(image, image, random(2, 2)) == 0
    assert reconstruction_loss(patches, patches) == 0
    assert reconstruction_loss(patches, patches, torch.tensor([[1, 2], [0, 7]])) == 0


def test_only_the_chosen_patches_count():
    patches = random(2, 8, 64)
    wrong = patches.clone()
    chosen = torch.tensor([[1, 2], [0, 7]])
    wrong[0, 3] += 100
    assert reconstruction_loss(wrong, patches, chosen) == 0
    wrong[0, 1] += 2
    assert reconstruction_loss(wrong, patches, chosen) == pytest.approx(4 / 4, rel=1e-5)


def test_normalised_targets_have_unit_moments():
    patches = 5 + 3 * random(2, 8, 64)
    mean, deviation = patch_moments(patches)
    target = (patches - mean) / deviation
    assert target.mean(-1).abs().max() < 1e-5
    assert (target.var(-1) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("space", [(16, 16), (16, 16, 16)])
def test_gradients_are_finite_on_constant_images_and_reach_the_prediction(vgg, space):
    perceptual = PerceptualLoss(vgg, slices=2)
    draws = random(2, perceptual.draws_needed((1, *space)))
    for target in (torch.zeros(2, 1, *space), torch.full((2, 1, *space), 7.0)):
        for start in (torch.zeros_like(target), random(*target.shape)):
            for loss in (edge_loss, lambda p, t: perceptual(p, t, draws)):
                prediction = start.clone().requires_grad_()
                value = loss(prediction, target)
                value.backward()
                assert value.isfinite()
                assert prediction.grad.isfinite().all()
                if start.abs().sum() > 0:
                    assert prediction.grad.abs().sum() > 0


@pytest.mark.parametrize(("axis", "channels"), [(2, "all"), (0, 1), ("any", None)])
def test_sampled_slices_estimate_the_mean_over_all_without_bias(vgg, axis, channels):
    target, prediction = random(1, 2, 16, 16, 16), random(1, 2, 16, 16, 16).flip(2)
    ramp = torch.linspace(0, 1, 16)
    prediction[:, 1] *= 0.5  # channels differ, too
    prediction = prediction * ramp.view(1, 1, 1, 1, 16) + target * ramp.view(1, 1, 16, 1, 1)
    whole = PerceptualLoss(vgg, slices="all", axis=axis)
    sampled = PerceptualLoss(vgg, slices=2, axis=axis, channels=channels)
    generator = torch.Generator().manual_seed(1)
    needed = sampled.draws_needed((2, 16, 16, 16))
    with torch.no_grad():
        wanted = whole(prediction, target, torch.rand(1, needed, generator=generator))
        values = torch.stack(
            [
                sampled(prediction, target, torch.rand(1, needed, generator=generator))
                for _ in range(30)
            ]
        )
    error = values.std() / len(values) ** 0.5
    assert values.std() > 0
    assert abs(values.mean() - wanted) < 4 * error


@given(st.integers(1, 40), st.integers(1, 40))
def test_every_slice_is_as_likely_as_any_other_and_none_comes_twice(size, count):
    count = min(size, count)
    starts = (torch.arange(size * 8) + 0.5) / (size * 8)  # evenly over [0, 1)
    slices = spread_slices(count, size, starts)
    assert all(len(set(row)) == count for row in slices.tolist())
    times = torch.bincount(slices.flatten(), minlength=size)
    assert len(times) == size
    # Of starts on a grid, a slice meets a whole number.
    assert (times - 8 * count).abs().max() <= 1


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**16))
def test_channels_take_turns_among_those_that_are_there(count, slices, seed):
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(5, 4, generator=generator) < 0.6
    present[~present.any(dim=1), 2] = True
    draws = torch.rand(5, 4, generator=generator)
    channels, counted = channels_in_turn(count, slices, draws, present)
    for i in range(5):
        own = set(present[i].nonzero().flatten().tolist())
        assert counted[i].sum(dim=1).tolist() == [min(count, len(own))] * slices
        looks = [channels[i, k][counted[i, k]].tolist() for k in range(slices)]
        assert all(len(set(seen)) == len(seen) for seen in looks)
        every = [channel for seen in looks for channel in seen]
        assert set(every) <= own
        if count <= len(own):  # as often as each other, as far as that is possible
            times = [every.count(channel) for channel in own]
            assert max(times) - min(times) <= 1


def test_a_default_share_of_slices_with_one_channel_each(vgg, monkeypatch):
    looked = []

    def record(vgg, seen, wanted, weights, relative):
        looked.append(tuple(seen.shape))
        assert weights.sum() == pytest.approx(1)
        return seen.mean()

    monkeypatch.setattr(perceptual_module, "feature_distance", record)
    loss = PerceptualLoss(vgg)
    for space in ((16, 16, 96), (16, 16, 8), (16, 16)):
        volume = random(2, 3, *space)
        loss(volume, volume, random(2, loss.draws_needed((3, *space))))
    assert looked == [(2 * 4, 1, 16, 16), (2, 1, 16, 16), (2 * 3, 1, 16, 16)]


def test_each_sample_and_slice_has_its_own_channels():
    volumes = torch.arange(2.0 * 3 * 4 * 5 * 6).view(2, 3, 4, 5, 6)
    slices = torch.tensor([[0, 3], [2, 1]])
    channels = torch.tensor([[[0], [2]], [[1], [1]]])
    images = take_images(volumes, slices, channels, 0)
    assert images.shape == (2, 2, 1, 5, 6)
    assert torch.equal(images[0, 1, 0], volumes[0, 2, 3])
    assert torch.equal(images[1, 0, 0], volumes[1, 1, 2])
    assert torch.equal(take_images(volumes, slices, channels, 2)[1, 0, 0], volumes[1, 1, ..., 2])


@pytest.mark.parametrize("pixels", [1, 3 * 16 * 16, 2**18])
@pytest.mark.parametrize("channels", [1, 3])
def test_distance_and_gradient_are_those_of_plain_autograd_in_any_portions(
    monkeypatch, pixels, channels
):
    network = VGG16("random").double()
    seen = random(5, channels, 16, 16).double().requires_grad_()
    wanted, weights = random(5, channels, 16, 16).double().flip(2), random(5).double()
    levels = zip(network.levels(seen), network.levels(wanted), strict=True)
    each = torch.stack([(a - b).square().flatten(1).mean(dim=1) for a, b in levels]).mean(dim=0)
    expected = (each * weights).sum()
    monkeypatch.setattr(perceptual_module, "PIXELS", pixels)
    found = feature_distance(network, seen, wanted, weights)
    assert torch.allclose(found, expected, rtol=1e-12)
    assert torch.allclose(*(torch.autograd.grad(3 * x, seen)[0] for x in (found, expected)))
    with torch.no_grad():
        assert torch.equal(feature_distance(network, seen, wanted, weights), found)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_the_gradient_of_the_distance_survives_half_precision(vgg, half):
    seen, wanted = random(2, 1, 32, 32).requires_grad_(), random(2, 1, 32, 32).flip(2)
    weights = torch.full((2,), 1e-6)  # a gradient far below what float16 can hold
    (expected,) = torch.autograd.grad(feature_distance(vgg, seen, wanted, weights), seen)
    with torch.autocast("cpu", half):
        found = feature_distance(vgg, seen, wanted, weights)
    (gradient,) = torch.autograd.grad(found, seen)
    assert gradient.dtype == torch.float32
    alike = torch.nn.functional.cosine_similarity(
        gradient.flatten() / gradient.norm(), expected.flatten() / expected.norm(), dim=0
    )
    assert alike > 0.99
    assert gradient.norm() == pytest.approx(expected.norm().item(), rel=0.02)


@pytest.mark.parametrize("relative", [False, True])
def test_each_level_may_be_relative_to_its_own_mean_square(vgg, relative):
    """Against NumPy, for what VGG sees: a channel's own range scaled to [0, 1]."""
    target, prediction = 50 * random(3, 1, 16, 16), 50 * random(3, 1, 16, 16).flip(2)
    loss = PerceptualLoss(vgg, relative=relative)
    found = loss(prediction, target, random(3, 2))
    expected = []
    for seen, wanted in zip(prediction.numpy(), target.numpy(), strict=True):
        low, high = wanted.min(), wanted.max()
        a, b = ((x - low) / (high - low) for x in (seen, wanted))
        levels = (vgg.levels(torch.from_numpy(x)[None]) for x in (a, b))
        for mine, theirs in zip(*([x.numpy() for x in xs] for xs in levels), strict=True):
            error = np.mean((mine - theirs) ** 2)
            expected.append(error / np.mean(theirs**2) if relative else error)
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-4)
    if relative:  # the scale of the weights plays no part
        louder = VGG16("random")
        for convolution in louder.features.values():
            convolution.weight.data *= 3
        again = PerceptualLoss(louder, relative=True)(prediction, target, random(3, 2))
        assert torch.allclose(again, found, rtol=1e-4)


def test_a_sample_of_pictures_estimates_the_mean_over_the_batch(vgg):
    target, prediction = random(6, 1, 8, 8), random(6, 1, 8, 8).flip(2)
    prediction *= torch.linspace(0, 1, 6).view(6, 1, 1, 1)
    whole = PerceptualLoss(vgg, images="all")(prediction, target, random(6, 2))
    sampled = PerceptualLoss(vgg, images=2)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        values = torch.stack(
            [sampled(prediction, target, torch.rand(6, 2, generator=generator)) for _ in range(60)]
        )
    assert values.std() > 0
    assert abs(values.mean() - whole) < 4 * values.std() / 60**0.5


def test_how_many_images_are_looked_at(vgg):
    usual, asked = PerceptualLoss(vgg), PerceptualLoss(vgg, images=3)
    assert [usual.looked_at(n, 2) for n in (4, 16, 64, 256)] == [4, 16, 16, 32]
    assert [usual.looked_at(n, 3) for n in (4, 64)] == [4, 64]
    assert [asked.looked_at(n, 3) for n in (2, 64)] == [2, 3]
    volume = random(4, 1, 8, 8, 8)
    needed = asked.draws_needed((1, 8, 8, 8))
    assert asked(volume, volume.flip(2), random(4, needed)) > 0


def test_the_perceptual_loss_does_not_depend_on_the_unit(vgg):
    loss = PerceptualLoss(vgg)
    a, b, draws = random(2, 1, 16, 16), random(2, 1, 16, 16).flip(2), random(2, 2)
    scaled = loss(30 * a - 8, 30 * b - 8, draws)
    assert torch.allclose(loss(a, b, draws), scaled, rtol=1e-3)


def test_an_rgb_image_is_one_image(vgg):
    a, b, draws = random(1, 3, 16, 16), random(1, 3, 16, 16).flip(2), random(1, 4)
    together = PerceptualLoss(vgg, rgb=True)(a, b, draws)
    apart = PerceptualLoss(vgg)(a, b, draws)
    assert not torch.allclose(together, apart, rtol=1e-3)


def test_slices_too_small_for_vgg_are_refused(vgg):
    with pytest.raises(RecipeError, match="at least 8×8"):
        PerceptualLoss(vgg).check((16, 4, 16))
    PerceptualLoss(vgg, axis=1).check((16, 4, 16))
    with pytest.raises(RecipeError, match="4×16"):
        PerceptualLoss(vgg, axis="any").check((16, 4, 16))


def test_contrastive_loss_is_the_symmetric_cosine():
    rng = np.random.default_rng(0)
    p1, p2, z1, z2 = rng.normal(size=(4, 5, 8)).astype(np.float32)

    def cosine(a, b):
        return np.mean((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))

    wanted = -(cosine(p1, z2) + cosine(p2, z1)) / 2
    t = [torch.from_numpy(x) for x in (p1, p2, z1, z2)]
    assert contrastive_loss((t[0], t[1]), (t[2], t[3])) == pytest.approx(wanted, abs=1e-6)


def test_no_gradient_flows_through_the_stop_gradient():
    p1, p2, z1, z2 = random(4, 3, 8).clone().requires_grad_().unbind()
    for x in (p1, p2, z1, z2):
        x.retain_grad()
    contrastive_loss((p1, p2), (z1, z2)).backward()
    assert p1.grad.abs().sum() > 0
    assert p2.grad.abs().sum() > 0
    assert z1.grad is None
    assert z2.grad is None


def test_feature_spread_tells_collapse():
    assert feature_spread(torch.ones(8, 64)) == pytest.approx(0, abs=1e-6)
    spread = torch.randn(512, 64, generator=torch.Generator().manual_seed(0))
    assert feature_spread(spread) == pytest.approx(1, abs=0.05)
    assert feature_spread(spread[:1]).isnan()  # one image has no spread, and has not collapsed
