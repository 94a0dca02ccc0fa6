"""What prepare will make of a cohort: channels, grid, and how its images are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.masks import FULL, IGNORED, is_ignore
from vitaepp.data.storefiles import stored_info
from vitaepp.data.storeinfo import RGB, StoreInfo, with_tuples
from vitaepp.errors import RecipeError, SourceError, StoreError, SubjectError, nearest
from vitaepp.ingest.layouts import Cohort
from vitaepp.ingest.pseudonyms import read_secret
from vitaepp.ingest.readers.arrays import open_array, read_array, space_of
from vitaepp.ingest.readers.image import Image, is_grey
from vitaepp.ingest.readers.items import ArrayItem, Item
from vitaepp.ingest.readers.pictures import read_picture
from vitaepp.ingest.task import ImageSpec
from vitaepp.recipe.fields import per_axis
from vitaepp.recipe.sections import OF_IMAGES, PrepareSettings, marked
from vitaepp.system.text import dimensions, evenly

DEFAULT_SIZE = {"scans": (96,), "pictures": (224,)}
DEFAULT_SPACING = (1.0,)

#: Pictures looked at to tell a grey cohort from a coloured one.
COLOUR_SAMPLE = 32


def spec_of(
    cohort: Cohort,
    settings: PrepareSettings,
    store: Path | str,
    without_masks: bool = False,
    of_run: bool = False,
) -> ImageSpec:
    """What to make of a cohort: what the user asked for, else what suits its kind.

    Args:
        cohort: the source.
        settings: settings that the user gave.
        store: to make.
        without_masks: as in `ImageSpec`.
        of_run: as in `Cohort.choose`.

    Raises:
        RecipeError: settings that do not fit each other.
        SourceError: settings that do not fit this source.
        StoreError: the store was begun, and is damaged, or names labels of masks otherwise.
    """
    files, channels = _channels(cohort, settings.modalities, of_run)
    own = _array_size(cohort) if cohort.kind == "arrays" else DEFAULT_SIZE[cohort.kind]
    ndim = {"scans": 3, "pictures": 2, "arrays": len(own)}[cohort.kind]
    spacing = settings.spacing or (DEFAULT_SPACING if cohort.kind == "scans" else None)
    center = settings.center
    if spacing is None and center not in (None, "image"):
        raise RecipeError(
            f"`center={center}`: images without a spacing are scaled as a whole; "
            "give a spacing in pixels to crop them"
        )
    if center is None:
        center = "mask" if cohort.has_masks and spacing is not None else "image"
    if center == "mask" and not without_masks and all(s.mask is None for s in cohort.subjects):
        raise SourceError(
            f"{cohort.layout} without masks: center=mask needs them; use foreground or image"
        )
    begun = stored_info(store)
    if settings.keep_masks and begun is None and all(s.mask is None for s in cohort.subjects):
        raise SourceError(
            f"{cohort.layout} without masks: `keep_masks` has none to keep; leave it out, or name "
            "the masks with `mask_pattern` or in a manifest"
        )
    info = StoreInfo(
        modalities=channels,
        size=per_axis(settings.size or own, ndim, "size"),
        spacing=None if spacing is None else per_axis(spacing, ndim, "spacing"),
        dtype=settings.dtype,
        center=center,
        clip=settings.clip,
        window=_windows(settings, files),
        statistics=settings.statistics,
        mask_values=settings.mask_values if center == "mask" else None,
        unit=None if spacing is None or cohort.kind == "scans" else "pixels",
        masks=settings.keep_masks or (begun is not None and begun.masks) or None,
        more=_more(settings),
    )
    info = replace(info, mask_names=_mask_names(cohort, begun, store, info))
    secret = None if settings.secret is None else read_secret(settings.secret)
    return ImageSpec(info, store, cohort.root, cohort.kind, files, secret, without_masks, settings)


def spec_in_words(spec: ImageSpec) -> str:
    """A spec in a line for the user."""
    info = spec.info
    size = dimensions(info.size)
    channels = ", ".join(info.modalities)
    if info.intensities:
        channels += f" ({info.intensities})"
    masks = "; masks are kept" if info.masks else ""
    if info.spacing is None:
        return f"{channels}, scaled to fit {size}{masks}"
    spacing = dimensions(info.spacing if len(set(info.spacing)) > 1 else info.spacing[:1])
    unit = info.unit or "mm"
    return f"{channels}, {size} voxels of {spacing} {unit} around the {info.center}{masks}"


def _mask_names(
    cohort: Cohort, begun: StoreInfo | None, store: Path | str, info: StoreInfo
) -> tuple[tuple[int, str], ...]:
    """What the source and the store that was begun call the values of masks.

    A value above 255 that is kept as 255 has its name there, too.
    """
    there, here = dict(begun.mask_names if begun else ()), dict(cohort.mask_names)
    for value in sorted(there.keys() & here.keys()):
        one, other = there[value], here[value]
        shaping = info.center == "mask" and is_ignore(one) != is_ignore(other)
        if one != other and (info.masks or shaping):
            raise StoreError(
                f"{store}: label {value} of its masks is {one}, and {other} in this "
                "source; prepare into another folder"
            )
    names = there | here
    for value, name in here.items():
        if value > IGNORED and (is_ignore(name) or value in FULL):
            names.setdefault(IGNORED, name)
    return tuple(sorted(names.items()))


def _more(settings: PrepareSettings) -> tuple[tuple[str, Any], ...]:
    """Settings that shape images and have no field of their own in a store's facts."""
    known = {f.name for f in fields(StoreInfo)}
    values = with_tuples(settings.model_dump(mode="json", exclude_defaults=True))
    names = marked(type(settings), OF_IMAGES)
    return tuple((name, values[name]) for name in names if name in values.keys() - known)


def _windows(
    settings: PrepareSettings, files: tuple[str, ...]
) -> tuple[tuple[str, float, float], ...] | None:
    """The ends of each modality's window, in the order of the modalities."""
    windows = settings.window or {}
    for name in windows:
        if name not in files:
            raise RecipeError(f"`window`: no modality {name} here; {nearest(name, files)}")
    ends = [
        (name, windows[name][0] - windows[name][1] / 2, windows[name][0] + windows[name][1] / 2)
        for name in files
        if name in windows
    ]
    return tuple(ends) or None


def _channels(
    cohort: Cohort, modalities: tuple[str, ...] | None, of_run: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which files to read, and which channels they make."""
    if cohort.kind == "scans":
        files = cohort.choose(modalities, of_run=of_run)
        return files, files
    colours = {("grey",): ("grey",), ("gray",): ("grey",), ("rgb",): RGB, RGB: RGB}
    if modalities in colours and len(cohort.modalities) == 1:
        return cohort.modalities, colours[modalities]
    try:
        files = cohort.choose(modalities, of_run=of_run)
    except SourceError:
        if len(cohort.modalities) > 1:
            raise
        names = ",".join(modalities or ())
        raise SourceError(f"modalities {names}: pictures are grey or rgb") from None
    if len(files) > 1:
        return files, files
    grey = all(is_grey(image) for image in _sample(cohort, files[0]))
    return files, ("grey",) if grey else RGB


def _sample(cohort: Cohort, modality: str) -> Iterator[Image]:
    """Some images of a cohort, the same at every call."""
    # Arrays are read front to back, so that its first items stand for all.
    arrays = islice(arrays_of(cohort.items(modality)), COLOUR_SAMPLE)
    for item in arrays if cohort.kind == "arrays" else sampled(cohort, modality):
        try:
            if isinstance(item, Path):
                yield read_picture(item, item.name)
            elif isinstance(item, np.ndarray):
                yield read_array(item, modality)
        except SubjectError:
            continue  # it will be named when its turn comes


def sampled(cohort: Cohort, modality: str) -> list[Item]:
    """Some pictures, evenly spread, that are looked at before all are read."""
    items = cohort.items(modality)
    return [items[i] for i in evenly(len(items), COLOUR_SAMPLE)]


def arrays_of(items: Iterable[Item]) -> Iterator[npt.NDArray[Any]]:
    """The arrays of a cohort's items, which follow the order of their files."""
    members = (item for item in items if isinstance(item, ArrayItem))
    for (file, key), group in groupby(members, key=lambda i: (i.file, i.key)):
        wanted = {item.index for item in group}
        for index, image in enumerate(open_array(file, key)):
            if index in wanted:
                wanted.remove(index)
                yield image
        if wanted:
            raise SourceError(f"{file.name}: {key} changed while it was read; run prepare again")


def _array_size(cohort: Cohort) -> tuple[int, ...]:
    item = cohort.subjects[0].files[cohort.modalities[0]]
    if not isinstance(item, ArrayItem):
        raise TypeError(f"{item} is no array")
    shape = open_array(item.file, item.key).shape[1:]
    space = space_of(shape)
    if len(space) not in (2, 3):
        raise SourceError(
            f"{item.file.name}: {item.key} holds images of shape {shape}; they have two or three "
            "spatial axes, and at most a last one of colour"
        )
    return space
