"""Masks: which voxels are the lesion, and on which grid they lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Flags
from vitaepp.data.geometry import Grid, overlaps
from vitaepp.errors import SubjectError
from vitaepp.ingest.readers.image import NO_FORM, Image, is_grey, to_grey
from vitaepp.ingest.readers.meta import NO_SIZE
from vitaepp.system.text import dimensions

#: A mask of whole numbers with more different values than this is soft.
MOST_LABELS = 16

#: The highest values of 8 and 16 bits. In a soft mask they mean one; beside a few small numbers
#: they mean "ignore".
FULL = (255, 65535)

#: The largest number that counts as a label.
LARGEST_LABEL = 100

SOFT = "the mask is soft; voxels above half of its maximum are the lesion"
IGNORED = "the mask has {} beside small values; it is an ignore label, not the lesion"
NO_AFFINE = "the mask's header gives no position; the image's grid is used"
APART = "the mask's header puts it outside the image; the image's grid is used"


def lesion(mask: Image, wanted: Sequence[int] | None = None) -> tuple[Flags, tuple[str, ...]]:
    """Find the voxels of a mask that are the lesion; also returns notes on decisions.

    In a soft mask (fractions, or the many greys of a saved picture), voxels above half of the
    maximum are the lesion. 255 beside small whole numbers means "ignore", as in the masks of
    nnU-Net and of some challenges.

    Args:
        mask: mask with any real values.
        wanted: the values that are the lesion. Unset: all except 0.
    """
    values = to_grey(mask)
    if wanted is not None:
        return np.isin(values, list(wanted)), ()
    present = np.unique(values)
    whole = values.dtype.kind in "biu" or bool((present == np.rint(present)).all())
    if not whole or (len(present) > MOST_LABELS and present[-1] in FULL):
        return values > present[-1] / 2, (SOFT,)
    labels = present[present != 0]
    if len(labels) > 1 and labels[-1] in FULL and labels[-2] <= LARGEST_LABEL:
        return (values != 0) & (values != labels[-1]), (IGNORED.format(labels[-1]),)
    return values != 0, ()


def kept_labels(mask: Image) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """The values of a mask that is kept in a store; also returns notes on decisions.

    Labels from 0 to 255 are kept. A soft mask, and a mask whose only label is another number such
    as 65535, becomes 1 in the lesion.

    Raises:
        ValueError: the mask has several labels, and some are not from 0 to 255, or it has colours.
    """
    if not is_grey(mask):
        raise ValueError("colours")
    inside, notes = lesion(mask)
    values = to_grey(mask)
    present = np.unique(values)
    if SOFT not in notes and present[0] >= 0 and present[-1] <= FULL[0]:
        return values.astype(np.uint8), ()
    if SOFT not in notes and np.count_nonzero(present) > 1:
        raise ValueError(f"labels from {present[0]:g} to {present[-1]:g}")
    return inside.astype(np.uint8), notes


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
