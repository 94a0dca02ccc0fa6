"""Folders that hold a store: on this machine, or behind a URL that fsspec opens.

Both keep the same promise: a file appears whole or not at all, and what is replaced stays readable
until then. A local folder keeps it by renaming, an object store because a put is all or nothing.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from vitaepp.errors import StorageError
from vitaepp.system.files import atomic_path, clear, link_or_copy, locked, make_folder
from vitaepp.system.urls import Location, filesystem, location_of, storage_errors

#: Protocols without folders; asked to make one, some would make a bucket.
OBJECT_STORES = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"))

#: A holder writes its lock anew after this time ...
SECONDS_BETWEEN_BEATS = 5.0
#: ... and one that has not done so for this long is dead.
SECONDS_TO_DIE = 30.0


class LocalFolder:
    """A folder on a file system of this machine; its files are named by relative paths with `/`."""

    def __init__(self, path: Path) -> None:
        self.path: Path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The last part of its path, whatever the current folder is."""
        return self.path.resolve().name

    @property
    def is_file(self) -> bool:
        """Whether there is a file instead of a folder."""
        return self.path.exists() and not self.path.is_dir()

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder of this name; without a name, whether it exists."""
        return (self.path / name).exists()

    def entries(self, name: str = "") -> list[str]:
        """Sorted names of what is in it, or in a folder below; none if that does not exist."""
        folder = self.path / name
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []

    def lacking(self, folder: str, names: Sequence[str]) -> list[str]:
        """Which of many files below a folder are not there."""
        at = self.path / folder
        return [name for name in names if not os.path.isfile(f"{at}/{name}")]

    def read(self, name: str) -> bytes:
        """A file's content."""
        return (self.path / name).read_bytes()

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """The content of many files."""
        return {name: self.read(name) for name in names}

    @contextmanager
    def replacing(self, name: str, data: bytes, *, parents: bool = True) -> Iterator[None]:
        """Write a file when the body has ended; a full disk is noticed before the body runs."""
        with atomic_path(self.path / name, parents=parents) as temporary:
            temporary.write_bytes(data)
            yield

    def write(self, name: str, data: bytes, *, parents: bool = True) -> None:
        """Write a file, whole or not at all; without `parents`, its folder must be there."""
        with self.replacing(name, data, parents=parents):
            pass

    def copy(self, names: Mapping[str, str]) -> None:
        """Give files a second name each; a file appears whole or not at all."""
        for source, target in names.items():
            path = self.path / target
            path.parent.mkdir(parents=True, exist_ok=True)
            # The name is swapped, never the content: readers of the old file keep it.
            temporary = path.with_name(f".tmp-{path.name}")
            temporary.unlink(missing_ok=True)
            link_or_copy(self.path / source, temporary)
            os.replace(temporary, path)
            temporary.unlink(missing_ok=True)  # renaming does nothing if both are one file

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def make(self, name: str = "") -> None:
        """Make the folder, or one below, unless it is there."""
        make_folder(self.path / name)

    def remove_folder(self, name: str, first: str) -> None:
        """Remove a folder below: in one step, or files that end in `first` before the others."""
        removed = self.path / f".tmp-{os.getpid()}-{name.lstrip('.')}"
        (self.path / name).rename(removed)
        shutil.rmtree(removed, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """Remove the temporary files of killed processes; nobody may be writing meanwhile."""
        for leftover in list(self.path.glob("**/.tmp-*")):
            clear(leftover)

    @contextmanager
    def lock(self) -> Iterator[Lock]:
        """Hold the folder for writing; the system releases it when the process dies."""
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
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("::")[2].rpartition("/")[2]

    @property
    def is_file(self) -> bool:
        """Whether there is a file instead of a folder."""
        with storage_errors(self.path):
            return bool(self._system.isfile(self._root))

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder of this name; without a name, whether it exists."""
        with storage_errors(self.path):
            self._system.invalidate_cache()  # others write, too
            return bool(self._system.exists(self._at(name)))

    def entries(self, name: str = "") -> list[str]:
        """Sorted names of what is in it, or in a folder below; none if that does not exist."""
        with storage_errors(self.path):
            self._system.invalidate_cache()  # others write, too
            try:
                paths = self._system.ls(self._at(name), detail=False)
            except FileNotFoundError:
                return []
        return sorted({str(path).rstrip("/").rpartition("/")[2] for path in paths})

    def lacking(self, folder: str, names: Sequence[str]) -> list[str]:
        """Which of many files below a folder are not there, by one listing.

        Where there are real folders, each of which would take a listing, a file counts as there if
        the first of the folders that it is in is there.
        """
        if self._has_folders:
            first = {*self.entries(folder)}
            return [name for name in names if name.partition("/")[0] not in first]
        with storage_errors(self.path):
            self._system.invalidate_cache()  # others write, too
            try:
                paths = self._system.find(self._at(folder))
            except FileNotFoundError:
                paths = []
        there = {str(path).rpartition(f"/{folder}/")[2] for path in paths}
        return [name for name in names if name not in there]

    def read(self, name: str) -> bytes:
        """A file's content."""
        with storage_errors(self.path):
            return bytes(self._system.cat_file(self._at(name)))

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """The content of many files."""
        if not names:
            return {}
        paths = {self._at(name): name for name in names}
        with storage_errors(self.path):
            contents = self._system.cat(list(paths))
        return {name: bytes(contents[path]) for path, name in paths.items()}

    @contextmanager
    def replacing(self, name: str, data: bytes, *, parents: bool = True) -> Iterator[None]:
        """Write a file when the body has ended."""
        yield
        self.write(name, data, parents=parents)

    def write(self, name: str, data: bytes, *, parents: bool = True) -> None:
        """Write a file, whole or not at all; its folder is made where there are folders."""
        with storage_errors(self.path), self._whole(name) as path:
            self._system.pipe_file(path, data)

    def copy(self, names: Mapping[str, str]) -> None:
        """Copy files to a second name each; a file appears whole or not at all."""
        with storage_errors(self.path), ExitStack() as whole:
            targets = [whole.enter_context(self._whole(name)) for name in names.values()]
            self._system.copy([self._at(name) for name in names], targets, on_error="raise")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with storage_errors(self.path), suppress(FileNotFoundError):
            self._system.rm_file(self._at(name))

    def make(self, name: str = "") -> None:
        """Make the folder, or one below, unless it is there."""
        with storage_errors(self.path):
            self._make(self._at(name))

    def remove_folder(self, name: str, first: str) -> None:
        """Remove a folder below: in one step, or files that end in `first` before the others."""
        files = [self._at(f"{name}/{n}") for n in self.entries(name)]
        early = [f for f in files if f.endswith(first)]
        with storage_errors(self.path):
            for part in (early, sorted(set(files) - set(early))):
                if part:
                    self._system.rm(part)
            if self._has_folders:
                self._system.rmdir(self._at(name))

    def remove_leftovers(self) -> None:
        """Remove the temporary files of killed processes; nobody may be writing meanwhile."""
        if self._has_folders:
            with storage_errors(self.path):
                for path in self._system.find(self._root):
                    if path.rpartition("/")[2].startswith(".tmp-"):
                        self._system.rm_file(path)

    @contextmanager
    def lock(self) -> Iterator[Lock]:
        """Hold the folder for writing, by a file that is written again and again."""
        lease = Lease(self)
        lease.take()
        try:
            yield lease
        finally:
            lease.let_go()

    def mapping(self, name: str) -> Any:
        """A folder below as fsspec's mapping, as Zarr takes it."""
        return self._system.get_mapper(self._at(name))

    def create(self, name: str, data: bytes) -> None:
        """Write a file that must not be there yet; of two at once one wins, where that is possible.

        Raises:
            FileExistsError: it is there.
        """
        with storage_errors(self.path):
            self._system.pipe_file(self._at(name), data, mode="create")

    @contextmanager
    def _whole(self, name: str) -> Iterator[str]:
        """Where to write a file so that it appears whole, as any file in an object store does."""
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
        if not self._root and "::" in self.path:  # the top of an archive
            return name
        return f"{self._root}/{name}" if name else self._root


Folder = LocalFolder | RemoteFolder


def folder_at(location: Location) -> Folder:
    """The folder at a location, whether or not there is one yet.

    Raises:
        StorageError: a URL that cannot be opened.
    """
    path = location_of(location)
    return LocalFolder(path) if isinstance(path, Path) else RemoteFolder(path)


class Lock:
    """A lock that the operating system releases when the process dies."""

    def check(self) -> None:
        """Make sure that it is still held, which it always is.

        Raises:
            StorageError: another process has taken it over; a `Lease` can be.
        """


class Lease(Lock):
    """A lock that is a file, and lasts as long as its holder writes it again and again.

    Machines need not agree on the time: a process that finds the file watches whether it changes.
    """

    def __init__(self, folder: RemoteFolder) -> None:
        self.folder = folder
        self._token = secrets.token_hex(8)
        self._ended = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def take(self) -> None:
        """Take the lock; from a dead holder, after watching that it is dead.

        Raises:
            BlockingIOError: another process holds it.
        """
        try:
            self.folder.create(".lock", self._content(0))
        except FileExistsError:
            self._watch()
            self.folder.write(".lock", self._content(0))
            self._ended.wait(SECONDS_BETWEEN_BEATS / 2)  # others that watched may write it, too
        self.check()
        self._thread.start()

    def check(self) -> None:
        """Make sure that the lock is still held.

        Raises:
            StorageError: another process has taken it over.
        """
        if self._lost or not self._is_ours():
            raise StorageError(
                f"{self.folder}: another prepare has taken over, because this one gave no sign for "
                f"{SECONDS_TO_DIE:g} s; run it again when the other has ended"
            )

    def let_go(self) -> None:
        """Let others take the lock."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self._lost and self._is_ours():
            self.folder.remove(".lock")

    def _watch(self) -> None:
        """Return when the holder is dead.

        Raises:
            BlockingIOError: it is alive.
        """
        first = self._content_now()
        waited = 0.0
        while waited < SECONDS_TO_DIE:
            self._ended.wait(SECONDS_BETWEEN_BEATS / 4)
            waited += SECONDS_BETWEEN_BEATS / 4
            now = self._content_now()
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
                continue  # the network failed for a moment; try again at the next beat

    def _content(self, count: int) -> bytes:
        return f"{self._token} {count}\n".encode()

    def _content_now(self) -> bytes | None:
        try:
            return self.folder.read(".lock")
        except FileNotFoundError:
            return None

    def _is_ours(self) -> bool:
        return (self._content_now() or b"").startswith(self._token.encode())
