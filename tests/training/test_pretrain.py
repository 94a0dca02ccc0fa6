"""Training end to end on tiny stores: what a run holds, resuming, and what is refused."""

import json
import time

import numpy as np
import pandas as pd
import pytest
import torch
import zarr

from tests.conftest import TINY
from vitaepp.data.checkpoints import load_checkpoint
from vitaepp.data.loading import trained_among
from vitaepp.data.runfolder import read_subjects
from vitaepp.data.store import Store
from vitaepp.encoder.embed import embed
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RecipeError, RunError, StoreError, TrainingError
from vitaepp.methods import build_method
from vitaepp.recipe.recipe import Recipe
from vitaepp.recipe.sections import DataSettings
from vitaepp.training.module import Training
from vitaepp.training.pretrain import pretrain
from vitaepp.training.run import announce, count_parameters

#: Where the losses are not the subject: the one that costs least.
PLAIN = (*TINY, "method=vitae")


def weights(run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "last.ckpt")["state_dict"]


@pytest.mark.parametrize("size", [(16, 16, 16), (32, 16)])
def test_a_run_holds_what_the_contract_says(make_store, tmp_path, size):
    store = make_store(size=size)
    run = pretrain(store.path, tmp_path / "run", settings=TINY)
    history = pd.read_csv(run / "metrics.csv")
    assert list(history.epoch) == [0, 1, 2]
    for term in ("reconstruction", "perceptual", "edge", "contrastive"):
        assert history[f"loss/{term}"].notna().all()
        assert history[f"weighted/{term}"].notna().all()
    sums = history.filter(like="weighted/").sum(axis=1)
    assert torch.allclose(torch.tensor(sums), torch.tensor(history.loss), atol=1e-5)
    assert Recipe.load(run / "recipe.yaml").optim.epochs == 3
    encoder = Encoder.from_pretrained(run)
    cells = 2 ** len(size)  # of each, the mean and the maximum; gradients of both modalities
    gradients = {2: 9 * 8 * 4, 3: 13 * 64}[len(size)]
    assert encoder.embed(store).shape == (len(store), 2 * cells * 48 + 2 * gradients)
    assert not any("perceptual" in name for name in weights(run))


@pytest.mark.parametrize(
    "method",
    [
        "vitae++",
        "vitae",
        "loss.reconstruction.weight=0,loss.edge.weight=0,loss.perceptual.weight=0",  # ViT + L_CL
        "simsiam",
        "mocov3",
        "simsiam,model.backbone=resnet18,model.pool=mean",
    ],
)
def test_parameters_are_counted_by_part(method):
    first, *more = method.split(",")
    named = first if "=" in first else f"method={first}"
    heads = ("simsiam.projection_dim=16", "mocov3.hidden_dim=16", "mocov3.projection_dim=16")
    recipe = Recipe.load(settings=(*TINY, *heads, named, *more))
    built = build_method(recipe, 2, (16, 16))

    def count(*parts, of=lambda name: True):
        named = (pair for part in parts if part for pair in part.named_parameters())
        return sum(value.numel() for name, value in named if of(name))

    def decodes(name):
        return "decoder" in name or "mask_token" in name

    found = count_parameters(built)
    assert found.pop("encoder") == count(built.backbone, of=lambda name: not decodes(name))
    assert found.pop("decoder", 0) == count(built.backbone, of=decodes)
    heads = [getattr(built, name, None) for name in ("projector", "predictor")]
    assert found.pop("heads", 0) == count(*heads)
    assert not found


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["optim.warmup_epochs=500"], "optim.warmup_epochs=500: cut to the 2 epochs of this"),
        (["optim.warmup_updates=9"], "optim.warmup_updates=9: cut to the 4 updates of this"),
        (["optim.warmup_epochs=9", "optim.warmup_updates=4"], ""),
        (["optim.warmup_epochs=2"], ""),
        (["optim.batch_size=64"], "rate is 0.00025, that of batches of 64 images, though there"),
        (["optim.accumulate=16"], "rate is 0.00025, that of batches of 64 images, though there"),
        (["optim.accumulate=16", "optim.lr=1"], ""),
        (["trainer.strategy=fsdp"], "trainer.strategy=fsdp: nothing to share on one device"),
        ([], ""),
    ],
)
def test_a_schedule_that_is_not_what_it_seems_is_told(make_store, capsys, settings, line):
    store = make_store(subjects=8)
    recipe = Recipe.load(settings=(*TINY, "optim.epochs=2", *settings))
    described = {"trained_on": 8, "devices": 1, "updates": 4, "device": "CPU", "precision": "32"}
    announce(recipe, store, described | {"parameters": {"encoder": 1}})
    told = capsys.readouterr().err
    marks = ("cut to", "rate is", "nothing to share")
    assert sum(told.count(mark) for mark in marks) == bool(line)
    assert line in told


def test_plain_vitae_computes_only_its_term(make_store, tmp_path):
    run = pretrain(make_store().path, tmp_path / "run", settings=(*TINY, "method=vitae"))
    history = pd.read_csv(run / "metrics.csv")
    assert [c for c in history if c.startswith("loss/")] == ["loss/reconstruction"]


def test_a_recipe_takes_settings_as_its_file_does(make_store, tmp_path):
    recipe = Recipe.load(settings=TINY)
    settings = ["method=vitae", "optim.epochs=1"]
    run = pretrain(make_store().path, tmp_path / "run", recipe=recipe, settings=settings)
    assert len(pd.read_csv(run / "metrics.csv")) == 1
    recipe.save(tmp_path / "recipe.yaml")
    other = tmp_path / "other"
    pretrain(tmp_path / "store", other, recipe=tmp_path / "recipe.yaml", settings=settings)
    assert (run / "recipe.yaml").read_text() == (other / "recipe.yaml").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["method"], summary["name"]) == ("vitae", "ViT-AE")
    config = json.loads((run / "encoder" / "config.json").read_text())
    assert (config["method"], config["name"]) == ("vitae", "ViT-AE")


def test_resumed_training_ends_where_an_uninterrupted_one_does(make_store, tmp_path, monkeypatch):
    store = make_store(subjects=6)
    settings = (*TINY, "trainer.checkpoint_every=0")
    whole = pretrain(store.path, tmp_path / "whole", settings=settings)

    step = Training.training_step

    def dies(self, batch, index):
        if self.current_epoch == 2:
            raise SystemExit("killed")
        return step(self, batch, index)

    monkeypatch.setattr(Training, "training_step", dies)
    with pytest.raises(SystemExit):
        pretrain(store.path, tmp_path / "cut", settings=settings)
    monkeypatch.setattr(Training, "training_step", step)
    with pytest.raises(RunError, match="training has not ended"):
        Encoder.from_pretrained(tmp_path / "cut")
    with pytest.raises(RunError, match="`resume=True`"):
        pretrain(store.path, tmp_path / "cut", settings=settings)
    with pytest.raises(RunError, match=r"optim\.batch_size=4, now asked to go on with 9"):
        pretrain(store.path, tmp_path / "cut", settings="optim.batch_size=9", resume=True)
    cut = pretrain(store.path, tmp_path / "cut", resume=True)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(cut)[name]), name
    history = pd.read_csv(cut / "metrics.csv").drop(columns=["seconds", "waiting"])
    pd.testing.assert_frame_equal(
        history, pd.read_csv(whole / "metrics.csv").drop(columns=["seconds", "waiting"])
    )


def test_each_epoch_sees_every_subject_once_in_its_own_order(make_store, tmp_path, monkeypatch):
    seen = []
    step = Training.training_step

    def remember(self, batch, index):
        seen.append((self.current_epoch, batch[1]))
        return step(self, batch, index)

    monkeypatch.setattr(Training, "training_step", remember)
    pretrain(make_store(subjects=10).path, tmp_path / "run", settings=PLAIN)
    orders = [[row for e, rows in seen if e == epoch for row in rows] for epoch in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_processes_share_the_batches_of_one(make_store):
    from vitaepp.data.loading import EpochOrder

    alone = EpochOrder(range(11), batch_size=4, seed=3)
    parts = [EpochOrder(range(11), 2, seed=3, rank=rank, processes=2) for rank in range(2)]
    for order in (alone, *parts):
        order.set_epoch(5)
    whole = [part.rows for part in alone]
    assert [len(batch) for batch in whole] == [4, 4, 3]
    pairs = list(zip(*parts, strict=True))
    assert [[*first.rows, *second.rows] for first, second in pairs] == whole
    assert [len(order) for order in parts] == [3, 3]
    # Two of the last three are in the first process: the mean over processes is that over images.
    assert [part.weight for part in pairs[2]] == pytest.approx([4 / 3, 2 / 3])


@pytest.mark.parametrize(
    "settings",
    [
        ("trainer.precision=bf16",),
        ("trainer.precision=bf16", "optim.clip_norm=1"),
        ("optim.accumulate=2",),
    ],
)
def test_mixed_precision_and_accumulation_train(make_store, tmp_path, settings):
    run = pretrain(make_store().path, tmp_path / "run", settings=(*TINY, *settings))
    history = pd.read_csv(run / "metrics.csv")
    assert history.loss.notna().all()


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_reading_from_disk_trains_like_reading_from_memory(make_store, tmp_path, cache):
    store = make_store()
    settings = (*PLAIN, "optim.epochs=1", "data.workers=0")
    memory = pretrain(store.path, tmp_path / "auto", settings=settings)
    other = pretrain(store.path, tmp_path / cache, settings=(*settings, f"data.cache={cache}"))
    assert all(torch.equal(v, weights(other)[k]) for k, v in weights(memory).items())


def test_the_time_spent_waiting_for_data_is_told(make_store, tmp_path, monkeypatch):
    from vitaepp.data.loading import StoreImages

    settings = (*TINY, "method=vitae", "optim.epochs=2")
    get = StoreImages.__getitem__

    def slowly(self, part):
        time.sleep(0.2)
        return get(self, part)

    monkeypatch.setattr(StoreImages, "__getitem__", slowly)
    run = pretrain(make_store().path, tmp_path / "run", settings=settings)
    history = pd.read_csv(run / "metrics.csv")
    waited = history.waiting * history.seconds
    assert (waited > 0.39).all()  # two steps an epoch
    told = json.loads((run / "summary.json").read_text())["waiting"]
    assert told == pytest.approx(waited.sum() / history.seconds.sum(), abs=1e-3)
    assert told < 1


def test_the_untrained_control_is_where_training_began(make_store, tmp_path):
    store = make_store()
    recipe = Recipe.load(settings=PLAIN)
    start = Encoder.untrained(recipe, store.info).backbone.state_dict()
    from vitaepp.methods import build_method

    method = build_method(recipe, 2, store.info.size)
    for name, value in start.items():
        assert torch.equal(value, method.backbone.state_dict()[name]), name
    run = pretrain(store.path, tmp_path / "run", settings=PLAIN)
    trained = Encoder.from_pretrained(run).backbone.state_dict()
    assert not torch.equal(trained["blocks.0.attn.qkv.weight"], start["blocks.0.attn.qkv.weight"])


def test_a_loss_that_is_not_finite_names_term_and_step(make_store, tmp_path, monkeypatch):
    import vitaepp.methods.vitaepp as method

    monkeypatch.setattr(method, "edge_loss", lambda *_, **__: torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match=r"edge loss is nan at step 0 \(epoch 0\)"):
        pretrain(make_store().path, tmp_path / "run", settings=TINY)


def test_an_image_that_is_not_finite_is_named_and_not_the_learning_rate(make_store, tmp_path):
    store = make_store()
    run = pretrain(store.path, tmp_path / "run", settings=(*PLAIN, "optim.epochs=1"))
    images = zarr.open_array(store.path / "images.zarr", mode="r+")
    spoilt = np.asarray(images[1])
    spoilt[0, 0] = np.inf
    images[1] = spoilt
    told = rf"images\.zarr/c/1, of subject {store.table.subject[1]}, is not finite"
    with pytest.raises(StoreError, match=told):
        pretrain(store.path, tmp_path / "other", settings=PLAIN)
    for rows in (None, [0, 1]):
        with pytest.raises(StoreError, match=told):
            Encoder.from_pretrained(run).embed(Store(store.path), rows)


def test_weights_that_are_not_finite_are_neither_saved_nor_embedded(make_store, tmp_path):
    store = make_store(subjects=4).path
    wild = (*PLAIN, "optim.epochs=1", "optim.base_lr=1e41", "optim.warmup_epochs=0")
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"is not finite after step 1 .* was not saved; start"):
        pretrain(store, run, settings=(*wild, "trainer.precision=32"))
    assert not (run / "last.ckpt").exists()
    assert not (run / "encoder").exists()
    good = pretrain(store, tmp_path / "good", settings=(*PLAIN, "optim.epochs=1"))
    encoder = Encoder.from_pretrained(good)
    encoder.backbone.norm.weight.data[0] = torch.nan
    encoder.save(good / "encoder")
    with pytest.raises(RunError, match="features are not finite"):
        embed(good, store, tmp_path / "features.parquet")
    assert not (tmp_path / "features.parquet").exists()


def test_an_encoder_of_another_training_is_never_left_in_a_run(make_store, tmp_path):
    store = make_store(subjects=4).path
    run = pretrain(store, tmp_path / "run", settings=(*PLAIN, "optim.epochs=1"))
    for name in ("last.ckpt", "previous.ckpt"):
        (run / name).unlink(missing_ok=True)
    before = (run / "encoder" / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match="holds a run already"):
        pretrain(store, run, settings=(*PLAIN, "model.embed_dim=96"))
    with pytest.raises(RunError, match="an encoder, but no checkpoint to go on from"):
        pretrain(store, run, resume=True)
    assert (run / "encoder" / "model.safetensors").read_bytes() == before


def test_what_was_refused_can_be_corrected_in_the_same_folder(make_store, tmp_path):
    store = make_store(subjects=1).path
    with pytest.raises(TrainingError, match="needs batches of at least 2"):
        pretrain(store, tmp_path / "run", settings=(*TINY, "method=mocov3"))
    assert pretrain(store, tmp_path / "run", settings=(*PLAIN, "optim.epochs=1")).is_dir()


def test_leftovers_of_a_killed_training_are_cleared_and_others_are_not(make_store, tmp_path):
    run = tmp_path / "run"
    (run / ".tmp-1-a-encoder").mkdir(parents=True)
    (run / ".tmp-1-a-metrics.csv").touch()
    (run / ".tmp-1-a-embeddings.parquet").touch()  # may be being written
    pretrain(make_store(subjects=4).path, run, settings=(*PLAIN, "optim.epochs=1"))
    assert [p.name for p in run.glob(".tmp-*")] == [".tmp-1-a-embeddings.parquet"]


def test_training_on_the_training_split_only(make_store, tmp_path):
    from vitaepp.data.loading import training_rows
    from vitaepp.recipe.sections import DataSettings

    store = make_store(splits=True)

    def rows(store, split=None, subjects=None):
        return training_rows(store, DataSettings(split=split), subjects)

    assert rows(store) == [0, 1, 2, 4, 5, 6]
    assert rows(store, "test") == [3, 7]
    with pytest.raises(RecipeError, match="did you mean train"):
        rows(store, "trian")
    other = make_store(name="other")
    assert rows(other) == list(range(8))
    assert rows(other, subjects=["s005", "s001"]) == [1, 5]
    with pytest.raises(RecipeError, match=r"subject s01: not in .*did you mean s001"):
        rows(other, subjects=["s01"])
    with pytest.raises(RecipeError, match="none of 1 listed subject can be trained on"):
        rows(store, subjects=["s003"])


def test_listed_subjects_that_are_not_trained_on_are_told(make_store, tmp_path, capsys):
    store, run = make_store(splits=True), tmp_path / "run"
    listed = ["s006", "s003", "s001", "s007", "s001"]  # every fourth is in the test split
    settings = (*PLAIN, "optim.epochs=1")
    pretrain(store.path, run, settings=settings, subjects=listed)
    line = "2 of 4 listed subjects are not in the training split and are not trained on: s003, s007"
    assert capsys.readouterr().err.count(line) == 1
    assert (run / "subjects.txt").read_text() == "s006\ns001\n"
    assert json.loads((run / "summary.json").read_text())["trained_on"] == 2
    # The list of an older version had them all.
    (run / "subjects.txt").write_text("".join(f"{s}\n" for s in listed))
    for same in (listed, ["s001", "s006"], None):
        pretrain(store.path, run, resume=True, subjects=same)
        assert "training has ended already" in capsys.readouterr().err
    for other in (["s001"], [*listed, "s000"]):
        with pytest.raises(RunError, match="began with other subjects"):
            pretrain(store.path, run, resume=True, subjects=other)
    _, line = trained_among(store, DataSettings(without_label="bright"), [0], ["s000", "s001"])
    assert line.startswith("1 of 2 listed subjects is not in the training split, or without bright")
    assert trained_among(store, DataSettings(), [0, 1], ["s001", "s000"]) == (["s001", "s000"], "")


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_of_subjects_is_read_however_it_was_saved(tmp_path, coding, end):
    text = end.join(["s1", " sub-ä ", "", "s2"])
    (tmp_path / "list.txt").write_bytes(text.encode(coding))
    assert read_subjects(tmp_path / "list.txt") == ["s1", "sub-ä", "s2"]


def test_training_on_those_without_a_label_only(make_store):
    from vitaepp.data.loading import training_rows

    store = make_store(splits=True)
    with pytest.raises(RecipeError, match=r"every subject .* has this label"):
        training_rows(store, DataSettings(without_label="bright"))
    store.table["bright"] = pd.array([0, None, 1, None, 1, None, 0, 1], "Int64")
    assert training_rows(store, DataSettings(without_label="bright")) == [1, 5]
    assert training_rows(store, DataSettings(without_label="bright", split="test")) == [3]
    store.table["site"] = ["a", "", None, "b", " ", "c", "d", "e"]
    assert training_rows(store, DataSettings(without_label="site")) == [1, 2, 4]
    with pytest.raises(RecipeError, match="no such label; did you mean bright"):
        training_rows(store, DataSettings(without_label="brihgt"))


def test_starting_from_another_run(make_store, tmp_path):
    store = make_store()
    first = pretrain(store.path, tmp_path / "first", settings=PLAIN)
    frozen = (*PLAIN, f"model.init={first}", "optim.epochs=1", "optim.base_lr=1e-12")
    second = pretrain(store.path, tmp_path / "second", settings=frozen)
    a = Encoder.from_pretrained(first).backbone.state_dict()
    b = Encoder.from_pretrained(second).backbone.state_dict()
    assert all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)
    wide = (*frozen, "model.embed_dim=96")
    with pytest.raises(RunError, match=r"model\.init=.* 48 wide .*; set model\.embed_dim=48"):
        pretrain(store.path, tmp_path / "third", settings=wide)


def test_resuming_nothing_starts_only_what_was_asked_for(make_store, tmp_path, capsys):
    store = make_store()
    with pytest.raises(RunError, match="no run to resume"):
        pretrain(store.path, tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()
    # Died before its first checkpoint: the recipe is there, and goes on being the recipe.
    (tmp_path / "run").mkdir()
    Recipe.load(settings=PLAIN).save(tmp_path / "run" / "recipe.yaml")
    run = pretrain(store.path, tmp_path / "run", resume=True)
    assert Recipe.load(run / "recipe.yaml").model.embed_dim == 48
    assert "starting anew" in capsys.readouterr().err


def test_what_is_not_a_run_or_a_checkpoint_is_refused(make_store, tmp_path):
    store = make_store()
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="is a file; a run is a folder"):
        pretrain(store.path, tmp_path / "file", settings=PLAIN)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="not empty and not a run"):
        pretrain(store.path, tmp_path / "mine", settings=PLAIN)
    run = pretrain(store.path, tmp_path / "run", settings=(*PLAIN, "optim.epochs=1"))
    (run / "last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match="damaged, and no checkpoint from before"):
        pretrain(store.path, run, resume=True)
    torch.save({"model": {}}, run / "last.ckpt")
    with pytest.raises(RunError, match="not a checkpoint of vitaepp"):
        pretrain(store.path, run, resume=True)
    with pytest.raises(RunError, match="no such run"):
        embed(tmp_path / "nowhere", store.path, tmp_path / "x.parquet")


def test_a_block_that_the_encoder_does_not_have_is_refused(make_store, tmp_path):
    store = make_store(subjects=2)
    for block in (3, 300):
        with pytest.raises(RecipeError, match=rf"pool_block={block}: .* 2 blocks; give at most 2"):
            pretrain(store.path, tmp_path / "run", settings=(*PLAIN, f"model.pool_block={block}"))
    assert not (tmp_path / "run").exists()
    Training(Recipe.load(settings=(*PLAIN, "model.pool_block=2")), store)
    Training(Recipe.load(settings=(*PLAIN, "model.pool_block=3")), store, resumed=True)


def test_images_that_patches_do_not_divide_are_refused(make_store, tmp_path):
    store = make_store(size=(16, 20, 16))
    with pytest.raises(RecipeError, match="images of 16,16,16 can; prepare with another `size`"):
        pretrain(store.path, tmp_path / "run", settings=PLAIN)
    assert not (tmp_path / "run").exists()
