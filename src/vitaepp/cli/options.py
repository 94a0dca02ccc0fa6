"""Arguments and options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

StorePath = Annotated[str, typer.Argument(metavar="STORE", help="Prepared store, or its URL.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a training.")]
RecipeName = Annotated[
    str | None, typer.Option(metavar="NAME|FILE", help="A shipped recipe's name or a YAML file.")
]
AnyStore = Annotated[
    bool,
    typer.Option(
        "--any-store", help="Use a store that was prepared differently from that of the training."
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of subjects in the table of labels. Unset: subject, subject_id, "
        "participant_id or patient."
    ),
]
Folds = Annotated[int, typer.Option(min=2, help="Outer folds of svm.")]
FoldSeed = Annotated[int, typer.Option(min=0, help="Seed of the folds.")]
Labels = Annotated[
    str | None,
    typer.Option(help="CSV, TSV or XLSX with a column of subjects and columns of labels."),
]
Label = Annotated[str, typer.Option(help="Column to predict.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 or mps; the accelerator by default.")
]
Subjects = Annotated[
    int | None, typer.Option(min=1, help="How many subjects, spread evenly; all by default.")
]
ProtocolName = Annotated[
    str | None,
    typer.Option(help="svm (nested cross-validation) or linear (given train and test split)."),
]
Positive = Annotated[
    str | None,
    typer.Option(
        help="Of two classes, the one that sensitivity refers to; by default the last in order."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Hours = Annotated[
    float | None,
    typer.Option(
        metavar="H",
        help="Measure this machine, and train what it can in H hours. Unset: a night on a CPU.",
    ),
]
Embeddings = Annotated[
    Path, typer.Argument(metavar="EMBEDDINGS.parquet", help="What vitaepp embed wrote.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change a setting; may be repeated. vitaepp settings lists all.",
        autocompletion=lambda incomplete: _settings_that_begin(incomplete),
    ),
]


def _settings_that_begin(incomplete: str) -> list[str]:
    from vitaepp.recipe.recipe import describe_settings

    names = (f"{setting.name}=" for setting in describe_settings())
    return [name for name in names if name.startswith(incomplete)]


def out_argument(metavar: str, text: str) -> Any:
    """The last argument, which may be given as `--out` as well."""
    return typer.Argument(metavar=metavar, help=text, show_default=False)
