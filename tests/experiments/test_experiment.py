"""Experiments: every variant is what it says, nothing is done twice, and nothing leaks."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.conftest import TINY, write_store
from vitaepp.data.embeddings import Embeddings
from vitaepp.data.runfolder import RunFolder
from vitaepp.encoder.embed import embed
from vitaepp.errors import EvaluationError, RecipeError, RunError, TrainingError
from vitaepp.evaluation.evaluation import evaluate
from vitaepp.evaluation.folds import plan_folds
from vitaepp.evaluation.result import Evaluation
from vitaepp.evaluation.summary import summary_table
from vitaepp.experiments import runs
from vitaepp.experiments.catalogue import EXPERIMENTS, find
from vitaepp.experiments.experiment import experiment
from vitaepp.experiments.ladder import ladder
from vitaepp.experiments.losses import course
from vitaepp.experiments.results import Cell, Result, Row, Versus
from vitaepp.experiments.tables import to_csv, to_latex, to_markdown, to_text
from vitaepp.methods import build_method
from vitaepp.recipe.recipe import Recipe, changed_settings

QUICK = (*TINY, "optim.epochs=1", "simsiam.projection_dim=32", "mocov3.hidden_dim=32")


def terms(variant):
    """The losses that a variant computes."""
    import torch

    from vitaepp.views.draws import Draws

    method = build_method(variant.recipe(Recipe.load(settings=QUICK)), 1, (16, 16))
    return set(method(255 * torch.rand(2, 1, 16, 16), Draws(0, 0, [0, 1]), 0.0).terms)


def test_the_six_rows_of_the_ablation_compute_these_losses():
    found = [terms(v) for v in find("ablation").variants]
    assert found == [
        {"contrastive"},
        {"reconstruction"},
        {"reconstruction", "edge"},
        {"reconstruction", "perceptual"},
        {"reconstruction", "edge", "perceptual"},
        {"reconstruction", "edge", "perceptual", "contrastive"},
    ]


def test_every_row_is_called_what_its_recipe_is():
    def titles(name, *settings):
        base = Recipe.load(settings=settings)
        return [variant.title(base) for variant in find(name).variants]

    assert titles("ablation") == [
        "ViT + L_CL",
        "ViT-AE",
        "ViT-AE + L_edge",
        "ViT-AE + L_per",
        "ViT-AE + L_edge + L_per",
        "ViT-AE++",
    ]
    assert titles("methods", "loss.perceptual.weight=0")[2:] == [
        "ViT-AE",
        "ViT-AE + L_edge + L_CL",
    ]
    for known in EXPERIMENTS.values():
        for variant in known.variants:
            recipe = variant.recipe(Recipe())
            assert (recipe.method == "vitae++") == variant.key.startswith("vitae++")


def test_rows_that_would_be_the_same_are_refused(store, tmp_path):
    settings = (*QUICK, "loss.edge.weight=0")
    with pytest.raises(RecipeError, match=r"vitae\+edge is the same as vitae; give"):
        experiment("ablation", store.path, tmp_path / "out", label="bright", settings=settings)
    assert not (tmp_path / "out").exists()


def test_variants_keep_the_weights_of_the_recipe():
    base = Recipe.load(settings=("loss.edge.weight=3", "model.backbone=resnet50"))
    edge = next(v for v in find("ablation").variants if v.key == "vitae+edge")
    assert edge.recipe(base).loss.edge.weight == 3
    assert edge.recipe(base).model.backbone == "vit"
    simsiam = next(v for v in find("methods").variants if v.key == "simsiam")
    assert simsiam.recipe(base).model.backbone == "resnet50"
    assert simsiam.title(base) == "SimSiam (ResNet-50)"
    assert simsiam.title(Recipe()) == "SimSiam (ResNet-18)"


def test_a_key_means_the_same_run_in_every_experiment():
    recipes = {}
    for e in EXPERIMENTS.values():
        for variant in e.variants:
            recipe = variant.recipe(Recipe())
            assert recipes.setdefault(variant.key, recipe) == recipe, (e.key, variant.key)
            assert variant.against in ("", *(v.key for v in e.variants))
    assert len(recipes) == 15


@pytest.fixture
def store(make_store):
    return make_store(subjects=24, size=(16, 16), modalities=("grey",))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """An OUT with both rows of `linear-probe` trained, embedded and evaluated."""
    root = tmp_path_factory.mktemp("measured")
    store = write_store(root / "store", subjects=24, size=(16, 16), modalities=("grey",))
    experiment("linear-probe", store.path, root / "out", label="bright", settings=QUICK)
    return root / "out"


@pytest.fixture
def out(measured, tmp_path):
    """A copy of `measured`."""
    return shutil.copytree(measured, tmp_path / "out")


def test_a_table_with_controls_tests_and_intervals(store, out, capsys):
    result = experiment(
        "ablation", store.path, out, label="bright", settings=QUICK, variants=["vitae", "vitae++"]
    )
    assert [r.key for r in result.rows] == ["vitae", "vitae++", "untrained-vit", "raw"]
    plain, full = result.rows[:2]
    run = out / "runs" / "vitae" / "seed0"
    metrics = json.loads(next(run.glob("evaluation/*/metrics.json")).read_text())
    assert plain.cells["auc"] == Cell(metrics["mean"]["auc"], metrics["std"]["auc"])
    assert not plain.versus
    versus = full.versus["auc"]
    assert versus.mean == pytest.approx(full.cells["auc"].mean - plain.cells["auc"].mean)
    assert versus.test == "corrected resampled t-test"
    assert versus.low <= versus.mean <= versus.high
    assert set(full.controls) == {"its untrained encoder", "raw intensities"}
    assert json.loads((out / "ablation.json").read_text())["rows"][0]["key"] == "vitae"
    assert list(pd.read_csv(out / "ablation.csv").variant) == [r.key for r in result.rows]
    page = (out / "ablation.md").read_text()
    assert "| ViT-AE |" in page
    assert "pre-trained once" in page
    assert metrics["provenance"]["name"] == "ViT-AE"
    assert not any("ViT-AE++" in line for line in summary_table(metrics).splitlines())
    assert "`vitaepp experiment ablation store OUT --label bright" in page

    capsys.readouterr()
    before = {p: p.stat().st_mtime_ns for p in out.glob("runs/**/*") if p.is_file()}
    again = experiment(
        "ablation", store.path, out, label="bright", settings=QUICK, variants=["vitae", "vitae++"]
    )
    assert again == result
    after = {p: p.stat().st_mtime_ns for p in out.glob("runs/**/*") if p.is_file()}
    changed = {p.name for p in before if before[p] != after[p]}
    assert changed <= {".lock"}  # nothing was trained, embedded or evaluated again
    assert set(before) == set(after)


def test_interrupted_between_variants_it_goes_on(store, out, monkeypatch):
    shutil.rmtree(out / "runs" / "vitae++")
    train = runs.pretrain

    def killed_at_the_second(store, run, **options):
        if run.parent.name == "vitae++":
            raise KeyboardInterrupt
        return train(store, run, **options)

    monkeypatch.setattr(runs, "pretrain", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        experiment("linear-probe", store.path, out, label="bright", settings=QUICK)
    checkpoint = out / "runs" / "vitae" / "seed0" / "last.ckpt"
    stamp = os.stat(checkpoint).st_mtime_ns
    monkeypatch.setattr(runs, "pretrain", train)
    result = experiment("linear-probe", store.path, out, label="bright", settings=QUICK)
    assert all(row.cells for row in result.rows)
    assert os.stat(checkpoint).st_mtime_ns == stamp


def test_seeds_draw_their_own_weights_and_folds(store, out):
    result = experiment(
        "linear-probe",
        store.path,
        out,
        label="bright",
        settings=QUICK,
        seeds=2,
        variants=["vitae"],
    )
    metrics = [
        json.loads(p.read_text())
        for p in sorted(out.glob("runs/vitae/seed*/evaluation/*/metrics.json"))
    ]
    assert [m["seed"] for m in metrics] == [0, 1]
    folds = [f["auc"] for m in metrics for f in m["folds"]]
    assert result.rows[0].cells["auc"].mean == pytest.approx(np.mean(folds))
    assert result.rows[0].cells["auc"].std == pytest.approx(np.std(folds, ddof=1))


def test_few_labels_are_columns_of_their_own(store, out):
    asked = {"label": "bright", "settings": QUICK, "variants": ["vitae"], "seeds": 2}
    result = experiment("linear-probe", store.path, out, budget="6,all,4", **asked)
    assert result.metrics[-2:] == ("auc@4", "auc@6")
    files = sorted(out.glob("runs/vitae/seed*/evaluation/*/metrics.json"))
    found = [json.loads(file.read_text()) for file in files]
    for row in result.rows:
        key = {"vitae": "method", "untrained-vit": "untrained", "raw": "raw"}[row.key]
        means = [
            one["mean"]["auc"]
            for metrics in found
            for one in metrics["budget"]
            if (one["labels"], one["features"]) == (6, key)
        ]
        assert row.cells["auc@6"] == Cell.of(means)
    page = (out / "linear-probe.md").read_text()
    assert "| AUC with 6 labels |" in page
    assert "--budget 4,6`" in page
    # The same table without them is read from the same evaluations; others are added to these.
    stamps = [file.stat().st_mtime_ns for file in files]
    assert experiment("linear-probe", store.path, out, **asked).metrics[-1] == "accuracy"
    assert [file.stat().st_mtime_ns for file in files] == stamps
    experiment("linear-probe", store.path, out, budget=[8], **asked)
    sizes = {one["labels"] for one in json.loads(files[0].read_text())["budget"]}
    assert sizes == {4, 6, 8}


def test_the_strict_protocol_never_sees_its_test_subjects(store, tmp_path):
    out = tmp_path / "out"
    result = experiment(
        "linear-probe",
        store.path,
        out,
        label="bright",
        settings=QUICK,
        pretrain_per_fold=True,
        variants=["vitae"],
    )
    assert result.facts["protocol"].startswith("strict")
    folder = out / "folds" / "bright" / "vitae" / "seed0"
    plan = plan_folds(store.table, "bright", seed=0)
    predictions = pd.read_parquet(folder / "evaluation" / "predictions.parquet")
    everyone = set(store.table.subject)
    for k, (_, tested) in enumerate(plan):
        trained = RunFolder(folder / f"fold{k}").subjects()
        assert set(trained) == everyone - set(tested)
        assert set(predictions.subject[predictions.fold == k]) == set(tested)
    summary = json.loads((folder / "fold0" / "summary.json").read_text())
    assert summary["trained_on"] == len(everyone) - len(plan[0][1])

    # Called again, it makes nothing anew; the folds are those of nearest neighbours, too.
    asked = {"label": "bright", "settings": QUICK, "variants": ["vitae"], "pretrain_per_fold": True}
    file = folder / "evaluation" / "metrics.json"
    stamp = file.stat().st_mtime_ns
    assert experiment("linear-probe", store.path, out, **asked) == result
    assert file.stat().st_mtime_ns == stamp
    near = experiment("linear-probe", store.path, out, protocol="knn", **asked)
    assert near.facts["evaluated by"] == "nearest neighbours"
    assert json.loads(file.read_text())["protocol"] == "svm"

    # Each fold is measured on its own encoder's features.
    files = [folder / f"fold{k}" / "embeddings.parquet" for k in range(5)]
    features = [Embeddings.load(f).features for f in files]
    assert not np.allclose(features[0], features[1])
    # And encoders that have seen what they are tested on are refused.
    with pytest.raises(EvaluationError, match="pre-trained on subjects that its fold tests"):
        evaluate([*files[1:], files[0]], "bright", tmp_path / "leak")
    with pytest.raises(EvaluationError, match="4 files of embeddings for 5 folds"):
        evaluate(files[1:], "bright", tmp_path / "few")


def test_reconstructions_of_the_same_masks_are_paired(store, tmp_path):
    out = tmp_path / "out"
    result = experiment("reconstruction", store.path, out, settings=QUICK, subjects=8)
    tables = [
        pd.read_csv(out / "runs" / row.key / "seed0" / "reconstruction-8" / "metrics.csv")
        for row in result.rows
    ]
    assert all(list(t.subject) == list(tables[0].subject) for t in tables)
    assert result.rows[2].cells["ssim"].mean == pytest.approx(tables[2].ssim.mean())
    row = result.rows[1]
    assert row.versus["psnr"].test == "paired t-test over subjects"
    assert row.versus["psnr"].mean == pytest.approx(
        row.cells["psnr"].mean - result.rows[0].cells["psnr"].mean
    )
    assert len(result.samples) == 3
    assert all(len(samples) == 3 for samples in result.samples.values())
    assert (out / "reconstruction.png").stat().st_size > 5000


def test_the_sweep_and_the_losses_have_their_figures(store, tmp_path):
    out = tmp_path / "out"
    result = experiment(
        "masking-ratio",
        store.path,
        out,
        label="bright",
        settings=(*QUICK, "model.patch_size=4"),
        variants=["vitae++", "vitae++-mask85"],
    )
    assert [r.at for r in result.rows][:2] == [0.75, 0.85]
    assert (out / "masking-ratio.png").is_file()
    losses = experiment(
        "edge-decay", store.path, out, settings=(*QUICK, "model.patch_size=4", "optim.epochs=1")
    )
    assert losses.rows[0].cells["diverged"].mean == 0
    assert (out / "edge-decay.pdf").is_file()


def test_a_label_that_a_table_does_not_need_is_told(store, tmp_path, capsys):
    settings = (*QUICK, "model.patch_size=4", "optim.epochs=1")
    out = tmp_path / "out"
    experiment("edge-decay", store.path, out, settings=settings, label="bright")
    assert "measures the loss of trainings: `label` has no effect" in capsys.readouterr().err


def test_a_variant_that_cannot_train_is_named_and_the_rest_goes_on(store, out, monkeypatch):
    train = runs.pretrain

    def diverges(store, run, **options):
        if run.parent.name == "vitae":
            raise TrainingError("the edge loss is nan at step 3")
        return train(store, run, **options)

    monkeypatch.setattr(runs, "pretrain", diverges)
    result = experiment("linear-probe", store.path, out, label="bright", settings=QUICK)
    assert [r.key for r in result.failed] == ["vitae"]
    assert result.rows[1].cells
    assert not result.rows[1].versus  # nothing to compare with
    assert "edge loss is nan" in (out / "linear-probe.md").read_text()
    assert "—" in to_text(result)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("ablatoin",), RecipeError, "did you mean ablation"),
        (("ablation", {"variants": ["vitae+ege"]}), RecipeError, r"did you mean vitae\+edge\?"),
        (("ablation", {}), RecipeError, "needs `label=COLUMN`; .* has bright"),
        (("ablation", {"label": "brigt"}), EvaluationError, "did you mean bright"),
        (("ablation", {"label": "subject"}), EvaluationError, "no label column"),
        (("edge-decay", {"pretrain_per_fold": True}), RecipeError, "leave out `pretrain_per_fold`"),
        (("edge-decay", {"budget": "8"}), RecipeError, "leave out `budget`"),
        (("edge-decay", {"subjects": 4}), RecipeError, "leave out `subjects`"),
        (("ablation", {"label": "bright", "subjects": 4}), RecipeError, "leave out `subjects`"),
        (
            ("reconstruction", {"label": "bright", "protocol": "svm"}),
            RecipeError,
            "leave out `protocol`",
        ),
        (
            ("ablation", {"label": "bright", "budget": "40"}),
            EvaluationError,
            "part has 19 labelled",
        ),
        (("ablation", {"label": "bright", "budget": "8.5"}), EvaluationError, "8.5': give"),
        (("edge-decay", {"settings": ["optim.epoch=1"]}), RecipeError, "did you mean optim.epochs"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    store, tmp_path, arguments, error, message
):
    name, options = (*arguments, {})[:2]
    options = {"settings": QUICK} | options
    with pytest.raises(error, match=message):
        experiment(name, store.path, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_labels_with_too_few_members_are_refused_before_training(make_store, tmp_path):
    store = make_store(subjects=6, size=(16, 16), modalities=("grey",))
    with pytest.raises(EvaluationError, match="class 0 has 3 subjects, but the folds need"):
        experiment("methods", store.path, tmp_path / "out", label="bright", settings=QUICK)
    assert not (tmp_path / "out").exists()


def test_embeddings_of_other_images_are_made_anew(store, out, make_store):
    run = out / "runs" / "vitae++" / "seed0"
    before = Embeddings.load(run / "embeddings.parquet")
    other = make_store(subjects=25, size=(16, 16), modalities=("grey",), name="other")
    embed(run, other.path, run / "embeddings.parquet")
    experiment("linear-probe", store.path, out, label="bright", settings=QUICK)
    after = Embeddings.load(run / "embeddings.parquet")
    np.testing.assert_array_equal(after.features, before.features)


def test_evaluations_of_earlier_versions_are_told_and_made_anew(store, out, capsys):
    file = next((out / "runs" / "vitae++" / "seed0").glob("evaluation/*/metrics.json"))
    made = json.loads(file.read_text())
    file.write_text(json.dumps({name: made[name] for name in made if name != "scaled"}))
    assert Evaluation.load(file)["mean"] == made["mean"]
    assert "an earlier version measured this" in capsys.readouterr().err
    experiment("linear-probe", store.path, out, label="bright", settings=QUICK)
    assert json.loads(file.read_text())["scaled"] == made["scaled"]


def test_another_store_in_the_same_folder_is_refused(store, make_store, tmp_path):
    options = {"settings": QUICK, "variants": ["vitae++"]}
    experiment("edge-decay", store.path, tmp_path / "out", **options)
    other = make_store(subjects=25, size=(16, 16), modalities=("grey",), name="other")
    with pytest.raises(RunError, match="holds runs on another store"):
        experiment("edge-decay", other.path, tmp_path / "out", **options)


def test_divergence_is_judged_by_what_was_gained():
    falling = np.linspace(5, 1, 40)
    assert not course(falling).diverged
    assert not course(falling - 100).diverged  # a contrastive term makes losses negative
    assert course(np.r_[falling, np.linspace(1, 4, 20)]).diverged
    assert not course(np.r_[falling, np.linspace(1, 2, 20)]).diverged
    assert course(np.r_[falling, np.nan]).diverged
    assert not course(np.full(10, 3.0)).diverged


def test_tables_survive_special_characters():
    versus = Versus("auc", "ViT-AE", 0.0213, -0.1, 0.2, 0.95, 0.0004, "t")
    rows = (Row("a", "A_L_edge & 50 % |x|", {"auc": Cell(0.5, 0.1)}, {"auc": versus}),)
    result = Result("k", "t", ("auc",), rows, {"data": "d"}, ("a=1",))
    line = next(x for x in to_markdown(result).splitlines() if x.startswith("| A_L"))
    assert line.count(" | ") == 3
    assert "+0.021 [-0.100, 0.200]" in line
    assert "< 0.001" in line
    latex = to_latex(result)
    assert r"$\mathcal{L}_{\mathrm{edge}}$ \& 50 \%" in latex
    assert latex.count("{") == latex.count("}")
    assert pd.read_csv(__import__("io").StringIO(to_csv(result))).auc_p[0] == 0.0004


def test_a_table_says_which_rows_were_not_tested_and_why():
    no, told = (None, None, 0.95, None, ""), "no predictions"
    tested = Versus("auc", "ViT-AE", 0.02, -0.1, 0.2, 0.95, 0.4, "DeLong's test")
    cells = {"auc": Cell(0.5, 0.1)}
    rows = [Row(key, key, cells, {"auc": tested}) for key in ("a", "b")]
    rows[0] = replace(rows[0], controls={"raw": Versus("auc", "raw", 0.1, *no, told)})
    rows += [Row("c", "c", cells, {"auc": Versus("auc", "ViT-AE", 0.1, *no, told)})]

    def page(rows):
        return to_markdown(Result("k", "t", ("auc",), tuple(rows), {"data": "d"}, ()))

    first, second = page(rows).split("## Against the controls")
    assert "interval over subjects (95 %, trained models held fixed); p: DeLong's test, " in first
    assert "\n- without a test and an interval: c against ViT-AE (no predictions)\n" in first
    assert "\nΔ is the difference from raw.\n" in second
    assert "\n- without a test and an interval: a against raw (no predictions)\n" in second
    assert "without" not in page(rows[1:2])
    alone = page(rows[2:])
    assert "\nΔ is the difference from ViT-AE.\n" in alone
    half = Versus("auc", "ViT-AE", 0.02, None, None, 0.95, 0.4, "t-test", told)
    assert "without an interval: d against ViT-AE (no pr" in page(
        [Row("d", "d", cells, {"auc": half})]
    )


def test_settings_that_changed_are_listed_and_make_the_same_recipe():
    recipe = Recipe.load(settings=(*TINY, "model.patch_size=8,4,8", "loss.edge.decay=none"))
    assert "model.patch_size=8,4,8" in changed_settings(recipe)
    assert Recipe.load(settings=changed_settings(recipe)) == recipe


def test_a_variant_that_cannot_be_is_found_before_any_is_trained(store, tmp_path):
    with pytest.raises(RecipeError, match="of 4 patches leaves no patch visible"):
        experiment("masking-ratio", store.path, tmp_path / "out", label="bright", settings=QUICK)
    assert not (tmp_path / "out").exists()


def test_only_label_columns_are_offered_as_labels(store, tmp_path):
    with pytest.raises(EvaluationError, match=r"no label column 'checksum'; known are bright"):
        experiment("ablation", store.path, tmp_path / "out", label="checksum", settings=QUICK)


def test_the_strict_protocol_sees_no_other_scan_of_a_tested_person(tmp_path, capsys):
    """Scans without a label, or of a split that takes no part, are of people who are tested."""
    store = write_store(tmp_path / "store", 24, (16, 16), ("grey",))
    table = store.table
    row = np.arange(24)
    table["participant"] = [f"p{i % 8}" if i >= 16 else "" for i in row]
    table.loc[[3, 7], "participant"] = ["p3", "p7"]
    table["label"] = pd.Series(table["bright"], dtype="Int64").mask(row >= 20)
    table["split"] = np.select(
        [np.isin(row, [3, 4, 7]), (row >= 16) & (row < 20)], ["test", "val"], "train"
    )
    table.to_parquet(store.path / "table.parquet")
    asked = {"label": "label", "settings": QUICK, "variants": ["vitae"], "pretrain_per_fold": True}
    out = tmp_path / "out"
    experiment("linear-probe", store.path, out, protocol="linear", **asked)
    folder = out / "folds" / "label" / "vitae" / "seed0"
    trained = set(RunFolder(folder / "fold0").subjects())
    person = dict(zip(table["subject"], table["participant"], strict=True))
    tested = set(pd.read_parquet(folder / "evaluation" / "predictions.parquet")["subject"])
    assert not trained & tested
    assert {person[s] for s in trained if person[s]}.isdisjoint({person[s] for s in tested} - {""})
    others = {s for s in set(person) - tested if person[s] in {person[t] for t in tested} - {""}}
    validated = set(table["subject"][table["split"] == "val"])
    assert set(person) - tested - others - validated == trained
    assert f"and {len(others)} other scans of these people" in capsys.readouterr().err
    with pytest.raises(RunError, match=r"pre-trained for folds of another protocol.*another OUT$"):
        experiment("linear-probe", store.path, out, protocol="svm", **asked)
    # Nor may embeddings of a fold be by an encoder that saw one.
    file = folder / "fold0" / "embeddings.parquet"
    whole = Embeddings.load(file)
    evaluate([file], "label", tmp_path / "right", protocol="linear")
    whole.provenance["pretrained_on"].append(min(others))
    whole.save(file)
    with pytest.raises(EvaluationError, match=f"other scans of people.*{min(others)}"):
        evaluate([file], "label", tmp_path / "leak", protocol="linear")


def test_what_was_made_before_a_run_was_trained_on_is_made_anew(store, out, caplog):
    """By `pretrain`, beside the experiment: its table is of the encoder that the run has now."""
    asked = {"label": "bright", "settings": (*QUICK, "optim.epochs=2"), "variants": ["vitae"]}
    run = out / "runs" / "vitae" / "seed0"
    shown = {"settings": QUICK, "variants": ["vitae"], "subjects": 4}
    before = experiment("reconstruction", store.path, out, **shown).rows[0]
    with pytest.raises(RunError, match=r"began with optim\.epochs=1.*; choose another OUT$"):
        experiment("linear-probe", store.path, out, **asked)
    runs.pretrain(store.path, run, resume=True, settings="optim.epochs=2")
    result = experiment("linear-probe", store.path, out, **asked)
    embed(run, store.path, out / "now.parquet")
    features = Embeddings.load(out / "now.parquet").features
    assert np.array_equal(Embeddings.load(run / "embeddings.parquet").features, features)
    now = evaluate(out / "now.parquet", "bright", out / "now", repeats=1)
    assert result.rows[0].cells["auc"].mean == now["mean"]["auc"]
    written = Evaluation.load(next(run.glob("evaluation/*")))
    assert written["provenance"]["encoder"] == now["provenance"]["encoder"]
    assert written["folds"] == now["folds"]
    shown["settings"] = asked["settings"]
    after = experiment("reconstruction", store.path, out, **shown).rows[0]
    assert after.cells["psnr"].mean != before.cells["psnr"].mean
    asked = {"settings": asked["settings"], "rungs": ["untrained", "vitae"], "budget": "all"}
    made = ladder(store.path, out, "bright", **asked)
    assert made.rungs[1].part["folds"] == now["folds"]
    assert "evaluate again" not in caplog.text  # which was done
