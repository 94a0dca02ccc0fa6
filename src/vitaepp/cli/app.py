"""The command line: each verb calls one function of the library, and holds no logic.

Exit status 0 is done; 1 is done, but some subjects failed; 2 is refused, with one line that says
what is wrong and what would be right; 75 is a training that a signal stopped, all saved, which the
same command with --resume goes on with.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from vitaepp.errors import Stopped, VitaeppError, one_line, plainly
from vitaepp.system.progress import messages_on_stderr, say
from vitaepp.system.signals import STOPPED, stoppable

# Imports of the library stay inside the verbs: `--help` answers at once.


Function = TypeVar("Function", bound=Callable[..., Any])


class _Verb(TyperCommand):
    """A command that refuses an option which is given twice, rather than forget the first."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the words of the command line apart."""
        try:
            given = self.make_parser(ctx).parse_args(args=list(args))[2]
        except Exception:  # told below, as for any command
            given = []
        for option in given:
            once = option.param_type_name == "option" and not option.multiple
            if once and not getattr(option, "is_flag", False) and given.count(option) > 1:
                ctx.fail(
                    f"{option.opts[0]} is given {given.count(option)} times; give it once, and run "
                    "the command once more for the other value"
                )
        return super().parse_args(ctx, args)


class _Verbs(typer.Typer):
    """Commands of this kind."""

    def command(self, *args: Any, **options: Any) -> Callable[[Function], Function]:
        """Register a function as a command."""
        return super().command(*args, cls=_Verb, **options)


app = _Verbs(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="ViT-AE++: self-supervised representations of 2D and 3D medical images.",
    epilog="Try it: vitaepp demo. Any command: --debug shows the traceback of an error.",
)

StorePath = Annotated[str, typer.Argument(metavar="STORE", help="Prepared store, or its URL.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a training.")]
RecipeName = Annotated[str | None, typer.Option(help="A shipped recipe's name or a YAML file.")]
AnyStore = Annotated[
    bool,
    typer.Option("--any-store", help="Take a store that was prepared unlike the training's."),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        help="The table's column of subjects; else subject, subject_id, participant_id or patient."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a setting; may be repeated."),
]


def _version(asked: bool) -> bool:
    if asked:
        from vitaepp import __version__

        print(f"vitaepp {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """What holds for every verb."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path("demo"),
) -> None:
    """The whole workflow on phantom scans, from raw files to a report, in some minutes."""
    from vitaepp.cli.demo import demo as run_demo

    run_demo(out)


@app.command()
def download(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="chest_xray, cifar10, cifar100, hippocampus, tiny_imagenet; brats, egd.",
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to download to.")],
) -> None:
    """Get a public data set, or say how to obtain one that needs registration."""
    from vitaepp.datasets.download import download as run_download

    source = run_download(name, folder)
    if source is not None:
        print(source)


@app.command()
def prepare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Manifest, folder of scans, one scan, archive, .npz, or URL."
        ),
    ],
    store: Annotated[
        str | None,
        typer.Argument(
            metavar="STORE", help="Folder of the store to make, or URL.", show_default=False
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Crop in voxels: 96, or one value an axis: 96,96,64.")
    ] = None,
    spacing: Annotated[
        str | None, typer.Option(help="Voxel size in mm: 1, or one an axis.")
    ] = None,
    modalities: Annotated[
        str | None, typer.Option(help="Channels, in order: flair,t1,t1ce,t2.")
    ] = None,
    center: Annotated[
        str | None, typer.Option(help="What the crop is centred on: mask, foreground or image.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="The only layout to try, such as scans or named-files.")
    ] = None,
    mask_pattern: Annotated[
        str | None, typer.Option(help="Which files are masks: '*_roi.nii.gz'; '' for none.")
    ] = None,
    mask_values: Annotated[
        str | None, typer.Option(help="Values of the mask that are the lesion: 1,4.")
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="Percentiles that become 0 and 255: 0.5,99.5.")
    ] = None,
    window: Annotated[
        list[str] | None,
        typer.Option(help="A modality's window: ct=lung or ct=CENTRE,WIDTH; may be repeated."),
    ] = None,
    statistics: Annotated[
        str | None, typer.Option(help="foreground: percentiles and range of the foreground alone.")
    ] = None,
    archive_gib: Annotated[
        float | None, typer.Option(help="What an archive may hold when extracted, in GiB.")
    ] = None,
    archive_files: Annotated[
        int | None, typer.Option(help="How many files an archive may hold.")
    ] = None,
    series: Annotated[
        Path | None,
        typer.Option(help="Table of patterns: which DICOM series is which modality."),
    ] = None,
    secret: Annotated[
        Path | None,
        typer.Option(help="File with a secret: subjects are named by a hash that only it tells."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="CSV, TSV or XLSX with a column of subjects and columns of labels."),
    ] = None,
    id_column: IdColumn = None,
    dtype: Annotated[str | None, typer.Option(help="Stored type: float16 or uint8.")] = None,
    keep_masks: Annotated[
        bool, typer.Option("--keep-masks", help="Keep the masks, too, on the images' grid.")
    ] = False,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many classes of the source.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe with the defaults; or a RUN, for scans like its training's."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one a core by default.")
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(help="Work on a Dask cluster: its scheduler's address, tcp://host:8786."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be taken, and write nothing.")
    ] = False,
    show_series: Annotated[
        bool,
        typer.Option(
            "--show-series",
            help="With --dry-run: show the descriptions of DICOM series that no pattern knows.",
        ),
    ] = False,
) -> None:
    """Turn raw scans into a store: orient, resample, crop, rescale."""
    from vitaepp.ingest.prepare import prepare as run_prepare

    if store is None and not dry_run:
        raise typer.BadParameter("Missing argument 'STORE', which only --dry-run goes without")
    result = run_prepare(
        source,
        store,
        size=size,
        spacing=spacing,
        modalities=modalities,
        center=center,
        layout=layout,
        mask_pattern=mask_pattern,
        mask_values=mask_values,
        clip=clip,
        window=window,
        statistics=statistics,
        archive_gib=archive_gib,
        archive_files=archive_files,
        series=series,
        secret=secret,
        labels=labels,
        dtype=dtype,
        keep_masks=keep_masks or None,
        classes=classes,
        id_column=id_column,
        recipe=recipe,
        workers=workers,
        dask=dask,
        dry_run=dry_run,
        show_series=show_series,
    )
    if result.dry_run is not None:
        print(result)
        return
    print(result.account)
    print(result)
    if result.failures:
        raise typer.Exit(1)


@app.command()
def plan(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Raw scans as for prepare, or a store.")
    ],
    out: Annotated[Path | None, typer.Option(help="Recipe file to write.")] = None,
) -> None:
    """Propose a recipe for scans or a store on this machine, with reasons."""
    from vitaepp.training.plan import plan as run_plan

    proposal = run_plan(source, out)
    if proposal.dry_run is not None:
        print(proposal.dry_run, end="\n\n")
    print(out if out is not None else proposal.to_yaml())


@app.command()
def inspect(
    store: StorePath,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.png",
            help="Draw the subjects: three planes each, on as many numbered pages as it takes.",
        ),
    ] = None,
    subjects: Annotated[
        int | None,
        typer.Option(min=1, help="How many to draw, spread evenly; all by default."),
    ] = None,
) -> None:
    """Say what a store holds, and draw it."""
    from vitaepp.data.inspection import inspect as describe

    print(describe(store, pictures=pictures, subjects=subjects))


@app.command()
def pretrain(
    store: StorePath,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run to make.")],
    recipe: RecipeName = None,
    settings: Settings = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")
    ] = False,
    subjects: Annotated[
        Path | None, typer.Option(help="Train on the subjects in this text file only, one a line.")
    ] = None,
) -> None:
    """Train an encoder on a store, without labels."""
    with stoppable():
        from vitaepp.data.runfolder import read_subjects
        from vitaepp.training.launch import is_first_process
        from vitaepp.training.pretrain import pretrain as run_pretrain

        trained = run_pretrain(
            store,
            run,
            recipe=recipe,
            settings=settings or (),
            resume=resume,
            subjects=None if subjects is None else read_subjects(subjects),
        )
        if is_first_process():
            print(trained)


@app.command()
def bench(
    store: StorePath,
    recipe: RecipeName = None,
    settings: Settings = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to time.")] = 10,
    device: Annotated[str | None, typer.Option(help="Device to train on.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Say how fast a recipe trains here, how long it would take, and where the time goes."""
    # Torch's profiler tells its own starts and stops, unless it is told so before torch is loaded.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from vitaepp.training.bench import bench as run_bench

    speed = run_bench(store, recipe=recipe, settings=settings or (), steps=steps, device=device)
    for choice in speed.choices:
        say(f"{choice}: {choice.reason}")
    print(json.dumps(speed.to_dict(), indent=2, ensure_ascii=False) if as_json else speed)


@app.command()
def embed(
    run: RunPath,
    store: StorePath,
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT.parquet", help="File to write; .csv for other programs."),
    ],
    precision: Annotated[
        str | None,
        typer.Option(help="32, bf16, 16 or auto; as the run was trained by default."),
    ] = None,
    any_store: AnyStore = False,
    last: Annotated[
        bool,
        typer.Option("--last", help="Take the last checkpoint of a training that has not ended."),
    ] = False,
) -> None:
    """Embed every subject of a store, with the controls beside."""
    from vitaepp.encoder.embed import embed as run_embed

    print(run_embed(run, store, out, precision=precision, any_store=any_store, last=last))


@app.command()
def evaluate(
    embeddings: Annotated[
        Path, typer.Argument(metavar="EMBEDDINGS.parquet", help="What vitaepp embed wrote.")
    ],
    label: Annotated[str, typer.Option(help="Column to predict.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json.")],
    protocol: Annotated[
        str | None,
        typer.Option(help="svm (nested cross-validation) or linear (given train and test split)."),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(help="Of two classes, the one that sensitivity is of; the last in order."),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Outer folds of svm.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Draws the folds.")] = 0,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV, TSV or XLSX of labels to join to the embeddings by subject."),
    ] = None,
    id_column: IdColumn = None,
) -> None:
    """Measure embeddings with a linear classifier, against the controls."""
    from vitaepp.evaluation.evaluation import evaluate as run_evaluate
    from vitaepp.evaluation.summary import summary_table

    metrics = run_evaluate(
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
    print(summary_table(metrics))


@app.command()
def compare(
    metrics: Annotated[
        list[Path],
        typer.Argument(metavar="METRICS...", help="metrics.json files, or their folders."),
    ],
    reference: Annotated[
        str | None, typer.Option(help="The one to compare with, by name or path; the first.")
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
) -> None:
    """Put evaluations beside each other, with intervals and tests of the differences."""
    from vitaepp.evaluation.comparison import compare as run_compare

    comparison = run_compare(metrics, reference=reference, metric=metric, controls=controls)
    print(comparison)
    if out is not None:
        comparison.save(out)


@app.command()
def reconstruct(
    run: RunPath,
    store: StorePath,
    out: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder for the results.")],
    subjects: Annotated[
        int | None, typer.Option(min=1, help="How many, spread evenly; all by default.")
    ] = None,
    any_store: AnyStore = False,
) -> None:
    """Hide patches, let the model fill them in, and measure PSNR and SSIM."""
    from vitaepp.evaluation.reconstruction import reconstruct as run_reconstruct
    from vitaepp.evaluation.reconstruction import reconstruction_summary

    table = run_reconstruct(run, store, out, subjects=subjects, any_store=any_store)
    print(reconstruction_summary(table))


@app.command()
def experiment(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="methods, ablation, backbone, linear-probe, masking-ratio, edge-decay or "
            "reconstruction.",
        ),
    ],
    store: StorePath,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for tables and runs.")],
    label: Annotated[str | None, typer.Option(help="Column to predict.")] = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions, each with its own folds.")] = 1,
    pretrain_per_fold: Annotated[
        bool,
        typer.Option("--pretrain-per-fold", help="Pre-train without each fold's test subjects."),
    ] = False,
    protocol: Annotated[str | None, typer.Option(help="svm or linear, as in evaluate.")] = None,
    variants: Annotated[
        str | None, typer.Option(help="Only these, by their keys: vitae,vitae++.")
    ] = None,
    subjects: Annotated[
        int | None, typer.Option(min=1, help="Subjects to reconstruct; all by default.")
    ] = None,
) -> None:
    """Make a table or a figure of the paper on any store; run again, it goes on."""
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
    )
    print(to_text(result))
    if result.failed:
        raise typer.Exit(1)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One run or several.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="One that lies outside of the runs; may be repeated."),
    ] = None,
    reconstruction: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="One that lies outside of the runs; may be repeated."),
    ] = None,
) -> None:
    """Put runs on one page that opens in any browser, offline."""
    from vitaepp.reporting.report import report as run_report

    page = run_report(runs, out, evaluations=evaluation or (), reconstructions=reconstruction or ())
    print(page)


@app.command()
def settings() -> None:
    """List every setting of a recipe, its default and what it means."""
    from vitaepp.recipe.recipe import describe_settings, shipped_recipes

    for name, default, text in describe_settings():
        print(f"{name} = {'unset' if default is None else default}\n    {text}")
    print(f"\nshipped recipes: {', '.join(shipped_recipes())}")


def main() -> None:
    """Run the command line."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
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
    sys.exit(status)


def _complain(line: str) -> None:
    print(f"vitaepp: {line}", file=sys.stderr)
