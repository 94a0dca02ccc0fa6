"""`vitaepp predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import Device
from vitaepp.cli.program import command, show


@command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that vitaepp fit made.")],
    scans: Annotated[
        list[str],
        typer.Argument(
            metavar="SCANS...", help="Scans, folders of DICOM files, manifests, or stores."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.csv", help="Table to write.")],
    device: Device = None,
) -> None:
    """Predict the label of new patients' scans, and say how unlike the training they are."""
    from vitaepp.downstream.predict import predict as run_predict

    predictions = run_predict(model, scans, out, device=device)
    show(predictions)
    if predictions.failures:
        raise typer.Exit(1)
