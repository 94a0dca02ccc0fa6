"""The demo: the whole workflow on phantom scans, by the commands that real scans go through."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vitaepp.datasets.phantom import write_phantoms
from vitaepp.encoder.embed import embed
from vitaepp.evaluation.evaluation import evaluate
from vitaepp.evaluation.reconstruction import reconstruct
from vitaepp.evaluation.summary import summary_table
from vitaepp.ingest.prepare import prepare
from vitaepp.presentation.blocks import draw
from vitaepp.presentation.planes import planes
from vitaepp.recipe.recipe import Recipe
from vitaepp.reporting.report import report
from vitaepp.system.paths import refuse_as_results
from vitaepp.system.progress import say
from vitaepp.system.signals import repeatable
from vitaepp.training.pretrain import pretrain

SUBJECTS = 48

#: The quick demo: fewer phantoms, and a smaller model that is trained for a shorter time.
QUICK_SUBJECTS = 16
QUICK = ("model.depth=2", "model.decoder_depth=1", "optim.epochs=8")
QUICK_NOTE = (
    f"This is the quick demo: {QUICK_SUBJECTS} phantoms and some seconds of training. It shows how "
    "everything works; its numbers mean nothing. vitaepp demo is the longer one."
)

#: What to type next.
NEXT = """
For your own scans:
  vitaepp prepare my_scans --dry-run                         what it takes your files for
  vitaepp prepare my_scans store --labels labels.csv
  vitaepp pretrain store run --hours 8                       then embed, evaluate, report as above
"""


def demo(
    out: str | os.PathLike[str] = "demo",
    *,
    subjects: int | None = None,
    quick: bool = False,
    show: Callable[[str], None] = print,
) -> Path:
    """Make a phantom cohort, take it from raw files to a report, and print the table.

    Each step is the function of a command, and is named by that command, so that it can be
    repeated or changed by hand. A demo that was interrupted goes on where it stopped.

    At the end stand the table, on a terminal a reconstruction, and what to type for own scans.

    Args:
        out: folder for everything.
        subjects: size of the cohort; 48, or 16 of the quick demo.
        quick: train a smaller model for some seconds; the report says so.
        show: prints what stands at the end.

    Returns:
        The report's path.
    """
    subjects = subjects or (QUICK_SUBJECTS if quick else SUBJECTS)
    changes = QUICK if quick else ()
    folder = Path(out)
    refuse_as_results(folder, "demo")
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
    with repeatable(folder):
        step(
            " ".join(
                [f"pretrain {store} {run} --recipe demo --resume", *(f"--set {c}" for c in changes)]
            ),
            lambda: pretrain(store, run, recipe="demo", settings=changes, resume=True),
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
        lambda: report([run], folder / "report.html", note=QUICK_NOTE if quick else ""),
    )
    show(f"\nLow against high grade, {subjects} phantoms, by a linear SVM on frozen features:\n")
    show(summary_table(metrics))
    show("")
    draw(_slices(run / "reconstruction"))
    if quick:
        show(QUICK_NOTE)
    show(f"{time.monotonic() - started:.0f} s. Open {page} in a browser.")
    show(NEXT)
    return page


def _slices(reconstruction: Path) -> dict[str, Any]:
    """The middle axial slices of a subject's first modality: original, masked, reconstruction.

    They are as bright as the original allows, because terminals show few greys.
    """
    for file in sorted(reconstruction.glob("*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            axial = planes(3, directed=True)[0]
            modality, brightest = str(arrays["channels"][0]), arrays["original"][0].max()
            return {
                f"{modality}, {name}": axial.cut(arrays[name][0]) * (255 / max(brightest, 1))
                for name in ("original", "masked", "reconstruction")
            }
    return {}
