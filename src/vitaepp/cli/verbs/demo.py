"""`vitaepp demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vitaepp.cli.options import out_argument
from vitaepp.cli.program import command, show


@command()
def demo(
    out: Annotated[
        Path, out_argument("[DIR]", "Folder for everything it makes, demo if unset.")
    ] = Path("demo"),
) -> None:
    """The whole workflow on phantom scans, from raw files to a report, in some minutes."""
    from vitaepp.cli.demo import demo as run_demo

    run_demo(out, show=show)
