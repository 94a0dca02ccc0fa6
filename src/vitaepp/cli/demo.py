"""The demo: the whole workflow on phantom scans, by the commands that real scans go through."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitaepp.datasets.phantom import write_phantoms
from vitaepp.encoder.embed import embed
from vitaepp.evaluation.evaluation import evaluate
from vitaepp.evaluation.reconstruction import reconstruct
from vitaepp.evaluation.summary import summary_table
from vitaepp.ingest.prepare import prepare
from vitaepp.recipe.recipe import Recipe
from vitaepp.reporting.report import report
from vitaepp.system.progress import say
from vitaepp.training.pretrain import pretrain

SUBJECTS = 48


def demo(
    out: str | os.PathLike[str] = "demo",
    *,
    subjects: int = SUBJECTS,
    show: Callable[[str], None] = print,
) -> Path:
    """Make a phantom cohort, take it from raw files to a report, and print the table.

    Each step is the function of a command, and is named by that command, so that it can be
    repeated or changed by hand. A demo that was interrupted goes on where it stopped.

    Args:
        out: folder for everything.
        subjects: size of the cohort.
        show: prints the table.

    Returns:
        The report's path.
    """
    folder = Path(out)
    scans, store, run = folder / "scans", folder / "store", folder / "run"
    embeddings, evaluation = run / "embeddings.parquet", run / "evaluation"
    settings = Recipe.load("demo").prepare
    started = time.monotonic()

    say(f"\n{subjects} phantom subjects, four MRI sequences and a tumour mask each: {scans}")
    write_phantoms(scans, subjects=subjects)

    def step(command: str, work: Callable[[], Any]) -> Any:
        say(f"\n$ vitaepp {command}")
        return work()

    step(
        f"prepare {scans} {store} --recipe demo --labels {scans / 'labels.csv'}",
        lambda: prepare(scans, store, settings=settings, labels=scans / "labels.csv"),
    )
    step(
        f"pretrain {store} {run} --recipe demo --resume",
        lambda: pretrain(store, run, recipe="demo", resume=True),
    )
    step(f"embed {run} {store} {embeddings}", lambda: embed(run, store, embeddings))
    metrics = step(
        f"evaluate {embeddings} --label high_grade --out {evaluation}",
        lambda: evaluate(embeddings, "high_grade", evaluation),
    )
    step(
        f"reconstruct {run} {store} {run / 'reconstruction'} --subjects 6",
        lambda: reconstruct(run, store, run / "reconstruction", subjects=6),
    )
    page: Path = step(
        f"report {run} --out {folder / 'report.html'}",
        lambda: report([run], folder / "report.html"),
    )
    show(f"\nLow against high grade, {subjects} phantoms, by a linear SVM on frozen features:\n")
    show(summary_table(metrics))
    show(f"\n{time.monotonic() - started:.0f} s. Open {page} in a browser.")
    return page
