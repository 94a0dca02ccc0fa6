"""Archives: a source that is a `.zip` or a `.tar` is extracted for as long as it is needed.

An archive may be hostile: no name in it may lead out of the folder, links and devices are not made,
and its files are counted and added up before they are written.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import cast

from vitaepp.data.cells import TABLE_SUFFIXES
from vitaepp.data.suffixes import ARCHIVE_SUFFIXES, suffix_of
from vitaepp.errors import SourceError, VitaeppError
from vitaepp.ingest.layouts.cifar import holds_cifar
from vitaepp.ingest.readers.tar import BLOCK, BROKEN_TAR, tar_entries
from vitaepp.recipe.sections import PrepareSettings
from vitaepp.system.files import locked
from vitaepp.system.host import GIB
from vitaepp.system.progress import track, warn
from vitaepp.system.text import first_few

#: Without a limit from the user, an archive may hold so many times its own size and a GiB more.
#: No archive of images reaches that, and a decompression bomb does at once.
USUAL_RATIO = 200

SCRATCH, NEW = "vitaepp-archive-", "vitaepp-new-"

BROKEN = (zipfile.BadZipFile, *BROKEN_TAR, struct.error, OverflowError)

#: Called with the size of an entry, whether it is used or not, before it is read.
Count = Callable[[int], None]


@dataclass(frozen=True)
class Member:
    """One entry of an archive.

    Attributes:
        name: relative, without `..`.
        content: its bytes, to be read before the next member; None for a link or a device.
    """

    name: PurePosixPath
    content: BufferedIOBase | None


@contextmanager
def opened(
    source: str | os.PathLike[str], settings: PrepareSettings
) -> Iterator[str | os.PathLike[str]]:
    """A source as a path for the layouts: an archive's content, or the source as it is.

    An archive is extracted into a folder below `TMPDIR` or, where that is not set, the system's
    folder of temporary files. The folder is removed afterwards, and folders that killed runs left
    there are removed, too. An archive that holds a single folder stands for that folder, any other
    for a folder of the archive's name. Archives inside are files like others. CIFAR's own archive
    is read as it is.

    Args:
        source: the path that the user gave.
        settings: how much an archive may hold.

    Raises:
        SourceError: damaged, encrypted, larger than allowed, or with a name that leads outside.
    """
    path = Path(source)
    if not is_archive(path) or holds_cifar(path):
        yield source
        return
    with _scratch() as scratch:
        name = path.name.removesuffix(suffix_of(path.name, ARCHIVE_SUFFIXES)) or "archive"
        folder = scratch / name
        folder.mkdir()
        _extract(path, folder, settings)
        first, *others = folder.iterdir()
        inside = first if first.is_dir() and not others else folder
        try:
            yield inside
        except VitaeppError as error:
            # The scratch folder means nothing to a user.
            text = str(error).replace(str(inside), str(path)).replace(str(folder), str(path))
            raise type(error)(text) from error


def labels_in(labels: Path | None, archive: Path, folder: Path) -> Path | None:
    """A table of labels that is on disk, or else the one of this name inside an archive.

    Args:
        labels: as the user gave it: a path here, or one inside the archive.
        archive: the source.
        folder: what `opened` made of it.

    Raises:
        SourceError: it is in neither; the message names the tables that the archive holds.
    """
    if labels is None or labels.exists() or not is_archive(archive) or folder == archive:
        return labels
    named = labels
    if labels.is_relative_to(archive):
        named = labels.relative_to(archive)
    if not named.is_absolute() and ".." not in named.parts:
        # An archive of a single folder stands for it, and its names begin with the folder's.
        for root in (folder, folder.parent):
            if (root / named).is_file():
                return root / named
    tables = first_few(tables_in(folder))
    raise SourceError(
        f"{labels}: no such file, neither here nor in {archive.name}"
        + (f", which holds {tables}" if tables else ", which holds no table")
    )


def tables_in(folder: Path) -> list[str]:
    """The tables in an archive, by names that `labels_in` finds."""
    files = (file for file in folder.rglob("*") if suffix_of(file.name, TABLE_SUFFIXES))
    return sorted(file.relative_to(folder).as_posix() for file in files)


def is_archive(path: Path) -> bool:
    """Whether a path is a file called like an archive."""
    return bool(suffix_of(path.name, ARCHIVE_SUFFIXES)) and path.is_file()


def members(archive: Path, count: Count) -> Iterator[Member]:
    """The files of an archive in their order, without the hidden ones that macOS adds.

    Args:
        archive: `.zip` or tar, compressed or not.
        count: called with the size of each entry before it is read; raises to stop.

    Raises:
        SourceError: encrypted, or with a name that leads outside. Damage can show at any time, also
            when content is read: see `damage_named`.
    """
    zipped = archive.name.lower().endswith(".zip")
    return _zip_members(archive, count) if zipped else _tar_members(archive, count)


@contextmanager
def damage_named(archive: Path) -> Iterator[None]:
    """Turn the error of any library that finds an archive damaged into one line."""
    try:
        yield
    except VitaeppError:  # which may be a ValueError, too
        raise
    except (*BROKEN, OSError) as error:
        if not _is_damage(error):
            raise
        raise SourceError(
            f"{archive.name}: cannot be extracted: truncated, corrupt or no such archive; copy it "
            "again"
        ) from None


def _is_damage(error: Exception) -> bool:
    # A broken stream is an OSError without a number, and an impossible offset is EINVAL; any other
    # error is the disk's.
    return not isinstance(error, OSError) or error.errno in (None, errno.EINVAL)


def write_member(member: Member, path: Path) -> None:
    """Write an entry's content to a new file, and make the folders above it."""
    if member.content is None:
        raise TypeError(f"{member.name} has no content")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        shutil.copyfileobj(member.content, file, BLOCK)


def _extract(archive: Path, folder: Path, settings: PrepareSettings) -> None:
    allowance = _allowance(archive, folder, settings)
    left_out: list[PurePosixPath] = []
    entries = track(members(archive, allowance), f"extracting {archive.name}", None, "files")
    with damage_named(archive):
        for member in entries:
            if member.content is None:
                left_out.append(member.name)
                continue
            try:
                write_member(member, folder / member.name)
            except OSError as error:
                if _is_damage(error):
                    raise
                raise _not_written(archive, member, error) from None
    if left_out:
        names = first_few(left_out)
        warn(f"{archive.name}: {len(left_out)} links or devices are left out ({names})")
    if not any(folder.iterdir()):
        raise SourceError(f"{archive.name}: holds no files")


def _not_written(archive: Path, member: Member, error: OSError) -> SourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return SourceError(f"{archive.name}: {_no_room()}")
    if isinstance(error, FileExistsError):
        return SourceError(
            f"{archive.name}: {str(member.name)!r} is there twice, or as a file and as a folder"
        )
    return SourceError(
        f"{archive.name}: {str(member.name)!r} cannot be extracted: {error.strerror}; extract it "
        "yourself and give the folder"
    )


def _no_room() -> str:
    return (
        f"does not fit into {tempfile.gettempdir()}, where it is extracted for the time being; "
        "make room there, or name another folder in TMPDIR"
    )


def _allowance(archive: Path, folder: Path, settings: PrepareSettings) -> Count:
    """Adds up what an archive holds, and refuses more than it may."""
    room, packed = shutil.disk_usage(folder).free, archive.stat().st_size
    gib = settings.archive_gib
    allowed = GIB + USUAL_RATIO * packed if gib is None else int(gib * GIB)
    files = held = 0

    def count(size: int) -> None:
        nonlocal files, held
        files, held = files + 1, held + size
        if files > settings.archive_files:
            raise SourceError(
                f"{archive.name}: holds more than {settings.archive_files} files; if that is "
                "right, raise `archive_files`"
            )
        if held > allowed:
            raise SourceError(
                f"{archive.name}: {_size(packed)} that hold more than {_size(allowed)}, as a "
                "decompression bomb does; if that is right, set `archive_gib` to what it may hold"
            )
        if held > room:
            raise SourceError(f"{archive.name}: {_no_room()}")

    return count


def _size(number: int | float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} GiB"


def _zip_members(archive: Path, count: Count) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as zipped:
        infos = [i for i in zipped.infolist() if not i.is_dir()]
        for info in infos:
            count(info.file_size)
        for info in infos:
            name = _inside(archive, info.filename)
            if _is_junk(name):
                continue
            if info.flag_bits & 1:
                raise SourceError(
                    f"{archive.name}: {info.filename!r} is encrypted; extract it yourself and give "
                    "the folder"
                )
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                yield Member(name, None)
                continue
            try:
                content = zipped.open(info)
            except NotImplementedError:
                raise SourceError(
                    f"{archive.name}: {info.filename!r} is compressed in a way that is not read; "
                    "extract it yourself and give the folder"
                ) from None
            with content:
                yield Member(name, cast(BufferedIOBase, content))


def _tar_members(archive: Path, count: Count) -> Iterator[Member]:
    for info, content in tar_entries(archive):
        count(info.size)
        name = _inside(archive, info.name)
        if not info.isdir() and not _is_junk(name):
            yield Member(name, content)


def _inside(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise SourceError(
            f"{archive.name}: names {name!r}, which leads outside of its folder; it was not "
            "extracted"
        )
    return path


def _is_junk(name: PurePosixPath) -> bool:
    return "__MACOSX" in name.parts or any(
        p == ".DS_Store" or p.startswith("._") for p in name.parts
    )


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder, locked while it is in use, so that others can see that it is."""
    parent = Path(tempfile.gettempdir())
    _remove_leftovers(parent)
    new = Path(tempfile.mkdtemp(prefix=NEW, dir=parent))
    folder = new.with_name(new.name.replace(NEW, SCRATCH))
    try:
        with locked(new):
            # It gets this name only when it is locked: without a lock the name is a dead run's.
            new.rename(folder)
            yield folder
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    user = os.getuid() if hasattr(os, "getuid") else 0  # on Windows every file has 0
    for folder in parent.glob(f"{SCRATCH}*"):
        with suppress(OSError):
            mine = folder.lstat().st_uid == user and not folder.is_symlink()
            if mine and (folder / ".lock").is_file():
                with locked(folder):
                    shutil.rmtree(folder, ignore_errors=True)
