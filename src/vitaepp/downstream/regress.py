"""Fine-tuning on a value, beside a ridge regression on the encoder's features."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.embeddings import Embeddings, control_path
from vitaepp.data.participants import persons_of
from vitaepp.downstream.outcome import Outcome, difference, summarised
from vitaepp.downstream.tuning import SCRATCH, Base, Tuning, person_folds
from vitaepp.encoder.embed import embed
from vitaepp.errors import EvaluationError, nearest
from vitaepp.evaluation.folds import by_subject
from vitaepp.evaluation.regression import fit_regression, regression_scores
from vitaepp.system.files import atomic_path
from vitaepp.system.progress import say

#: What is compared first; less is better.
METRIC = "mae"

Values = npt.NDArray[np.float64]


def planned(base: Base, label: str) -> Tuning:
    """The subjects with a value, and their folds.

    Raises:
        EvaluationError: no such column, no numbers in it, or too few of them.
    """
    table = by_subject(base.store.table)
    known = base.store.label_columns
    if label not in known:
        hint = nearest(label, known) if known else "the store has no labels"
        raise EvaluationError(f"no label column {label!r}; {hint}")
    texts = table[label].astype(str).str.strip()
    values = pd.to_numeric(texts, errors="coerce").where(lambda v: np.isfinite(v))
    given = table[label].notna() & ~texts.isin(["", "nan"])
    if not_numbers := (given & values.isna()).sum():
        raise EvaluationError(
            f"label {label!r}: {not_numbers} of {given.sum()} values are no numbers, such as "
            f"{texts[given & values.isna()].iloc[0]!r}; use task classification"
        )
    if (different := values.nunique()) < 3:
        raise EvaluationError(
            f"label {label!r} has {different} different values; regression takes three or more: "
            "use task classification"
        )
    if missing := int(values.isna().sum()):
        say(f"{missing} of {len(table)} subjects have no {label}; they are left out")
    table = table[values.notna()]
    return Tuning.of(
        base,
        task="regression",
        table=table,
        targets=values.dropna().to_numpy(float),
        classes=1,
        parts=person_folds(table, base.folds, base.seed),
    )


def measured(tuning: Tuning, label: str, any_store: bool) -> Outcome:
    """Errors of the fine-tuned networks and of their controls."""
    file = tuning.out / "embeddings.parquet"
    if not file.is_file():
        embed(tuning.run.path, tuning.store.path, file, any_store=any_store)
    truth, parts = tuning.targets, tuning.parts
    persons = persons_of(tuning.table)
    what = {"scratch": SCRATCH}
    predicted: dict[str, list[Values]] = {
        "method": [tuning.predictions(k, "pretrained") for k in range(len(parts))],
        "scratch": [tuning.predictions(k, "scratch") for k in range(len(parts))],
    }
    ridges = {
        "linear": (file, "the encoder's features"),
        "untrained": (control_path(file, "untrained"), "an untrained encoder's features"),
        "raw": (control_path(file, "raw"), "raw intensities"),
    }
    for name, (path, of) in ridges.items():
        embedded = Embeddings.load(path)
        row_of = {str(s): i for i, s in enumerate(embedded.table["subject"])}
        features = embedded.features[[row_of[s] for s in tuning.subjects]].astype(np.float64)
        what[name] = f"ridge regression on {of}"
        predicted[name] = [
            fit_regression(
                features[p.train],
                truth[p.train],
                seed=tuning.seed + k,
                pca=name == "raw",
                persons=persons[p.train],
            ).decision(features[p.test])
            for k, p in enumerate(parts)
        ]
    what["mean"] = "the mean of the training part"
    predicted["mean"] = [np.full(len(p.test), truth[p.train].mean()) for p in parts]

    folds = {
        name: [regression_scores(truth[p.test], v) for p, v in zip(parts, values, strict=True)]
        for name, values in predicted.items()
    }
    tested = np.concatenate([p.test for p in parts])
    table = pd.DataFrame(
        {
            "subject": tuning.subjects[tested],
            "fold": np.repeat(np.arange(len(parts)), [len(p.test) for p in parts]),
            "label": truth[tested],
            **{name: np.concatenate(values) for name, values in predicted.items()},
        }
    )
    with atomic_path(tuning.out / "predictions.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    own, other = ((table[n] - table["label"]).abs().to_numpy() for n in ("method", "scratch"))
    by_fold = [
        a[METRIC] - b[METRIC] for a, b in zip(folds["method"], folds["scratch"], strict=True)
    ]
    sizes = tuning.sizes
    metrics: dict[str, Any] = {
        **tuning.facts,
        "label": label,
        "metric": METRIC,
        **summarised(folds["method"]),
        "controls": {name: {"what": what[name], **summarised(folds[name])} for name in what},
        "difference": difference(METRIC, np.array(by_fold), own - other, sizes),
    }
    return Outcome(metrics, table).save(tuning.out)
