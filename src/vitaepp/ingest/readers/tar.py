"""Tar archives, read from front to back with little memory, because their headers may be false."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, cast

#: Most bytes that are read at once; tar reads a long name as one piece.
BLOCK = 1 << 18

#: Most bytes that may follow an archive's end; tar adds about 10 KiB.
MOST_PADDING = 1 << 24

#: Exceptions that reading a damaged archive may raise.
BROKEN_TAR = (
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    ValueError,
    RecursionError,
)


def tar_entries(archive: Path) -> Iterator[tuple[tarfile.TarInfo, BufferedIOBase | None]]:
    """The entries of a tar archive, compressed or not, in order.

    Yields:
        The header of an entry, whose size is not negative; and for a regular file its content,
        which has to be read before the next entry.

    Raises:
        BROKEN_TAR: one of these, if the archive is damaged or truncated; maybe only at the end.
    """
    with _decompressed(archive) as stream:
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as tar:
            while (info := tar.next()) is not None:
                cast(Any, tar).members.clear()  # otherwise tarfile keeps them all in memory
                if info.size < 0:
                    raise EOFError
                file = tar.extractfile(info) if info.isreg() else None
                yield info, cast("BufferedIOBase | None", file)
        # If tar's end mark is missing, the archive is truncated.
        if stream.last != tarfile.NUL * tarfile.BLOCKSIZE:
            raise EOFError
        # Read to the end, where compressed files have their checksum.
        for _ in range(MOST_PADDING // BLOCK):
            if not stream.read(BLOCK):
                return
        raise EOFError


@contextmanager
def _decompressed(archive: Path) -> Iterator[_InPieces]:
    openers: dict[bytes, Callable[[Path], Any]] = {
        b"\x1f\x8b": gzip.open,
        b"BZ": bz2.open,
        b"\xfd7": lzma.open,
    }
    with open(archive, "rb") as file:
        start = file.read(2)
    opener = openers.get(start, partial(open, mode="rb"))
    with opener(archive) as stream:
        yield _InPieces(stream)


class _InPieces:
    """A stream that refuses to read much at once, because a name in a tar may claim to be huge.

    Attributes:
        last: the piece that was read last.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell
        self.last = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= BLOCK:
            raise EOFError
        self.last = self._stream.read(size)
        return self.last
