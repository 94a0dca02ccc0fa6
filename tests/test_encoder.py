"""The encoder: what it gives does not depend on how it is asked."""

import json

import numpy as np
import pytest
import torch

from tests.conftest import TINY
from vitaepp.embeddings import Embeddings, control_path
from vitaepp.encoder import Encoder, embed, raw_features
from vitaepp.errors import RecipeError, RunError
from vitaepp.recipe import Recipe
from vitaepp.training.pretrain import pretrain


def untrained(store, *settings):
    return Encoder.untrained(Recipe.load(settings=(*TINY, *settings)), store.info)


def test_features_do_not_depend_on_batches_order_or_intensity_scale(make_store):
    store = make_store()
    encoder = untrained(store, "trainer.precision=32")
    whole = encoder.embed(store)
    assert whole.shape == (8, encoder.dim)
    assert np.allclose(whole, encoder.embed(store, batch_size=3), atol=1e-5)
    assert np.allclose(whole[[5, 2]], encoder.embed(store, [5, 2]), atol=1e-5)
    images = torch.from_numpy(store.read(range(8))).float()
    with torch.inference_mode():
        assert np.allclose(whole, encoder(images * 0.5 + 20), atol=2e-3)


def test_half_precision_rounds_features_and_says_so(make_store, tmp_path):
    store = make_store()
    encoder = untrained(store)
    exact, rounded = (encoder.embed(store, precision=p) for p in ("32", "bf16"))
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()
    encoder.save(tmp_path / "encoder")
    for precision in ("32", "bf16"):
        out = embed(tmp_path / "encoder", store.path, tmp_path / "e.parquet", precision=precision)
        assert Embeddings.load(out).provenance["precision"] == precision
    with pytest.raises(RecipeError, match="precision 8: give 32, bf16, 16 or auto"):
        encoder.embed(store, precision="8")


def test_saved_and_loaded_it_is_the_same(make_store, tmp_path):
    store = make_store()
    encoder = untrained(store, "model.pool=cls")
    encoder.save(tmp_path / "encoder")
    loaded = Encoder.from_pretrained(tmp_path / "encoder")
    assert loaded.config == encoder.config
    assert np.array_equal(loaded.embed(store), encoder.embed(store))


def test_embeddings_carry_labels_and_their_controls(make_store, tmp_path):
    store = make_store(splits=True)
    run = pretrain(store.path, tmp_path / "run", settings=TINY)
    out = embed(run, store.path, tmp_path / "e.parquet")
    embedded = Embeddings.load(out)
    assert list(embedded.table) == ["subject", "bright", "split"]
    assert embedded.features.shape == (8, 48)
    raw = Embeddings.load(control_path(out, "raw"))
    start = Embeddings.load(control_path(out, "untrained"))
    assert list(raw.table.subject) == list(start.table.subject) == list(embedded.table.subject)
    assert np.allclose(start.features, untrained(store).embed(store), atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8, 8), (16, 16, 16), (4, 4)])
def test_raw_features_are_an_isometry_of_the_intensities(make_store, size):
    store = make_store(subjects=40, size=size)
    pixels = store.read(range(40)).reshape(40, -1).astype(np.float64) / 255
    features = raw_features(store).astype(np.float64)
    assert features.shape[1] <= 40
    assert np.allclose(features @ features.T, pixels @ pixels.T, rtol=1e-4, atol=1e-3)


def test_stores_of_another_kind_are_refused_by_name(make_store):
    encoder = untrained(make_store())
    with pytest.raises(RunError, match="size 24,16,16, but the encoder was trained on 16,16,16"):
        encoder.embed(make_store(size=(24, 16, 16), name="long"))
    with pytest.raises(RunError, match="modality pet, but the encoder was trained on t1,t2"):
        encoder.embed(make_store(modalities=("t2", "pet"), name="other"))


def test_channels_go_by_their_names_and_any_subset_of_them_does(make_store):
    both = make_store()
    encoder = untrained(both, "trainer.precision=32")
    images = torch.from_numpy(both.read(range(4))).float()
    with torch.inference_mode():
        whole = encoder(images)
        assert torch.equal(encoder(images.flip(1), ("t2", "t1")), whole)
        only = encoder(images[:, 1:], ["t2"])
        assert torch.equal(only, encoder(images * torch.tensor([0, 1]).view(2, 1, 1, 1)))
        assert not torch.allclose(only, whole, atol=1e-3)
        for names, what in ((["t3"], "modality t3"), (["t1", "t1"], "give each once")):
            with pytest.raises(RunError, match=what):
                encoder(images[:, : len(names)], names)
    swapped = make_store(modalities=("t2", "t1"), name="swapped")
    by_hand = encoder(torch.from_numpy(swapped.read(range(8))).flip(1)).detach()
    assert np.allclose(encoder.embed(swapped), by_hand, atol=1e-5)


def test_a_store_with_fewer_modalities_is_embedded_with_its_controls(make_store, tmp_path, capsys):
    exact = (*TINY, "trainer.precision=32")
    run = pretrain(make_store().path, tmp_path / "run", settings=exact)
    fewer = make_store(modalities=("t2",), name="fewer")
    out = embed(run, fewer.path, tmp_path / "e.parquet")
    assert "fewer: embedded without t1" in capsys.readouterr().err
    encoder = Encoder.from_pretrained(run)
    images = torch.from_numpy(fewer.read(range(8)))
    with torch.inference_mode():
        wanted = encoder(torch.cat([torch.zeros_like(images), images], dim=1))
    assert np.allclose(Embeddings.load(out).features, wanted, atol=1e-4)
    start = Embeddings.load(control_path(out, "untrained"))
    assert start.features.shape == (8, encoder.dim)


def test_damaged_encoders_are_refused(make_store, tmp_path):
    encoder = untrained(make_store())
    encoder.save(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(RunError, match="does not fit its config"):
        Encoder.from_pretrained(tmp_path / "a")
    encoder.save(tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    (tmp_path / "b" / "config.json").write_text(json.dumps(config | {"shape": {"depth": 1}}))
    with pytest.raises(RunError, match="not an encoder's"):
        Encoder.from_pretrained(tmp_path / "b")
