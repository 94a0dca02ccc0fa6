"""`vitaepp demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import out_argument
from vitaepp.cli.program import command, show


@command()
def demo(
    out: Annotated[
        Path, out_argument("[DIR]", "Folder for everything it makes, demo if unset.")
    ] = Path("demo"),
    quick: Annotated[
        bool,
        typer.Option("--quick", help="In less than a minute: fewer scans, hardly any training."),
    ] = False,
) -> None:
    """The whole workflow on phantom scans, from raw files to a report, in some minutes."""
    from vitaepp.cli.demo import demo as run_demo

    run_demo(out, quick=quick, show=show)
