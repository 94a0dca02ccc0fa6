"""The encoder: what it gives does not depend on how it is asked."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.conftest import LIGHT, encoder_like
from vitaepp.cli.app import main
from vitaepp.data.embeddings import Embeddings, control_path
from vitaepp.data.poolings import Pooling, pooled_beside, pooled_path
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.encoder.embed import embed, raw_features
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RecipeError, RunError
from vitaepp.recipe.recipe import Recipe
from vitaepp.training.pretrain import pretrain


def untrained(store, *settings):
    return Encoder.untrained(Recipe.load(settings=(*LIGHT, *settings)), store.info)


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


def test_images_of_another_shape_are_one_line(make_store):
    encoder = untrained(make_store())
    for shape in ((2, 4, 16, 16, 16), (2, 2, 16, 16), (2, 2, 24, 16, 16)):
        with pytest.raises(RunError, match=r"but the encoder takes 2×16×16×16 \(t1, t2\)"):
            encoder(torch.zeros(shape))


def test_several_poolings_in_one_pass_are_those_of_an_encoder_with_each(make_store, tmp_path):
    store = make_store()
    encoder = untrained(store, "trainer.precision=32", "model.depth=3")
    encoder.save(tmp_path / "encoder")
    out = embed(
        tmp_path / "encoder", store.path, tmp_path / "e.parquet", pools="mean+std,cls@1,max@3"
    )
    found = {file.name: Embeddings.load(file) for file in pooled_beside(out)}
    assert set(found) == {"e.cls@1.parquet", "e.max.parquet", "e.mean+std.parquet"}
    for pool, block in (("cls", 1), ("max", None), ("mean+std", None)):
        single = Encoder(replace(encoder.config, pool=pool, block=block)).eval()
        single.backbone.load_state_dict(encoder.backbone.state_dict())
        several = found[pooled_path(out, Pooling(pool, block)).name]
        assert np.allclose(several.features, single.embed(store), atol=1e-6)
        assert (several.provenance["pool"], several.provenance["block"]) == (pool, block)
    assert np.array_equal(Embeddings.load(out).features, encoder.embed(store))
    assert not list(tmp_path.glob("e.*.raw.parquet"))
    assert not list(tmp_path.glob("*.untrained.parquet"))  # of an encoder without its run
    for pools, match in (
        ("mean@4", "pooling mean@4: the encoder has 3 blocks"),
        ("mean@x", "after @ stands the number of a block"),
        ("median", "no pooling 'median'"),
    ):
        with pytest.raises(RunError, match=match):
            embed(tmp_path / "encoder", store.path, tmp_path / "no.parquet", pools=pools)
    other = untrained(store, "model.backbone=resnet18", "method=simsiam")
    other.save(tmp_path / "resnet")
    with pytest.raises(RunError, match="are of the tokens of a vision transformer"):
        embed(tmp_path / "resnet", store.path, tmp_path / "no.parquet", pools=["mean"])
    embed(tmp_path / "resnet", store.path, tmp_path / "r.parquet")
    assert Embeddings.load(tmp_path / "r.parquet").provenance["pool"] == other.config.pool


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


@pytest.mark.parametrize(
    "settings", [[], ["method=simsiam", "model.backbone=resnet18"]], ids=["vit", "resnet"]
)
def test_loading_draws_no_random_weights(make_store, tmp_path, settings):
    encoder = untrained(make_store(), *settings)
    encoder.save(tmp_path / "encoder")
    before = torch.get_rng_state()
    loaded = Encoder.from_pretrained(tmp_path / "encoder").state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.keys() == encoder.state_dict().keys()
    assert all(torch.equal(loaded[name], value) for name, value in encoder.state_dict().items())


def test_embeddings_carry_labels_and_their_controls(make_store, tmp_path):
    store = make_store(splits=True)
    run = pretrain(store.path, tmp_path / "run", settings=LIGHT)
    out = embed(run, store.path, tmp_path / "e.parquet")
    embedded = Embeddings.load(out)
    assert list(embedded.table) == ["subject", "bright", "split"]
    # Mean and maximum of eight cells; gradients of two modalities.
    assert embedded.features.shape == (8, 2 * 8 * 48 + 2 * 13 * 64)
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
    exact = (*LIGHT, "trainer.precision=32")
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


def otherwise(store, **changes):
    """The same store as if it had been prepared in another way."""
    file = store.path / "store.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return Store(store.path)


@pytest.mark.parametrize(
    ("trained", "embedded", "told"),
    [
        ({}, {"spacing": [2.0, 2.0, 2.0]}, "spacing 2,2,2 instead of 1,1,1"),
        ({}, {"spacing": None}, "spacing none instead of 1,1,1"),
        ({}, {"center": "mask"}, "center mask instead of image"),
        ({}, {"clip": [0.5, 99.5]}, "clip 0.5,99.5 instead of 0,100"),
        ({"statistics": "foreground"}, {}, "statistics none instead of foreground"),
        ({}, {"window": [["t2", -160.0, 240.0]]}, "window t2=-160,240 instead of none"),
        (
            {"window": [["t2", 0.0, 80.0]]},
            {"window": [["t2", -160.0, 240.0]], "center": "mask"},
            "center mask instead of image, window t2=-160,240 instead of t2=0,80",
        ),
    ],
)
def test_a_store_that_was_prepared_in_another_way_is_refused(make_store, trained, embedded, told):
    encoder = untrained(make_store())
    encoder.config = replace(
        encoder.config, prepared=otherwise(make_store(name="trained"), **trained).info
    )
    other = otherwise(make_store(name="other"), **embedded)
    with pytest.raises(RunError, match=f"other: {told} in the store .* `any_store`"):
        encoder.embed(other)
    assert encoder.embed(other, any_store=True).shape == (8, encoder.dim)


def test_what_makes_no_difference_is_not_refused(make_store):
    encoder = untrained(make_store())
    windows = [["t1", 0.0, 80.0], ["t2", 0.0, 80.0]]
    trained = otherwise(make_store(name="trained"), window=windows, clip=[1.0, 99.0])
    encoder.config = replace(encoder.config, prepared=trained.info)
    # Rounding of a header; percentiles that no modality has; the window of one that is not there.
    rounded = [1.0000004, 1.0, 0.9999996]
    like = otherwise(make_store(name="like"), window=windows, spacing=rounded, dtype="float16")
    fewer = otherwise(make_store(modalities=("t2",), name="fewer"), window=windows[1:])
    for store in (like, fewer):
        assert len(encoder.embed(store)) == len(store)


def test_going_on_with_another_store_is_told_everywhere(make_store, tmp_path, capsys, monkeypatch):
    def vitaepp(*words):
        monkeypatch.setattr(sys, "argv", ["vitaepp", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr()

    run = pretrain(make_store().path, tmp_path / "run", settings=(*LIGHT, "optim.epochs=1"))
    other = otherwise(make_store(subjects=24, name="other"), spacing=[2.0] * 3)
    file, told = tmp_path / "e.parquet", "spacing 2,2,2 instead of 1,1,1"
    for words in (
        ("embed", run, other.path, file),
        ("reconstruct", run, other.path, tmp_path / "r"),
    ):
        status, said = vitaepp(*words)
        assert status == 2
        assert told in said.err
        assert "--any-store" in said.err
        assert not words[3].exists()
        status, said = vitaepp(*words, "--any-store", *(["--subjects", 1] * (words[0] != "embed")))
        assert not status
        assert told in said.err
    assert Embeddings.load(file).provenance["unlike"] == [told]
    status, said = vitaepp("evaluate", file, "--label", "bright", "--out", tmp_path / "m")
    assert not status
    assert told in said.err
    assert told in said.out
    assert json.loads((tmp_path / "m" / "metrics.json").read_text())["provenance"]["unlike"] == [
        told
    ]


def test_an_older_encoder_is_taken_with_a_word(make_store, tmp_path, capsys):
    store = make_store()
    untrained(store).save(tmp_path / "old")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    del config["prepared"], config["name"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    embed(tmp_path / "old", store.path, tmp_path / "e.parquet")
    assert capsys.readouterr().err.count("an older version made the encoder") == 1


def test_embedding_leaves_the_callers_module_as_it_was(make_store):
    store = make_store(subjects=2)
    encoder = untrained(store).train()
    encoder.backbone.blocks[0].eval()
    modes = [module.training for module in encoder.modules()]
    weights = {name: p.data_ptr() for name, p in encoder.named_parameters()}
    encoder.embed(store)
    with encoder._evaluating(torch.device("meta")) as copied:
        assert {p.device.type for p in copied.parameters()} == {"meta"}
        assert not any(module.training for module in copied.modules())
    assert [module.training for module in encoder.modules()] == modes
    assert {name: p.data_ptr() for name, p in encoder.named_parameters()} == weights


def test_embeddings_say_what_made_them_and_not_where(make_store, tmp_path):
    store = make_store()
    plain = (*LIGHT, "method=vitae", "optim.epochs=1")
    subjects = [f"s{i:03d}" for i in range(6)]
    run = pretrain(store.path, tmp_path / "run", settings=plain, subjects=subjects)
    out = embed(run, store.path, run / "e.parquet")
    for name in ("e", "e.untrained", "e.raw"):
        assert str(tmp_path).encode() not in (run / f"{name}.parquet").read_bytes()
    told = Embeddings.load(out).provenance
    assert (told["run"], told["store"]) == ("run", "store")
    assert (told["method"], told["name"]) == ("vitae", "ViT-AE")
    assert told["pretrained_on"] == subjects
    assert StoreInfo.parse(told["prepared"]) == store.info


def test_images_that_are_not_finite_are_named(make_store):
    encoder = encoder_like(make_store(size=(16, 16)))
    images = np.ones((3, 2, 16, 16), np.float32)
    images[1, 0, 3, 3] = np.nan
    with pytest.raises(RunError, match="features of image 1 are not finite"):
        encoder.embed_images(images)
