"""`vitaepp report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.program import command


@command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One run or several.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="An evaluation outside of the runs; may be repeated."),
    ] = None,
    reconstruction: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A reconstruction outside of the runs; may be repeated."),
    ] = None,
) -> None:
    """Show runs on one page that opens in any browser, offline."""
    from vitaepp.reporting.report import report as run_report

    page = run_report(runs, out, evaluations=evaluation or (), reconstructions=reconstruction or ())
    print(page)
