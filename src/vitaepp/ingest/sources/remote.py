"""Sources behind URLs: stand-ins of their files for the layouts, and each subject's files in turn.

A layout recognises a source by file names, small tables and the headers of scans. So all names are
listed and the tables are fetched. Scans and pictures, which are nearly all of the bytes, are
replaced by stand-ins of the same length; those of scans begin with the real first bytes. The
process that prepares a subject fetches its files into a folder of its own and removes them when it
is done.
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
from vitaepp.data.suffixes import PICTURE_SUFFIXES, suffix_of
from vitaepp.errors import SourceError, VitaeppError, one_line
from vitaepp.system.urls import Location, filesystem, is_url, local_path, storage_errors

#: Scans with a header in their first bytes, which is all that a layout reads of them.
HEADER_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh", ".nrrd", ".mha")

#: Files that stand-ins replace.
REPLACED_SUFFIXES = (*HEADER_SUFFIXES, *PICTURE_SUFFIXES)

#: First bytes of a scan that its stand-in has, compressed or not.
HEADER_BYTES = 1 << 14

#: Headers that are requested together.
HEADERS_AT_ONCE = 512


@dataclass(frozen=True)
class Remote:
    """A source behind a URL.

    Attributes:
        url: of its folder.
        root: folder of its stand-ins, on the machine that recognised it.
    """

    url: str
    root: Path

    def fetch(self, files: Iterable[Path], folder: Path) -> None:
        """Copy files, named by their paths below `root`, to the same paths below another folder.

        A file that does not exist is left out, and its reader reports it.

        Raises:
            SourceError: a file cannot be read.
        """
        system, base = filesystem(self.url)
        for file in files:
            name = file.relative_to(self.root)
            target = folder / name
            if target.exists() and folder != self.root:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with storage_errors(self.url):
                    system.get_file(f"{base}/{name.as_posix()}", os.fspath(target))
            except FileNotFoundError:
                target.unlink(missing_ok=True)
            except OSError as error:
                reason = error.strerror or one_line(error)
                raise SourceError(f"{name}: cannot be fetched: {reason}") from None


@contextmanager
def local_source(source: Location) -> Iterator[tuple[Path, Remote | None]]:
    """The source itself; of one behind a URL a folder of stand-ins, and where they come from.

    Raises:
        SourceError: nothing is there, or it cannot be read.
        StorageError: the URL cannot be opened.
    """
    text = os.fspath(source)
    path = local_path(text) if is_url(text) else Path(text)
    if path is not None:
        yield path, None
        return
    with TemporaryDirectory(prefix="vitaepp-") as scratch:
        path, remote = _stand_ins(text.rstrip("/"), Path(scratch))
        try:
            yield path, remote
        except VitaeppError as error:
            raise type(error)(str(error).replace(str(remote.root), remote.url)) from error


@contextmanager
def local_file(file: Location | None) -> Iterator[Path | None]:
    """A file of this machine as it is; one behind a URL as a copy that is removed afterwards."""
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


def _stand_ins(url: str, scratch: Path) -> tuple[Path, Remote]:
    """Make the stand-ins of a source; the path of it there, and where they come from."""
    system, base = filesystem(url)
    try:
        with storage_errors(url):
            is_file = not system.isdir(base)  # isfile is true of folders, too, with some protocols
            folder, _, name = url.rpartition("/")
            # A table names files around it; an archive contains everything it names.
            around = not is_file or name.lower().endswith(TABLE_SUFFIXES)
            top = base.rpartition("/")[0] if is_file else base
            listed: Mapping[str, Any] = (
                system.find(top, detail=True) if around else {base: system.info(base)}
            )
    except FileNotFoundError:
        listed = {}
    except OSError as error:
        raise SourceError(f"{url}: cannot be read: {error.strerror or one_line(error)}") from None
    if not listed:
        raise SourceError(f"{url}: no such file or folder")
    # The folder keeps its name, because some layouts name a subject by it.
    source_folder = folder if is_file else url
    root = scratch / (PurePosixPath(source_folder.partition("://")[2]).name or "source")
    remote = Remote(source_folder, root)
    sizes = {_name_inside(path, top, url): info.get("size") for path, info in listed.items()}
    shown = {n: s for n, s in sizes.items() if not any(part.startswith(".") for part in n.parts)}
    _make_stand_ins(remote, shown)
    return (root / name if is_file else root), remote


def _name_inside(path: str, top: str, url: str) -> PurePosixPath:
    """The path of a listed file relative to its source.

    Raises:
        SourceError: the path leads out of the source.
    """
    name = PurePosixPath(str(path).removeprefix(top).lstrip("/"))
    if not name.parts or ".." in name.parts or "\\" in str(name):
        raise SourceError(f"{url}: holds a file whose name leads out of it; rename the file")
    return name


def _make_stand_ins(remote: Remote, sizes: Mapping[PurePosixPath, int | None]) -> None:
    """Make the stand-ins of files of known sizes; fetch the other files."""
    replaced = {n: s for n, s in sizes.items() if s and suffix_of(n.name, REPLACED_SUFFIXES)}
    remote.fetch((remote.root / n for n in sizes if n not in replaced), remote.root)
    scans = [n for n in replaced if suffix_of(n.name, HEADER_SUFFIXES)]
    headers: dict[PurePosixPath, bytes] = {}
    system, base = filesystem(remote.url)
    for start in range(0, len(scans), HEADERS_AT_ONCE):
        names = scans[start : start + HEADERS_AT_ONCE]
        ends = [min(replaced[n], HEADER_BYTES) for n in names]
        with storage_errors(remote.url):
            blocks = system.cat_ranges([f"{base}/{n}" for n in names], [0] * len(names), ends)
        for name, block in zip(names, blocks, strict=True):
            if isinstance(block, BaseException):
                raise SourceError(f"{name}: cannot be fetched: {one_line(block)}")
            headers[name] = bytes(block)
    for name, size in replaced.items():
        path = remote.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as stand_in:
            stand_in.write(headers.get(name, b""))
            stand_in.truncate(size)
