"""The program that the verbs belong to, and how they print a result."""

from __future__ import annotations

import platform
from functools import partial
from importlib.metadata import version as installed
from typing import Annotated

import typer

from vitaepp.cli.verb import Verb, as_options

app = typer.Typer(
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="ViT-AE++: self-supervised representations of 2D and 3D medical images.",
    epilog="Try it: vitaepp demo. Any command: --debug shows the traceback of an error.",
)
command = partial(app.command, cls=Verb)


def show(result: object, as_json: object = None) -> None:
    """Print a result on standard output: as text, or as JSON where that is given."""
    if as_json is None:
        print(spelled(str(result)))
    else:
        from vitaepp.system.files import to_json

        print(to_json(as_json), end="")


def spelled(text: str) -> str:
    """A text of the library, with arguments spelled as options."""
    if "`" not in text:
        return text
    group = typer.main.get_group(app)
    return as_options(text, group.commands)


def _version(show: bool) -> bool:
    if show:
        from vitaepp import __version__

        print(f"vitaepp {__version__}\n{_torch()}")
        raise typer.Exit
    return show


def _torch() -> str:
    """The versions of torch and Python, and the device."""
    try:
        from vitaepp.system.devices import chosen_device, device_name

        version = f"torch {installed('torch')} on {device_name(chosen_device())}"
    except Exception:  # an installation can fail in every way
        version = "torch cannot be imported: see vitaepp doctor"
    return f"{version}\nPython {platform.python_version()} on {platform.system()}"


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the versions."),
    ] = False,
) -> None:
    """Options of the program itself."""
