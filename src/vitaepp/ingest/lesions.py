"""Which voxels of a mask are the lesion, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vitaepp.data.geometry import Grid, overlaps
from vitaepp.errors import SubjectError
from vitaepp.ingest.readers import NO_FORM, Image, to_grey
from vitaepp.system.text import dimensions

#: A mask of whole numbers with more different values than this is a soft one.
MOST_LABELS = 16

#: The highest values of 8 and 16 bits, which stand for one in a soft mask, and for "ignore" beside
#: few small ones.
FULL = (255, 65535)

#: Labels are small numbers.
LARGEST_LABEL = 100

SOFT = "the mask is soft; voxels above one half of its maximum are the lesion"
IGNORED = "the mask has {} beside small values, an ignore label; it is not the lesion"
NO_AFFINE = "the mask's affine says nothing; it is taken to lie on the image's voxels, one by one"
APART = "the mask's affine puts it outside of the image; it is taken to lie on the image's voxels"


def lesion(
    mask: Image, wanted: Sequence[int] | None = None
) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
    """The voxels of a mask that are the lesion, and what had to be decided.

    A soft mask (fractions, or the many greys of a saved picture) is cut at one half of its
    maximum. 255 beside small whole numbers says "ignore", as in nnU-Net's and other challenges'
    masks.

    Args:
        mask: any real values.
        wanted: the values that are the lesion. Unset: all but 0.
    """
    values = to_grey(mask)
    if wanted is not None:
        return np.isin(values, list(wanted)), ()
    there = np.unique(values)
    whole = values.dtype.kind in "biu" or bool((there == np.rint(there)).all())
    if not whole or (len(there) > MOST_LABELS and there[-1] in FULL):
        return values > there[-1] / 2, (SOFT,)
    labels = there[there != 0]
    if len(labels) > 1 and labels[-1] in FULL and labels[-2] <= LARGEST_LABEL:
        return (values != 0) & (values != labels[-1]), (IGNORED.format(labels[-1]),)
    return values != 0, ()


def kept_labels(mask: Image) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """A mask as it is kept beside images: its own labels where they fit, else 1 in the lesion.

    Labels from 0 to 255 stay. A soft mask becomes 1 where the lesion is, and so does one whose only
    label is another number, such as 65535.

    Raises:
        ValueError: several labels, some of them not from 0 to 255.
    """
    inside, notes = lesion(mask)
    values = to_grey(mask)
    there = np.unique(values)
    if SOFT not in notes and there[0] >= 0 and there[-1] <= FULL[0]:
        return values.astype(np.uint8), ()
    if SOFT not in notes and np.count_nonzero(there) > 1:
        raise ValueError(f"labels from {there[0]:g} to {there[-1]:g}")
    return inside.astype(np.uint8), notes


def grid_of_mask(mask: Image, reference: Image, name: str, of: str) -> tuple[Grid, tuple[str, ...]]:
    """Where the voxels of a mask lie, and what had to be decided.

    Its own affine counts, if it says anything and puts the mask where the image is. If not, the
    mask lies on the image's voxels, where it has as many.

    Args:
        mask: as it was read.
        reference: the image that it is of.
        name: what to call the mask in an error.
        of: what to call the image.

    Raises:
        SubjectError: its affine is off, or it has the image's, and the shapes differ.
    """
    own, theirs = mask.grid, reference.grid
    one_grid = np.allclose(own.affine, theirs.affine, atol=1e-3)
    nothing = NO_FORM in mask.notes or np.array_equal(own.affine, np.eye(len(own.affine)))
    nothing = nothing and not one_grid
    apart = not overlaps(own, theirs)
    if not (one_grid or nothing or apart):
        return own, ()
    if own.size != theirs.size:
        why = "they must have one shape"
        if not one_grid:
            why = "its affine is off, or it is another subject's"
        raise SubjectError(
            f"{name}: the mask is {dimensions(own.size)}, but {of} is "
            f"{dimensions(theirs.size)}; {why}"
        )
    if one_grid:
        return own, ()
    return theirs, (NO_AFFINE if nothing else APART,)
