"""bench: measures what pretrain would do, leaves nothing behind, and its parts add up."""

import json

import pytest

from tests.conftest import TINY
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


def test_figures_are_text_and_plain_values(make_store):
    store = make_store(subjects=4)
    speed = bench(store.path, settings=TINY, recipe="demo", steps=1)
    assert "a second" in str(speed)
    assert json.loads(json.dumps(speed.to_dict()))["batch_size"] == 4
