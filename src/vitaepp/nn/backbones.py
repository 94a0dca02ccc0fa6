"""Backbones: the networks that a method trains and an encoder keeps, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from vitaepp.nn.backbone import Backbone

#: Backbones by the name that a recipe gives them, and what each is called in print.
BACKBONES = {"vit": "ViT", "resnet18": "ResNet-18", "resnet50": "ResNet-50"}


#: What draws random weights. An initialiser of torch that dispatches by itself hides what it calls.
_DRAWS = (
    Tensor.normal_,
    Tensor.uniform_,
    init.kaiming_uniform_,
    init.normal_,
    init.uniform_,
)


class Undrawn(TorchFunctionMode):
    """Within it, networks are built without drawing their random weights.

    For networks whose weights are loaded next: drawing them takes longer than reading them. The
    state of the random generator stays as it is.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do what torch does, but leave tensors that would be drawn as they are."""
        kwargs = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


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
