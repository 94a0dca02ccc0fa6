"""What is left of a score when parts of an image are taken away, in two ways.

In the one, the patches of a part are left out: the encoder does not get them, as in the training of
a masked autoencoder, and it has less to do. In the other, their voxels become grey: the simple way,
which every network allows, but which shows it images that it has never seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vitaepp.encoder.model import Encoder, at_once
from vitaepp.explanation.pooling import pool_visible
from vitaepp.explanation.scores import Scores
from vitaepp.explanation.shapley import Floats
from vitaepp.nn.patches import patchify
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.system.devices import autocast

#: Tokens that are encoded at a time: what a processor's caches hold is enough for it.
CPU_TOKENS, DEVICE_TOKENS = 2**11, 2**15


class LeftOut:
    """The score of an image of which the encoder gets the patches of some parts only.

    Args:
        encoder: with a vision transformer.
        image: standardised.
        parts: `(*grid)`, the part that each patch belongs to.
        scores: of features, and what stands in for absent ones.
        column: which of the scores.
        precision: of the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        image: Float[Tensor, "1 channel *space"],
        parts: npt.NDArray[np.intp],
        scores: Scores,
        column: int,
        precision: str,
    ) -> None:
        assert isinstance(encoder.backbone, VisionTransformer)
        self.backbone, self.config = encoder.backbone, encoder.config
        self.patches = patchify(image, self.backbone.patch_size)
        self.parts, self.scores, self.column = parts.ravel(), scores, column
        self.precision = precision
        self.absent = torch.from_numpy(scores.absent).to(image.device)

    def __call__(self, coalitions: npt.NDArray[np.bool_]) -> Floats:
        """The score of each coalition of parts; of none, that of the absent features."""
        shown = coalitions[:, self.parts]
        counts = shown.sum(axis=1)
        features = np.tile(self.scores.absent, (len(shown), 1))
        at_a_time = CPU_TOKENS if self.patches.device.type == "cpu" else DEVICE_TOKENS
        # Only images with equally many patches can be encoded together.
        for count in np.unique(counts[counts > 0]):
            rows = np.flatnonzero(counts == count)
            step = max(1, at_a_time // int(count + 1))
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                features[some] = self._features(shown[some].nonzero()[1].reshape(len(some), -1))
        return self.scores(features)[:, self.column]

    def _features(self, indices: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        visible = torch.from_numpy(indices).to(self.patches.device)
        patches = self.patches.expand(len(visible), -1, -1)
        with torch.inference_mode(), autocast(visible.device, self.precision):
            tokens = self.backbone.encode(patches, visible, blocks=self.config.block)
        pooled = pool_visible(
            tokens.float(), visible, self.config.pool, self.backbone.grid, self.absent
        )
        return pooled.cpu().numpy()


class Greyed:
    """The score of an image of which all voxels but those of some parts have its mean intensity.

    Args:
        encoder: any.
        image: standardised, so that 0 is the mean.
        voxels: `(*space)`, the part that each voxel belongs to.
        scores: of features.
        column: which of the scores.
        precision: of the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        image: Float[Tensor, "1 channel *space"],
        voxels: npt.NDArray[np.intp],
        scores: Scores,
        column: int,
        precision: str,
    ) -> None:
        self.encoder, self.image, self.scores, self.column = encoder, image, scores, column
        self.voxels = torch.from_numpy(voxels).to(image.device)
        self.precision = precision

    def __call__(self, coalitions: npt.NDArray[np.bool_]) -> Floats:
        """The score of each coalition of parts."""
        on, config = self.image.device, self.encoder.config
        step = at_once(on, self.image.shape[1:])
        found: list[npt.NDArray[Any]] = []
        for start in range(0, len(coalitions), step):
            kept = torch.from_numpy(coalitions[start : start + step]).to(on)
            images = self.image * kept[:, self.voxels][:, None]
            with torch.inference_mode(), autocast(on, self.precision):
                features = self.encoder.backbone.features(images, config.pool, config.block)
            found.append(features.float().cpu().numpy())
        return self.scores(np.concatenate(found))[:, self.column]


def occlusion(game: Greyed, parts: int) -> Floats:
    """How much the score falls when one part becomes grey, `(part,)`: the simple control.

    Source:
        Zeiler & Fergus 2014.
    """
    all_but_one = ~np.eye(parts, dtype=bool)
    values = game(np.concatenate([np.ones((1, parts), bool), all_but_one]))
    return values[0] - values[1:]
