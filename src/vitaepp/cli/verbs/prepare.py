"""`vitaepp prepare`."""

from __future__ import annotations

from typing import Annotated

import typer

from vitaepp.cli.options import AsJson, IdColumn, Labels, Settings, out_argument
from vitaepp.cli.program import command, show
from vitaepp.cli.verb import Changes, PrepareVerb


@command(cls=PrepareVerb)
def prepare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Manifest, folder of scans, one scan, archive, .npz, or URL."
        ),
    ],
    out: Annotated[
        str | None,
        out_argument("STORE", "Folder of the store to make, or URL; not with --dry-run."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE|RUN",
            help="Recipe with the settings; or a RUN, for scans like its training's.",
        ),
    ] = None,
    settings: Settings = None,
    labels: Labels = None,
    id_column: IdColumn = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one a core by default.")
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(help="Work on a Dask cluster: its scheduler's address, tcp://host:8786."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be prepared, and write nothing.")
    ] = False,
    show_series: Annotated[
        bool,
        typer.Option(
            "--show-series",
            help="With --dry-run: show the descriptions of DICOM series that no pattern knows.",
        ),
    ] = False,
    as_json: AsJson = False,
    changes: Changes = None,
) -> None:
    """Turn raw scans into a store: orient, resample, crop, rescale."""
    from vitaepp.ingest.prepare import prepare as run_prepare

    if out is None and not dry_run:
        raise typer.BadParameter(
            "Missing argument 'STORE', the last one, or --out; only --dry-run goes without"
        )
    result = run_prepare(
        source,
        out,
        settings=settings or (),
        recipe=recipe,
        labels=labels,
        id_column=id_column,
        workers=workers,
        dask=dask,
        dry_run=dry_run,
        show_series=show_series,
        **changes,
    )
    if as_json:
        show(result, result.to_dict())
    else:
        show(result if dry_run else f"{result.account}\n{result}")
    if result.failures and not dry_run:
        raise typer.Exit(1)
