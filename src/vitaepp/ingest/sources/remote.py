"""Sources behind URLs: here a folder of stand-ins to recognise, and each subject fetched in turn.

Layouts tell a source by names, small tables and the headers of scans. So the names are listed, the
tables fetched, and scans and pictures, which are nearly all of the bytes, stand there with their
length and, scans, their first bytes alone. The process that prepares a subject fetches its files
into a folder of its own and removes them when it is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from vitaepp.data.cells import TABLE_SUFFIXES
from vitaepp.errors import SourceError, VitaeppError, one_line
from vitaepp.ingest.readers import PICTURE_SUFFIXES, suffix_of
from vitaepp.system.storage import Location, filesystem, is_url, local_path, told

#: Files whose name, and for scans the header in their first bytes, is all that a layout needs.
HEADED = (".nii.gz", ".nii", ".mgz", ".mgh", ".nrrd", ".mha")
STOOD_FOR = (*HEADED, *PICTURE_SUFFIXES)

#: First bytes of a scan that a stand-in has, compressed or not.
HEAD = 1 << 14

#: Heads that are asked for together.
AT_ONCE = 512


@dataclass(frozen=True)
class Remote:
    """A source behind a URL.

    Attributes:
        url: of its folder.
        root: folder of stand-ins on the machine that recognised it.
    """

    url: str
    root: Path

    def fetch(self, files: Iterable[Path], place: Path) -> None:
        """Bring files, named as below `root`, to the same places below another folder.

        One that is not there is left out: who reads it says so.

        Raises:
            SourceError: it cannot be read.
        """
        system, base = filesystem(self.url)
        for file in files:
            name = file.relative_to(self.root)
            target = place / name
            if target.exists() and place != self.root:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with told(self.url):
                    system.get_file(f"{base}/{name.as_posix()}", os.fspath(target))
            except FileNotFoundError:
                target.unlink(missing_ok=True)
            except OSError as error:
                told_why = error.strerror or one_line(error)
                raise SourceError(f"{name}: cannot be fetched: {told_why}") from None


@contextmanager
def local_source(source: Location) -> Iterator[tuple[Path, Remote | None]]:
    """Where to recognise a source: itself, or a folder of stand-ins for one behind a URL.

    Raises:
        SourceError: nothing is there, or it cannot be read.
        StorageError: the URL cannot be opened.
    """
    text = os.fspath(source)
    here = local_path(text) if is_url(text) else Path(text)
    if here is not None:
        yield here, None
        return
    with TemporaryDirectory(prefix="vitaepp-") as scratch:
        place, remote = _stand_in(text.rstrip("/"), Path(scratch))
        try:
            yield place, remote
        except VitaeppError as error:
            raise type(error)(str(error).replace(str(remote.root), remote.url)) from error


@contextmanager
def local_file(file: Location | None) -> Iterator[Path | None]:
    """A file that is behind a URL, here; others as they are."""
    if file is None:
        yield None
    elif not is_url(file):
        yield Path(file)
    else:
        with TemporaryDirectory(prefix="vitaepp-") as scratch:
            url, _, name = os.fspath(file).rpartition("/")
            remote = Remote(url, Path(scratch))
            remote.fetch([remote.root / name], remote.root)
            yield remote.root / name


def _stand_in(url: str, scratch: Path) -> tuple[Path, Remote]:
    """A source's stand-ins below a folder: where it is there, and what it stands for."""
    system, base = filesystem(url)
    try:
        with told(url):
            is_file = not system.isdir(base)  # some say of a folder that it is a file, too
            folder, _, name = url.rpartition("/")
            # A table names files around it; an archive holds all that it means.
            whole = not is_file or name.lower().endswith(TABLE_SUFFIXES)
            top = base.rpartition("/")[0] if is_file else base
            found: Mapping[str, Any] = (
                system.find(top, detail=True) if whole else {base: system.info(base)}
            )
    except FileNotFoundError:
        found = {}
    except OSError as error:
        raise SourceError(f"{url}: cannot be read: {error.strerror or one_line(error)}") from None
    if not found:
        raise SourceError(f"{url}: no such file or folder")
    # The folder keeps its name, by which some layouts call a subject.
    above = folder if is_file else url
    root = scratch / (PurePosixPath(above.partition("://")[2]).name or "source")
    remote = Remote(above, root)
    sizes = {_inside(path, top, url): info.get("size") for path, info in found.items()}
    _fill(remote, {n: s for n, s in sizes.items() if not _is_hidden(n)})
    return (root / name if is_file else root), remote


def _inside(path: str, top: str, url: str) -> PurePosixPath:
    """A listed file's name in its source.

    Raises:
        SourceError: it would lie outside.
    """
    name = PurePosixPath(str(path).removeprefix(top).lstrip("/"))
    if not name.parts or ".." in name.parts or "\\" in str(name):
        raise SourceError(f"{url}: holds a file whose name leads out of it; it is not taken in")
    return name


def _is_hidden(name: PurePosixPath) -> bool:
    return any(part.startswith(".") for part in name.parts)


def _fill(remote: Remote, sizes: Mapping[PurePosixPath, int | None]) -> None:
    """Make the stand-ins of files of known sizes; fetch the others."""
    stood_for = {n: s for n, s in sizes.items() if s and suffix_of(n.name, STOOD_FOR)}
    remote.fetch((remote.root / n for n in sizes if n not in stood_for), remote.root)
    headed = [n for n in stood_for if suffix_of(n.name, HEADED)]
    heads: dict[PurePosixPath, bytes] = {}
    system, base = filesystem(remote.url)
    for start in range(0, len(headed), AT_ONCE):
        names = headed[start : start + AT_ONCE]
        ends = [min(stood_for[n], HEAD) for n in names]
        with told(remote.url):
            blocks = system.cat_ranges([f"{base}/{n}" for n in names], [0] * len(names), ends)
        for name, block in zip(names, blocks, strict=True):
            if isinstance(block, BaseException):
                raise SourceError(f"{name}: cannot be fetched: {one_line(block)}")
            heads[name] = bytes(block)
    for name, size in stood_for.items():
        file = remote.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "wb") as stand_in:
            stand_in.write(heads.get(name, b""))
            stand_in.truncate(size)
