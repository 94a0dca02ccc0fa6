"""The table of a store: what is known of each subject, and of those that failed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

#: A label column that says whose images a subject's are, where one person has several; evaluation
#: keeps those of one person on one side of every split.
PARTICIPANT = "participant"


@dataclass(frozen=True)
class Record:
    """What is known of one prepared image, besides its labels.

    Attributes:
        subject: unique key.
        affine: homogeneous matrix, row by row: index in the crop to world coordinates (RAS+, mm)
            in 3D; index to (row, column) of the original image in 2D.
        intensity_min: per modality, the original intensity that became 0.
        intensity_max: per modality, the original intensity that became 255.
        source: per modality, where it came from, relative to the source.
        checksum: digest of the source files and everything that shaped the image.
        source_size: voxels per axis of its first image, before it was resampled and cropped, in the
            order of the crop's axes; empty where an earlier version prepared it.
        source_spacing: spacing of that image along these axes in mm; 1 in pictures.
        mask_checksum: digest of the file of its mask; empty where it has no mask, or none is kept.
        mask_labels: values of its mask as it is kept, without 0; None without a mask. `stage`
            finds them.
        modality_present: per modality, whether the subject has it; empty where it has all. One
            that it lacks is zero in the image, and has no intensities (0) and no source.
        crop_center: what this crop is centred on: `mask`, `foreground` or `image`; empty where
            images are scaled as a whole.
        prepare_notes: what had to be decided about its files, in words that are the same for
            every subject and name no file.
    """

    subject: str
    affine: tuple[float, ...]
    intensity_min: tuple[float, ...]
    intensity_max: tuple[float, ...]
    source: tuple[str, ...]
    checksum: str
    modality_present: tuple[bool, ...] = ()
    crop_center: str = ""
    prepare_notes: tuple[str, ...] = ()
    source_size: tuple[int, ...] = ()
    source_spacing: tuple[float, ...] = ()
    mask_checksum: str = ""
    mask_labels: tuple[int, ...] | None = None

    @property
    def checksums(self) -> tuple[str, str]:
        """Digests of what shaped its image and its mask."""
        return self.checksum, self.mask_checksum


#: Columns that every store has; all others are the user's labels.
RESERVED_COLUMNS = ("subject", "split", *(f.name for f in fields(Record) if f.name != "subject"))

#: Those of them that only a store with masks has.
OF_MASKS = ("mask_checksum", "mask_labels")

#: Those of them that stores of earlier versions lack.
ADDED_LATER = ("modality_present", "source_size", "source_spacing", *OF_MASKS)


@dataclass(frozen=True)
class Failure:
    """A subject that could not be prepared, and why, in one line."""

    subject: str
    reason: str


def column_counts(column: pd.Series[Any], most: int = 8) -> str:
    """Values of a column with their counts, or its range where it is a measurement."""
    known = column.dropna()
    missing = f", {len(column) - len(known)} missing" if len(known) < len(column) else ""
    if known.nunique() > most:
        if pd.api.types.is_numeric_dtype(known):
            return f"{known.min():g} to {known.max():g}, median {known.median():g}{missing}"
        return f"{known.nunique()} different values{missing}"
    counts = known.value_counts().sort_index()
    return ", ".join(f"{value}: {count}" for value, count in counts.items()) + missing
