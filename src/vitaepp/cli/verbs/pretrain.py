"""`vitaepp pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import typer

from vitaepp.cli.options import Hours, RecipeName, Settings, StorePath, out_argument
from vitaepp.cli.program import command
from vitaepp.cli.verb import Verb
from vitaepp.system.signals import stoppable


class _PretrainVerb(Verb):
    """A command with a setting as an option; `--subjects` is a number in other commands."""

    renamed: ClassVar = {"--subjects": "--subject-list"}
    settings: ClassVar = {"watch": "trainer.watch"}


@command(cls=_PretrainVerb)
def pretrain(
    store: StorePath,
    out: Annotated[Path, out_argument("RUN", "Folder of the run to make.")],
    recipe: RecipeName = None,
    settings: Settings = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the run's last checkpoint.")
    ] = False,
    subject_list: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Train on the subjects in this text file only, one a line."
        ),
    ] = None,
    hours: Hours = None,
    watch: Annotated[str | None, typer.Option(metavar="COLUMN")] = None,
) -> None:
    """Train an encoder on a store, without labels."""
    with stoppable():
        from vitaepp.data.runfolder import read_subjects
        from vitaepp.training.launch import is_first_process
        from vitaepp.training.pretrain import pretrain as run_pretrain

        trained = run_pretrain(
            store,
            out,
            recipe=recipe,
            settings=settings or (),
            resume=resume,
            subjects=None if subject_list is None else read_subjects(subject_list),
            hours=hours,
            watch=watch,
        )
        if is_first_process():
            print(trained)
