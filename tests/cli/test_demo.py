"""The demo, small; the whole of it is `make demo`."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import typer

from vitaepp.cli import demo as module
from vitaepp.cli.app import app
from vitaepp.cli.demo import demo

STEPS = ("prepare", "pretrain", "embed", "evaluate", "reconstruct", "report")


@pytest.mark.slow
@pytest.mark.parametrize("quick", [False, True])
def test_the_demo_ends_with_a_table_and_a_report(tmp_path, capsys, quick):
    page = demo(tmp_path / "demo", subjects=10, quick=quick)
    said = capsys.readouterr()
    assert page.read_text().startswith("<!doctype html>")
    assert ("This is the quick demo" in page.read_text()) == quick
    for command in STEPS:
        assert f"$ vitaepp {command} " in said.err
    for line in ("ViT-AE++", "untrained encoder", "raw intensities"):
        assert line in said.out


@pytest.fixture
def rehearsed(monkeypatch, tmp_path, capsys):
    """A demo whose steps write what its end reads, and nothing else: what was called, and said."""

    def rehearse(**options):
        calls = {}

        def stand_in(name):
            def call(*arguments, **more):
                calls[name] = more
                if name == "reconstruct":
                    folder = Path(arguments[2])
                    folder.mkdir(parents=True)
                    image = np.zeros((1, 8, 8, 8), np.uint8)
                    image[0, 4:] = 100  # the patient's right, as axes run there
                    names = ("original", "masked", "reconstruction")
                    np.savez(folder / "a.npz", channels=["flair"], **dict.fromkeys(names, image))
                return Path("page.html")

            return call

        for name in (*STEPS, "write_phantoms", "summary_table"):
            monkeypatch.setattr(module, name, stand_in(name))
        drawn = []
        monkeypatch.setattr(module, "draw", drawn.append)
        demo(tmp_path / "demo", **options)
        said = capsys.readouterr()
        return calls, drawn, said

    return rehearse


def test_it_ends_with_a_picture_the_page_and_three_commands(rehearsed):
    _, drawn, said = rehearsed()
    assert list(drawn[0]) == ["flair, original", "flair, masked", "flair, reconstruction"]
    for picture in drawn[0].values():  # as bright as it can be
        assert picture.max() == pytest.approx(255)
    picture = drawn[0]["flair, original"]
    assert picture[:, :4].min() > picture[:, 4:].max()  # the patient's right is on the left
    assert "Open page.html in a browser." in said.out
    next_ones = [line for line in said.out.splitlines() if line.startswith("  vitaepp ")]
    assert [line.split()[1] for line in next_ones] == ["prepare", "prepare", "pretrain"]


@pytest.mark.parametrize("quick", [False, True])
def test_every_command_that_it_names_can_be_typed(rehearsed, quick):
    said = rehearsed(quick=quick)[2]
    lines = [line.removeprefix("$ ") for line in said.err.splitlines() if line.startswith("$ ")]
    lines += [line.strip().split("   ")[0] for line in said.out.splitlines() if "  vitaepp" in line]
    commands = typer.main.get_group(app).commands
    for line in lines:
        _, verb, *words = shlex.split(line)
        commands[verb].make_context(verb, words)  # a slip raises an error of usage
    assert len(lines) == len(STEPS) + 3


def test_the_long_one_is_the_recipe_as_it_is_shipped(rehearsed):
    long = rehearsed()[0]
    assert (long["report"]["note"], long["pretrain"]["settings"]) == ("", ())
    assert long["write_phantoms"]["subjects"] == 48


def test_the_quick_one_says_what_it_is(rehearsed):
    calls, _, said = rehearsed(quick=True)
    assert calls["report"]["note"] == module.QUICK_NOTE
    assert module.QUICK_NOTE in said.out
    assert "optim.epochs=8" in calls["pretrain"]["settings"]
    assert "--set optim.epochs=8" in said.err  # as it would be typed
    assert calls["write_phantoms"]["subjects"] == 16
