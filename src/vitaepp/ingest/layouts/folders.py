"""Plain folders: every scan or picture is a subject, and folders are splits or classes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from vitaepp.errors import SourceError
from vitaepp.ingest.layouts.cohort import SINGLE, Cohort, Kind, Source, SubjectFiles, common_folder
from vitaepp.ingest.layouts.masks import partners_by_word
from vitaepp.ingest.layouts.names import (
    CLASS_NOTE,
    above_splits,
    class_of,
    kind_in,
    says_image,
    split_of,
    stem,
)
from vitaepp.ingest.layouts.persons import names_visit_or_side, recurs_among

#: nnU-Net's folders of images; the number at the end of a file's name is the modality.
NUMBERED_FOLDERS = ("imagesTr", "imagesTs", "imagesVal")
NUMBERED = re.compile(r"(.+)_(\d{4})")


def scans_cohort(source: Source) -> Cohort | None:
    """Every scan below a folder is a subject; if some folders are named as images, only theirs.

    Raises:
        SourceError: names have different modalities, or many differ from another only by one
            word, as modalities do.
    """
    files = _of_images(source, "scans")
    if not files:
        return None
    if source.layout is None:
        _refuse_doubtful(source, files)
    subjects = [
        SubjectFiles(name, {SINGLE: source.path / file}, split=split_of(file.parent))
        for file, name in _names(files).items()
    ]
    return source.cohort("a folder of scans", subjects)


def pictures_cohort(source: Source) -> Cohort | None:
    """Every picture below a folder is a subject; folders are splits and classes."""
    pictures = _of_images(source, "pictures")
    files = _without_copies(source, pictures)
    if not files:
        return None
    base = above_splits(common_folder(files))
    subjects, classes = [], set()
    for file, name in _names(files, inside_splits=True).items():
        folder = file.relative_to(base).parent
        labels = {"label": label} if (label := class_of(folder)) else {}
        classes |= set(labels.values())
        subjects.append(
            SubjectFiles(name, {SINGLE: source.path / file}, split=split_of(folder), labels=labels)
        )
    return source.cohort(
        "image folders by class" if classes else "a folder of pictures",
        subjects,
        kind="pictures",
        classes=tuple(sorted(classes)),
        left_out=dict.fromkeys(set(pictures) - set(files), "a copy of another"),
        notes=(CLASS_NOTE,) if classes else (),
    )


def numbered_cohort(source: Source) -> Cohort | None:
    """nnU-Net's folders without dataset.json: CASE_0000 and CASE_0001 are modalities of CASE."""
    kind: Kind = "scans" if source.images("scans") else "pictures"
    files = [f for f in _of_images(source, kind) if set(NUMBERED_FOLDERS).intersection(f.parts)]
    cases: dict[PurePosixPath, dict[str, PurePosixPath]] = defaultdict(dict)
    for file in files:
        match = NUMBERED.fullmatch(stem(file.name))
        if match is None:
            return None
        cases[file.parent / match[1]][match[2]] = file
    if not cases:
        return None
    several = len({number for case in cases.values() for number in case}) > 1
    subjects = [
        SubjectFiles(
            case.name,
            {
                f"channel_{int(number)}" if several else SINGLE: source.path / file
                for number, file in sorted(numbered.items())
            },
            split=split_of(case.parent),
        )
        for case, numbered in cases.items()
    ]
    return source.cohort(
        "nnU-Net's folders without dataset.json",
        subjects,
        kind=kind,
        notes=("channels: the numbers at the end of file names, _0000 is channel_0",) * several,
    )


def _of_images(source: Source, kind: Kind) -> list[PurePosixPath]:
    """The images in folders that are named as images, or all images if there is no such folder.

    The Decathlon's test images, which are published without masks, are left out if the training
    images have masks.
    """
    files = source.images(kind)
    inside = [file for file in files if any(map(says_image, file.parent.parts))]
    folders = {part for file in (*inside, *source.masks[kind]) for part in file.parent.parts}
    if {"imagesTr", "labelsTr"} <= folders and "labelsTs" not in folders:
        inside = [file for file in inside if "imagesTs" not in file.parts]
    return inside or files


def _refuse_doubtful(source: Source, files: list[PurePosixPath]) -> None:
    """Refuse to count `p01_asl` and `p01_dce`, or a T1 and a T2, as two subjects of one channel."""
    beside: dict[PurePosixPath, PurePosixPath] = {}
    for word, others in partners_by_word(files).items():
        own = {file: other for file, other in others.items() if file.parent == other.parent}
        # Several words in front are groups or sites more often than kinds of scans.
        leads = all(stem(f.name).lower().startswith((f"{word}_", f"{word}-")) for f in own)
        often = len(own) > 1 and 5 * len(own) >= 2 * len(files)
        recurs = often or (recurs_among(len(own), len(files)) and not leads)
        if recurs and word.isalpha() and not names_visit_or_side(word):
            beside |= own
    modalities = {kind_in(stem(f.name)) or kind_in(f.parent.name): f for f in files}
    named = [modality for modality in modalities if modality]
    if len(named) > 1:
        file, other = (modalities[modality] for modality in named[:2])
        doubt = f"are {named[0]} and {named[1]} by their names, and would be one channel"
    elif 5 * len(beside) >= 2 * len(files):
        file, other = next(iter(beside.items()))
        doubt = "may be one subject or two"
    else:
        return
    raise SourceError(
        f"{source.path}: {file.name} and {other.name} {doubt}; list modalities in a manifest, or "
        "count every scan as a subject with `layout=scans`"
    )


def _names(files: Sequence[PurePosixPath], inside_splits: bool = False) -> dict[PurePosixPath, str]:
    """The name of the subject of each file: its path without parts that only say "image".

    If some folder is named as images, or with `inside_splits`, paths are relative to the common
    folder of all files.
    """
    base = PurePosixPath()
    if inside_splits or any(says_image(part) for file in files for part in file.parent.parts):
        base = above_splits(common_folder(files))
    plain = {}
    for file in files:
        *folders, name = PurePosixPath(stem(file)).relative_to(base).parts
        kept = [part for part in folders if not says_image(part)]
        kept += [name] if not kept or not says_image(name) else []
        plain[file] = "/".join(kept)
    counts = Counter(plain.values())
    return {
        file: name if counts[name] == 1 else stem(file.relative_to(base))
        for file, name in plain.items()
    }


def _without_copies(source: Source, files: list[PurePosixPath]) -> list[PurePosixPath]:
    """Files without those in a folder's copy of itself, which Kaggle's chest_xray contains."""
    known = set(files)
    outermost = source.path.absolute().name
    kept = []
    for file in files:
        parts = (outermost, *file.parts)
        twice = next((i for i in range(1, len(parts) - 1) if parts[i] == parts[i - 1]), None)
        if twice is not None:
            above = PurePosixPath(*parts[1:twice], *parts[twice + 1 :])
            if above in known and _size(source, above) == _size(source, file):
                continue
        kept.append(file)
    return kept


def _size(source: Source, file: PurePosixPath) -> int:
    return (source.path / file).stat().st_size
