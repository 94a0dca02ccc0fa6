"""Fit the final classifier on all labelled subjects, for the scans of new patients."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vitaepp.data.embeddings import CONTROLS, Embeddings
from vitaepp.data.labels import join_labels
from vitaepp.data.origin import PUBLIC
from vitaepp.data.participants import persons_of
from vitaepp.data.runfolder import weights_id
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.downstream.distance import Cohort
from vitaepp.downstream.model import Model, check_classes, skops_io
from vitaepp.encoder.model import Encoder
from vitaepp.errors import EvaluationError, ModelError, RunError
from vitaepp.evaluation.calibration import Calibration
from vitaepp.evaluation.classifier import fit_with
from vitaepp.evaluation.evaluation import evaluate
from vitaepp.evaluation.folds import by_subject, labelled_folds
from vitaepp.system.files import atomic_path, refuse_inputs
from vitaepp.system.paths import kind_of


def fit(
    embeddings: str | os.PathLike[str],
    label: str,
    out: str | os.PathLike[str],
    *,
    run: str | os.PathLike[str] | None = None,
    protocol: str | None = None,
    folds: int = 5,
    seed: int = 0,
    labels: str | os.PathLike[str] | None = None,
    id_column: str | None = None,
) -> Model:
    """Fit a classifier on all labelled subjects, and keep it with its encoder.

    It is the classifier that `evaluate` measures, with the median of the C that its folds chose.
    The scores in metrics.json are those of `evaluate`, of classifiers that had not seen the
    subjects. The scores of subjects in the folds that they were left out of make the calibration.

    Args:
        embeddings: Parquet file of `vitaepp embed`.
        label: column of classes; subjects where it is empty are left out.
        out: folder of the model to make.
        run: run or encoder folder that made the embeddings. Unset: it is looked for beside them,
            and recognised by its weights.
        protocol: `svm` or `linear`, as in `evaluate`.
        folds: as in `evaluate`.
        seed: as in `evaluate`.
        labels: as in `evaluate`.
        id_column: as in `evaluate`.

    Returns:
        The model that was written.

    Raises:
        EvaluationError: embeddings, label or splits do not allow it.
        RunError: there is no such encoder.
        ModelError: `out` holds something else.
        MissingPackageError: skops is not installed.
    """
    if protocol == "knn":
        raise EvaluationError(
            "`protocol=knn` is of evaluate: nearest neighbours would carry the cohort's features; "
            "fit keeps a linear classifier, svm or linear"
        )
    skops_io("keeping a classifier needs")
    path, out = Path(embeddings), Path(out)
    if out.exists() and kind_of(out) != "model" and not (out.is_dir() and not any(out.iterdir())):
        raise ModelError(f"{out}: holds something else; name a new folder")
    refuse_inputs([out], [path, labels], "fit", "folder")
    embedded = Embeddings.load(path)
    encoder = encoder_of(embedded, path, None if run is None else Path(run))
    if encoder.dim != embedded.features.shape[1]:
        raise RunError(
            f"{path}: {embedded.features.shape[1]} features, but the encoder gives {encoder.dim}; "
            "embed again"
        )
    table = embedded.table
    if labels is not None:
        table, _ = join_labels(
            table, Path(labels), id_column=id_column, origin="the embeddings", replacing=True
        )
    with atomic_path(out) as temporary:
        temporary.mkdir()
        measured = temporary / "evaluation"
        evaluation = evaluate(
            path,
            label,
            measured,
            protocol=protocol,
            seed=seed,
            folds=folds,
            labels=labels,
            id_column=id_column,
            repeats=1,
        )
        (measured / "metrics.json").rename(temporary / "metrics.json")
        shutil.rmtree(measured)  # the rest names subjects, and models are passed on
        encoder.save(temporary / "encoder")
        model = _fitted(embedded, table, encoder, evaluation.metrics, label, folds, seed)
        model.write(temporary)
    return model


def _fitted(
    embedded: Embeddings,
    table: Any,
    encoder: Encoder,
    metrics: dict[str, Any],
    label: str,
    folds: int,
    seed: int,
) -> Model:
    ordered = by_subject(table)
    labels, protocol, parts = labelled_folds(ordered, label, metrics["protocol"], folds, seed)
    check_classes(label, labels.classes)
    features = embedded.features[ordered.index.to_numpy()][labels.rows]
    # The lower of two in the middle, so that it is one that a fold chose.
    C = sorted(metrics["C"])[(len(metrics["C"]) - 1) // 2]
    # With the same C in all folds, their scores are of one scale.
    decisions = [
        fit_with(protocol, features[p.train], labels.codes[p.train], C).decision(features[p.test])
        for p in parts
    ]
    tested = np.concatenate([p.test for p in parts])
    calibration = Calibration.of(labels.codes[tested], np.concatenate(decisions))
    return Model(
        label=label,
        classes=labels.classes,
        encoder=encoder,
        prepared=StoreInfo.parse(embedded.provenance["prepared"] | {"masks": None}),
        precision=embedded.provenance["precision"],
        classifier=fit_with(protocol, features, labels.codes, C),
        calibration=calibration,
        cohort=Cohort.of(features, persons_of(ordered.iloc[labels.rows])),
        metrics=metrics,
    )


def encoder_of(embedded: Embeddings, path: Path, run: Path | None) -> Encoder:
    """The encoder that made the embeddings.

    Raises:
        EvaluationError: the file does not tell which, or holds a control of it.
        RunError: it is not found, or the one that is named has other weights.
    """
    folder = _folder_of(embedded, path, run)
    encoder = Encoder.from_pretrained(folder, last="unfinished" in embedded.provenance)
    method = embedded.provenance.get("method")
    if method in CONTROLS and method != encoder.config.method:
        raise EvaluationError(
            f"{path}: is the control {method!r}, whose features are not those that the encoder "
            "gives new scans; use the embeddings that it lies beside"
        )
    return encoder


def _folder_of(embedded: Embeddings, path: Path, run: Path | None) -> Path:
    """The run or encoder folder whose weights made the embeddings."""
    facts = embedded.provenance
    if not {"encoder", "prepared", "precision"} <= facts.keys():
        raise EvaluationError(
            f"{path}: does not tell which encoder made it, as a .parquet of `embed` does; "
            "embed again"
        )
    if facts.get("method") == PUBLIC:
        raise EvaluationError(
            f"{path}: was made by a public encoder, {facts['run']}, which takes no scans of new "
            "patients; use the embeddings of a run"
        )
    if run is not None:
        if weights_id(run) != facts["encoder"]:
            raise RunError(f"{run}: {path.name} was made by other weights; embed again with it")
        return run
    for folder in near(path.absolute().parent, str(facts.get("run"))):
        if kind_of(folder) in ("run", "encoder") and weights_id(folder) == facts["encoder"]:
            return folder
    raise RunError(
        f"{path}: the run {facts.get('run')} that made it is not beside it; name its folder with "
        "`run`"
    )


def near(folder: Path, name: str) -> Iterator[Path]:
    """Where what made a file may be: a folder above, one of its name beside or below, or here."""
    for base in (folder, folder.parent, Path.cwd()):
        yield base
        yield base / name
        yield base / "encoder"
        yield from sorted(base.glob(f"*/{name}")) if name else ()
