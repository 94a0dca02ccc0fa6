"""A file of variants is an experiment like any other, and a wrong file is refused in one line."""

import json

import pytest

from tests.conftest import LIGHT, TINY
from vitaepp.errors import RecipeError, RunError
from vitaepp.experiments.catalogue import read_experiment
from vitaepp.experiments.experiment import experiment
from vitaepp.recipe.recipe import Recipe

SWEEP = """
title: Width
base:
  optim.epochs: 1
  method: vitae
seeds: 2
variants:
  narrow: {}
  wide:
    model: {embed_dim: 96}
  masked: {model.mask_ratio: 0.5}
"""


@pytest.fixture
def store(make_store):
    return make_store(subjects=20, size=(16, 16), modalities=("grey",))


def test_a_sweep_is_trained_compared_and_gone_on_with(store, tmp_path):
    file = tmp_path / "width.yaml"
    file.write_text(SWEEP)
    out = tmp_path / "out"
    asked = {"label": "bright", "settings": TINY[:-2], "variants": ["narrow", "wide"], "seeds": 1}
    result = experiment(file, store.path, out, **asked)
    keys = ["narrow", "wide", "untrained-vit", "untrained-vit-wide", "raw"]
    assert [row.key for row in result.rows] == keys
    assert result.rows[1].versus["auc"].against == "narrow"
    recipes = [
        Recipe.load(out / "runs" / key / "seed0" / "recipe.yaml") for key in ("narrow", "wide")
    ]
    assert [r.model.embed_dim for r in recipes] == [48, 96]
    assert [(r.optim.epochs, r.method) for r in recipes] == [(1, "vitae")] * 2
    page = (out / "width.md").read_text()
    assert page.startswith("# width\n\nWidth")
    assert "| variant wide | model={'embed_dim': 96} |" in page
    assert "`vitaepp experiment width.yaml store OUT --label bright" in page
    assert {p.suffix for p in out.glob("width.*")} == {".md", ".csv", ".tex", ".json"}
    checkpoint = out / "runs" / "wide" / "seed0" / "last.ckpt"
    stamp = checkpoint.stat().st_mtime_ns
    assert experiment(file, store.path, out, **asked) == result
    assert checkpoint.stat().st_mtime_ns == stamp
    assert json.loads((out / "width.json").read_text())["rows"][1]["key"] == "wide"
    # A row that began otherwise is found before those are trained that stand before it.
    file.write_text(SWEEP.replace("{embed_dim: 96}", "{embed_dim: 72}"))
    with pytest.raises(RunError, match=r"wide.seed0: began with model\.embed_dim=96.*another OUT"):
        experiment(file, store.path, out, **asked | {"variants": ["masked", "wide"]})
    assert not (out / "runs" / "masked").exists()


def test_hours_are_of_rows_without_a_length_of_their_own(store, tmp_path):
    file = tmp_path / "length.yaml"
    file.write_text("variants: {short: {}, long: {optim: {epochs: 3}}}")
    with pytest.raises(RecipeError, match=r"hours.=1 and optim.epochs both say how long"):
        experiment(
            file, store.path, tmp_path / "out", label="bright", settings=TINY[:-2], hours=1.0
        )


def test_a_file_says_seeds_and_base(tmp_path):
    file = tmp_path / "width.yaml"
    file.write_text(SWEEP)
    plan = read_experiment(file)
    assert (plan.seeds, plan.experiment.title) == (2, "Width")
    assert plan.base == {"optim.epochs": 1, "method": "vitae"}
    assert [v.against for v in plan.experiment.variants] == ["", "narrow", "narrow"]
    assert read_experiment("ablation").base is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variants: {a: {optim.lrr: 1}}", r"variant a: unknown setting optim.lrr; .*optim.lr"),
        ("variants: {a: {optim.lr: -1}}", r"variant a: optim.lr=-1: give more than 0"),
        ("base: {seeed: 1}\nvariants: {a: {}}", "base: unknown setting seeed; did you mean seed"),
        ("variants: {a: 3}", "variant a: write settings as SETTING: VALUE, found 3"),
        ("variants: {a/b: {}}", "variant 'a/b': a name has letters"),
        ("variants: []", "variants: write one or more"),
        ("variant: {a: {}}", "unknown entry variant; did you mean variants"),
        ("seeds: many\nvariants: {a: {}}", "seeds=many: give a whole number"),
        ("{", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(store, tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message) as refused:
        experiment(file, store.path, tmp_path / "out", label="bright", settings=LIGHT)
    assert str(refused.value).startswith(str(file))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_and_a_shipped_name_are_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"none.yaml: no such file"):
        read_experiment("none.yaml")
    # The last three would be written over files of a folder's own.
    for name in ("ablation", "experiment", "hours", "Ladder"):
        (tmp_path / f"{name}.yaml").write_text("variants: {a: {}}")
        with pytest.raises(RecipeError, match=f"{name} is the name of a shipped experiment, or of"):
            read_experiment(tmp_path / f"{name}.yaml")
