"""What every pre-training method is: images in, loss out, an encoder left at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.profiler import record_function

from vitaepp.losses.contrastive import feature_spread
from vitaepp.nn.backbone import Backbone
from vitaepp.nn.transformer import VisionTransformer, kept_branches
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe
from vitaepp.recipe.sections import ViewSettings
from vitaepp.views.draws import Draws
from vitaepp.views.transforms import random_view, seen_modalities, standardize, zero_missing

#: Images of a store, with intensities in [0, 255].
Images = Shaped[Tensor, "batch channel *space"]

#: Which channels each image has; None where all have all.
Present = Bool[Tensor, "batch channel"] | None


#: Share of the training that is done; a tensor where steps are replayed.
Progress = float | Float[Tensor, ""]


@dataclass
class StepOutput:
    """The result of a training step's forward pass.

    Attributes:
        terms: raw value of each loss term, by name.
        weights: factor of each term in the loss.
        monitors: what is watched but not optimised.
        features: `(vector, feature)` of one view, whose spread over the batch is watched.
        loss: the weighted sum of all terms.
    """

    terms: dict[str, Tensor]
    weights: dict[str, Progress]
    monitors: dict[str, Tensor] = field(default_factory=dict)
    features: Float[Tensor, "vector feature"] | None = None
    loss: Float[Tensor, ""] = field(init=False)

    def __post_init__(self) -> None:
        self.loss = torch.stack(list(self.weighted.values())).sum()
        if self.features is not None:
            self.features = self.features.detach()
            self.monitors = self.monitors | {"feature_spread": feature_spread(self.features)}

    @property
    def weighted(self) -> dict[str, Tensor]:
        """Each term as it enters the loss."""
        return {name: self.weights[name] * value for name, value in self.terms.items()}


class Method(nn.Module, ABC):
    """A pre-training method: images in, loss out, an encoder left at the end.

    Every method is built from the same three arguments; see `build_method`.

    Args:
        recipe: every setting.
        shape: what the backbone is built from; see `backbone_shape`.
        rgb: the three channels are colours of one image.

    Attributes:
        recipe: every setting.
        backbone: the part that is kept after training.
        pieces: of a batch, which threads of a CPU compute side by side (`training/pieces.py`).
        replays: steps that are recorded on a GPU and replayed (`training/replays.py`).
    """

    backbone: Backbone

    def __init__(self, recipe: Recipe, shape: Mapping[str, Any], rgb: bool = False) -> None:
        super().__init__()
        self.recipe = recipe
        self.pieces = 1
        self.replays: Callable[..., StepOutput] | None = None

    @property
    def smallest_batch(self) -> int:
        """Images that a step needs at least, on all devices together."""
        return METHODS[self.recipe.method].smallest_batch

    @property
    def by_image(self) -> bool:
        """Whether every term is a mean of what each image gives by itself.

        Then a batch may be computed in pieces. It may not where images of a batch are compared or
        normalised together.
        """
        return False

    @property
    def replayable(self) -> bool:
        """Whether a step is the same kernels whatever the batch and the progress are.

        Then it may be recorded on a GPU. Its `progress` is a tensor then.
        """
        return False

    def _kept_branches(
        self, draws: Draws, views: int = 1
    ) -> Float[Tensor, "encoded block branch"] | None:
        """Factors of a transformer's residual branches; None where none is dropped."""
        rate = self.recipe.model.drop_path
        if not rate or not self.training or not isinstance(self.backbone, VisionTransformer):
            return None
        depth = len(self.backbone.blocks)
        drawn = draws.uniform(views * depth * 2).unflatten(1, (views, depth, 2))
        return kept_branches(drawn.transpose(0, 1).flatten(0, 1), rate)

    @abstractmethod
    def forward(
        self, images: Images, draws: Draws, progress: float, present: Present = None
    ) -> StepOutput:
        """One training step up to its loss.

        Args:
            images: intensities in [0, 255], of any type.
            draws: the batch's random numbers.
            progress: share of the training that is done, from 0 to 1; a tensor for a method that
                is `replayable`.
            present: channels that each image has, at least one; all without it. Values in the
                other channels are ignored.
        """

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """What is trained, in groups, each with its factor of the learning rate."""
        return [([p for p in self.parameters() if p.requires_grad], 1.0)]

    def compile_parts(self, mode: str) -> None:
        """Let torch compile the slow parts in place; parameters keep their names.

        Args:
            mode: of `torch.compile`.
        """
        self.backbone.compile(mode=mode, dynamic=False)

    def backbone_loaded(self) -> None:
        """Called when other weights have been loaded into the backbone."""

    def after_step(self, progress: float) -> None:
        """Called after each step of the optimiser; most methods have nothing to do here.

        Args:
            progress: share of the training that is done, this step included.
        """


def two_views(
    images: Images, draws: Draws, settings: ViewSettings, present: Present = None
) -> tuple[Float[Tensor, "batch channel *space"], Float[Tensor, "batch channel *space"]]:
    """Two random views of each image, standardised.

    Args:
        images: intensities in [0, 255], of any type.
        draws: source of random numbers.
        settings: of the views.
        present: channels that each image has; all without it.
    """
    unit = zero_missing(images.float() / 255, present)
    # The baselines treat both views alike.
    first, second = (augmented_view(unit, draws, settings, "second", present) for _ in range(2))
    return first, second


@record_function("encoder")
def features(
    backbone: Backbone, view: Float[Tensor, "batch channel *space"], recipe: Recipe
) -> Float[Tensor, "batch embed_dim"]:
    """One vector an image for a loss to compare."""
    return backbone.features(view, compared(recipe.model.pool))


def compared(pool: str) -> str:
    """The pooling of what a loss compares: the CLS token where the embedding begins with it."""
    return "cls" if pool.partition("+")[0] == "cls" else "mean"


@record_function("views")
def augmented_view(
    unit: Float[Tensor, "batch channel *space"],
    draws: Draws,
    settings: ViewSettings,
    which: Literal["first", "second"],
    present: Present,
) -> Float[Tensor, "batch channel *space"]:
    """A random view of each image, standardised; channels that it does not show are 0.

    Args:
        unit: intensities in [0, 1], missing channels 0.
        draws: source of random numbers.
        settings: of the views.
        which: of the two views. The first one is what is reconstructed, and shows all that is
            there, whatever `views.modality_dropout` hides from the encoder.
        present: channels that each image has; all without it.
    """
    shown = present
    if which == "second":
        shown = seen_modalities(unit.shape[1], present, draws, settings)
    # Noise falls on missing channels, too, and would be all that is left of them.
    view = zero_missing(
        random_view(unit, draws, settings.of(which), "side" in settings.keep), shown
    )
    return standardize(view, settings.normalize, settings.cohort)
