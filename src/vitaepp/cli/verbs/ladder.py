"""`vitaepp ladder`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import (
    AsJson,
    Folds,
    FoldSeed,
    Hours,
    Label,
    ProtocolName,
    RecipeName,
    Settings,
    StorePath,
    out_argument,
)
from vitaepp.cli.program import command, show


@command()
def ladder(
    store: StorePath,
    out: Annotated[Path, out_argument("OUT", "Folder for the answer and the trainings.")],
    label: Label,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="10,20,50,all",
            help="Numbers of labels to fit on; 10 to 500 and all by default, as far as there are.",
        ),
    ] = None,
    task: Annotated[str, typer.Option(help="classification or regression.")] = "classification",
    protocol: ProtocolName = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    hours: Hours = None,
    public: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A published 2D vision transformer, as a rung."),
    ] = None,
    rungs: Annotated[
        str | None,
        typer.Option(
            metavar="raw,untrained,vitae++",
            help="Only these of prior, metadata, raw, simple, gradients, untrained, public, vitae, "
            "vitae++, scratch and finetuned.",
        ),
    ] = None,
    folds: Folds = 5,
    seed: FoldSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Is pre-training worth it? From guessing to fine-tuning, in the same folds."""
    from vitaepp.experiments.ladder import ladder as run_ladder

    climbed = run_ladder(
        store,
        out,
        label,
        budget=budget,
        task=task,
        protocol=protocol,
        recipe=recipe,
        settings=settings or (),
        hours=hours,
        public=public,
        rungs=None if rungs is None else [r.strip() for r in rungs.split(",")],
        folds=folds,
        seed=seed,
    )
    show(climbed, climbed.to_json() if as_json else None)
