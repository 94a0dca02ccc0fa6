"""Watch: every few epochs, how well neighbours among the features share a label.

It is for people who look at a training. It sees the labels of the training part, so that it must
not choose between models, and the training itself does not see it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int

from vitaepp.data.arrays import Indices
from vitaepp.data.loading import unlabelled
from vitaepp.data.participants import persons_of
from vitaepp.data.store import Store
from vitaepp.encoder.config import EncoderConfig
from vitaepp.encoder.model import Encoder, at_once
from vitaepp.errors import RecipeError
from vitaepp.methods import Method
from vitaepp.nn.backbones import Undrawn
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.devices import autocast
from vitaepp.system.progress import counted
from vitaepp.training.callbacks import Monitor

#: Share of the training's time that it may take.
SHARE = 0.02

#: Neighbours that vote; subjects that are embedded at most; classes at most.
NEIGHBOURS, MOST_SUBJECTS, MOST_CLASSES = 5, 512, 20

#: Begins the name of its column in metrics.csv.
COLUMN = "knn/"


def watch_of(store: Store, recipe: Recipe, rows: Sequence[int]) -> Watch | None:
    """What `trainer.watch` asks for; None where it is unset.

    Raises:
        RecipeError: the column is missing, or has no classes.
    """
    name = recipe.trainer.watch
    if name is None:
        return None
    if recipe.trainer.strategy == "fsdp":
        raise RecipeError(f"`watch={name}` does not go with trainer.strategy=fsdp; leave out one")
    given = ~unlabelled(store, name, f"`watch={name}`")[list(rows)]
    values = store.table[name].iloc[list(rows)]
    labelled = np.asarray(rows)[given]
    classes, codes = np.unique(values[given].astype(str).to_numpy(str), return_inverse=True)
    if not 2 <= len(classes) <= min(MOST_CLASSES, max(2, len(labelled) // 2)):
        raise RecipeError(
            f"`watch={name}`: {counted(len(classes), 'different value')} in "
            f"{counted(len(labelled), 'training subject')}; a column of classes is needed, of 2 to "
            f"{MOST_CLASSES}"
        )
    some = np.unique(np.linspace(0, len(labelled) - 1, MOST_SUBJECTS).round().astype(int))
    return Watch(store, recipe, labelled[some], codes[some])


class Watch(Monitor):
    """Scores the encoder of a training on some labelled training subjects.

    Args:
        store: what is trained on.
        recipe: every setting.
        rows: of the store, those that are embedded.
        codes: the class of each.

    Attributes:
        every: epochs from one score to the next; 0 before the first, whose time sets it.
    """

    def __init__(self, store: Store, recipe: Recipe, rows: Indices, codes: Indices) -> None:
        self.store, self.rows, self.codes = store, rows.tolist(), codes
        self.column = f"{COLUMN}{recipe.trainer.watch}"
        self.persons = persons_of(store.table)[rows]
        self.every = 0
        info = store.info
        with Undrawn():
            self.encoder = Encoder(EncoderConfig.of(recipe, info.modalities, info.size)).eval()

    def scores(
        self, method: Method, epoch: int, seconds: float, first: bool = True, last: bool = False
    ) -> dict[str, float]:
        """The column's value after an epoch; NaN where none is due. The last one always is."""
        if not first or (self.every and epoch % self.every and not last):
            return {self.column: math.nan}
        start = time.perf_counter()
        score = knn_score(self._features(method), self.codes, self.persons)
        if not self.every:
            took = time.perf_counter() - start
            self.every = max(1, math.ceil(took / (SHARE * max(seconds, 1e-6))))
        return {self.column: score}

    def state_dict(self) -> dict[str, Any]:
        """How often it looks."""
        return {"every": self.every}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Look as often as before."""
        self.every = state["every"]

    def _features(self, method: Method) -> npt.NDArray[np.float32]:
        # A copy, because the method's own may be compiled for hidden patches, and is in training.
        state, device = method.backbone.state_dict(), next(method.parameters()).device
        self.encoder.to(device)
        self.encoder.backbone.load_state_dict(
            {k: state[k] for k in self.encoder.backbone.state_dict()}
        )
        info = self.store.info
        size = at_once(device, info.shape)
        with torch.inference_mode(), autocast(device, self.encoder.config.precision):
            features = [
                self.encoder(torch.from_numpy(images).to(device)).float().cpu().numpy()
                for images in self.store.batches(size, self.rows)
            ]
        return np.concatenate(features)


def knn_score(
    features: Float[np.ndarray, "subject feature"],
    codes: Int[np.ndarray, " subject"],
    persons: Int[np.ndarray, " subject"],
    neighbours: int = NEIGHBOURS,
) -> float:
    """Balanced accuracy of nearest neighbours, each subject by the others.

    Features are standardised and compared by their cosine; nearer neighbours weigh more. No
    neighbour is an image of the same person.

    Args:
        features: of the subjects.
        codes: their classes, 0, 1, …
        persons: a number for the person of each.
        neighbours: how many vote.
    """
    values = np.asarray(features, np.float64)
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-12)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    likeness = values @ values.T
    likeness[persons[:, None] == persons[None]] = -np.inf
    nearest_ones = np.argsort(-likeness, axis=1, kind="stable")[:, :neighbours]
    weights = np.take_along_axis(likeness, nearest_ones, axis=1)
    weights = np.where(np.isfinite(weights), np.exp(weights), 0.0)
    votes = np.zeros((len(codes), codes.max() + 1))
    np.add.at(votes, (np.arange(len(codes))[:, None], codes[nearest_ones]), weights)
    right = votes.argmax(axis=1) == codes
    return float(np.mean([right[codes == c].mean() for c in np.unique(codes)]))
