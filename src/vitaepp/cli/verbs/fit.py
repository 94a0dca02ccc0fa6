"""`vitaepp fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import (
    Embeddings,
    Folds,
    FoldSeed,
    IdColumn,
    Label,
    Labels,
    ProtocolName,
    out_argument,
)
from vitaepp.cli.program import command, show


@command()
def fit(
    embeddings: Embeddings,
    out: Annotated[Path, out_argument("MODEL", "Folder of the model to make.")],
    label: Label,
    run: Annotated[
        Path | None,
        typer.Option(help="Run that made the embeddings; looked for beside them by default."),
    ] = None,
    protocol: ProtocolName = None,
    folds: Folds = 5,
    seed: FoldSeed = 0,
    labels: Labels = None,
    id_column: IdColumn = None,
) -> None:
    """Fit a classifier on all labelled subjects, for the scans of new patients."""
    from vitaepp.downstream.fit import fit as run_fit

    model = run_fit(
        embeddings,
        label,
        out,
        run=run,
        protocol=protocol,
        folds=folds,
        seed=seed,
        labels=labels,
        id_column=id_column,
    )
    show(model)
