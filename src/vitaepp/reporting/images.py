"""Reconstructions for the page: every slice of a few subjects, as images inside the HTML."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vitaepp.presentation.drawing import data_uri
from vitaepp.presentation.planes import Plane, are_colours, planes

KINDS = ("original", "masked", "reconstruction")

#: Bytes of encoded images that a report spends on all its reconstructions together.
BUDGET = 3_500_000

#: Slices of a volume that are shown at most; of deeper volumes, every n-th slice is.
MOST_SLICES = 48

#: Pixels a side of a slice; larger ones are reduced by whole factors.
MOST_PIXELS = 256

#: Pixels that a sheet of slices is high at most; WebP ends at 16383.
TALLEST_SHEET = 16_000

#: Subjects shown at most, of volumes and of flat images.
MOST_VOLUMES = 6
MOST_IMAGES = 12


@dataclass(frozen=True)
class Sheet:
    """Original, masked and reconstruction side by side; the slices of a volume one below the other.

    Attributes:
        subject: its key.
        channel: its name.
        source: data URI of the image.
        slices: how many there are, 1 for a flat image.
        step: every `step`-th slice of the volume is shown.
        aspect: width by height of one row of three, in the images' own proportions.
        plane: of the slices, with the marks of its sides.
    """

    subject: str
    channel: str
    source: str
    slices: int
    step: int
    aspect: float
    plane: Plane


def sheets(
    volumes: Mapping[str, Path], spacing: Sequence[float] | None, directed: bool, budget: int
) -> tuple[list[Sheet], list[str]]:
    """Encode subjects in order until the budget of bytes is spent; the first always fits.

    Args:
        volumes: `.npz` files by subject: uint8 `original`, `masked`, `reconstruction`, each
            `(channel, *space)`, and `channels`, their names.
        spacing: voxel size per axis, for true proportions; None takes voxels as cubes.
        directed: whether the axes of volumes run to the patient's right, front and head.
        budget: bytes.

    Returns:
        The sheets, and a line for every file that cannot be read.
    """
    made: list[Sheet] = []
    broken: list[str] = []
    spent = shown = 0
    for subject, file in volumes.items():
        try:
            own, size, flat = _subject_sheets(subject, file, spacing, directed)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            broken.append(f"{file.name} cannot be read: {error}")
            continue
        if made and (spent + size > budget or shown >= (MOST_IMAGES if flat else MOST_VOLUMES)):
            break
        made += own
        spent += size
        shown += 1
    return made, broken


def _subject_sheets(
    subject: str, file: Path, spacing: Sequence[float] | None, directed: bool
) -> tuple[list[Sheet], int, bool]:
    with np.load(file, allow_pickle=False) as arrays:
        images = [np.asarray(arrays[kind]) for kind in KINDS]
        names = [str(name) for name in arrays["channels"]]
    shape = images[0].shape
    if any(image.shape != shape or image.dtype != np.uint8 for image in images):
        raise ValueError("its images differ in shape or are not uint8")
    if len(shape) not in (3, 4) or shape[0] != len(names) or 0 in shape:
        raise ValueError(f"images of shape {shape} with {len(names)} channel names")
    space = shape[1:]
    plane = planes(len(space), directed)[0]
    if are_colours(names, len(space)):
        pictures = {"colour": [np.moveaxis(image, 0, -1) for image in images]}
    else:
        pictures = {name: [image[c] for image in images] for c, name in enumerate(names)}
    known = spacing if spacing and len(spacing) == len(space) else None
    width, height = plane.extent(space, known)
    made, size = [], 0
    for channel, three in pictures.items():
        content, slices, step = _encoded(three, plane)
        size += len(content)
        uri, aspect = data_uri(content, "webp"), round(3 * width / height, 4)
        made.append(Sheet(subject, channel, uri, slices, step, aspect, plane))
    return made, size, plane.across is None


def _encoded(three: Sequence[npt.NDArray[np.uint8]], plane: Plane) -> tuple[bytes, int, int]:
    """Slices one below the other, each with the images side by side; their number, and its step."""
    first = plane.cut(three[0])
    depth = 1 if plane.across is None else three[0].shape[plane.across]
    smaller = math.ceil(max(first.shape[:2]) / MOST_PIXELS)
    height = first.shape[0] / smaller + 1
    step = max(math.ceil(depth / MOST_SLICES), math.ceil(depth * height / TALLEST_SHEET))
    rows = [
        np.concatenate([_reduced(plane.cut(image, index), smaller) for image in three], axis=1)
        for index in range(0, depth, step)
    ]
    return webp(Image.fromarray(np.concatenate(rows, axis=0))), len(rows), step


def _reduced(pixels: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    """Fewer pixels by averaging squares of them."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).reduce(factor))


def webp(picture: Image.Image) -> bytes:
    """A picture as WebP, which a page can hold many of."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=82, method=4)
    return buffer.getvalue()
