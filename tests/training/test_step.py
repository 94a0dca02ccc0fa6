"""The step that bench and the benchmarks measure is the one that pretrain makes."""

import pandas as pd
import pytest
import torch

from tests.conftest import TINY
from vitaepp.methods import build_method
from vitaepp.recipe.recipe import Recipe
from vitaepp.training.pretrain import pretrain
from vitaepp.training.step import build_optimizer, forward_batch, training_step

ONE_STEP = (*TINY, "optim.epochs=1", "data.workers=0", "trainer.precision=32")


def parts(store, settings):
    """A method, and the only batch of the store."""
    recipe = Recipe.load(settings=settings)
    method = build_method(recipe, len(store.info.modalities), store.info.size)
    rows = list(range(len(store)))
    return method, (torch.from_numpy(store.read(rows)), rows, 1.0), torch.from_numpy(store.present)


def test_its_loss_is_the_first_that_pretrain_writes(make_store, tmp_path):
    store = make_store(subjects=4)
    run = pretrain(store.path, tmp_path / "run", recipe=Recipe(), settings=ONE_STEP)
    written = pd.read_csv(run / "metrics.csv").iloc[0]
    method, batch, present = parts(store, ONE_STEP)
    output = forward_batch(method, batch, present)
    assert output.loss.item() == pytest.approx(written["loss"], rel=1e-5)
    for name, term in output.terms.items():
        assert term.item() == pytest.approx(written[f"loss/{name}"], rel=1e-4)


@pytest.mark.parametrize("method", ["vitae", "mocov3"])
def test_a_step_changes_what_is_trained_and_no_more(make_store, method):
    store = make_store(subjects=4)
    heads = ("mocov3.hidden_dim=32", "mocov3.projection_dim=16")
    built, batch, present = parts(store, (*ONE_STEP, f"method={method}", *heads))
    before = {name: p.detach().clone() for name, p in built.named_parameters()}
    training_step(built, build_optimizer(built, images_per_update=4), batch, present)
    changed = {n for n, p in built.named_parameters() if not torch.equal(p, before[n])}
    trained = {n for n, p in built.named_parameters() if p.requires_grad}
    followed = {n for n in before if n.startswith("momentum_")}  # it follows after the step
    assert all(name.endswith("bias") for name in trained - changed)  # some have no gradient
    assert changed <= trained | followed
    assert all(p.grad is None for p in built.parameters())


def test_biases_and_norms_do_not_decay(make_store):
    method, *_ = parts(make_store(subjects=4), ONE_STEP)
    decaying, others = build_optimizer(method, images_per_update=512).param_groups
    assert decaying["weight_decay"] > 0 == others["weight_decay"]
    assert all(p.ndim > 1 for p in decaying["params"])
    assert all(p.ndim <= 1 for p in others["params"])
    assert decaying["lr"] == pytest.approx(2 * method.recipe.optim.base_lr)
