"""`vitaepp qc`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import AnyStore, AsJson, Device, RunPath, StorePath, out_argument
from vitaepp.cli.program import command, show


@command()
def qc(
    run: RunPath,
    store: StorePath,
    out: Annotated[Path, out_argument("OUT", "Folder for the results.")],
    masks: Annotated[
        int, typer.Option(min=1, help="Under how many masks each image is reconstructed.")
    ] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the masks.")] = 0,
    device: Device = None,
    any_store: AnyStore = False,
    as_json: AsJson = False,
) -> None:
    """Flag the scans of a store that are unlike the others, by two measures of the model."""
    from vitaepp.downstream.quality import qc as check

    result = check(run, store, out, masks=masks, seed=seed, device=device, any_store=any_store)
    show(result, result.facts if as_json else None)
