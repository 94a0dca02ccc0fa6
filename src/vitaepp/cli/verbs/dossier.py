"""`vitaepp dossier`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.program import command


@command()
def dossier(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="One run, or several to compare.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder.")],
    store: Annotated[
        str | None,
        typer.Option(
            metavar="STORE",
            help="That the runs were trained on, if they do not know what prepare left out.",
        ),
    ] = None,
) -> None:
    """Write what a paper needs: methods, tables, figures, checklists, and their check."""
    from vitaepp.reporting.dossier.dossier import dossier as run_dossier

    print(run_dossier(runs, out, store=store))
