"""Files appear whole or not at all: everything this library writes passes through here."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vitaepp.errors import RunError, VitaeppError

#: Kinds of temporaries: what is written, and a folder that another takes the place of.
NEW, FORMER = "n", "f"

#: The name of a temporary, see `_temporary`.
_TEMPORARY = re.compile(
    rf"\.tmp-(?P<machine>[0-9a-f]{{6}})-(?P<process>\d+)-(?P<kind>{NEW}|{FORMER})[0-9a-f]{{6}}-"
    r"(?P<target>.+)",
    re.DOTALL,
)


@contextmanager
def atomic_path(target: str | os.PathLike[str], *, parents: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it takes the target's place.

    Works for a file or a folder that the caller makes there. The content is flushed to disk before
    the rename, so that a crash or a power cut leaves the old file, the new one, or none; an old
    folder is kept until the new one is in its place. On an error the temporary is removed; that of
    a process that was killed, when another writes into the folder. The temporary keeps the target's
    suffixes, because many writers choose the format by it. `parents` makes the folders above the
    target where missing.

    Raises:
        OSError: with the target's name, also where the library that writes hides a full disk.
    """
    target = Path(target)
    if target.is_symlink() and target.is_dir():  # its folder is replaced, and not the link
        target = target.resolve()
    temporary = _temporary(target)
    if parents:
        make_folder(target.parent)
    _clear_abandoned(target.parent.absolute())
    try:
        with naming(target, temporary):
            try:
                yield temporary
            except (OSError, VitaeppError):
                raise
            except Exception:  # whatever a library makes of a full disk
                _write_more(temporary)
                raise
            if temporary.is_dir():
                _move_folder(temporary, target)
                return
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, target)
    finally:
        remove(temporary)


@contextmanager
def together(
    folder: str | os.PathLike[str],
    *last: str,
    optional: Iterable[str] = (),
    late: Iterable[str] = (),
) -> Iterator[Path]:
    """Yield a temporary folder; on success its files take their places in `folder`, as one result.

    On an error before that, as of a full disk, those of an earlier call stay as they were. While
    the files are moved there is none of `last`: where these are, all are, and are of one call, also
    where two processes end at a time.

    Args:
        folder: is made where missing; what else it holds stays.
        last: names of the files that vanish first, and come last, in this order.
        optional: names that are removed where they are not written this time, and one of `last`
            tells that an earlier call may have written them.
        late: names that come after the others, before `last`.

    Raises:
        OSError: with the name that the file would have had in `folder`.
    """
    folder, optional, late = Path(folder), frozenset(optional), frozenset(late)
    make_folder(folder)
    _clear_abandoned(folder.absolute())
    staged = _temporary(folder / last[-1])
    try:
        with naming(folder, staged):
            staged.mkdir()
            yield staged
            made = {path.name for path in staged.iterdir()}
            with _in_turn(folder):
                for name in sorted({*made, *last, *optional}):
                    if (folder / name).is_dir():
                        raise IsADirectoryError(
                            errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name)
                        )
                if any((folder / name).exists() for name in last):
                    # `last` after these: a process that dies in between leaves what tells of them.
                    for name in (*sorted(optional - made - {*last}), *last):
                        (folder / name).unlink(missing_ok=True)
                others = sorted(made - {*last}, key=lambda name: (name in late, name))
                for name in (*others, *last):
                    os.replace(staged / name, folder / name)
    finally:
        remove(staged)


@contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """Wait until no other process moves files in this folder."""
    path = folder / ".moving.lock"
    with FileLock(path):  # not that of `locked`, which a caller may hold
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()


def check_writable(target: str | os.PathLike[str]) -> None:
    """Refuse a file that could not be written, before the long work whose result it will hold.

    Nothing is left behind: the work may be refused yet, or fail.

    Raises:
        OSError: with the name of what is in the way.
    """
    target = Path(target)
    temporary = _temporary(target)
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        make_folder(target.parent)
        with naming(target, temporary):
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            temporary.touch()
            temporary.unlink()
    finally:
        for folder in missing:
            with suppress(OSError):  # it could not be made, or others use it by now
                folder.rmdir()


def check_replaces(
    target: str | os.PathLike[str],
    kind: str,
    is_own: Callable[[Path], bool],
) -> None:
    """Refuse a file that could not be written, or that would replace something else.

    A name that was forgotten after an option makes the next one, a scan, the file to write.

    Args:
        target: the file.
        kind: what is written, for the message.
        is_own: whether a file is one.

    Raises:
        RunError: something else is there.
        OSError: with the name of what is in the way.
    """
    path = Path(target)
    if path.is_file() and path.stat().st_size:
        try:
            own = is_own(path)
        except (OSError, ValueError):  # damaged, or of another format
            own = False
        if not own:
            raise RunError(f"{path}: is there, and is no {kind}; give another name")
    check_writable(path)


def refuse_inputs(
    written: Iterable[Path],
    inputs: Iterable[str | os.PathLike[str] | None],
    verb: str,
    instead: str,
) -> None:
    """Refuse to replace or remove what a result is made of.

    Args:
        written: files and folders that the result takes the place of.
        inputs: files that the verb reads; those that are not there are passed over.
        verb: the function.
        instead: what else the user can give: a `folder`, or a `name`.

    Raises:
        RunError: naming the file that would be lost.
    """
    there = {given: Path(given).resolve() for given in inputs if given and Path(given).exists()}
    places = {path.resolve() for path in written} if there else set()
    for given, file in there.items():
        if not places.isdisjoint((file, *file.parents)):
            raise RunError(
                f"{given}: is what `{verb}` is to read, and its result would take the place of it; "
                f"give another {instead}"
            )


def columns_in(path: str | os.PathLike[str]) -> list[str]:
    """The first line of a CSV file, as far as it is one; spreadsheets may have written it."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        return next(csv.reader([file.readline(1 << 24)]), [])


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        OSError: with the name of what is in the way.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None


@contextmanager
def naming(path: Path, *stand_ins: Path) -> Iterator[None]:
    """Have an OSError name `path`, if it names no file or a stand-in, or what is below that."""
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        named = path if error.filename is None else Path(os.fsdecode(error.filename))
        found = [named.relative_to(s) for s in stand_ins if named.is_relative_to(s)]
        if code <= 0 or not (found or error.filename is None):
            raise
        raise OSError(code, os.strerror(code), str(path.joinpath(*found))) from error


def _move_folder(folder: Path, target: Path) -> None:
    """Rename a folder; what was in its place is removed afterwards."""
    if not target.is_dir():
        os.replace(folder, target)
        return
    former = _temporary(target, FORMER)
    try:
        os.replace(target, former)
        os.replace(folder, target)
    finally:
        if former.exists():
            clear(former)


def _temporary(target: Path, kind: str = NEW) -> Path:
    """A temporary path beside a file or folder that is to be written.

    Its name tells by whom and for what it was made: `_TEMPORARY`.

    Raises:
        OSError: what is there is neither a file nor a folder, and must not be replaced.
    """
    if not target.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists() and not target.is_file() and not target.is_dir():
        raise OSError(errno.EINVAL, "is a device or a pipe; name a file", str(target))
    maker = f"{_machine()}-{os.getpid()}-{kind}{secrets.token_hex(3)}"
    return target.with_name(f".tmp-{maker}-{target.name}")


@cache
def _machine() -> str:
    """Where process numbers are this process's: a machine since it started, or a container."""
    known = platform.node()
    with suppress(OSError):  # Linux alone has these
        known += os.readlink("/proc/self/ns/pid")
        known += Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return hashlib.sha256(known.encode()).hexdigest()[:6]


def _runs(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    if os.name != "posix":
        return True  # there, asking would be a Ctrl-C
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's, or no number of a process
        pass
    return True


@cache
def _clear_abandoned(folder: Path) -> None:
    """Clear what killed processes of this machine left in a folder; a process does it once."""
    names: list[str] = []
    with suppress(OSError):  # what is wrong with the folder, writing into it will tell
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(".tmp-")]
    for name in names:
        made = _TEMPORARY.fullmatch(name)
        if made and made["machine"] == _machine() and not _runs(int(made["process"])):
            with suppress(OSError):
                clear(folder / name)


def _write_more(temporary: Path) -> None:
    """Write on, so that the system says why a library could not; many libraries hide it."""
    written = [path for path in (temporary, *temporary.rglob("*")) if path.is_file()]
    longest = max(written, key=lambda path: path.stat().st_size, default=temporary)
    if not longest.is_dir():
        with open(longest, "ab") as handle:
            handle.write(bytes(1 << 20))
            handle.flush()
            os.fsync(handle.fileno())


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under a second name; a copy, where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def remove(path: Path) -> None:
    """Remove a file or a folder as far as that is possible, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        # Of a folder that is read-only this is told even of what is not there.
        with suppress(OSError):
            path.unlink()


def clear(temporary: Path) -> None:
    """Remove what a killed process left under a temporary name.

    A folder that was to be replaced, and was not yet, gets its name back.
    """
    made = _TEMPORARY.fullmatch(temporary.name)
    target = temporary.with_name(made["target"] if made else temporary.name)
    if made and made["kind"] == FORMER and not target.exists():
        os.replace(temporary, target)
    else:
        remove(temporary)


def clear_temporaries(folder: str | os.PathLike[str], *names: str) -> None:
    """Remove temporary files and folders of these names that killed processes left.

    This process must hold the folder `locked`, so that nobody else writes them meanwhile.
    """
    for path in (path for name in names for path in Path(folder).glob(f".tmp-*-{name}")):
        clear(path)


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder for writing; the operating system releases it when the process dies.

    Its file is removed at the end. Who waits for it meanwhile notices that (`filelock` does), and
    begins with a new one.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the folder does not exist, or cannot be written.
    """
    os.stat(folder)  # filelock would make one that does not exist
    path = Path(folder) / ".lock"
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(errno.EWOULDBLOCK, "held by another process", str(path)) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes it when it is released
            path.unlink()
        lock.release()


def file_stem(key: str) -> str:
    """A file name for any subject key: readable, without separators, different for each key.

    >>> file_stem("BraTS19_001"), file_stem("train/../x")
    ('BraTS19_001', 'train_.._x-6a81f575')
    """
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", key).lstrip(".")[:100]
    if plain == key:
        return plain
    return f"{plain}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """What is in a JSON file.

    Raises:
        ValueError: it is not JSON in UTF-8.
    """
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """JSON as every file here has it; NaN and infinity are refused, because JSON has none."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def without_nan(value: Any) -> Any:
    """Values for JSON, which has no NaN and no infinity: None stands for them."""
    if isinstance(value, Mapping):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
