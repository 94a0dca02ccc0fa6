"""The methods that a recipe can name, and what can be said of each without building it.

`methods/registry.py` says which class trains each of them.
"""

from __future__ import annotations

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
    """

    key: str
    title: str
    masked: bool = False
    smallest_batch: int = 1


#: Every method by its key.
METHODS = {
    facts.key: facts
    for facts in (
        MethodFacts("vitae++", "ViT-AE++", masked=True),
        MethodFacts("vitae", "ViT-AE", masked=True),
        MethodFacts("simsiam", "SimSiam", smallest_batch=2),  # its batch norms
        MethodFacts("mocov3", "MoCo-v3", smallest_batch=2),  # the other images are the negatives
    )
}

#: Keys of the methods that compare views and hide no patches.
CONTRASTIVE = tuple(facts.key for facts in METHODS.values() if not facts.masked)

if TYPE_CHECKING:
    MethodKey: TypeAlias = str
else:
    #: The type of the setting `method`: one of the keys.
    MethodKey = Literal[tuple(METHODS)]
