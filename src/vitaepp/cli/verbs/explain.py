"""`vitaepp explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import AnyStore, AsJson, Device, RunPath, StorePath, out_argument
from vitaepp.cli.program import command, show


@command()
def explain(
    run: RunPath,
    store: StorePath,
    out: Annotated[Path, out_argument("OUT_DIR", "Folder for the results.")],
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Folder that vitaepp fit made, whose decision is explained. Unset: the distance "
            "from the store's mean.",
        ),
    ] = None,
    subjects: Annotated[
        int, typer.Option(min=1, help="How many subjects, spread evenly, held-out ones first.")
    ] = 8,
    parts: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Of how many parts an image consists at most. Unset: 64; 32 of more than 1,000 "
            "patches.",
        ),
    ] = None,
    pairs: Annotated[
        int,
        typer.Option(min=1, help="Pairs of random orders; more take longer and err less."),
    ] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the orders.")] = 0,
    device: Device = None,
    any_store: AnyStore = False,
    as_json: AsJson = False,
) -> None:
    """Map what the encoder and a classifier look at, and test whether the maps hold."""
    from vitaepp.explanation.checks import averaged
    from vitaepp.explanation.explain import explain as run_explain
    from vitaepp.explanation.explain import explain_summary

    table = run_explain(
        run,
        store,
        out,
        model=model,
        subjects=subjects,
        parts=parts,
        pairs=pairs,
        seed=seed,
        device=device,
        any_store=any_store,
    )
    show(explain_summary(table), averaged(table) if as_json else None)
