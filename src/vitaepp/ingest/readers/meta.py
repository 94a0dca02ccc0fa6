"""MetaImage and NRRD: checks of a file before the image library reads it, and what it ignores."""

from __future__ import annotations

import re
import zlib
from math import prod
from pathlib import Path

from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.detached import MOST_BYTES, text_header, voxel_files
from vitaepp.ingest.readers.image import NO_SIZE

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

#: mm per unit of length, by its name in a header, and what notes call it.
UNITS = {
    **dict.fromkeys((b"m", b"meter", b"meters", b"metre", b"metres"), (1e3, "metres")),
    **dict.fromkeys((b"cm", b"centimeter", b"centimeters", b"centimetres"), (10.0, "centimetres")),
    **dict.fromkeys((b"um", "µm".encode(), b"micron", b"microns"), (1e-3, "micrometres")),
    **dict.fromkeys((b"micrometer", b"micrometers", b"micrometres"), (1e-3, "micrometres")),
    **dict.fromkeys((b"nm", b"nanometer", b"nanometers", b"nanometres"), (1e-6, "nanometres")),
    **dict.fromkeys((b"in", b"inch", b"inches"), (25.4, "inches")),
}
MILLIMETRES = (
    b"mm",
    b"millimeter",
    b"millimeters",
    b"millimetre",
    b"millimetres",
    b"",
    b"?",
    b"???",
)

#: The world of a NRRD whose axes run along the patient's, which the image library understands.
ANATOMICAL = re.compile(
    rb"(left|right)-(anterior|posterior)-(superior|inferior)(-time)?|[lr][ap][si]t?", re.IGNORECASE
)

NO_AXES = (
    "the header does not say where the axes run; from right to left, front to back, feet to head "
    "is assumed"
)
UNKNOWN_UNIT = "the header's unit of length is not known; mm is assumed"

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


def place_in_words(path: Path) -> tuple[tuple[float, float, float], tuple[str, ...]]:
    """What a header says of lengths and axes, and the image library does not.

    Returns:
        mm per unit of length along each axis of the world, and notes on what is assumed.
    """
    suffix = path.suffix.lower()
    if suffix not in COMPRESSED:
        return (1.0, 1.0, 1.0), ()
    nrrd = suffix in (".nrrd", ".nhdr")
    name = rb"([a-z ]+?)[ \t]*:(?!=)" if nrrd else rb"[ \t]*(\w+)[ \t]*="
    line = rb"^%b[ \t]*(.*?)[ \t\r]*$" % name
    found = re.findall(line, text_header(path)[0], re.MULTILINE | re.IGNORECASE)
    fields = {name.lower().replace(b" ", b""): value for name, value in found}
    if nrrd:
        of_size = {b"spacedirections", b"spacings"}
        named = ANATOMICAL.fullmatch(fields.get(b"space", b"")) and b"spacedirections" in fields
        units = re.findall(rb'"([^"]*)"', fields.get(b"spaceunits", fields.get(b"units", b"")))
    else:
        of_size = {b"elementspacing", b"elementsize"}
        named = not fields.keys().isdisjoint((b"transformmatrix", b"rotation", b"orientation"))
        named = named or fields.get(b"anatomicalorientation", b"").upper() == b"RAI"
        units = [fields.get(b"distanceunits", b"")] * 3
    notes = [NO_SIZE] if fields.keys().isdisjoint(of_size) else []
    notes += [] if named else [NO_AXES]
    factors = [1.0, 1.0, 1.0]
    for axis, unit in enumerate(unit.strip().lower() for unit in units[:3]):
        if unit in UNITS:
            factors[axis], word = UNITS[unit]
            notes.append(f"lengths are in {word}; converted to mm")
        elif unit not in MILLIMETRES:
            notes.append(UNKNOWN_UNIT)
    return (factors[0], factors[1], factors[2]), tuple(dict.fromkeys(notes))


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
