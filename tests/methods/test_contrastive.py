"""SimSiam and MoCo-v3 against independent NumPy, their schedule, and several processes."""

import math

import numpy as np
import pytest
import torch
from torch import distributed

from tests.conftest import TINY
from tests.processes import Forked
from vitaepp.data.loading import EpochOrder
from vitaepp.errors import RecipeError, TrainingError
from vitaepp.losses.contrastive import contrastive_loss, feature_spread
from vitaepp.losses.info_nce import gather_batches, info_nce
from vitaepp.methods import build_method
from vitaepp.methods.base import two_views
from vitaepp.methods.mocov3 import momentum
from vitaepp.recipe.recipe import Recipe
from vitaepp.views.draws import Draws

SMALL = (
    *TINY,
    "simsiam.projection_dim=32",
    "simsiam.prediction_dim=8",
    "mocov3.hidden_dim=32",
    "mocov3.projection_dim=16",
)


def method_of(*settings, size=(16, 16, 16), channels=2):
    return build_method(Recipe.load(settings=(*SMALL, *settings)), channels, size)


def images(size=(16, 16, 16), channels=2, batch=4):
    generator = torch.Generator().manual_seed(0)
    return 255 * torch.rand(batch, channels, *size, generator=generator)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def head(layers, x):
    """A projector or predictor in NumPy: linear, batch norm over the batch, ReLU."""
    for layer in layers:
        if isinstance(layer, torch.nn.Linear):
            x = x @ layer.weight.detach().numpy().T
            if layer.bias is not None:
                x = x + layer.bias.detach().numpy()
        elif isinstance(layer, torch.nn.BatchNorm1d):
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + layer.eps)
            if layer.affine:
                x = x * layer.weight.detach().numpy() + layer.bias.detach().numpy()
        else:
            x = np.maximum(x, 0)
    return x


def features(method, backbone, size=(16, 16, 16), batch=4):
    """What the backbone makes of the two views of a step, view by view."""
    views = two_views(images(size, batch=batch), Draws(0, 0, range(batch)), method.recipe.views)
    with torch.no_grad():
        return [backbone.features(v, "mean").double().numpy() for v in views]


def infonce_by_hand(queries, keys, temperature):
    total = 0.0
    q, k = unit(queries), unit(keys)
    for i in range(len(q)):
        similarities = [math.exp(float(q[i] @ k[j]) / temperature) for j in range(len(k))]
        total -= math.log(similarities[i] / sum(similarities))
    return 2 * temperature * total / len(q)


def test_simsiam_step_equals_numpy():
    method = method_of("method=simsiam").train()
    output = method(images(), Draws(0, 0, range(4)), 0.0)
    f1, f2 = features(method, method.backbone)
    z1, z2 = head(method.projector, f1), head(method.projector, f2)
    p1, p2 = head(method.predictor, z1), head(method.predictor, z2)
    d = [-(unit(p) * unit(z)).sum(1).mean() for p, z in ((p1, z2), (p2, z1))]
    assert output.loss.item() == pytest.approx((d[0] + d[1]) / 2, abs=1e-5)
    spread = unit(z1).std(0).mean() * math.sqrt(z1.shape[1])
    assert output.monitors["feature_spread"].item() == pytest.approx(spread, abs=1e-4)


@pytest.mark.parametrize(
    ("backbone", "size"), [("vit", (16, 16, 16)), ("vit", (16, 16)), ("resnet18", (24, 24))]
)
def test_mocov3_step_equals_numpy(backbone, size):
    method = method_of("method=mocov3", f"model.backbone={backbone}", size=size).train()
    with torch.no_grad():  # a copy that has fallen behind
        for parameter in method.momentum_backbone.parameters():
            parameter.mul_(0.9)
    output = method(images(size, batch=5), Draws(0, 0, range(5)), 0.0)
    f1, f2 = features(method, method.backbone, size, batch=5)
    g1, g2 = features(method, method.momentum_backbone, size, batch=5)
    q = [head(method.predictor, head(method.projector, f)) for f in (f1, f2)]
    k = [head(method.momentum_projector, g) for g in (g1, g2)]
    wanted = infonce_by_hand(q[0], k[1], 0.2) + infonce_by_hand(q[1], k[0], 0.2)
    assert output.loss.item() == pytest.approx(wanted, rel=1e-4)


def test_heads_are_the_papers():
    def shape(layers):
        return [
            type(x).__name__ if not isinstance(x, torch.nn.Linear) else tuple(x.weight.shape)
            for x in layers
        ]

    vit = build_method(Recipe.load(settings=(*TINY, "method=mocov3")), 1, (16, 16))
    assert shape(vit.projector)[::3] == [(4096, 48), (4096, 4096), (256, 4096)]
    assert shape(vit.projector)[-1] == shape(vit.predictor)[-1] == "BatchNorm1d"
    resnet = Recipe.load(settings=("method=mocov3", "model.backbone=resnet18"))
    resnet = build_method(resnet, 1, (16, 16))
    assert shape(resnet.projector)[::3] == [(4096, 512), (256, 4096)]
    assert shape(resnet.predictor)[-1] == (256, 4096)
    simsiam = build_method(Recipe.load(settings=(*TINY, "method=simsiam")), 1, (16, 16))
    assert shape(simsiam.projector)[::3] == [(2048, 48), (2048, 2048), (2048, 2048)]
    assert shape(simsiam.predictor)[::3] == [(512, 2048), (2048, 512)]
    assert simsiam.projector[-1].affine is False


def test_momentum_rises_from_its_setting_to_one():
    assert (momentum(0.99, 0.0), momentum(0.99, 1.0)) == (0.99, 1.0)
    assert momentum(0.9, 0.5) == pytest.approx(0.95)
    values = [momentum(0.99, i / 50) for i in range(51)]
    assert values == sorted(values)


def test_the_copy_moves_by_the_momentum_and_not_at_all_at_the_end():
    method = method_of("method=mocov3")
    before = method.momentum_backbone.blocks[0].mlp.fc1.weight.clone()
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(1.0)
    method.after_step(progress=1.0)
    assert torch.equal(method.momentum_backbone.blocks[0].mlp.fc1.weight, before)
    method.after_step(progress=0.0)
    moved = method.momentum_backbone.blocks[0].mlp.fc1.weight - before
    assert torch.allclose(moved, torch.full_like(moved, 0.01), atol=1e-6)


def test_loaded_weights_are_copied_too():
    method = method_of("method=mocov3")
    with torch.no_grad():
        method.backbone.norm.weight.fill_(7)
    method.backbone_loaded()
    assert torch.equal(method.momentum_backbone.norm.weight, method.backbone.norm.weight)


def test_gradients_reach_what_is_trained_and_nothing_else():
    method = method_of("method=mocov3")
    method(images(), Draws(0, 0, range(4)), 0.0).loss.backward()
    assert all(p.grad is None for p in method.momentum_backbone.parameters())
    assert all(p.grad is None for p in method.momentum_projector.parameters())
    assert method.backbone.patch_embed.proj.weight.grad is None  # frozen, against instability
    assert method.backbone.blocks[0].attn.qkv.weight.grad.abs().max() > 0
    free = method_of("method=mocov3", "mocov3.freeze_patch_embed=false")
    free(images(), Draws(0, 0, range(4)), 0.0).loss.backward()
    assert free.backbone.patch_embed.proj.weight.grad.abs().max() > 0


def test_simsiam_stops_the_gradient_at_the_target():
    p = [torch.randn(3, 4, requires_grad=True) for _ in range(2)]
    z = [torch.randn(3, 4, requires_grad=True) for _ in range(2)]
    contrastive_loss((p[0], p[1]), (z[0], z[1])).backward()
    assert all(x.grad is None for x in z)
    assert all(x.grad.abs().max() > 0 for x in p)


def test_collapse_shows_in_the_spread():
    assert feature_spread(torch.ones(8, 16)).item() == pytest.approx(0, abs=1e-6)
    many = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_spread(many).item() == pytest.approx(1, abs=0.02)


def joint_batch(rank=0, processes=1):
    generator = torch.Generator().manual_seed(1)
    queries, keys = (torch.randn(6, 5, generator=generator) for _ in range(2))
    part = slice(rank * 6 // processes, (rank + 1) * 6 // processes)
    return queries[part].clone().requires_grad_(), keys[part]


def in_process(rank, processes, folder):
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=processes
    )
    queries, keys = joint_batch(rank, processes)
    loss = info_nce(queries, keys, 0.2)
    loss.backward()
    torch.save({"loss": loss.detach(), "gradient": queries.grad}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_gathered_negatives_on_two_processes_equal_the_joint_batch(tmp_path):
    processes = [Forked(in_process, rank, 2, tmp_path) for rank in range(2)]
    for process in processes:
        said = process.communicate(60)
        assert process.returncode == 0, said
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    queries, keys = joint_batch()
    loss = info_nce(queries, keys, 0.2)
    loss.backward()
    assert torch.stack([p["loss"] for p in parts]).mean() == pytest.approx(loss.item(), rel=1e-6)
    # Each process divides by its half of the batch; averaging over processes makes it whole.
    gathered = torch.cat([p["gradient"] for p in parts]) / 2
    assert torch.allclose(gathered, queries.grad, atol=1e-7)
    without = torch.stack([info_nce(*joint_batch(r, 2), 0.2) for r in range(2)]).mean()
    assert abs(without.item() - loss.item()) > 1e-3  # fewer negatives would show


def test_without_processes_gathering_changes_nothing():
    values = torch.randn(3, 2)
    joint, first = gather_batches(values)
    assert joint is values
    assert first == 0


@pytest.mark.parametrize(
    ("method", "backbone", "size"),
    [
        ("simsiam", "vit", (16, 16, 16)),
        ("simsiam", "resnet18", (16, 16, 16)),
        ("simsiam", "resnet50", (32, 32)),
        ("mocov3", "vit", (32, 32)),
        ("mocov3", "resnet18", (48, 48)),
        pytest.param("mocov3", "resnet50", (16, 16, 16), marks=pytest.mark.slow),
    ],
)
def test_every_method_trains_every_backbone(method, backbone, size):
    model = method_of(f"method={method}", f"model.backbone={backbone}", size=size)
    output = model(images(size=size), Draws(0, 0, range(4)), 0.5)
    output.loss.backward()
    assert output.loss.isfinite()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(RecipeError, match=r"vitae hides patches, which takes model\.backbone=vit"):
        method_of("method=vitae", "model.backbone=resnet50")
    with pytest.raises(RecipeError, match=r"resnet18 has no CLS token; set model\.pool=mean"):
        method_of("method=simsiam", "model.backbone=resnet18", "model.pool=cls")


def test_a_rest_of_one_image_is_left_out_and_another_one_each_epoch():
    order = EpochOrder(range(9), 4, seed=0, smallest=2)
    assert len(order) == 2
    left = set()
    for epoch in range(6):
        order.set_epoch(epoch)
        batches = list(order)
        assert [len(b.rows) for b in batches] == [4, 4]
        left |= set(range(9)) - {row for batch in batches for row in batch.rows}
    assert len(left) > 1
    assert len(EpochOrder(range(9), 1, seed=0, smallest=2)) == 0
    assert [len(b.rows) for b in EpochOrder(range(10), 4, seed=0, smallest=2)] == [4, 4, 2]


def test_batches_of_one_are_refused_with_what_would_do(make_store, tmp_path):
    from vitaepp.training.pretrain import pretrain

    with pytest.raises(TrainingError, match="simsiam needs batches of at least 2"):
        pretrain(
            make_store().path,
            tmp_path / "run",
            settings=(*SMALL, "method=simsiam", "optim.batch_size=1"),
        )
