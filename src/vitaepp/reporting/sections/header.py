"""The head of the page: its title, a sentence on each run, and the result in large figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vitaepp.evaluation.measures import leading_metric
from vitaepp.evaluation.result import Evaluation as Measured
from vitaepp.evaluation.standing import Standing, standing
from vitaepp.evaluation.summary import display_name, rows_over_draws
from vitaepp.presentation.names import metric_name
from vitaepp.presentation.numbers import duration
from vitaepp.recipe.methods import METHODS
from vitaepp.reporting.contents import RunContents
from vitaepp.system.progress import counted
from vitaepp.system.text import dimensions

#: Series of the embedding and its controls, in all figures of the page.
SERIES = {"method": 0, "untrained": 1, "raw": 2, "scratch": 3, "mean": 4}

#: With fewer steps, or a lower learning rate, hardly anything is learned (docs/method.md).
ENOUGH_STEPS, LOW_RATE = 10_000, 1e-4


def title(runs: Sequence[RunContents]) -> str:
    """What the page is about."""
    if len(runs) > 1:
        return f"{len(runs)} runs compared"
    return method(runs[0]) + _on_subjects(runs[0])


def method(run: RunContents) -> str:
    """What the run's method is called in print."""
    if run.settings is not None:
        return run.settings.name
    return display_name(run.recipe | run.summary)


def sentence(run: RunContents) -> str:
    """What was trained on what, as far as the run says."""
    done, wanted = run.epochs
    unfinished = wanted is not None and done < wanted
    seconds, device = run.summary.get("seconds"), run.summary.get("device")
    parts = [
        f"{method(run)}{_encoder(run)} {'has been' if unfinished else 'was'} trained",
        _on_subjects(run),
        _images(run),
    ]
    if unfinished and wanted is not None:
        parts.append(f" for {done:,} of {counted(wanted, 'epoch')} so far")
    elif wanted is not None:
        parts.append(f" for {counted(wanted, 'epoch')}")
    parts.append(f", in {duration(float(seconds))}" if isinstance(seconds, int | float) else "")
    parts.append(f" on {device}" if device else "")
    return "".join(parts) + ", without any label."


def _on_subjects(run: RunContents) -> str:
    count = run.summary.get("trained_on") or run.store.get("subjects")
    if not isinstance(count, int | float) or not count:
        return ""
    return f" on {counted(int(count), 'subject')}"


def _encoder(run: RunContents) -> str:
    """The encoder's size and parameters."""
    model, text = run.section("model"), ""
    size = model.get("size")
    if model.get("backbone", "vit") == "vit" and size:
        own_shape = any(model.get(name) for name in ("embed_dim", "depth", "num_heads"))
        text = f" with a ViT{'' if own_shape else f'-{str(size).capitalize()}'} encoder"
    parameters = run.parameters.get("encoder")
    if isinstance(parameters, int | float):
        text += f" ({parameters / 1e6:.1f} million parameters)"
    return text


def _images(run: RunContents) -> str:
    """Modalities, size and spacing of the images, in parentheses."""
    size, spacing, details = run.store.get("size"), run.store.get("spacing"), []
    if run.modalities:
        details.append(", ".join(run.modalities))
    if isinstance(size, list):
        text = f"{dimensions(size)} {'voxels' if len(size) == 3 else 'pixels'}"
        if isinstance(spacing, list):
            same = len(set(spacing)) == 1
            text += f" of {dimensions(spacing[:1] if same else spacing)} {run.unit}"
        details.append(text)
    return f" ({'; '.join(details)})" if details else ""


def standing_of(run: RunContents) -> Standing | None:
    """Where the run's encoder stands among its controls, by its first evaluation."""
    if not run.evaluations:
        return None
    first = run.evaluations[0]
    return standing(Measured(first.metrics, first.predictions))


def advice(run: RunContents, standing: Standing | None) -> str:
    """What to try where it is not shown that the encoder beats its controls; else empty."""
    if standing is None or standing.beats_all:
        return ""
    tries = list(_tries(run))
    if any(rival.key == "raw" for rival in standing.beaten_by):
        tries.append(
            "or take raw intensities for this label: a linear classifier on them needs no encoder"
        )
    if standing.draws == 1 and any(
        r.difference and r.difference.folds > 1 for r in standing.rivals
    ):
        tries.append(
            "ten draws of the folds (--repeats 10 of evaluate), which take the luck of one out and "
            "show smaller leads"
        )
    if not tries:
        tries.append("more scans, more hours, or another label")
    return f"What to try: {'; '.join(tries)}."


def _tries(run: RunContents) -> Iterator[str]:
    steps = run.summary.get("steps")
    if isinstance(steps, int) and steps < ENOUGH_STEPS:
        yield (
            f"a longer training, as this one made {counted(steps, 'step')} (with hours given, "
            "pretrain uses the time that there is)"
        )
    if (recipe := run.settings) is None:
        return
    optim, first = recipe.optim, recipe.views.first
    rate = optim.lr or optim.base_lr * optim.batch_size * optim.accumulate / 256
    if rate < LOW_RATE:
        yield f"a higher learning rate than {rate:.2g}, such as optim.lr=1e-3"
    if METHODS[recipe.method].masked and first.crop[0] == 1 and "size" not in recipe.views.keep:
        yield "random crops of what is reconstructed (views.first.crop=0.4)"
    if not recipe.views.keep:
        yield "views.keep=size,side, if the label may be how large something is, or its side"


def tiles(run: RunContents) -> list[dict[str, object]]:
    """The leading metric of the run's first evaluation, beside that of its controls.

    Where the folds were drawn several times, it is the mean over all, as in the first sentence.
    """
    if not run.evaluations:
        return []
    metrics = run.evaluations[0].metrics
    metric, over = leading_metric(metrics), ""
    rows = rows_over_draws(metrics)
    if draws := metrics.get("repeats"):
        over = f", {draws['number']} draws of the folds"
    return [
        {
            "name": row.name,
            "series": SERIES[row.key],
            "value": row.text(metric).partition(" ")[0],
            "std": row.text(metric).partition(" ")[2],
            "metric": f"{metric_name(metric)}, {metrics['label']}{over}",
        }
        for row in rows
    ]
