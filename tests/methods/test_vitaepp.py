"""The training step: every term reaches what it should, and nothing else."""

import pytest
import torch

from tests.conftest import TINY
from vitaepp.errors import RecipeError
from vitaepp.methods import build_method
from vitaepp.methods.vitaepp import edge_weight
from vitaepp.recipe.recipe import Recipe
from vitaepp.views.draws import Draws


def method_of(*settings, size=(16, 16, 16), channels=2):
    return build_method(Recipe.load(settings=(*TINY, *settings)), channels, size)


def images(size=(16, 16, 16), channels=2, batch=3):
    generator = torch.Generator().manual_seed(0)
    return 255 * torch.rand(batch, channels, *size, generator=generator)


def decoder_gradient(method, term):
    method.zero_grad()
    output = method(images(), Draws(0, 0, [0, 1, 2]), progress=0.0)
    output.weighted[term].backward()
    gradient = method.backbone.decoder_pred.weight.grad
    return torch.zeros(1) if gradient is None else gradient.clone()


@pytest.mark.parametrize("term", ["perceptual", "edge"])
def test_perceptual_and_edge_terms_change_the_gradient_of_the_decoder(term):
    gradient = decoder_gradient(method_of(), term)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    weights = {"perceptual": "loss.perceptual.weight=0", "edge": "loss.edge.weight=0"}
    total = method_of()
    total(images(), Draws(0, 0, [0, 1, 2]), 0.0).loss.backward()
    without = method_of(weights[term])
    without(images(), Draws(0, 0, [0, 1, 2]), 0.0).loss.backward()
    a, b = (m.backbone.decoder_pred.weight.grad for m in (total, without))
    assert not torch.allclose(a, b, rtol=1e-3)


def test_the_contrastive_term_trains_the_encoder_and_not_the_decoder():
    method = method_of()
    assert decoder_gradient(method, "contrastive").abs().max() == 0
    assert method.backbone.blocks[0].attn.qkv.weight.grad.abs().max() > 0
    assert method.predictor.layers[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("size", [(16, 16), (16, 24, 8)])
def test_constant_images_give_finite_losses_and_gradients(size):
    method = method_of(size=size, channels=1)
    output = method(torch.full((2, 1, *size), 9.0), Draws(0, 0, [0, 1]), 0.5)
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_the_loss_is_the_weighted_sum_and_edge_decays_to_nothing():
    recipe = Recipe.load(settings=TINY)
    assert [edge_weight(recipe, p) for p in (0.0, 0.5, 1.0)] == [10.0, 5.0, 0.0]
    flat = Recipe.load(settings=(*TINY, "loss.edge.decay=none"))
    assert edge_weight(flat, 0.9) == 10.0
    output = method_of()(images(), Draws(0, 0, [0, 1, 2]), progress=0.25)
    t = output.terms
    wanted = t["reconstruction"] + t["perceptual"] + 7.5 * t["edge"] + t["contrastive"]
    assert torch.allclose(output.loss, wanted)


def test_a_sample_contributes_the_same_in_any_batch():
    method = method_of("loss.contrastive.weight=0")
    whole = images()
    alone = [method(whole[i : i + 1], Draws(0, 0, [5 + i]), 0.0).loss.item() for i in range(3)]
    together = method(whole, Draws(0, 0, [5, 6, 7]), 0.0).loss.item()
    assert together == pytest.approx(sum(alone) / 3, rel=1e-4)


def test_rows_of_the_ablation_are_recipes():
    def terms(*settings):
        return set(method_of(*settings)(images(), Draws(0, 0, [0, 1, 2]), 0.0).terms)

    assert terms("method=vitae") == {"reconstruction"}
    assert terms("method=vitae", "loss.edge.weight=10") == {"reconstruction", "edge"}
    assert terms("method=vitae", "loss.perceptual.weight=0.01") == {"reconstruction", "perceptual"}
    assert terms() == {"reconstruction", "edge", "perceptual", "contrastive"}


def test_normalised_targets_are_turned_back_before_images_are_compared():
    method = method_of("loss.reconstruction.normalize_targets=true")
    output = method(images(), Draws(0, 0, [0, 1, 2]), 0.0)
    assert output.loss.isfinite()
    # An untrained decoder predicts about 0, which is the patch's mean: the normalised error is 1.
    assert output.terms["reconstruction"].item() == pytest.approx(1, abs=0.6)


@pytest.mark.parametrize(("ratio", "what"), [(0.99, "no patch visible"), (0.0, "no patch hidden")])
def test_ratios_that_leave_nothing_are_refused(ratio, what):
    with pytest.raises(RecipeError, match=what):
        method_of(f"model.mask_ratio={ratio}")
