"""Preparing a subject whose files are behind a URL: fetched for it, and removed after."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from vitaepp.data.store import Failure
from vitaepp.errors import VitaeppError, one_line
from vitaepp.ingest.readers.items import Item, files_of
from vitaepp.ingest.sources.remote import Remote
from vitaepp.ingest.subject import prepare_subject
from vitaepp.ingest.task import ImageSpec, Task

Any_Item = TypeVar("Any_Item", bound=Item)


def prepare_remote_subject(remote: Remote, spec: ImageSpec, task: Task) -> bool | Failure:
    """As `prepare_subject`, with files that are fetched for it and removed after."""
    if task.array is not None:  # it travelled with its task
        return prepare_subject(spec, task)
    with TemporaryDirectory(prefix="vitaepp-") as scratch:
        place = Path(scratch)
        try:
            files = {
                modality: _fetched(remote, item, place)
                for modality, item in task.files.files.items()
                if modality in spec.files
            }
            mask = None if task.files.mask is None else _fetched(remote, task.files.mask, place)
        except VitaeppError as error:
            return Failure(task.files.subject, one_line(error))
        root = _moved(spec.root, remote.root, place)
        moved = replace(task.files, files=files, mask=mask)
        return prepare_subject(replace(spec, root=root), replace(task, files=moved))


def _fetched(remote: Remote, item: Item, place: Path) -> Item:
    """An item whose files are below `place`, those that its header names too."""
    moved = _relocated(item, lambda path: _moved(path, remote.root, place))
    own = [p for p in _paths(moved) if p.is_relative_to(place)]
    remote.fetch((_moved(p, place, remote.root) for p in own), place)
    if all(p.is_file() for p in own):
        beside = [p for p in files_of(moved) if p.is_relative_to(place)]
        remote.fetch((_moved(p, place, remote.root) for p in beside), place)
    return moved


def _paths(item: Item) -> list[Path]:
    """The files that an item itself names."""
    if isinstance(item, Path):
        return [item]
    values = [getattr(item, f.name) for f in fields(item)]
    return [p for v in values for p in (v if isinstance(v, tuple) else (v,)) if isinstance(p, Path)]


def _relocated(item: Any_Item, move: Callable[[Path], Path]) -> Any_Item:
    """An item of the same kind whose files are elsewhere."""

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(moved(v) for v in value)
        return move(value) if isinstance(value, Path) else value

    if isinstance(item, Path):
        return moved(item)
    return replace(item, **{f.name: moved(getattr(item, f.name)) for f in fields(item)})


def _moved(path: Path, old: Path, new: Path) -> Path:
    """A path below one folder as it is below another; others stay."""
    plain = Path(os.path.abspath(path))
    return new / plain.relative_to(old) if plain.is_relative_to(old) else path
