"""Fine-tuning on classes, in the folds of `evaluate`, beside linear classifiers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from vitaepp.downstream.tuning import SCRATCH, Base, Tuning
from vitaepp.encoder.embed import embed
from vitaepp.evaluation.evaluation import evaluate
from vitaepp.evaluation.folds import by_subject, labelled_folds
from vitaepp.evaluation.labels import Labels
from vitaepp.evaluation.measures import spread
from vitaepp.evaluation.result import METHOD, Evaluation, score_columns
from vitaepp.evaluation.scores import fold_scores


def planned(base: Base, label: str, protocol: str | None) -> tuple[Tuning, Labels, str]:
    """The folds of `evaluate`, with the labels and the protocol.

    Raises:
        EvaluationError: the label or the splits do not allow it.
    """
    table = by_subject(base.store.table)
    labels, chosen, parts = labelled_folds(table, label, protocol, base.folds, base.seed)
    tuning = Tuning.of(
        base,
        task="classification",
        table=table.iloc[labels.rows],
        targets=labels.codes,
        classes=len(labels.classes),
        parts=parts,
    )
    return tuning, labels, chosen


def measured(
    tuning: Tuning, labels: Labels, protocol: str, positive: str | None, any_store: bool
) -> Evaluation:
    """The evaluation of the fine-tuned networks, with the controls of the linear classifiers."""
    file, linear = tuning.out / "embeddings.parquet", tuning.out / "linear"
    if not file.is_file():
        embed(tuning.run.path, tuning.store.path, file, any_store=any_store)
    if not (linear / "metrics.json").is_file():
        how: dict[str, Any] = {"protocol": protocol, "folds": tuning.folds, "seed": tuning.seed}
        evaluate(file, labels.name, linear, positive=positive, **how)
    beside = Evaluation.load(linear)
    assert beside.predictions is not None
    shown = labels.with_positive(positive)
    predictions = beside.predictions.drop(columns=score_columns(METHOD, shown.classes))
    scored: dict[str, dict[str, Any]] = {}
    for name, start in ((METHOD, "pretrained"), ("scratch", "scratch")):
        decisions = [_decision(tuning, k, start, shown, labels) for k in range(len(tuning.parts))]
        folds = [
            fold_scores(shown.codes[part.test], decision)
            for part, decision in zip(tuning.parts, decisions, strict=True)
        ]
        mean, std = spread(folds)
        scored[name] = {"folds": folds, "mean": mean, "std": std, "epochs": tuning.epochs(start)}
        columns = score_columns(name, shown.classes)
        table = pd.DataFrame(np.concatenate(decisions).reshape(-1, len(columns)), columns=columns)
        table["fold"] = np.repeat(np.arange(len(decisions)), [len(d) for d in decisions])
        table["subject"] = np.concatenate([tuning.subjects[p.test] for p in tuning.parts])
        predictions = predictions.merge(table, on=["fold", "subject"], validate="one_to_one")
    kept = {k: v for k, v in beside.metrics.items() if k not in ("C", "map", "features")}
    scratch = scored["scratch"] | {"what": SCRATCH}
    provenance = beside.metrics["provenance"]
    metrics = kept | scored[METHOD]
    metrics |= {
        "classifier": "finetune",
        "sizes": tuning.sizes,
        "controls": {"scratch": scratch} | beside.metrics["controls"],
        "provenance": provenance | {"name": f"{provenance['name']}, {tuning.depth}"},
        "finetune": tuning.recipe.finetune.model_dump(mode="json"),
    }
    return Evaluation(metrics, predictions).save(tuning.out)


def _decision(tuning: Tuning, k: int, start: str, shown: Labels, labels: Labels) -> Any:
    """Decision scores, of two classes the difference, as `evaluate` has them."""
    scores = tuning.predictions(k, start).astype(np.float64)
    if scores.shape[1] != 2:
        return scores
    difference = scores[:, 1] - scores[:, 0]
    return difference if shown.classes == labels.classes else -difference
