"""What training needs of memory: activations computed twice, where a store is held, no leaks."""

import gc
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from tests.conftest import TINY
from vitaepp.data import loading
from vitaepp.data.loading import cache_device
from vitaepp.methods import build_method
from vitaepp.recipe.recipe import Recipe
from vitaepp.recipe.sections import DataSettings
from vitaepp.training.pretrain import pretrain
from vitaepp.training.sharding import recompute_blocks
from vitaepp.views.draws import Draws


def step(method_name: str, recompute: bool) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients of a step, and the bytes of activations kept for the backward pass."""
    settings = ("model.depth=4", "model.decoder_depth=4", "loss.perceptual.weight=0")
    recipe = Recipe.load(settings=(*TINY, f"method={method_name}", *settings))
    method = build_method(recipe, 1, (32, 32, 32))
    if recompute:
        recompute_blocks(method)
    images = torch.rand(2, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = method(images, Draws(0, 0, [0, 1]), progress=0.0).loss
    loss.backward()
    found = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    weights = {p.untyped_storage().data_ptr() for p in method.parameters()}
    return found, sum(size for where, size in kept.items() if where not in weights)


@pytest.mark.parametrize("method", ["vitae++", "simsiam", "mocov3"])
def test_computing_blocks_twice_gives_the_same_gradients_and_keeps_less(method):
    plain, kept = step(method, recompute=False)
    twice, kept_less = step(method, recompute=True)
    assert plain.keys() == twice.keys()
    for name, value in plain.items():
        assert torch.equal(value, twice[name]), name
    assert kept_less < 0.6 * kept


def test_training_with_blocks_computed_twice_ends_the_same(make_store, tmp_path):
    from vitaepp.data.checkpoints import load_checkpoint

    store = make_store()
    settings, twice = (*TINY, "optim.epochs=1"), "trainer.activation_checkpointing"
    runs = [
        pretrain(store.path, tmp_path / on, settings=(*settings, f"{twice}={on}"))
        for on in ("false", "true")
    ]
    first, second = (load_checkpoint(run / "last.ckpt")["state_dict"] for run in runs)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_store_is_held_where_it_fits(make_store, monkeypatch):
    store = make_store()
    size = 8 * 2 * 16**3 * 2  # subjects, modalities, voxels, bytes of float16
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    free = SimpleNamespace(gpu=10 * size, memory=10 * size)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free.gpu, 0))
    monkeypatch.setattr(loading, "free_memory", lambda: free.memory)

    def place(device: torch.device, cache: str = "auto", sharing: int = 1) -> torch.device | None:
        return cache_device(store, DataSettings(cache=cache), device, sharing)

    assert (place(gpu), place(cpu)) == (gpu, cpu)
    free.gpu = 2 * size  # half is to stay free
    assert place(gpu) == cpu
    assert place(cpu, sharing=4) == cpu
    assert place(cpu, sharing=5) is None  # each process holds its own copy
    free.memory = 2 * size
    assert place(gpu) is None
    assert place(cpu) is None
    assert place(gpu, "device") == gpu
    assert place(gpu, "memory") == cpu
    assert place(gpu, "none") is None


@pytest.mark.slow
def test_memory_does_not_grow_in_two_thousand_steps(make_store, tmp_path, monkeypatch):
    from vitaepp.training.module import Training

    seen: list[int] = []
    whole = Training.training_step

    def measured(self, batch, index):
        if self.global_step % 100 == 0:
            gc.collect()
            seen.append(psutil.Process().memory_info().rss)
        return whole(self, batch, index)

    monkeypatch.setattr(Training, "training_step", measured)
    # Twenty epochs of a hundred steps, so that what an epoch leaves behind shows, too.
    settings = (*TINY, "optim.epochs=20", "optim.batch_size=2", "trainer.checkpoint_every=2")
    pretrain(make_store(subjects=200).path, tmp_path / "run", settings=settings)
    assert len(seen) == 20
    warm, end = max(seen[3:6]), max(seen[-3:])
    print(f"MiB after each 100 steps: {[round(m / 2**20, 1) for m in seen]}")
    assert end - warm < 8 * 2**20
