"""Where a store lies: a folder on this machine, or below a URL that fsspec opens.

Both keep the same promise: a file appears whole or not at all, and what is replaced stays readable
until then. A local folder keeps it by renaming, an object store because a put is all or nothing.

https://filesystem-spec.readthedocs.io
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from vitaepp.errors import StorageError, one_line
from vitaepp.system.files import atomic_path, locked, make_folder

Location = str | os.PathLike[str]

#: Stores of objects have no folders to make; asked for one, some would make a bucket.
OBJECT_STORES = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"))

#: A holder of a remote lock says so again after this time ...
SECONDS_BETWEEN_BEATS = 5.0
#: ... and one that was not heard of for this long is dead.
SECONDS_TO_DIE = 30.0


def is_url(location: Location) -> bool:
    """Whether a location is a URL, and not a path on this machine.

    >>> is_url("s3://bucket/store"), is_url("folder/store"), is_url("file:///folder")
    (True, False, True)
    """
    return isinstance(location, str) and "://" in location


def location_of(given: Location) -> Path | str:
    """A location that a user gave: a path on this machine, or a URL elsewhere.

    Raises:
        StorageError: a URL that cannot be opened.
    """
    text = os.fspath(given)
    return (local_path(text) or text) if is_url(text) else Path(text)


def in_one_process(location: Path | str) -> bool:
    """Whether what lies there is seen by the process alone that put it there."""
    return isinstance(location, str) and location.startswith("memory://")


def local_path(url: str) -> Path | None:
    """The path that a `file://` URL means; None for others.

    Raises:
        StorageError: a URL that cannot be opened.
    """
    from fsspec.implementations.local import LocalFileSystem

    system, path = filesystem(url)
    return Path(path) if isinstance(system, LocalFileSystem) else None


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path there.

    Raises:
        StorageError: unknown protocol, a package that is missing, or a password in the URL.
    """
    from fsspec.core import url_to_fs

    if re.search(r"[*?\[]", url):
        raise StorageError(f"{url}: * ? and [ have no place in the URL of a folder; rename it")
    if re.search(r"//[^/@]*:[^/@]*@", url):
        protocol = url.partition("://")[0]
        raise StorageError(
            f"{protocol}://: the URL holds a password, which would be written into runs; give it "
            "by fsspec's configuration or the protocol's environment variables"
        )
    try:
        with told(url):
            system, path = url_to_fs(url)
    except ImportError as error:
        raise StorageError(f"{url}: {one_line(error)}, and try again") from None
    return system, path.rstrip("/")


@contextmanager
def told(url: str) -> Iterator[None]:
    """Errors of any protocol's library as the system's own, or one line."""
    try:
        yield
    except (OSError, ImportError, StorageError):
        raise
    except Exception as error:  # each library has its own
        raise StorageError(f"{url}: {one_line(error)}") from error


class Lock:
    """A folder that is held for writing."""

    def check(self) -> None:
        """Make sure that it still is.

        Raises:
            StorageError: another process has taken it over.
        """


class LocalFolder:
    """A folder on a file system of this machine; its files are named by relative paths with `/`."""

    def __init__(self, path: Path) -> None:
        self.path: Path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def absolute(self) -> str:
        """Where it is, from wherever one asks."""
        return str(self.path.resolve())

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.absolute.rstrip("/").rpartition("/")[2]

    @property
    def is_file(self) -> bool:
        """Whether a file is in its place."""
        return self.path.exists() and not self.path.is_dir()

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder of this name; without one, whether it is there."""
        return (self.path / name).exists()

    def entries(self, name: str = "") -> list[str]:
        """Names of the files and folders in it or in one below, sorted; none if it is missing."""
        folder = self.path / name
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []

    def read(self, name: str) -> bytes:
        """A file's content."""
        return (self.path / name).read_bytes()

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """The content of many files."""
        return {name: self.read(name) for name in names}

    @contextmanager
    def replacing(self, name: str, data: bytes, *, parents: bool = True) -> Iterator[None]:
        """Run the body, then put a file in its place; locally its room is taken before."""
        with atomic_path(self.path / name, parents=parents) as temporary:
            temporary.write_bytes(data)
            yield

    def write(self, name: str, data: bytes, *, parents: bool = True) -> None:
        """Write a file, whole or not at all; without `parents`, its folder must be there."""
        with self.replacing(name, data, parents=parents):
            pass

    def copy(self, names: Mapping[str, str]) -> None:
        """Put files under second names, each whole or not at all; the first ones stay."""
        for source, target in names.items():
            place = self.path / target
            place.parent.mkdir(parents=True, exist_ok=True)
            # The name is swapped, never the content: readers of the old file keep it.
            fresh = place.with_name(f".tmp-{place.name}")
            fresh.unlink(missing_ok=True)
            _link_or_copy(self.path / source, fresh)
            os.replace(fresh, place)
            fresh.unlink(missing_ok=True)  # renaming does nothing if both are one file

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def make(self, name: str = "") -> None:
        """Make the folder, or one below, unless it is there."""
        make_folder(self.path / name)

    def remove_folder(self, name: str, first: str) -> None:
        """Remove a folder below, in one step or its files that end in `first` before others."""
        done = self.path / f".tmp-{os.getpid()}-{name.lstrip('.')}"
        (self.path / name).rename(done)
        shutil.rmtree(done, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """Remove what killed processes left half-made; none may be writing."""
        for leftover in list(self.path.glob("**/.tmp-*")):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[Lock]:
        """Hold the folder for writing; the system lets go of it when the process dies."""
        with locked(self.path):
            yield Lock()


class RemoteFolder:
    """A folder below a URL, through fsspec; all that `LocalFolder` has, with the same meaning."""

    def __init__(self, url: str) -> None:
        self.path: str = url.rstrip("/")
        self._system, self._root = filesystem(self.path)
        protocol = self._system.protocol
        protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self._has_folders = not protocols & OBJECT_STORES

    def __str__(self) -> str:
        return self.path

    @property
    def absolute(self) -> str:
        """Where it is, from wherever one asks."""
        return self.path

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.absolute.rstrip("/").rpartition("/")[2]

    @property
    def is_file(self) -> bool:
        """Whether a file is in its place."""
        with told(self.path):
            return bool(self._system.isfile(self._root))

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder of this name; without one, whether it is there."""
        with told(self.path):
            self._system.invalidate_cache()  # others write, too
            return bool(self._system.exists(self._at(name)))

    def entries(self, name: str = "") -> list[str]:
        """Names of the files and folders in it or in one below, sorted; none if it is missing."""
        with told(self.path):
            self._system.invalidate_cache()  # others write, too
            try:
                found = self._system.ls(self._at(name), detail=False)
            except FileNotFoundError:
                return []
        return sorted({str(f).rstrip("/").rpartition("/")[2] for f in found})

    def read(self, name: str) -> bytes:
        """A file's content."""
        with told(self.path):
            return bytes(self._system.cat_file(self._at(name)))

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """The content of many files."""
        if not names:
            return {}
        at = {self._at(name): name for name in names}
        with told(self.path):
            found = self._system.cat(list(at))
        return {name: bytes(found[path]) for path, name in at.items()}

    @contextmanager
    def replacing(self, name: str, data: bytes, *, parents: bool = True) -> Iterator[None]:
        """Run the body, then put a file in its place; locally its room is taken before."""
        yield
        self.write(name, data, parents=parents)

    def write(self, name: str, data: bytes, *, parents: bool = True) -> None:
        """Write a file, whole or not at all; there, no folder has to be."""
        with told(self.path), self._whole(name) as path:
            self._system.pipe_file(path, data)

    def copy(self, names: Mapping[str, str]) -> None:
        """Put files under second names, each whole or not at all; the first ones stay."""
        with told(self.path), ExitStack() as whole:
            targets = [whole.enter_context(self._whole(name)) for name in names.values()]
            self._system.copy([self._at(name) for name in names], targets, on_error="raise")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with told(self.path), suppress(FileNotFoundError):
            self._system.rm_file(self._at(name))

    def make(self, name: str = "") -> None:
        """Make the folder, or one below, unless it is there."""
        with told(self.path):
            self._make(self._at(name))

    def remove_folder(self, name: str, first: str) -> None:
        """Remove a folder below, in one step or its files that end in `first` before others."""
        files = [self._at(f"{name}/{n}") for n in self.entries(name)]
        early = [f for f in files if f.endswith(first)]
        with told(self.path):
            for part in (early, sorted(set(files) - set(early))):
                if part:
                    self._system.rm(part)
            if self._has_folders:
                self._system.rmdir(self._at(name))

    def remove_leftovers(self) -> None:
        """Remove what killed processes left half-made; none may be writing."""
        if self._has_folders:
            with told(self.path):
                for path in self._system.find(self._root):
                    if path.rpartition("/")[2].startswith(".tmp-"):
                        self._system.rm_file(path)

    @contextmanager
    def lock(self) -> Iterator[Lock]:
        """Hold the folder for writing, and say so again and again."""
        lease = _Lease(self)
        lease.take()
        try:
            yield lease
        finally:
            lease.let_go()

    def create(self, name: str, data: bytes) -> None:
        """Write a file that must not be there yet; one of two that try wins where it can be told.

        Raises:
            FileExistsError: it is there.
        """
        with told(self.path):
            self._system.pipe_file(self._at(name), data, mode="create")

    @contextmanager
    def _whole(self, name: str) -> Iterator[str]:
        """Where to put a file, so that it appears whole; a put into an object store does."""
        path = self._at(name)
        if not self._has_folders:
            yield path
            return
        folder, _, last = path.rpartition("/")
        self._make(folder)
        temporary = f"{folder}/.tmp-{secrets.token_hex(4)}-{last}"
        yield temporary
        self._system.mv(temporary, path)

    def _make(self, path: str) -> None:
        if self._has_folders:
            self._system.makedirs(path, exist_ok=True)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


class _Lease(Lock):
    """A lock that is a file, and lasts as long as its holder renews it.

    It needs no clock that machines agree on: who finds it watches whether it changes.
    """

    def __init__(self, folder: RemoteFolder) -> None:
        self.folder = folder
        self._token = secrets.token_hex(8)
        self._ended = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def take(self) -> None:
        """Take the lock, from a dead holder after watching it.

        Raises:
            BlockingIOError: another process holds it.
        """
        try:
            self.folder.create(".lock", self._content(0))
        except FileExistsError:
            self._watch()
            self.folder.write(".lock", self._content(0))
            self._ended.wait(SECONDS_BETWEEN_BEATS / 2)  # another that waited may write now, too
        self.check()
        self._thread.start()

    def check(self) -> None:
        """Make sure that it is still held."""
        if self._lost or not self._is_ours():
            raise StorageError(
                f"{self.folder}: another prepare has taken over, as this one was not heard of for "
                f"{SECONDS_TO_DIE:g} s; run it again when that has ended"
            )

    def let_go(self) -> None:
        """Leave the folder to others."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self._lost and self._is_ours():
            self.folder.remove(".lock")

    def _watch(self) -> None:
        """Return when the holder is dead."""
        first = self._found()
        waited = 0.0
        while waited < SECONDS_TO_DIE:
            self._ended.wait(SECONDS_BETWEEN_BEATS / 4)
            waited += SECONDS_BETWEEN_BEATS / 4
            now = self._found()
            if now is None:
                return
            if now != first:
                raise BlockingIOError(f"{self.folder}: held by another process")

    def _beat(self) -> None:
        count = 0
        while not self._ended.wait(SECONDS_BETWEEN_BEATS):
            count += 1
            try:
                if not self._is_ours():
                    self._lost = True
                    return
                self.folder.write(".lock", self._content(count))
            except (OSError, StorageError):
                continue  # a network that fails for a moment; whoever watches will tell

    def _content(self, count: int) -> bytes:
        return f"{self._token} {count}\n".encode()

    def _found(self) -> bytes | None:
        try:
            return self.folder.read(".lock")
        except FileNotFoundError:
            return None

    def _is_ours(self) -> bool:
        return (self._found() or b"").startswith(self._token.encode())


Folder = LocalFolder | RemoteFolder


def folder_at(location: Location) -> Folder:
    """The folder at a location, whether or not there is one yet.

    Raises:
        StorageError: a URL that cannot be opened.
    """
    place = location_of(location)
    return LocalFolder(place) if isinstance(place, Path) else RemoteFolder(place)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # file systems without hard links
        shutil.copyfile(source, target)
