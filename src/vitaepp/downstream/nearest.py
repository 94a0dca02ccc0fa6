"""The subjects of a cohort that are nearest to others, and pairs that are nearer than chance."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.arrays import Floats, Indices
from vitaepp.data.embeddings import Embeddings
from vitaepp.data.labels import join_labels, say_missing
from vitaepp.data.participants import Persons, persons_of
from vitaepp.evaluation.folds import by_subject
from vitaepp.evaluation.labels import Labels, read_labels

#: A pair is held against the distance of each to its neighbour of this rank.
REFERENCE = 20

#: Near-duplicates are pairs of which so many are expected by chance in the whole cohort.
BY_CHANCE = 0.01

#: Distances of unit vectors below this are rounding: the features are the same.
SAME = 2e-3

#: Rows whose similarities are computed at a time.
ROWS = 512

Unit = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest subjects of each query, in order: rows of the cohort, and similarities."""

    rows: Indices
    similarity: Floats

    @property
    def distances(self) -> Floats:
        """Between the ends of unit vectors; 0 where features are the same."""
        distances = np.sqrt(np.maximum(2 - 2 * self.similarity, 0))
        return np.where(distances < SAME, 0.0, distances)


@dataclass(frozen=True, eq=False)
class Cohort:
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
    ) -> Cohort:
        """The cohort of embeddings; arguments and errors are those of `neighbours`."""
        table = embedded.table
        if labels is not None:
            table, without = join_labels(
                table, Path(labels), id_column=id_column, origin="the embeddings", replacing=True
            )
            say_missing(Path(labels).name, without, len(table))
        ordered = by_subject(table, f"{path}: ")
        features = embedded.features[ordered.index.to_numpy()]
        mean, scale, unit = standardised(features)
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
        """The names, in order."""
        return self.table["subject"].to_numpy(dtype=object)

    @property
    def values(self) -> list[str]:
        """The label of each subject, in print; empty without one."""
        values = [""] * len(self.table)
        if self.labels is not None:
            for row, value in zip(self.labels.rows, self.labels.values, strict=True):
                values[row] = str(value)
        return values

    def nearest(self, features: npt.NDArray[np.float32] | None, most: int) -> Nearest:
        """The nearest subjects of new features, or of each subject among the others."""
        count = len(self.unit)
        if features is not None:
            unit = unit_vectors((features - self.mean) / self.scale)
            return nearest_of(unit, self.unit, min(most, count))
        return nearest_of(self.unit, self.unit, min(most, count - 1), np.arange(count))


def standardised(features: npt.NDArray[np.float32]) -> tuple[Floats, Floats, Unit]:
    """Mean and deviation of features, and the directions of their standardised values.

    A feature that does not vary tells nothing, and is left out by an infinite scale.
    """
    values = features.astype(np.float64)
    mean, variance = values.mean(axis=0), values.var(axis=0)
    least = 1e-6 * float(variance.mean())
    scale = np.where(variance > least, np.sqrt(variance), np.inf)
    return mean, scale, unit_vectors((values - mean) / scale)


def unit_vectors(values: Floats) -> Unit:
    """The directions of rows; a row of zeros has none, and stays."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def nearest_of(queries: Unit, cohort: Unit, most: int, persons: Persons | None = None) -> Nearest:
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
    return Nearest(np.concatenate(rows), np.concatenate(similar))


def near_duplicates(
    cohort: Cohort, nearest: Nearest, around: Nearest, names: npt.NDArray[Any], of_cohort: bool
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
