"""Whether images are of the kind that an encoder takes, and channels in its order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Shaped
from torch import Tensor

from vitaepp.data.storeinfo import unlike
from vitaepp.encoder.config import EncoderConfig
from vitaepp.errors import RunError

if TYPE_CHECKING:  # an encoder loads without what stores need
    import vitaepp.data.store


def check_like(
    config: EncoderConfig, store: vitaepp.data.store.Store, any_store: bool = False
) -> list[str]:
    """Refuse a store that was prepared in another way than that of an encoder's training.

    Features of it would be numbers, but not comparable with those of the training.

    Args:
        config: of the encoder.
        store: what is to be embedded or reconstructed.
        any_store: take it all the same.

    Returns:
        What differs.

    Raises:
        RunError: naming all that differs.
    """
    differing = [] if config.prepared is None else unlike(store.info, config.prepared)
    if differing and not any_store:
        raise RunError(
            f"{store.path}: {', '.join(differing)} in the store that the encoder was trained on; "
            "prepare it with the run as `recipe`, or take it as it is with `any_store`"
        )
    return differing


def check_fits(config: EncoderConfig, store: vitaepp.data.store.Store) -> None:
    """Refuse a store whose images an encoder was not made for.

    Raises:
        RunError: naming what differs.
    """
    check_known(config, store.info.modalities, f"{store.path}: ")
    want, have = tuple(config.shape["image_size"]), store.info.size
    if want != have:
        raise RunError(
            f"{store.path}: size {','.join(map(str, have))}, but the encoder was trained on "
            f"{','.join(map(str, want))}; prepare the store with the run as `recipe`"
        )


def check_known(config: EncoderConfig, modalities: Sequence[str], where: str = "") -> None:
    """Refuse modalities that an encoder was not trained on, and one that is named twice.

    Raises:
        RunError: naming the first.
    """
    for name in modalities:
        if name not in config.modalities:
            raise RunError(
                f"{where}modality {name}, but the encoder was trained on "
                f"{','.join(config.modalities)}; prepare the store with these or some of them"
            )
    if len(set(modalities)) < len(modalities):
        raise RunError(f"{where}modalities {','.join(modalities)}: give each once")


def place_channels(
    images: Shaped[Tensor, "batch channel *space"], have: Sequence[str], want: Sequence[str]
) -> Shaped[Tensor, "batch wanted *space"]:
    """Channels by their names in another order, 0 for those that are not there.

    Args:
        images: any type.
        have: what their channels are, all of them among the wanted.
        want: what the channels of the result are.

    Example:
        >>> import torch
        >>> place_channels(torch.tensor([[[7, 7]]]), ["t2"], ["t1", "t2"]).tolist()
        [[[0, 0], [7, 7]]]
    """
    if tuple(have) == tuple(want):
        return images
    placed = images.new_zeros(len(images), len(want), *images.shape[2:])
    placed[:, [list(want).index(name) for name in have]] = images
    return placed
