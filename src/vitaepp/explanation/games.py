"""What is left of a score when parts of an image are taken away, in two ways.

In the one, the patches of a part are left out: the encoder does not get them, as in the training of
a masked autoencoder, and it has less to do. In the other, their voxels become grey: the simple way,
which every network allows, but which shows it images that it has never seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vitaepp.data.arrays import Flags, Floats, Indices
from vitaepp.encoder.model import Encoder, at_once
from vitaepp.explanation.pooling import Edges, pool_visible
from vitaepp.explanation.scores import Scores
from vitaepp.nn.patches import patchify
from vitaepp.nn.pooling import GRADIENTS
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.system.devices import autocast

#: Tokens that are encoded at a time: what a processor's caches hold is enough for it.
CPU_TOKENS, DEVICE_TOKENS = 2**11, 2**15


@dataclass(frozen=True, eq=False)
class _Game:
    """An image, its parts, and the score that is asked for.

    Attributes:
        encoder: any; with a vision transformer where patches are left out.
        image: standardised, so that 0 is the mean.
        parts: the part that each patch, `(*grid)`, or each voxel, `(*space)`, belongs to.
        scores: of features, and what stands in for absent ones.
        column: which of the scores.
        precision: of the encoder.
    """

    encoder: Encoder
    image: Float[Tensor, "1 channel *space"]
    parts: Indices
    scores: Scores
    column: int
    precision: str


class LeftOut(_Game):
    """The score of an image of which the encoder gets the patches of some parts only."""

    def __call__(self, coalitions: Flags) -> Floats:
        """The score of each coalition of parts; of none, that of the absent features."""
        shown = coalitions[:, self.parts.ravel()]
        counts = shown.sum(axis=1)
        features = np.tile(self.scores.absent, (len(shown), 1))
        at_a_time = CPU_TOKENS if self.image.device.type == "cpu" else DEVICE_TOKENS
        # Only images with equally many patches can be encoded together.
        for count in np.unique(counts[counts > 0]):
            rows = np.flatnonzero(counts == count)
            step = max(1, at_a_time // int(count + 1))
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                features[some] = self._features(shown[some].nonzero()[1].reshape(len(some), -1))
        return self.scores(features)[:, self.column]

    def _features(self, indices: Indices) -> npt.NDArray[np.float32]:
        backbone, config = self.encoder.backbone, self.encoder.config
        assert isinstance(backbone, VisionTransformer)
        visible = torch.from_numpy(indices).to(self.image.device)
        absent = torch.from_numpy(self.scores.absent).to(self.image.device)
        patches = patchify(self.image, backbone.patch_size).expand(len(visible), -1, -1)
        with torch.inference_mode(), autocast(visible.device, self.precision):
            tokens = backbone.encode(patches, visible, blocks=config.block)
        pooled = pool_visible(
            tokens.float(), visible, config.pool, backbone.grid, absent, self._edges
        )
        return pooled.cpu().numpy()

    @cached_property
    def _edges(self) -> Edges | None:
        backbone, parts = self.encoder.backbone, self.encoder.config.pool.split("+")
        return Edges.of(self.image, backbone.grid) if GRADIENTS in parts else None


class Greyed(_Game):
    """The score of an image of which all voxels but those of some parts have its mean intensity."""

    def __call__(self, coalitions: Flags) -> Floats:
        """The score of each coalition of parts."""
        on, config = self.image.device, self.encoder.config
        parts = torch.from_numpy(self.parts).to(on)
        step = at_once(on, self.image.shape[1:])
        features_of_each: list[npt.NDArray[Any]] = []
        for start in range(0, len(coalitions), step):
            kept = torch.from_numpy(coalitions[start : start + step]).to(on)
            images = self.image * kept[:, parts][:, None]
            with torch.inference_mode(), autocast(on, self.precision):
                features = self.encoder.backbone.features(images, config.pool, config.block)
            features_of_each.append(features.float().cpu().numpy())
        return self.scores(np.concatenate(features_of_each))[:, self.column]


def occlusion(game: Greyed, parts: int) -> Floats:
    """How much the score falls when one part becomes grey, `(part,)`: the simple control.

    Source:
        Zeiler & Fergus 2014.
    """
    all_but_one = ~np.eye(parts, dtype=bool)
    values = game(np.concatenate([np.ones((1, parts), bool), all_but_one]))
    return values[0] - values[1:]
