"""A loss whose gradients were computed together with it: `backward` only hands them over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vitaepp.methods import StepOutput
from vitaepp.system.compat import times


def with_gradients(
    output: StepOutput, gradients: Sequence[Tensor | None], trained: Sequence[Tensor]
) -> StepOutput:
    """The same result, whose loss hands over these gradients.

    Args:
        output: what a step gave; it is changed.
        gradients: of the loss, None where a weight plays no part.
        trained: the weights, in the order of the gradients.
    """
    output.loss = _Computed.apply(output.loss, gradients, *trained)  # type: ignore[no-untyped-call]
    return output


class _Computed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, loss: Tensor, gradients: Sequence[Tensor | None], *trained: Tensor
    ) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.gradients
        # On a GPU, looking at the factor would wait for the device.
        if above.device.type != "cpu" or float(above) != 1:
            known = iter(times([each for each in gradients if each is not None], above))
            gradients = [None if each is None else next(known) for each in gradients]
        return None, None, *gradients
