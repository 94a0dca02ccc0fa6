"""The files of one result in a folder of its user's, and what tells them from others there."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vitaepp.errors import RunError
from vitaepp.system.files import check_writable, columns_in, together


@dataclass(frozen=True)
class ResultFiles:
    """The files that a verb writes into a folder, all of one call.

    Attributes:
        verb: the function.
        signs: names of JSON files, CSV and Parquet tables, each with keys or columns that every
            version has written into it.
        last: names of those that come last: where they are, all are.
        unsigned: names of pictures and texts. Nothing in them tells whose they are; a signed file
            beside them does.
        instead: what else the user can give.
    """

    verb: str
    signs: Mapping[str, Collection[str]]
    last: tuple[str, ...]
    unsigned: tuple[str, ...] = ()
    instead: str = "folder"

    def check(self, folder: str | os.PathLike[str], others: Collection[str] = ()) -> None:
        """Refuse a folder where the result could not be written, or would replace something else.

        Results of earlier calls are replaced, and empty files.

        Args:
            folder: need not exist.
            others: further names that would be written, and are not of an earlier call.

        Raises:
            RunError: naming a file that is somebody's own.
            OSError: with the name of what is in the way.
        """
        folder = Path(folder)
        signed = [name for name in self.signs if _holds_something(folder / name)]
        foreign = [name for name in signed if not _has(folder / name, self.signs[name])]
        if not signed:  # nothing was moved here by a process that died over it
            foreign += [name for name in self.unsigned if _holds_something(folder / name)]
        foreign += [name for name in others if _holds_something(folder / name)]
        if foreign:
            raise RunError(
                f"{folder / foreign[0]}: is there, and is no file of `{self.verb}`; give another "
                f"{self.instead}"
            )
        check_writable(folder / self.last[-1])

    @contextmanager
    def written(self, folder: str | os.PathLike[str]) -> Iterator[Path]:
        """Yield a temporary folder; on success its files take their places in `folder`.

        Those of an earlier call that are not written this time are removed, as in `together`.

        Raises:
            RunError, OSError: as in `check`.
        """
        self.check(folder)
        names = {*self.signs, *self.unsigned}
        # Signed files first: pictures without them would be taken for somebody's own.
        with together(folder, *self.last, optional=names, late=self.unsigned) as staged:
            yield staged


def _holds_something(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _has(path: Path, signs: Collection[str]) -> bool:
    """Whether a file has these keys or columns; a damaged one, or of another format, has none."""
    try:
        if path.suffix.lower() == ".json":
            content = json.loads(path.read_bytes())
            each = content if isinstance(content, list) else [content]
            return all(isinstance(one, dict) and one.keys() >= set(signs) for one in each)
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            return set(signs) <= set(pq.read_schema(path).names)
        return set(signs) <= set(columns_in(path))
    except (OSError, ValueError):  # pyarrow's errors are among these
        return False
