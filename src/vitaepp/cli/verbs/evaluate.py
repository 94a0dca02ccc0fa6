"""`vitaepp evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vitaepp.cli.options import (
    AsJson,
    Embeddings,
    Folds,
    FoldSeed,
    IdColumn,
    Labels,
    Positive,
    out_argument,
)
from vitaepp.cli.program import command, show
from vitaepp.cli.verb import Verb


class _EvaluateVerb(Verb):
    """`--harmonize` alone is `--harmonize scale`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line."""
        words = [*args, ""]
        return super().parse_args(
            ctx,
            [
                "--harmonize=scale"
                if word == "--harmonize" and words[i + 1] not in ("combat", "scale")
                else word
                for i, word in enumerate(args)
            ],
        )


@command(cls=_EvaluateVerb)
def evaluate(
    embeddings: Embeddings,
    out: Annotated[Path, out_argument("DIR", "Folder for metrics.json.")],
    label: Annotated[
        str | None, typer.Option(help="Column to predict; several with commas for multilabel.")
    ] = None,
    task: Annotated[
        str, typer.Option(help="classification, multilabel, ordinal, regression or survival.")
    ] = "classification",
    protocol: Annotated[
        str | None,
        typer.Option(
            help="svm (nested cross-validation), linear (given train and test split) or knn; of "
            "values svm or linear, which is ridge regression."
        ),
    ] = None,
    positive: Positive = None,
    time: Annotated[
        str | None, typer.Option(help="Survival: column of the time to the event or last visit.")
    ] = None,
    event: Annotated[
        str | None, typer.Option(help="Survival: column that says whether the event was seen.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Sites, scanners …: no fold splits one of them."),
    ] = None,
    leave_one_group_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-group-out", help="Test each group by models that saw none of it."
        ),
    ] = False,
    harmonize: Annotated[
        str | None,
        typer.Option(
            metavar="[combat]",
            help="Centre and scale the features of each group, inside the folds; or by ComBat.",
        ),
    ] = None,
    sites: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="What --harmonize takes out where folds may split it; that of --group if unset.",
        ),
    ] = None,
    external: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.parquet", help="Embeddings of another cohort, to be tested on once."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="10,20,50,all", help="How good are models that saw so many labels?"),
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(
            metavar="all|FILE,…",
            help="Files of embed --pools, of which each training part chooses one; all beside.",
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Draw the folds so often: less luck, and a sharper test. Unset: 10 times where "
            "there are fewer than 300 subjects.",
        ),
    ] = None,
    folds: Folds = 5,
    seed: FoldSeed = 0,
    labels: Labels = None,
    id_column: IdColumn = None,
    as_json: AsJson = False,
) -> None:
    """Measure embeddings with a simple model, against the controls."""
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
        task=task,
        time=time,
        event=event,
        group=group,
        leave_one_group_out=leave_one_group_out,
        harmonize=harmonize or False,
        sites=sites,
        external=external,
        budget=budget or (),
        candidates=candidates or (),
        repeats=repeats,
    )
    show(evaluation, evaluation.metrics if as_json else None)
