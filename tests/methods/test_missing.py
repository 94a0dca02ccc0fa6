"""What an image lacks reaches nothing; what training hides from the encoder is inferred."""

import pytest
import torch

from tests.methods.test_vitaepp import images, method_of
from vitaepp.errors import RecipeError
from vitaepp.losses.edge import edge_loss
from vitaepp.losses.perceptual import PerceptualLoss
from vitaepp.losses.present import mean_over_present
from vitaepp.losses.reconstruction import patch_moments, reconstruction_loss
from vitaepp.nn.patches import patchify
from vitaepp.nn.vgg import VGG16
from vitaepp.recipe.sections import ViewSettings
from vitaepp.views.draws import Draws
from vitaepp.views.transforms import seen_modalities

PRESENT = torch.tensor([[True, False, True], [True, True, True], [False, False, True]])
SIZE = (16, 16, 16)
METHODS = ("vitae++", "vitae", "simsiam", "mocov3")


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def alone(tensor, row):
    """One sample without the channels that it lacks."""
    return tensor[row : row + 1, PRESENT[row]]


def reconstruction(prediction, target, draws, present):
    patches = (patchify(x, (8,) * (x.ndim - 2)) for x in (prediction, target))
    return reconstruction_loss(*patches, torch.tensor([[1, 3]] * len(target)), present)


def edge(prediction, target, draws, present):
    return edge_loss(prediction, target, present=present, blur=1.0)


#: Makes each loss of images, a function of (prediction, target, draws, present).
LOSSES = {
    "reconstruction": lambda: reconstruction,
    "edge": lambda: edge,
    "perceptual": lambda: PerceptualLoss(VGG16("random"), slices=2, channels="all"),
}


@pytest.mark.parametrize("space", [(16, 16), SIZE])
@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_that_of_the_present_channels_alone(name, space):
    loss = LOSSES[name]()
    prediction, target = random(3, 3, *space).requires_grad_(), random(3, 3, *space, seed=1)
    draws = random(3, 4)
    value = loss(prediction, target, draws, PRESENT)
    apart = []
    for i in range(3):
        own = draws[i : i + 1, : 1 + int(PRESENT[i].sum())]
        apart.append(loss(alone(prediction, i), alone(target, i), own, None))
    assert value.item() == pytest.approx(torch.stack(apart).mean().item(), rel=1e-5)
    value.backward()
    assert (prediction.grad[~PRESENT] == 0).all()
    assert (prediction.grad[PRESENT].flatten(1).abs().sum(1) > 0).all()
    whole = loss(prediction, target, draws, torch.ones_like(PRESENT))
    assert whole.item() == pytest.approx(loss(prediction, target, draws, None).item(), rel=1e-5)


def test_channels_of_the_perceptual_loss_are_drawn_among_those_that_are_there():
    prediction, target = random(3, 3, 16, 16), random(3, 3, 16, 16, seed=1)
    one = PerceptualLoss(VGG16("random"), channels=1)
    every = PerceptualLoss(VGG16("random"))
    chosen = set()
    for seed in range(20):
        draws = random(3, 4, seed=seed)
        value = one(prediction, target, draws, PRESENT)
        drawn = draws[:, 1:].masked_fill(~PRESENT, 2).argmin(dim=1)
        only = torch.nn.functional.one_hot(drawn, 3).bool()
        chosen |= {(i, int(c)) for i, c in enumerate(drawn)}
        wanted = every(prediction, target, draws, only)
        assert value.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert chosen == {(i, c) for i in range(3) for c in range(3) if PRESENT[i, c]}


def test_moments_of_a_patch_are_those_of_its_present_channels():
    image = random(3, 3, *SIZE)
    patches = patchify(image, (8, 8, 8))
    mean, deviation = patch_moments(patches, present=PRESENT)
    for i in range(3):
        wanted = patch_moments(patchify(alone(image, i), (8, 8, 8)))
        assert torch.allclose(mean[i : i + 1], wanted[0], atol=1e-5)
        assert torch.allclose(deviation[i : i + 1], wanted[1], atol=1e-5)
    plain = patch_moments(patches)
    for some, every in zip(patch_moments(patches, present=PRESENT | True), plain, strict=True):
        assert torch.allclose(some, every, atol=1e-6)


def test_what_is_not_finite_in_a_missing_channel_reaches_neither_loss_nor_gradient():
    errors = torch.tensor([[1.0, torch.nan], [torch.inf, 3.0]], requires_grad=True)
    value = mean_over_present(errors, torch.tensor([[True, False], [False, True]]))
    value.backward()
    assert value.item() == 2
    assert errors.grad.tolist() == [[0.5, 0.0], [0.0, 0.5]]


def step(method, batch, present, rows=(0, 1, 2)):
    method.zero_grad()
    output = method(batch, Draws(0, 0, rows), 0.25, present)
    output.loss.backward()
    gradients = [p.grad.clone() for p in method.parameters() if p.grad is not None]
    return {k: v.item() for k, v in output.terms.items()}, gradients


@pytest.mark.parametrize(
    ("normalize", "dropout"), [("crop", 0.0), ("crop", 0.5), ("foreground", 0.0)]
)
@pytest.mark.parametrize("name", METHODS)
def test_a_step_does_not_depend_on_what_stands_in_a_missing_channel(name, normalize, dropout):
    method = method_of(
        f"method={name}",
        f"views.normalize={normalize}",
        f"views.modality_dropout={dropout}",
        "loss.reconstruction.normalize_targets=true",
        channels=3,
    )
    batch = images(channels=3)
    zero, other = batch.clone(), batch.clone()
    zero[~PRESENT] = 0
    other[~PRESENT] = torch.nan
    expected, gradients = step(method, zero, PRESENT)
    found, same = step(method, other, PRESENT)
    assert found == expected
    assert all(torch.equal(a, b) for a, b in zip(gradients, same, strict=True))
    assert step(method, batch, None)[0] != expected


@pytest.mark.parametrize("name", METHODS)
def test_a_channel_that_all_lack_trains_no_weight_of_its_own(name):
    method = method_of(f"method={name}", "mocov3.freeze_patch_embed=false", channels=3)
    none_has_t2 = torch.tensor([[True, False, True]] * 3)
    step(method, images(channels=3), none_has_t2)
    gradient = method.backbone.patch_embed.proj.weight.grad
    assert (gradient[:, 1] == 0).all()
    assert gradient[:, 0].abs().max() > 0
    if name.startswith("vitae"):
        # A patch's values have the channel last.
        rows = method.backbone.decoder_pred.weight.grad.unflatten(0, (-1, 3))
        assert (rows[:, 1] == 0).all()
        assert rows[:, 2].abs().max() > 0


def test_a_sample_with_missing_channels_contributes_the_same_in_any_batch():
    method = method_of("loss.contrastive.weight=0", channels=3)
    batch = images(channels=3)
    together = method(batch, Draws(0, 0, [5, 6, 7]), 0.0, PRESENT).loss.item()
    apart = []
    for i in range(3):
        present = None if PRESENT[i].all() else PRESENT[i : i + 1]
        apart.append(method(batch[i : i + 1], Draws(0, 0, [5 + i]), 0.0, present).loss.item())
    assert together == pytest.approx(sum(apart) / 3, rel=1e-4)


def test_dropout_spares_one_modality_and_follows_the_sample_not_the_batch():
    settings = ViewSettings(modality_dropout=0.7)
    rows = list(range(400))
    present = torch.tensor([[True, True, False, True]] * 400)
    for known in (None, present):
        kept = seen_modalities(4, known, Draws(0, 0, rows), settings)
        assert kept.any(dim=1).all()
        if known is not None:
            assert not kept[~known].any()
    alone = torch.cat([seen_modalities(4, None, Draws(0, 0, [r]), settings) for r in rows])
    assert torch.equal(alone, seen_modalities(4, None, Draws(0, 0, rows), settings))
    # Each is dropped with probability 0.7, except that one of four stays: 0.7 - 0.7⁴ / 4.
    dropped = 1 - alone.float().mean().item()
    assert dropped == pytest.approx(0.7 - 0.7**4 / 4, abs=0.04)
    unchanged = Draws(0, 0, [1])
    assert seen_modalities(4, None, unchanged, ViewSettings()) is None
    assert torch.equal(unchanged.uniform(3), Draws(0, 0, [1]).uniform(3))


def test_what_dropout_hides_is_still_reconstructed():
    """With nearly certain dropout a sample shows one channel, and all of them are targets."""
    method = method_of("views.modality_dropout=0.99", "loss.contrastive.weight=0", channels=3)
    step(method, images(channels=3), None, rows=(4, 4, 4))
    rows = method.backbone.decoder_pred.weight.grad.unflatten(0, (-1, 3))
    assert (rows.abs().amax(dim=(0, 2)) > 0).all()
    seen = seen_modalities(3, None, Draws(0, 0, [4]), ViewSettings(modality_dropout=0.99))[0]
    assert seen.sum() == 1
    gradient = method.backbone.patch_embed.proj.weight.grad
    assert (gradient[:, ~seen] == 0).all()
    assert gradient[:, seen].abs().max() > 0


def test_dropout_with_nothing_to_spare_is_refused():
    with pytest.raises(RecipeError, match="one modality, which cannot be spared"):
        method_of("views.modality_dropout=0.5", channels=1)
