"""`vitaepp plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import typer

from vitaepp.cli.options import AsJson, Hours, out_argument
from vitaepp.cli.program import command, show
from vitaepp.cli.verb import Verb


class _PlanVerb(Verb):
    """A command with a setting as an option."""

    settings: ClassVar = {"keep": "views.keep"}


@command(cls=_PlanVerb)
def plan(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Raw scans as for prepare, or a store.")
    ],
    out: Annotated[Path | None, out_argument("[FILE]", "Recipe file to write.")] = None,
    keep: Annotated[str | None, typer.Option(metavar="size,side")] = None,
    hours: Hours = None,
    as_json: AsJson = False,
) -> None:
    """Propose a recipe for scans or a store on this machine, with reasons."""
    from vitaepp.training.plan import plan as run_plan

    planned = run_plan(source, out, keep=keep.split(",") if keep else (), hours=hours)
    show(planned, planned.to_dict() if as_json else None)
