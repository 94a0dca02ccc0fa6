"""Batch norm over the joint batch of all processes."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.nn import functional

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def join_batch_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch norm see the joint batch of all processes; names of parameters stay.

    Args:
        module: what is trained.
        device: where it is trained. On GPUs torch's own `SyncBatchNorm` is used, which exists for
            these only; elsewhere `JointBatchNorm`.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for part in module.modules():
        for name, child in part.named_children():
            if isinstance(child, BatchNorm):
                setattr(part, name, JointBatchNorm.like(child))
    return module


class JointBatchNorm(nn.BatchNorm3d):
    """Batch norm whose mean and variance are those of the joint batch, on any device.

    Equal to `torch.nn.BatchNorm` on the concatenated batch, its gradient and its running statistics
    included; processes may have different numbers of images.

    Source:
        Ioffe & Szegedy 2015, over processes as in torch's `SyncBatchNorm`.
    """

    @classmethod
    def like(cls, norm: BatchNorm) -> JointBatchNorm:
        """One that shares a batch norm's parameters and buffers."""
        joint = cls(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(joint, name, getattr(norm, name))
        return joint.train(norm.training)

    def forward(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch channel *space"]:
        """Standardise each channel by the joint batch; by the running statistics in evaluation."""
        if not self.training and self.running_mean is not None:
            known = (self.running_mean, self.running_var, self.weight, self.bias)
            return functional.batch_norm(x, *known, eps=self.eps)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = (1, -1, *(1,) * (x.ndim - 2))
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = sum_over_processes(torch.cat([values.sum(axes), count]))
        number = sums[-1].detach()
        mean = sums[:-1] / number
        # Deviations from the joint mean, because a difference of large squares would lose digits.
        centred = values - mean.view(shape)
        variance = sum_over_processes(centred.square().sum(axes)) / number
        self._note(mean.detach(), variance.detach(), number)
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)

    def _note(self, mean: Tensor, variance: Tensor, number: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # a plain average over all batches
            share = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (number / (number - 1)), share)


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor) -> Tensor:
        total = values.clone()
        if distributed.is_initialized():
            distributed.all_reduce(total)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """The sum's gradient needs nothing of its inputs."""

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        # Each process's loss depends on each process's values.
        return _SumOverProcesses.forward(gradient)


def sum_over_processes(values: Float[Tensor, " value"]) -> Float[Tensor, " value"]:
    """The sum over all processes, with the gradient of all of their losses."""
    total: Tensor = _SumOverProcesses.apply(values)  # type: ignore[no-untyped-call]  # by torch
    return total
