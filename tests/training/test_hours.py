"""Hours: the arithmetic with speeds that are made up, and one training that keeps its time."""

import json
import time

import pytest

from tests.conftest import LIGHT, TINY
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.errors import RecipeError, RunError
from vitaepp.experiments.catalogue import find
from vitaepp.experiments.experiment import experiment
from vitaepp.experiments.hours import RESERVE as OF_TABLE
from vitaepp.experiments.hours import in_hours, timed_recipe
from vitaepp.experiments.runs import Setup
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.devices import Machine
from vitaepp.training import hours, propose
from vitaepp.training.footprint import Footprint
from vitaepp.training.hours import Clock, chosen_in_time, with_length
from vitaepp.training.plan import plan
from vitaepp.training.pretrain import pretrain
from vitaepp.training.propose import LEAST_UPDATES, Images

PICTURES = Images(StoreInfo(("grey",), (64, 64), None, "uint8", "image"), 5000, 2**24)
LAPTOP = Machine(2, 8 * 2**30)
FAST = [s for s in LIGHT if "epochs" not in s]


@pytest.fixture
def counted_once(monkeypatch):
    """Footprints that are made up: to count operations takes seconds."""
    flops = {"light": 0.5e9, "tiny": 1e9, "small": 4e9, "base": 16e9}

    def footprint(recipe, *_, **__):
        return Footprint(2**27, 2**22, flops[recipe.model.size])

    monkeypatch.setattr(propose, "step_footprint", footprint)


def speeds(light, tiny, small, base):
    """Images per second by size, whatever the batch."""
    asked = []

    def speed(recipe):
        asked.append(recipe.model.size)
        return {"light": light, "tiny": tiny, "small": small, "base": base}[recipe.model.size]

    return speed, asked


def chosen(speed, seconds=3600.0, given=()):
    recipe = Recipe.load(settings=given)
    names = {g.partition("=")[0] for g in given}
    return chosen_in_time(PICTURES, LAPTOP, recipe, names, lambda: seconds, speed)


def test_measuring_that_took_all_of_the_time_is_said(counted_once):
    speed, _ = speeds(4000.0, 2000.0, 400.0, 90.0)
    recipe, choices = chosen(speed, seconds=-5.0)
    assert recipe.optim.epochs == 1
    reasons = {choice.name: choice.reason for choice in choices}
    assert reasons["optim.epochs"].startswith("the least: one pass over")
    assert reasons["model.size"] == "the time is too short to compare sizes"


def test_the_largest_model_that_makes_enough_updates_is_taken(counted_once):
    speed, asked = speeds(4000.0, 2000.0, 400.0, 90.0)
    recipe, choices = chosen(speed)
    assert (recipe.model.size, recipe.optim.batch_size) == ("small", 64)
    assert asked == ["light", "tiny", "small", "base"]
    assert recipe.optim.epochs == int(3600 * 0.97 * 400 / 5000)
    reasons = {c.name: c.reason for c in choices}
    assert "base would make 4,910" in reasons["model.size"]
    assert "at 400 images per second" in reasons["optim.epochs"]
    assert recipe.optim.lr is not None


def test_a_model_without_a_chance_is_not_even_timed(counted_once):
    speed, asked = speeds(400.0, 190.0, 100.0, 90.0)
    assert chosen(speed)[0].model.size == "tiny"
    assert asked == ["light", "tiny"]


def test_little_time_makes_the_batch_smaller_down_to_its_floor(counted_once):
    recipe, _ = chosen(speeds(100.0, 80.0, 1.0, 1.0)[0])
    assert recipe.optim.batch_size == 32
    assert LEAST_UPDATES <= 3600 * 0.97 * 100 / 32
    assert chosen(speeds(3.0, 2.0, 1.0, 1.0)[0])[0].optim.batch_size == 16


def test_what_the_user_gave_stays(counted_once):
    given = ("optim.batch_size=128", "model.size=tiny", "optim.lr=0.5")
    recipe, choices = chosen(speeds(20.0, 10.0, 1.0, 1.0)[0], given=given)
    assert (recipe.optim.batch_size, recipe.model.size, recipe.optim.lr) == (128, "tiny", 0.5)
    assert not {c.name for c in choices} & {"optim.batch_size", "model.size", "optim.lr"}


def test_a_named_recipe_gets_a_length_and_no_more():
    recipe = Recipe.load(settings="optim.updates=7")
    timed, (choice,) = with_length(recipe, 100, lambda: 1000.0, 5.0)
    assert timed == recipe.with_settings("optim.epochs=48")
    assert choice.value == 48
    assert timed.optim.updates is None
    one, (choice,) = with_length(recipe, 10_000, lambda: 1000.0, 5.0)
    assert one.optim.epochs == 1
    assert "the least: one pass over 10,000 images takes 0.56 hours, longer" in choice.reason
    # 500 s a pass, and 3 % for what is not a step; the clock has just begun.
    (choice,) = with_length(recipe, 10_000, Clock(0.1), 20.0)[1]
    assert choice.reason.endswith("with measuring, 0.14 `hours` are the minimum here")


def test_a_table_shares_its_time_over_rows_and_seeds(make_store, tmp_path):
    store = make_store(subjects=20, size=(16, 16), modalities=("grey",))
    base = Recipe.load(settings=TINY)
    setup = Setup(store, tmp_path, base, "bright", None, per_fold=False, seeds=3)
    images = Images.of(store.info, trained=20, stored=20)
    both = find("ablation").choose(["vitae", "vitae++"])

    def speed(recipe):
        return 10.0 if recipe.method == "vitae" else 5.0

    class Left(Clock):
        def __call__(self):
            return 3600 * self.hours

    clock = Left(0.1)
    recipe, told = timed_recipe(both, setup, images, LAPTOP, (), clock, speed, choose=False)
    trainings = 3 * (20 / 10 + 20 / 5)
    assert recipe.optim.epochs == int((360 * (1 - OF_TABLE) - 3 * trainings) / trainings)
    assert "6 trainings, at 5 to 10 images per second" in told[-1]
    assert recipe == base.changed(optim={"epochs": recipe.optim.epochs})


@pytest.fixture
def quick(monkeypatch):
    """Speeds are measured by very few steps."""
    monkeypatch.setattr(hours, "TIMED", 0.05)
    monkeypatch.setattr(hours, "WARM_UP", 1)


def test_a_resumed_run_keeps_its_length(make_store, tmp_path, quick, capsys):
    store = make_store(subjects=6, size=(16, 16), modalities=("grey",))
    settings = [*FAST, "method=vitae"]
    run = pretrain(store.path, tmp_path / "run", settings=settings, hours=0.0003)
    recipe = Recipe.load(run / "recipe.yaml")
    assert recipe.optim.epochs >= 1
    capsys.readouterr()
    pretrain(store.path, run, settings=settings, hours=0.01, resume=True)
    assert Recipe.load(run / "recipe.yaml") == recipe
    assert "keeps its length; `hours` is for a run that begins" in capsys.readouterr().err


def test_a_time_alone_begins_a_run_that_there_is_not_yet(make_store, tmp_path, quick, capsys):
    """As the examples do, which go on where they stopped when they are run again."""
    store = make_store(subjects=2)
    run = pretrain(store.path, tmp_path / "run", settings=FAST, hours=0.0001, resume=True)
    assert "starting anew" in capsys.readouterr().err
    (tmp_path / "lost").mkdir()
    (run / "last.ckpt").rename(tmp_path / "lost" / "last.ckpt")
    with pytest.raises(RunError, match="a checkpoint without its recipe"):
        pretrain(store.path, tmp_path / "lost", hours=0.0001, resume=True)


def test_an_experiment_keeps_what_hours_chose(make_store, tmp_path, quick, capsys):
    store = make_store(subjects=20, size=(16, 16), modalities=("grey",))
    sweep = tmp_path / "s.yaml"
    sweep.write_text("base: {method: vitae}\nvariants: {a: {}, b: {optim.lr: 1e-4}}")
    out, options = tmp_path / "out", {"label": "bright", "settings": FAST, "hours": 0.0003}
    result = experiment(sweep, store.path, out, **options)
    recipes = [Recipe.load(out / f"runs/{key}/seed0/recipe.yaml") for key in "ab"]
    assert recipes[0].optim.epochs == recipes[1].optim.epochs
    assert "--hours 0.0003" in (out / "s.md").read_text()
    assert experiment(sweep, store.path, out, **options) == result
    with pytest.raises(RunError, match=r"began with hours=0\.0003 instead of 2\.0; repeat"):
        experiment(sweep, store.path, out, **options | {"hours": 2.0})
    capsys.readouterr()
    experiment(sweep, store.path, out, **options, seeds=2)
    said = f"optim.epochs={recipes[0].optim.epochs} was found for 2 rows and 1 training of each row"
    assert said in capsys.readouterr().err
    sweep.write_text("base: {method: vitae, optim.weight_decay: 0.1}\nvariants: {a: {}}")
    with pytest.raises(RunError, match=r"began with optim\.weight_decay=\S+ instead of 0\.1; rep"):
        experiment(sweep, store.path, out, **options)


def test_plan_measures_stores_and_scans_alike(make_store, tmp_path, quick, counted_once):
    store = make_store(subjects=6, size=(16, 16), modalities=("grey",))
    planned = plan(store.path, hours=0.001)
    assert "images per second, measured here" in planned.to_yaml()
    assert "to train for 0.001 hours" in planned.to_yaml()


@pytest.mark.parametrize(
    ("settings", "time", "message"),
    [
        ((), 0.0, "`hours`=0: give more than 0"),
        ((), float("inf"), "`hours`=inf: give more than 0, and an end"),
        (("optim.epochs=3",), 1.0, "`hours`=1 and optim.epochs both say how long"),
        (("optim.updates=3",), 1.0, "`hours`=1 and optim.updates both say how long"),
        (("trainer.devices=2",), 1.0, "measured of one process, and several are to train"),
    ],
)
def test_two_lengths_are_refused(make_store, tmp_path, settings, time, message):
    with pytest.raises(RecipeError, match=message):
        pretrain(make_store().path, tmp_path / "run", settings=settings, hours=time)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_training_ends_within_its_time(make_store, tmp_path):
    """72 seconds; a tenth is what is promised, the rest is for whatever else runs here."""
    store = make_store(subjects=24, size=(32, 32), modalities=("grey",))
    start = time.monotonic()
    pretrain(store.path, tmp_path / "run", settings=FAST, hours=0.02)
    assert 0.75 * 72 < time.monotonic() - start < 1.25 * 72


@pytest.mark.parametrize("measured", [1e6, 30.0])
def test_a_machine_that_was_measured_wrongly_ends_in_time_all_the_same(
    make_store, tmp_path, monkeypatch, capsys, measured
):
    """Measured a thousand times too fast, or far too slow: the length changes on the way."""
    monkeypatch.setattr(hours, "measured_speed", lambda *_: lambda recipe: measured)
    store = make_store(8, (16, 16), ("grey",))
    seconds = 3.0
    begun = time.monotonic()
    recipe = Recipe.load(settings=["method=vitae", *FAST])
    before = with_length(recipe, 8, Clock(seconds / 3600), measured)[0].optim.epochs
    run = pretrain(store.path, tmp_path / "run", recipe=recipe, hours=seconds / 3600)
    kept = RunFolder(run)
    assert kept.has_ended()
    length = kept.recipe().optim.epochs
    told = capsys.readouterr().err
    if measured > 1000:
        assert length < before / 10
        assert "the machine is slower than it was measured to be" in told
        assert f"{length} epochs instead of" in told
        assert time.monotonic() - begun < 60  # not the hour that all epochs would take
    else:
        assert "the machine is faster" in told
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == length + 1
    lengths = json.loads((run / "summary.json").read_text())["lengths"]
    assert lengths[0]["epochs"] == pytest.approx(before, rel=0.1)
    if measured < 1000:  # `lengths` are those that were changed; other work may shorten the last
        assert max(length, *(each["epochs"] for each in lengths)) > before


def test_the_same_hours_may_be_shared_out_otherwise(make_store, tmp_path, quick, capsys):
    """As a ladder does, whose fine-tuning is asked for later, or no more."""
    store = make_store(subjects=6, size=(16, 16), modalities=("grey",))
    setup = Setup(store, tmp_path, Recipe.load(settings=FAST), "", None, False)
    chosen = find("linear-probe").choose(["vitae++"])
    first = in_hours(chosen, setup, Clock(0.0003, 0.7), None, FAST)
    capsys.readouterr()
    assert in_hours(chosen, setup, Clock(0.0003), None, FAST).recipe == first.recipe
    assert "in 70% of the time, and stays" in capsys.readouterr().err
    with pytest.raises(RunError, match=r"began with hours=0\.0003 instead of 0\.0004; repeat"):
        in_hours(chosen, setup, Clock(0.0004), None, FAST)
