"""Masks: which voxels are the lesion, and on which grid they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Flags
from vitaepp.data.geometry import Grid, overlaps
from vitaepp.data.masks import FULL, IGNORED, ignored_values
from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.image import NO_FORM, NO_SIZE, Image, is_grey, to_grey
from vitaepp.system.text import dimensions

#: A mask of whole numbers with more different values than this is soft.
MOST_LABELS = 16

#: Values that are so near to whole numbers are these, after rounding errors of what wrote them.
NEARLY = 1e-4

#: A mask of fractions has no values far above 1, unless they are a saved picture's or per cent.
MOST_OF_FRACTIONS = 1.5

SOFT = "the mask is soft; voxels above half of its maximum are the lesion"
LOST = (
    "the mask has fractions; voxels above half of its maximum are the lesion: if they are labels "
    "that were scaled or interpolated, write these as whole numbers"
)
IGNORE_LABEL = "the mask has {} beside small values; it is an ignore label, not the lesion"
FILLED = (
    "no voxel of the mask is 0, the background, so that all of it counts as lesion; if one of its "
    "values is the background, write 0 there"
)
RENAMED = "the mask's only label is {}; it is kept as {}"
NO_AFFINE = "the mask's header gives no position; the image's grid is used"
APART = "the mask's header puts it outside the image; the image's grid is used"


def lesion(
    mask: Image, names: Mapping[int, str], wanted: Sequence[int] | None = None
) -> tuple[Flags, tuple[str, ...]]:
    """Find the voxels of a mask that are the lesion; also returns notes on decisions.

    In a soft mask (fractions, or the many greys of a saved picture), voxels above half of the
    maximum are the lesion.

    Args:
        mask: mask with any real values.
        names: what the source calls its values, if it does.
        wanted: the values that are the lesion. Unset: all except 0 and `ignored_values`.
    """
    values, present = _values(mask)
    if wanted is not None:
        return np.isin(values, list(wanted)), ()
    ignored = ignored_values(present.tolist(), names)
    told = tuple(IGNORE_LABEL.format(value) for value in ignored - names.keys())
    labels = present[~np.isin(present, [*ignored])]
    if soft := _soft(labels):
        inside = (values > labels[-1] / 2) & ~np.isin(values, [*ignored])
        return inside, (*soft, *((FILLED,) if inside.all() else ()), *told)
    notes = () if 0 in present or not len(labels) else (FILLED,)
    return ~np.isin(values, [0, *ignored]), (*notes, *told)


def kept_labels(
    mask: Image, names: Mapping[int, str]
) -> tuple[npt.NDArray[np.uint8], Flags, tuple[str, ...]]:
    """The values of a mask that is kept in a store, where they are labels, and notes on decisions.

    Labels from 0 to 255 are kept; 65535, where it is an ignore label or the only one, is 255: the
    store's other masks tell which. A soft mask, and a mask whose only label beside 0 is another
    larger number, becomes 1 in the lesion.

    Args:
        mask: mask with any real values.
        names: what the source calls its values, if it does.

    Raises:
        ValueError: the mask has other labels that are not from 0 to 255, or it has colours.
    """
    if not is_grey(mask):
        raise ValueError("colours")
    inside, notes = lesion(mask, names)
    values, present = _values(mask)
    ignored = [*ignored_values(present.tolist(), names)]
    labels = present[~np.isin(present, ignored)]
    if _soft(labels):
        return inside.astype(np.uint8), inside, notes
    values = np.where(np.isin(values, ignored), np.minimum(values, IGNORED), values)
    if labels.min(initial=0) >= 0 and labels.max(initial=0) <= IGNORED:
        return values.astype(np.uint8), inside, notes
    if len(present) == 2 and present[0] == 0:
        number = IGNORED if present[-1] in FULL else 1
        notes = (*notes, RENAMED.format(f"{present[-1]:g}", number))
        return np.where(inside, number, 0).astype(np.uint8), inside, notes
    raise ValueError(f"labels from {labels[0]:g} to {labels[-1]:g}")


def _values(mask: Image) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """A mask's values, whole numbers where all nearly are, and the different ones, rising."""
    values = to_grey(mask)
    present = np.unique(values)
    # What is nearly 0 throughout is no label with an error but a mask in a small unit.
    small = 0 < np.abs(present).max() <= 0.5
    nearly = not small and np.abs(present - np.rint(present)).max() <= NEARLY
    if values.dtype.kind == "f" and nearly:
        values = np.rint(values)
        present = np.unique(np.rint(present))
    return values, present


def _soft(present: npt.NDArray[Any]) -> tuple[str, ...]:
    """What to say of a mask that is soft, by its different values; nothing of any other.

    Args:
        present: without those that are to be ignored.
    """
    if not len(present):
        return ()
    if (present == np.rint(present)).all():
        many = len(present) > MOST_LABELS and present[-1] in FULL
        return (SOFT,) if many else ()
    labels = 2 < len(present) <= MOST_LABELS or MOST_OF_FRACTIONS < present[-1] <= MOST_LABELS
    return (LOST,) if labels else (SOFT,)


def grid_of_mask(
    mask: Image, reference: Image, name: str, image_name: str
) -> tuple[Grid, tuple[str, ...]]:
    """The grid of a mask, and notes on decisions.

    The mask's own affine is used if it gives a position and the mask overlaps the image. Otherwise
    the image's grid is used if the shapes are equal.

    Args:
        mask: the mask as it was read.
        reference: the image that the mask belongs to.
        name: the name of the mask in error messages.
        image_name: the name of the image in error messages.

    Raises:
        SubjectError: the shapes differ, and the mask's affine is wrong or equal to the image's.
    """
    own, theirs = mask.grid, reference.grid
    one_grid = np.allclose(own.affine, theirs.affine, atol=1e-3)
    unplaced = NO_FORM in mask.notes or NO_SIZE in mask.notes
    nothing = unplaced or np.array_equal(own.affine, np.eye(len(own.affine)))
    nothing = nothing and not one_grid
    apart = not overlaps(own, theirs)
    if not (one_grid or nothing or apart):
        return own, ()
    if own.size != theirs.size:
        why = "they must have one shape"
        if not one_grid:
            why = "its affine is wrong, or it is another subject's"
        raise SubjectError(
            f"{name}: the mask is {dimensions(own.size)}, but {image_name} is "
            f"{dimensions(theirs.size)}; {why}"
        )
    if one_grid:
        return own, ()
    return theirs, (NO_AFFINE if nothing else APART,)
