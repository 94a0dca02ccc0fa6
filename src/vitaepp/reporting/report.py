"""The report: one HTML file that opens offline, made from what run folders hold.

Everything is inside the file: styles, script, figures as SVG, images as data URIs. A content
security policy forbids the browser to fetch anything. Nothing in it depends on when or where it
was made, so that the same runs give the same bytes.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from vitaepp.data.inspection import OF_RUN
from vitaepp.errors import RunError
from vitaepp.presentation.charts import Figure
from vitaepp.presentation.drawing import PAPER, SERIES, css, data_uri
from vitaepp.reporting.contents import Evaluation, Reconstruction, RunContents
from vitaepp.reporting.flow import flow
from vitaepp.reporting.images import BUDGET, webp
from vitaepp.reporting.reading import read_evaluation, read_reconstruction, read_run
from vitaepp.reporting.sections import header, training
from vitaepp.reporting.sections.evaluation import evaluation
from vitaepp.reporting.sections.explanation import explanation
from vitaepp.reporting.sections.reconstruction import reconstruction
from vitaepp.reporting.sections.results import comparisons
from vitaepp.system.extras import require
from vitaepp.system.files import write_text
from vitaepp.system.paths import unique_names

Found = TypeVar("Found", Evaluation, Reconstruction)


def report(
    runs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    out: str | os.PathLike[str] = "report.html",
    *,
    evaluations: Sequence[str | os.PathLike[str]] = (),
    reconstructions: Sequence[str | os.PathLike[str]] = (),
    note: str = "",
) -> Path:
    """Write a report on one run, or on several side by side.

    Shows every evaluation, reconstruction and explanation that lies in a run and was made with its
    weights. The report names what a run lacks, with the command that makes it, and what was made
    with other weights and is therefore not shown.

    Args:
        runs: a run folder, or several.
        out: the HTML file; it appears whole or not at all.
        evaluations: folders of others; those of one of these runs are shown with it, and the rest
            by themselves.
        reconstructions: likewise.
        note: a sentence below the title, such as what the runs are for.

    Returns:
        The path of the report.

    Raises:
        RunError: a folder is not a run, or holds no such result; or `out` is a folder.
    """
    require("jinja2", "report", "a report needs")
    paths = [Path(run) for run in ([runs] if isinstance(runs, str | os.PathLike) else runs)]
    if not paths:
        raise RunError("no run to report on; give one or more run folders")
    out = Path(out)
    if out.is_file() and out.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"{out}: is a file that is no page; `out` is an HTML file, as report.html")
    if out.is_dir():
        raise RunError(f"{out}: is a folder; `out` is an HTML file, as {out}/report.html")
    contents = [read_run(path, name) for path, name in zip(paths, unique_names(paths), strict=True)]
    evaluated: list[Evaluation] = []
    reconstructed: list[Reconstruction] = []
    for one in map(read_evaluation, evaluations):
        _add(one, next((run.evaluations for run in contents if run.owns(one)), evaluated))
    for other in map(read_reconstruction, reconstructions):
        own = (run.reconstructions for run in contents if run.owns(other))
        _add(other, next(own, reconstructed))
    shown = len(reconstructed) + sum(
        len(run.reconstructions) + len(run.explanations) for run in contents
    )
    budget = BUDGET // max(shown, 1)
    page = _render(
        title=header.title(contents),
        note=note,
        runs=[_run(run, budget) for run in contents],
        comparisons=comparisons(contents, evaluated),
        others={
            "evaluations": [evaluation(e, str(e.folder)) for e in evaluated],
            "reconstructions": [
                # Which way its axes run is not known; without marks nobody is misled.
                reconstruction(r, str(r.folder), None, False, budget)
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


def _render(**values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vitaepp.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    looks = {"series": SERIES, "paper": PAPER, "figures_css": css()}
    return environment.get_template("page.html.j2").render(**values, **looks)


def _run(run: RunContents, budget: int) -> dict[str, Any]:
    """Everything that the page says about one run."""
    spacing = run.store.get("spacing")
    looks = (spacing if isinstance(spacing, list) else None, run.directed, budget)
    reconstructions = [reconstruction(r, run.location_of(r), *looks) for r in run.reconstructions]
    explanations = [explanation(e, run.location_of(e), *looks) for e in run.explanations]
    picture, standing = run.prepared, header.standing_of(run)
    return {
        "name": run.name,
        "standing": "" if standing is None else str(standing),
        "advice": header.advice(run, standing),
        "sentence": header.sentence(run),
        "tiles": header.tiles(run),
        "facts": training.facts(run),
        "losses": training.losses(run),
        "directed": run.directed,
        "prepared": picture and (data_uri(webp(picture), "webp"), picture.width, picture.height),
        "flows": _flows(run),
        "extras": run.extras,
        "evaluations": [evaluation(e, run.location_of(e)) for e in run.evaluations],
        "reconstructions": reconstructions,
        "explanations": explanations,
        "recipe": run.recipe_text,
        "broken": [
            *run.broken,
            *(line for r in (*reconstructions, *explanations) for line in r["broken"]),
        ],
        "commands": _commands(shlex.quote(str(run.path))),
    }


def _flows(run: RunContents) -> list[Figure]:
    """The flow of subjects, for each label that was evaluated on other subjects."""
    newest = {(e.metrics["label"], e.metrics.get("n")): e for e in reversed(run.evaluations)}
    flows = [flow(run, e) for e in reversed(newest.values())] or [flow(run, None)]
    return [figure for figure in flows if figure]


def _commands(run: str) -> dict[str, str]:
    """The commands that make what a run lacks."""
    features = f"{run}/embeddings.parquet"
    return {
        "embed": f"vitaepp embed {run} STORE {features}",
        "evaluate": f"vitaepp evaluate {features} --label COLUMN --out {run}/evaluation",
        "reconstruct": f"vitaepp reconstruct {run} STORE {run}/reconstruction",
        "inspect": f"vitaepp inspect STORE --pictures {run}/prepared.png --subjects {OF_RUN}",
        "pretrain": f"vitaepp pretrain STORE {run} --resume",
    }
