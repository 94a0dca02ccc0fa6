"""How large an image may be: a header's promise is held against the machine before it is kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from math import prod

from vitaepp.errors import SubjectError
from vitaepp.system.text import dimensions

#: Pixels of a picture; Pillow, too, takes more for a decompression bomb (twice its
#: `Image.MAX_IMAGE_PIXELS`).
MOST_PIXELS = 178_956_970

#: Pixels along one side of a picture; no JPEG is longer.
MOST_ALONG_A_SIDE = 65_535

#: More than any compression of the formats makes of a byte: deflate, the densest, makes 1032.
MOST_EXPANSION = 1100

#: Bytes that a voxel takes on its way to the store.
BYTES_A_VOXEL = 8


@cache
def most_voxels() -> int:
    """Voxels that may be in one file: those that fill half of the machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return memory // 2 // BYTES_A_VOXEL


def refuse_absurd_size(size: Sequence[int], name: str, components: int = 1) -> None:
    """Refuse an image that would fill the memory, by the size that its header gives.

    Raises:
        SubjectError: more pixels in a picture, or more voxels, than can be meant.
    """
    most = min(most_voxels(), MOST_PIXELS) if len(size) == 2 else most_voxels()
    too_long = len(size) == 2 and max(size) > MOST_ALONG_A_SIDE
    if too_long or prod(int(n) for n in size) * components > most:
        shape = dimensions(size)
        raise SubjectError(
            f"{name}: its header promises an image of {shape}, more than the {most} values "
            f"({MOST_ALONG_A_SIDE} along a side of a picture) that are read on this machine; if "
            "that is right, crop it or take a machine of more memory"
        )
