"""`vitaepp audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import (
    AsJson,
    Embeddings,
    Folds,
    FoldSeed,
    IdColumn,
    Label,
    Labels,
    Positive,
    ProtocolName,
    StorePath,
    out_argument,
)
from vitaepp.cli.program import command, show


@command()
def audit(
    embeddings: Embeddings,
    store: StorePath,
    out: Annotated[Path, out_argument("DIR", "Folder for audit.json.")],
    label: Label,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="A column that tells how a scan was made, or of whom; may be repeated. Those that "
            "are called site, scanner, age, sex and the like are found.",
        ),
    ] = None,
    protocol: ProtocolName = None,
    positive: Positive = None,
    folds: Folds = 5,
    seed: FoldSeed = 0,
    labels: Labels = None,
    id_column: IdColumn = None,
    as_json: AsJson = False,
) -> None:
    """Ask whether an embedding could have found a shortcut to a label."""
    from vitaepp.auditing.audit import audit as run_audit

    result = run_audit(
        embeddings,
        store,
        label,
        out,
        metadata=metadata or (),
        protocol=protocol,
        seed=seed,
        folds=folds,
        positive=positive,
        labels=labels,
        id_column=id_column,
    )
    show(result, result.to_json() if as_json else None)
