"""One training of a fine-tuning: an encoder and what is on top of it learn the labels of a fold."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vitaepp.data.checkpoints import newest_checkpoint
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.store import Store
from vitaepp.encoder.model import Encoder
from vitaepp.methods.supervised import FineTuned, Supervised, balanced_weights
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.files import atomic_path, read_json, write_json
from vitaepp.system.progress import say
from vitaepp.system.tensors import read_tensors, write_tensors
from vitaepp.training.held_out import HeldOut, over_rows
from vitaepp.training.launch import find_cluster
from vitaepp.training.module import Training
from vitaepp.training.run import train
from vitaepp.training.trainer import Processes, quiet_lightning

#: What a training in several processes calls in each of them.
TRAIN_FOLD = f"{__name__}:train_fold"

Task = Literal["classification", "regression", "segmentation"]

#: Masks that are read at a time.
BLOCK = 64

#: Epochs without a lower loss that say something. The head starts as a fitted model, and the first
#: steps, at the highest learning rate, mostly make it worse; it gets better as the rate falls.
ENOUGH = 3

#: Inverse strengths of regularisation that the head may start with.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Job:
    """The subjects of one training.

    Attributes:
        task: what is learned.
        fit: those that are trained on.
        held: those whose loss chooses the epoch.
        test: those that are predicted.
        targets: the class, from 0, or the value of each that is trained on or held out.
        classes: number of classes, or of labels with the background; 1 for a value.
        keep: keep the encoder and the head of classes.
    """

    task: Task
    fit: list[str]
    held: list[str]
    test: list[str]
    targets: Mapping[str, float | int]
    classes: int
    keep: bool = False

    def save(self, folder: RunFolder) -> None:
        """Write it into the folder of its training."""
        write_json(folder.path / "job.json", asdict(self))

    @classmethod
    def load(cls, folder: RunFolder) -> Job:
        """Read it from there."""
        return cls(**read_json(folder.path / "job.json"))


def predictions_file(folder: RunFolder) -> Path:
    """What was predicted for the test subjects, in their order; it is written last."""
    return folder.path / "predictions.npy"


def encoder_folder(folder: RunFolder) -> Path:
    """The fine-tuned encoder, where it is kept."""
    return folder.path / "encoder"


def head_file(folder: RunFolder) -> Path:
    """The head on it: how features are standardised, weights and biases."""
    return folder.path / "head.safetensors"


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
    run_folder, opened = RunFolder(folder, must_exist=False), Store(store)
    settings, job = Recipe.parse(recipe), Job.load(run_folder)
    row_of = {subject: row for row, subject in enumerate(opened.table["subject"].astype(str))}
    fit, held, test = ([row_of[s] for s in part] for part in (job.fit, job.held, job.test))
    encoder = Encoder.from_pretrained(run)
    if start == "scratch":
        info = encoder.image_info()
        encoder = Encoder.untrained(RunFolder(run).recipe(), info)
    targets = torch.zeros(len(opened), dtype=torch.float64)
    for subject, value in job.targets.items():
        targets[row_of[subject]] = value
    method = _method(job, encoder, settings, opened, targets, fit)
    best = run_folder.path / "best.safetensors"
    with quiet_lightning():
        cluster = find_cluster()
        checkpoint = newest_checkpoint(run_folder)
        if checkpoint is None and isinstance(method, Supervised):
            _start_head(method, opened, fit, held)
        patience = max(ENOUGH, math.ceil(settings.finetune.patience * settings.optim.epochs))
        monitor = HeldOut(opened, held, patience, best)
        resumed = checkpoint is not None
        module = Training(settings, opened, resumed, rows=fit, method=method)
        processes = Processes(cluster, 1 if cluster is None else cluster.world_size())
        summary = train(opened, fit, module, run_folder, checkpoint, processes, monitor)
    if summary is None:
        return  # the first process goes on
    method.load_state_dict(read_tensors(best), strict=False)
    if job.keep:
        assert isinstance(method, Supervised)
        _keep(encoder, method, settings, run_folder)
    predictions = _predictions(job, method, opened, test)
    write_json(run_folder.summary_file, summary | {"best_epoch": monitor.best})
    with atomic_path(predictions_file(run_folder)) as temporary, open(temporary, "wb") as file:
        np.save(file, predictions)
    # What could only be gone on with, or be predicted with once more.
    for path in (run_folder.checkpoint, run_folder.checkpoint_before, best):
        path.unlink(missing_ok=True)
    say(f"the lowest loss on the held-out part is {monitor.lowest:.4g}, after epoch {monitor.best}")


def _method(
    job: Job,
    encoder: Encoder,
    settings: Recipe,
    store: Store,
    targets: Tensor,
    fit: Sequence[int],
) -> FineTuned:
    """What is trained."""
    if job.task == "segmentation":
        from vitaepp.methods.segmenter import Segmenter, label_weights

        masks = torch.from_numpy(np.concatenate([*_masks(store)]))
        weights = torch.ones(job.classes)
        if settings.finetune.class_weights == "balanced":
            weights = label_weights(masks[list(fit)], job.classes)
        assert isinstance(encoder.backbone, VisionTransformer)
        shape = encoder.config.shape
        window, channels = shape["image_size"], shape["in_channels"]
        # Of all folds and both starts the decoder is the same, whatever was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            return Segmenter(settings, encoder.backbone, masks, weights, window, channels)
    if job.task == "regression":
        # In units of their own deviation, so that one learning rate suits any unit.
        return Supervised(settings, encoder.backbone, _standardised(targets, fit), None)
    codes = targets.long()
    weights = torch.ones(job.classes)
    if settings.finetune.class_weights == "balanced":
        weights = balanced_weights(codes[list(fit)], job.classes)
    return Supervised(settings, encoder.backbone, codes, weights)


def _keep(encoder: Encoder, method: Supervised, settings: Recipe, folder: RunFolder) -> None:
    """Write the encoder, which was trained in place, and the head."""
    model, views = settings.model, settings.views
    encoder.config = replace(
        encoder.config,
        name=f"{settings.name}, fine-tuned",
        pool=model.pool,
        block=model.pool_block,
        normalize=views.normalize,
        cohort=views.cohort,
        precision=settings.trainer.precision,
    )
    encoder.save(encoder_folder(folder))
    with atomic_path(head_file(folder)) as temporary:
        write_tensors(temporary, method.linear_model())


def _masks(store: Store) -> Iterator[npt.NDArray[np.uint8]]:
    """All masks of a store, with the labels 1, 2, … instead of their own values.

    What is to be ignored is the number after the last of them.
    """
    places = np.zeros(256, np.uint8)
    places[list(store.mask_labels)] = np.arange(1, len(store.mask_labels) + 1)
    places[list(store.ignored)] = len(store.mask_labels) + 1
    for start in range(0, len(store), BLOCK):
        yield places[store.read_masks(range(start, min(start + BLOCK, len(store))))]


def _predictions(job: Job, method: FineTuned, store: Store, rows: Sequence[int]) -> Any:
    """Scores, `(subject, class)`; values, `(subject,)`; or masks, `(subject, *space)`."""

    def predict(images: Tensor, _: list[int], present: Tensor) -> Tensor:
        scores = method.predict(images, present).float()
        return scores.argmax(dim=1).byte() if job.task == "segmentation" else scores

    outputs = torch.cat([part.cpu() for part in over_rows(method, store, rows, predict)]).numpy()
    if job.task != "regression":
        return outputs
    values = np.array([job.targets[subject] for subject in job.fit])
    return outputs[:, 0].astype(np.float64) * _deviation(values) + values.mean()


def _standardised(targets: Tensor, fit: Sequence[int]) -> Tensor:
    own = targets[list(fit)]
    return ((targets - own.mean()) / _deviation(own.numpy())).float()


def _deviation(values: Any) -> float:
    return float(values.std()) or 1.0


def _start_head(method: Supervised, store: Store, fit: Sequence[int], held: Sequence[int]) -> None:
    """Start the head as the linear model of the features that does best on the held-out part.

    It is a logistic regression, or a ridge regression where a value is learned.
    """

    def features(rows: Sequence[int]) -> Tensor:
        parts = over_rows(
            method, store, rows, lambda images, _, there: method.features(images, there)
        )
        return torch.cat([part.float().cpu() for part in parts])

    own, other = features(fit), features(held)
    method.set_features(own)
    # The head gets features of a smaller scale, so that its weights are larger.
    scale = own.shape[1] ** 0.5
    x, x_held = ((method.standardised(part) * scale).double().numpy() for part in (own, other))
    y, y_held = (method.targets[list(rows)].numpy() for rows in (fit, held))
    weights = None if method.classes == 1 else method.weights.numpy()
    weight, bias = min(
        _linear_models(x, y, weights), key=lambda m: _loss(m, x_held, y_held, weights)
    )
    with torch.no_grad():
        method.head.weight.copy_(torch.from_numpy(weight * scale))
        method.head.bias.copy_(torch.from_numpy(bias))


def _linear_models(x: Any, y: Any, weights: Any) -> list[tuple[Any, Any]]:
    """Weights `(class, feature)` and biases of linear models, one for each of `STRENGTHS`."""
    from sklearn.linear_model import LogisticRegression, Ridge

    models = []
    for C in STRENGTHS:
        if weights is None:
            ridge = Ridge(alpha=1 / C).fit(x, y)
            models.append((ridge.coef_[None], np.array([ridge.intercept_])))
            continue
        model = LogisticRegression(C=C, class_weight=dict(enumerate(weights)), max_iter=500)
        model.fit(x, y)
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:  # of two classes it has the difference
            weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
        models.append((weight, bias))
    return models


def _loss(model: tuple[Any, Any], x: Any, y: Any, weights: Any) -> float:
    """The loss that the network is trained by."""
    scores = x @ model[0].T + model[1]
    if weights is None:
        return float(np.square(scores[:, 0] - y).mean())
    tops = scores - scores.max(axis=1, keepdims=True)
    losses = np.log(np.exp(tops).sum(axis=1)) - tops[np.arange(len(y)), y]
    return float(np.average(losses, weights=weights[y]))
