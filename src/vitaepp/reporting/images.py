"""Slices for the page: every slice of a few subjects' images, inside the HTML."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vitaepp.data.arrays import Numbers
from vitaepp.explanation.pictures import columns_of, slice_of, strength_of
from vitaepp.presentation.drawing import data_uri
from vitaepp.presentation.planes import OUTLINE, Plane, are_colours, border, planes

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


Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sheet:
    """Images side by side, such as original and masked; slices of a volume one below the other.

    Attributes:
        subject: its key.
        channel: its name, or that of a map.
        heads: what is side by side.
        source: data URI of the image.
        slices: how many there are, 1 for a flat image.
        step: every `step`-th slice of the volume is shown.
        start: which of the slices is shown first; None for the middle one.
        aspect: width by height of one row, in the images' own proportions.
        plane: of the slices, with the marks of its sides.
    """

    subject: str
    channel: str
    heads: tuple[str, ...]
    source: str
    slices: int
    step: int
    start: int | None
    aspect: float
    plane: Plane

    @property
    def first(self) -> int:
        """The slice that is shown first, from 0 on."""
        return self.slices // 2 if self.start is None else self.start


@dataclass(frozen=True)
class Pictures:
    """Images of one subject.

    Attributes:
        size: voxels per spatial axis.
        channels: for each channel or map, what is side by side, by its head: `(*space)`, or
            `(*space, 3)` in colours.
        strength: `(*space)`; the slice where it is most is shown first. None for the middle one.
    """

    size: tuple[int, ...]
    channels: Mapping[str, Mapping[str, Pixels]]
    strength: Numbers | None = None


#: From the arrays of a subject's `.npz` file to what is shown of it.
Show = Callable[[Mapping[str, npt.NDArray[np.generic]]], Pictures]


def reconstructed(arrays: Mapping[str, npt.NDArray[np.generic]]) -> Pictures:
    """What `reconstruct` keeps of a subject.

    Args:
        arrays: uint8 `original`, `masked`, `reconstruction`, each `(channel, *space)`, and
            `channels`, their names.
    """
    images = [np.asarray(arrays[kind]) for kind in KINDS]
    names = [str(name) for name in arrays["channels"]]
    shape = images[0].shape
    if any(image.shape != shape or image.dtype != np.uint8 for image in images):
        raise ValueError("its images differ in shape or are not uint8")
    if len(shape) not in (3, 4) or shape[0] != len(names) or 0 in shape:
        raise ValueError(f"images of shape {shape} with {len(names)} channel names")
    heads = [kind.capitalize() for kind in KINDS]
    if are_colours(names, len(shape) - 1):
        shown = {"colour": [np.moveaxis(image, 0, -1) for image in images]}
    else:
        shown = {name: [image[c] for image in images] for c, name in enumerate(names)}
    channels = {name: dict(zip(heads, three, strict=True)) for name, three in shown.items()}
    return Pictures(shape[1:], channels)


def explained(arrays: Mapping[str, npt.NDArray[np.generic]]) -> Pictures:
    """What `explain` keeps of a subject: each map beside the image, on which a lesion is outlined.

    Args:
        arrays: as `explain` writes them.
    """
    if "image" not in arrays:
        raise ValueError("holds no image, as of an earlier version; run vitaepp explain again")
    columns = columns_of(arrays)
    image, ndim = columns.pop("image"), arrays["parts"].ndim
    size = image.shape[:ndim]
    plane = planes(ndim, True)[0]
    if "lesion" in arrays:
        image = np.repeat(image[..., None], 3, axis=-1) if image.ndim == ndim else image.copy()
        lesion = np.asarray(arrays["lesion"], bool)
        for index in range(1 if plane.across is None else size[plane.across]):
            cut = (slice(None),) * (ndim - 1) + (index,) if ndim == 3 else ()
            image[cut][border(lesion[cut]) > 0] = OUTLINE
    channels = {head: {"Image": image, "Map": values} for head, values in columns.items()}
    return Pictures(size, channels, strength_of(arrays))


def sheets(
    volumes: Mapping[str, Path],
    spacing: Sequence[float] | None,
    directed: bool,
    budget: int,
    show: Show = reconstructed,
) -> tuple[list[Sheet], list[str]]:
    """Encode subjects in order until the budget of bytes is spent; the first always fits.

    Args:
        volumes: `.npz` files by subject.
        spacing: voxel size per axis, for true proportions; None takes voxels as cubes.
        directed: whether the axes of volumes run to the patient's right, front and head.
        budget: bytes.
        show: what the files hold.

    Returns:
        The sheets, and a line for every file that cannot be read.
    """
    made: list[Sheet] = []
    broken: list[str] = []
    spent = shown = 0
    for subject, file in volumes.items():
        try:
            with np.load(file, allow_pickle=False) as arrays:
                own, size, flat = _subject_sheets(subject, show(dict(arrays)), spacing, directed)
        except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
            broken.append(f"{file.name} cannot be read: {error}")
            continue
        if made and (spent + size > budget or shown >= (MOST_IMAGES if flat else MOST_VOLUMES)):
            break
        made += own
        spent += size
        shown += 1
    return made, broken


def grouped(made: Sequence[Sheet]) -> dict[str, list[Sheet]]:
    """The sheets of each subject."""
    subjects: dict[str, list[Sheet]] = {}
    for sheet in made:
        subjects.setdefault(sheet.subject, []).append(sheet)
    return subjects


def _subject_sheets(
    subject: str, pictures: Pictures, spacing: Sequence[float] | None, directed: bool
) -> tuple[list[Sheet], int, bool]:
    space = pictures.size
    plane = planes(len(space), directed)[0]
    known = spacing if spacing and len(spacing) == len(space) else None
    width, height = plane.extent(space, known)
    strongest = None if pictures.strength is None else slice_of(plane, pictures.strength)
    made, size = [], 0
    for channel, columns in pictures.channels.items():
        content, slices, step = _encoded(list(columns.values()), plane)
        size += len(content)
        uri, aspect = data_uri(content, "webp"), round(len(columns) * width / height, 4)
        start = None if strongest is None else min(round(strongest / step), slices - 1)
        made.append(
            Sheet(subject, channel, tuple(columns), uri, slices, step, start, aspect, plane)
        )
    return made, size, plane.across is None


def _encoded(images: Sequence[Pixels], plane: Plane) -> tuple[bytes, int, int]:
    """Slices one below the other, each with the images side by side; their number, and its step."""
    first = plane.cut(images[0])
    depth = 1 if plane.across is None else images[0].shape[plane.across]
    smaller = math.ceil(max(first.shape[:2]) / MOST_PIXELS)
    height = first.shape[0] / smaller + 1
    step = max(math.ceil(depth / MOST_SLICES), math.ceil(depth * height / TALLEST_SHEET))
    colour = any(image.ndim > (2 if plane.across is None else 3) for image in images)
    rows = [
        np.concatenate([_reduced(_cut(plane, i, index, colour), smaller) for i in images], axis=1)
        for index in range(0, depth, step)
    ]
    return webp(Image.fromarray(np.concatenate(rows, axis=0))), len(rows), step


def _cut(plane: Plane, image: Pixels, index: int, colour: bool) -> Pixels:
    """A slice as a picture, in colours where others beside it are."""
    if plane.across is not None and image.ndim > 3:
        layers = [plane.cut(layer, index) for layer in np.moveaxis(image, -1, 0)]
        return np.stack(layers, axis=-1)
    cut = plane.cut(image, index)
    return np.repeat(cut[..., None], 3, axis=-1) if colour and cut.ndim == 2 else cut


def _reduced(pixels: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    """Fewer pixels by averaging squares of them."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).reduce(factor))


def webp(picture: Image.Image) -> bytes:
    """A picture as WebP, which a page can hold many of."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=82, method=4)
    return buffer.getvalue()
