"""What a training step takes: the real step, run on tensors without data.

The method's own code runs forward and backward on fake tensors, which have shapes but no storage;
what lives at once is counted, and every multiplication. No formula has to follow the code.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from vitaepp.methods import Method, build_method
from vitaepp.nn.vgg import known_weights
from vitaepp.recipe.recipe import Recipe
from vitaepp.training.sharding import recompute_blocks
from vitaepp.views.draws import Draws

#: Images of the batch that is traced; the contrastive baselines need two.
TRACED = 2


@dataclass(frozen=True)
class Footprint:
    """What a training step takes.

    Attributes:
        fixed: bytes of weights, gradients and the optimiser's two moments.
        per_image: bytes that each image of a batch adds at the peak.
        flops: floating-point operations for each image, forward and backward.
    """

    fixed: int
    per_image: int
    flops: float

    def memory(self, batch_size: int) -> int:
        """Bytes at the peak of a step."""
        return self.fixed + batch_size * self.per_image


def step_footprint(
    recipe: Recipe, channels: int, image_size: Sequence[int], *, bf16: bool = False
) -> Footprint:
    """What a step of this recipe takes, for images of this shape.

    Peak memory is that of float32 or, with `bf16`, of autocast on a CPU; a GPU's own kernels may
    need less. Libraries' workspaces and the process itself come on top.

    Args:
        recipe: every setting.
        channels: modalities.
        image_size: voxels per axis.
        bf16: count mixed precision.

    Raises:
        RecipeError: settings that do not fit the images or each other.
    """
    if known_weights(recipe.loss.perceptual.weights) != "none":
        # Whose weights the perceptual loss has makes no difference here.
        recipe = recipe.changed(loss={"perceptual": {"weights": "random"}})
    alive, flops = _Alive(), FlopCounterMode(display=False, custom_mapping=_cpu_attention())
    with FakeTensorMode(), alive:
        method = build_method(recipe, channels, image_size)
        if recipe.trainer.activation_checkpointing:
            recompute_blocks(method)
        weights = alive.now
        trained = _drop_gradients(method)
        with flops:
            images = torch.empty(TRACED, channels, *image_size)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                output = method(images, Draws(0, 0, range(TRACED)), progress=0.0)
            output.loss.backward()
    return Footprint(
        fixed=weights + 3 * trained,
        per_image=(alive.peak - weights) // TRACED,
        flops=flops.get_total_flops() / TRACED,
    )


def _cpu_attention() -> dict[Any, Any]:
    """How to count fused attention on a CPU, which torch's counter knows on GPUs only."""
    ops = torch.ops.aten
    return {
        ops._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: (
            sdpa_flop_count(query, key, value)
        ),
        ops._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda gradient, query, key, value, *_, **__: sdpa_backward_flop_count(
                gradient, query, key, value
            )
        ),
    }


def _drop_gradients(method: Method) -> int:
    """Forget each gradient when it is there; the bytes that all of them are."""

    def forget(parameter: Tensor) -> None:
        parameter.grad = None

    trained = [p for p in method.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(forget)
    return sum(p.numel() * p.element_size() for p in trained)


class _Alive(TorchDispatchMode):
    """Counts the bytes of all tensors that live at once.

    Attributes:
        now: bytes at this moment.
        peak: the most that there were.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
