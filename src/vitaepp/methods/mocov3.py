"""MoCo-v3 (Chen, Xie & He 2021): contrast with a slowly moving copy of the encoder."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vitaepp.losses.info_nce import info_nce
from vitaepp.methods.base import Images, Method, Present, StepOutput, features, two_views
from vitaepp.nn.backbones import build_backbone
from vitaepp.nn.heads import mlp_head
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.recipe.recipe import Recipe
from vitaepp.views.draws import Draws


class MoCoV3(Method):
    """Backbone, projector, predictor, and a momentum copy of the first two that gives the keys.

    Heads are the paper's: a transformer's projector has three layers and its predictor ends in a
    batch norm; a ResNet's have two and none.

    Args:
        recipe: every setting.
        shape: what the backbone is built from.
        rgb: plays no part.
    """

    def __init__(self, recipe: Recipe, shape: Mapping[str, Any], rgb: bool = False) -> None:
        super().__init__(recipe, shape, rgb)
        self.backbone = backbone = build_backbone(recipe.model.backbone, shape)
        settings = recipe.mocov3
        hidden, out = settings.hidden_dim, settings.projection_dim
        transformer = isinstance(backbone, VisionTransformer)
        layers = (hidden, hidden) if transformer else (hidden,)
        self.projector = mlp_head((backbone.embed_dim, *layers, out), last_norm=True)
        self.predictor = mlp_head((out, hidden, out), last_norm=transformer)
        if isinstance(backbone, VisionTransformer) and settings.freeze_patch_embed:
            backbone.patch_embed.requires_grad_(False)
        self.momentum_backbone = _copy(backbone).requires_grad_(False)
        self.momentum_projector = _copy(self.projector).requires_grad_(False)

    def forward(
        self, images: Images, draws: Draws, progress: float, present: Present = None
    ) -> StepOutput:
        """Symmetric InfoNCE: the queries of each view against the keys of the other."""
        temperature = self.recipe.mocov3.temperature
        views = two_views(images, draws, self.recipe.views, present)
        z1, z2 = (self.projector(features(self.backbone, view, self.recipe)) for view in views)
        q1, q2 = self.predictor(z1), self.predictor(z2)
        with torch.no_grad():
            k1, k2 = (
                self.momentum_projector(features(self.momentum_backbone, view, self.recipe))
                for view in views
            )
        loss = info_nce(q1, k2, temperature) + info_nce(q2, k1, temperature)
        share = loss.new_tensor(momentum(self.recipe.mocov3.momentum, progress))
        return StepOutput({"contrastive": loss}, {"contrastive": 1.0}, {"momentum": share}, z1)

    def compile_parts(self, mode: str) -> None:
        """The backbone, and the copy that gives the keys."""
        super().compile_parts(mode)
        self.momentum_backbone.compile(mode=mode, dynamic=False)

    def after_step(self, progress: float) -> None:
        """Move the copy a little towards the trained weights."""
        keep = momentum(self.recipe.mocov3.momentum, progress)
        with torch.no_grad():
            for moving, trained in self._pairs():
                # Statistics of batch norms are not weights; the copy keeps its own.
                for slow, fast in zip(moving.parameters(), trained.parameters(), strict=True):
                    slow.lerp_(fast, 1 - keep)

    def backbone_loaded(self) -> None:
        """Make the copy equal to what it copies."""
        for moving, trained in self._pairs():
            moving.load_state_dict(trained.state_dict())

    def _pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [
            (self.momentum_backbone, self.backbone),
            (self.momentum_projector, self.projector),
        ]


def _copy(module: nn.Module) -> Any:
    """A deep copy that also works on tensors without data, whose storage cannot be copied."""
    copies: dict[int, Any] = {id(b): b.clone() for b in module.buffers()}
    copies |= {id(p): nn.Parameter(p.detach().clone()) for p in module.parameters()}
    return copy.deepcopy(module, copies)


def momentum(base: float, progress: float) -> float:
    """How much of the copy stays at a step: from `base` at the start to 1 at the end, by a cosine.

    Source:
        Chen, Xie & He 2021, section 4 (after Grill et al. 2020).

    Example:
        >>> momentum(0.99, 0.0), momentum(0.99, 1.0)
        (0.99, 1.0)
    """
    return 1 - (1 - base) * (1 + math.cos(math.pi * progress)) / 2
