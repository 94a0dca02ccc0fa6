"""`vitaepp export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import RunPath, out_argument
from vitaepp.cli.program import command, show


@command()
def export(
    run: RunPath,
    out: Annotated[
        Path,
        out_argument(
            "OUT", "File to write; of hf, transformers, transformers-mae, monai a folder."
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            help="onnx, torchscript, torch-export, hf, transformers, transformers-mae, timm or "
            "monai."
        ),
    ],
) -> None:
    """Write an encoder for programs that do not have vitaepp."""
    from vitaepp.interop.export import export as run_export

    show(run_export(run, out, to))
