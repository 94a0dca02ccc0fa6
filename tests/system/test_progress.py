"""Messages: visible once, as plain lines, unless the program handles or silences them."""

import builtins
import logging
import subprocess
import sys
import types

import pytest

from vitaepp.system import progress

PROGRAM = """
import logging, sys
{before}
from vitaepp.system.progress import say, track, warn
{after}
say("a message")
warn("a warning")
list(track(range(3), "counting", 3))
"""

LINES = ["a message", "a warning", "counting: 3 of 3 subjects in 0.0 s"]


def messages(before: str = "", after: str = "") -> list[str]:
    """What a program writes to standard error; nothing may be on standard output."""
    program = PROGRAM.format(before=before, after=after)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_messages_are_plain_lines_by_default():
    assert messages() == LINES


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_level_silences_messages(where):
    silence = "logging.getLogger('vitaepp').setLevel(logging.{})"
    assert messages(**{where: silence.format("WARNING")}) == LINES[1:2]
    assert messages(**{where: silence.format("ERROR")}) == []


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize(
    "setup",
    [
        "logging.basicConfig(format='mine: %(message)s')",
        "handler = logging.StreamHandler(); handler.setFormatter(logging.Formatter("
        "'mine: %(message)s')); logging.getLogger('vitaepp').addHandler(handler)",
    ],
    ids=["root", "own handler"],
)
def test_messages_go_once_to_where_the_program_wants_them(where, setup):
    assert messages(**{where: setup}) == [f"mine: {line}" for line in LINES]


def test_the_command_line_shows_messages_whatever_a_library_sets_up():
    setup = (
        "logging.basicConfig(format='mine: %(message)s')\n"
        "from vitaepp.system.progress import messages_on_stderr\n"
        "shown = messages_on_stderr(); shown.__enter__()"
    )
    assert messages(after=setup) == LINES


def test_new_processes_hide_what_this_one_does():
    environment = progress.same_messages()
    assert environment == {progress.LEVEL_VARIABLE: str(logging.INFO)}
    assert messages(f"import os; os.environ[{progress.LEVEL_VARIABLE!r}] = '40'") == []


class ZMQInteractiveShell:
    """What Jupyter's kernel is called."""


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_has_a_bar_where_it_can_move_and_lines_elsewhere(monkeypatch, capsys, widgets):
    shown: list[str] = []

    class Output:
        def clear_output(self, wait): ...
        def __enter__(self): ...
        def __exit__(self, *_): ...

    display = types.ModuleType("IPython.display")
    display.display = lambda thing, **_: shown.append(type(thing).__name__)
    display.HTML = str
    package = types.ModuleType("ipywidgets")
    package.Output = Output
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setitem(sys.modules, "ipywidgets", package)
    monkeypatch.setattr(progress, "find_spec", lambda _: widgets or None)
    assert list(progress.track(range(3), "counting", 3)) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert ("Output" in shown, lines) == ((True, []) if widgets else (False, LINES[2:]))


def test_a_silenced_program_has_no_bar(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = progress.open_bar("training", 3)
    assert bar is not None
    bar.close()
    monkeypatch.setattr(logging.getLogger("vitaepp"), "level", logging.ERROR)
    logging.getLogger("vitaepp")._cache.clear()
    assert progress.open_bar("training", 3) is None
    logging.getLogger("vitaepp")._cache.clear()
