"""Audit embeddings and their store: could what they tell of a label be a shortcut?

OUT/
  audit.json       a list of {what, score, verdict, sentence, …}, one a question
  audit.md, .csv   the same as a table
  duplicates.csv   near-duplicates, a row a pair (only if there are any)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.auditing.answers import Measured, crosses, items, measure, sides_of
from vitaepp.auditing.facts import facts_of
from vitaepp.auditing.images import Pair, correlation, look_at, near_duplicates, pictures
from vitaepp.auditing.items import FILES, Audit
from vitaepp.auditing.shortcuts import Cohort
from vitaepp.data.arrays import Indices
from vitaepp.data.embeddings import Embeddings
from vitaepp.data.labels import join_labels, say_missing
from vitaepp.data.participants import persons_of
from vitaepp.data.store import Store
from vitaepp.data.storetable import PARTICIPANT, RESERVED_COLUMNS
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.folds import by_subject
from vitaepp.evaluation.labels import read_labels
from vitaepp.system.paths import refuse_as_results
from vitaepp.system.progress import counted, say, warn
from vitaepp.system.text import first_few
from vitaepp.system.urls import Location


def audit(
    embeddings: str | os.PathLike[str],
    store: Location,
    label: str,
    out: str | os.PathLike[str],
    metadata: Sequence[str] = (),
    protocol: str | None = None,
    seed: int = 0,
    folds: int = 5,
    positive: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    id_column: str | None = None,
) -> Audit:
    """Ask whether an embedding could have found a shortcut to a label.

    Four questions, each answered with a traffic light: does the embedding tell how, where and of
    whom the scans were made; do these facts alone tell the label; is an image there twice, on both
    sides of a split; and are subjects of one subgroup told worse than others. The rules of the
    lights are in docs/audit.md. Tests shuffle participants, and all p of one audit are corrected
    together (Holm).

    Args:
        embeddings: Parquet file of `vitaepp embed`.
        store: that they were embedded from, or its URL. Its table is what counts, also where the
            embeddings have other values, of an earlier one; a warning says for how many.
        label: column of classes.
        out: folder for audit.json and its tables.
        metadata: columns that tell how a scan was made or of whom it is, besides those whose names
            say so, as `site`, `scanner`, `age` and `sex` do.
        protocol: `svm` or `linear`, as in `evaluate`.
        seed: of folds and permutations.
        folds: outer folds of `svm`; at least 2.
        positive: of two classes, the one that is predicted.
        labels: CSV, TSV or XLSX whose columns are joined by subject, as of sites and ages.
        id_column: its column of subjects.

    Returns:
        The audit that was written.

    Raises:
        EvaluationError: the embeddings are not of this store, or the label cannot be evaluated.
        StoreError: the store cannot be read.
        SourceError: the table of labels cannot be joined.

    Example:
        >>> audit("run/embeddings.parquet", "store", "grade", "run/audit")    # doctest: +SKIP
        Audit(1 red, 2 yellow, 9 green)
    """
    if Path(out).exists() and not Path(out).is_dir():
        raise EvaluationError(f"{out}: is a file; give a folder")
    refuse_as_results(out, "audit")
    FILES.check(out, inputs=(embeddings, labels))
    opened = Store(store)
    table, features, rows, encoder = joined(Path(embeddings), opened, labels, id_column)
    read_labels(table, label).with_positive(positive)
    persons = persons_of(table)
    cohort = Cohort(table, features, persons, label, protocol, folds, seed, positive, encoder)
    cohort.parts()  # what cannot be evaluated is refused before images are read
    looks = look_at(opened, rows)
    facts = facts_of(table, opened, looks.border, persons, label, metadata)
    if facts.unused:
        say(
            f"not taken for metadata by their names: {first_few(facts.unused)}; add those that "
            "tell how a scan was made, or of whom it is, with `metadata`"
        )
    measured = measure(cohort, facts.usable)

    def correlate(first: int, second: int) -> float:
        one, other = pictures(opened.read(rows[[first, second]]))
        return correlation(one, other, looks.mean)

    pairs = near_duplicates(looks.hashes, features, correlate)
    return Audit(tuple(items(measured, facts, pairs))).save(out, _table_of(pairs, measured))


def joined(
    path: Path, store: Store, labels: str | os.PathLike[str] | None, id_column: str | None
) -> tuple[pd.DataFrame, npt.NDArray[np.float32], Indices, str | None]:
    """The embedded subjects in order, with all that is known of them, and their rows in the store.

    Args:
        path: file of the embeddings.
        store: that they were embedded from.
        labels: a table whose columns are joined.
        id_column: its column of subjects.

    Returns:
        The table, with the store's values where both have some; `(subject, feature)`; `(subject,)`;
        and the id of the weights that made the features.

    Raises:
        EvaluationError: the embeddings are of other subjects or other images than the store's.
        SourceError: the table of labels cannot be joined.
    """
    embedded = Embeddings.load(path)
    ordered = by_subject(embedded.table, f"{path}: ")
    features = embedded.features[ordered.index.to_numpy()]
    subjects = ordered["subject"].to_numpy()
    row_of = {str(subject): row for row, subject in enumerate(store.table["subject"])}
    lacking = [s for s in subjects if s not in row_of]
    if lacking:
        raise EvaluationError(
            f"{path}: {len(lacking)} of its {counted(len(subjects), 'subject')} are not in "
            f"{store.path} ({first_few(lacking)}); give the store that was embedded"
        )
    images = embedded.provenance.get("images")
    if images is not None and len(subjects) == len(store) and images != store.fingerprint():
        raise EvaluationError(
            f"{path}: was embedded from other images than those of {store.path}; give the store "
            "that was embedded, or embed this one"
        )
    rows = np.array([row_of[s] for s in subjects], np.intp)
    of_store = store.table.iloc[rows].reset_index(drop=True).drop(columns="subject")
    table = ordered.reset_index(drop=True)
    if "split" not in embedded.table:  # what they do not say is no other value
        table["split"] = of_store["split"]
    shared = [c for c in of_store if c in table]
    if corrected := {c: n for c in shared if (n := _count_unlike(table[c], of_store[c]))}:
        told = ", ".join(f"{c} ({counted(n, 'subject')})" for c, n in corrected.items())
        warn(
            f"{path}: has other values than {store.path} in {told}; those of the store are taken; "
            "embed again, so that `evaluate` takes them, too"
        )
        table = table.assign(**of_store[[*corrected]])
    table = table.join(of_store.drop(columns=shared))
    if labels is not None:
        own = [c for c in table if c in RESERVED_COLUMNS and c not in ("subject", "split")]
        with_labels, without = join_labels(
            table.drop(columns=own),
            labels,
            id_column=id_column,
            origin="the embeddings",
            replacing=True,
        )
        say_missing(Path(labels).name, without, len(with_labels))
        table = with_labels.join(table[own])
    elif id_column is not None:
        raise EvaluationError("`id_column` names a column of the table `labels`; give that, too")
    return table, features, rows, embedded.provenance.get("encoder")


def _count_unlike(one: pd.Series[Any], other: pd.Series[Any]) -> int:
    """How many values of two columns differ; those of a CSV file are written in another way."""
    texts = [c.astype(object).where(c.notna(), "") for c in (one, other)]
    a, b = (pd.to_numeric(c, errors="coerce").to_numpy(np.float64) for c in texts)
    unlike = (texts[0].astype(str) != texts[1].astype(str)).to_numpy()
    return int((unlike & ~np.isclose(a, b, rtol=1e-6, atol=0.0)).sum())


def _table_of(pairs: Sequence[Pair], measured: Measured) -> pd.DataFrame | None:
    """Near-duplicates, a row a pair; None where there are none."""
    if not pairs:
        return None
    cohort, sides = measured.cohort, sides_of(measured.cohort)
    table = cohort.table
    columns = {"": "subject", "participant of ": PARTICIPANT, "label of ": cohort.label}
    columns = {head: column for head, column in columns.items() if column in table}
    lines = [
        {
            **{
                f"{head}{end}": table[column][row]
                for head, column in columns.items()
                for end, row in _ends(pair)
            },
            **{f"tested in, {end}": sides[row] for end, row in _ends(pair)},
            "both sides": crosses(sides, pair),
            "bits": pair.bits,
            "correlation": pair.correlation,
            "distance": pair.distance,
            "found by": pair.evidence,
        }
        for pair in pairs
    ]
    return pd.DataFrame(lines)


def _ends(pair: Pair) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("first", pair.first), ("second", pair.second)
