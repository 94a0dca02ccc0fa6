"""Prepare a subject whose files are behind a URL: fetch them first, and remove them afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from vitaepp.data.storetable import Failure
from vitaepp.errors import VitaeppError, one_line
from vitaepp.ingest.readers.items import Item, files_of, own_files
from vitaepp.ingest.sources.remote import Remote
from vitaepp.ingest.subject import prepare_subject
from vitaepp.ingest.task import ImageSpec, Task

Any_Item = TypeVar("Any_Item", bound=Item)


def prepare_remote_subject(remote: Remote, spec: ImageSpec, task: Task) -> bool | Failure:
    """`prepare_subject` for files behind a URL."""
    if task.array is not None:  # the task holds its data
        return prepare_subject(spec, task)
    with TemporaryDirectory(prefix="vitaepp-") as scratch:
        folder = Path(scratch)
        try:
            files = {
                modality: _fetched(remote, item, folder)
                for modality, item in task.files.files.items()
                if modality in spec.files
            }
            mask = None if task.files.mask is None else _fetched(remote, task.files.mask, folder)
        except VitaeppError as error:
            return Failure(task.files.subject, one_line(error))
        root = _moved(spec.root, remote.root, folder)
        moved = replace(task.files, files=files, mask=mask)
        return prepare_subject(replace(spec, root=root), replace(task, files=moved))


def _fetched(remote: Remote, item: Item, folder: Path) -> Item:
    """An item with its files, and those that its header names, fetched to a folder."""
    moved = _relocated(item, lambda path: _moved(path, remote.root, folder))
    own = [p for p in own_files(moved) if p.is_relative_to(folder)]
    remote.fetch((_moved(p, folder, remote.root) for p in own), folder)
    if all(p.is_file() for p in own):
        beside = [p for p in files_of(moved) if p.is_relative_to(folder)]
        remote.fetch((_moved(p, folder, remote.root) for p in beside), folder)
    return moved


def _relocated(item: Any_Item, move: Callable[[Path], Path]) -> Any_Item:
    """The same item with its paths moved."""

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(moved(v) for v in value)
        return move(value) if isinstance(value, Path) else value

    if isinstance(item, Path):
        return moved(item)
    return replace(item, **{f.name: moved(getattr(item, f.name)) for f in fields(item)})


def _moved(path: Path, old: Path, new: Path) -> Path:
    """A path below one folder as the same path below another; other paths stay."""
    plain = Path(os.path.abspath(path))
    return new / plain.relative_to(old) if plain.is_relative_to(old) else path
