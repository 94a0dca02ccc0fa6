"""The most similar subjects of a cohort, for each of its subjects or for a new scan.

Similarity is the cosine of standardised features. Features as they are have a large part in common,
so that all cosines are near 1, and those with the largest numbers decide. Standardised, each counts
for how it differs from the cohort's mean, in units of its deviation. How far a subject is from the
mean is left out of a cosine; `predict` and `qc` tell it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.embeddings import CONTROLS, Embeddings, control_path
from vitaepp.data.inspection import save_page
from vitaepp.data.storetable import Failure
from vitaepp.downstream.nearest import (
    REFERENCE,
    Cohort,
    Nearest,
    Unit,
    near_duplicates,
    nearest_of,
    standardised,
    unit_vectors,
)
from vitaepp.downstream.neighbour_pages import Pictures
from vitaepp.downstream.queries import new_scans, store_of
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.bootstrap import RESAMPLES, percentiles, resampled_persons
from vitaepp.evaluation.folds import by_subject
from vitaepp.ingest.new_scans import Scan
from vitaepp.presentation.notebook import Tabular
from vitaepp.system.files import write_json, write_text
from vitaepp.system.paths import refuse_as_results
from vitaepp.system.progress import counted, say
from vitaepp.system.results import ResultFiles
from vitaepp.system.text import evenly
from vitaepp.system.urls import Location

#: Neighbours among which the share of the same label is measured.
AT = (1, 5, 10)

#: Queries on the page: of the cohort's own, and of new scans.
SHOWN, SHOWN_NEW = 12, 100

#: What `neighbours` writes.
FILES = ResultFiles(
    "neighbours",
    {
        "neighbours.json": ("queries", "k"),
        "neighbours.csv": ("query", "rank", "similarity", "(subject|label|same_participant)?"),
        "near_duplicates.csv": (
            *("subject", "other", "similarity", "(expected|same_participant|correlation)?"),
        ),
    },
    last=("neighbours.json",),
    unsigned=("neighbours.png", "near_duplicates.png"),
)


@dataclass(frozen=True, eq=False)
class Neighbours(Tabular):
    """The most similar subjects of each query.

    Attributes:
        table: a row a neighbour, as in neighbours.csv: `query`, `rank` from 1, `subject`,
            `similarity` in [-1, 1], `label` of the subject (empty without one), and
            `same_participant`.
        metrics: as in neighbours.json.
        duplicates: a row a pair, as in near_duplicates.csv.
        failures: queries that could not be read, each with its reason.
    """

    table: pd.DataFrame
    metrics: Mapping[str, Any]
    duplicates: pd.DataFrame
    failures: tuple[Failure, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """The table: a row a neighbour."""
        return self.table

    def __str__(self) -> str:
        lines = []
        if self.metrics["new"]:
            for query, rows in self.table.groupby("query", sort=False):
                shown = []
                for row in rows.head(3).itertuples():
                    label = f", {row.label!s}" if row.label else ""
                    shown.append(f"{row.subject!s} ({row.similarity:.2f}{label})")
                lines.append(f"{query!s}: {', '.join(shown)}")
        else:
            lines.append(
                f"{counted(self.metrics['queries'], 'subject')}: the "
                f"{counted(int(self.table['rank'].max()), 'nearest other')} of each"
            )
        for k, precision in self.metrics.get("precision", {}).items():
            beside = [f"chance {precision['chance']:.3f}"]
            for name, control in self.metrics["controls"].items():
                beside.append(f"{name} {control['precision'][k]['value']:.3f}")
            interval = f"{precision['low']:.3f} … {precision['high']:.3f}"
            lines.append(
                f"precision at {k}: {precision['value']:.3f} ({interval}); {', '.join(beside)}"
            )
        pairs = counted(len(self.duplicates), "pair")
        lines.append(f"near-duplicates: {pairs if len(self.duplicates) else 'none'}")
        return "\n".join(lines)


def neighbours(
    embeddings: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    query: Scan | Sequence[Scan] | None = None,
    label: str | None = None,
    k: int = 10,
    store: Location | None = None,
    run: str | os.PathLike[str] | None = None,
    subjects: int = SHOWN,
    labels: str | os.PathLike[str] | None = None,
    id_column: str | None = None,
    seed: int = 0,
    device: str | None = None,
) -> Neighbours:
    """Find the most similar subjects of a cohort, for each of its subjects or for new scans.

    Writes `neighbours.csv` (`query, rank, subject, similarity, label, same_participant`),
    `neighbours.json`, `near_duplicates.csv`, and where the store is found `neighbours.png` and, if
    there are any, `near_duplicates.png`.

    Args:
        embeddings: what `vitaepp embed` wrote.
        out: folder for the results.
        query: new scans, as in `predict`. They are prepared and embedded like those of the cohort,
            by the encoder of the run beside the embeddings. Unset: each subject of the cohort.
        label: column of classes to measure how often neighbours have the label of the query.
        k: neighbours of each query.
        store: with the images of the cohort, to show them. Unset: it is looked for beside the
            embeddings, and recognised by its images.
        run: run or encoder folder that made the embeddings. Unset: it is looked for as well.
        subjects: of the cohort, how many the page shows, evenly spread.
        labels: as in `evaluate`.
        id_column: as in `evaluate`.
        seed: of the resamples.
        device: where to embed new scans.

    Returns:
        What was written.

    Raises:
        EvaluationError: embeddings or label do not allow it.
        SourceError: scans are of another kind than the cohort's, or none can be read.
        RunError: the encoder of the embeddings is not found.
        StoreError: there is no such store.

    Source:
        Near-duplicates: the ratio of distances to two neighbours of a point, of which the
        distribution is known (Facco et al. 2017 for the nearest two; Denti et al. 2022 for any).
    """
    path, target = Path(embeddings), Path(out)
    refuse_as_results(target, "neighbours")
    FILES.check(target, inputs=(path, labels))
    if k < 1 or subjects < 1:
        raise EvaluationError(f"`k={k}`, `subjects={subjects}`: give at least 1")
    embedded = Embeddings.load(path)
    if len(embedded) < 2:
        raise EvaluationError(f"{path}: holds {counted(len(embedded), 'subject')}; two are needed")
    cohort = Cohort.of(path, embedded, label, labels, id_column)
    opened = store_of(embedded, path, store)
    new = new_scans(embedded, path, query, run, device) if query is not None else None
    nearest = cohort.nearest(None if new is None else new.features, max(k, REFERENCE))
    names = cohort.subjects if new is None else np.array(new.names, dtype=object)
    around = nearest if new is None else cohort.nearest(None, REFERENCE)
    duplicates = near_duplicates(cohort, nearest, around, names, new is None)
    table = _table(cohort, nearest, names, k, new is None)
    metrics: dict[str, Any] = {
        "encoder": embedded.provenance.get("encoder"),
        "store": embedded.provenance.get("store"),
        "n": len(embedded),
        "features": embedded.features.shape[1],
        "similarity": "cosine of standardised features",
        "new": new is not None,
        "queries": len(names),
        "k": int(table["rank"].max()),
        "near_duplicates": len(duplicates),
        "seed": seed,
    }
    if new is not None:
        metrics["notes"] = {
            n: list(own) for n, own in zip(new.names, new.notes, strict=True) if own
        }
    if cohort.labels is not None:
        metrics |= _precision(cohort, path, seed)
    with FILES.written(target) as staged:
        if opened is not None:
            pictures = Pictures(opened, new)
            if len(duplicates):
                duplicates["correlation"] = [
                    pictures.correlation(a, b, new is not None)
                    for a, b in zip(duplicates["subject"], duplicates["other"], strict=True)
                ]
                save_page(pictures.pairs(duplicates), staged / "near_duplicates.png")
            shown = names[evenly(len(names), subjects if new is None else SHOWN_NEW)].tolist()
            save_page(pictures.page(table, shown, cohort), staged / "neighbours.png")
        write_text(staged / "near_duplicates.csv", duplicates.to_csv(index=False))
        write_text(staged / "neighbours.csv", table.to_csv(index=False))
        write_json(staged / "neighbours.json", metrics)
    return Neighbours(table, metrics, duplicates, () if new is None else new.failures)


def _table(
    cohort: Cohort, nearest: Nearest, names: npt.NDArray[Any], k: int, of_cohort: bool
) -> pd.DataFrame:
    rows = nearest.rows[:, :k]
    count, kept = rows.shape
    own = np.repeat(cohort.persons[:count], kept) if of_cohort else -1
    values = np.array(cohort.values, dtype=object)
    return pd.DataFrame(
        {
            "query": np.repeat(names, kept),
            "rank": np.tile(np.arange(1, kept + 1), count),
            "subject": cohort.subjects[rows.ravel()],
            "similarity": nearest.similarity[:, :k].ravel().round(6),
            "label": values[rows.ravel()],
            "same_participant": cohort.persons[rows.ravel()] == own,
        }
    )


def _precision(cohort: Cohort, path: Path, seed: int) -> dict[str, Any]:
    """How often neighbours have the label of the query, and the same of the controls."""
    labels = cohort.labels
    assert labels is not None
    rows, codes, persons = labels.rows, labels.codes, cohort.persons[labels.rows]
    others = int((len(rows) - np.bincount(persons)[persons]).min())
    at = [k for k in AT if k <= others]
    if not at:
        raise EvaluationError(
            f"label {labels.name!r}: all labelled subjects are of one participant; precision needs "
            "two or more"
        )
    if len(at) < len(AT):
        say(
            f"label {labels.name!r}: {counted(others, 'labelled subject')} of other participants "
            f"at least; precision is measured at {', '.join(map(str, at))}"
        )
    # The share of a query's label among those that may be its neighbours.
    pairs = pd.Series(1, index=pd.MultiIndex.from_arrays([persons, codes]))
    own = pairs.groupby(level=[0, 1]).transform("sum").to_numpy()
    members = np.bincount(codes)
    chance = (members[codes] - own) / (len(rows) - np.bincount(persons)[persons])

    def of(unit: Unit) -> dict[str, Any]:
        nearest = nearest_of(unit[rows], unit[rows], at[-1], persons)
        right = codes[nearest.rows] == codes[:, None]
        shares = np.stack([right[:, :k].mean(axis=1) for k in at], axis=1)
        drawn = [
            weights @ shares / weights.sum(axis=1, keepdims=True)
            for weights in resampled_persons(np.zeros(len(rows), np.intp), persons, RESAMPLES, seed)
        ]
        result = {}
        for k, values, resampled in zip(at, shares.T, np.concatenate(drawn).T, strict=True):
            ends = percentiles(resampled)
            result[str(k)] = {
                "value": float(values.mean()),
                "low": ends.low,
                "high": ends.high,
                "chance": float(chance.mean()),
            }
        return result

    controls = {}
    for name, title in CONTROLS.items():
        file = control_path(path, name)
        if file.is_file():
            control = _control(file, cohort, centred_only=name == "raw")
            if control is not None:
                controls[name] = {"what": title, "precision": of(control)}
    return {
        "label": labels.name,
        "labelled": len(rows),
        "members": {str(c): int(n) for c, n in zip(labels.classes, members, strict=True)},
        "participants": len(np.unique(persons)),
        "precision": of(cohort.unit),
        "controls": controls,
        "interval": "95 %, percentile bootstrap over the participants of the queries",
    }


def _control(file: Path, cohort: Cohort, centred_only: bool) -> Unit | None:
    """Unit vectors of a control in the order of the cohort; None where it is of others.

    Raw intensities are kept as coordinates of turned images, which may be centred, but not scaled
    one by one.
    """
    control = Embeddings.load(file)
    ordered = by_subject(control.table, f"{file}: ")
    if list(ordered["subject"]) != list(cohort.table["subject"]):
        say(f"{file}: holds other subjects than the embeddings; it is left out")
        return None
    features = control.features[ordered.index.to_numpy()]
    if centred_only:
        values = features.astype(np.float64)
        return unit_vectors(values - values.mean(axis=0))
    return standardised(features)[2]
