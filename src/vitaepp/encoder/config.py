"""What an encoder is and what it expects."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitaepp.data.checkpoints import progress_of
from vitaepp.data.storeinfo import StoreInfo, with_tuples
from vitaepp.errors import RunError, one_line
from vitaepp.system.files import read_json, write_json

if TYPE_CHECKING:  # an encoder loads without what recipes need
    import vitaepp.recipe.recipe

#: Of the file.
FORMAT = 1

#: What reading the file, or building what it says, raises where it was changed.
DAMAGED = (ValueError, KeyError, TypeError, AttributeError)


def not_an_encoder(file: Path, error: Exception) -> RunError:
    """The error of a file that is not an encoder's."""
    return RunError(f"{file}: not an encoder's: {one_line(error)}")


@dataclass(frozen=True)
class EncoderConfig:
    """What an encoder is and what it expects.

    Attributes:
        method: method that trained it, or `untrained`.
        modalities: channels, in order.
        shape: arguments of the backbone: image and patch size, width, …
        pool: what the embedding is pooled from, see `pool_tokens`.
        normalize: voxels whose mean and deviation z-score a channel: `crop`, `foreground` or
            `cohort`.
        backbone: `vit`, `resnet18` or `resnet50`.
        precision: of its matrix products: `32`, `bf16`, `16`, or `auto`, which is bf16 where the
            device multiplies it by itself. As it was trained.
        name: what the method is called in print, with its losses; empty where it is not known.
        prepared: how the images of its training were prepared; None where it is not known.
        epochs: whole passes over the data that it was trained for; None where it is not known.
        block: how many blocks features pass; None for all.
        cohort: mean and deviation of each channel over the images of the training, in [0, 1],
            where images are z-scored by them.
    """

    method: str
    modalities: tuple[str, ...]
    shape: dict[str, Any]
    pool: str
    normalize: str
    backbone: str = "vit"
    precision: str = "auto"
    name: str = ""
    prepared: StoreInfo | None = None
    epochs: int | None = None
    block: int | None = None
    cohort: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @classmethod
    def of(
        cls,
        recipe: vitaepp.recipe.recipe.Recipe,
        modalities: Sequence[str],
        image_size: Sequence[int],
        prepared: StoreInfo | None = None,
    ) -> EncoderConfig:
        """The encoder that a recipe makes of images with these modalities and this size."""
        from vitaepp.methods import backbone_shape

        return cls(
            method=recipe.method,
            modalities=tuple(modalities),
            shape=backbone_shape(recipe, len(modalities), image_size),
            pool=recipe.model.pool,
            normalize=recipe.views.normalize,
            backbone=recipe.model.backbone,
            precision=recipe.trainer.precision,
            name=recipe.name,
            prepared=prepared,
            block=recipe.model.pool_block,
            cohort=recipe.views.cohort,
        )

    @classmethod
    def of_checkpoint(
        cls, checkpoint: Mapping[str, Any], path: str | os.PathLike[str]
    ) -> EncoderConfig:
        """The encoder whose training a checkpoint is of; errors name its file."""
        from vitaepp.recipe.recipe import Recipe

        facts = checkpoint["vitaepp"]
        # An older version's checkpoint does not tell how its store was prepared.
        prepared = StoreInfo.parse(facts["prepared"]) if "prepared" in facts else None
        recipe = Recipe.of_run(facts["recipe"], os.fspath(path))
        config = cls.of(recipe, facts["modalities"], tuple(facts["image_size"]), prepared)
        return replace(config, epochs=progress_of(checkpoint)[0])

    @classmethod
    def read(cls, file: Path) -> EncoderConfig:
        """The encoder that a file tells of.

        Raises:
            RunError: it is not an encoder's, or another version's.
        """
        try:
            values = read_json(file)
            own = values.pop("format") == FORMAT
        except DAMAGED as error:
            raise not_an_encoder(file, error) from None
        if not own:
            raise RunError(f"{file.parent}: made by another version of vitaepp")
        try:
            values = with_tuples(values) | {"shape": with_tuples(values["shape"])}
            if values.get("prepared"):
                values["prepared"] = StoreInfo.parse(values["prepared"])
            return cls(**values)
        except DAMAGED as error:
            raise not_an_encoder(file, error) from None

    def write(self, file: Path) -> None:
        """Write what `read` reads."""
        write_json(file, {"format": FORMAT} | asdict(self))
