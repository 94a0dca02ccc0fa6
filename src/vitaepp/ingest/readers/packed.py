"""Files that may be compressed by gzip: the first two bytes decide, because names may be wrong."""

from __future__ import annotations

import gzip
from io import BufferedReader
from pathlib import Path

#: What every gzip file begins with.
GZIP = b"\x1f\x8b"


def is_packed(path: Path) -> bool:
    """Whether a file is compressed by gzip."""
    with open(path, "rb") as file:
        return file.read(len(GZIP)) == GZIP


def open_unpacked(path: Path) -> BufferedReader | gzip.GzipFile:
    """Open a file for reading; what it holds is decompressed on the way, if it is compressed."""
    return gzip.open(path) if is_packed(path) else open(path, "rb")
