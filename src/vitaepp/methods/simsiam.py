"""SimSiam (Chen & He 2021): two views of an image predict each other's projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitaepp.losses.contrastive import contrastive_loss
from vitaepp.methods.base import Images, Method, Present, StepOutput, features, two_views
from vitaepp.nn.backbones import build_backbone
from vitaepp.nn.heads import mlp_head
from vitaepp.recipe.recipe import Recipe
from vitaepp.views.draws import Draws


class SimSiam(Method):
    """Backbone, projector, predictor; no negatives, and a stop-gradient against collapse.

    Args:
        recipe: every setting.
        shape: what the backbone is built from.
        rgb: plays no part.
    """

    def __init__(self, recipe: Recipe, shape: Mapping[str, Any], rgb: bool = False) -> None:
        super().__init__(recipe, shape, rgb)
        self.backbone = build_backbone(recipe.model.backbone, shape)
        width, hidden = recipe.simsiam.projection_dim, recipe.simsiam.prediction_dim
        self.projector = mlp_head((self.backbone.embed_dim, width, width, width), last_norm=True)
        self.predictor = mlp_head((width, hidden, width), last_norm=False)

    def forward(
        self, images: Images, draws: Draws, progress: float, present: Present = None
    ) -> StepOutput:
        """Symmetric negative cosine between predictions and the other view's projections."""
        # Each view goes through on its own, for its own statistics in every batch norm.
        z1, z2 = (
            self.projector(features(self.backbone, view, self.recipe)).float()
            for view in two_views(images, draws, self.recipe.views, present)
        )
        p1, p2 = self.predictor(z1).float(), self.predictor(z2).float()
        terms = {"contrastive": contrastive_loss((p1, p2), (z1, z2))}
        return StepOutput(terms, {"contrastive": 1.0}, features=z1)
