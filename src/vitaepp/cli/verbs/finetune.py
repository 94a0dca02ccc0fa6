"""`vitaepp finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import (
    AnyStore,
    AsJson,
    Folds,
    FoldSeed,
    Positive,
    ProtocolName,
    RunPath,
    Settings,
    StorePath,
    out_argument,
)
from vitaepp.cli.program import command, show


@command()
def finetune(
    run: RunPath,
    store: StorePath,
    out: Annotated[Path, out_argument("OUT", "Folder of the results.")],
    label: Annotated[
        str | None, typer.Option(help="Column to predict; not for segmentation.")
    ] = None,
    task: Annotated[
        str, typer.Option(help="classification, regression or segmentation.")
    ] = "classification",
    settings: Settings = None,
    protocol: ProtocolName = None,
    positive: Positive = None,
    folds: Folds = 5,
    seed: FoldSeed = 0,
    any_store: AnyStore = False,
    keep_model: Annotated[
        bool,
        typer.Option(
            "--keep-model", help="Train on all labelled subjects, too: OUT/model, for predict."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune an encoder on a label, beside the same network from scratch. Repeat to continue."""
    from vitaepp.downstream.finetune import finetune as run_finetune

    evaluation = run_finetune(
        run,
        store,
        out,
        label,
        task=task,
        settings=settings or (),
        protocol=protocol,
        folds=folds,
        seed=seed,
        positive=positive,
        any_store=any_store,
        keep_model=keep_model,
    )
    show(evaluation, evaluation.metrics if as_json else None)
