"""The methods that a recipe can name, and what can be said of each without building it.

`methods/registry.py` says which class trains each of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias


@dataclass(frozen=True)
class MethodFacts:
    """What every part of the library may need to know of a method.

    Attributes:
        key: its name in a recipe.
        title: its name in print.
        masked: it hides patches and reconstructs them, and has the losses of `loss.*`. Other
            methods compare two augmented views of each image.
        smallest_batch: images that a step needs at least, on all devices together. It is above 1
            where the loss or a batch norm relates the images of a batch to each other.
        reads: how the names of settings begin that it reads, and not every method does.
    """

    key: str
    title: str
    masked: bool = False
    smallest_batch: int = 1
    reads: tuple[str, ...] = ()


#: What only methods read that hide patches; the others make both views by `views.second`.
_MASKED = ("loss.", "model.mask_ratio", "model.drop_path", "model.decoder_", "views.first.")

#: Every method by its key.
METHODS = {
    facts.key: facts
    for facts in (
        MethodFacts("vitae++", "ViT-AE++", masked=True, reads=_MASKED),
        MethodFacts("vitae", "ViT-AE", masked=True, reads=_MASKED),
        # For its batch norms.
        MethodFacts("simsiam", "SimSiam", smallest_batch=2, reads=("simsiam.",)),
        # The other images are the negatives.
        MethodFacts("mocov3", "MoCo-v3", smallest_batch=2, reads=("mocov3.",)),
    )
}

#: Keys of the methods that compare views and hide no patches.
CONTRASTIVE = tuple(facts.key for facts in METHODS.values() if not facts.masked)


def not_read(method: str, names: Iterable[str]) -> list[str]:
    """Those of some settings that other methods read, and this one does not.

    >>> not_read("simsiam", ["seed", "loss.edge.blur", "mocov3.momentum", "simsiam.projection_dim"])
    ['loss.edge.blur', 'mocov3.momentum']
    """
    own = METHODS[method].reads
    others = tuple({begin for facts in METHODS.values() for begin in facts.reads} - {*own})
    return [name for name in names if name.startswith(others)]


if TYPE_CHECKING:
    MethodKey: TypeAlias = str
else:
    #: The type of the setting `method`: one of the keys.
    MethodKey = Literal[tuple(METHODS)]
