"""MetaImage: what its header must say before the image library may look at it."""

from __future__ import annotations

import re
from pathlib import Path

from vitaepp.errors import SubjectError

#: Longest header that is looked at; comments make it long.
MOST_BYTES = 1 << 16


def check_meta(path: Path, name: str) -> None:
    """Refuse a number of axes that crashes the image library, and sizes that do not fit it.

    Raises:
        SubjectError: not a MetaImage of one to four axes.
    """
    with open(path, "rb") as file:
        header = file.read(MOST_BYTES).partition(b"ElementDataFile")[0]
    told = {
        key: re.findall(rb"^\s*%b\s*=(.*)$" % key, header, re.MULTILINE)
        for key in (b"NDims", b"DimSize")
    }
    numbers = {key: [_whole(n) for n in lines[0].split()] for key, lines in told.items() if lines}
    axes, size = numbers.get(b"NDims", []), numbers.get(b"DimSize", [])
    once = all(len(lines) == 1 for lines in told.values())
    if not (once and axes in ([1], [2], [3], [4]) and len(size) == axes[0] and min(size) > 0):
        raise SubjectError(f"{name}: cannot be read: truncated, corrupt or not a MetaImage file")


def _whole(text: bytes) -> int:
    return int(text) if re.fullmatch(rb"\d{1,9}", text) else 0
