"""`vitaepp bench`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from vitaepp.cli.options import AsJson, Device, RecipeName, Settings, StorePath
from vitaepp.cli.program import command, show
from vitaepp.system.progress import say


@command()
def bench(
    store: StorePath,
    recipe: RecipeName = None,
    settings: Settings = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to time.")] = 10,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Say how fast a recipe trains here, how long it would take, and where the time goes."""
    # Torch's profiler logs each start and stop, unless this is set before torch is loaded.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from vitaepp.training.bench import bench as run_bench

    speed = run_bench(store, recipe=recipe, settings=settings or (), steps=steps, device=device)
    for choice in speed.choices:
        say(f"{choice}: {choice.reason}")
    show(speed, speed.to_dict() if as_json else None)
