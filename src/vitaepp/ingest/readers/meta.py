"""MetaImage: what its header must say before the image library may look at it."""

from __future__ import annotations

import re
import zlib
from math import prod
from pathlib import Path

from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.detached import voxel_files

#: Longest header that is looked at; comments make it long.
MOST_BYTES = 1 << 16

#: Bytes of a value; those of MET_LONG depend on the machine that wrote it.
BYTES = {
    b"MET_CHAR": 1,
    b"MET_UCHAR": 1,
    b"MET_SHORT": 2,
    b"MET_USHORT": 2,
    b"MET_INT": 4,
    b"MET_UINT": 4,
    b"MET_FLOAT": 4,
    b"MET_DOUBLE": 8,
    b"MET_LONG_LONG": 8,
    b"MET_ULONG_LONG": 8,
}


SIZES = (b"NDims", b"DimSize")


def check_meta(path: Path, name: str) -> None:
    """Refuse what crashes the image library, or what it makes up from memory that nobody filled.

    Raises:
        SubjectError: not one to four axes, or compressed data that are not what is promised.
    """
    with open(path, "rb") as file:
        start = file.read(MOST_BYTES)
    header, found, after = start.partition(b"ElementDataFile")
    told = dict(re.findall(rb"^\s*(\w+)\s*=\s*(.*?)\s*$", header, re.MULTILINE))
    once = all(len(re.findall(rb"^\s*%b\s*=" % k, header, re.MULTILINE)) == 1 for k in SIZES)
    size = [_whole(n) for n in told.get(b"DimSize", b"").split()]
    axes = _whole(told.get(b"NDims", b""))
    if not (found and once and 1 <= axes <= 4 and len(size) == axes and min(size) > 0):
        raise SubjectError(f"{name}: cannot be read: truncated, corrupt or not a MetaImage file")
    if told.get(b"CompressedData", b"").lower() in (b"true", b"1"):
        offset = len(header) + len(found) + len(after.partition(b"\n")[0]) + 1
        channels = _whole(told.get(b"ElementNumberOfChannels", b"1"))
        length = prod(size) * channels * BYTES.get(told.get(b"ElementType", b""), 0)
        voxels = voxel_files(path)
        there = _lengths(*((voxels[0], 0) if voxels else (path, offset)), length)
        if there != (_whole(told.get(b"CompressedDataSize", b"")), length):
            raise SubjectError(
                f"{name}: cannot be read: its compressed data are not what its header promises"
            )


def _lengths(path: Path, offset: int, most: int) -> tuple[int, int]:
    """Bytes of the compressed data in a file's rest, packed and unpacked; zeros if damaged.

    Unpacking ends where there are more than `most`.
    """
    unpack, packed, found = zlib.decompressobj(), 0, 0
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            while found <= most and not unpack.eof and (block := file.read(1 << 16)):
                packed += len(block)
                while block and found <= most:
                    found += len(unpack.decompress(block, 1 << 20))
                    block = unpack.unconsumed_tail
    except zlib.error:
        return 0, 0
    return (packed - len(unpack.unused_data), found) if unpack.eof else (0, 0)


def _whole(text: bytes) -> int:
    return int(text) if re.fullmatch(rb"\d{1,9}", text) else 0
