"""How features are pooled from an encoder's tokens, and the files of several poolings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vitaepp.errors import RunError
from vitaepp.recipe.fields import checked_pool


class Pooling(NamedTuple):
    """What features are pooled from.

    Attributes:
        pool: as the setting `model.pool`.
        block: number of blocks that images pass before; None for all.

    >>> Pooling("mean+std", 6), str(Pooling("cls")), str(Pooling("mean", 6))
    (Pooling(pool='mean+std', block=6), 'cls', 'mean@6')
    """

    pool: str
    block: int | None = None

    def __str__(self) -> str:
        return self.pool if self.block is None else f"{self.pool}@{self.block}"

    @classmethod
    def parse(cls, text: str) -> Pooling:
        """A pooling as people write it: `mean`, `mean+cls`, `mean@6` after the sixth block.

        Raises:
            RunError: it is not written so.
        """
        pool, at, block = text.strip().partition("@")
        if at and not (block.isdecimal() and int(block) > 0):
            raise RunError(f"pooling {text.strip()!r}: after @ stands the number of a block")
        try:
            return cls(checked_pool(pool), int(block) if at else None)
        except ValueError as error:
            raise RunError(f"pooling {text.strip()!r}: {error}") from None


def parse_poolings(pools: Sequence[str] | str) -> list[Pooling]:
    """Poolings from a list, or from text with commas; each once.

    >>> [str(pooling) for pooling in parse_poolings("mean, cls@3,mean")]
    ['mean', 'cls@3']
    """
    texts = pools.split(",") if isinstance(pools, str) else pools
    return list(dict.fromkeys(Pooling.parse(text) for text in texts))


def pooled_path(path: str | os.PathLike[str], pooling: Pooling | str) -> Path:
    """Where the features of another pooling lie beside a file of embeddings.

    >>> pooled_path("run/embeddings.parquet", Pooling("mean", 6)).as_posix()
    'run/embeddings.mean@6.parquet'
    """
    path = Path(path)
    return path.with_name(f"{path.stem}.{pooling}{path.suffix}")


def pooled_beside(path: str | os.PathLike[str]) -> list[Path]:
    """The files of other poolings beside a file of embeddings, in the order of their names."""
    path = Path(path)
    files = []
    for file in sorted(path.parent.iterdir()) if path.parent.is_dir() else ():
        name = file.name.removeprefix(f"{path.stem}.").removesuffix(path.suffix)
        if file == path or pooled_path(path, name).name != file.name:
            continue
        try:
            Pooling.parse(name)
        except RunError:  # a control, or another file
            continue
        files.append(file)
    return files
