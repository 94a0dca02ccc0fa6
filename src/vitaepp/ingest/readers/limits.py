"""Limits of size: the size that a header promises is checked before memory is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

from vitaepp.errors import SubjectError
from vitaepp.system.host import installed_memory
from vitaepp.system.text import dimensions

#: Most pixels of a picture; Pillow, too, refuses more as a decompression bomb (twice its
#: `Image.MAX_IMAGE_PIXELS`).
MOST_PIXELS = 178_956_970

#: Most pixels along one side of a picture; no JPEG is longer.
MOST_ALONG_A_SIDE = 65_535

#: Most bytes that one compressed byte can become; the densest compression, deflate, gives 1032.
MOST_EXPANSION = 1100

#: Bytes of memory that a voxel needs until it is in the store.
BYTES_A_VOXEL = 8


@cache
def most_voxels() -> int:
    """The most voxels that one file may have; they would fill half of the machine's memory."""
    return installed_memory() // 2 // BYTES_A_VOXEL


def refuse_absurd_size(size: Sequence[int], name: str, components: int = 1) -> None:
    """Refuse an image that would fill the memory, by the size in its header.

    Raises:
        SubjectError: the picture has too many pixels, or the scan too many voxels.
    """
    most = min(most_voxels(), MOST_PIXELS) if len(size) == 2 else most_voxels()
    too_long = len(size) == 2 and max(size) > MOST_ALONG_A_SIDE
    if too_long or prod(int(n) for n in size) * components > most:
        shape = dimensions(size)
        raise SubjectError(
            f"{name}: its header promises an image of {shape}, more than the {most} values "
            f"({MOST_ALONG_A_SIDE} along a side of a picture) that are read on this machine; if "
            "the size is right, crop the image or use a machine with more memory"
        )
