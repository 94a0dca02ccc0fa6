"""InfoNCE between the two views of a batch, with every other image as a negative (MoCo-v3)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.nn import functional as F


def info_nce(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "batch dim"],
    temperature: float,
) -> Float[Tensor, ""]:
    """InfoNCE: each query is classified as its own key among the keys of all processes' images.

    2τ · mean_i −log( exp(q_i·k_i / τ) / Σ_j exp(q_i·k_j / τ) ), for vectors of unit length. The
    factor 2τ keeps the size of the gradient if τ changes. No gradient flows into the keys.

    Args:
        queries: predictions of one view.
        keys: the momentum encoder's projections of the other view, in the same order.
        temperature: τ.

    Source:
        Chen, Xie & He 2021, Eq. 1 and Algorithm 1.

    Example:
        >>> loss = info_nce(torch.eye(2), torch.eye(2), temperature=1.0)
        >>> round(loss.item(), 4)  # 2 log(1 + 1/e)
        0.6265
    """
    q = F.normalize(queries.float(), dim=-1)
    k, first = gather_batches(F.normalize(keys.detach().float(), dim=-1))
    own = torch.arange(first, first + len(q), device=q.device)
    return 2 * temperature * F.cross_entropy(q @ k.T / temperature, own)


def gather_batches(
    values: Float[Tensor, "batch dim"],
) -> tuple[Float[Tensor, "joint dim"], int]:
    """The rows of all processes in order of rank, without gradient, and the index of our first row.

    Processes may have different numbers of rows.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return values, 0
    processes, rank = distributed.get_world_size(), distributed.get_rank()
    counts = [torch.zeros(1, dtype=torch.long, device=values.device) for _ in range(processes)]
    distributed.all_gather(counts, counts[0].new_tensor([len(values)]))
    rows = torch.cat(counts).tolist()
    # Gathered tensors need one size, so shorter batches are padded and cut again.
    padded = F.pad(values, (0, 0, 0, max(rows) - len(values)))
    parts = [torch.empty_like(padded) for _ in range(processes)]
    distributed.all_gather(parts, padded)
    joint = torch.cat([part[:count] for part, count in zip(parts, rows, strict=True)])
    return joint, sum(rows[:rank])
