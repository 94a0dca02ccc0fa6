"""What the contracts of import-linter do not see of the floors."""

import ast
import re
from pathlib import Path

import pytest

from vitaepp.cli.app import VERBS

ROOT = Path(__file__).parents[1]

#: Rooms whose messages name arguments as Python has them; the command line spells them as options.
WITHOUT_OPTIONS = (
    *("system", "data", "losses", "nn", "views", "methods", "ingest", "encoder", "weights"),
    *("training", "evaluation", "auditing", "downstream", "explanation", "interop"),
)

#: Options of other programs.
OTHER_PROGRAMS = re.compile(r"torchrun|SLURM|--ntasks-per-node")


def texts(room, docstrings=True):
    """The texts of a room's code, on request without docstrings."""
    for path in sorted((ROOT / "src" / "vitaepp" / room).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if text and (docstrings or id(node) not in documents):
                yield f"{path.name}:{node.lineno}", node.value


@pytest.mark.parametrize("room", WITHOUT_OPTIONS)
def test_lower_floors_name_no_options(room):
    named = [
        place
        for place, text in texts(room)
        if re.search(r"(?<![\w-])--[a-z]", text) and not OTHER_PROGRAMS.search(text)
    ]
    assert named == []


@pytest.mark.parametrize("room", WITHOUT_OPTIONS)
def test_lower_floors_name_no_commands(room):
    command = re.compile(rf"\bvitaepp ({'|'.join(VERBS)})\b")
    assert [place for place, text in texts(room, docstrings=False) if command.search(text)] == []


@pytest.mark.parametrize("room", ["losses", "nn"])
def test_networks_and_losses_name_no_settings(room):
    sections = "prepare|model|loss|views|optim|data|trainer|simsiam|mocov3"
    setting = re.compile(rf"\b({sections})\.[a-z_]+(\.[a-z_]+)*(=| |$)")
    assert [place for place, text in texts(room) if setting.search(text)] == []


def test_no_room_hides_a_function():
    """A package of a function's name takes its place as soon as it is imported."""
    import vitaepp

    rooms = {path.stem for path in Path(vitaepp.__file__).parent.iterdir()}
    assert not rooms & {*vitaepp.__all__}
