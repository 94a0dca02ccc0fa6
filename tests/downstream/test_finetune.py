"""Fine-tuning: folds, early stopping, what is trained, and going on after a kill."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

import vitaepp
from tests.conftest import LIGHT, write_store
from tests.processes import Forked
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.store import Store
from vitaepp.downstream.finetune import DEFAULTS, OF_TASK
from vitaepp.downstream.keep import calibrated, classifier_of
from vitaepp.downstream.labelled import planned
from vitaepp.downstream.model import Model
from vitaepp.downstream.tuning import Base, Tuning
from vitaepp.errors import EvaluationError, RecipeError, RunError
from vitaepp.evaluation import front
from vitaepp.evaluation.folds import Fold, plan_folds
from vitaepp.evaluation.result import Evaluation
from vitaepp.methods.supervised import LIMIT, Supervised, balanced_weights
from vitaepp.nn.backbones import build_backbone
from vitaepp.recipe.recipe import Recipe, resolve
from vitaepp.training.module import Training
from vitaepp.training.step import build_optimizer, forward_batch
from vitaepp.views.draws import Draws

#: An encoder that sees how bright images are.
RUN = ("method=vitae", "optim.epochs=1", "views.normalize=cohort")

SHORT = ("optim.epochs=3", "optim.batch_size=8", "optim.warmup_epochs=1", "trainer.precision=32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A store of pictures with a label, and a run on it."""
    root = tmp_path_factory.mktemp("finetune")
    store = write_store(root / "store", 24, (16, 16), ("t1",))
    vitaepp.pretrain(store.path, root / "run", settings=[*LIGHT, *RUN])
    return root


@pytest.fixture(scope="module")
def tuned(trained) -> Path:
    """A finished fine-tuning of all blocks in two folds; no test may change it."""
    out = trained / "tuned"
    vitaepp.finetune(trained / "run", trained / "store", out, "bright", settings=SHORT, folds=2)
    return out


def test_it_is_measured_in_the_folds_of_evaluate(trained, tuned):
    found = Evaluation.load(tuned)
    assert list(found["controls"]) == ["scratch", "untrained", "raw"]
    linear = Evaluation.load(tuned / "linear")
    assert not np.allclose(linear.scores("method"), found.scores("method"))
    assert found["controls"]["raw"] == linear["controls"]["raw"]
    pd.testing.assert_frame_equal(found.rows(), linear.rows())
    for k, (_, tested) in enumerate(plan_folds(Store(trained / "store").table, "bright", folds=2)):
        job = json.loads((tuned / f"folds/fold{k}/pretrained/job.json").read_text())
        assert sorted(job["test"]) == sorted(tested)
        assert len({*job["fit"], *job["held"], *job["test"]}) == 24
        assert len(job["held"]) == 2
        assert not set(job["targets"]) & set(tested)
    # An independent reading of the scores.
    table = pd.read_parquet(tuned / "predictions.parquet")
    for k, fold in enumerate(found["folds"]):
        rows = table[table.fold == k]
        assert roc_auc_score(rows.label == "1", rows.method) == pytest.approx(fold["auc"])
    comparison = vitaepp.compare(linear, found, controls=True)
    assert [row.name for row in comparison.rows][-1] == f"{tuned.name}: trained from scratch"
    assert "fine-tuned" in repr(found)
    for name in ("operating", "brier", "calibration"):
        assert "training subjects that were left out" in found["clinical"]["reasons"][name]


def test_the_epoch_of_the_lowest_held_out_loss_is_tested(tuned):
    found = Evaluation.load(tuned)
    for k in range(2):
        folder = tuned / f"folds/fold{k}/pretrained"
        losses = pd.read_csv(folder / "metrics.csv")["held_out"]
        best = json.loads((folder / "summary.json").read_text())["best_epoch"]
        assert best == found["epochs"][k]
        assert best == 0 or losses[best - 1] == losses.min()
        assert not list(folder.glob("*.ckpt"))  # nothing is left that nobody needs


def test_without_training_the_head_is_a_logistic_regression(trained, tmp_path, capsys):
    settings = [*SHORT, "optim.lr=1e-12", "finetune.blocks=0"]
    found = vitaepp.finetune(
        trained / "run", trained / "store", tmp_path / "out", "bright", settings=settings, folds=2
    )
    assert found["mean"]["auc"] > 0.9  # brightness is in the features
    assert found["finetune"]["blocks"] == 0
    # No epoch can be much better; where none is, it is said what was tested.
    said = capsys.readouterr().err
    for start, epochs in (("fine-tuned", found), ("from scratch", found["controls"]["scratch"])):
        still = epochs["epochs"].count(0)
        assert (f"{start}: in {still} of 2 folds no epoch lowered the loss" in said) is (still > 0)
    assert "no epoch lowered" in said


def slowly(*asked):
    """Fine-tune with steps that take so long that one can be killed before the end."""
    step = Training.training_step
    Training.training_step = lambda *a: (time.sleep(0.08), step(*a))[1]
    *asked, settings = asked
    vitaepp.finetune(*asked, settings=settings, folds=2)


def test_it_goes_on_where_it_was_killed(trained, tuned, tmp_path):
    asked = (trained / "run", trained / "store", tmp_path / "out", "bright")
    settings = [*SHORT, "trainer.checkpoint_every=0"]
    process = Forked(slowly, *asked, settings, OMP_NUM_THREADS="1")
    checkpoint = tmp_path / "out/folds/fold1/pretrained/last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert checkpoint.exists()
    found = vitaepp.finetune(*asked, settings=settings, folds=2)
    whole = Evaluation.load(tuned)
    for key in ("method", "scratch"):
        np.testing.assert_allclose(found.scores(key), whole.scores(key), rtol=1e-4, atol=1e-5)


def test_another_fine_tuning_in_its_folder_is_refused(trained, tuned, tmp_path):
    run, store = trained / "run", trained / "store"
    with pytest.raises(RunError, match=r"with the setting seed=0, now 1; choose another folder"):
        vitaepp.finetune(run, store, tuned, "bright", settings=[*SHORT, "seed=1"], folds=2)
    before = tmp_path / "before"
    before.mkdir()
    facts = json.loads((tuned / "finetune.json").read_text())
    assert facts.pop("limit of gradients") == LIMIT
    (before / "finetune.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match="holds a fine-tuning with another limit of gradients"):
        vitaepp.finetune(run, store, before, "bright", settings=SHORT, folds=2)
    with pytest.raises(RunError, match="holds something else"):
        vitaepp.finetune(run, store, run, "bright", settings=SHORT)
    with pytest.raises(RecipeError, match=r"model\.depth: the encoder is what it was trained as"):
        vitaepp.finetune(run, store, tmp_path / "o", "bright", settings="model.depth=1")
    with pytest.raises(RecipeError, match=r"finetune\.blocks=9: the features pass 2 blocks"):
        vitaepp.finetune(
            run, store, tmp_path / "o", "bright", settings=[*SHORT, "finetune.blocks=9"], folds=2
        )
    with pytest.raises(EvaluationError, match="no label column 'brihgt'; did you mean bright"):
        vitaepp.finetune(run, store, tmp_path / "p", "brihgt")
    with pytest.raises(RunError, match="did you mean `finetune"):
        vitaepp.finetune(store, run, tmp_path / "p", "bright")


def method_of(settings=(), classes=2) -> Supervised:
    recipe = Recipe.load(settings=[*LIGHT, "model.pool=grid+gridmax", *settings])
    recipe = recipe.changed(views={"first": {"crop": 1.0, "flip": "none", "rotation": 0.0}})
    shape = {"in_channels": 1, "image_size": (16, 16), "patch_size": (8, 8)}
    torch.manual_seed(0)
    if recipe.model.backbone == "vit":
        shape |= {"embed_dim": 48, "depth": 2, "num_heads": 4}
    else:
        shape.pop("patch_size")
    backbone = build_backbone(recipe.model.backbone, shape)
    targets = torch.tensor([0, 1, 0, 1])
    return Supervised(recipe, backbone, targets, None if classes == 1 else torch.ones(classes))


RESNET = ("model.backbone=resnet18", "model.pool=mean", "method=simsiam")


@pytest.mark.parametrize("settings", [(), RESNET])
def test_only_the_last_blocks_are_trained_and_the_earlier_the_slower(settings):
    images = torch.randint(0, 256, (4, 1, 16, 16))
    method = method_of([*settings, "finetune.blocks=1", "optim.lr=0.01"]).train()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    optimizer = build_optimizer(method, images_per_update=4)
    rates = [group["lr"] for group in optimizer.param_groups[::2]]
    assert rates == pytest.approx([0.01, 0.0075])
    for _ in range(2):  # in the first, a head of zeros gives the encoder no gradient
        method(images, Draws(0, 0, range(4)), 0.0).loss.backward()
        optimizer.step()
    changed = {k for k, v in method.state_dict().items() if not torch.equal(v, before[k])}
    last = "backbone.layer4." if settings else "backbone.blocks.1."
    own = {k for k in changed if not k.startswith(("head.", "backbone.norm."))}
    assert own
    assert all(k.startswith(last) for k in own)  # no running mean of a frozen stage, either


def test_every_layer_is_trained_in_its_own_group():
    method = method_of(["finetune.layer_decay=0.5", "optim.lr=1"])
    groups = method.parameter_groups()
    assert [factor for _, factor in groups] == [1.0, 0.5, 0.25, 0.125]
    trained = [id(p) for parameters, _ in groups for p in parameters]
    assert sorted(trained) == sorted(id(p) for p in method.parameters() if p.requires_grad)


def test_classes_count_alike_and_mixed_labels_count_by_their_share():
    method = method_of()
    method.weights.copy_(balanced_weights(torch.tensor([0, 0, 0, 1]), 2))
    torch.nn.init.normal_(method.head.weight)
    images = torch.randint(0, 256, (4, 1, 16, 16))
    loss, weight = method.evaluate(images, [0, 1, 2, 3])
    scores = method.predict(images)
    own = torch.nn.functional.cross_entropy(scores, method.targets, method.weights)
    assert torch.allclose(loss / weight, own)
    plain, mixed = (
        method_of([f"finetune.mixup={alpha}"])(images, Draws(0, 0, range(4)), 0.0).loss
        for alpha in (0, 1)
    )
    assert torch.isclose(plain, mixed)  # a head of zeros gives log 2, whatever is mixed
    assert torch.isclose(plain, torch.tensor(2.0).log())


def test_classes_count_alike_in_pieces_of_a_batch():
    """The second piece holds one class alone, whose weight would vanish from its own mean."""
    method = method_of(["optim.batch_size=4"]).train()
    method.targets.copy_(torch.tensor([1, 0, 0, 0]))
    method.weights.copy_(balanced_weights(method.targets, 2))
    torch.nn.init.normal_(method.head.weight)
    images = torch.randint(0, 256, (4, 1, 16, 16))

    def computed(pieces):
        method.zero_grad()
        method.pieces = pieces
        loss = forward_batch(method, (images, [3, 0, 2, 1], 1.0)).loss
        loss.backward()
        return loss, method.head.weight.grad.clone()

    (whole, expected), (loss, gradient) = computed(1), computed(2)
    assert torch.isclose(loss, whole, rtol=1e-4)
    assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-6)
    assert method_of(["model.backbone=resnet18", *RESNET]).by_image is False
    assert method_of(["finetune.mixup=1"]).by_image is False


def test_the_defaults_are_settings():
    for changes in OF_TASK.values():
        assert Recipe.load(None, DEFAULTS | changes).optim.lr == changes["optim.lr"]


def test_a_value_is_learned_by_its_squared_error():
    method = method_of(classes=1)
    loss, weight = method.evaluate(torch.zeros(4, 1, 16, 16), [0, 1, 2, 3])
    assert (loss / weight).item() == pytest.approx(0.5)


def test_the_command_says_what_it_found(trained, tuned, command):
    words = ["finetune", trained / "run", trained / "store", tuned, "--label", "bright"]
    for setting in SHORT:
        words += ["--set", setting]
    status, out, err = command(*words, "--folds", 2)
    assert status == 0, err
    assert "trained from scratch" in out


def test_a_value_is_predicted_beside_ridge_regressions(trained, tmp_path, capsys):
    """Brightness, with a little of the subject's number in it, is told by the features."""
    run, store = trained / "run", trained / "valued"
    if not store.exists():
        shutil.copytree(trained / "store", store)
    table = pd.read_parquet(store / "table.parquet")
    number = table.subject.str[1:].astype(int)
    table["years"] = (40 + 20 * table.bright + 0.1 * number).where(number > 1)
    table.to_parquet(store / "table.parquet", index=False)
    settings = [*SHORT, "optim.lr=1e-12", "finetune.blocks=0", "loss.edge.weight=3"]
    settings += ["finetune.class_weights=none", "prepare.size=8"]
    settings += ["trainer.replay=false"]
    how = {"task": "regression", "settings": settings, "folds": 2}
    found = vitaepp.finetune(run, store, tmp_path / "out", "years", **how)
    (said,) = (line for line in capsys.readouterr().err.splitlines() if "no effect" in line)
    idle = "prepare.size=8, loss.edge.weight=3, finetune.class_weights=none, trainer.replay=no"
    assert said == f"task=regression: {idle} have no effect"
    assert not {"class_weights", "width", "layer_decay"} & found["finetune"].keys()
    assert list(found["controls"]) == ["scratch", "untrained", "raw", "mean"]
    assert found["n"] == 22
    assert found["mean"]["mae"] < 5 < found["controls"]["mean"]["mean"]["mae"]
    rows = found.predictions
    for k, fold in enumerate(found["folds"]):
        own = rows[rows.fold == k]
        assert np.abs(own.method - own.label).mean() == pytest.approx(fold["mae"])
        assert np.corrcoef(own.method, own.label)[0, 1] == pytest.approx(fold["pearson"])
    assert "fine-tuned" in str(found)
    beside = vitaepp.compare(tmp_path / "out" / "linear", tmp_path / "out", controls=True)
    assert len({row.name for row in beside.rows}) == 6
    assert found["clinical"]["mae"]["low"] < found["mean"]["mae"]
    with pytest.raises(EvaluationError, match="2 different values; regression takes three or more"):
        vitaepp.finetune(run, store, tmp_path / "p", "bright", task="regression")
    with pytest.raises(EvaluationError, match="is of masks; leave out `label`"):
        vitaepp.finetune(run, store, tmp_path / "p", "bright", task="segmentation")
    with pytest.raises(EvaluationError, match=r"`task=regression` is of regression; name the"):
        vitaepp.finetune(run, store, tmp_path / "p", task="regression")
    with pytest.raises(EvaluationError, match="did you mean regression"):
        vitaepp.finetune(run, store, tmp_path / "p", "years", task="regresion")


def test_a_fine_tuned_model_predicts_new_patients(trained, tuned, tmp_path, monkeypatch, capsys):
    """What the network gives is what the model's folder gives; nothing is trained twice."""
    out = shutil.copytree(tuned, tmp_path / "tuned")
    run, store = trained / "run", trained / "store"
    before = (out / "metrics.json").read_bytes()
    vitaepp.finetune(run, store, out, "bright", settings=SHORT, folds=2, keep_model=True)
    assert (out / "metrics.json").read_bytes() == before
    job = json.loads((out / "folds/all/job.json").read_text())
    assert len({*job["fit"], *job["held"]}) == 24
    assert job["test"][0] in job["targets"]
    model = Model.load(out / "model")
    assert model.metrics == Evaluation.load(out).metrics
    assert repr(model).startswith("Model(bright: 0, 1; fitted on 24 subjects; AUC in 2-fold")
    # The decision of the encoder on disk and of the classifier is the network's own.
    opened = Store(store)
    row = opened.table["subject"].tolist().index(job["test"][0])
    own = np.load(out / "folds/all/predictions.npy")[0]
    kept = model.classifier.decision(model.encoder.embed(opened, [row]))
    assert kept[0] == pytest.approx(own[1] - own[0], abs=1e-4)
    found = vitaepp.predict(out / "model", store).table
    assert roc_auc_score(opened.table["bright"], found["1"]) > 0.9
    again = (out / "model/model.json").stat().st_mtime_ns
    monkeypatch.setattr("vitaepp.downstream.tuning.train_fold", None)
    vitaepp.finetune(run, store, out, "bright", settings=SHORT, folds=2, keep_model=True)
    assert (out / "model/model.json").stat().st_mtime_ns == again
    # Where no epoch was better than the start, the model is the start, and it is said.
    summary = out / "folds/all/summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"best_epoch": 0}))
    shutil.rmtree(out / "model")
    capsys.readouterr()
    vitaepp.finetune(run, store, out, "bright", settings=SHORT, folds=2, keep_model=True)
    assert "so the model is the network as it started; train longer" in capsys.readouterr().err
    with pytest.raises(EvaluationError, match="`keep_model` is of classes; leave it out for regr"):
        vitaepp.finetune(run, store, out, "bright", task="regression", keep_model=True)
    few = "finetune.subjects=8"
    with pytest.raises(RecipeError, match="`keep_model` is a training on all labelled subjects"):
        vitaepp.finetune(run, store, tmp_path / "n", "bright", settings=few, keep_model=True)


@pytest.mark.parametrize("several", [False, True])
def test_probabilities_belong_to_the_network_whatever_the_scale_of_its_decisions(several):
    rng = np.random.default_rng(0)
    codes = np.arange(4000) % 2
    ideal = (2 * codes - 1) + rng.normal(0, 1, len(codes))  # log odds are twice this
    decisions = np.stack([-ideal, ideal], axis=1) if several else ideal
    parts = np.split(np.arange(3000), 3)
    own = decisions[3000:]
    asked = []
    for scale in ((1, 1, 1, 1), (0.01, 3.7, 1, 370)):
        folds = [decisions[rows] * s + s for rows, s in zip(parts, scale, strict=False)]
        curves = calibrated(codes[:3000], folds, codes[3000:], own * scale[3] - 5 * scale[3])
        asked.append(curves.probabilities(own * scale[3] - 5 * scale[3])[:, 1])
    assert np.allclose(*asked, atol=1e-6)
    best = 1 / (1 + np.exp(-2 * ideal[3000:]))
    assert np.abs(asked[1] - best).mean() < 0.03


@pytest.mark.parametrize("held", [0.1, 0.5, 0.73])
@pytest.mark.parametrize("strength", [0.5, 2])
def test_probabilities_do_not_depend_on_how_frequent_classes_are_among_the_held(held, strength):

    def drawn(share):
        counts = [round(4000 * (1 - share)), round(4000 * share)]
        normal = [norm.ppf((np.arange(n) + 0.5) / n) for n in counts]
        codes = np.repeat([0, 1], counts)  # log odds 2 × strength × decision
        return codes, np.concatenate(normal) + (2 * codes - 1) * strength

    codes, fold = drawn(0.625)
    own_codes, own = drawn(held)
    asked = np.array([-0.5, 0, 0.5])
    found = calibrated(codes, [fold], own_codes, 30 * own + 7).probabilities(30 * asked + 7)
    odds = 2 * strength * asked + np.log(0.625 / 0.375)
    assert np.allclose(found[:, 1], 1 / (1 + np.exp(-odds)), atol=0.03)


def test_decisions_that_tell_nothing_give_the_shares_of_the_classes_in_a_line(capsys):
    codes = np.arange(400) % 4 // 3
    fold = np.random.default_rng(0).normal(2.0 * codes, 1)
    asked = np.array([-1e3, 1, 1 + 1e-7, 1e3])
    for own in (np.full(40, 150.0), 1 + 1e-7 * np.arange(40)):
        found = calibrated(codes, [fold], codes[:40], own).probabilities(asked)
        assert np.ptp(found[:, 1]) == 0
        assert 0.2 < found[0, 1] < 0.6
        assert "probabilities: 1 of 2 networks hardly tell one subject" in capsys.readouterr().err
    # Of one fold, they do not spoil those of the others.
    curves = calibrated(np.tile(codes, 2), [fold, np.full(400, 1e4)], codes, fold)
    low, high = curves.probabilities(np.array([-2.0, 4]))[:, 1]
    assert low < 0.1 < 0.9 < high
    assert "probabilities: 1 of 3 networks hardly tell" in capsys.readouterr().err


def test_folds_without_some_class_have_one_scale_together(capsys):
    codes = np.arange(400) % 2
    fold = np.random.default_rng(0).normal(2.0 * codes - 1, 1)
    singles = calibrated(codes, [*fold[:, None]], codes, fold)
    assert capsys.readouterr().err.count("no fold tests subjects of every class") == 1
    whole = calibrated(codes, [fold], codes, fold)
    assert singles == whole
    assert not capsys.readouterr().err
    # Beside one that has all classes, those without play no part, whatever their scale.
    some = calibrated(np.append(codes, [1, 1]), [fold, np.full(2, 1e3)], codes, fold)
    assert some == whole
    assert "1 fold of 2 test no subject" in capsys.readouterr().err
    # A class that is nowhere tested makes no number undefined.
    three = np.stack([-fold, fold, fold * 0.5], axis=1)
    found = calibrated(codes, [three], np.arange(400) % 3, three).probabilities(three)
    assert np.isfinite(found).all()


def test_a_gradient_that_hardly_varies_does_not_decide_alone_and_the_network_has_no_limit():
    method = method_of(["model.pool=mean+gradients"])
    features = torch.randn(6, method.head.in_features)
    features[:, -1] *= 1e-4
    method.set_features(features)
    other = features.clone()
    other[0, [0, -1]] = 1e3
    z = method.standardised(other) * features.shape[1] ** 0.5
    assert z[0, -1] == LIMIT == front.LIMIT
    torch.testing.assert_close(z[0, 0], (1e3 - method.mean[0]) / method.deviation[0])
    torch.testing.assert_close(z[1:], method.standardised(features)[1:] * features.shape[1] ** 0.5)


def test_the_head_of_three_classes_is_a_classifier():
    method = method_of(["model.pool=grid+gradients"], classes=3)
    torch.nn.init.normal_(method.head.weight)
    features = torch.randn(5, method.head.in_features)
    method.set_features(features)
    others = features + 100 * torch.randn_like(features)
    scores = method.head(method.standardised(others)).detach()
    decision = classifier_of(method.linear_model()).decision(others.numpy())
    assert np.allclose(decision, scores - scores.mean(dim=1, keepdim=True), atol=1e-5)


def test_fewer_subjects_are_among_more_and_keep_their_classes(trained):
    recipe = Recipe.load(trained / "run" / "recipe.yaml")
    table = Store(trained / "store").table
    drawn = []
    for count in (6, 10):
        base = Base(
            RunFolder(trained / "run"),
            Store(trained / "store"),
            trained / "none",
            recipe.with_settings(f"finetune.subjects={count}"),
            folds=2,
            seed=0,
        )
        job = planned(base, "bright", "classification", None, None)[0].job(0)
        drawn.append({*job.fit, *job.held})
        classes = table.set_index("subject").loc[sorted(drawn[-1])].bright
        assert classes.sum() == count / 2
    assert len(drawn[0]) == 6
    assert drawn[0] < drawn[1]
    with pytest.raises(RecipeError, match=r"subjects=99: a training part has \d+ subjects; ask"):
        vitaepp.finetune(
            *(trained / "run", trained / "store", trained / "none"),
            label="bright",
            settings="finetune.subjects=99",
        )
    assert not (trained / "none").exists()


def test_a_few_subjects_have_two_of_a_rare_class(trained):
    recipe = Recipe.load(trained / "run" / "recipe.yaml").with_settings("finetune.subjects=4")
    run, store = RunFolder(trained / "run"), Store(trained / "store")
    table = store.table.reset_index(drop=True)
    targets = np.zeros(len(table), int)
    targets[[3, 11]] = 1
    every = np.arange(len(table))
    tuning = Tuning(
        *(run, store, trained / "none", recipe, 2, 0),
        *("classification", table, targets, 2, [Fold(every, every[:1])]),
    )
    job = tuning.job(0)
    drawn = {*job.fit, *job.held}
    assert len(drawn) == 4
    assert {*table.subject[[3, 11]]} < drawn
    with pytest.raises(RecipeError, match="=4: 3 classes need 6 subjects, two of each"):
        replace(tuning, classes=3)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(trained, tuned, tmp_path):
    """Each sees half of a batch; the mean over both is the batch's."""
    settings = [s for s in SHORT if "batch_size" not in s]
    settings += ["optim.batch_size=4", "trainer.devices=2"]
    found = vitaepp.finetune(
        trained / "run", trained / "store", tmp_path / "out", "bright", settings=settings, folds=2
    )
    alone = Evaluation.load(tuned)
    for key in ("method", "scratch"):
        np.testing.assert_allclose(found.scores(key), alone.scores(key), rtol=0.02, atol=0.02)


def test_few_subjects_are_seen_more_often(trained):
    """By default it has 30 epochs and 500 updates at least; epochs alone are taken as given."""
    run, store = RunFolder(trained / "run"), Store(trained / "store")
    lengths = []
    for settings in ((), "optim.epochs=7"):
        recipe = resolve(run.recipe(), DEFAULTS).with_settings(settings)
        base = Base(run, store, trained, recipe, folds=2, seed=0)
        tuning, _, _ = planned(base, "bright", "classification", None, None)
        lengths.append(
            [tuning._recipe("scratch", count, 1).optim.epochs for count in (10, 40, 4000)]
        )
    assert lengths == [[500, 167, 30], [7, 7, 7]]


def test_from_scratch_has_a_rate_of_its_own_that_is_the_same_in_all_blocks(tuned):
    for start, rate in (("pretrained", 2e-4), ("scratch", 5e-4)):
        folder = RunFolder(tuned / "folds" / "fold0" / start)
        assert max(pd.read_csv(folder.path / "metrics.csv")["lr"]) == pytest.approx(rate, rel=0.5)
    run, store = RunFolder(tuned.parent / "run"), Store(tuned.parent / "store")
    recipe = Recipe.load(tuned / "finetune.yaml").with_settings("finetune.scratch_lr=null")
    base = Base(run, store, tuned, recipe, folds=2, seed=0)
    tuning, _, _ = planned(base, "bright", "classification", None, None)
    scratch = tuning._recipe("scratch", 10, 1)
    assert (scratch.finetune.layer_decay, scratch.optim.lr) == (1.0, recipe.optim.lr)
    assert tuning._recipe("pretrained", 10, 1).finetune.layer_decay < 1


def test_what_has_changed_since_is_refused_and_slips_claim_no_folder(trained, tuned, tmp_path):
    """Scores of the old labels must not stand beside new ones."""
    run, out = trained / "run", tmp_path / "tuned"
    shutil.copytree(tuned, out)
    shutil.copytree(trained / "store", tmp_path / "store")
    table = pd.read_parquet(tmp_path / "store" / "table.parquet")
    table.assign(bright=1 - table.bright).to_parquet(tmp_path / "store" / "table.parquet")
    with pytest.raises(RunError, match="with another label's values, masks, folds or persons"):
        vitaepp.finetune(run, tmp_path / "store", out, "bright", settings=SHORT, folds=2)
    how = {"settings": SHORT, "folds": 2}
    new = tmp_path / "new"
    with pytest.raises(EvaluationError, match="has no class 'nope'"):
        vitaepp.finetune(run, trained / "store", new, "bright", positive="nope", **how)
    with pytest.raises(RecipeError, match=r"finetune\.blocks=9"):
        vitaepp.finetune(
            run, trained / "store", new, "bright", settings=["finetune.blocks=9"], folds=2
        )
    with pytest.raises(EvaluationError, match=r"`positive=1` is of classes; leave it out"):
        vitaepp.finetune(
            run, trained / "store", new, "bright", task="regression", positive="1", **how
        )
    assert not new.exists()
