"""The Medical Segmentation Decathlon, and nnU-Net's data sets, whose format descends from it.

    dataset.json                       names modalities and, in the Decathlon, every file
    imagesTr/BRATS_001.nii.gz          Decathlon: one file, whose volumes are the modalities
    imagesTr/BRATS_001_0000.nii.gz     nnU-Net: one numbered file per modality
    labelsTr/BRATS_001.nii.gz          the mask; imagesTs/ is the test split, mostly without masks

Source:
    Antonelli et al. 2022, The Medical Segmentation Decathlon, Nature Communications 13:4128;
    nnU-Net's documentation, "dataset format" (version 2).
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vitaepp.data.suffixes import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts.cohort import SINGLE, Cohort, Kind, Source, SubjectFiles, below
from vitaepp.ingest.layouts.documents import read_json
from vitaepp.ingest.layouts.names import stem, without_synonym
from vitaepp.ingest.readers.items import Item, VolumeItem

DESCRIPTION = "dataset.json"

#: The folders of each split: images, and masks.
FOLDERS = {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}


@dataclass(frozen=True)
class _Case:
    """One case of a data set: its images by number of modality, or one file with all of them."""

    name: str
    images: Mapping[int, PurePosixPath] | PurePosixPath
    mask: PurePosixPath | None
    split: str


def decathlon_cohort(source: Source) -> Cohort | None:
    """A folder with dataset.json and imagesTr/, or the folder above it."""
    root = _root(source)
    if root is None:
        return None
    description = read_json(source.path / root / DESCRIPTION)
    if "channel_names" in description:
        layout, modalities = "an nnU-Net data set", _modalities(description, "channel_names")
        cases = list(
            _cases_listed(root, description)
            or _cases_in_folders(source, root, description, len(modalities))
        )
        ending = _ending(description)
    elif "training" in description:
        layout = "a Medical Segmentation Decathlon task"
        modalities = _modalities(description, "modality")
        cases = list(_training_and_test(source, root, description))
        ending = SCAN_SUFFIXES[0]
    else:
        return None
    _refuse_repeated(cases)
    kind: Kind = "scans" if suffix_of(ending, SCAN_SUFFIXES) else "pictures"
    subjects = [_subject(source, case, modalities) for case in cases]
    if not subjects:
        raise SourceError(f"{source.path}: {DESCRIPTION}, but no image in {root / 'imagesTr'}")
    left_out = _left_out(source, root, cases, len(modalities))
    return source.cohort(
        layout,
        subjects,
        kind=kind,
        modalities=modalities,
        left_out=left_out,
        mask_names=tuple(_mask_names(description)),
    )


def _root(source: Source) -> PurePosixPath | None:
    roots = [
        file.parent
        for file in source.files
        if file.name == DESCRIPTION
        and any(below(file.parent / folder, source.files) for folder, _ in FOLDERS.values())
    ]
    if len(roots) > 1:
        raise SourceError(
            f"{source.path}: holds {len(roots)} data sets with a {DESCRIPTION}, {roots[0]}, "
            f"{roots[1]}, …; prepare one of them at a time"
        )
    return roots[0] if roots else None


def _modalities(description: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Names of modalities in the order of their numbers; equal names get their number appended."""
    given = description.get(key, {"0": SINGLE})
    if not isinstance(given, dict) or sorted(given, key=str) != sorted(map(str, range(len(given)))):
        raise SourceError(
            f'{DESCRIPTION}: {key} must number the modalities from 0, as {{"0": "T1", "1": "T2"}}'
        )
    names = [without_synonym(str(given[str(i)]).strip()) for i in range(len(given))]
    counts = Counter(names)
    return tuple(f"{n}_{i}" if counts[n] > 1 else n for i, n in enumerate(names))


def _mask_names(description: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Names of the masks' values: `{"1": "edema"}`, or in nnU-Net's second version `{"edema": 1}`.

    Regions, which are lists of values, name none of them.
    """
    given = description.get("labels")
    for key, entry in given.items() if isinstance(given, dict) else ():
        value, name = (entry, key) if "channel_names" in description else (key, entry)
        if str(value).isdecimal() and int(value) > 0 and isinstance(name, str):
            yield int(value), " ".join(name.split())


def _ending(description: Mapping[str, Any]) -> str:
    ending = str(description.get("file_ending", ""))
    if ending.lower() not in (*SCAN_SUFFIXES, *PICTURE_SUFFIXES):
        raise SourceError(
            f"{DESCRIPTION}: file_ending {ending!r} cannot be read; known endings are "
            f"{', '.join((*SCAN_SUFFIXES, *PICTURE_SUFFIXES))}"
        )
    return ending


def _training_and_test(
    source: Source, root: PurePosixPath, description: Mapping[str, Any]
) -> Iterator[_Case]:
    """The cases of the Decathlon's lists, or of nnU-Net's first version with its numbered files."""
    known = set(source.files)
    for split, key in (("train", "training"), ("test", "test")):
        for i, entry in enumerate(_list(description, key)):
            if isinstance(entry, str):
                entry = {"image": entry}
            if not isinstance(entry, dict) or "image" not in entry:
                raise SourceError(f"{DESCRIPTION}: entry {i} of {key} names no image")
            file, mask = _inside(root, entry["image"]), entry.get("label")
            numbered = {} if file in known else dict(_numbered(file, known))
            yield _Case(
                stem(file.name),
                numbered or file,
                None if mask is None else _inside(root, mask),
                split,
            )


def _numbered(
    file: PurePosixPath, known: set[PurePosixPath]
) -> Iterator[tuple[int, PurePosixPath]]:
    for i in range(len(known)):
        name = f"{stem(file.name)}_{i:04d}{suffix_of(file.name, SCAN_SUFFIXES)}"
        if file.with_name(name) not in known:
            return
        yield i, file.with_name(name)


def _cases_listed(root: PurePosixPath, description: Mapping[str, Any]) -> list[_Case]:
    """The cases of the optional entry `dataset`, which names their files."""
    cases = []
    given = description.get("dataset", {})
    for name, entry in given.items() if isinstance(given, dict) else ():
        if not isinstance(entry, dict) or not isinstance(entry.get("images"), list):
            raise SourceError(f"{DESCRIPTION}: case {name} of dataset lists no images")
        images = {i: _inside(root, image) for i, image in enumerate(entry["images"])}
        mask = entry.get("label")
        cases.append(_Case(name, images, None if mask is None else _inside(root, mask), "train"))
    return cases


def _cases_in_folders(
    source: Source, root: PurePosixPath, description: Mapping[str, Any], channels: int
) -> Iterator[_Case]:
    """nnU-Net's cases, by the names of their files."""
    ending, known = _ending(description), set(source.files)
    for split, (folder, masks) in FOLDERS.items():
        images: dict[str, dict[int, PurePosixPath]] = {}
        for file in below(root / folder, source.files):
            match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", file.name)
            if match and int(match[2]) < channels:
                images.setdefault(match[1], {})[int(match[2])] = file
        for name, files in images.items():
            mask = root / masks / f"{name}{ending}"
            yield _Case(name, files, mask if mask in known else None, split)


def _list(description: Mapping[str, Any], key: str) -> Sequence[Any]:
    entries = description.get(key, [])
    if not isinstance(entries, list):
        raise SourceError(f"{DESCRIPTION}: {key} must be a list of images")
    return entries


def _inside(root: PurePosixPath, name: Any) -> PurePosixPath:
    """A file that the description names; it must be inside the data set's folder."""
    if not isinstance(name, str) or not name:
        raise SourceError(f"{DESCRIPTION}: an entry that should name a file holds no path")
    plain = posixpath.normpath(name.replace("\\", "/"))
    if plain.startswith(("..", "/")):
        raise SourceError(
            f"{DESCRIPTION}: names a file outside its folder; every path must be inside it"
        )
    return root / plain


def _refuse_repeated(cases: Sequence[_Case]) -> None:
    for name, count in Counter(case.name for case in cases).items():
        if count > 1:
            raise SourceError(
                f"{DESCRIPTION}: {name} is listed {count} times; a case must have one entry, in "
                "one split"
            )


def _subject(source: Source, case: _Case, modalities: Sequence[str]) -> SubjectFiles:
    files: dict[str, Item]
    if isinstance(case.images, PurePosixPath):
        path = source.path / case.images
        count = len(modalities)
        files = {m: VolumeItem(path, i, count) for i, m in enumerate(modalities)}
        files = {modalities[0]: path} if count == 1 else files
    else:
        numbered = case.images.items()
        files = {modalities[i]: source.path / f for i, f in numbered if i < len(modalities)}
    mask = None if case.mask is None else source.path / case.mask
    return SubjectFiles(case.name, files, mask, case.split)


def _left_out(
    source: Source, root: PurePosixPath, cases: Sequence[_Case], channels: int
) -> dict[PurePosixPath, str]:
    """The files in the folders of a data set that belong to none of its cases."""
    used = {case.mask for case in cases}
    for case in cases:
        if isinstance(case.images, PurePosixPath):
            used.add(case.images)
        else:
            used |= {file for number, file in case.images.items() if number < channels}
    images = source.ending_in((*SCAN_SUFFIXES, *PICTURE_SUFFIXES))
    why: dict[PurePosixPath, str] = {}
    for folder, masks in FOLDERS.values():
        why |= dict.fromkeys(below(root / folder, images), f"does not fit {DESCRIPTION}")
        why |= dict.fromkeys(below(root / masks, images), "a mask without an image")
    return {file: reason for file, reason in why.items() if file not in used}
