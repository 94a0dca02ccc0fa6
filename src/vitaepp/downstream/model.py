"""A fitted classifier on disk, with the encoder that it belongs to.

MODEL/
  model.json          what it is: label, classes, C, calibration, how scans are prepared; and the
                      SHA-256 of every other file
  classifier.skops    the scikit-learn pipeline; opening it runs no code
  cohort.safetensors  features of the subjects that it was fitted on, without their names, and what
                      distances to them need
  metrics.json        its cross-validated scores, and those of the controls
  encoder/            config.json and model.safetensors

The folder is whole in itself. A file of another model, or of another encoder, is refused.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Floats, Numbers
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.downstream.distance import Cohort
from vitaepp.encoder.model import Encoder
from vitaepp.errors import EvaluationError, ModelError, ModelNotFoundError, one_line
from vitaepp.evaluation.calibration import Calibration
from vitaepp.evaluation.classifier import Fitted
from vitaepp.evaluation.result import Evaluation
from vitaepp.presentation.notebook import Tabular
from vitaepp.system.extras import require
from vitaepp.system.files import read_json, write_json
from vitaepp.system.paths import instead_of
from vitaepp.system.progress import say

#: Of the folders that are written; and those that are read.
FORMAT, FORMATS = 2, (1, 2)

#: Files of a model, besides model.json.
FILES = (
    "classifier.skops",
    "cohort.safetensors",
    "metrics.json",
    "encoder/config.json",
    "encoder/model.safetensors",
)

#: What a pipeline of ours is made of.
STEPS = (
    *("StandardScaler", "FunctionTransformer"),
    *("SVC", "OneVsRestClassifier", "LogisticRegression"),
)

#: What skops does not know to be harmless.
TRUSTED = ["numpy.clip"]

#: Columns of predictions, in files and tables, that no class may be called.
COLUMNS = ("subject", "percentile", "notes")

#: Subjects whose decision scores are kept, to tell whether the classifier still gives them.
SAMPLE = 16


@dataclass(frozen=True, eq=False, repr=False)
class Model(Tabular):
    """A classifier of features, its encoder, and the cohort that it was fitted on.

    Attributes:
        label: the column that it predicts.
        classes: in the order of the probabilities.
        encoder: what gives the features.
        prepared: how the images of the cohort were prepared, as new ones must be.
        precision: with which features are computed.
        classifier: of features, and its C; NaN where it was fine-tuned with the encoder.
        calibration: from its decision scores to probabilities.
        cohort: the features that it was fitted on.
        metrics: what `evaluate` found in cross-validation, as in metrics.json.

    Example:
        >>> model = Model.load("model")                       # doctest: +SKIP
        >>> model.probabilities(features).sum(axis=1)         # doctest: +SKIP
    """

    label: str
    classes: tuple[Any, ...]
    encoder: Encoder
    prepared: StoreInfo
    precision: str
    classifier: Fitted
    calibration: Calibration
    cohort: Cohort
    metrics: Mapping[str, Any]

    def probabilities(self, features: Numbers) -> Floats:
        """The probability of each class, `(subject, class)`."""
        return self.calibration.probabilities(self.classifier.decision(features))

    def percentiles(self, features: Numbers) -> Floats:
        """How far subjects are from the cohort, see `Cohort.percentiles`."""
        return self.cohort.percentiles(features)

    def to_frame(self) -> pd.DataFrame:
        """Its cross-validated scores, as `Evaluation.to_frame` has them."""
        return Evaluation(dict(self.metrics)).to_frame()

    def __repr__(self) -> str:
        auc, spread = self.metrics["mean"]["auc"], self.metrics["std"]["auc"]
        score = f"{auc:.3f}" + ("" if spread is None else f" ± {spread:.3f}")
        return (
            f"Model({self.label}: {', '.join(map(str, self.classes))}; fitted on "
            f"{len(self.cohort.own)} subjects; AUC in {self._validation} {score})"
        )

    @property
    def _validation(self) -> str:
        folds = len(self.metrics["folds"])
        return "the test split" if folds == 1 else f"{folds}-fold cross-validation"

    def write(self, folder: Path) -> None:
        """Write it into a folder that has metrics.json and the encoder already."""
        from safetensors.numpy import save

        if not any(self.calibration.slopes):
            say(
                f"label {self.label!r}: the classifier tells nothing about subjects that it was "
                "not fitted on; every prediction is how frequent the classes are"
            )
        skops = skops_io("keeping a classifier needs")
        skops.dump(self.classifier.model, folder / "classifier.skops")
        (folder / "cohort.safetensors").write_bytes(save(vars(self.cohort)))
        sample = self.classifier.decision(self.cohort.features[:SAMPLE])
        facts = {
            "format": FORMAT,
            "label": self.label,
            "classes": list(self.classes),
            "subjects": len(self.cohort.own),
            "C": None if math.isnan(self.classifier.C) else self.classifier.C,
            "calibration": asdict(self.calibration),
            "precision": self.precision,
            "prepared": asdict(self.prepared),
            "decisions": sample.tolist(),
            "files": {name: _digest(folder / name) for name in FILES},
        }
        write_json(folder / "model.json", facts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """Read a model's folder, without running any code in it.

        Raises:
            ModelError: it is missing, damaged, of another version, or put together of several.
            MissingPackageError: skops is not installed.
        """
        folder = Path(path)
        if not (folder / "model.json").is_file():
            raise ModelNotFoundError(f"{folder}: {instead_of('model', folder)}")
        try:
            facts = read_json(folder / "model.json")
            version, digests = facts["format"], facts["files"]
            if version in FORMATS:
                _check_files(folder, digests)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(
                f"{folder / 'model.json'}: damaged ({one_line(error)}); fit the model again"
            ) from None
        if version not in FORMATS:
            raise ModelError(f"{folder}: made by another version of vitaepp; fit the model again")
        try:
            return cls._read(folder, facts)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"{folder}: not a model of vitaepp: {one_line(error)}") from None

    @classmethod
    def _read(cls, folder: Path, facts: Mapping[str, Any]) -> Model:
        from safetensors.numpy import load_file

        arrays = load_file(folder / "cohort.safetensors")
        if facts["format"] == 1:  # it kept neither this distance nor which images are of one person
            cohort = Cohort.of(arrays["features"], np.arange(len(arrays["features"])))
        else:
            cohort = Cohort(**arrays)
        curves = {name: tuple(values) for name, values in facts["calibration"].items()}
        model = cls(
            label=facts["label"],
            classes=tuple(facts["classes"]),
            encoder=Encoder.from_pretrained(folder / "encoder"),
            prepared=StoreInfo.parse(facts["prepared"]),
            precision=facts["precision"],
            classifier=Fitted(
                _read_classifier(folder / "classifier.skops"),
                math.nan if facts["C"] is None else facts["C"],
            ),
            calibration=Calibration(**curves),
            cohort=cohort,
            metrics=read_json(folder / "metrics.json"),
        )
        width = model.cohort.features.shape[1]
        if width != model.encoder.dim:
            raise ModelError(
                f"{folder}: fitted to {width} features, but its encoder gives {model.encoder.dim}, "
                "because an earlier version pooled them otherwise; embed again and fit the model "
                "again"
            )
        decisions = model.classifier.decision(model.cohort.features[:SAMPLE])
        if not np.allclose(decisions, facts["decisions"], rtol=1e-4, atol=1e-4):
            raise ModelError(
                f"{folder}: gives other scores than when it was fitted, as another version of "
                "scikit-learn may; fit the model again"
            )
        return model


def check_classes(label: str, classes: Sequence[Any]) -> None:
    """Refuse a class that is called like another column of predictions.

    Raises:
        EvaluationError: naming it.
    """
    if clash := {*COLUMNS} & {str(c) for c in classes}:
        raise EvaluationError(
            f"label {label!r} has a class {min(clash)!r}, which is a column of predictions; "
            "rename the class"
        )


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Refuse files that are not those of when the model was written."""
    for name in FILES:
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: {name} is missing; copy the folder whole")
        if _digest(folder / name) != digests[name]:
            raise ModelError(
                f"{folder}: {name} is damaged or of another model; copy the folder whole, or fit "
                "the model again"
            )


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def skops_io(purpose: str) -> Any:
    """The module of skops that reads and writes, or one line that names the extra."""
    require("skops", "model", purpose)
    return require("skops.io", "model", purpose)


def _read_classifier(path: Path) -> Any:
    """The pipeline in a file of skops, if it is one of ours."""
    skops = skops_io("opening a classifier needs")
    try:
        types = sorted({*skops.get_untrusted_types(file=path)} - {*TRUSTED})
        pipeline = None if types else skops.load(path, trusted=TRUSTED)
    except Exception as error:  # whatever zipfile and skops make of a damaged file
        raise ModelError(f"{path}: not a classifier: {one_line(error)}") from None
    steps = [type(step).__name__ for _, step in getattr(pipeline, "steps", ())]
    if not steps or not {*steps} <= {*STEPS}:
        named = ", ".join([*types, *steps][:3]) or type(pipeline).__name__
        raise ModelError(f"{path}: not a classifier of vitaepp, but of {named}; it is not opened")
    return pipeline
