"""MedMNIST: a `.npz` file with images and labels of each split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vitaepp.errors import SourceError
from vitaepp.ingest.layouts.cohort import SINGLE, Cohort, Source, SubjectFiles
from vitaepp.ingest.readers.arrays import NpzArray, npz_keys
from vitaepp.ingest.readers.items import ArrayItem
from vitaepp.system.text import dimensions, first_few


def medmnist_cohort(source: Source) -> Cohort | None:
    """An `.npz` with MedMNIST's keys."""
    path = source.path
    if not path.is_file() or path.suffix.lower() != ".npz":
        return None
    keys = npz_keys(path)
    splits = [s for s in ("train", "val", "test") if f"{s}_images" in keys]
    if not splits:
        raise SourceError(
            f"{path.name}: has none of the arrays train_images, val_images, test_images; "
            f"found {', '.join(keys)}"
        )
    subjects: list[SubjectFiles] = []
    notes: tuple[str, ...] = ()
    for split in splits:
        images = NpzArray(path, f"{split}_images")
        shape = images.shape[1:]
        if len(shape) == 3 and shape[0] in (3, 4) and min(shape[1:]) > shape[0] and shape[2] != 3:
            notes = (
                f"images of {dimensions(shape)} are taken as volumes of {shape[0]} slices; if "
                "these are colours, move that axis last",
            )
        labels = (
            _npz_labels(path, f"{split}_labels", len(images)) if f"{split}_labels" in keys else {}
        )
        subjects += [
            SubjectFiles(
                f"{split}_{i:05d}",
                {SINGLE: ArrayItem(path, images.key, i)},
                split=split,
                labels={name: values[i] for name, values in labels.items()},
            )
            for i in range(len(images))
        ]
    known = {f"{s}_{what}" for s in ("train", "val", "test") for what in ("images", "labels")}
    if unused := [key for key in keys if key not in known]:
        notes += (
            f"{first_few(unused)}: not MedMNIST's arrays, and not used; persons go into a column "
            "participant of a table of labels, and masks beside images into a folder or manifest",
        )
    root = path.absolute().parent
    return Cohort("a .npz with MedMNIST's keys", "arrays", root, tuple(subjects), notes=notes)


def _npz_labels(path: Path, key: str, length: int) -> dict[str, list[Any]]:
    array = NpzArray(path, key)
    if len(array) != length:
        raise SourceError(f"{path.name}: {key} has {len(array)} rows for {length} images")
    values = np.stack(list(array)).reshape(length, -1) if length else np.empty((0, 1))
    columns = values.T.tolist()
    if len(columns) == 1:
        return {"label": columns[0]}
    return {f"label_{i}": column for i, column in enumerate(columns)}
