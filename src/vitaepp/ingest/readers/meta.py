"""MetaImage and NRRD: checks of a file before the image library reads it."""

from __future__ import annotations

import re
import zlib
from math import prod
from pathlib import Path

from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.detached import MOST_BYTES, text_header, voxel_files

#: Bytes per value; MET_LONG is missing because it depends on the machine that wrote the file.
BYTES = {
    **dict.fromkeys((b"MET_CHAR", b"MET_UCHAR"), 1),
    **dict.fromkeys((b"MET_SHORT", b"MET_USHORT"), 2),
    **dict.fromkeys((b"MET_INT", b"MET_UINT", b"MET_FLOAT"), 4),
    **dict.fromkeys((b"MET_LONG_LONG", b"MET_ULONG_LONG", b"MET_DOUBLE"), 8),
}

SIZES = (b"NDims", b"DimSize")

#: The line in a header that says that the voxels are compressed, by format.
COMPRESSED = {
    **dict.fromkeys((".nrrd", ".nhdr"), rb"^encoding\s*:\s*(gz|gzip)\s*$"),
    **dict.fromkeys((".mha", ".mhd"), rb"^CompressedData\s*=\s*(True|1)\s*$"),
}

#: Fields of a header that say that other data come before the voxels.
SKIPPED = re.compile(rb"^((line|byte) ?skip\s*:|HeaderSize\s*=)", re.MULTILINE | re.IGNORECASE)

GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


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


def check_compressed(path: Path, name: str) -> None:
    """Refuse a file whose compressed voxels are truncated or do not match their checksum.

    The image library ignores the checksum.
    """
    suffix = path.suffix.lower()
    if suffix not in COMPRESSED:
        return
    header, start = text_header(path)
    compressed = re.search(COMPRESSED[suffix], header, re.MULTILINE | re.IGNORECASE)
    if compressed is None or SKIPPED.search(header):
        return
    detached = voxel_files(path)
    stream = zlib.decompressobj(GZIP_OR_ZLIB)
    with open(detached[0] if detached else path, "rb") as file:
        file.seek(0 if detached else start)
        try:
            while not stream.eof and (block := file.read(1 << 16)):
                stream.decompress(block)
        except zlib.error:
            raise SubjectError(
                f"{name}: cannot be read: corrupt (its compressed data have errors); copy it again"
            ) from None
    if not stream.eof:
        raise SubjectError(
            f"{name}: cannot be read: truncated (its compressed data break off); copy it again"
        )
