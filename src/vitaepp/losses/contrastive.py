"""L_cl: SimSiam's loss between the features of two views (Eq. 3 of the paper)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import record_function


@record_function("contrastive loss")
def contrastive_loss(
    predicted: tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]],
    features: tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]],
) -> Float[Tensor, ""]:
    """The negative cosine between each view's prediction and the other view's features, averaged.

    No gradient flows into `features`; otherwise all features would collapse into one.

    Args:
        predicted: the predictor's output for view 1 and view 2.
        features: the encoder's pooled features of view 1 and view 2.

    Returns:
        A value between -1 (the views agree) and 1.

    Source:
        Chen & He 2021, Eq. 1 and 2; Eq. 3 of Prabhakar et al. 2023.

    Example:
        >>> import torch
        >>> a, b = torch.eye(2), 5 * torch.eye(2)
        >>> contrastive_loss((a, b), (a, b)).item()
        -1.0
    """
    (p1, p2), (z1, z2) = predicted, features
    first = F.cosine_similarity(p1, z2.detach(), dim=-1).mean()
    second = F.cosine_similarity(p2, z1.detach(), dim=-1).mean()
    return -(first + second) / 2


def feature_spread(features: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """SimSiam's measure of collapse: 0 if all features are equal, about 1 if they are spread.

    It is NaN for a batch of one, which has no spread and has not collapsed.

    It is the standard deviation of each feature over the batch, for vectors of unit length,
    averaged over features and multiplied by the square root of their number.

    Source:
        Chen & He 2021, section 4.1.
    """
    if len(features) < 2:
        return features.new_full((), float("nan")).float()
    unit = F.normalize(features.detach().float(), dim=-1)
    return unit.std(dim=0, correction=0).mean() * features.shape[-1] ** 0.5
