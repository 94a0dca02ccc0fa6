"""`vitaepp compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import AsJson
from vitaepp.cli.program import command, show


@command()
def compare(
    metrics: Annotated[
        list[Path],
        typer.Argument(metavar="METRICS...", help="metrics.json files, or their folders."),
    ],
    reference: Annotated[
        str | None,
        typer.Option(help="The one to compare with, by name or path; by default the first."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="Such as accuracy or mae; by default the one that is reported first."),
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Show the controls as rows, too.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the table as .md, .csv, .tex and .json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare evaluations, with intervals and tests of the differences."""
    from vitaepp.evaluation.comparison import compare as run_compare

    comparison = run_compare(metrics, reference=reference, metric=metric, controls=controls)
    if out is not None:  # first: a reader of what is shown may close the pipe
        comparison.save(out)
    show(comparison, comparison.to_json() if as_json else None)
