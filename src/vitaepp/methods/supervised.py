"""Fine-tuning: an encoder and a linear head learn labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from vitaepp.errors import RecipeError
from vitaepp.methods.base import Images, Method, Present, StepOutput, augmented_view
from vitaepp.nn.backbone import Backbone
from vitaepp.nn.pooling import GRADIENTS
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.recipe.recipe import Recipe
from vitaepp.views.draws import Draws
from vitaepp.views.transforms import standardize, zero_missing

#: Features that differ less than this between subjects tell nothing.
LEAST_DEVIATION = 1e-6

#: Standard deviations at which a feature ends that is of the image itself: a histogram of a cell
#: that is mostly empty would decide alone where it is not. What the network computes has no such
#: limit, as it moves away from its first mean and deviation while it learns.
LIMIT = 3.0


class FineTuned(Method):
    """A backbone whose last blocks are trained with something new on top of it.

    Args:
        recipe: every setting.
        backbone: where fine-tuning starts from; it is trained in place.
        last: the last of its blocks that is used; None for all.
    """

    backbone: Backbone

    def __init__(self, recipe: Recipe, backbone: Backbone, last: int | None) -> None:
        super().__init__(recipe, {})
        self.backbone = backbone
        self._trained = trained_parts(backbone.parts(last), recipe.finetune.blocks)
        backbone.requires_grad_(False)
        for part in self._trained:
            part.requires_grad_(True)

    @property
    def smallest_batch(self) -> int:
        """Images that a step needs at least."""
        return 1

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """What is new, then block by block from the last one, each learning more slowly."""
        inside = {id(p) for p in self.backbone.parameters()}
        groups = [([p for p in self.parameters() if id(p) not in inside], 1.0)]
        factor = 1.0
        for part in reversed(self._trained):
            factor *= self.recipe.finetune.layer_decay
            groups.append(([*part.parameters()], factor))
        return groups

    def train(self, mode: bool = True) -> FineTuned:
        """Training mode, in which what is frozen stays as it is: a batch norm, too."""
        super().train(mode)
        self.backbone.eval()
        for part in self._trained:
            part.train(mode)
        return self

    @abstractmethod
    def predict(
        self, images: Images, present: Present = None
    ) -> Float[Tensor, "batch class *space"]:
        """Scores of whole images.

        Args:
            images: intensities in [0, 255].
            present: channels that each image has; all without it.
        """

    @abstractmethod
    def evaluate(
        self, images: Images, rows: Sequence[int], present: Present = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The summed loss of whole images, and the sum of their weights.

        Args:
            images: intensities in [0, 255].
            rows: of the images in the store.
            present: channels that each image has; all without it.
        """


class Supervised(FineTuned):
    """A backbone and a head that learn the labels of images.

    The loss is the cross-entropy of classes, or the squared error of a value. What the head gets
    are the pooled features of the embedding, standardised by the mean and the deviation that
    `set_features` was given, and divided by the square root of their number. A step of the
    optimiser then changes what the head gives alike, however many features there are. Histograms of
    the image's gradients end at `LIMIT` deviations.

    Args:
        recipe: every setting.
        backbone: where fine-tuning starts from; it is trained in place.
        targets: `(row of the store,)`, the class of each row as a whole number, or its value;
            anything where a row is not trained on.
        weights: of each class in the loss; None for a value.

    Attributes:
        classes: number of classes; 1 for a value.
    """

    def __init__(
        self,
        recipe: Recipe,
        backbone: Backbone,
        targets: Shaped[Tensor, " row"],
        weights: Float[Tensor, " class"] | None = None,
    ) -> None:
        super().__init__(recipe, backbone, recipe.model.pool_block)
        self.classes = 1 if weights is None else len(weights)
        parts, widths = recipe.model.pool.split("+"), backbone.widths(recipe.model.pool)
        width = sum(widths)
        self.head = nn.Linear(width, self.classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.targets: Tensor
        self.weights: Tensor
        self.mean: Tensor
        self.deviation: Tensor
        self.limit: Tensor
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("weights", torch.ones(1) if weights is None else weights)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        limits = torch.tensor([LIMIT if part == GRADIENTS else torch.inf for part in parts])
        each = limits.repeat_interleave(torch.tensor(widths))
        self.register_buffer("limit", each, persistent=False)

    @property
    def by_image(self) -> bool:
        """Whether images count by themselves: none is mixed with another, and no batch norm."""
        return not self.recipe.finetune.mixup and isinstance(self.backbone, VisionTransformer)

    def set_features(self, features: Float[Tensor, "image feature"]) -> None:
        """Take the mean and the deviation that features are standardised by.

        Args:
            features: of the images that are trained on, before training.
        """
        self.mean.copy_(features.mean(dim=0))
        deviation = features.std(dim=0, correction=0)
        self.deviation.copy_(torch.where(deviation < LEAST_DEVIATION, 1.0, deviation))

    def standardised(
        self, features: Float[Tensor, "image feature"]
    ) -> Float[Tensor, "image feature"]:
        """Features as the head gets them."""
        units = (features.float() - self.mean) / self.deviation
        return units.clamp(-self.limit, self.limit) / features.shape[1] ** 0.5

    def linear_model(self) -> dict[str, Tensor]:
        """The head with what comes before it: `(feature - mean) / scale`, within `limit`.

        Returns:
            `mean`, `scale` and `limit`, `(feature,)`; `weight`, `(class, feature)`; `bias`.
        """
        root = self.mean.numel() ** 0.5
        standardised = {"mean": self.mean, "scale": self.deviation * root}
        standardised["limit"] = self.limit / root
        return standardised | {"weight": self.head.weight.detach(), "bias": self.head.bias.detach()}

    def features(self, images: Images, present: Present = None) -> Float[Tensor, "batch feature"]:
        """Pooled features of whole images, with intensities in [0, 255]."""
        unit, views = zero_missing(images.float() / 255, present), self.recipe.views
        return self._pooled(standardize(unit, views.normalize, views.cohort))

    def predict(self, images: Images, present: Present = None) -> Float[Tensor, "batch class"]:
        """What the head gives for whole images: a score of each class, or a value."""
        return self.head(self.standardised(self.features(images, present)))

    def evaluate(
        self, images: Images, rows: Sequence[int], present: Present = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The summed loss of whole images, and the sum of their weights."""
        targets = self.targets[list(rows)]
        losses = self._losses(self.predict(images, present), targets)
        return losses.sum(), self._counted(targets).sum()

    def _losses(
        self, scores: Float[Tensor, "batch class"], targets: Shaped[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """The weighted loss of each image."""
        if self.classes == 1:
            return F.mse_loss(scores[:, 0].float(), targets.float(), reduction="none")
        return F.cross_entropy(scores.float(), targets, self.weights, reduction="none")

    def _counted(self, targets: Shaped[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The weight of each image."""
        if self.classes == 1:
            return torch.ones_like(targets, dtype=torch.float32)
        return self.weights[targets]

    def forward(
        self, images: Images, draws: Draws, progress: float, present: Present = None
    ) -> StepOutput:
        """The loss of one random view of each image."""
        targets = self.targets[draws.samples]
        unit = zero_missing(images.float() / 255, present)
        view = augmented_view(unit, draws, self.recipe.views, "first", present)
        share = self._mixed_share(draws)
        mixed = torch.lerp(view.roll(1, dims=0), view, share.view(-1, *(1,) * (view.ndim - 1)))
        scores = self.head(self.standardised(self._pooled(mixed, self._kept_branches(draws))))
        # Zhang et al. 2018: each label by its share of the image.
        loss, counted = scores.new_zeros(()), scores.new_zeros(())
        for each, part in ((targets, share), (targets.roll(1), 1 - share)):
            loss = loss + (part * self._losses(scores, each)).sum()
            counted = counted + (part * self._counted(each)).sum()
        if len(draws) < len(draws.batch):
            # Images count by their weights in the whole batch; in a piece these may all be alike.
            counted = self._counted(self.targets[draws.batch]).sum() * len(draws) / len(draws.batch)
        return StepOutput({"label": loss / counted}, {"label": 1.0})

    def _pooled(
        self,
        view: Float[Tensor, "batch channel *space"],
        kept: Float[Tensor, "batch block branch"] | None = None,
    ) -> Float[Tensor, "batch feature"]:
        model = self.recipe.model
        return self.backbone.features(view, model.pool, model.pool_block, kept)

    def _mixed_share(self, draws: Draws) -> Float[Tensor, " batch"]:
        """How much of each image stays where it is mixed with the one before it in the batch."""
        alpha = self.recipe.finetune.mixup
        if not alpha:
            return torch.ones(len(draws), device=draws.device)
        from scipy.special import betaincinv

        drawn = draws.uniform(1)[:, 0]
        return torch.from_numpy(betaincinv(alpha, alpha, drawn.cpu().numpy())).to(drawn)


def trained_parts(parts: list[nn.ModuleList], blocks: int | str) -> list[nn.ModuleList]:
    """The last parts of a backbone, as many as are trained.

    Raises:
        RecipeError: there are not so many.
    """
    if isinstance(blocks, str):
        return parts
    if blocks >= len(parts):
        raise RecipeError(
            f"finetune.blocks={blocks}: the features pass {len(parts) - 1} blocks; give as many at "
            "most, or all"
        )
    return parts[len(parts) - blocks :]


def balanced_weights(codes: Int[Tensor, " image"], classes: int) -> Float[Tensor, " class"]:
    """A weight for each class, so that each counts alike and the mean over images is 1.

    >>> balanced_weights(torch.tensor([0, 0, 0, 1]), 2)
    tensor([0.6667, 2.0000])
    """
    counts = torch.bincount(codes, minlength=classes)
    return len(codes) / (classes * counts.clamp(min=1)).float()
