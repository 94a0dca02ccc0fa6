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
from PIL import Image

from vitaepp.data.arrays import Floats, Indices
from vitaepp.data.embeddings import CONTROLS, Embeddings, control_path
from vitaepp.data.inspection import Cells, save_page
from vitaepp.data.labels import join_labels, say_missing
from vitaepp.data.participants import Persons, persons_of
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.data.storetable import Failure
from vitaepp.downstream.fit import encoder_of, near
from vitaepp.errors import EvaluationError, SourceError, VitaeppError
from vitaepp.evaluation.bootstrap import RESAMPLES, percentiles, resampled_persons
from vitaepp.evaluation.folds import by_subject
from vitaepp.evaluation.labels import Labels, read_labels
from vitaepp.ingest.new_scans import NewImage, Scan, images_of, say_decisions
from vitaepp.presentation.notebook import Tabular
from vitaepp.presentation.planes import stacked
from vitaepp.system.files import check_writable, make_folder, write_json, write_text
from vitaepp.system.paths import kind_of, refuse_as_results
from vitaepp.system.progress import counted, say, warn
from vitaepp.system.text import evenly
from vitaepp.system.urls import Location

#: Neighbours among which the share of the same label is measured.
AT = (1, 5, 10)

#: A pair is held against the distance of each to its neighbour of this rank.
REFERENCE = 20

#: Near-duplicates are pairs of which so many are expected by chance in the whole cohort.
BY_CHANCE = 0.01

#: Distances of unit vectors below this are rounding: the features are the same.
SAME = 2e-3

#: Rows whose similarities are computed at a time.
ROWS = 512

#: Queries and their neighbours on the page, and the pairs on the page of near-duplicates.
SHOWN, SHOWN_NEW, SHOWN_NEIGHBOURS, SHOWN_PAIRS = 12, 100, 5, 30

Unit = npt.NDArray[np.float32]


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
    if k < 1 or subjects < 1:
        raise EvaluationError(f"`k={k}`, `subjects={subjects}`: give at least 1")
    embedded = Embeddings.load(path)
    if len(embedded) < 2:
        raise EvaluationError(f"{path}: holds {counted(len(embedded), 'subject')}; two are needed")
    check_writable(target / "neighbours.csv")
    cohort = _Cohort.of(path, embedded, label, labels, id_column)
    opened = _store_of(embedded, path, store)
    new = _new_scans(embedded, path, query, run, device) if query is not None else None
    nearest = cohort.nearest(None if new is None else new.features, max(k, REFERENCE))
    names = cohort.subjects if new is None else np.array(new.names, dtype=object)
    around = nearest if new is None else cohort.nearest(None, REFERENCE)
    duplicates = _duplicates(cohort, nearest, around, names, new is None)
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
    make_folder(target)
    for stale in ("neighbours.png", "near_duplicates.png", "neighbours.json"):
        (target / stale).unlink(missing_ok=True)
    if opened is not None:
        pictures = _Pictures(opened, new)
        if len(duplicates):
            duplicates["correlation"] = [
                pictures.correlation(a, b, new is not None)
                for a, b in zip(duplicates["subject"], duplicates["other"], strict=True)
            ]
            save_page(pictures.pairs(duplicates), target / "near_duplicates.png")
        shown = names[evenly(len(names), subjects if new is None else SHOWN_NEW)].tolist()
        save_page(pictures.page(table, shown, cohort), target / "neighbours.png")
    write_text(target / "near_duplicates.csv", duplicates.to_csv(index=False))
    write_text(target / "neighbours.csv", table.to_csv(index=False))
    write_json(target / "neighbours.json", metrics)
    return Neighbours(table, metrics, duplicates, () if new is None else new.failures)


@dataclass(frozen=True, eq=False)
class _Nearest:
    """The nearest subjects of each query, in order: rows of the cohort, and similarities."""

    rows: Indices
    similarity: Floats

    @property
    def distances(self) -> Floats:
        """Between the ends of unit vectors; 0 where features are the same."""
        distances = np.sqrt(np.maximum(2 - 2 * self.similarity, 0))
        return np.where(distances < SAME, 0.0, distances)


@dataclass(frozen=True, eq=False)
class _Cohort:
    """Subjects in the order of their names, their standardised features, persons and labels."""

    table: pd.DataFrame
    mean: Floats
    scale: Floats
    unit: Unit
    persons: Persons
    labels: Labels | None

    @classmethod
    def of(
        cls,
        path: Path,
        embedded: Embeddings,
        label: str | None,
        labels: str | os.PathLike[str] | None,
        id_column: str | None,
    ) -> _Cohort:
        table = embedded.table
        if labels is not None:
            table, without = join_labels(
                table, Path(labels), id_column=id_column, origin="the embeddings", replacing=True
            )
            say_missing(Path(labels).name, without, len(table))
        ordered = by_subject(table, f"{path}: ")
        features = embedded.features[ordered.index.to_numpy()]
        mean, scale, unit = _standardised(features)
        return cls(
            ordered,
            mean,
            scale,
            unit,
            persons_of(ordered),
            None if label is None else read_labels(ordered, label),
        )

    @property
    def subjects(self) -> npt.NDArray[Any]:
        return self.table["subject"].to_numpy(dtype=object)

    @property
    def values(self) -> list[str]:
        """The label of each subject, in print; empty without one."""
        values = [""] * len(self.table)
        if self.labels is not None:
            for row, value in zip(self.labels.rows, self.labels.values, strict=True):
                values[row] = str(value)
        return values

    def nearest(self, features: npt.NDArray[np.float32] | None, most: int) -> _Nearest:
        """The nearest subjects of new features, or of each subject among the others."""
        count = len(self.unit)
        if features is not None:
            unit = _unit((features - self.mean) / self.scale)
            return _nearest(unit, self.unit, min(most, count))
        return _nearest(self.unit, self.unit, min(most, count - 1), np.arange(count))


def _standardised(features: npt.NDArray[np.float32]) -> tuple[Floats, Floats, Unit]:
    """Mean and deviation of features, and the directions of their standardised values.

    A feature that does not vary tells nothing, and is left out by an infinite scale.
    """
    values = features.astype(np.float64)
    mean, variance = values.mean(axis=0), values.var(axis=0)
    least = 1e-6 * float(variance.mean())
    scale = np.where(variance > least, np.sqrt(variance), np.inf)
    return mean, scale, _unit((values - mean) / scale)


def _unit(values: Floats) -> Unit:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def _nearest(queries: Unit, cohort: Unit, most: int, persons: Persons | None = None) -> _Nearest:
    """The `most` subjects of a cohort that are most similar to each query, in order.

    Args:
        queries: `(query, feature)`, unit vectors.
        cohort: `(subject, feature)`, unit vectors.
        most: how many, at most as many as count.
        persons: `(subject,)` where the queries are the cohort; those of the query's own do not
            count.
    """
    rows, similar = [], []
    for start in range(0, len(queries), ROWS):
        part = slice(start, start + ROWS)
        similarity = (queries[part] @ cohort.T).astype(np.float64)
        if persons is not None:
            similarity[persons[part, None] == persons] = -np.inf
        first = np.argpartition(-similarity, most - 1, axis=1)[:, :most]
        first.sort(axis=1)  # of equal ones the first in order of the table
        order = np.argsort(-np.take_along_axis(similarity, first, 1), axis=1, kind="stable")
        rows.append(np.take_along_axis(first, order, 1))
        similar.append(np.clip(np.take_along_axis(similarity, rows[-1], 1), -1, 1))
    return _Nearest(np.concatenate(rows), np.concatenate(similar))


def _table(
    cohort: _Cohort, nearest: _Nearest, names: npt.NDArray[Any], k: int, of_cohort: bool
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


def _precision(cohort: _Cohort, path: Path, seed: int) -> dict[str, Any]:
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
        nearest = _nearest(unit[rows], unit[rows], at[-1], persons)
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


def _control(file: Path, cohort: _Cohort, centred_only: bool) -> Unit | None:
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
        return _unit(values - values.mean(axis=0))
    return _standardised(features)[2]


def _duplicates(
    cohort: _Cohort, nearest: _Nearest, around: _Nearest, names: npt.NDArray[Any], of_cohort: bool
) -> pd.DataFrame:
    """Pairs that are nearer to each other than chance can make any pair of the cohort.

    Around a subject, others lie at random; of its neighbours of rank j and K, the ratio of
    distances to the power of the cohort's dimension is then distributed as Beta(j, K - j). The
    dimension is taken from the ranks K/2 and K, which a few duplicates do not change. A pair is
    listed where, seen from either side, fewer than `BY_CHANCE` of the whole cohort would be
    expected at that ratio; and where the features are the same.
    """
    from scipy.stats import beta

    distances = nearest.distances
    most = min(REFERENCE, distances.shape[1])
    expected = np.where(distances == 0, 0.0, np.inf)[:, :most]
    dimension = _dimension(around.distances[:, :REFERENCE])
    if dimension is not None:
        outer = distances[:, most - 1 : most]
        ranks = np.arange(1, most)
        ratio = distances[:, : most - 1] / np.where(outer > 0, outer, 1.0)
        chance = beta.cdf(ratio**dimension, ranks, most - ranks)
        expected[:, :-1] = np.minimum(expected[:, :-1], chance * len(cohort.unit) * (most - 1))
    pairs: dict[tuple[int, int], list[Any]] = {}
    for i, j in np.argwhere(expected < BY_CHANCE).tolist():
        row = int(nearest.rows[i, j])
        pair = (min(i, row), max(i, row)) if of_cohort else (i, row)
        pairs.setdefault(pair, []).append((float(nearest.similarity[i, j]), float(expected[i, j])))
    lines = []
    for (i, row), seen in pairs.items():
        if of_cohort and len(seen) < 2 and seen[0][1] > 0:
            continue  # the other is as near to many
        same = of_cohort and cohort.persons[i] == cohort.persons[row]
        first = cohort.subjects[i] if of_cohort else names[i]
        lines.append(
            {
                "subject": first,
                "other": cohort.subjects[row],
                "similarity": round(seen[0][0], 6),
                "expected": max(chance for _, chance in seen),
                "same_participant": bool(same),
            }
        )
    columns = ["subject", "other", "similarity", "expected", "same_participant"]
    return pd.DataFrame(lines, columns=columns).sort_values(
        ["similarity", "subject", "other"], ascending=[False, True, True], ignore_index=True
    )


def _dimension(distances: Floats) -> float | None:
    """The dimension of the space in which a cohort seems to lie; None of too few subjects.

    Args:
        distances: `(subject, rank)`, of each to its neighbours, in order.
    """
    from scipy.stats import beta

    most = distances.shape[1]
    half = most // 2
    if half < 3:
        return None
    inner, outer = distances[:, half - 1], distances[:, most - 1]
    there = (inner > 0) & (inner < outer)
    if not there.any():
        return None
    return float(
        np.log(beta.median(half, most - half)) / np.log(np.median(inner[there] / outer[there]))
    )


@dataclass(frozen=True, eq=False)
class _New:
    """New scans: their names, images, what they have of the modalities, and features."""

    names: list[str]
    images: list[npt.NDArray[Any]]
    present: list[list[bool]]
    notes: list[tuple[str, ...]]
    features: npt.NDArray[np.float32]
    failures: tuple[Failure, ...]


def _new_scans(
    embedded: Embeddings,
    path: Path,
    query: Any,
    run: str | os.PathLike[str] | None,
    device: str | None,
) -> _New:
    one = isinstance(query, str | os.PathLike | Mapping | np.ndarray)
    scans = [query] if one else list(query)
    encoder = encoder_of(embedded, path, None if run is None else Path(run))
    prepared = StoreInfo.parse(embedded.provenance["prepared"] | {"masks": None})
    images: list[NewImage] = []
    failures: list[Failure] = []
    for scan in scans:
        if isinstance(scan, str | os.PathLike) and kind_of(scan) == "store":
            raise SourceError(f"{scan}: is a store; give scans, or embed the store")
    named = [(f"scan {i}", scan) for i, scan in enumerate(scans)]
    for _, image in images_of(prepared, named, None, "reading"):
        if isinstance(image, NewImage):
            images.append(image)
        else:
            failures.append(image)
    if not images:
        first = f"{failures[0].subject}: {failures[0].reason}"
        if len(failures) > 1:
            first = f"none of {len(failures)} scans can be read; the first is {first}"
        raise SourceError(first)
    for failure in failures:
        say(f"{failure.subject}: {failure.reason}")
    notes = [image.decisions for image in images]
    say_decisions(notes, len(images))
    features = encoder.embed_images(
        (image.image for image in images),
        modalities=prepared.modalities,
        device=device,
        precision=embedded.provenance["precision"],
    )
    names = [image.subject for image in images]
    names = [
        name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)
    ]
    present = [[m not in image.missing for m in prepared.modalities] for image in images]
    return _New(names, [i.image for i in images], present, notes, features, tuple(failures))


def _store_of(embedded: Embeddings, path: Path, given: Location | None) -> Store | None:
    """The store with the images of embeddings; None where it is not found.

    Raises:
        StoreError: the one that is named is none.
        EvaluationError: it lacks a subject.
    """
    images = embedded.provenance.get("images")
    if given is None:
        name = str(embedded.provenance.get("store") or "")
        for folder in near(path.absolute().parent, name):
            if kind_of(folder) == "store":
                try:
                    store = Store(folder)
                except VitaeppError:
                    continue
                if store.fingerprint() == images:
                    return store
        say(
            f"{path}: the store{f' {name!r}' if name else ''} it was made of is not beside it: "
            "there are no pictures; name its folder with `store`"
        )
        return None
    store = Store(given)
    lacking = set(embedded.table["subject"].astype(str)) - set(store.table["subject"].astype(str))
    if lacking:
        raise EvaluationError(
            f"{store.path}: has no subject {min(lacking)} ({len(lacking)} of "
            f"{counted(len(embedded), 'subject')} are not there); name the store that was embedded"
        )
    if images not in (None, store.fingerprint()):
        warn(f"{store.path}: holds other images than those that were embedded; embed it again")
    return store


class _Pictures:
    """Pages with the images of subjects and of new scans."""

    def __init__(self, store: Store, new: _New | None) -> None:
        self._store, self._new = store, new
        self._rows = {str(s): i for i, s in enumerate(store.table["subject"])}
        self._cells = Cells(store.info, 144 if store.info.ndim == 2 else 96)
        self._mean: npt.NDArray[np.float32] | None = None

    def _image(self, name: str, new: bool) -> tuple[npt.NDArray[Any], Any]:
        """An image in the order of the store's modalities, and which of them are there."""
        if new and self._new is not None:
            i = self._new.names.index(name)
            return self._new.images[i], self._new.present[i]
        row = self._rows[name]
        return self._store.read([row])[0], self._store.present[row]

    def _cell(self, name: str, new: bool, caption: str) -> Image.Image:
        image, present = self._image(name, new)
        return self._cells.draw(image, present, [name, caption])

    def page(self, table: pd.DataFrame, queries: Sequence[Any], cohort: _Cohort) -> Image.Image:
        """A line a query: its image, then those of its neighbours."""
        values = dict(zip(cohort.subjects, cohort.values, strict=True))
        label = "" if cohort.labels is None else f"{cohort.labels.name} "
        lines = []
        for query in queries:
            rows = table[table["query"] == query].head(SHOWN_NEIGHBOURS)
            own = values.get(query, "") if self._new is None else ""
            cells = [self._cell(query, True, f"{label}{own}" if own else "")]
            for row in rows.itertuples():
                caption = [f"{row.similarity:.2f}", f"{label}{row.label}" if row.label else ""]
                caption += ["same participant"] if row.same_participant else []
                cells.append(self._cell(row.subject, False, ", ".join(t for t in caption if t)))
            lines.append(("", cells))
        heads = ["query", *(f"neighbour {rank}" for rank in range(1, SHOWN_NEIGHBOURS + 1))]
        return stacked(lines, heads[: len(lines[0][1])])

    def pairs(self, duplicates: pd.DataFrame) -> Image.Image:
        """Pairs side by side, three in a line."""
        cells = []
        for row in duplicates.head(SHOWN_PAIRS).itertuples():
            caption = f"similarity {row.similarity:.3f}"
            cells += [
                self._cell(str(row.subject), self._new is not None, caption),
                self._cell(str(row.other), False, f"correlation {row.correlation:.3f}"),
            ]
        return stacked([("", cells[start : start + 6]) for start in range(0, len(cells), 6)])

    def correlation(self, first: str, second: str, new: bool) -> float:
        """Of two images, after the mean of the cohort's is taken off; 1 of equal ones."""
        if self._mean is None:
            sample = self._store.read(self._store.spread(64)).astype(np.float32)
            self._mean = sample.mean(axis=0)
        images = (self._image(first, new)[0], self._image(second, False)[0])
        off = [(image.astype(np.float32) - self._mean).ravel() for image in images]
        lengths = [float(np.linalg.norm(values)) for values in off]
        if not all(lengths):
            return float(np.array_equal(off[0], off[1]))
        return round(float(np.dot(*off)) / (lengths[0] * lengths[1]), 4)
