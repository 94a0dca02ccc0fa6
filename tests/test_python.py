"""The library as used from Python: short calls, arrays to work with, reprs that fit a line."""

import inspect
import json
import pickle
from typing import get_args, get_type_hints

import numpy as np
import pandas as pd
import pytest

import vitaepp
from tests.conftest import TINY
from tests.ingest.trees import picture, scan
from vitaepp import errors
from vitaepp.errors import EvaluationError, RecipeError, StoreError
from vitaepp.presentation.notebook import Tabular
from vitaepp.recipe.recipe import Recipe


@pytest.fixture
def recipe(tmp_path):
    """A recipe file that trains in seconds."""
    Recipe.load(settings=TINY).save(tmp_path / "tiny.yaml")
    return tmp_path / "tiny.yaml"


@pytest.mark.parametrize(
    "call",
    [
        lambda store, out, **more: Recipe.load(**more),
        lambda store, out, **more: Recipe().with_settings(more["settings"]),
        lambda store, out, **more: vitaepp.prepare(out, out / "s", **more),
        lambda store, out, **more: vitaepp.pretrain(store, out / "run", **more),
        lambda store, out, **more: vitaepp.bench(store, **more),
        lambda store, out, **more: vitaepp.experiment("edge-decay", store, out / "e", **more),
    ],
    ids=["load", "with_settings", "prepare", "pretrain", "bench", "experiment"],
)
def test_one_setting_is_given_as_one_string(make_store, tmp_path, call):
    store = make_store(subjects=2, size=(16, 16), modalities=("t1",)).path
    with pytest.raises(RecipeError) as caught:
        call(store, tmp_path, settings="optim.epoch=3")
    assert str(caught.value) == "unknown setting optim.epoch; did you mean optim.epochs?"


def test_prepare_takes_settings_as_texts_and_arguments_before_them(tmp_path):
    scan(tmp_path / "x" / "a.nii.gz")
    asked = {"workers": 1, "settings": ["prepare.size=8", "prepare.clip=1,99"]}
    vitaepp.prepare(tmp_path / "x", tmp_path / "s", **asked)
    vitaepp.prepare(tmp_path / "x", tmp_path / "t", size=6, **asked)
    first, second = (vitaepp.Store(tmp_path / name).info for name in "st")
    assert (first.size, second.size) == ((8, 8, 8), (6, 6, 6))
    assert first.clip == second.clip == (1.0, 99.0)


def test_a_store_gives_one_image_by_row_or_name(make_store):
    store = make_store(subjects=3)
    for key, row in ((0, 0), (-1, 2), (np.int64(1), 1), ("s002", 2)):
        found = store[key]
        assert (found.dtype, found.shape) == (np.float32, store.info.shape)
        np.testing.assert_array_equal(found, store.read([row])[0])
    assert len(list(store)) == 3  # it ends
    with pytest.raises(IndexError, match="row 3 of 3 subjects"):
        store[3]
    with pytest.raises(StoreError, match="no subject 's003'"):
        store["s003"]


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_arrays_may_be_written_to_and_the_store_stays(tmp_path, dtype):
    for i in range(2):
        picture(tmp_path / "x" / "a" / f"{i}.png", seed=i)
    vitaepp.prepare(tmp_path / "x", tmp_path / "s", size=16, dtype=dtype, workers=1)
    store = vitaepp.Store(tmp_path / "s")
    before = store.read([0, 1])
    for array in (store[0], store.read([0]), store.read([0, 1]), *store.batches(1)):
        array[:] = 7
    np.testing.assert_array_equal(vitaepp.Store(tmp_path / "s").read([0, 1]), before)


@pytest.mark.parametrize("width", [1, 5])
def test_features_of_a_file_may_be_written_to(tmp_path, width):
    table = pd.DataFrame({"subject": ["a", "b"], "grade": [0, 1], "split": ""})
    features = np.arange(2.0 * width, dtype=np.float32).reshape(2, width)
    vitaepp.Embeddings(table, features, {}).save(tmp_path / "e.parquet")
    found = vitaepp.Embeddings.load(tmp_path / "e.parquet")
    np.testing.assert_array_equal(found.features, features)
    found.features[:] = 1
    assert repr(found) == f"Embeddings(2 subjects; {width} features; labels grade)"


def test_the_way_through_a_notebook(make_store, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = make_store(subjects=20, size=(16, 16))
    assert repr(store).endswith("store': 20 subjects, t1 t2, 16×16)")
    run = vitaepp.pretrain(store.path, "run", recipe=recipe, settings="optim.epochs=1")
    assert Recipe.load(run / "recipe.yaml").optim.epochs == 1
    encoder = vitaepp.Encoder.from_pretrained(run)
    assert repr(encoder) == "Encoder(ViT-AE++, vit: t1 t2 16×16 to 672 features)"
    features = encoder.embed(store)
    features += 1  # their reader's own
    assert vitaepp.report("run").name == "report.html"
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    vitaepp.embed(run, store.path, "e.parquet")
    plain = encoder.embed(store) * 1e-9 + np.random.default_rng(0).random(
        (20, encoder.dim), np.float32
    )
    vitaepp.Embeddings(vitaepp.Embeddings.load("e.parquet").table, plain, {}).save("n.parquet")
    trained = vitaepp.evaluate("e.parquet", "bright", "trained")
    noise = vitaepp.evaluate("n.parquet", "bright", "noise")
    assert repr(trained).startswith("Evaluation(AUC of bright, 20 subjects: ViT-AE++ 0.")
    assert "untrained encoder" in repr(trained)
    assert trained == json.loads((tmp_path / "trained" / "metrics.json").read_text())
    assert pickle.loads(pickle.dumps(trained)).path == trained.path
    # What was returned, where it lies, one by one or as a list: all the same.
    told = str(vitaepp.compare("trained", "noise"))
    assert "corrected resampled t-test" in told
    assert "interval" in told
    for given in ((trained, noise), ([trained, "noise"],), (tmp_path / "trained", noise)):
        assert str(vitaepp.compare(*given)) == told
    found = vitaepp.compare(trained, noise, reference=noise)
    assert found.reference.name == "noise"
    assert repr(found).startswith("Comparison(AUC of bright, 20 subjects: noise 0.")
    assert found._repr_html_().startswith("<table>")
    with pytest.raises(
        EvaluationError, match=r"dict is no evaluation; give what vitaepp\.evaluate"
    ):
        vitaepp.compare(dict(trained), noise)


#: Results that are no table: what was done to a store, how fast it is, what this machine is.
FACTS = {"PrepareResult", "Speed", "Health"}


@pytest.mark.parametrize("name", [n for n in vitaepp.__all__ if n.islower() and n[0] != "_"])
def test_a_result_is_a_table_and_shows_itself_in_a_notebook(name):
    returned = get_type_hints(inspect.unwrap(getattr(vitaepp, name))).get("return")
    for kind in get_args(returned) or (returned,):
        if getattr(kind, "__module__", "").startswith("vitaepp.") and kind.__name__ not in FACTS:
            own = {method for c in kind.__mro__ if c is not Tabular for method in vars(c)}
            assert "to_frame" in own
            assert hasattr(kind, "_repr_html_")


def test_a_notebook_shows_the_beginning_of_long_results():
    class Long(Tabular):
        def to_frame(self):
            return pd.DataFrame({"n": range(100, 200)})

        def __str__(self):
            return "<b>\n" * 30

    page = Long()._repr_html_()
    assert page.startswith("<p>&lt;b&gt;</p>")
    assert (page.count("<p>"), page.count("</p><table")) == (11, 1)
    assert (">100<" in page, ">199<" in page, ">150<" in page) == (True, True, False)


def test_what_prepare_did_is_told_in_a_line(tmp_path):
    scan(tmp_path / "x" / "a.nii.gz")
    done = vitaepp.prepare(tmp_path / "x", tmp_path / "s", size=8, workers=1)
    told = f"{tmp_path / 's'}: 1 subject prepared, 0 were there already"
    assert (str(done), repr(done)) == (told, f"PrepareResult({told})")
    dry = vitaepp.prepare(tmp_path / "x", dry_run=True)
    assert repr(dry) == "PrepareResult(a dry run; print it to see what was found)"
    assert str(dry) == str(dry.dry_run)


def test_every_error_is_made_of_one_message():
    """So that one of another process is told as it was there."""
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    kinds = [kind for kind in kinds if issubclass(kind, errors.VitaeppError)]
    assert len(kinds) > 10
    for kind in kinds:
        assert str(kind("what was found")) == "what was found"


def test_a_recipe_shows_what_is_not_the_default():
    assert repr(Recipe()) == str(Recipe()) == "Recipe(ViT-AE++)"
    recipe = Recipe.load(settings=["method=vitae", "optim.epochs=5"])
    assert repr(recipe).startswith("Recipe(ViT-AE, ")
    assert "optim.epochs=5" in repr(recipe)
