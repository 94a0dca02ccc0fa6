"""The training step: every term reaches what it should, and nothing else."""

import pytest
import torch

from tests.conftest import TINY
from vitaepp.errors import RecipeError
from vitaepp.methods import build_method
from vitaepp.methods.vitaepp import edge_weight
from vitaepp.nn.transformer import Block, kept_branches
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


def test_drop_path_leaves_out_branches_by_the_sample_and_none_after_training():
    draws = torch.rand(2000, 4, 2, generator=torch.Generator().manual_seed(0))
    kept = kept_branches(draws, 0.3)
    assert (kept[:, 0] == 1).all()
    dropped = (kept == 0).float().mean(dim=(0, 2))
    assert torch.allclose(dropped, torch.tensor([0, 0.1, 0.2, 0.3]), atol=0.03)
    assert torch.allclose(kept.mean(dim=(0, 2)), torch.ones(4), atol=0.05)

    plain, dropping = method_of(), method_of("model.drop_path=0.9")

    def loss(method, rows=(0, 1, 2)):
        return method(images(), Draws(0, 0, rows), 0.0).terms["reconstruction"].item()

    assert loss(dropping) != loss(plain)
    assert loss(dropping) == loss(dropping)
    dropping.eval()
    assert loss(dropping) == loss(plain.eval())


def test_a_branch_that_is_left_out_changes_nothing_of_its_sample():
    block = Block(24, 3)
    x = torch.randn(3, 5, 24)
    kept = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    out = block(x, kept)
    assert torch.allclose(out[0], block(x)[0], atol=1e-6)
    assert torch.equal(out[1], x[1])
    assert torch.allclose(out[2], (x + block.attn(block.norm1(x)))[2], atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        ("loss.contrastive.features=tokens",),
        ("loss.contrastive.norm=batch",),
        ("loss.contrastive.norm=none",),
        ("model.pool=cls",),
        ("model.pool=mean+cls",),
    ],
)
def test_what_the_contrastive_term_compares_is_a_setting(settings):
    def term(*settings):
        method = method_of(*settings, "loss.perceptual.weight=0")
        output = method(images(), Draws(0, 0, [0, 1, 2]), 0.0)
        output.loss.backward()
        assert method.predictor.layers[0].weight.grad.abs().max() > 0
        return output.terms["contrastive"].item()

    same = settings == ("model.pool=mean+cls",)  # the mean is compared
    assert (term(*settings) == term()) == same


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_a_size_is_a_whole_model_and_given_values_win(size):
    recipe = Recipe.load(settings=f"model.size={size}")
    with torch.device("meta"):
        method = build_method(recipe, 1, (64, 64))
    parts = {"decoder": 0, "encoder": 0}
    for name, p in method.backbone.named_parameters():
        parts["decoder" if name.startswith("decoder") else "encoder"] += p.numel()
    assert parts["decoder"] < 0.35 * parts["encoder"]
    own = recipe.with_settings(["model.decoder_depth=1", "model.decoder_embed_dim=64"])
    with torch.device("meta"):
        backbone = build_method(own, 1, (64, 64)).backbone
    assert len(backbone.decoder_blocks) == 1
    assert backbone.decoder_embed.out_features == 64
    assert own.with_settings("model.size=small").model.decoder_depth is None
