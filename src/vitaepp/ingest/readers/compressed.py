"""Compressed voxels in NRRD and MetaImage: the image library ignores their checksum."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.detached import text_header, voxel_files

#: The line in a header that says that the voxels are compressed, by format.
COMPRESSED = {
    **dict.fromkeys((".nrrd", ".nhdr"), rb"^encoding\s*:\s*(gz|gzip)\s*$"),
    **dict.fromkeys((".mha", ".mhd"), rb"^CompressedData\s*=\s*(True|1)\s*$"),
}

#: Fields of a header that say that other data come before the voxels.
SKIPPED = re.compile(rb"^((line|byte) ?skip\s*:|HeaderSize\s*=)", re.MULTILINE | re.IGNORECASE)

GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


def check_compressed(path: Path, name: str) -> None:
    """Refuse a file whose compressed voxels are truncated or do not match their checksum."""
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
