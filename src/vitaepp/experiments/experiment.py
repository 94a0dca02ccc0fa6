"""experiment: train a named set of variants, and write the paper's table and figure of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from vitaepp.data.store import Store
from vitaepp.errors import RecipeError, TrainingError, one_line
from vitaepp.evaluation.budget import Budget, parse_budget
from vitaepp.experiments.catalogue import EXPERIMENTS, Experiment, Variant, read_experiment
from vitaepp.experiments.classification import Classification
from vitaepp.experiments.hours import in_hours
from vitaepp.experiments.kind import Folders, Kind, Measured
from vitaepp.experiments.losses import Losses
from vitaepp.experiments.reconstructions import Reconstructions
from vitaepp.experiments.results import Result, Row
from vitaepp.experiments.runs import Setup
from vitaepp.experiments.tables import to_csv, to_latex, to_markdown
from vitaepp.methods import build_method
from vitaepp.presentation.drawing import Drawing
from vitaepp.recipe.recipe import Recipe, as_settings, changed_settings, resolve
from vitaepp.system.extras import require
from vitaepp.system.files import read_json, write_json, write_text
from vitaepp.system.host import versions
from vitaepp.system.progress import counted, say
from vitaepp.system.results import ResultFiles
from vitaepp.system.text import dimensions
from vitaepp.training.hours import Clock

#: What measures an experiment, by its `kind` in the catalogue.
KINDS: Mapping[str, type[Kind]] = {
    "classification": Classification,
    "loss": Losses,
    "reconstruction": Reconstructions,
}


def experiment(
    name: str | os.PathLike[str],
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    label: str | None = None,
    recipe: str | os.PathLike[str] | None = None,
    settings: str | Sequence[str] = (),
    seeds: int | None = None,
    pretrain_per_fold: bool = False,
    protocol: str | None = None,
    variants: Sequence[str] | None = None,
    subjects: int | None = None,
    hours: float | None = None,
    budget: Sequence[Budget] | str = (),
) -> Result:
    """Train every variant of an experiment, measure it, and write the table.

    Writes `NAME.md`, `.csv`, `.tex` and `.json` into OUT, and `NAME.png` and `.pdf` where the paper
    has a figure. What is finished is skipped, so that an experiment that was interrupted goes on
    when it is called again; experiments with one OUT share the runs that they have in common.

    Each variant is compared with its reference over the same folds: by the corrected resampled
    t-test (Nadeau & Bengio 2003), or McNemar's test on one test split, with a bootstrap interval
    over subjects; reconstructions by a paired test over subjects. A variant whose training fails
    (a loss that is not finite) is named with the reason, and the others go on.

    Args:
        name: `methods`, `ablation`, `backbone`, `linear-probe`, `masking-ratio`, `edge-decay` or
            `reconstruction`; or a YAML file of variants, see docs/experiments.md.
        store: prepared store.
        out: folder for tables, figures and runs.
        label: column to predict. It has no effect on `edge-decay` and `reconstruction`, and the
            other options of a classifier are refused there: `protocol`, `pretrain_per_fold` and
            `budget`.
        recipe: a recipe, by name or file, that the variants change; the defaults without it.
        settings: changes to it, `name=value`. Those of a variant come after them.
        seeds: repetitions, each with its own weights, masks and folds: 0, 1, … Unset: as the file
            of variants says, else 1.
        pretrain_per_fold: the strict protocol: pre-train without the test subjects of each fold,
            and without all other scans of these people.
        protocol: `svm` or `linear`, as in `evaluate`.
        variants: keys of those to run; all without it.
        subjects: how many, for `reconstruction` alone; all without it.
        hours: make the whole table in so much time. The speed of this machine is measured once, and
            one length set for all rows; where no recipe is named, model and batch are chosen, too.
            OUT keeps what came out, in hours.json.
        budget: numbers of labels, as in `evaluate`: the table also says how good classifiers are
            that saw so many. What pre-training is worth shows there first.

    Returns:
        The rows of the table.

    Raises:
        RecipeError, EvaluationError, StoreError, RunError: name, variants, label, settings or
            folder do not allow it; nothing has been trained then.
    """
    require("matplotlib", "report", "an experiment needs")  # before trainings that take days
    wanted, settings = read_experiment(name), as_settings(settings)
    chosen = wanted.experiment.choose(variants)
    clock = None if hours is None else Clock(hours)
    setup = Setup(
        Store(store),
        Path(out),
        base_recipe(wanted.base, recipe, settings),
        label or "",
        protocol,
        pretrain_per_fold,
        wanted.seeds if seeds is None else seeds,
        subjects,
        _below_all(budget),
    )
    kind = KINDS[chosen.kind](chosen, setup)
    if clock is None:
        _refuse_variants_that_cannot_be(chosen, setup)
    kind.check()
    files_of(chosen.key).check(setup.out)
    setup.claim()
    if clock is not None:
        setup = in_hours(chosen, setup, clock, recipe, settings, wanted.base)
        _refuse_variants_that_cannot_be(chosen, setup)
        kind = KINDS[chosen.kind](chosen, setup)
    setup.check(chosen.variants)

    folders, failures = _run(kind)
    measured = kind.measured(folders)
    command = _command(setup, name, recipe, settings, variants, hours)
    result = _result(kind, measured, folders, failures, command)
    _write(setup.out, chosen.key, result, measured.figure)
    return result


def _below_all(budget: Sequence[Budget] | str) -> tuple[int, ...]:
    """The numbers of a budget, each once, in rising order; all labels are always measured."""
    given = parse_budget(budget) if isinstance(budget, str) else budget
    return tuple(sorted({size for size in given if isinstance(size, int)}))


def base_recipe(
    base: Mapping[str, Any] | None, recipe: str | os.PathLike[str] | None, settings: Sequence[str]
) -> Recipe:
    """The recipe that variants change: the user's, with what the experiment says of all of them.

    Of a shipped experiment that is the method with all losses, which its rows then switch off.
    """
    if base is None:
        return resolve(recipe, (*settings, "method=vitae++"))
    return resolve(resolve(recipe, base), settings)


def _refuse_variants_that_cannot_be(chosen: Experiment, setup: Setup) -> None:
    if setup.seeds < 1:
        raise RecipeError(f"seeds={setup.seeds}: at least one is needed")
    info = setup.store.info
    known: dict[Recipe, Variant] = {}
    for variant in chosen.variants:
        same = known.setdefault(setup.recipe_of(variant, 0), variant)
        if same is not variant:
            how = "give the loss that it adds a weight, or " * (chosen.key in EXPERIMENTS)
            raise RecipeError(
                f"experiment {chosen.key}: with these settings {variant.key} is the same as "
                f"{same.key}; {how}leave one out by `variants`"
            )
        # Building each now costs seconds; otherwise a setting that does not fit would be found
        # only after the trainings of all variants before it.
        build_method(setup.recipe_of(variant, 0), len(info.modalities), info.size)


def _run(kind: Kind) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Run what is not finished yet.

    Returns:
        The folders of each variant that has a result for every seed, and why others have none.
    """
    chosen, seeds = kind.experiment, range(kind.setup.seeds)
    failures: dict[str, str] = {}
    folders: dict[str, list[Path]] = {}
    for number, variant in enumerate(chosen.variants, start=1):
        results: list[Path | None] = []
        for seed in seeds:
            title = kind.names[variant.key]
            with_seed = f", seed {seed}" if len(seeds) > 1 else ""
            say(f"\n{chosen.key}, {number} of {len(chosen.variants)}: {title}{with_seed}")
            try:
                results.append(kind.run(variant, seed))
            except TrainingError as error:
                failures[variant.key] = f"seed {seed}: {one_line(error)}"
                say(f"{title}: {one_line(error)}; the other variants go on")
                results.append(kind.after_failure(variant, seed))
        finished = [path for path in results if path is not None]
        # A mean over other seeds than the rest would compare unlike with unlike.
        if len(finished) == len(seeds):
            folders[variant.key] = finished
    return folders, failures


def _command(
    setup: Setup,
    name: str | os.PathLike[str],
    recipe: str | os.PathLike[str] | None,
    settings: Sequence[str],
    variants: Sequence[str] | None,
    hours: float | None,
) -> str:
    """The command that makes this table, with folders by name."""
    words = [f"vitaepp experiment {Path(name).name} {setup.store.name} OUT"]
    words += [f"--label {setup.label}"] if setup.label else []
    words += [f"--recipe {Path(recipe).name}"] if recipe is not None else []
    words += [f"--set {setting}" for setting in settings]
    words += [f"--seeds {setup.seeds}"] if setup.seeds > 1 else []
    words += ["--pretrain-per-fold"] if setup.per_fold else []
    words += [f"--protocol {setup.protocol}"] if setup.protocol else []
    words += [f"--variants {','.join(variants)}"] if variants else []
    words += [f"--subjects {setup.subjects}"] if setup.subjects else []
    words += [f"--hours {hours:g}"] if hours else []
    words += [f"--budget {','.join(map(str, setup.budget))}"] if setup.budget else []
    return " ".join(words)


def _result(
    kind: Kind, measured: Measured, folders: Folders, failures: Mapping[str, str], command: str
) -> Result:
    """The table: every variant of the experiment, then the controls, and how it was made."""
    chosen, setup = kind.experiment, kind.setup
    rows = {row.key: row for row in measured.rows}
    variants = [
        replace(rows.get(v.key, Row(v.key, kind.names[v.key], {})), note=failures.get(v.key, ""))
        for v in chosen.variants
    ]
    summaries = [
        read_json(run.summary_file)
        for variant in kind.done(folders)
        for seed in range(setup.seeds)
        for run in setup.run_folders(variant, seed)
    ]
    changes = {
        f"variant {v.key}": ", ".join(f"{name}={value}" for name, value in v.settings.items())
        or "the base"
        for v in chosen.variants
        if isinstance(v.settings, Mapping)
    }
    before, after = _data(setup, summaries), _machine(summaries)
    return Result(
        chosen.key,
        chosen.title,
        measured.metrics,
        (*variants, *(row for row in measured.rows if row.control)),
        {"command": f"`{command}`"} | changes | before | dict(measured.facts) | after,
        tuple(changed_settings(setup.recipe)),
        samples=measured.samples,
    )


_Summaries = Sequence[Mapping[str, Any]]


def _data(setup: Setup, summaries: _Summaries) -> dict[str, str]:
    """What was trained on, and how long."""
    store, optim = setup.store, setup.recipe.optim
    modalities, size = ", ".join(store.info.modalities), dimensions(store.info.size)
    epochs = [str(n) for n in sorted({summary["epochs"] for summary in summaries})]
    numbers = sorted({summary["trained_on"] for summary in summaries})
    return {
        "data": f"{store.name}: {counted(len(store), 'subject')}, {modalities}, {size}",
        "epochs": f"{' or '.join(epochs) or optim.epochs}, batches of {optim.batch_size}",
        "seeds": ", ".join(map(str, range(setup.seeds))),
        "pre-trained on": " or ".join(counted(n, "subject") for n in numbers),
    }


def _machine(summaries: _Summaries) -> dict[str, str]:
    """What trained it, in what time."""
    seconds = round(sum(summary.get("seconds", 0.0) for summary in summaries))
    return {
        "trained on": ", ".join(sorted({summary["device"] for summary in summaries})),
        "training took": f"{timedelta(seconds=seconds)} in all, {counted(len(summaries), 'run')}",
        "versions": ", ".join(f"{name} {number}" for name, number in versions("torch").items()),
    }


def files_of(key: str) -> ResultFiles:
    """What an experiment writes."""
    return ResultFiles(
        "experiment",
        {
            f"{key}.json": ("key", "rows"),
            f"{key}.csv": (
                *("variant", "name", "(control|note|against)?", r"(\S+_(mean|std|p|test|reason))?"),
                r"(\S+_difference(_low|_high)?)?",
            ),
        },
        last=(f"{key}.json",),
        unsigned=tuple(f"{key}.{ending}" for ending in ("md", "tex", "png", "pdf")),
    )


def _write(out: Path, key: str, result: Result, figure: Drawing | None) -> None:
    """The figure and the table in every format; the JSON comes last."""
    with files_of(key).written(out) as staged:
        if figure is not None:
            for ending in ("png", "pdf"):
                figure.save(staged / f"{key}.{ending}")
        write_text(staged / f"{key}.md", to_markdown(result))
        write_text(staged / f"{key}.csv", to_csv(result))
        write_text(staged / f"{key}.tex", to_latex(result))
        write_json(staged / f"{key}.json", result.to_json())
