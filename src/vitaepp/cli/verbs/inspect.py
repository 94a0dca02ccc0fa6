"""`vitaepp inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import AsJson, StorePath, Subjects
from vitaepp.cli.program import command, show


@command()
def inspect(
    store: StorePath,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.png",
            help="Draw the subjects: three planes each, on as many numbered pages as it takes.",
        ),
    ] = None,
    subjects: Subjects = None,
    as_json: AsJson = False,
) -> None:
    """Say what a store holds, and draw it."""
    from vitaepp.data.inspection import inspect as describe
    from vitaepp.data.store import Store

    text = describe(store, pictures=pictures, subjects=subjects)
    show(text, Store(store).to_dict() if as_json else None)
