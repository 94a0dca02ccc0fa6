"""bench: measures what pretrain would do, leaves nothing behind, and its parts add up."""

import json

import pytest

from tests.conftest import TINY
from vitaepp.errors import RecipeError
from vitaepp.training.bench import bench


@pytest.mark.parametrize("method", ["vitae++", "simsiam"])
def test_parts_are_shares_of_a_step_and_nothing_is_written(make_store, tmp_path, method):
    store = make_store(subjects=6)
    before = sorted(p for p in tmp_path.rglob("*"))
    speed = bench(store.path, settings=(*TINY, f"method={method}"), recipe="demo", steps=2)
    assert sorted(p for p in tmp_path.rglob("*")) == before
    assert sum(speed.parts.values()) == pytest.approx(1, abs=0.02)
    named = {"views", "encoder", "backward", "optimizer"}
    named |= {"decoder", "perceptual loss", "edge loss"} if method == "vitae++" else set()
    assert named < set(speed.parts)
    assert all(0 <= share < 1 for share in speed.parts.values())
    assert speed.volumes_per_second == pytest.approx(sum(speed.images) / sum(speed.seconds))
    assert speed.steps == 2 * 3  # six images in batches of four, three epochs
    assert speed.whole == pytest.approx(6 * 3 / speed.volumes_per_second)
    assert 0 <= speed.waiting < 1
    assert 2**26 < speed.memory < 2**36


def test_short_batches_count_for_what_they_are(make_store):
    store = make_store(subjects=5).path
    uneven = bench(store, settings=(*TINY, "optim.batch_size=4"), recipe="demo", steps=4)
    assert sorted(uneven.images) == [1, 1, 4, 4]
    assert uneven.trained == 5 * 3
    large = bench(store, settings=(*TINY, "optim.batch_size=64"), recipe="demo", steps=1)
    assert large.images == (5,)
    assert large.whole == pytest.approx(large.steps * large.step)


def test_what_is_counted_is_what_is_trained_on(make_store):
    store = make_store(subjects=8, splits=True)
    speed = bench(store.path, settings=(*TINY, "method=vitae"), recipe="demo", steps=1)
    assert speed.description.startswith("ViT-AE on 6 images of ")
    assert speed.trained == 6 * 3


def test_a_device_that_is_not_there_is_refused(make_store):
    with pytest.raises(RecipeError, match="device foo: not here; this machine has cpu"):
        bench(make_store().path, settings=TINY, device="foo")


def test_figures_are_text_and_plain_values(make_store):
    store = make_store(subjects=4)
    speed = bench(store.path, settings=TINY, recipe="demo", steps=1)
    assert "a second" in str(speed)
    assert json.loads(json.dumps(speed.to_dict()))["batch_size"] == 4
