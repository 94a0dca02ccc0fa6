"""All that is used of other libraries beyond what they promise to keep, in one place.

Tested with torch 2.13 and zarr 3.1; pyproject.toml excludes the next major versions, lightning's
among them. `make test-latest` runs the tests with the newest releases. Each import stands in its
function, so that whoever needs one library does not load the other.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


#: Seconds that open reads have to end.
SECONDS_TO_END = 5.0


def zarr_buffer(data: bytes) -> Any:
    """Bytes as zarr's memory store holds them."""
    from zarr.core.buffer import default_buffer_prototype

    return default_buffer_prototype().buffer.from_bytes(data)


def end_reading() -> None:
    """Cancel what zarr was reading when an exception came while it waited, as by Ctrl-C.

    Left open, each of some hundred reads writes lines of its own when the interpreter ends.
    """
    sync = sys.modules.get("zarr.core.sync")
    loop = sync.loop[0] if sync else None
    if loop is None or not loop.is_running():
        return
    import asyncio

    async def end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with suppress(TimeoutError):  # a file system hangs
        asyncio.run_coroutine_threadsafe(end(), loop).result(SECONDS_TO_END)


def compile_error() -> type[Exception]:
    """What `torch.compile` raises when it cannot compile a model."""
    from torch._dynamo.exc import TorchDynamoException

    return TorchDynamoException


def fake_tensors() -> AbstractContextManager[Any]:
    """A context in which new tensors have shapes and no memory."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode()


def unscale_before_step(optimizer: torch.optim.Optimizer) -> None:
    """Let gradients be clipped in mixed precision, which Lightning refuses for fused optimizers.

    In half precision they would undo the scaling of gradients in their step, after the clipping.
    """
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]


def fused_attention_flops() -> dict[Any, Callable[..., int]]:
    """How to count fused attention on a CPU, which torch's counter does on GPUs only."""
    import torch
    from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

    operators = torch.ops.aten
    return {
        operators._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: (
            sdpa_flop_count(query, key, value)
        ),
        operators._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda gradient, query, key, value, *_, **__: sdpa_backward_flop_count(
                gradient, query, key, value
            )
        ),
    }


def times(tensors: Sequence[torch.Tensor], factor: torch.Tensor) -> Sequence[torch.Tensor]:
    """Each of many tensors times a number, on a GPU in few launches."""
    import torch

    return torch._foreach_mul(list(tensors), factor) if tensors else ()


class AliveBytes:
    """The bytes of all tensors that live at once, while `counting()` is entered.

    Attributes:
        now: bytes at this moment.
        peak: the most that there were.
    """

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._storages: set[int] = set()

    def counting(self) -> AbstractContextManager[Any]:
        """A context in which every tensor that torch makes is counted until it is gone."""
        from torch import Tensor
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils._pytree import tree_leaves

        counter = self

        class Counting(TorchDispatchMode):
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
                        counter._count(leaf)
                return result

        return Counting()  # type: ignore[no-untyped-call]  # by torch

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._storages:
            self._storages.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.now -= size
