"""The report: one HTML file that opens offline, made from what run folders hold.

Everything is inside the file: styles, script, figures as SVG, images as data URIs. A content
security policy forbids the browser to fetch anything. Nothing in it depends on when or where it
was made, so that the same runs give the same bytes.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from vitaepp.data.inspection import OF_RUN
from vitaepp.errors import RecipeError, RunError
from vitaepp.evaluation.participants import told_persons
from vitaepp.evaluation.result import score_columns
from vitaepp.evaluation.scores import METRICS
from vitaepp.evaluation.summary import (
    Row,
    display_name,
    leading_metric,
    summary_rows,
    verdict,
)
from vitaepp.presentation.numbers import mean_and_spread
from vitaepp.recipe.recipe import Recipe
from vitaepp.reporting import figures
from vitaepp.reporting.contents import (
    Evaluation,
    Reconstruction,
    RunContents,
    read_evaluation,
    read_reconstruction,
    read_run,
    unique_names,
    whose,
)
from vitaepp.reporting.images import BUDGET, MOST_IMAGES, data_uri, sheets, webp
from vitaepp.system.files import write_text
from vitaepp.system.progress import counted

#: Series colours of the embedding and its controls.
STYLES = {"method": "s0", "untrained": "s1 dashed", "raw": "s2 dashed"}

_TERMS = ("reconstruction", "perceptual", "edge", "contrastive")

_TERM_NAMES = {
    "reconstruction": "Reconstruction",
    "perceptual": "Perceptual (VGG-16)",
    "edge": "Edge (Sobel)",
    "contrastive": "Contrastive",
}


Found = TypeVar("Found", Evaluation, Reconstruction)


@dataclass(frozen=True)
class _Result:
    """A line of the comparison: one set of features of one run."""

    run: str
    row: Row
    cells: list[str]
    best: bool
    strip: Any


@dataclass(frozen=True)
class _Figure:
    title: str
    note: str
    svg: Any
    legend: list[tuple[str, str]]


def report(
    runs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    out: str | os.PathLike[str] = "report.html",
    *,
    evaluations: Sequence[str | os.PathLike[str]] = (),
    reconstructions: Sequence[str | os.PathLike[str]] = (),
) -> Path:
    """Write a report on one run, or on several side by side.

    Shows every evaluation and reconstruction that lies in a run and is of its weights. What a run
    lacks is named, with the command that makes it; so is what lies there and is of other weights.

    Args:
        runs: a run folder, or several.
        out: the HTML file; it appears whole or not at all.
        evaluations: folders of others; those of one of these runs are shown with it, and the rest
            by themselves.
        reconstructions: likewise.

    Returns:
        The path of the report.

    Raises:
        RunError: a folder is not a run, or holds no such result; or `out` is a folder.
    """
    from jinja2 import Environment, StrictUndefined

    paths = [Path(run) for run in ([runs] if isinstance(runs, str | os.PathLike) else runs)]
    if not paths:
        raise RunError("no run to report on; give one or more run folders")
    out = Path(out)
    if out.is_dir():
        raise RunError(
            f"{out}: is a folder; --out names an HTML file, for example {out}/report.html"
        )
    contents = [read_run(path, name) for path, name in zip(paths, unique_names(paths), strict=True)]
    evaluated: list[Evaluation] = []
    reconstructed: list[Reconstruction] = []
    for evaluation in map(read_evaluation, evaluations):
        own = [run.evaluations for run in contents if run.owns(evaluation)]
        _add(evaluation, own[0] if own else evaluated)
    for reconstruction in map(read_reconstruction, reconstructions):
        shown = [run.reconstructions for run in contents if run.owns(reconstruction)]
        _add(reconstruction, shown[0] if shown else reconstructed)
    each = [*reconstructed, *(r for run in contents for r in run.reconstructions)]
    budget = BUDGET // max(len(each), 1)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = (resources.files("vitaepp.reporting") / "page.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        title=_title(contents),
        runs=[_run_view(run, budget) for run in contents],
        comparisons=_comparisons(contents, evaluated),
        others={
            "evaluations": [_evaluation_view(e, str(e.folder)) for e in evaluated],
            "reconstructions": [
                # Where its axes run is not told; without letters nobody is misled.
                _reconstruction_view(r, str(r.folder), None, False, budget)
                for r in reconstructed
            ],
        },
    )
    write_text(out, page)
    return out


def _add(result: Found, shown: list[Found]) -> None:
    """Add what is not there yet."""
    if result.folder.resolve() not in {one.folder.resolve() for one in shown}:
        shown.append(result)


def _title(runs: Sequence[RunContents]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} runs compared"
    run = runs[0]
    subjects = _subjects(run)
    return _method(run) + (f" on {counted(subjects, 'subject')}" if subjects else "")


def _method(run: RunContents) -> str:
    with suppress(RecipeError):  # another version's, or damaged
        if run.recipe:
            return Recipe.parse(run.recipe).name
    return display_name(run.recipe | run.summary)


def _subjects(run: RunContents) -> int | None:
    store = _section(run.summary, "store")
    found = run.summary.get("trained_on") or store.get("subjects")
    return int(found) if isinstance(found, int | float) else None


def _directed(run: RunContents) -> bool:
    """Whether the axes of its volumes run to the patient's right, front and head."""
    store = _section(run.summary, "store")
    spacing = store.get("spacing")
    return isinstance(spacing, list) and len(spacing) == 3 and not store.get("unit")


def _section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _what_was_trained(run: RunContents) -> str:
    """One sentence: what was trained on what, as far as the run says."""
    summary, store = run.summary, _section(run.summary, "store")
    model = _section(run.recipe, "model")
    sentence = f"{_method(run)}"
    size = model.get("size")
    if model.get("backbone", "vit") == "vit" and size:
        own_shape = any(model.get(name) for name in ("embed_dim", "depth", "num_heads"))
        sentence += " with a ViT" if own_shape else f" with a ViT-{str(size).capitalize()}"
        sentence += " encoder"
    parameters = _section(summary, "parameters").get("encoder")
    if isinstance(parameters, int | float):
        sentence += f" ({parameters / 1e6:.1f} million parameters)"
    subjects = _subjects(run)
    done, wanted = _epochs(run)
    unfinished = wanted is not None and done < wanted
    sentence += " has been trained" if unfinished else " was trained"
    sentence += f" on {counted(subjects, 'subject')}" if subjects else ""
    modalities = store.get("modalities")
    details = []
    if isinstance(modalities, list) and modalities:
        details.append(", ".join(str(m) for m in modalities))
    if isinstance(store.get("size"), list):
        unit = "voxels" if len(store["size"]) == 3 else "pixels"
        text = " × ".join(str(n) for n in store["size"]) + f" {unit}"
        if isinstance(store.get("spacing"), list):
            steps = [f"{s:g}" for s in store["spacing"]]
            text += f" of {steps[0] if len(set(steps)) == 1 else ' × '.join(steps)} "
            text += store.get("unit") or "mm"
        details.append(text)
    if details:
        sentence += f" ({'; '.join(details)})"
    if unfinished and wanted is not None:
        sentence += f" for {done:,} of {counted(wanted, 'epoch')} so far"
    elif wanted is not None:
        sentence += f" for {counted(wanted, 'epoch')}"
    if isinstance(summary.get("seconds"), int | float):
        sentence += f", in {_duration(float(summary['seconds']))}"
    if summary.get("device"):
        sentence += f" on {summary['device']}"
    return sentence + ", without any label."


def _epochs(run: RunContents) -> tuple[int, int | None]:
    """How many epochs were trained, and how many are wanted, if that is known."""
    wanted = run.summary.get("epochs") or _section(run.recipe, "optim").get("epochs")
    wanted = wanted if isinstance(wanted, int) else None
    if wanted is not None and "seconds" in run.summary:  # which is told at the end alone
        return wanted, wanted
    return 0 if run.training is None else run.training["epoch"].nunique(), wanted


def _duration(seconds: float) -> str:
    """A time in words.

    >>> _duration(42.0), _duration(200.0), _duration(9000.0)
    ('42 s', '3 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _comparisons(runs: Sequence[RunContents], others: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Evaluations of one label, protocol, positive class and folds in one table each."""
    grouped: dict[Any, list[tuple[str, Evaluation]]] = {}
    named = [(str(other.folder), other) for other in others]
    for run in reversed(runs):
        for evaluation in reversed(run.evaluations):
            name = [run.name] if len(runs) > 1 else []
            if len(run.evaluations) > 1:
                name.append(_place(evaluation, run))
            named.insert(0, (" · ".join(name), evaluation))
    for row, evaluation in named:
        alike = [str(evaluation.metrics.get(fact)) for fact in ("positive", "seed")]
        key = (evaluation.title, *alike, len(evaluation.metrics["folds"]))
        grouped.setdefault(key, []).append((row, evaluation))
    return [_comparison(key[0], members) for key, members in grouped.items()]


def _place(result: Evaluation | Reconstruction, run: RunContents) -> str:
    """Where a result lies, from the run on if it is there."""
    inside = result.folder.is_relative_to(run.path)
    return str(result.folder.relative_to(run.path) if inside else result.folder)


def _comparison(title: str, members: Sequence[tuple[str, Evaluation]]) -> dict[str, Any]:
    metric = leading_metric(members[0][1].metrics)
    rows = [(name, row) for name, evaluation in members for row in summary_rows(evaluation.metrics)]
    values = [float(fold[metric]) for _, row in rows for fold in row.folds]
    chance = _chance(members[0][1].metrics, metric)
    low = _tenth_below(min([*values, *([chance] if chance is not None else [])]))
    best = max(row.mean[metric] for _, row in rows)
    results = [
        _Result(
            run=name,
            row=row,
            cells=[row.text(m) for m in METRICS],
            best=row.mean[metric] == best,
            strip=figures.strip(
                [fold[metric] for fold in row.folds],
                row.mean[metric],
                row.std[metric],
                low=low,
                high=1.0,
                chance=chance,
                style=STYLES[row.key].split()[0],
            ),
        )
        for name, row in rows
    ]
    first = members[0][1].metrics
    return {
        "title": title,
        "metric": "AUC" if metric == "auc" else metric,
        "column": METRICS.index(metric),
        "folds": len(members[0][1].metrics["folds"]),
        "results": results,
        "verdicts": [(name, verdict(e.metrics)) for name, e in members],
        "setting": _setting(first),
        "low": f"{low:g}",
        "chance": None if chance is None else f"{chance:.2f}",
        "uncontrolled": [name for name, e in members if not (e.metrics.get("controls") or {})],
    }


def _tenth_below(value: float) -> float:
    """The next tenth below, so that strips of one table share a round start.

    >>> _tenth_below(0.47), _tenth_below(0.0)
    (0.4, 0.0)
    """
    return max(0.0, math.floor(value * 10 - 1e-9) / 10)


def _chance(metrics: Mapping[str, Any], metric: str) -> float | None:
    """What guessing reaches: half the AUC's range, or the share of the largest class."""
    if metric == "auc":
        return 0.5
    members = metrics.get("members")
    if not isinstance(members, dict) or not members:
        return None
    return max(members.values()) / sum(members.values())


def _setting(metrics: Mapping[str, Any]) -> str:
    """How it was measured, in one line."""
    members = metrics.get("members") or {}
    classes = metrics.get("classes") or []
    told = [told_persons(metrics)] if isinstance(metrics.get("n"), int) else []
    if told and members:
        told[0] += f" ({', '.join(f'{count:,} {name}' for name, count in members.items())})"
    elif told and classes:
        told[0] += f" in {len(classes)} classes"
    folds = len(metrics["folds"])
    sizes = metrics.get("sizes") or []
    if metrics["protocol"] == "linear":
        if sizes:
            told.append(f"trained on {sizes[0]['train']:,}, tested on {sizes[0]['test']:,}")
    elif folds > 1:
        told.append(f"{folds} outer folds, mean ± sample standard deviation over them")
    else:
        told.append("1 outer fold")
    if metrics.get("positive") is not None:
        told.append(f"positive class: {metrics['positive']}")
    left = _section(metrics, "left_out").get("unlabelled")
    if left:
        told.append(f"{left:,} without a label left out")
    return "; ".join(told)


def _run_view(run: RunContents, budget: int) -> dict[str, Any]:
    """Everything that the template says about one run."""
    path = shlex.quote(str(run.path))
    spacing = _section(run.summary, "store").get("spacing")
    reconstructions = [
        _reconstruction_view(
            r,
            _place(r, run),
            spacing if isinstance(spacing, list) else None,
            _directed(run),
            budget,
        )
        for r in run.reconstructions
    ]
    return {
        "name": run.name,
        "method": _method(run),
        "sentence": _what_was_trained(run),
        "tiles": _tiles(run),
        "facts": _facts(run),
        "directed": _directed(run),
        "prepared": None if run.prepared is None else _picture(run.prepared),
        "losses": _loss_figures(run),
        "evaluations": [_evaluation_view(e, _place(e, run)) for e in run.evaluations],
        "reconstructions": reconstructions,
        "recipe": run.recipe_text,
        "broken": [*run.broken, *(line for r in reconstructions for line in r["broken"])],
        "commands": {
            "embed": f"vitaepp embed {path} STORE {path}/embeddings.parquet",
            "evaluate": f"vitaepp evaluate {path}/embeddings.parquet --label COLUMN "
            f"--out {path}/evaluation",
            "reconstruct": f"vitaepp reconstruct {path} STORE {path}/reconstruction",
            "inspect": f"vitaepp inspect STORE --pictures {path}/prepared.png --subjects {OF_RUN}",
            "pretrain": f"vitaepp pretrain STORE {path} --resume",
        },
    }


def _tiles(run: RunContents) -> list[dict[str, str]]:
    """The result, large, with its controls beside it: of the run's first evaluation."""
    if not run.evaluations:
        return []
    metrics = run.evaluations[0].metrics
    metric = leading_metric(metrics)
    label = "AUC" if metric == "auc" else metric
    return [
        {
            "name": row.name,
            "style": STYLES[row.key].split()[0],
            "value": f"{row.mean[metric]:.3f}",
            "std": "" if row.std[metric] is None else f"± {row.std[metric]:.3f}",
            "metric": f"{label}, {metrics['label']}",
        }
        for row in summary_rows(metrics)
    ]


def _facts(run: RunContents) -> list[tuple[str, str]]:
    """What is known of the training, as a short list."""
    summary, store = run.summary, _section(run.summary, "store")
    model = _section(run.recipe, "model")
    parameters = _section(summary, "parameters")
    facts: list[tuple[str, str]] = []

    def add(name: str, value: Any) -> None:
        if value not in (None, "", [], {}):
            facts.append((name, str(value)))

    add("Subjects in the store", store.get("subjects"))
    add("Trained on", summary.get("trained_on"))
    add("Modalities", ", ".join(str(m) for m in store.get("modalities") or []))
    add("Size", " × ".join(str(n) for n in store.get("size") or []))
    spacing = " × ".join(f"{s:g}" for s in store.get("spacing") or [])
    add("Spacing", f"{spacing} {store.get('unit') or 'mm'}" if spacing else None)
    add("Patch", " × ".join(str(n) for n in model.get("patch_size") or []))
    ratio = model.get("mask_ratio")
    add("Patches hidden", f"{ratio:.0%}" if isinstance(ratio, int | float) else None)
    for part in ("encoder", "decoder"):
        count = parameters.get(part)
        add(f"Parameters, {part}", f"{count:,}" if isinstance(count, int) else None)
    done, wanted = _epochs(run)
    if wanted is not None:
        add("Epochs", f"{wanted:,}" if done >= wanted else f"{done:,} of {wanted:,}")
    add("Steps", summary.get("steps"))
    seconds = summary.get("seconds")
    add("Time", _duration(float(seconds)) if isinstance(seconds, int | float) else None)
    add("Device", summary.get("device"))
    add("Precision", summary.get("precision"))
    versions = _section(summary, "versions")
    add("Versions", ", ".join(f"{name} {version}" for name, version in versions.items()))
    return facts


def _loss_figures(run: RunContents) -> list[_Figure]:
    """The total, the weighted terms together, and every term raw."""
    table = run.training
    if table is None or table.empty:
        return []
    epochs = table["epoch"].to_numpy(np.float64)
    made: list[_Figure] = []

    def values(column: str) -> Any:
        return table[column].to_numpy(np.float64)

    def add(title: str, columns: Mapping[str, str], note: str = "", linear: bool = False) -> None:
        """One figure of the columns that are there; of several, signs are kept on a log scale."""
        there = {c: s for c, s in columns.items() if c in table and table[c].notna().any()}
        if not there:
            return
        every = np.concatenate([values(c) for c in there])
        scale: figures.Scale = "linear" if linear else figures.choose_scale(every)
        if scale == "symlog" and len(there) == 1:
            scale = "linear"
        lines = [figures.Line(epochs, values(c), style) for c, style in there.items()]
        svg = figures.line_chart(lines, name=f"{title} over epochs", scale=scale)
        legend = [(s, c.partition("/")[2]) for c, s in there.items()] if len(there) > 1 else []
        how = {"linear": "", "log": "log scale", "symlog": "symmetric log scale"}[scale]
        made.append(_Figure(title, "; ".join(t for t in (note, how) if t), svg, legend))

    colour = {term: f"s{i}" for i, term in enumerate(_TERMS)}
    add("Total loss", {"loss": "s7"})
    add("Weighted terms", {f"weighted/{t}": colour[t] for t in _TERMS}, "they add up to the total")
    for term in _TERMS:
        add(f"{_TERM_NAMES[term]}, raw", {f"loss/{term}": colour[term]})
    add("Spread of features", {"feature_spread": "s4"}, "near 0 the features have collapsed", True)
    add("Learning rate", {"lr": "s5"}, linear=True)
    return made


def _evaluation_view(evaluation: Evaluation, place: str) -> dict[str, Any]:
    metrics = evaluation.metrics
    classes = [str(c) for c in metrics.get("classes") or []]
    return {
        "title": f"{evaluation.title} · {place}",
        "whose": whose(evaluation),
        "roc": _roc_figure(evaluation, classes),
        "map": _map_figure(evaluation, classes),
        "chosen": ", ".join(f"{c:.3g}" for c in metrics.get("C") or []),
    }


def _roc_figure(evaluation: Evaluation, classes: Sequence[str]) -> _Figure | None:
    predictions = evaluation.predictions
    if predictions is None or len(classes) < 2 or not {"fold", "label"} <= set(predictions):
        return None
    curves: list[figures.Line] = []
    means: list[figures.Line] = []
    legend = []
    for row in summary_rows(evaluation.metrics):
        columns = score_columns(row.key, list(classes))
        if not set(columns) <= set(predictions):
            continue
        grid, folds = figures.mean_roc(predictions, columns, classes)
        if not folds:
            continue
        if row.key == "method" and len(folds) > 1:
            curves += [figures.Line(grid, fold, "s0 thin") for fold in folds]
        means.append(figures.Line(grid, np.mean(folds, axis=0), STYLES[row.key]))
        legend.append((STYLES[row.key], f"{row.name}, AUC {row.text('auc')}"))
    if not means:
        return None
    svg = figures.roc_chart([*curves, *reversed(means)], name=f"ROC of {evaluation.title}")
    note = "mean of the folds; thin lines are the folds" if curves else "on the test split"
    if len(classes) > 2:
        note += "; one class against the rest, averaged"
    return _Figure("ROC", note, svg, legend)


def _map_figure(evaluation: Evaluation, classes: Sequence[str]) -> _Figure | None:
    points = evaluation.points
    if points is None or points.empty:
        return None
    names = list(classes) or sorted(set(points["label"]))
    svg = figures.scatter(points, names, name=f"Map of the embedding by {evaluation.title}")
    how = str(evaluation.metrics.get("map") or "two dimensions")
    legend = [(f"s{i % figures.COLOURS}", name) for i, name in enumerate(names)]
    return _Figure("Map of the embedding", how, svg, legend)


def _picture(picture: Image.Image) -> tuple[str, int, int]:
    """A picture as a data URI, with its width and height in pixels."""
    return data_uri(webp(picture), "webp"), picture.width, picture.height


def _reconstruction_view(
    found: Reconstruction, place: str, spacing: list[Any] | None, directed: bool, budget: int
) -> dict[str, Any]:
    made, broken = sheets(found.volumes, spacing, directed, budget)
    panels: list[tuple[str, str]] = []
    spent = sum(len(sheet.source) for sheet in made)
    for subject, file in list(found.panels.items())[:MOST_IMAGES] if not made else []:
        content = file.read_bytes()
        if panels and spent + len(content) > budget:
            break
        spent += len(content)
        panels.append((subject, data_uri(content, "png")))
    scores = {}
    for name, digits, unit in (("psnr", 2, " dB"), ("ssim", 3, "")):
        told = mean_and_spread(found.metrics[name], digits)
        if told:
            scores[name.upper()] = told + unit
    rows = [
        (
            str(subject),
            mean_and_spread([psnr], 2) or "–",
            mean_and_spread([ssim], 3) or "–",
        )
        for subject, psnr, ssim in found.metrics.head(200)[["subject", "psnr", "ssim"]].to_numpy()
    ]
    by_subject: dict[str, list[Any]] = {}
    for sheet in made:
        by_subject.setdefault(sheet.subject, []).append(sheet)
    return {
        "place": place,
        "whose": whose(found),
        "scores": scores,
        "n": len(found.metrics),
        "rows": rows,
        "volumes": {s: x for s, x in by_subject.items() if x[0].slices > 1},
        "images": {s: x for s, x in by_subject.items() if x[0].slices == 1},
        "panels": panels,
        "shown": len(by_subject) or len(panels),
        "available": len(found.volumes) + len(found.panels),
        "broken": [f"{place}/{line}" for line in broken],
    }
