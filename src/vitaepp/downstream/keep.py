"""The fine-tuned network of all labelled subjects, as a model for the scans of new patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vitaepp.data.arrays import Floats, Indices
from vitaepp.data.participants import persons_of
from vitaepp.downstream.distance import Cohort
from vitaepp.downstream.fold import Job, encoder_folder, head_file
from vitaepp.downstream.model import Model
from vitaepp.downstream.tuning import Tuning
from vitaepp.encoder.model import Encoder
from vitaepp.evaluation.calibration import Calibration
from vitaepp.evaluation.classifier import Fitted
from vitaepp.evaluation.result import Evaluation
from vitaepp.evaluation.tasks.classification import Classification
from vitaepp.system.devices import chosen_device, resolved_precision
from vitaepp.system.files import atomic_path, read_json, write_json
from vitaepp.system.progress import say
from vitaepp.system.tensors import read_tensors


def keep_model(tuning: Tuning, target: Classification, evaluation: Evaluation) -> Path:
    """Fine-tune on all labelled subjects, and keep the result as `fit` keeps a classifier.

    Its scores are those of the folds. What is there already is left.

    Returns:
        Its folder.
    """
    folder = tuning.out / "model"
    if folder.is_dir():
        return folder
    trained = tuning.kept()
    if not read_json(trained.summary_file)["best_epoch"]:
        say(
            "all labelled subjects, fine-tuned: no epoch lowered the loss on the held-out part, so "
            "the model is the network as it started; train longer (optim.epochs) or with a lower "
            "rate (optim.lr)"
        )
    encoder = Encoder.from_pretrained(encoder_folder(trained))
    computing = chosen_device(None)
    precision = resolved_precision(encoder.config.precision, computing)
    rows = tuning.table.index.to_numpy()
    features = encoder.embed(
        tuning.store, rows.tolist(), device=computing, precision=precision, any_store=True
    )
    classifier = classifier_of(read_tensors(head_file(trained)))
    held = features[np.isin(tuning.subjects, Job.load(trained).held)]
    tested = np.concatenate([part.test for part in tuning.parts])
    scores = [tuning.predictions(k, "pretrained") for k in range(len(tuning.parts))]
    model = Model(
        label=target.name,
        classes=tuple(target.labels.classes),
        encoder=encoder,
        prepared=replace(tuning.store.info, masks=None),
        precision=precision,
        classifier=classifier,
        calibration=calibrated(
            tuning.targets[tested], [_decision(part) for part in scores], classifier.decision(held)
        ),
        cohort=Cohort.of(features, persons_of(tuning.table)),
        metrics=evaluation.metrics,
    )
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        write_json(temporary / "metrics.json", evaluation.metrics)
        encoder.save(temporary / "encoder")
        model.write(temporary)
    return folder


def calibrated(codes: Indices, folds: Sequence[Floats], own: Floats) -> Calibration:
    """From the decisions of a network to probabilities, by those of the networks of the folds.

    Trained networks differ in how large their decisions are, by orders of magnitude. So the
    decisions of each are put on one scale, by their mean and deviation over subjects that it was
    not trained on.

    Args:
        codes: `(subject,)`, the true class of each tested subject, fold after fold.
        folds: decisions of each fold's network about its tested subjects, `(subject,)` for two
            classes, `(subject, class)` for more.
        own: decisions of the network that is calibrated, about subjects that are held out.
    """
    scales = [_scale(part) for part in folds]
    pooled = [(part - m) / s for part, (m, s) in zip(folds, scales, strict=True)]
    curves = Calibration.of(codes, np.concatenate(pooled))
    mean, deviation = _scale(own)
    slopes = np.array(curves.slopes) / deviation
    intercepts = np.array(curves.intercepts) - slopes * mean
    return Calibration(tuple(slopes.tolist()), tuple(intercepts.tolist()))


def _scale(decisions: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of decisions over subjects, the latter 1 where all are equal."""
    deviation = decisions.std(axis=0)
    return np.asarray(decisions.mean(axis=0)), np.where(deviation > 0, deviation, 1.0)


def _decision(scores: npt.NDArray[Any]) -> Floats:
    """Of two classes the difference of their scores, of more the scores about their mean."""
    scores = scores.astype(np.float64)
    if scores.shape[1] == 2:
        return np.asarray(scores[:, 1] - scores[:, 0])
    return np.asarray(scores - scores.mean(axis=1, keepdims=True))


def classifier_of(head: Mapping[str, Tensor]) -> Fitted:
    """The head as a pipeline of scikit-learn, which gives the same decisions."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    mean, scale, weight, bias = (
        head[name].double().numpy() for name in ("mean", "scale", "weight", "bias")
    )
    scaler, linear = StandardScaler(), LogisticRegression()
    scaler.mean_, scaler.scale_, scaler.var_ = mean, scale, scale**2
    scaler.n_features_in_ = linear.n_features_in_ = len(mean)
    linear.coef_, linear.intercept_ = _decision(weight.T).T, _decision(bias[None])[0]
    if len(weight) == 2:
        linear.coef_, linear.intercept_ = linear.coef_[None], np.array([linear.intercept_])
    linear.classes_ = np.arange(len(weight))
    return Fitted(make_pipeline(scaler, linear), math.nan)
