"""The fine-tuned network of all labelled subjects, as a model for the scans of new patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
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
from vitaepp.system.progress import counted, say
from vitaepp.system.tensors import read_tensors

#: A network whose decisions differ by less than this share of their size tells nothing.
FLAT = 1e-3


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
    held = np.isin(tuning.subjects, Job.load(trained).held)
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
            tuning.targets[tested],
            [_decision(part) for part in scores],
            tuning.targets[held],
            classifier.decision(features[held]),
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


def calibrated(
    codes: Indices, folds: Sequence[Floats], own_codes: Indices, own: Floats
) -> Calibration:
    """From the decisions of a network to probabilities, by those of the networks of the folds.

    Trained networks differ in how large their decisions are, by orders of magnitude. So the
    decisions of each are put on one scale, by subjects that it was not trained on. A fold that
    tests no subject of some class has no such scale and plays no part; where all folds are so, they
    have one together.

    Args:
        codes: `(subject,)`, the true class of each tested subject, fold after fold.
        folds: decisions of each fold's network about its tested subjects, `(subject,)` for two
            classes, `(subject, class)` for more.
        own_codes: `(subject,)`, the true class of each subject that is held out.
        own: decisions of the network that is calibrated, about these.
    """
    classes = np.unique(codes)
    parts = np.split(codes, np.cumsum([len(part) for part in folds])[:-1])
    whole = [len(np.unique(part)) == len(classes) for part in parts]
    if not any(whole):
        say(
            "probabilities: no fold tests subjects of every class, so that the networks of all "
            "folds count as one"
        )
        parts, folds = [codes], [np.concatenate(folds)]
    elif not all(whole):
        say(
            f"probabilities: {counted(whole.count(False), 'fold')} of {len(whole)} test no subject "
            "of some class, and play no part in them"
        )
        parts, folds = [*compress(parts, whole)], [*compress(folds, whole)]
    scales = [_scale(part, true) for part, true in zip(folds, parts, strict=True)]
    middle, deviation = _scale(own, own_codes)
    if flat := sum(bool(np.isinf(s).any()) for _, s in (*scales, (middle, deviation))):
        say(
            f"probabilities: {flat} of {counted(len(scales) + 1, 'network')} hardly tell one "
            "subject from another; their decisions count as midway between the classes"
        )
    pooled = [(part - m) / s for part, (m, s) in zip(folds, scales, strict=True)]
    curves = Calibration.of(np.concatenate(parts), np.concatenate(pooled))
    slopes = np.array(curves.slopes) / deviation
    intercepts = np.array(curves.intercepts) - slopes * middle
    return Calibration(tuple(slopes.tolist()), tuple(intercepts.tolist()))


def _scale(decisions: Floats, codes: Indices) -> tuple[Floats, Floats]:
    """Mean and deviation of decisions over subjects, where each class counts as much.

    So they do not depend on how frequent the classes are. Of more than two classes, each column
    has its class against the rest. The deviation is infinite where all decisions are equal but for
    rounding, and where a class is not there.
    """
    own = codes == 1 if decisions.ndim == 1 else codes[:, None] == np.arange(decisions.shape[1])
    with np.errstate(invalid="ignore"):
        shares = (own / own.sum(axis=0) + ~own / (~own).sum(axis=0)) / 2
    middle = (shares * decisions).sum(axis=0)
    deviation = np.sqrt((shares * (decisions - middle) ** 2).sum(axis=0))
    tells = deviation > FLAT * np.abs(decisions).max(axis=0)
    return np.where(tells, middle, 0.0), np.where(tells, deviation, np.inf)


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
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    mean, scale, limit, weight, bias = (
        head[name].double().numpy() for name in ("mean", "scale", "limit", "weight", "bias")
    )
    scaler, linear = StandardScaler(), LogisticRegression()
    ends = FunctionTransformer(np.clip, kw_args={"a_min": -limit, "a_max": limit})
    scaler.mean_, scaler.scale_, scaler.var_ = mean, scale, scale**2
    scaler.n_features_in_ = linear.n_features_in_ = len(mean)
    linear.coef_, linear.intercept_ = _decision(weight.T).T, _decision(bias[None])[0]
    if len(weight) == 2:
        linear.coef_, linear.intercept_ = linear.coef_[None], np.array([linear.intercept_])
    linear.classes_ = np.arange(len(weight))
    return Fitted(make_pipeline(scaler, ends, linear), math.nan)
