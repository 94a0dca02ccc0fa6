"""A training that dies, is stopped, or finds its checkpoint damaged ends as if nothing had been."""

import hashlib
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import TINY, write_store
from tests.processes import Forked, command
from tests.training.test_distributed import METHODS, ONE_THREAD, environment
from vitaepp.data.checkpoints import is_whole, load_checkpoint
from vitaepp.data.embeddings import Embeddings
from vitaepp.data.runfolder import weights_id
from vitaepp.encoder.embed import embed
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RunError, Stopped
from vitaepp.evaluation import evaluate
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.signals import STOPPING
from vitaepp.training.module import Training
from vitaepp.training.pretrain import pretrain
from vitaepp.weights.runs import load_method

#: Ten images in steps of three: three epochs of four steps, of which the last has one image.
SETTINGS = (*TINY, "optim.batch_size=3", "optim.base_lr=1e-3", "trainer.checkpoint_every=0")
SUBJECTS = 10


def assert_equal_runs(run: Path, other: Path) -> None:
    """Bit for bit, and with the same table."""
    first, second = (load_checkpoint(r / "last.ckpt") for r in (run, other))
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name
    for state, expected in zip(
        *(c["optimizer_states"][0]["state"].values() for c in (first, second)), strict=True
    ):
        assert all(torch.equal(state[name], expected[name]) for name in expected)
    tables = [
        pd.read_csv(r / "metrics.csv").drop(columns=["seconds", "waiting"]) for r in (run, other)
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of `vitae` that nothing interrupted, on `make_store(subjects=SUBJECTS)`."""
    root = tmp_path_factory.mktemp("whole")
    store = write_store(root / "store", SUBJECTS)
    return pretrain(store.path, root / "run", settings=(*SETTINGS, "method=vitae"))


@pytest.fixture
def dying(monkeypatch):
    """Let a training die before a step, counted from when it started or resumed."""
    whole = Training.training_step

    def after(steps: int) -> None:
        taken = 0

        def step(self, batch, index):
            nonlocal taken
            taken += 1
            if taken > steps:
                raise SystemExit("killed")
            return whole(self, batch, index)

        monkeypatch.setattr(Training, "training_step", step)

    return after


@pytest.mark.parametrize(
    ("method", "settings", "steps"),
    [
        ("vitae++", (), 1),
        ("vitae++", ("optim.accumulate=2",), 3),
        ("vitae++", ("model.drop_path=0.3", "views.normalize=cohort", "optim.clip_norm=1"), 2),
        ("mocov3", ("data.cache=none", "data.workers=0"), 1),
    ],
)
def test_dying_again_and_again_ends_where_an_uninterrupted_training_does(
    make_store, tmp_path, dying, capsys, method, settings, steps
):
    store = make_store(subjects=SUBJECTS)
    settings = (*SETTINGS, *METHODS[method], *settings, "optim.batch_size=3", "optim.epochs=2")
    whole = pretrain(store.path, tmp_path / "whole", settings=settings)
    run, deaths = tmp_path / "run", 0
    while not (run / "encoder").is_dir():
        dying(steps)
        try:
            pretrain(store.path, run, settings=settings, resume=deaths > 0)
        except SystemExit:
            deaths += 1
            assert deaths < 20
    assert deaths >= 3
    assert re.search(r"going on after epoch 1 of 2 and \d of \d steps", capsys.readouterr().err)
    assert_equal_runs(run, whole)
    assert sorted(path.name for path in run.glob("*.ckpt")) == ["last.ckpt", "previous.ckpt"]


def test_reading_processes_go_on_in_the_right_epoch(make_store, tmp_path, dying, whole):
    store = make_store(subjects=SUBJECTS)
    settings = (*SETTINGS, "method=vitae", "data.cache=none", "data.workers=1")
    dying(6)
    with pytest.raises(SystemExit):
        pretrain(store.path, tmp_path / "run", settings=settings)
    dying(100)
    assert_equal_runs(pretrain(store.path, tmp_path / "run", resume=True), whole)


@pytest.mark.parametrize("damage", ["truncate", "flip", "encrypt", "remove"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    make_store, tmp_path, dying, capsys, whole, damage
):
    store = make_store(subjects=SUBJECTS)
    settings = (*SETTINGS, "method=vitae")
    run = tmp_path / "run"
    dying(6)
    with pytest.raises(SystemExit):
        pretrain(store.path, run, settings=settings)
    last = run / "last.ckpt"
    content = bytearray(last.read_bytes())
    if damage == "truncate":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        # In the middle of a tensor, where torch itself would not notice.
        content[
            content.find(
                load_checkpoint(last)["state_dict"]["method.backbone.blocks.0.mlp.fc1.weight"]
                .numpy()
                .tobytes()
            )
            + 100
        ] ^= 1
        last.write_bytes(content)
    elif damage == "encrypt":
        # One bit of the archive's table, which has no checksum: zipfile then asks for a password.
        content[content.rfind(b"PK\x01\x02") + 8] ^= 1
        last.write_bytes(content)
    else:
        last.unlink()
    capsys.readouterr()
    # Dies once more, before anything is saved: the damaged one has not replaced the good one.
    for steps in (0, 100):
        dying(steps)
        try:
            pretrain(store.path, run, resume=True)
        except SystemExit:
            assert is_whole(run / "previous.ckpt")
    said = capsys.readouterr().err
    assert "last.ckpt: missing or damaged; going on from previous.ckpt before it" in said
    assert "going on after epoch 1 of 3 and 1 of 4 steps" in said
    assert_equal_runs(run, whole)


def test_without_a_whole_checkpoint_resuming_says_what_to_do(make_store, tmp_path):
    store = make_store(subjects=4)
    run = pretrain(store.path, tmp_path / "run", settings=(*SETTINGS, "method=vitae"))
    for name in ("last.ckpt", "previous.ckpt"):
        (run / name).write_bytes(b"PK")
    with pytest.raises(RunError, match=r"last\.ckpt: damaged, and no .* remove it to start anew"):
        pretrain(store.path, run, resume=True)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_saves_and_stops_after_the_step_at_hand(
    make_store, tmp_path, monkeypatch, capsys, whole, number
):
    store = make_store(subjects=SUBJECTS)
    settings = (*SETTINGS, "method=vitae", "trainer.checkpoint_every=1000")
    step = Training.training_step

    def signalled(self, batch, index):
        if self.global_step == 5:
            os.kill(os.getpid(), number)
        return step(self, batch, index)

    monkeypatch.setattr(Training, "training_step", signalled)
    before = [signal.getsignal(n) for n in STOPPING]
    with pytest.raises(Stopped, match=r"stopped after step 6 of 12, .*all is saved.*`resume=True`"):
        pretrain(store.path, tmp_path / "run", settings=settings)
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert f"{name}: saving after the step at hand, then stopping" in capsys.readouterr().err
    assert [signal.getsignal(n) for n in STOPPING] == before
    assert load_checkpoint(tmp_path / "run" / "last.ckpt")["global_step"] == 6
    monkeypatch.setattr(Training, "training_step", step)
    assert_equal_runs(pretrain(store.path, tmp_path / "run", resume=True), whole)


def test_going_on_takes_the_images_that_training_began_with(make_store, tmp_path, dying, capsys):
    store = make_store(subjects=SUBJECTS)
    settings = (*SETTINGS, "method=vitae")
    run = tmp_path / "run"
    dying(6)
    with pytest.raises(SystemExit):
        pretrain(store.path, run, settings=settings)
    dying(100)
    before = (run / "last.ckpt").read_bytes()
    table = store.table
    changed = {
        "more": make_store(subjects=SUBJECTS + 1, name="more"),
        "order": make_store(subjects=SUBJECTS, name="order"),
        "scan": make_store(subjects=SUBJECTS, name="scan"),
    }
    rows = {
        "order": table.iloc[::-1],
        "scan": table.assign(checksum=["y", *table.checksum[1:]]),
    }
    for name, other in changed.items():
        if name in rows:
            rows[name].to_parquet(other.path / "table.parquet", index=False)
        with pytest.raises(RunError, match=f"began on other images than those of .*{name} today"):
            pretrain(other.path, run, resume=True)
    assert (run / "last.ckpt").read_bytes() == before
    # Labels are not what it was trained on.
    table.assign(grade="high").to_parquet(store.path / "table.parquet", index=False)
    assert pretrain(store.path, run, resume=True) == run
    capsys.readouterr()
    pretrain(changed["more"].path, run, resume=True)
    assert "ended already, after 3 epochs, on other images than those of" in capsys.readouterr().err
    # An encoder that is still to be written would be said to be of the images of today.
    shutil.rmtree(run / "encoder")
    with pytest.raises(RunError, match="began on other images"):
        pretrain(changed["more"].path, run, resume=True)
    pretrain(store.path, run, resume=True)
    assert (run / "encoder").is_dir()


def test_an_older_checkpoint_goes_on_with_a_word(make_store, tmp_path, dying, capsys):
    store = make_store(subjects=SUBJECTS)
    dying(6)
    with pytest.raises(SystemExit):
        pretrain(store.path, tmp_path / "run", settings=(*SETTINGS, "method=vitae"))
    dying(100)
    checkpoint = load_checkpoint(tmp_path / "run" / "last.ckpt")
    for name in ("images", "prepared"):
        del checkpoint["vitaepp"][name]
    torch.save(checkpoint, tmp_path / "run" / "last.ckpt")
    pretrain(store.path, tmp_path / "run", resume=True)
    assert "does not tell on which images training began" in capsys.readouterr().err


def asked(store, run: Path, *settings: str) -> list[str]:
    sets = [f"--set={s}" for s in (*SETTINGS, *settings)]
    return ["pretrain", str(store.path), str(run), *sets, "--resume"]


def start(store, run: Path, *settings: str) -> Forked:
    return command(*asked(store, run, *settings), **ONE_THREAD)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_during_start_up_ends_with_the_same_status(make_store, tmp_path, number):
    store = make_store(subjects=SUBJECTS)
    process = subprocess.Popen(
        [sys.executable, "-m", "vitaepp", *asked(store, tmp_path / "run", "optim.epochs=2000")],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    importing = Path(f"/proc/{process.pid}/maps")
    while "libtorch" not in importing.read_text():
        assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert said.count("go on with --resume") == 1


def uninterrupted(store, run: Path, *settings: str) -> Path:
    """A whole training in a process of its own, with as many threads as those that are killed."""
    process = start(store, run, *settings)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return run


def kill_until_done(store, run: Path, settings: tuple[str, ...], waits: list[float]) -> int:
    """Kill a training so many seconds after its first sign of life; how often it was alive."""
    killed = 0
    for wait in waits:
        process = start(store, run, *settings)
        process.stderr.readline()
        time.sleep(wait)
        killed += process.poll() is None
        process.kill()
        process.communicate()
        kept = [run / "last.ckpt", run / "previous.ckpt"]
        assert all(is_whole(path) for path in kept if path.exists())
    uninterrupted(store, run, *settings)
    return killed


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_the_same(make_store, tmp_path):
    store = make_store(subjects=SUBJECTS)
    settings = ("method=vitae", "optim.epochs=20")
    whole = uninterrupted(store, tmp_path / "whole", *settings)
    waits = [random.Random(0).uniform(0, 1) for _ in range(2)]
    assert kill_until_done(store, tmp_path / "run", settings, waits)
    assert_equal_runs(tmp_path / "run", whole)
    assert not list((tmp_path / "run").glob(".tmp-*"))


@pytest.mark.slow
def test_killed_very_often_it_ends_the_same(make_store, tmp_path):
    store = make_store(subjects=SUBJECTS)
    settings = ("optim.epochs=60",)
    whole = uninterrupted(store, tmp_path / "whole", *settings)
    draw = random.Random(1)
    waits = [draw.uniform(0, 4) for _ in range(25)]
    assert kill_until_done(store, tmp_path / "run", settings, waits) > 5
    assert_equal_runs(tmp_path / "run", whole)


def test_terminated_from_outside_it_ends_with_its_status_and_goes_on(make_store, tmp_path):
    store = make_store(subjects=SUBJECTS)
    settings = ("method=vitae", "optim.epochs=2000", "trainer.checkpoint_every=1000")
    process = start(store, tmp_path / "run", *settings, "trainer.devices=2")
    while "epoch 1 of" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert said.count("go on with --resume") == 1
    assert load_checkpoint(tmp_path / "run" / "last.ckpt")["global_step"] > 0


def test_how_steps_are_launched_may_change(make_store, tmp_path, dying):
    store, run = make_store(subjects=SUBJECTS), tmp_path / "run"
    dying(4)
    with suppress(SystemExit):
        pretrain(store.path, run, settings=(*SETTINGS, "method=vitae", "optim.epochs=2"))
    dying(100)
    pretrain(store.path, run, settings="trainer.replay=false", resume=True)
    assert "replay: false" in (run / "recipe.yaml").read_text()
    assert load_checkpoint(run / "last.ckpt")["global_step"] == 8


@pytest.mark.parametrize("asked", [None, "optim.epochs=4"])
def test_a_recipe_that_was_edited_since_is_refused(make_store, tmp_path, asked):
    store, run = make_store(subjects=4), tmp_path / "run"
    pretrain(store.path, run, settings=(*SETTINGS, "method=vitae", "optim.epochs=2"))
    kept = run / "recipe.yaml"
    whole = kept.read_text()
    edited = whole.replace("mask_ratio: 0.75", "mask_ratio: 0.5").replace("seed: 0", "seed: 7")
    kept.write_text(edited)
    told = "began with seed=0, now asked to go on with 7, and with another model.mask_ratio; undo"
    with pytest.raises(RunError, match=told):
        pretrain(store.path, run, settings=asked or (), resume=True)
    assert kept.read_text() == edited
    # What changes no result may be edited, and what the next step alone reads.
    harmless = {
        "workers: 2": "workers: 0",
        "watch: null": "watch: bright",
        "patience: 0.5": "patience: 0.9",
    }
    for before, after in harmless.items():
        assert before in whole, before
        whole = whole.replace(before, after)
    kept.write_text(whole)
    pretrain(store.path, run, settings=asked or (), resume=True)
    assert pd.read_csv(run / "metrics.csv").epoch.tolist() == list(range(4 if asked else 2))


def test_a_recipe_that_is_named_is_held_against_the_training_and_not_against_the_file(
    make_store, tmp_path
):
    store, run = make_store(subjects=4), tmp_path / "run"
    pretrain(store.path, run, settings=(*SETTINGS, "method=vitae", "optim.epochs=1"))
    own = Recipe.load(run / "recipe.yaml")
    for change in ("edited", "gone"):
        if change == "edited":
            own.changed(seed=7).save(run / "recipe.yaml")
        else:
            (run / "recipe.yaml").unlink()
        pretrain(store.path, run, recipe=own, resume=True)
        with pytest.raises(RunError, match="began with seed=0, now asked to go on with 3"):
            pretrain(store.path, run, recipe=own.changed(seed=3), resume=True)


def learning_rates(run: Path) -> list[float]:
    return pd.read_csv(run / "metrics.csv").lr.tolist()


def schedule(steps: list[int], epochs: int, warmup: int) -> list[float]:
    """Of SETTINGS, four steps an epoch: after so many steps, by the formula of the paper's MAE."""
    total, top = 4 * epochs, 1e-3 * 3 / 256
    cosine = [0.5 * (1 + math.cos(math.pi * (s - warmup) / (total - warmup))) for s in steps]
    return [top * (s / warmup if s < warmup else c) for s, c in zip(steps, cosine, strict=True)]


@pytest.mark.parametrize(
    ("done", "first", "then"), [(12, 3, 6), (9, 3, 5), (9, 30, 4)], ids=["ended", "longer", "less"]
)
def test_a_training_goes_on_to_another_length(
    make_store, tmp_path, dying, capsys, done, first, then
):
    store, run = make_store(subjects=SUBJECTS), tmp_path / "run"
    settings = (*SETTINGS, "method=vitae", "optim.warmup_epochs=0.5", f"optim.epochs={first}")
    dying(done)
    with suppress(SystemExit):
        pretrain(store.path, run, settings=settings)
    dying(4)  # it is also interrupted after, and goes on without being told again
    capsys.readouterr()
    with suppress(SystemExit):
        pretrain(store.path, run, settings=f"optim.epochs={then}", resume=True)
    told = capsys.readouterr().err
    old, new = (schedule([done], n, 2)[0] for n in (first, then))
    assert f"{then} epochs instead of {first}" in told
    assert f"the learning rate from {old:.3g} to {new:.3g}" in told
    dying(100)
    pretrain(store.path, run, resume=True)
    assert "instead of" not in capsys.readouterr().err
    whole = 4 * (done // 4)
    before, after = (list(range(a + 4, b + 1, 4)) for a, b in ((0, whole), (whole, 4 * then)))
    wanted = schedule(before, first, 2) + schedule(after, then, 2)
    assert learning_rates(run) == pytest.approx(wanted, rel=1e-6, abs=1e-12)
    assert Recipe.load(run / "recipe.yaml").optim.epochs == then
    assert Encoder.from_pretrained(run).config.epochs == then
    summary = json.loads((run / "summary.json").read_text())
    assert summary["lengths"] == [{"step": done, "epochs": first}]


def test_a_changed_length_does_not_depend_on_where_it_is_interrupted(make_store, tmp_path, dying):
    store = make_store(subjects=SUBJECTS)
    settings = (*SETTINGS, "method=vitae", "optim.epochs=2")
    for name in ("whole", "cut"):
        pretrain(store.path, tmp_path / name, settings=settings)
    pretrain(store.path, tmp_path / "whole", settings="optim.epochs=4", resume=True)
    for steps in (0, 1, 3, 100):
        dying(steps)
        with suppress(SystemExit):
            asked = "optim.epochs=4" if steps == 0 else ()
            pretrain(store.path, tmp_path / "cut", settings=asked, resume=True)
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")


def test_a_length_that_is_done_and_any_other_setting_are_refused(make_store, tmp_path, dying):
    store, run = make_store(subjects=SUBJECTS), tmp_path / "run"
    dying(9)
    with pytest.raises(SystemExit):
        pretrain(store.path, run, settings=(*SETTINGS, "method=vitae"))
    before = {path.name: path.read_bytes() for path in run.glob("*.*")}
    for asked, told in {
        "optim.epochs=2": "2 epochs are done already, optim.epochs=2 must be more; .*embed with",
        "optim.base_lr=1": "began with optim.base_lr=0.001, .*resume without settings",
    }.items():
        with pytest.raises(RunError, match=told):
            pretrain(store.path, run, settings=asked, resume=True)
    # A recipe that is named is what the whole training is meant to be.
    named = Recipe.load(run / "recipe.yaml", "optim.epochs=5")
    with pytest.raises(
        RunError, match=r"leave out `recipe`: `resume=True` `settings=optim\.epochs=5`"
    ):
        pretrain(store.path, run, recipe=named, resume=True)
    assert {path.name: path.read_bytes() for path in run.glob("*.*")} == before


def test_a_training_that_was_stopped_can_be_embedded_and_says_so(
    make_store, tmp_path, dying, capsys
):
    store, run, out = make_store(subjects=SUBJECTS), tmp_path / "run", tmp_path / "e.parquet"
    dying(9)
    with pytest.raises(SystemExit):
        pretrain(store.path, run, settings=(*SETTINGS, "method=vitae"))
    with pytest.raises(RunError, match=r"training has not ended; .*`last`"):
        embed(run, store.path, out)
    capsys.readouterr()
    embed(run, store.path, out, last=True)
    assert (
        "training has not ended; embedded with what it is after 2 of 3" in capsys.readouterr().err
    )
    assert Embeddings.load(out).provenance["unfinished"] == "2 of 3 epochs"
    method, _ = load_method(run)
    plain = Encoder.untrained(Recipe.load(run / "recipe.yaml"), store.info)
    plain.backbone.load_state_dict(
        {k: v for k, v in method.backbone.state_dict().items() if k in plain.backbone.state_dict()}
    )
    features = Embeddings.load(out).features
    assert np.allclose(features, plain.embed(store), atol=1e-5)
    evaluate(out, "bright", tmp_path / "evaluation")
    assert "the training had not ended: 2 of 3 epochs" in capsys.readouterr().err
    dying(100)
    pretrain(store.path, run, resume=True)
    embed(run, store.path, out, last=True)
    assert "unfinished" not in Embeddings.load(out).provenance
    assert "not ended" not in capsys.readouterr().err
    with pytest.raises(RunError, match="has no checkpoint"):
        embed(run / "encoder", store.path, out, last=True)


def test_an_encoder_that_training_has_left_behind_is_not_taken_for_the_run(
    make_store, tmp_path, dying
):
    store, run = make_store(subjects=SUBJECTS), tmp_path / "run"
    pretrain(store.path, run, settings=(*SETTINGS, "method=vitae"))
    dying(0)
    with pytest.raises(SystemExit):
        pretrain(store.path, run, settings="optim.epochs=5", resume=True)
    with pytest.raises(RunError, match="encoder is of 3 epochs, but training goes on to 5"):
        Encoder.from_pretrained(run)
    assert Encoder.from_pretrained(run / "encoder").config.epochs == 3
    ids = {name: weights_id(run / name) for name in ("", "encoder")}
    assert ids[""] == hashlib.sha256((run / "last.ckpt").read_bytes()).hexdigest() != ids["encoder"]
    # The change can be taken back before anything was trained.
    pretrain(store.path, run, settings="optim.epochs=3", resume=True)
    assert weights_id(run) == ids["encoder"]
    pretrain(store.path, run, settings="optim.epochs=3", resume=True)
    Encoder.from_pretrained(run)
    with pytest.raises(SystemExit):
        pretrain(store.path, run, settings="optim.epochs=5", resume=True)
    dying(100)
    pretrain(store.path, run, resume=True)
    assert Encoder.from_pretrained(run).config.epochs == 5
