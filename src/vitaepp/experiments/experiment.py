"""experiment: train a named set of variants, and write the paper's table and figure of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.runfolder import RunFolder
from vitaepp.data.store import Store
from vitaepp.errors import RecipeError, TrainingError, one_line
from vitaepp.evaluation.difference import Difference, difference_between
from vitaepp.evaluation.folds import plan_folds
from vitaepp.evaluation.participants import told_persons
from vitaepp.evaluation.result import METHOD, Evaluation
from vitaepp.evaluation.scores import METRICS, spread
from vitaepp.evaluation.statistics import PairedDifference, paired_difference
from vitaepp.evaluation.summary import leading_metric
from vitaepp.experiments.catalogue import Experiment, Variant, find
from vitaepp.experiments.divergence import course
from vitaepp.experiments.figures import draw_losses, draw_reconstructions, draw_sweep
from vitaepp.experiments.results import Cell, Result, Row, Versus
from vitaepp.experiments.runs import Setup
from vitaepp.experiments.tables import to_csv, to_latex, to_markdown
from vitaepp.methods import build_method
from vitaepp.nn.backbones import BACKBONES
from vitaepp.presentation.planes import Plane, are_colours, planes
from vitaepp.recipe.recipe import Recipe, as_settings, changed_settings
from vitaepp.system.extras import require
from vitaepp.system.files import file_stem, write_json, write_text
from vitaepp.system.progress import counted, say

#: Subjects that Table 5 and Figure 3 show one by one.
SAMPLES = 3

_CONTROLS = {"untrained": "its untrained encoder", "raw": "raw intensities"}


def experiment(
    name: str,
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    label: str | None = None,
    recipe: str | os.PathLike[str] | None = None,
    settings: str | Sequence[str] = (),
    seeds: int = 1,
    pretrain_per_fold: bool = False,
    protocol: str | None = None,
    variants: Sequence[str] | None = None,
    subjects: int | None = None,
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
            `reconstruction`.
        store: prepared store.
        out: folder for tables, figures and runs.
        label: column to predict; `edge-decay` and `reconstruction` need none.
        recipe: a recipe, by name or file, that the variants change; the defaults without it.
        settings: changes to it, `name=value`. Those of a variant come after them.
        seeds: repetitions, each with its own weights, masks and folds: 0, 1, …
        pretrain_per_fold: the strict protocol: pre-train without the test subjects of each fold.
        protocol: `svm` or `linear`, as in `evaluate`.
        variants: keys of those to run; all without it.
        subjects: of `reconstruction`, how many; all without it.

    Returns:
        The rows of the table.

    Raises:
        RecipeError, EvaluationError, StoreError, RunError: name, variants, label, settings or
            folder do not allow it; nothing has been trained then.
    """
    require("matplotlib", "report", "an experiment needs")  # before trainings that take days
    chosen = find(name).choose(variants)
    opened, settings = Store(store), as_settings(settings)
    base = Recipe.load(recipe, (*settings, "method=vitae++"))
    setup = Setup(opened, Path(out), base, label or "", protocol, pretrain_per_fold)
    _refuse_what_cannot_be(chosen, setup, seeds)
    setup.claim()

    failures: dict[str, str] = {}
    folders: dict[str, list[Path]] = {v.key: [] for v in chosen.variants}
    for number, variant in enumerate(chosen.variants, start=1):
        for seed in range(seeds):
            with_seed = f", seed {seed}" if seeds > 1 else ""
            title = variant.title(base)
            say(f"\n{chosen.key}, {number} of {len(chosen.variants)}: {title}{with_seed}")
            try:
                folders[variant.key].append(_run(chosen, setup, variant, seed, subjects))
            except TrainingError as error:
                failures[variant.key] = f"seed {seed}: {one_line(error)}"
                say(f"{title}: {one_line(error)}; the other variants go on")
                if chosen.kind == "loss":  # how it failed is what is asked here
                    folders[variant.key].append(setup.run_folder(variant, seed).path)
    command = _command(name, opened, label, recipe, settings, seeds, pretrain_per_fold)
    command += f" --protocol {protocol}" if protocol else ""
    command += f" --variants {','.join(variants)}" if variants else ""
    command += f" --subjects {subjects}" if subjects else ""
    result = _result(chosen, setup, folders, failures, seeds, command)
    _write(chosen, setup, folders, result)
    return result


def _command(
    name: str,
    store: Store,
    label: str | None,
    recipe: str | os.PathLike[str] | None,
    settings: Sequence[str],
    seeds: int,
    per_fold: bool,
) -> str:
    """What was asked for, with folders by name."""
    words = [f"vitaepp experiment {name} {store.name} OUT"]
    words += [f"--label {label}"] if label else []
    words += [f"--recipe {Path(recipe).name}"] if recipe is not None else []
    words += [f"--set {setting}" for setting in settings]
    words += [f"--seeds {seeds}"] if seeds > 1 else []
    words += ["--pretrain-per-fold"] if per_fold else []
    return " ".join(words)


def _refuse_what_cannot_be(chosen: Experiment, setup: Setup, seeds: int) -> None:
    if seeds < 1:
        raise RecipeError(f"seeds={seeds}: at least one is needed")
    info = setup.store.info
    told: dict[Recipe, Variant] = {}
    for variant in chosen.variants:
        same = told.setdefault(setup.recipe_of(variant, 0), variant)
        if same is not variant:
            raise RecipeError(
                f"experiment {chosen.key}: with these settings {variant.key} is the same as "
                f"{same.key}, {same.title(setup.recipe)}; give the loss that it adds a weight, or "
                "leave one out by --variants"
            )
        # Building each now costs seconds; a setting that does not fit would else be found after
        # the trainings of all variants before it.
        build_method(setup.recipe_of(variant, 0), len(info.modalities), info.size)
    if chosen.kind == "classification":
        if not setup.label:
            columns = ", ".join(setup.store.label_columns) or "none"
            raise RecipeError(
                f"experiment {chosen.key} needs --label COLUMN; {setup.store.path} has {columns}"
            )
        labelled = setup.store.table[["subject", "split", *setup.store.label_columns]]
        for seed in range(seeds):
            plan_folds(labelled, setup.label, setup.protocol, seed=seed)
    elif setup.per_fold:
        raise RecipeError(
            f"experiment {chosen.key} evaluates no classifier, so that there are no folds; leave "
            "out --pretrain-per-fold"
        )


def _run(
    chosen: Experiment, setup: Setup, variant: Variant, seed: int, subjects: int | None
) -> Path:
    if chosen.kind == "classification":
        return setup.evaluated(variant, seed)
    if chosen.kind == "reconstruction":
        return setup.reconstructed(variant, seed, subjects)
    return setup.trained(variant, seed)


def _result(
    chosen: Experiment,
    setup: Setup,
    folders: Mapping[str, Sequence[Path]],
    failures: Mapping[str, str],
    seeds: int,
    command: str,
) -> Result:
    kinds = {"classification": _classified, "loss": _losses, "reconstruction": _reconstructed}
    # A mean over other seeds than the rest would compare unlike with unlike.
    done = {key: paths for key, paths in folders.items() if len(paths) == seeds}
    metrics, rows, samples = kinds[chosen.kind](chosen, setup, done)
    found = {row.key: row for row in rows}
    variants = [
        replace(
            found.get(v.key, Row(v.key, v.title(setup.recipe), {})), note=failures.get(v.key, "")
        )
        for v in chosen.variants
    ]
    controls = [row for row in rows if row.control]
    return Result(
        chosen.key,
        chosen.title,
        metrics,
        (*variants, *controls),
        {"command": f"`{command}`"} | _facts(chosen, setup, done, seeds),
        tuple(changed_settings(setup.recipe)),
        samples=samples,
    )


_Found = tuple[tuple[str, ...], list[Row], Mapping[str, Mapping[str, str]]]


def _classified(chosen: Experiment, setup: Setup, folders: Mapping[str, Sequence[Path]]) -> _Found:
    outcomes = {key: [Evaluation.load(p) for p in paths] for key, paths in folders.items()}
    if not outcomes:
        return chosen.metrics or METRICS, [], {}
    lead = leading_metric(next(iter(outcomes.values()))[0].metrics)
    metrics = chosen.metrics or (lead, *(m for m in METRICS if m != lead))
    names = {v.key: v.title(setup.recipe) for v in chosen.variants}
    rows, controls = [], dict[str, Row]()
    for variant in chosen.variants:
        own = outcomes.get(variant.key)
        if own is None:
            continue
        versus, against_controls = {}, {}
        reference = outcomes.get(variant.against)
        if reference is not None:
            difference = difference_between(own, reference, metric=metrics[0])
            versus[metrics[0]] = _versus(difference, names[variant.against])
        backbone = setup.recipe_of(variant, 0).model.backbone
        for control, what in _CONTROLS.items():
            if all(control in outcome.metrics["controls"] for outcome in own):
                difference = difference_between(own, own, metric=metrics[0], reference_key=control)
                against_controls[what] = _versus(difference, what)
                # All variants of one backbone begin with the same weights.
                key = control if control == "raw" else f"untrained-{backbone}"
                what = f"untrained {BACKBONES[backbone]}" if control == "untrained" else what
                controls.setdefault(
                    key, Row(key, what, _cells(own, control, metrics), control=True)
                )
        rows.append(
            Row(
                variant.key,
                names[variant.key],
                _cells(own, METHOD, metrics),
                versus,
                against_controls,
                variant.at,
            )
        )
    # Raw intensities last, below what has a network.
    ordered = sorted(controls.values(), key=lambda row: row.key == "raw")
    return metrics, [*rows, *ordered], {}


def _cells(outcomes: Sequence[Evaluation], key: str, metrics: Sequence[str]) -> dict[str, Cell]:
    """Mean and spread over all folds of all seeds."""
    folds = []
    for outcome in outcomes:
        part = outcome.metrics if key == METHOD else outcome.metrics["controls"][key]
        folds += part["folds"]
    mean, std = spread(folds)
    return {metric: Cell(mean[metric], std[metric]) for metric in metrics}


def _versus(difference: Difference, against: str) -> Versus:
    interval = difference.interval
    return Versus(
        difference.metric,
        against,
        difference.mean,
        None if interval is None else interval.low,
        None if interval is None else interval.high,
        0.95 if interval is None else interval.level,
        difference.p,
        difference.test or difference.reason or "",
    )


def _losses(chosen: Experiment, setup: Setup, folders: Mapping[str, Sequence[Path]]) -> _Found:
    rows = []
    for variant in chosen.variants:
        paths = folders.get(variant.key)
        if paths is None:
            continue
        tables = [_loss_table(path) for path in paths]
        if any(table.empty for table in tables):
            continue
        courses = [course(table["loss"].to_numpy(float)) for table in tables]
        ended = [len(table) >= setup.recipe.optim.epochs for table in tables]
        rows.append(
            Row(
                variant.key,
                variant.title(setup.recipe),
                {
                    "first_loss": _cell([c.first for c in courses]),
                    "lowest_loss": _cell([c.lowest for c in courses]),
                    "last_loss": _cell([c.last for c in courses]),
                    "diverged": _cell(
                        [float(c.diverged or not e) for c, e in zip(courses, ended, strict=True)]
                    ),
                },
            )
        )
    return ("first_loss", "lowest_loss", "last_loss", "diverged"), rows, {}


def _loss_table(run: Path) -> pd.DataFrame:
    """The epochs of a run; none, where it failed in the first."""
    file = RunFolder(run).metrics_file
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def _cell(values: Sequence[float]) -> Cell:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Cell(float(np.mean(values)), std)


def _reconstructed(
    chosen: Experiment, setup: Setup, folders: Mapping[str, Sequence[Path]]
) -> _Found:
    tables = {key: _over_seeds(paths) for key, paths in folders.items()}
    names = {v.key: v.title(setup.recipe) for v in chosen.variants}
    rows = []
    samples: dict[str, dict[str, str]] = {}
    for variant in chosen.variants:
        own = tables.get(variant.key)
        if own is None:
            continue
        reference = tables.get(variant.against)
        versus = {}
        if reference is not None and len(own) > 1:
            for metric in chosen.metrics:
                found = paired_difference(own[metric].to_numpy(), reference[metric].to_numpy())
                versus[metric] = _paired(found, metric, names[variant.against])
        cells = {m: _cell(own[m].tolist()) for m in chosen.metrics}
        rows.append(Row(variant.key, names[variant.key], cells, versus))
        shown = own.iloc[:SAMPLES]
        samples[names[variant.key]] = {
            str(subject): f"{psnr:.3f}/{ssim:.3f}"
            for subject, psnr, ssim in zip(shown.index, shown["psnr"], shown["ssim"], strict=True)
        }
    return chosen.metrics, rows, samples


def _over_seeds(folders: Sequence[Path]) -> pd.DataFrame:
    """PSNR and SSIM by subject, averaged over seeds."""
    parts = [pd.read_csv(f / "metrics.csv", dtype={"subject": str}) for f in folders]
    return pd.concat(parts).groupby("subject", sort=False)[["psnr", "ssim"]].mean()


def _paired(found: PairedDifference, metric: str, against: str) -> Versus:
    interval = found.interval
    return Versus(
        metric,
        against,
        found.mean,
        interval.low,
        interval.high,
        interval.level,
        found.t.p,
        "paired t-test over subjects",
    )


def _facts(
    chosen: Experiment, setup: Setup, folders: Mapping[str, Sequence[Path]], seeds: int
) -> dict[str, str]:
    store, recipe = setup.store, setup.recipe
    summaries = []
    for variant in chosen.variants:
        for seed in range(seeds) if variant.key in folders else ():
            runs = setup.run_folders(variant, seed)
            summaries += [json.loads(r.summary_file.read_text(encoding="utf-8")) for r in runs]
    seconds = sum(s.get("seconds", 0.0) for s in summaries)
    trained_on = sorted({s["trained_on"] for s in summaries})
    modalities, size = ", ".join(store.info.modalities), " × ".join(map(str, store.info.size))
    facts = {
        "data": f"{store.name}: {counted(len(store), 'subject')}, {modalities}, {size}",
        "epochs": f"{recipe.optim.epochs}, batches of {recipe.optim.batch_size}",
        "seeds": ", ".join(map(str, range(seeds))),
        "pre-trained on": " or ".join(counted(n, "subject") for n in trained_on),
    }
    if chosen.kind == "classification":
        first = next(iter(folders.values()), None)
        if first:
            metrics = Evaluation.load(first[0]).metrics
            folds = len(metrics["folds"])
            how = {
                "svm": f"linear SVM, nested cross-validation, {folds} folds",
                "linear": "linear probe on the given training and test split",
            }
            facts["label"] = f"{setup.label}, {told_persons(metrics)}"
            if metrics.get("positive") is not None:
                facts["positive class"] = str(metrics["positive"])
            facts["evaluated by"] = how[metrics["protocol"]]
            facts["±"] = "sample standard deviation over folds and seeds"
        facts["protocol"] = (
            "strict: pre-trained anew for each fold, without its test subjects"
            if setup.per_fold
            else "the paper's: pre-trained once, without labels, on the subjects above"
        )
    elif chosen.kind == "loss":
        facts["diverged"] = (
            "the loss is not finite, or has lost more than half of what it had gained: its mean "
            "over the last tenth of epochs is nearer to that of the first tenth than to that of "
            "the lowest"
        )
    else:
        facts["±"] = "sample standard deviation over subjects"
        facts["masks"] = "the same for all variants; visible patches are the image's own"
    facts["trained on"] = ", ".join(sorted({s["device"] for s in summaries}))
    facts["training took"] = f"{timedelta(seconds=round(seconds))} in all, {len(summaries)} runs"
    facts["versions"] = ", ".join(f"{n} {version(n)}" for n in ("vitaepp", "torch"))
    return facts


def _write(
    chosen: Experiment,
    setup: Setup,
    folders: Mapping[str, Sequence[Path]],
    result: Result,
) -> None:
    """The table in every format and the figure; the JSON comes last."""
    stem = setup.out / chosen.key
    names = {v.key: v.title(setup.recipe) for v in chosen.variants}
    for suffix in (".png", ".pdf"):
        picture = stem.with_suffix(suffix)
        if any(row.at is not None and row.cells for row in result.rows):
            draw_sweep(result, picture)
        elif chosen.kind == "loss":
            tables = {names[key]: [_loss_table(p) for p in paths] for key, paths in folders.items()}
            draw_losses(tables, picture)
        elif chosen.kind == "reconstruction":
            info = setup.store.info
            plane = planes(info.ndim, info.directed)[0]
            first = {names[key]: paths[0] for key, paths in folders.items() if paths}
            panels = _panels(first, plane, are_colours(info.modalities, info.ndim))
            if panels:
                extent = plane.extent(info.size, info.spacing)
                draw_reconstructions(panels, picture, plane, extent)
    write_text(stem.with_suffix(".md"), to_markdown(result))
    write_text(stem.with_suffix(".csv"), to_csv(result))
    write_text(stem.with_suffix(".tex"), to_latex(result))
    write_json(stem.with_suffix(".json"), result.to_json())


def _panels(
    folders: Mapping[str, Path], plane: Plane, colour: bool
) -> list[tuple[str, dict[str, npt.NDArray[np.uint8]]]]:
    """Middle slices of the first subjects: original, masked, and each variant's reconstruction."""
    if not folders:
        return []
    first = next(iter(folders.values()))
    subjects = pd.read_csv(first / "metrics.csv", dtype={"subject": str})["subject"][:SAMPLES]

    def picture(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return np.moveaxis(image, 0, -1) if colour else plane.cut(image[0])

    panels = []
    for subject in subjects:
        pictures: dict[str, npt.NDArray[np.uint8]] = {}
        for name, folder in folders.items():
            with np.load(folder / f"{file_stem(subject)}.npz") as arrays:
                for part in ("original", "masked"):
                    pictures.setdefault(part, picture(arrays[part]))
                pictures[name] = picture(arrays["reconstruction"])
        panels.append((subject, pictures))
    return panels
