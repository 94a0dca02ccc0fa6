"""`vitaepp reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import AnyStore, AsJson, Device, RunPath, StorePath, Subjects, out_argument
from vitaepp.cli.program import command, show


@command()
def reconstruct(
    run: RunPath,
    store: StorePath,
    out: Annotated[Path, out_argument("OUT_DIR", "Folder for the results.")],
    subjects: Subjects = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the hidden patches.")] = 0,
    device: Device = None,
    any_store: AnyStore = False,
    as_json: AsJson = False,
) -> None:
    """Hide patches, let the model fill them in, and measure PSNR and SSIM."""
    from vitaepp.evaluation.reconstruction import reconstruct as run_reconstruct
    from vitaepp.evaluation.reconstruction import reconstruction_json, reconstruction_summary

    table = run_reconstruct(
        run, store, out, subjects=subjects, seed=seed, device=device, any_store=any_store
    )
    show(reconstruction_summary(table), reconstruction_json(table) if as_json else None)
