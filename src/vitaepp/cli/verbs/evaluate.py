"""`vitaepp evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    out_argument,
)
from vitaepp.cli.program import command, show


@command()
def evaluate(
    embeddings: Embeddings,
    out: Annotated[Path, out_argument("DIR", "Folder for metrics.json.")],
    label: Label,
    protocol: ProtocolName = None,
    positive: Positive = None,
    folds: Folds = 5,
    seed: FoldSeed = 0,
    labels: Labels = None,
    id_column: IdColumn = None,
    as_json: AsJson = False,
) -> None:
    """Measure embeddings with a linear classifier, against the controls."""
    from vitaepp.evaluation.evaluation import evaluate as run_evaluate

    evaluation = run_evaluate(
        embeddings,
        label,
        out,
        protocol=protocol,
        seed=seed,
        folds=folds,
        positive=positive,
        labels=labels,
        id_column=id_column,
    )
    show(evaluation, evaluation.metrics if as_json else None)
