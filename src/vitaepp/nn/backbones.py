"""Backbones: the networks that a method trains and an encoder keeps, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitaepp.nn.backbone import Backbone

#: Backbones by the name that a recipe gives them, and what each is called in print.
BACKBONES = {"vit": "ViT", "resnet18": "ResNet-18", "resnet50": "ResNet-50"}


def build_backbone(name: str, shape: Mapping[str, Any]) -> Backbone:
    """A freshly initialised backbone.

    Args:
        name: one of `BACKBONES`.
        shape: arguments of `VisionTransformer`, or of `ResNet` after its name.
    """
    if name == "vit":
        from vitaepp.nn.transformer import VisionTransformer

        return VisionTransformer(**shape)
    # Only here, because this one needs MONAI, and training a transformer shall not.
    from vitaepp.nn.resnet import ResNet

    return ResNet(name, **shape)
