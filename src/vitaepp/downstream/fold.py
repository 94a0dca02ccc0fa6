"""One training of a fine-tuning: a head and an encoder learn the labels of one fold."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from vitaepp.data.checkpoints import newest_checkpoint
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.store import Store
from vitaepp.encoder.model import Encoder
from vitaepp.methods.supervised import Supervised, balanced_weights
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.files import atomic_path, write_json
from vitaepp.system.progress import say
from vitaepp.system.tensors import read_tensors
from vitaepp.training.held_out import HeldOut, over_rows
from vitaepp.training.launch import find_cluster
from vitaepp.training.module import Training
from vitaepp.training.run import train
from vitaepp.training.trainer import Processes, quiet_lightning

#: What a training in several processes calls in each of them.
TRAIN_FOLD = f"{__name__}:train_fold"

#: Inverse strengths of regularisation that the head may start with.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Job:
    """The subjects of one training.

    Attributes:
        fit: those that are trained on.
        held: those whose loss chooses the epoch.
        test: those that are predicted.
        targets: the class, from 0, of each that is trained on or held out.
        classes: number of classes.
    """

    fit: list[str]
    held: list[str]
    test: list[str]
    targets: Mapping[str, int]
    classes: int

    @staticmethod
    def predictions(folder: RunFolder) -> Path:
        """Where the scores of the test subjects are, which is written last."""
        return folder.path / "predictions.parquet"

    def save(self, folder: RunFolder) -> None:
        """Write it into the folder of its training."""
        write_json(folder.path / "job.json", asdict(self))

    @classmethod
    def load(cls, folder: RunFolder) -> Job:
        """Read it from there."""
        return cls(**json.loads((folder.path / "job.json").read_text(encoding="utf-8")))


def train_fold(
    folder: str | os.PathLike[str],
    store: str | os.PathLike[str],
    run: str | os.PathLike[str],
    start: str,
    recipe: Mapping[str, Any],
) -> None:
    """Train on one fold, from the last checkpoint where there is one, and predict its test part.

    Args:
        folder: of this training, with its job.
        store: prepared store.
        run: of the pre-training.
        start: `pretrained`, or `scratch` for the weights that pre-training started from.
        recipe: every setting.
    """
    place, opened, settings = (
        RunFolder(folder, must_exist=False),
        Store(store),
        Recipe.parse(recipe),
    )
    job = Job.load(place)
    row_of = {subject: row for row, subject in enumerate(opened.table["subject"].astype(str))}
    fit, held, test = ([row_of[s] for s in part] for part in (job.fit, job.held, job.test))
    targets = torch.zeros(len(opened), dtype=torch.long)
    for subject, code in job.targets.items():
        targets[row_of[subject]] = code
    weights = torch.ones(job.classes)
    if settings.finetune.class_weights == "balanced":
        weights = balanced_weights(targets[fit], job.classes)
    encoder = Encoder.from_pretrained(run)
    if start == "scratch":
        encoder = Encoder.untrained(RunFolder(run).recipe(), opened.info)
    method = Supervised(settings, encoder.backbone, targets, weights)
    best = place.path / "best.safetensors"
    with quiet_lightning():
        cluster = find_cluster()
        checkpoint = newest_checkpoint(place)
        if checkpoint is None:
            _start_head(method, opened, fit, held)
        monitor = HeldOut(opened, held, settings.finetune.patience, best)
        module = Training(settings, opened, resumed=checkpoint is not None, rows=fit, method=method)
        processes = Processes(cluster, 1 if cluster is None else cluster.world_size())
        summary = train(opened, fit, module, place, checkpoint, processes, monitor)
    if summary is None:
        return  # another process tells
    method.load_state_dict(read_tensors(best), strict=False)
    scores = torch.cat(
        list(
            over_rows(method, opened, test, lambda images, _, there: method.predict(images, there))
        )
    )
    write_json(place.summary_file, summary | {"best_epoch": monitor.best})
    table = pd.DataFrame(scores.float().cpu().numpy(), columns=[f"{c}" for c in range(job.classes)])
    table.insert(0, "subject", job.test)
    with atomic_path(Job.predictions(place)) as temporary:
        table.to_parquet(temporary, index=False)
    # What could only be gone on with, or be predicted with once more.
    for file in (place.checkpoint, place.checkpoint_before, best):
        file.unlink(missing_ok=True)
    say(f"the lowest loss on the held-out part is {monitor.lowest:.4g}, after epoch {monitor.best}")


def _start_head(method: Supervised, store: Store, fit: Sequence[int], held: Sequence[int]) -> None:
    """Start the head as the logistic regression that does best on the held-out part."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    def features(rows: Sequence[int]) -> torch.Tensor:
        pooled = over_rows(
            method, store, rows, lambda images, _, there: method.features(images, there)
        )
        return torch.cat([part.float().cpu() for part in pooled])

    own, other = features(fit), features(held)
    method.set_features(own)
    # The head gets features of a smaller scale, so that its weights are larger.
    scale = own.shape[1] ** 0.5
    x, y = ((method.standardised(part) * scale).double().numpy() for part in (own, other))
    codes, held_codes = method.targets[list(fit)].numpy(), method.targets[list(held)].numpy()
    counts = dict(enumerate(method.weights.tolist()))
    sample = method.weights[held_codes].numpy()

    def loss(model: LogisticRegression) -> float:
        return float(log_loss(held_codes, model.predict_proba(y), sample_weight=sample))

    models = [
        LogisticRegression(C=C, class_weight=counts, max_iter=500).fit(x, codes) for C in STRENGTHS
    ]
    model = min(models, key=loss)
    weight: npt.NDArray[Any] = model.coef_ * scale
    bias: npt.NDArray[Any] = model.intercept_
    if len(weight) == 1:  # two classes, of which it has the difference
        weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
    with torch.no_grad():
        method.head.weight.copy_(torch.from_numpy(weight))
        method.head.bias.copy_(torch.from_numpy(bias))
