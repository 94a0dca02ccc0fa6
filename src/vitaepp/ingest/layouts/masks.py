"""Which files of a source are masks.

Every layout that goes by file names takes as images only what `mask_files` leaves over, so a mask
is never an image. Their subjects are found in `pairing`.

A file is a mask if its name, or a folder above it, has a word for masks. Where no name says so, the
voxels decide: files are masks if their names differ from other names by one word and they hold a
few whole numbers where the other files hold many values. If all files of a source would be masks,
they are its images.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from fnmatch import fnmatch
from itertools import starmap
from pathlib import Path, PurePosixPath

import numpy as np

from vitaepp.data.splits import split_word
from vitaepp.data.suffixes import SCAN_SUFFIXES, suffix_of
from vitaepp.errors import SubjectError
from vitaepp.ingest.layouts.names import CONTRAST, LONE_MASK_WORDS, WORDS, is_mask_name, stem, words
from vitaepp.ingest.readers.image import Image, to_grey
from vitaepp.ingest.readers.pictures import read_picture
from vitaepp.ingest.readers.scans import read_scan

#: A mask holds at most this many different values; an image holds more.
FEW_VALUES = 32

#: For how many pairs of files the voxels are compared per word, and for how many words.
LOOKS = 3
MOST_WORDS = 12


def mask_files(
    root: Path, files: Sequence[PurePosixPath], pattern: str | None
) -> frozenset[PurePosixPath]:
    """Find out which images of a source are masks.

    Args:
        root: the source's folder.
        files: its images, relative to it, all of one kind.
        pattern: the user's own pattern for a file's name or path, `*` for anything. If it is given,
            nothing else decides.
    """
    if pattern is not None:
        return frozenset(f for f in files if fits(pattern, f.as_posix()))
    named = {f for f in files if any(map(is_mask_name, (*f.parent.parts, stem(f.name))))}
    rest = [file for file in files if file not in named]
    lone = {file for file in rest if LONE_MASK_WORDS.issuperset(words(stem(file.name)))}
    images = [file for file in rest if file not in lone]
    beside = {file.parent for file in images}
    masks = named | {file for file in lone if file.parent in beside} | _by_voxels(root, images)
    return frozenset(masks) if len(masks) < len(files) else frozenset()


def fits(pattern: str, path: str) -> bool:
    """Whether a path, or the name at its end, fits the user's own pattern.

    >>> fits("*_roi.nii", "p01/x_roi.nii"), fits("p01/*", "p01/x.nii"), fits("*_roi", "x_roi.nii")
    (True, True, False)
    """
    return fnmatch(PurePosixPath(path).name, pattern) or fnmatch(path, pattern)


def _by_voxels(root: Path, files: Sequence[PurePosixPath]) -> set[PurePosixPath]:
    """Files whose names differ from others by a word that stands for masks, as voxels show."""
    masks: set[PurePosixPath] = set()
    partners = partners_by_word(files)
    often = max(2, len(files) // 10)
    usual = [word for word, pairs in partners.items() if len(pairs) >= often]
    if len(files) < 4:  # then one pair is enough, if the name of one file adds a word to the other
        usual = [w for w, pairs in partners.items() if any(starmap(_is_longer, pairs.items()))]
    for word in sorted(usual, key=lambda word: -len(partners[word]))[:MOST_WORDS]:
        pairs = list(partners[word].items())
        looks = pairs[:: max(1, len(pairs) // LOOKS)][:LOOKS]
        if all(_is_mask_of(root / file, root / other) for file, other in looks):
            masks |= set(partners[word])
    return masks


def partners_by_word(
    files: Sequence[PurePosixPath],
) -> dict[str, dict[PurePosixPath, PurePosixPath]]:
    """Find files whose names differ from another file's only by one word.

    Words of modalities and of splits, numbers, and words of more than half of the files are not
    considered.

    Returns:
        For each word, the files that have it, each with a file whose name lacks the word or has
        another one in its place.
    """
    words_of = {file: _all_words(file) for file in files}
    counts = Counter(word for own in words_of.values() for word in set(own))
    by_rest: dict[tuple[str, ...], dict[str, PurePosixPath]] = defaultdict(dict)
    for file, own in words_of.items():
        by_rest[own].setdefault("", file)
        for i, word in enumerate(own):
            by_rest[(*own[:i], *own[i + 1 :])].setdefault(word, file)
    partners: dict[str, dict[PurePosixPath, PurePosixPath]] = defaultdict(dict)
    for alike in by_rest.values():
        for word, file in alike.items():
            other = next((f for w, f in alike.items() if w != word and f != file), None)
            if other is not None and _may_mean_mask(word) and 2 * counts[word] <= len(files):
                partners[word][file] = other
    return partners


def _is_longer(file: PurePosixPath, other: PurePosixPath) -> bool:
    return len(_all_words(file)) > len(_all_words(other))


def _may_mean_mask(word: str) -> bool:
    """Whether an unknown word may stand for masks."""
    known = word in WORDS or word in CONTRAST or split_word(word)
    return bool(word) and not word.isdigit() and not known


def _all_words(file: PurePosixPath) -> tuple[str, ...]:
    return tuple(w for part in (*file.parent.parts, stem(file.name)) for w in words(part))


def _is_mask_of(file: Path, other: Path) -> bool:
    """Whether a file holds few, whole numbers, and another file of the same grid many values."""
    try:
        mask, image = _read(file), _read(other)
    except SubjectError:
        return False
    few, many = to_grey(mask), to_grey(image)
    if few.shape != many.shape or not np.allclose(mask.grid.affine, image.grid.affine, atol=1e-2):
        return False
    values = np.unique(few)
    whole = bool((values == np.rint(values)).all())
    return whole and 1 < len(values) <= FEW_VALUES < len(np.unique(many))


def look_like_masks(name: str, pairs: Sequence[tuple[Path, Path]]) -> bool:
    """Whether files under a name that no modality has are masks of other files, by a few looks.

    Args:
        name: of all of them, as that of a manifest's column.
        pairs: each file with another image of its subject.
    """
    looks = pairs[:: max(1, len(pairs) // LOOKS)][:LOOKS]
    unknown = all(map(_may_mean_mask, words(name)))
    return bool(looks) and unknown and all(_is_mask_of(file, other) for file, other in looks)


def _read(file: Path) -> Image:
    if suffix_of(file.name, SCAN_SUFFIXES):
        return read_scan(file, file.name, constant=True)
    return read_picture(file, file.name, constant=True)
