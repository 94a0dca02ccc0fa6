"""Steps that are recorded and replayed; without a GPU, where a play of recording stands for it."""

import gc
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from vitaepp.methods import build_method
from vitaepp.recipe.recipe import Recipe
from vitaepp.training import replays
from vitaepp.training.replays import Replays, may_replay
from vitaepp.training.step import build_optimizer, prepare_for_training, training_step
from vitaepp.views.draws import Draws, StandingDraws

CPU = torch.device("cpu")

#: Small, in two dimensions. Without noise, which a replay draws by a hash and a CPU does not.
SMALL = (
    "model.size=light",
    "model.embed_dim=24",
    "model.depth=2",
    "model.num_heads=2",
    "model.decoder_embed_dim=24",
    "model.decoder_depth=1",
    "model.decoder_num_heads=2",
    "model.patch_size=4",
    "views.second.noise=0",
    "loss.perceptual.weights=none",
    "optim.lr=0.01",
)


def method_of(*settings):
    torch.manual_seed(0)
    return build_method(Recipe.load(settings=[*SMALL, *settings]), 2, (16, 16))


def batch_of(count, start=0):
    generator = torch.Generator().manual_seed(start)
    images = 255 * torch.rand(count, 2, 16, 16, generator=generator)
    return images, list(range(start, start + count)), 1.0


def play(monkeypatch, begin=lambda number: None):
    """Record as on a GPU: results stay where they are, and a replay puts others there."""
    recorded = []

    def record(compute, device, pool):
        begin(len(recorded))
        results = compute()
        recorded.append(results)

        def replay():
            for old, new in zip(tensors(results), tensors(compute()), strict=True):
                old.data.copy_(new.detach())

        return replay, results

    monkeypatch.setattr(replays, "record", record)
    return recorded


def tensors(computed):
    parts, gradients = computed
    values = [value for part in parts for value in part.values()]
    found = [v for v in (*values, *gradients) if isinstance(v, Tensor)]
    assert not any(tensor.requires_grad for tensor in found), "would keep what backward needs"
    return found


def weights_after(method, batches, present=None, precision="32"):
    optimizer = build_optimizer(method, 4)
    for step, batch in enumerate(batches):
        mixed = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
        with mixed:
            training_step(method, optimizer, batch, present, epoch=step, progress=step / 10)
    return {name: p.detach().clone() for name, p in method.named_parameters()}


BATCHES = [batch_of(4), batch_of(4, 4), batch_of(3, 8), batch_of(4, 20), batch_of(3, 30)]


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["method=vitae"],
        ["model.drop_path=0.2", "views.normalize=foreground"],
        ["loss.contrastive.features=tokens", "loss.edge.decay=none"],
        ["views.modality_dropout=0.5", "loss.reconstruction.normalize_targets=true"],
        ["loss.perceptual.weights=random", "loss.perceptual.images=2"],
        ["trainer.precision=bf16"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("missing", [False, True])
def test_a_replayed_training_has_the_weights_of_any_other(monkeypatch, settings, missing):
    present = torch.ones(40, 2, dtype=torch.bool)
    present[1::3, 1] = not missing
    precision = "bf16" if "trainer.precision=bf16" in settings else "32"
    wanted = weights_after(method_of(*settings), BATCHES, present, precision)
    recorded = play(monkeypatch)
    method = method_of(*settings)
    method.replays = Replays()
    found = weights_after(method, BATCHES, present, precision)
    assert len(recorded) == 2, "one for each size of batch"
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


def test_what_a_step_gave_outlasts_the_next_one(monkeypatch):
    play(monkeypatch)
    method = method_of()
    method.replays = Replays()

    def step(batch):
        images, rows, _ = batch
        return method.replays(method, images, rows, None, epoch=0, progress=0.5)

    first = step(BATCHES[0])
    before = {name: value.clone() for name, value in first.terms.items()}
    second = step(BATCHES[1])
    for name, value in before.items():
        assert torch.equal(first.terms[name], value)
        assert not torch.equal(second.terms[name], value)
    assert float(second.weights["edge"]) == pytest.approx(5)
    assert second.loss.item() == pytest.approx(sum(map(float, second.weighted.values())))


def test_gradients_are_scaled_by_what_comes_after_the_loss(monkeypatch):
    play(monkeypatch)
    plain, method = method_of(), method_of()
    method.replays = Replays()
    images, rows, _ = BATCHES[0]
    (3 * plain(images, Draws(0, 0, rows), 0.0).loss).backward()
    for _ in range(2):  # and they add up
        (1.5 * method.replays(method, images, rows, None, epoch=0, progress=0.0).loss).backward()
    for (name, wanted), found in zip(plain.named_parameters(), method.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, msg=name)


@pytest.mark.parametrize("number", [0, 1])
def test_a_step_that_cannot_be_recorded_is_computed_as_it_comes(monkeypatch, capsys, number):
    def fail(recorded):
        if recorded == number:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    play(monkeypatch, fail)
    wanted = weights_after(method_of(), BATCHES)
    method = method_of()
    method.replays = Replays()
    found = weights_after(method, BATCHES)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert capsys.readouterr().err.count("trainer.replay=false") == 1
    assert not method.replays._steps, "one that was recorded before would keep its memory"


def test_a_method_is_freed_with_what_was_recorded_of_it(monkeypatch):
    """Without the garbage collector, which does not know that a GPU is full."""
    play(monkeypatch)
    monkeypatch.setattr(replays, "record", lambda compute, *_: (lambda: None, compute()))
    method = method_of()
    method.replays = Replays()
    images, rows, _ = BATCHES[0]
    method.replays(method, images, rows, None, epoch=0, progress=0.0)
    alive, step = weakref.ref(method), weakref.ref(next(iter(method.replays._steps.values())))
    gc.disable()
    try:
        del method
        assert (alive(), step()) == (None, None)
    finally:
        gc.enable()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_replays_what_it_computes():
    device = torch.device("cuda")
    plain, method = method_of().to(device), method_of().to(device)
    prepare_for_training(method, device)
    for step, (images, rows, _) in enumerate(BATCHES):
        wanted = plain(images.to(device), Draws(0, step, rows, device), step / 10)
        found = method.replays(
            method, images.to(device), rows, None, epoch=step, progress=step / 10
        )
        wanted.loss.backward()
        found.loss.backward()
        torch.testing.assert_close(found.loss, wanted.loss)
    for mine, theirs in zip(method.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    assert len(method.replays._steps) == 2


def test_only_so_many_shapes_are_recorded(monkeypatch):
    recorded = play(monkeypatch)
    batches = [batch_of(count) for count in (2, 3, 4, 5, 6, 7)]
    wanted = weights_after(method_of(), batches)
    method = method_of()
    method.replays = Replays()
    found = weights_after(method, batches)
    assert len(recorded) == replays.MOST_SHAPES
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize(
    ("settings", "may"),
    [
        ([], True),
        (["trainer.replay=false"], False),
        (["trainer.compile=default"], False),
        (["trainer.activation_checkpointing=true"], False),
        (["trainer.precision=16"], False),
        (["trainer.precision=32"], True),
        (["loss.contrastive.norm=batch"], False),
    ],
)
def test_which_trainings_are_replayed(settings, may):
    settings = ["trainer.precision=bf16", *settings]
    assert may_replay(method_of(*settings), torch.device("cuda")) is may
    method = method_of(*settings)
    assert not may_replay(method, CPU)


@pytest.mark.parametrize(("processes", "may"), [(1, True), (2, False)])
def test_one_process_alone_replays(monkeypatch, processes, may):
    monkeypatch.setattr("vitaepp.training.step.may_replay", lambda method, device: True)
    method = method_of()
    prepare_for_training(method, CPU, processes)
    assert (method.replays is not None) is may


@pytest.mark.parametrize("name", ["simsiam", "mocov3"])
def test_methods_with_batch_statistics_are_not_replayed(name):
    recipe = Recipe.load(settings=[f"method={name}", "model.backbone=resnet18"])
    assert not may_replay(build_method(recipe, 1, (16, 16)), torch.device("cuda"))


def test_standing_numbers_are_those_of_the_batch():
    rows = [5, 3, 8]
    plain, standing = Draws(1, 2, rows), StandingDraws(Draws(1, 0, [0, 1, 2]), 9)
    standing.load(Draws(1, 2, rows))
    for _ in range(2):
        again = Draws(1, 2, rows)
        assert all(torch.equal(standing.uniform(n), again.uniform(n)) for n in (2, 3, 4))
        standing.rewind()
    assert torch.equal(standing.seeds, plain.seeds)
    like = torch.empty(3, 1, 4, 4)
    first, second = standing.normal_like(like), standing.normal_like(like)
    assert not torch.equal(first, second)
    standing.rewind()
    assert torch.equal(standing.normal_like(like), first)
