"""`vitaepp experiment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import (
    AsJson,
    RecipeName,
    Settings,
    StorePath,
    out_argument,
)
from vitaepp.cli.program import command, show


@command()
def experiment(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="methods, ablation, backbone, linear-probe, masking-ratio, edge-decay or "
            "reconstruction; or a YAML file of variants.",
        ),
    ],
    store: StorePath,
    out: Annotated[Path, out_argument("OUT", "Folder for tables and runs.")],
    label: Annotated[
        str | None,
        typer.Option(help="Column to predict, for all but edge-decay and reconstruction."),
    ] = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Repetitions, each with its own folds; 1, or as the file says."),
    ] = None,
    pretrain_per_fold: Annotated[
        bool,
        typer.Option(
            "--pretrain-per-fold", help="With label: pre-train without each fold's test subjects."
        ),
    ] = False,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="With label: svm (nested cross-validation) or linear (given train and test split)."
        ),
    ] = None,
    variants: Annotated[
        str | None, typer.Option(help="Only these, by their keys: vitae,vitae++.")
    ] = None,
    subjects: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many, spread evenly, for reconstruction alone; all by default."
        ),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(metavar="H", help="Measure this machine; the whole table is made in H hours."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="20,100", help="With label: how good are models of so few labels, too?"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a table or a figure of the paper on any store. Repeat the command to continue."""
    from vitaepp.experiments.experiment import experiment as run_experiment
    from vitaepp.experiments.tables import to_text

    result = run_experiment(
        name,
        store,
        out,
        label=label,
        recipe=recipe,
        settings=settings or (),
        seeds=seeds,
        pretrain_per_fold=pretrain_per_fold,
        protocol=protocol,
        variants=None if variants is None else [v.strip() for v in variants.split(",")],
        subjects=subjects,
        hours=hours,
        budget=budget or (),
    )
    show(to_text(result), result.to_json() if as_json else None)
    if result.failed:
        raise typer.Exit(1)
