"""Patches that are left out, and what stands in for them."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from tests.explanation.test_shapley import exact
from vitaepp.data.store import Store
from vitaepp.downstream.model import Model
from vitaepp.encoder.model import Encoder
from vitaepp.explanation.games import Greyed, LeftOut, occlusion
from vitaepp.explanation.lattice import parts, spread
from vitaepp.explanation.networks import image_of, mean_attention, rollout
from vitaepp.explanation.pooling import Edges, pool_visible
from vitaepp.explanation.scores import decision_of, distance_in, imitation
from vitaepp.explanation.shapley import shapley
from vitaepp.nn.patches import patchify
from vitaepp.nn.pooling import pool_tokens
from vitaepp.nn.transformer import VisionTransformer

POOLS = ("mean", "cls", "max+std", "grid+gridmax", "mean+grid+cls", "mean+gradients+max")
GRIDS = ((4, 4), (3, 5), (2, 3, 4), (1, 3, 2))


@pytest.mark.parametrize(("how", "grid"), list(product(POOLS, GRIDS)))
def test_with_every_patch_visible_it_is_the_encoders_own_pooling(how, grid):
    torch.manual_seed(0)
    count = int(np.prod(grid))
    tokens = torch.randn(2, count + 1, 6)
    order = torch.stack([torch.randperm(count), torch.arange(count)])
    image = torch.randn(1, 2, *(6 * n for n in grid))
    whole = pool_tokens(tokens, how, grid, image.expand(2, *image.shape[1:]))
    shown = torch.cat([tokens[:, :1], tokens[:, 1:].take_along_dim(order[..., None], 1)], dim=1)
    absent = torch.randn(whole.shape[1])
    pooled = pool_visible(shown, order, how, grid, absent, Edges.of(image, grid))
    torch.testing.assert_close(pooled, whole)


@pytest.mark.parametrize("how", ["mean", "grid"])
def test_an_absent_patch_counts_as_an_average_one(how):
    torch.manual_seed(0)
    tokens, average = torch.randn(1, 9, 4), torch.randn(4)
    visible = torch.tensor([[0, 3, 5]])
    filled = average.expand(1, 9, 4).clone()
    filled[:, [1, 4, 6]] = tokens[:, [1, 4, 6]]
    absent = pool_tokens(average.expand(1, 9, 4), how, (2, 4))[0]
    shown = torch.cat([tokens[:, :1], tokens[:, 1:][:, visible[0]]], dim=1)
    pooled = pool_visible(shown, visible, how, (2, 4), absent)
    torch.testing.assert_close(pooled, pool_tokens(filled, how, (2, 4)))


@pytest.mark.parametrize("grid", [(8, 8), (4, 4), (4, 4, 2), (3, 5)])
def test_edges_of_patches_that_are_left_out_count_nowhere(grid):
    """What a patch holds inside its rim changes nothing where it is absent."""
    torch.manual_seed(0)
    image, count = torch.randn(1, 2, *(8 * n for n in grid)), int(np.prod(grid))
    tokens, visible = torch.randn(1, count, 4), torch.arange(1, count)[None]
    other = image.clone()
    other[(slice(None), slice(None), *(slice(2, 6),) * len(grid))] = 9.0
    absent = torch.zeros(pool_tokens(tokens, "gradients", grid, image).shape[1])
    found, same = (
        pool_visible(tokens, visible, "gradients", grid, absent, Edges.of(each, grid))
        for each in (image, other)
    )
    torch.testing.assert_close(found, same)
    whole = pool_tokens(tokens, "gradients", grid, other)
    assert not torch.allclose(whole, pool_tokens(tokens, "gradients", grid, image))


@pytest.mark.parametrize("grid", [(8, 8), (5, 7), (4, 3, 2)])
def test_patches_share_out_the_cells_of_gradients(grid):
    edges = Edges.of(torch.randn(1, 1, *(8 * n for n in grid)), grid)
    torch.testing.assert_close(edges.shares.sum(dim=0), torch.ones(edges.shares.shape[1]))
    assert (edges.shares >= 0).all()


def test_cells_are_where_patchify_takes_them_from():
    image = torch.arange(6 * 8.0).reshape(1, 1, 6, 8)
    numbers = spread(np.arange(12).reshape(3, 4), (6, 8))
    for patch, values in enumerate(patchify(image, (2, 2))[0]):
        assert sorted(image[0, 0][numbers == patch].tolist()) == sorted(values.tolist())


@pytest.mark.parametrize(
    ("grid", "most"), [((8, 8), 64), ((5, 7), 9), ((12, 12, 12), 64), ((3, 2), 2)]
)
def test_parts_are_boxes_and_no_more_than_asked(grid, most):
    numbers = parts(grid, most)
    assert set(numbers.ravel()) == set(range(numbers.max() + 1))
    assert numbers.max() < most
    for part in range(numbers.max() + 1):
        inside = np.argwhere(numbers == part)
        assert len(inside) == np.prod(np.ptp(inside, axis=0) + 1)


@pytest.fixture(scope="module")
def bright(planted):
    """The fitted encoder, scores, and the image of a bright subject."""
    model, store = Model.load(planted / "model"), Store(planted / "store")
    encoder = Encoder.from_pretrained(planted / "encoder")
    features = encoder.embed(store)
    image = image_of(encoder, store, 1, torch.device("cpu"))
    return encoder, decision_of(model, features), image, features


def test_all_parts_are_the_decision_and_none_that_of_the_cohorts_mean(bright, planted):
    encoder, scores, image, features = bright
    game = LeftOut(encoder, image, parts((4, 4), 16), scores, 0, "32")
    none, everything = game(np.array([[False] * 16, [True] * 16]))
    model = Model.load(planted / "model")
    assert everything == pytest.approx(model.classifier.decision(features[1:2])[0], abs=1e-4)
    mean = model.cohort.features.mean(axis=0, keepdims=True)
    assert none == pytest.approx(model.classifier.decision(mean)[0], abs=1e-5)


def test_what_is_left_out_is_not_seen(bright):
    encoder, scores, image, _ = bright
    numbers, shown = parts((4, 4), 8), np.zeros((1, 4), bool)
    shown[0, 2] = True
    # A gradient at the rim of what is shown looks one voxel further.
    seen = binary_dilation(spread(numbers, (32, 32)) == 2, np.ones((3, 3)))
    other = torch.where(torch.from_numpy(seen), image, 1e4)
    values = [LeftOut(encoder, x, numbers, scores, 0, "32")(shown)[0] for x in (image, other)]
    assert values[0] == values[1]


def test_the_values_of_a_real_decision_are_those_of_enumeration(bright):
    encoder, scores, image, _ = bright
    game = LeftOut(encoder, image, parts((4, 4), 4), scores, 0, "32")
    found, wanted = shapley(game, 4, 60, 0), exact(game, 4)
    ends = game(np.array([[False] * 4, [True] * 4]))
    assert found.values.sum() == pytest.approx(ends[1] - ends[0], abs=1e-9)
    assert np.abs(found.values - wanted).max() < 4 * found.errors.max() + 1e-6
    assert np.abs(found.values - wanted).max() < 0.05 * np.ptp(wanted)


def test_the_batch_changes_nothing(bright, monkeypatch):
    encoder, scores, image, _ = bright
    game = LeftOut(encoder, image, parts((4, 4), 16), scores, 0, "32")
    coalitions = np.random.default_rng(0).random((20, 16)) < 0.5
    together = game(coalitions)
    monkeypatch.setattr("vitaepp.explanation.games.CPU_TOKENS", 1)
    assert together == pytest.approx(game(coalitions), abs=1e-4)


def test_occlusion_of_what_is_grey_changes_nothing(bright):
    encoder, scores, image, _ = bright
    numbers = spread(parts((4, 4), 16), (32, 32))
    grey = torch.where(torch.from_numpy(numbers == 3), 0.0, image)
    found = occlusion(Greyed(encoder, grey, numbers, scores, 0, "32"), 16)
    assert found[3] == pytest.approx(0, abs=1e-5)
    assert np.abs(found).max() > 0.01


def test_rollout_is_the_product_of_the_attentions(bright):
    encoder, _, image, _ = bright
    vit = encoder.backbone
    x = torch.cat(
        [
            vit.cls_token + vit.pos_embed[:, :1],
            vit.patch_embed(patchify(image, vit.patch_size)) + vit.pos_embed[:, 1:],
        ],
        dim=1,
    )
    product_of = torch.eye(17)
    for block in vit.blocks:
        seen = block.norm1(x)
        heads = block.attn.num_heads
        q, k, _ = block.attn.qkv(seen)[0].reshape(17, 3, heads, -1).permute(1, 2, 0, 3)
        weights = torch.stack(
            [torch.softmax(a @ b.T / a.shape[1] ** 0.5, -1) for a, b in zip(q, k, strict=True)]
        )
        torch.testing.assert_close(mean_attention(block.attn, seen)[0], weights.mean(0))
        product_of = (0.5 * weights.mean(0) + 0.5 * torch.eye(17)) @ product_of
        x = block(x)
    torch.testing.assert_close(rollout(vit, image).flatten(), product_of[1:, 1:].mean(0))
    torch.testing.assert_close(rollout(vit, image, "cls").flatten(), product_of[0, 1:])


def test_rollout_of_even_attention_is_even():
    vit = VisionTransformer(1, (8, 8), (4, 4), 8, 3, 2).eval()
    for block in vit.blocks:
        torch.nn.init.zeros_(block.attn.qkv.weight)
    share = rollout(vit, torch.randn(1, 1, 8, 8))
    torch.testing.assert_close(share, share.mean().expand(2, 2))
    assert 4 / 5 < share.sum() < 1


def test_distance_and_imitation():
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 6)).astype(np.float32)
    distance = distance_in(features)
    assert distance(features).mean() == pytest.approx(1, abs=1e-4)
    assert distance(distance.absent[None])[0, 0] == pytest.approx(0, abs=1e-9)
    wanted = features[:, :1].astype(np.float64) * 2 + 1
    scores, r2 = imitation(
        features @ random.normal(size=(6, 6)).astype(np.float32), distance, wanted
    )
    assert r2 > 0.99
    noise, none = imitation(random.normal(size=(200, 6)).astype(np.float32), distance, wanted)
    assert none < 0.1
    assert noise(features).shape == scores(features).shape == (200, 1)
