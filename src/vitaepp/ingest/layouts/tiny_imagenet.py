"""Tiny ImageNet (Stanford CS231n): 200 classes of 64 × 64 pictures.

    wnids.txt                                   the classes, in their own order
    train/n01443537/images/n01443537_0.JPEG     500 per class
    val/images/val_0.JPEG, val/val_annotations.txt
    test/images/test_0.JPEG                     without labels: left out

The official split `val`, which has labels, is used as the test split, as is usual.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from vitaepp.data.suffixes import PICTURE_SUFFIXES
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts.cohort import SINGLE, Cohort, Source, SubjectFiles
from vitaepp.ingest.layouts.names import stem


def tiny_imagenet_cohort(source: Source) -> Cohort | None:
    """A folder with wnids.txt, train/ and val/, or one that holds such a folder."""
    base = next((f.parent for f in source.files if f.name == "wnids.txt"), None)
    if base is None:
        return None
    classes = tuple(_lines(source, base / "wnids.txt"))
    rank = {wnid: i for i, wnid in enumerate(classes)}
    train: list[tuple[int, PurePosixPath]] = []
    val: list[PurePosixPath] = []
    unlabelled: list[PurePosixPath] = []
    for file in source.ending_in(PICTURE_SUFFIXES):
        if not file.is_relative_to(base):
            continue
        parts = file.relative_to(base).parts
        if parts[0] == "train" and len(parts) > 2 and parts[1] in rank:
            train.append((rank[parts[1]], file))
        elif parts[:2] == ("val", "images"):
            val.append(file)
        elif parts[:2] == ("test", "images"):
            unlabelled.append(file)
    if not train:
        return None
    lines = _lines(source, base / "val" / "val_annotations.txt") if val else []
    rows = [line.split("\t") for line in lines]
    class_of = {row[0]: row[1] for row in rows if len(row) > 1}
    unknown = next((f for f in val if class_of.get(f.name) not in rank), None)
    if unknown is not None:
        raise SourceError(
            f"{source.path}: val/val_annotations.txt gives no class for {unknown.name}; extract "
            "the archive again"
        )
    labelled = [("train", file, classes[i]) for i, file in sorted(train)]
    labelled += [("test", file, class_of[file.name]) for file in val]
    subjects = [
        SubjectFiles(stem(f.name), {SINGLE: source.path / f}, split=split, labels={"label": label})
        for split, f, label in labelled
    ]
    return source.cohort(
        "Tiny ImageNet",
        subjects,
        kind="pictures",
        classes=classes,
        left_out=dict.fromkeys(unlabelled, "an official test image, without label"),
    )


def _lines(source: Source, file: PurePosixPath) -> list[str]:
    try:
        text = (source.path / file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise SourceError(
            f"{source.path}: {file} is missing or not a text file; extract the archive again"
        ) from None
    return [line.strip() for line in text.splitlines() if line.strip()]
