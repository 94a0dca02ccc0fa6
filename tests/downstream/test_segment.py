"""Segmentation: the decoder, masks that move with images, windows, Dice and distances."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

import vitaepp
from tests.conftest import LIGHT, write_store
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.data.storetable import Record
from vitaepp.data.storewriter import StoreWriter, stage
from vitaepp.downstream.fold import Job, Task, _method
from vitaepp.downstream.outcome import difference
from vitaepp.downstream.segment import (
    _by_fold,
    _say_what_is_lost,
    check_windows,
    mask_scores,
    planned,
)
from vitaepp.downstream.tuning import Base, Tuning, person_folds
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RecipeError, RunError, StoreError
from vitaepp.methods.segmenter import Segmenter, label_weights
from vitaepp.methods.supervised import Supervised
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.nn.unetr import UnetrDecoder
from vitaepp.recipe.effect import tuned_by, without_effect
from vitaepp.recipe.recipe import Recipe
from vitaepp.recipe.sections import AugmentationSettings
from vitaepp.views.draws import Draws
from vitaepp.views.transforms import random_view, random_view_of


def write_masked_store(
    path: Path, size: tuple[int, ...], subjects: int = 10, seed: int = 0, **facts: object
) -> Store:
    """Images of a bright and a dark box, which are labels 2 and 5 of their masks."""
    rng = np.random.default_rng(seed)
    spacing = (1.0, 1.0, 2.0)[: len(size)]
    info = StoreInfo(
        ("t1",), size, spacing, "float16", "image", masks=True, mask_names=((2, "bright"),), **facts
    )
    labels = pd.DataFrame({"subject": [f"s{i}" for i in range(subjects)], "split": ""})
    with StoreWriter(path, info) as writer:
        for i, subject in enumerate(labels.subject):
            mask = np.zeros(size, np.uint8)
            corner = rng.integers(1, 5, len(size))
            for value, shift in ((2, 0), (5, 5)):
                box = tuple(slice(c + shift, c + shift + 5) for c in corner)
                mask[box] = value
            image = 100 + 80.0 * (mask == 2) - 80.0 * (mask == 5) + rng.normal(0, 5, size)
            affine = tuple(np.diag([*spacing, 1.0]).ravel())
            record = Record(subject, affine, (0.0,), (255.0,), ("t1",), "x")
            if i == 0:  # one has no mask
                stage(writer.path, info, image[None].clip(0, 255), record)
            else:
                record = replace(record, mask_checksum=f"mask {seed}")
                stage(writer.path, info, image[None].clip(0, 255), record, mask)
        writer.commit(labels, [])
    return Store(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A store with masks, one with larger images, and a run on the first."""
    root = tmp_path_factory.mktemp("segment")
    write_masked_store(root / "store", (16, 16, 16))
    write_masked_store(root / "large", (20, 16, 24))
    write_store(root / "unmasked", 6, (16, 16, 16), ("t1",))
    settings = [*LIGHT, "method=vitae", "optim.epochs=1", "model.patch_size=4"]
    vitaepp.pretrain(root / "store", root / "run", settings=settings)
    return root


SHORT = (
    *("optim.epochs=12", "optim.batch_size=2", "optim.lr=0.02", "optim.warmup_epochs=1"),
    *("finetune.width=4", "views.first.crop=1", "views.first.rotation=0", "views.first.flip=none"),
)


@pytest.mark.parametrize("name", ["store", "large"])
def test_boxes_are_found_and_written_in_the_scans_space(trained, tmp_path, name):
    how = {"task": "segmentation", "settings": SHORT, "folds": 2}
    found = vitaepp.finetune(trained / "run", trained / name, tmp_path / "out", **how)
    assert found["labels"] == {"bright": 2, "5": 5}
    assert found["n"] == 9
    assert found["mean"]["dice"] > 0.3
    table = pd.read_csv(tmp_path / "out/scores.csv")
    store = Store(trained / name)
    for row in table.itertuples():
        scan = nib.load(tmp_path / f"out/masks/{row.subject}.nii.gz")
        at = list(store.table.subject).index(row.subject)
        assert np.allclose(scan.affine.ravel(), store.table.affine[at])
        predicted, truth = np.asarray(scan.dataobj), store.read_masks([at])[0]
        assert set(np.unique(predicted)) <= {0, 2, 5}
        for value, column in ((2, "dice/bright"), (5, "dice/5")):
            a, b = predicted == value, truth == value
            dice = 2 * (a & b).sum() / (a.sum() + b.sum())
            assert table.loc[row.Index, column] == pytest.approx(dice, abs=1e-6)
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["finetune"]["width"] == 4
    assert "mixup" not in metrics["finetune"]  # of classes and values
    assert metrics["mean"]["dice"] == pytest.approx(table.groupby("fold").dice.mean().mean())
    assert metrics["controls"]["scratch"]["folds"] != metrics["folds"]
    assert "dice: fine-tuned minus from scratch" in str(found)


def test_a_training_is_the_same_whatever_was_drawn_before_it(trained, tmp_path):
    run, found = RunFolder(trained / "run"), []
    recipe = run.recipe().with_settings([*SHORT, "optim.epochs=1"])
    for seed in (0, 1):
        base = Base(run, Store(trained / "store"), tmp_path / f"{seed}", recipe, 2, 0)
        torch.manual_seed(seed)
        found.append(planned(base).predictions(0, "pretrained"))
    assert np.array_equal(*found)


CHANGES = (
    *("finetune.mixup=0.5", "finetune.class_weights=none", "finetune.width=3"),
    *("finetune.layer_decay=0.5", "finetune.blocks=1", "model.pool=mean", "model.drop_path=0.5"),
    *("method=simsiam", "loss.edge.weight=3", "mocov3.temperature=0.5", "views.second.noise=1"),
    *("views.modality_dropout=0.5", "views.first.rotation=50", "views.normalize=foreground"),
)


@pytest.mark.parametrize("task", get_args(Task))
def test_settings_that_are_told_change_nothing_and_all_others_do(trained, task):
    store, run = Store(trained / "store"), RunFolder(trained / "run")
    images, rows = torch.from_numpy(store.read(range(1, 5))), range(1, 5)
    job = Job(task, [], [], [], {}, {"segmentation": 3, "classification": 2}.get(task, 1))

    def learned(recipe):
        encoder = Encoder.untrained(run.recipe(), store.info)
        targets = torch.arange(len(store)).double() // 4
        method = _method(job, encoder, recipe, store, targets, rows).train()
        generator = torch.Generator().manual_seed(0)
        if isinstance(method, Supervised):
            method.head.weight.data.normal_(generator=generator)
        groups = [factor for _, factor in method.parameter_groups()]
        return method(images, Draws(0, 0, rows), 0.5).loss.item(), groups

    recipe = run.recipe().with_settings(["finetune.width=4", "model.drop_path=0.1"])
    before = learned(recipe)
    for change in CHANGES:
        changed, name = recipe.with_settings(change), change.partition("=")[0]
        lines = list(without_effect(changed, {name}, task))
        assert bool(lines) == (learned(changed) == before), (change, lines)
        told = tuned_by(changed, task)
        assert not lines or name.removeprefix("finetune.") not in told
    frozen = recipe.with_settings(["finetune.blocks=0", "finetune.layer_decay=0.5"])
    (line,) = without_effect(frozen, {"finetune.layer_decay", "finetune.blocks"}, task)
    assert line == "finetune.blocks=0: finetune.layer_decay=0.5 has no effect"


def test_fine_tuned_and_from_scratch_begin_with_one_decoder(trained):
    store, run = Store(trained / "store"), RunFolder(trained / "run")
    job, decoders = Job("segmentation", [], [], [], {}, 3), []
    for encoder in (Encoder.from_pretrained(run.path), Encoder.untrained(run.recipe(), store.info)):
        torch.manual_seed(len(decoders))
        method = _method(job, encoder, run.recipe(), store, torch.zeros(10), [1])
        decoders.append(torch.cat([p.flatten() for p in method.decoder.parameters()]))
    assert torch.equal(*decoders)


def test_what_does_not_fit_is_refused_in_a_line(trained, tmp_path):
    run, out = trained / "run", tmp_path / "out"
    with pytest.raises(StoreError, match="has no masks; prepare a store with `keep_masks`"):
        vitaepp.finetune(run, trained / "unmasked", out, task="segmentation")
    write_masked_store(tmp_path / "small", (16, 16, 8))
    with pytest.raises(RunError, match="images of 16×16×8, but the encoder takes windows of"):
        vitaepp.finetune(run, tmp_path / "small", out, task="segmentation")
    with pytest.raises(RecipeError, match=r"^patch_size=6,6: segmentation takes patches with one"):
        UnetrDecoder(1, 48, 4, (6, 6), 2, 4)
    with pytest.raises(RecipeError, match="with patches of 16 takes 4 blocks or more"):
        UnetrDecoder(1, 48, 3, (16, 16), 2, 4)


@pytest.mark.parametrize(("patch", "ndim"), [(2, 3), (4, 2), (8, 3), (16, 2)])
def test_any_patch_that_is_a_power_of_two_gives_a_score_a_voxel(patch, ndim):
    encoder = VisionTransformer(2, (16,) * ndim, (patch,) * ndim, 24, 4, 2)
    decoder = UnetrDecoder(2, 24, 4, (patch,) * ndim, labels=3, width=4)
    images = torch.randn(2, 2, *(16,) * ndim)
    scores = decoder(images, encoder.feature_maps(images, decoder.after))
    assert scores.shape == (2, 3, *(16,) * ndim)


def test_unetr_of_monai_is_this_decoder_at_patches_of_16():
    """The same weights give the same scores, whoever built the blocks."""
    from monai.networks.nets.unetr import UNETR

    torch.manual_seed(0)
    monai = UNETR(1, 3, (32, 32), 4, 48, 96, 4, "conv", "instance", True, True, spatial_dims=2)
    decoder = UnetrDecoder(1, 48, 12, (16, 16), labels=3, width=4)
    assert decoder.after == [3, 6, 9, 12]
    decoder.of_image.load_state_dict(monai.encoder1.state_dict())
    for own, name in zip(decoder.of_blocks, ("encoder2", "encoder3", "encoder4"), strict=True):
        own.load_state_dict(getattr(monai, name).state_dict())
    for own, name in zip(decoder.up, ("decoder5", "decoder4", "decoder3", "decoder2"), strict=True):
        own.load_state_dict(getattr(monai, name).state_dict())
    decoder.out.load_state_dict(monai.out.state_dict())
    images = torch.randn(2, 1, 32, 32)
    last, hidden = monai.vit(images)
    maps = [monai.proj_feat(tokens) for tokens in (hidden[3], hidden[6], hidden[9], last)]
    torch.testing.assert_close(decoder(images, maps), monai(images))


def test_feature_maps_are_the_tokens_of_the_blocks():
    encoder = VisionTransformer(1, (16, 24), (8, 8), 24, 4, 2).eval()
    images = torch.randn(2, 1, 16, 24)
    early, last = encoder.feature_maps(images, [2, 4])
    torch.testing.assert_close(last.flatten(2).mT, encoder(images)[:, 1:])
    torch.testing.assert_close(encoder.norm(early.flatten(2).mT), encoder(images, 2)[:, 1:])


def test_masks_move_with_their_images():
    settings = AugmentationSettings(log_gamma=0.0, noise=0.0, flip="all")
    images = torch.rand(3, 1, 12, 16, 8)
    view, moved = random_view_of(images, images, Draws(0, 0, range(3)), settings)
    assert torch.equal(view, moved)
    assert not torch.equal(view, images)
    assert torch.equal(view, random_view(images, Draws(0, 0, range(3)), settings))


def segmenter(size: tuple[int, ...], masks: torch.Tensor, settings=()) -> Segmenter:
    plain = [f"views.first.{k}" for k in ("crop=1", "flip=none", "rotation=0", "log_gamma=0")]
    recipe = Recipe.load(settings=["finetune.width=4", "model.patch_size=4", *plain, *settings])
    torch.manual_seed(0)
    encoder = VisionTransformer(1, size, (4,) * len(size), 24, 2, 2)
    return Segmenter(recipe, encoder, masks, label_weights(masks, 3), size, 1)


def test_windows_show_labels_and_their_masks():
    masks = torch.zeros(40, 20, 24, dtype=torch.uint8)
    masks[:, 15:18, 2:4] = 2
    method = segmenter((8, 8), masks)
    images = masks[:, None].float() * 100
    windows, cut = method._windows(images, masks, Draws(0, 0, range(40)))
    assert windows.shape == (40, 1, 8, 8)
    assert torch.equal(windows[:, 0], cut * 100.0)
    shown = cut.flatten(1).any(1).float().mean()
    assert 0.4 < shown < 0.9  # about every other one, and some by chance


def test_the_loss_of_a_training_step_is_that_of_evaluation_without_augmentation():
    masks = torch.zeros(3, 16, 16, dtype=torch.uint8)
    masks[:, 2:9, 4:12] = 1
    masks[:, 9:14, 4:8] = 2
    method = segmenter((16, 16), masks).eval()
    images = torch.randint(0, 256, (3, 1, 16, 16))
    step = method(images, Draws(0, 0, range(3)), 1.0).loss
    total, count = method.evaluate(images, [0, 1, 2])
    assert torch.isclose(step, total / count, atol=1e-5)
    assert method.predict(images).shape == (3, 3, 16, 16)


def test_the_loss_is_dice_and_a_cross_entropy_in_which_rare_labels_count_more_at_first():
    masks = torch.zeros(1, 8, 8, dtype=torch.uint8)
    masks[:, :2, :2], masks[:, 4:, 4:] = 1, 2  # 4 and 16 of 64 voxels
    method = segmenter((8, 8), masks)
    weights = torch.tensor([1.0, 11**0.5, 2.75**0.5])
    assert torch.allclose(method.weights, weights)
    scores = torch.randn(1, 3, 8, 8, requires_grad=True)
    shares = scores.softmax(dim=1)[0]
    one_hot = torch.stack([masks[0] == label for label in range(3)]).float()
    both, each = (shares * one_hot).sum((1, 2)), (shares + one_hot).sum((1, 2))
    dice = 1 - (2 * both / each)[1:].mean()
    for progress, weight in ((0.0, weights), (0.5, weights.sqrt()), (1.0, torch.ones(3))):
        counted = (weight[:, None, None] * one_hot).sum()
        entropy = -(weight[:, None, None] * one_hot * shares.log()).sum() / counted
        loss = method._loss(scores, masks, progress)
        assert loss.item() == pytest.approx((dice + entropy).item(), rel=1e-4)
    # A label that is given up gets a gradient all the same.
    given_up = torch.zeros(1, 3, 8, 8)
    given_up[:, 1] = -20
    given_up.requires_grad_()
    method._loss(given_up, masks, 0.0).backward()
    assert given_up.grad[0, 1, :2, :2].sum() < -0.1


def test_a_label_that_training_lost_is_told(trained, tmp_path, capsys, monkeypatch):
    store = Store(trained / "store")

    def without_the_second(self, k, start):
        found = store.read_masks(self.table.index[self.parts[k].test].tolist())
        return (found == 2).astype(np.uint8)

    monkeypatch.setattr(Tuning, "predictions", without_the_second)
    monkeypatch.setattr(Tuning, "epochs", lambda self, start: [1, 1])
    how = {"task": "segmentation", "settings": SHORT, "folds": 2}
    found = vitaepp.finetune(trained / "run", trained / "store", tmp_path / "out", **how)
    assert found["mean"]["dice/bright"] == 1
    said = capsys.readouterr().err
    assert "fine-tuned: label 5 is found in none of 9 tested subjects that have it" in said
    assert "label bright" not in said


def test_dice_and_distance_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    truth = np.zeros((3, 12, 10, 8), np.uint8)
    predicted = np.zeros_like(truth)
    truth[:2, 2:8, 2:7, 1:6] = 1
    predicted[0, 3:9, 2:7, 2:6] = 1
    truth[1, 9:11, 1:4, 1:4] = 2  # missed
    predicted[1] = np.where(rng.random(truth[1].shape) < 0.9, truth[1] == 1, 0)
    table = mask_scores(truth, predicted, ["one", "two"], (1.0, 2.0, 0.5))
    scale = np.array([1.0, 2.0, 0.5])
    for i in (0, 1):
        a, b = truth[i] == 1, predicted[i] == 1
        assert table["dice/one"][i] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
        edges = [np.argwhere(m & ~binary_erosion(m)) * scale for m in (a, b)]
        ways = [cKDTree(p).query(q)[0] for p, q in (edges, edges[::-1])]
        expected = max(np.percentile(way, 95) for way in ways)
        assert table["hd95/one"][i] == pytest.approx(expected, rel=1e-4)
    assert table["dice/two"].tolist() == [1, 0, 1]
    assert np.isnan(table["hd95/two"]).all()
    assert table["dice"][2] == 1
    assert table["dice"][1] == pytest.approx(table["dice/one"][1] / 2)


def test_means_are_of_the_subjects_that_their_difference_is_of():
    """One voxel too many where there is nothing counts in the means and in the test alike."""
    truth = np.zeros((3, 8, 8, 8), np.uint8)
    truth[:2, 2:5, 2:5, 2:5] = 1
    right, wrong = truth.copy(), truth.copy()
    wrong[2, 0, 0, 0] = 1
    wrong[1] = 0
    tables = [mask_scores(truth, found, ["1"], None) for found in (right, wrong)]
    for table in tables:
        table.insert(0, "subject", list("abc"))
        table.insert(1, "fold", [0, 0, 1])
    one, other = (table.dice.tolist() for table in tables)
    assert (one, other) == ([1, 1, 1], [1, 0, 0])
    own, theirs = _by_fold(*tables), _by_fold(*tables[::-1])
    assert [fold["dice"] for fold in own] == [1, 1]  # a fold of empty masks has a Dice, too
    by_fold = np.array([a["dice"] - b["dice"] for a, b in zip(own, theirs, strict=True)])
    lead = difference("dice", by_fold[:1], np.subtract(one, other)[:2], [{"train": 9, "test": 2}])
    assert lead["mean"] == np.mean(np.subtract(one, other)[:2])
    # Distances are of the subject in which both found it.
    assert own[0]["hd95"] == theirs[0]["hd95"] == 0
    assert np.isnan(own[1]["hd95"])


def test_voxels_to_ignore_play_no_part_in_the_loss():
    torch.manual_seed(0)
    masks = torch.zeros(2, 8, 8, dtype=torch.uint8)
    masks[:, :2, :2], masks[:, 4:, 4:] = 1, 2
    cut = segmenter((8, 8), masks)
    ignoring = masks.clone()
    ignoring[:, :, 6:] = 3
    method = segmenter((8, 8), ignoring)
    assert torch.equal(method.weights, label_weights(masks[:, :, :6], 3))
    cut.weights.copy_(method.weights)
    scores = torch.randn(2, 3, 8, 8, requires_grad=True)
    for progress in (0.0, 0.5, 1.0):
        loss = method._loss(scores, ignoring, progress)
        torch.testing.assert_close(
            loss, cut._loss(scores[..., :6], masks[..., :6].contiguous(), progress)
        )
    loss.backward()
    assert not scores.grad[..., 6:].any()
    assert scores.grad[..., :6].any()
    # Nothing known at all is no error, and a step is that of evaluation.
    assert float(method._loss(scores, torch.full_like(masks, 3), 0.0).detach()) == 0
    images = torch.randint(0, 256, (2, 1, 8, 8))
    total, count = method.eval().evaluate(images, [0, 1])
    assert torch.isclose(method(images, Draws(0, 0, range(2)), 1.0).loss, total / count, atol=1e-5)
    assert method.predict(images).shape == (2, 3, 8, 8)


def test_small_weights_do_not_shrink_the_loss_beside_voxels_to_ignore():
    masks = torch.ones(400, 8, 8, dtype=torch.uint8)  # no background: weights are small
    masks[:, 4:] = 2
    masks[:, :, 6:] = 3
    method = segmenter((8, 8), masks)
    assert method.weights[1:].max() < 0.02
    scores, known = torch.randn(1, 3, 8, 8), masks[:1, :, :6].contiguous()
    dice = method._dice(scores[..., :6], known[:, None])
    mean = torch.nn.functional.cross_entropy(scores[..., :6], known.long(), method.weights)
    torch.testing.assert_close(method._loss(scores, masks[:1], 0.0), dice + mean)


def test_what_is_taken_for_an_ignore_label_is_told_or_refused(trained, tmp_path, capsys):
    run = RunFolder(trained / "run")

    def plan(*values):
        root = shutil.copytree(trained / "store", tmp_path / str(values), dirs_exist_ok=True)
        table = pd.read_parquet(root / "table.parquet")
        table["mask_labels"] = [None, *map(list, values)]
        table.to_parquet(root / "table.parquet", index=False)
        info = json.loads((root / "store.json").read_text()) | {"mask_names": []}
        (root / "store.json").write_text(json.dumps(info))
        assert Store(root).to_dict().get("ignored") == [255]
        return planned(Base(run, Store(root), tmp_path, run.recipe(), 2, 0))

    plan(*[[2, 5, 255]] * 6, *[[2]] * 2, [255])
    assert (
        "masks: 255 is an ignore label, in 7 of 9 masks; 1 of them have no label at all"
        in capsys.readouterr().err
    )
    plan(*[[2, 5, 255]] * 9)
    assert "masks: 255 is an ignore label, in 9 of 9 masks\n" in capsys.readouterr().err
    with pytest.raises(StoreError, match="it is all that 8 masks of 9 have: if it is a label"):
        plan([1, 255], *[[255]] * 8)


def test_only_subjects_that_have_a_label_count_as_those_it_is_not_found_in(capsys):
    table = pd.DataFrame({"dice/x": [0.0, 0.0, 1.0]})
    _say_what_is_lost(table, {"x": [False, True, False]}, "fine-tuned")
    assert "in none of 1 tested subject that have it" in capsys.readouterr().err
    _say_what_is_lost(table, {"x": [False] * 3}, "fine-tuned")
    assert not capsys.readouterr().err


def test_voxels_to_ignore_play_no_part_in_the_scores(trained, tmp_path, monkeypatch):
    root = shutil.copytree(trained / "store", tmp_path / "store")
    table = pd.read_parquet(root / "table.parquet")
    table["mask_labels"] = [None if v is None else [*v, 255] for v in table.mask_labels]
    table.at[2, "mask_labels"] = [255]
    table.to_parquet(root / "table.parquet", index=False)
    masks = zarr.open_array(root / "masks.zarr")
    masks[1:, :, :, 12:] = 255
    masks[2] = 255  # nobody has looked at it
    store = Store(root)

    def all_of_it_wrong_where_nobody_knows(self, k, start):
        found = store.read_masks(self.table.index[self.parts[k].test].tolist())
        return np.select([found == 2, found == 5, found == 255], [1, 2, 2]).astype(np.uint8)

    monkeypatch.setattr(Tuning, "predictions", all_of_it_wrong_where_nobody_knows)
    monkeypatch.setattr(Tuning, "epochs", lambda self, start: [1, 1])
    how = {"task": "segmentation", "settings": SHORT, "folds": 2}
    found = vitaepp.finetune(trained / "run", root, tmp_path / "out", **how)
    assert found["labels"] == {"bright": 2, "5": 5}
    assert (found["n"], found["mean"]["dice"]) == (8, 1)
    for file in (tmp_path / "out/masks").iterdir():
        assert set(np.unique(np.asarray(nib.load(file).dataobj))) <= {0, 2, 5}


def test_an_encoder_of_too_few_blocks_is_refused_before_anything_is_made(trained, tmp_path):
    encoder = Encoder.from_pretrained(trained / "run")
    shape = {**encoder.config.shape, "depth": 1}
    encoder.config = replace(encoder.config, shape=shape)
    with pytest.raises(RecipeError, match="depth=1: segmentation with patches of 4 takes 2 blocks"):
        check_windows(encoder, Store(trained / "store"))


def test_other_masks_and_other_intensities_are_seen(trained, tmp_path):
    run = RunFolder(trained / "run")
    stores = [Store(trained / "store"), write_masked_store(tmp_path / "other", (16,) * 3, seed=1)]
    first, other, again = (
        planned(Base(run, store, tmp_path, run.recipe(), 2, 0)).digest()
        for store in (*stores, stores[0])
    )
    assert first == again != other
    # What is a label and what is to be ignored count, too; without the latter as ever.
    said = stores[0].__dict__
    said["ignored"] = (5,)
    del said["mask_labels"]
    assert planned(Base(run, stores[0], tmp_path, run.recipe(), 2, 0)).digest() != first
    clipped = write_masked_store(tmp_path / "clipped", (16,) * 3, clip=(20.0, 80.0))
    with pytest.raises(RunError, match="clip 20,80"):
        vitaepp.finetune(run.path, clipped.path, tmp_path / "out", task="segmentation")


def test_subjects_outside_of_given_splits_are_told_and_sizes_are_what_is_trained_on(
    trained, tmp_path, capsys
):
    splits = ["train"] * 6 + ["test"] * 2 + ["val", ""]
    table = pd.DataFrame({"subject": [f"s{i}" for i in range(10)], "split": splits})
    (fold,) = person_folds(table, 5, 0)
    assert (len(fold.train), len(fold.test)) == (6, 2)
    assert "2 subjects in neither train nor test are left out" in capsys.readouterr().err
    run = RunFolder(trained / "run")
    recipe = run.recipe().with_settings("finetune.subjects=4")
    tuning = planned(Base(run, Store(trained / "large"), tmp_path, recipe, 2, 0))
    assert tuning.sizes == [{"train": 4, "test": 5}, {"train": 4, "test": 4}]
    assert all(len(job.fit) + len(job.held) == 4 for job in (tuning.job(0), tuning.job(1)))
