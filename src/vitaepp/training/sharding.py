"""Less memory for a model: weights shared between devices, activations computed twice."""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from vitaepp.methods import Method, ViTAE
from vitaepp.nn.transformer import Block


def recompute_blocks(module: nn.Module) -> None:
    """Keep only what enters each transformer block; the backward pass computes the rest again.

    Source:
        Chen et al. 2016, "Training deep nets with sublinear memory cost".
    """
    for block in transformer_blocks(module):
        # What is random about a block is drawn before it, so that no random state needs to be kept.
        # Replaced in place, so that the weights keep their names.
        block.forward = partial(  # type: ignore[method-assign]
            checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
        )


def transformer_blocks(module: nn.Module) -> list[Block]:
    """Every transformer block in a module."""
    return [part for part in module.modules() if isinstance(part, Block)]


def shard(method: Method, mesh: DeviceMesh) -> None:
    """Spread a method's weights over the devices of a mesh, block by block (FSDP2).

    The network of the perceptual loss is not trained, and every device keeps all of it.
    """
    frozen: set[nn.Parameter] = set()
    if isinstance(method, ViTAE) and method.perceptual is not None:
        frozen = set(method.perceptual.parameters())
    for block in transformer_blocks(method):
        fully_shard(block, mesh=mesh)
    fully_shard(method, mesh=mesh, ignored_params=frozen)


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes, with the same checkpoints as any other training.

    Args:
        processes: how many there are.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(
            data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False
        )

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Put a checkpoint's weights and the optimiser's state where they belong.

        The network of the perceptual loss is in no checkpoint, and stays as it is.
        """
        assert self.lightning_module is not None
        self.lightning_module.strict_loading = False
        return super().load_checkpoint(checkpoint_path, weights_only=True)
