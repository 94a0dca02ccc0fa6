"""Memory and operations of a training step, counted without computing it.

The method's own code runs forward and backward on fake tensors, which have shapes but no data. The
bytes that live at once are counted, and every multiplication, so no formula has to follow the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vitaepp.methods import Method, build_method
from vitaepp.nn.vgg import known_weights
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.compat import AliveBytes, fake_tensors, fused_attention_flops
from vitaepp.training.sharding import recompute_blocks
from vitaepp.views.draws import Draws

#: Images of the smaller batch that is traced: enough for every method. The other has twice as many.
TRACED = max(facts.smallest_batch for facts in METHODS.values())


@dataclass(frozen=True)
class Footprint:
    """What a training step takes.

    Attributes:
        fixed: bytes of weights, gradients and the optimiser's two moments, and what a step needs
            once whatever its batch, such as weights in half precision.
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
        # The perceptual loss takes the same memory and operations with any weights.
        recipe = recipe.changed(loss={"perceptual": {"weights": "random"}})
    # Nor do the cohort's mean and deviation.
    recipe = recipe.changed(views={"normalize": "crop"})
    alive = AliveBytes()
    flops = FlopCounterMode(display=False, custom_mapping=fused_attention_flops())
    with fake_tensors(), alive.counting():
        method = build_method(recipe, channels, image_size)
        if recipe.trainer.activation_checkpointing:
            recompute_blocks(method)
        trained = _drop_gradients(method)

        def peak(batch: int) -> int:
            alive.peak = alive.now
            images = torch.empty(batch, channels, *image_size)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = method(images, Draws(0, 0, range(batch)), progress=0.0).loss
            loss.backward()
            return alive.peak

        few = peak(TRACED)
        with flops:
            many = peak(2 * TRACED)
    per_image = max(0, many - few) // TRACED
    return Footprint(
        fixed=few + 3 * trained - TRACED * per_image,
        per_image=per_image,
        flops=flops.get_total_flops() / (2 * TRACED),
    )


def _drop_gradients(method: Method) -> int:
    """Forget each gradient as soon as it is computed; return the bytes of all of them."""

    def forget(parameter: Tensor) -> None:
        parameter.grad = None

    trained = [p for p in method.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(forget)
    return sum(p.numel() * p.element_size() for p in trained)
