"""Fine-tuning on classes or a value, beside the models of `evaluate` on the encoder as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Floats
from vitaepp.data.embeddings import CONTROLS, Embeddings, control_path
from vitaepp.data.participants import persons_of
from vitaepp.data.runfolder import weights_id
from vitaepp.downstream.tuning import SCRATCH, Base, Tuning
from vitaepp.encoder.embed import embed
from vitaepp.errors import VitaeppError
from vitaepp.evaluation.evaluation import evaluate
from vitaepp.evaluation.folds import by_subject, share_out
from vitaepp.evaluation.measures import spread
from vitaepp.evaluation.result import METHOD, Evaluation, score_columns
from vitaepp.evaluation.tasks import read_target
from vitaepp.evaluation.tasks.base import Target, Tested
from vitaepp.evaluation.tasks.classification import Classification
from vitaepp.evaluation.tasks.regression import Regression
from vitaepp.recipe.effect import tuned_by
from vitaepp.system.progress import say

#: Why a fine-tuned network has no thresholds and probabilities.
UNLEARNED = (
    "they would need decisions on training subjects that were left out, and the network was tuned "
    "on all of them"
)

#: Of the linear model's metrics, what is not the fine-tuned network's.
OF_LINEAR = ("C", "map", "features", "clinical")


def planned(
    base: Base, label: str, task: str, protocol: str | None, positive: str | None
) -> tuple[Tuning, Target, str]:
    """The labelled subjects in the folds of `evaluate`, what is predicted, and the protocol.

    Raises:
        EvaluationError: the label or the splits do not allow it.
    """
    table = by_subject(base.store.table)
    target = read_target(table, label, task, positive=positive)
    shared = share_out(target, table, protocol=protocol, folds=base.folds, seed=base.seed)
    if target.missing:
        say(f"{target.missing} of {len(table)} subjects have no {label}; they are left out")
    values = task == "regression"
    assert isinstance(target, Classification | Regression)
    tuning = Tuning.of(
        base,
        task="regression" if values else "classification",
        table=table.iloc[target.rows],
        targets=target.values if isinstance(target, Regression) else target.labels.codes,
        classes=1 if values else len(target.classes),
        parts=shared.folds,
    )
    return tuning, target, shared.protocol


def measured(
    tuning: Tuning, target: Target, protocol: str, positive: str | None, any_store: bool
) -> Evaluation:
    """The evaluation of the fine-tuned networks, with the controls of the linear models."""
    linear = tuning.out / "linear"
    if not (linear / "metrics.json").is_file():
        evaluate(
            _embeddings(tuning, any_store),
            target.name,
            linear,
            protocol=protocol,
            folds=tuning.folds,
            seed=tuning.seed,
            positive=positive,
            task=target.task,
            repeats=1,  # the networks were tuned in these folds alone
        )
    beside = Evaluation.load(linear)
    assert beside.predictions is not None
    columns = score_columns(METHOD, target.classes)
    predictions = beside.predictions.drop(columns=columns)
    tested = np.concatenate([part.test for part in tuning.parts])
    fold = np.repeat(np.arange(len(tuning.parts)), [len(part.test) for part in tuning.parts])
    persons = persons_of(tuning.table)[tested]
    scored: dict[str, dict[str, Any]] = {}
    for name, start in ((METHOD, "pretrained"), ("scratch", "scratch")):
        decisions = [_decision(tuning, k, start, target) for k in range(len(tuning.parts))]
        folds = [
            target.scores(part.test, decision, target, part.train)
            for part, decision in zip(tuning.parts, decisions, strict=True)
        ]
        mean, std = spread(folds)
        every = np.concatenate(decisions)
        clinical = target.clinical(Tested(tested, fold, every, persons, unlearned=UNLEARNED))
        scored[name] = {"folds": folds, "mean": mean, "std": std, "clinical": clinical}
        scored[name]["epochs"] = tuning.epochs(start)
        table = pd.DataFrame(
            every.reshape(len(tested), -1), columns=score_columns(name, target.classes)
        )
        table["fold"], table["subject"] = fold, tuning.subjects[tested]
        predictions = predictions.merge(table, on=["fold", "subject"], validate="one_to_one")
    kept = {k: v for k, v in beside.metrics.items() if k not in OF_LINEAR}
    scratch = scored["scratch"] | {"what": SCRATCH}
    provenance = beside.metrics["provenance"]
    metrics = kept | scored[METHOD]
    metrics |= {
        "classifier": "finetune",
        "sizes": tuning.sizes,
        "controls": {"scratch": scratch} | beside.metrics["controls"],
        "provenance": provenance | {"name": f"{provenance['name']}, {tuning.depth}"},
        "finetune": tuned_by(tuning.recipe, tuning.task),
    }
    return Evaluation(metrics, predictions).save(tuning.out)


def _embeddings(tuning: Tuning, any_store: bool) -> Path:
    """The features of the encoder as it is: those of its run, where they are of these images."""
    there = tuning.run.path / "embeddings.parquet"
    if _are_these(there, tuning) and all(control_path(there, c).is_file() for c in CONTROLS):
        return there
    own = tuning.out / "embeddings.parquet"
    if not own.is_file():
        embed(tuning.run.path, tuning.store.path, own, any_store=any_store)
    return own


def _are_these(file: Path, tuning: Tuning) -> bool:
    """Whether a file has the features of the run's encoder, of these images with these labels."""
    if not file.is_file():
        return False
    try:
        embedded = Embeddings.load(file)
    except VitaeppError:
        return False
    facts, store = embedded.provenance, tuning.store
    columns = ["subject", "split", *store.label_columns]
    return (
        facts.get("encoder") == weights_id(tuning.run.path)
        and facts.get("images") == store.fingerprint()
        and "unfinished" not in facts
        and set(columns) <= set(embedded.table)
        and embedded.table[columns].astype(str).equals(store.table[columns].astype(str))
    )


def _decision(tuning: Tuning, k: int, start: str, target: Target) -> Floats:
    """Decision scores as `evaluate` has them: of two classes the difference."""
    scores = tuning.predictions(k, start).astype(np.float64)
    if not isinstance(target, Classification) or scores.shape[1] != 2:
        return scores
    difference: Floats = scores[:, 1] - scores[:, 0]
    return difference if target.shown.classes == target.labels.classes else -difference
