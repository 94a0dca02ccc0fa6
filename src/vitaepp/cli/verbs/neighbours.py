"""`vitaepp neighbours`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import AsJson, Device, Embeddings, IdColumn, Labels, out_argument
from vitaepp.cli.program import command, show


@command()
def neighbours(
    embeddings: Embeddings,
    out: Annotated[Path, out_argument("OUT", "Folder for the results.")],
    query: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCAN", help="New scan, instead of the cohort's own; may be repeated."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Measure how often neighbours have the same label."),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours of each.")] = 10,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="STORE", help="Images to show; looked for beside the embeddings by default."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Run that made the embeddings; looked for beside them by default."),
    ] = None,
    subjects: Annotated[
        int, typer.Option(min=1, help="How many subjects the page shows, spread evenly.")
    ] = 12,
    labels: Labels = None,
    id_column: IdColumn = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Find the most similar subjects of each subject, or of a new scan, and near-duplicates."""
    from vitaepp.downstream.neighbours import neighbours as find

    result = find(
        embeddings,
        out,
        query=query or None,
        label=label,
        k=k,
        store=store,
        run=run,
        subjects=subjects,
        labels=labels,
        id_column=id_column,
        device=device,
    )
    show(result, result.metrics if as_json else None)
    if result.failures:
        raise typer.Exit(1)
