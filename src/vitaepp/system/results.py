"""The files of one result in a folder of its user's, and what tells them from others there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vitaepp.errors import RunError
from vitaepp.system.files import check_writable, columns_in, refuse_inputs, together


@dataclass(frozen=True)
class ResultFiles:
    """The files that a verb writes into a folder, all of one call.

    What a process that died over its files leaves has at least one of `signs`, as these come before
    the others, and a result that is replaced goes from its JSON on.

    Attributes:
        verb: the function.
        signs: names of JSON files, CSV and Parquet tables that tell by themselves whose they are.
            Of JSON, keys that every version has written. Of a table, regular expressions: each
            matches a column, unless it matches the empty text, too, and no column is without one.
        last: names of those that come last: where they are, all are.
        beside: tables that somebody else may have with these columns: a sign beside them tells
            whose they are.
        unsigned: names of pictures and texts. Nothing in them tells whose they are; a sign does.
    """

    verb: str
    signs: Mapping[str, Collection[str]]
    last: tuple[str, ...]
    beside: Mapping[str, Collection[str]] = field(default_factory=dict)
    unsigned: tuple[str, ...] = ()

    def check(
        self,
        folder: str | os.PathLike[str],
        others: Collection[str] = (),
        inputs: Iterable[str | os.PathLike[str] | None] = (),
    ) -> None:
        """Refuse a folder where the result could not be written, or would replace something else.

        Results of earlier calls are replaced, and empty files.

        Args:
            folder: need not exist.
            others: further names that would be written, and are not of an earlier call.
            inputs: files that the result is made of, which stay even if they are of an earlier one.

        Raises:
            RunError: naming a file that is somebody's own, or an input.
            OSError: with the name of what is in the way.
        """
        folder = Path(folder)
        names = (*self.signs, *self.beside, *self.unsigned, *others)
        refuse_inputs([folder / name for name in names], inputs, self.verb, "folder")
        there = [name for name in names if _holds_something(folder / name)]
        columns = {**self.signs, **self.beside}
        own = {n for n in there if n in columns and _has(folder / n, columns[n])}
        if own & self.signs.keys():
            own.update(self.unsigned)
        else:
            own.clear()
        foreign = [name for name in there if name not in own]
        if foreign:
            raise RunError(
                f"{folder / foreign[0]}: is there, and is no file of `{self.verb}`, or a damaged "
                "one; give another folder, or remove it"
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
        late = [*self.beside, *self.unsigned]
        with together(folder, *self.last, optional={*self.signs, *late}, late=late) as staged:
            yield staged


def _holds_something(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _has(path: Path, signs: Collection[str]) -> bool:
    """Whether a file has these keys or columns; a damaged one, or of another format, has none."""
    try:
        if path.suffix.lower() == ".json":
            content = json.loads(path.read_bytes())
            each = content if isinstance(content, list) else [content]
            own = [isinstance(one, dict) and one.keys() >= set(signs) for one in each]
            return bool(own) and all(own)
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            columns = pq.read_schema(path).names
        else:
            columns = columns_in(path)
    except (OSError, ValueError):  # pyarrow's errors are among these
        return False
    matches = {sign: [c for c in columns if re.fullmatch(sign, c, re.DOTALL)] for sign in signs}
    whole = all(found or re.fullmatch(sign, "") for sign, found in matches.items())
    return whole and {*columns} == {c for found in matches.values() for c in found}
