"""Segmentation: an encoder and UNETR's decoder learn the masks of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped, UInt8
from monai.inferers.utils import sliding_window_inference
from monai.losses.dice import DiceLoss
from torch import Tensor
from torch.nn import functional as F

from vitaepp.methods.base import Images, Present, StepOutput
from vitaepp.methods.supervised import FineTuned
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.nn.unetr import UnetrDecoder
from vitaepp.recipe.recipe import Recipe
from vitaepp.views.draws import Draws
from vitaepp.views.transforms import random_view_of, standardize, zero_missing

#: Windows overlap by this share of their side.
OVERLAP = 0.5

#: A score that leaves no probability to the others.
SURE = 1e4


class Segmenter(FineTuned):
    """A transformer and a decoder that learn which label each voxel has.

    The loss is Dice and cross-entropy. A label of few voxels hardly counts in a mean over voxels,
    and Dice has no gradient where its probability is 0: it can be lost in the first steps and not
    come back. So the cross-entropy has a weight for each label.

    Images may be larger than what the transformer takes: a step then sees a random window of each,
    every other one around a voxel with a label; a whole image is predicted by windows that overlap.

    Voxels that are to be ignored play no part in the loss.

    Args:
        recipe: every setting.
        backbone: where fine-tuning starts from; it is trained in place.
        masks: of the store's images, 0 the background and then 1, 2, …; the number after the last
            label is to be ignored.
        weights: of each label in the cross-entropy, the background's first.
        window: voxels per axis that the transformer takes.
        in_channels: of the images.
    """

    backbone: VisionTransformer

    def __init__(
        self,
        recipe: Recipe,
        backbone: VisionTransformer,
        masks: UInt8[Tensor, "row ..."],
        weights: Float[Tensor, " label"],
        window: Sequence[int],
        in_channels: int,
    ) -> None:
        super().__init__(recipe, backbone, None)
        self.masks, self.labels, self.window = masks, len(weights), tuple(window)
        self.ignores = bool((masks == self.labels).any())
        self.weights: Tensor
        self.register_buffer("weights", weights)
        self.decoder = UnetrDecoder(
            in_channels,
            backbone.embed_dim,
            len(backbone.blocks),
            backbone.patch_size,
            self.labels,
            recipe.finetune.width,
        )
        # On a CPU the backward pass of a convolution takes half the time with channels last.
        last = torch.channels_last_3d if len(self.window) == 3 else torch.channels_last
        self.decoder.to(memory_format=last)  # type: ignore[call-overload]  # not in its stubs
        self._dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True)

    def predict(
        self, images: Images, present: Present = None
    ) -> Float[Tensor, "batch label *space"]:
        """Scores of each label in each voxel of whole images, with intensities in [0, 255]."""
        unit = zero_missing(images.float() / 255, present)
        if tuple(unit.shape[2:]) == self.window:
            return self._scores(unit)
        scores = sliding_window_inference(
            unit, self.window, 1, self._scores, overlap=OVERLAP, mode="gaussian"
        )
        assert isinstance(scores, Tensor)
        return scores

    def evaluate(
        self, images: Images, rows: Sequence[int], present: Present = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The summed loss of whole images, and their number."""
        masks = self._masks(rows, images.device)
        scores = self.predict(images, present).float()
        losses = [self._loss(s[None], m[None], 1.0) for s, m in zip(scores, masks, strict=True)]
        return torch.stack(losses).sum(), torch.tensor(float(len(rows)))

    def forward(
        self, images: Images, draws: Draws, progress: float, present: Present = None
    ) -> StepOutput:
        """The loss of one random view of each image."""
        unit = zero_missing(images.float() / 255, present)
        masks = self._masks(draws.samples, images.device)
        unit, masks = self._windows(unit, masks, draws)
        shown = F.one_hot(masks.long(), self.labels + self.ignores).movedim(-1, 1)[:, 1:]
        views = self.recipe.views
        view, moved = random_view_of(
            unit, shown.to(unit.dtype), draws, views.of("first"), "side" in views.keep
        )
        # What comes from outside of the image is background.
        background = (1 - moved.sum(dim=1, keepdim=True)).clamp(min=0)
        target = torch.cat([background, moved], dim=1).argmax(dim=1)
        scores = self._scores(zero_missing(view, present), self._kept_branches(draws))
        return StepOutput({"mask": self._loss(scores.float(), target, progress)}, {"mask": 1.0})

    def _loss(
        self,
        scores: Float[Tensor, "batch label *space"],
        masks: Shaped[Tensor, "batch ..."],
        progress: float,
    ) -> Float[Tensor, ""]:
        # Without weights a rare label may be given up in the first steps and stay so; with them to
        # the end, too much is labelled.
        weights = self.weights ** (1 - progress)
        if self.ignores:
            known = masks < self.labels
            # As background that is surely found: no error of any label, and no gradient.
            sure = (torch.arange(self.labels, device=scores.device) == 0) * SURE
            scores = torch.where(known[:, None], scores, sure.view(-1, *(1,) * (masks.ndim - 1)))
            masks, weight = masks * known, weights[(masks * known).long()]
            rest = F.cross_entropy(scores, masks.long(), weights, reduction="sum")
            cross_entropy = rest / (weight * known).sum().clamp(min=1e-6)
        else:
            cross_entropy = F.cross_entropy(scores, masks.long(), weights)
        return self._dice(scores, masks[:, None]) + cross_entropy

    def _masks(self, rows: Sequence[int], device: torch.device) -> UInt8[Tensor, "batch ..."]:
        return self.masks[list(rows)].to(device)

    def _scores(
        self,
        unit: Float[Tensor, "batch channel *space"],
        kept: Float[Tensor, "batch block branch"] | None = None,
    ) -> Float[Tensor, "batch label *space"]:
        views = self.recipe.views
        view = standardize(unit, views.normalize, views.cohort)
        maps = self.backbone.feature_maps(view, self.decoder.after, kept)
        return self.decoder(view, maps)

    def _windows(
        self,
        unit: Float[Tensor, "batch channel *space"],
        masks: UInt8[Tensor, "batch ..."],
        draws: Draws,
    ) -> tuple[Tensor, Tensor]:
        """A random window of each image and of its mask; all of it where it is no larger."""
        space = tuple(unit.shape[2:])
        if space == self.window:
            return unit, masks
        drawn = draws.uniform(2 + len(space)).cpu()
        images, labels = [], []
        for image, mask, (where, which, *places) in zip(unit, masks, drawn.tolist(), strict=True):
            starts = [
                int(share * (n - w + 1))
                for share, n, w in zip(places, space, self.window, strict=True)
            ]
            inside = (mask % self.labels).nonzero()
            if where < 0.5 and len(inside):
                centre = inside[int(which * len(inside))].tolist()
                starts = [
                    min(max(c - w // 2, 0), n - w)
                    for c, n, w in zip(centre, space, self.window, strict=True)
                ]
            cut = tuple(slice(s, s + w) for s, w in zip(starts, self.window, strict=True))
            images.append(image[(slice(None), *cut)])
            labels.append(mask[cut])
        return torch.stack(images), torch.stack(labels)


def label_weights(masks: UInt8[Tensor, "image ..."], labels: int) -> Float[Tensor, " label"]:
    """A weight for each label, falling with the square root of how many voxels have it.

    With weights in inverse proportion to their number, one voxel of a small label would count as
    much as hundreds of the background, and too much would be labelled.

    Args:
        masks: 0 the background and then 1, 2, …; what is above the last label does not count.
        labels: number of labels, the background among them.

    >>> label_weights(torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.uint8), 2) ** 2
    tensor([1.0000, 7.0000])
    """
    counts = torch.bincount(masks.flatten(), minlength=labels)[:labels].clamp(min=1)
    return (counts[0] / counts).sqrt()
