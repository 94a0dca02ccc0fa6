"""The command line: each verb calls one function of the library, and holds no logic.

The exit status is 0 when all is done; 1 when all is done, but some subjects failed; 2 when the
command is refused, with one line that says what is wrong and what would be right; 75 when a signal
stopped a training. Everything is saved then, and the same command with --resume continues it.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from vitaepp.cli.verb import Changes, PrepareVerb, Verb, as_options
from vitaepp.errors import Stopped, VitaeppError, one_line, plainly
from vitaepp.system.progress import messages_on_stderr, say
from vitaepp.system.signals import STOPPED, stoppable
from vitaepp.system.threads import wait_without_spinning

# Imports of the library stay inside the verbs: `--help` answers at once.


app = typer.Typer(
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="ViT-AE++: self-supervised representations of 2D and 3D medical images.",
    epilog="Try it: vitaepp demo. Any command: --debug shows the traceback of an error.",
)
command = partial(app.command, cls=Verb)

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


def _out(metavar: str, text: str) -> Any:
    """The last argument, which may be given as `--out` as well."""
    return typer.Argument(metavar=metavar, help=text, show_default=False)


def _show(result: object, as_json: object = None) -> None:
    """Print a result on standard output: as text, or as JSON where that is given."""
    if as_json is None:
        print(_as_options(str(result)))
    else:
        from vitaepp.system.files import to_json

        print(to_json(as_json), end="")


def _version(show: bool) -> bool:
    if show:
        from vitaepp import __version__

        print(f"vitaepp {__version__}")
        raise typer.Exit
    return show


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options of the program itself."""


@command()
def demo(
    out: Annotated[Path, _out("[DIR]", "Folder for everything it makes, demo if unset.")] = Path(
        "demo"
    ),
) -> None:
    """The whole workflow on phantom scans, from raw files to a report, in some minutes."""
    from vitaepp.cli.demo import demo as run_demo

    run_demo(out, show=_show)


@command()
def download(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="chest_xray, cifar10, cifar100, hippocampus, tiny_imagenet; brats, egd.",
        ),
    ],
    out: Annotated[Path, _out("DIR", "Folder to download to.")],
) -> None:
    """Get a public data set, or say how to obtain one that needs registration."""
    from vitaepp.datasets.download import download as run_download

    source = run_download(name, out)
    if source is not None:
        print(source)


@app.command(cls=PrepareVerb)
def prepare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Manifest, folder of scans, one scan, archive, .npz, or URL."
        ),
    ],
    out: Annotated[
        str | None, _out("STORE", "Folder of the store to make, or URL; not with --dry-run.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE|RUN",
            help="Recipe with the settings; or a RUN, for scans like its training's.",
        ),
    ] = None,
    settings: Settings = None,
    labels: Labels = None,
    id_column: IdColumn = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one a core by default.")
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(help="Work on a Dask cluster: its scheduler's address, tcp://host:8786."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be prepared, and write nothing.")
    ] = False,
    show_series: Annotated[
        bool,
        typer.Option(
            "--show-series",
            help="With --dry-run: show the descriptions of DICOM series that no pattern knows.",
        ),
    ] = False,
    as_json: AsJson = False,
    changes: Changes = None,
) -> None:
    """Turn raw scans into a store: orient, resample, crop, rescale."""
    from vitaepp.ingest.prepare import prepare as run_prepare

    if out is None and not dry_run:
        raise typer.BadParameter(
            "Missing argument 'STORE', the last one, or --out; only --dry-run goes without"
        )
    result = run_prepare(
        source,
        out,
        settings=settings or (),
        recipe=recipe,
        labels=labels,
        id_column=id_column,
        workers=workers,
        dask=dask,
        dry_run=dry_run,
        show_series=show_series,
        **changes,
    )
    if as_json:
        _show(result, result.to_dict())
    else:
        _show(result if dry_run else f"{result.account}\n{result}")
    if result.failures and not dry_run:
        raise typer.Exit(1)


@command()
def plan(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Raw scans as for prepare, or a store.")
    ],
    out: Annotated[Path | None, _out("[FILE]", "Recipe file to write.")] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="size,side",
            help="What a label may be: the proposed views then change no sizes, or do not mirror "
            "left and right.",
        ),
    ] = None,
    hours: Hours = None,
    as_json: AsJson = False,
) -> None:
    """Propose a recipe for scans or a store on this machine, with reasons."""
    from vitaepp.training.plan import plan as run_plan

    planned = run_plan(source, out, keep=keep.split(",") if keep else (), hours=hours)
    _show(planned, planned.to_dict() if as_json else None)


@command()
def inspect(
    store: StorePath,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.png",
            help="Draw the subjects: three planes each, on as many numbered pages as it takes.",
        ),
    ] = None,
    subjects: Subjects = None,
    as_json: AsJson = False,
) -> None:
    """Say what a store holds, and draw it."""
    from vitaepp.data.inspection import inspect as describe
    from vitaepp.data.store import Store

    text = describe(store, pictures=pictures, subjects=subjects)
    _show(text, Store(store).to_dict() if as_json else None)


class _PretrainVerb(Verb):
    """`--subjects` is a number in other commands."""

    renamed: ClassVar = {"--subjects": "--subject-list"}


@app.command(cls=_PretrainVerb)
def pretrain(
    store: StorePath,
    out: Annotated[Path, _out("RUN", "Folder of the run to make.")],
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
    watch: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Write a k-NN score of this label to metrics.csv every few epochs; not for "
            "selection.",
        ),
    ] = None,
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
    _show(speed, speed.to_dict() if as_json else None)


class _EmbedVerb(Verb):
    """`--encoder` stands for the first argument."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line."""
        for i, word in enumerate(args):
            name, equals, value = word.partition("=")
            if name == "--encoder":
                return super().parse_args(
                    ctx, [value if equals else "".join(args[i + 1 : i + 2]), *args]
                )
        return super().parse_args(ctx, args)


@app.command(cls=_EmbedVerb)
def embed(
    run: RunPath,
    store: StorePath,
    out: Annotated[Path, _out("OUT.parquet", "File to write; .csv for other programs.")],
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at a time; as many as fit by default.")
    ] = None,
    device: Device = None,
    precision: Annotated[
        str | None,
        typer.Option(help="32, bf16, 16 or auto; by default as in training."),
    ] = None,
    any_store: AnyStore = False,
    last: Annotated[
        bool,
        typer.Option("--last", help="Use the last checkpoint of a training that has not ended."),
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Instead of RUN: a published 2D vision transformer of transformers or timm, or "
            "hf-hub:user/name.",
        ),
    ] = None,
    slices: Annotated[
        int | None, typer.Option(min=1, help="With --encoder: slices of a volume, 16 if unset.")
    ] = None,
) -> None:
    """Embed every subject of a store, with the controls beside."""
    if encoder is not None:
        from vitaepp.interop.public import embed_public

        if any_store or last:
            raise typer.BadParameter("--any-store and --last are of a RUN, not of --encoder")
        given: dict[str, Any] = {"slices": slices, "precision": precision}
        given = {name: value for name, value in given.items() if value is not None}
        print(embed_public(encoder, store, out, batch_size=batch_size, device=device, **given))
        return
    if slices is not None:
        raise typer.BadParameter("--slices is of --encoder")
    from vitaepp.encoder.embed import embed as run_embed

    print(
        run_embed(
            run,
            store,
            out,
            batch_size=batch_size,
            device=device,
            precision=precision,
            any_store=any_store,
            last=last,
        )
    )


@command()
def evaluate(
    embeddings: Annotated[
        Path, typer.Argument(metavar="EMBEDDINGS.parquet", help="What vitaepp embed wrote.")
    ],
    out: Annotated[Path, _out("DIR", "Folder for metrics.json.")],
    label: Label,
    protocol: ProtocolName = None,
    positive: Positive = None,
    folds: Folds = 5,
    seed: FoldSeed = 0,
    labels: Labels = None,
    id_column: IdColumn = None,
    as_json: AsJson = False,
) -> None:
    """Measure embeddings with a linear classifier, against the controls."""
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
    )
    _show(evaluation, evaluation.metrics if as_json else None)


@command()
def fit(
    embeddings: Annotated[
        Path, typer.Argument(metavar="EMBEDDINGS.parquet", help="What vitaepp embed wrote.")
    ],
    out: Annotated[Path, _out("MODEL", "Folder of the model to make.")],
    label: Label,
    run: Annotated[
        Path | None,
        typer.Option(help="Run that made the embeddings; looked for beside them by default."),
    ] = None,
    protocol: ProtocolName = None,
    folds: Folds = 5,
    seed: FoldSeed = 0,
    labels: Labels = None,
    id_column: IdColumn = None,
) -> None:
    """Fit a classifier on all labelled subjects, for the scans of new patients."""
    from vitaepp.downstream.fit import fit as run_fit

    model = run_fit(
        embeddings,
        label,
        out,
        run=run,
        protocol=protocol,
        folds=folds,
        seed=seed,
        labels=labels,
        id_column=id_column,
    )
    _show(model)


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
    _show(predictions)
    if predictions.failures:
        raise typer.Exit(1)


@command()
def finetune(
    run: RunPath,
    store: StorePath,
    out: Annotated[Path, _out("OUT", "Folder of the results.")],
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
    )
    _show(evaluation, evaluation.metrics if as_json else None)


@command()
def export(
    run: RunPath,
    out: Annotated[
        Path, _out("OUT", "File to write; of hf, transformers, transformers-mae, monai a folder.")
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

    _show(run_export(run, out, to))


@command()
def compare(
    metrics: Annotated[
        list[Path],
        typer.Argument(metavar="METRICS...", help="metrics.json files, or their folders."),
    ],
    reference: Annotated[
        str | None,
        typer.Option(help="The one to compare with, by name or path; by default the first."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="auc, accuracy, sensitivity or specificity.")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Show the controls as rows, too.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the table as .md, .csv, .tex and .json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare evaluations, with intervals and tests of the differences."""
    from vitaepp.evaluation.comparison import compare as run_compare

    comparison = run_compare(metrics, reference=reference, metric=metric, controls=controls)
    _show(comparison, comparison.to_json() if as_json else None)
    if out is not None:
        comparison.save(out)


@command()
def reconstruct(
    run: RunPath,
    store: StorePath,
    out: Annotated[Path, _out("OUT_DIR", "Folder for the results.")],
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
    _show(reconstruction_summary(table), reconstruction_json(table) if as_json else None)


@command()
def experiment(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="methods, ablation, backbone, linear-probe, masking-ratio, edge-decay or "
            "reconstruction; or a YAML file of variants.",
        ),
    ],
    store: StorePath,
    out: Annotated[Path, _out("OUT", "Folder for tables and runs.")],
    label: Annotated[str | None, typer.Option(help="Column to predict.")] = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Repetitions, each with its own folds; 1, or as the file says."),
    ] = None,
    pretrain_per_fold: Annotated[
        bool,
        typer.Option("--pretrain-per-fold", help="Pre-train without each fold's test subjects."),
    ] = False,
    protocol: ProtocolName = None,
    variants: Annotated[
        str | None, typer.Option(help="Only these, by their keys: vitae,vitae++.")
    ] = None,
    subjects: Subjects = None,
    hours: Annotated[
        float | None,
        typer.Option(metavar="H", help="Measure this machine; the whole table is made in H hours."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a table or a figure of the paper on any store. Repeat the command to continue."""
    from vitaepp.experiments.experiment import experiment as run_experiment
    from vitaepp.experiments.tables import to_text

    result = run_experiment(
        name,
        store,
        out,
        label=label,
        recipe=recipe,
        settings=settings or (),
        seeds=seeds,
        pretrain_per_fold=pretrain_per_fold,
        protocol=protocol,
        variants=None if variants is None else [v.strip() for v in variants.split(",")],
        subjects=subjects,
        hours=hours,
    )
    _show(to_text(result), result.to_json() if as_json else None)
    if result.failed:
        raise typer.Exit(1)


@command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One run or several.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="An evaluation outside of the runs; may be repeated."),
    ] = None,
    reconstruction: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A reconstruction outside of the runs; may be repeated."),
    ] = None,
) -> None:
    """Show runs on one page that opens in any browser, offline."""
    from vitaepp.reporting.report import report as run_report

    page = run_report(runs, out, evaluations=evaluation or (), reconstructions=reconstruction or ())
    print(page)


@command()
def settings(
    as_json: AsJson = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON schema of recipes, for editors.")
    ] = False,
) -> None:
    """List every setting of a recipe, its default and what it means."""
    from vitaepp.recipe.recipe import Recipe, describe_settings, shipped_recipes

    if schema:
        _show("", Recipe.model_json_schema())
        return
    if as_json:
        _show("", [setting.to_dict() for setting in describe_settings()])
        return
    for name, default, text, _ in describe_settings():
        print(f"{name} = {'unset' if default is None else default}\n    {text}")
    print(f"\nshipped recipes: {', '.join(shipped_recipes())}")


def _as_options(text: str) -> str:
    """A text of the library, with arguments spelled as options."""
    if "`" not in text:
        return text
    group = typer.main.get_group(app)
    return as_options(text, group.commands)


class _AsOptions(logging.Filter):
    """Spells arguments as options in the messages that are shown."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a message; none is kept back."""
        record.msg, record.args = _as_options(record.getMessage()), ()
        return True


def main() -> None:
    """Run the command line."""
    wait_without_spinning()  # torch, which is imported later, loads OpenMP
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    messages, spelled = logging.getLogger("vitaepp"), _AsOptions()
    messages.addFilter(spelled)
    try:
        with messages_on_stderr():
            status = app(arguments or ["--help"], prog_name="vitaepp", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):  # Typer turns the one into the other
        _complain("interrupted; run the same command again to go on")
        status = 130
    except Stopped as stopped:
        _complain(one_line(stopped))
        status = STOPPED
    except BrokenPipeError:  # whoever read this, as `| head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1  # as Typer has it
    except (VitaeppError, OSError) as error:
        if debug:
            traceback.print_exc()
        _complain(one_line(error))
        status = 2
    except Exception as error:
        if debug:
            traceback.print_exc()
        # Errors of usage are click's, which newer versions of Typer carry inside themselves.
        usage = getattr(error, "format_message", None)
        if usage is not None:
            context = getattr(error, "ctx", None)
            verb = "vitaepp" if context is None else context.command_path
            _complain(f"{plainly(one_line(Exception(usage())))}; see {verb} --help")
            status = 2
        else:
            _complain(
                f"unexpected {type(error).__name__}: {one_line(error)}; this is a defect of "
                "vitaepp, please report it with what --debug prints"
            )
            status = 3
    finally:
        messages.removeFilter(spelled)
    sys.exit(status)


def _complain(line: str) -> None:
    print(f"vitaepp: {_as_options(line)}", file=sys.stderr)
