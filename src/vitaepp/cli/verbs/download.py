"""`vitaepp download`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitaepp.cli.options import out_argument
from vitaepp.cli.program import command


@command()
def download(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="chest_xray, cifar10, cifar100, hippocampus, tiny_imagenet; brats, egd.",
        ),
    ],
    out: Annotated[Path, out_argument("DIR", "Folder to download to.")],
) -> None:
    """Get a public data set, or say how to obtain one that needs registration."""
    from vitaepp.datasets.download import download as run_download

    source = run_download(name, out)
    if source is not None:
        print(source)
