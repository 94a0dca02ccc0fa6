"""MetaImage: checks of the header before the image library reads the file."""

from __future__ import annotations

import re
import zlib
from math import prod
from pathlib import Path

from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.detached import voxel_files

#: Most bytes of a header; comments can make it long.
MOST_BYTES = 1 << 16

#: Bytes per value; MET_LONG is missing because it depends on the machine that wrote the file.
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
    """Refuse files that crash the image library, or for which it returns uninitialised memory.

    Raises:
        SubjectError: there are not one to four axes, or compressed data do not fit the header.
    """
    with open(path, "rb") as file:
        start = file.read(MOST_BYTES)
    header, end, after = start.partition(b"ElementDataFile")
    fields = dict(re.findall(rb"^\s*(\w+)\s*=\s*(.*?)\s*$", header, re.MULTILINE))
    once = all(len(re.findall(rb"^\s*%b\s*=" % k, header, re.MULTILINE)) == 1 for k in SIZES)
    size = [_whole(n) for n in fields.get(b"DimSize", b"").split()]
    axes = _whole(fields.get(b"NDims", b""))
    if not (end and once and 1 <= axes <= 4 and len(size) == axes and min(size) > 0):
        raise SubjectError(f"{name}: cannot be read: truncated, corrupt or not a MetaImage file")
    if fields.get(b"CompressedData", b"").lower() in (b"true", b"1"):
        offset = len(header) + len(end) + len(after.partition(b"\n")[0]) + 1
        channels = _whole(fields.get(b"ElementNumberOfChannels", b"1"))
        length = prod(size) * channels * BYTES.get(fields.get(b"ElementType", b""), 0)
        voxels = voxel_files(path)
        lengths = _lengths(*((voxels[0], 0) if voxels else (path, offset)), length)
        if lengths != (_whole(fields.get(b"CompressedDataSize", b"")), length):
            raise SubjectError(f"{name}: cannot be read: its compressed data do not fit its header")


def _lengths(path: Path, offset: int, most: int) -> tuple[int, int]:
    """Compressed and unpacked bytes of a file from `offset` on; zeros if they are damaged.

    Unpacking ends after more than `most` bytes.
    """
    unpack, packed, unpacked = zlib.decompressobj(), 0, 0
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            while unpacked <= most and not unpack.eof and (block := file.read(1 << 16)):
                packed += len(block)
                while block and unpacked <= most:
                    unpacked += len(unpack.decompress(block, 1 << 20))
                    block = unpack.unconsumed_tail
    except zlib.error:
        return 0, 0
    return (packed - len(unpack.unused_data), unpacked) if unpack.eof else (0, 0)


def _whole(text: bytes) -> int:
    return int(text) if re.fullmatch(rb"\d{1,9}", text) else 0
