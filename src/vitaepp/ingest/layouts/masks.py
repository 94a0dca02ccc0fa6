"""Masks among the files of a source: which files they are, and whose.

Every layout that goes by the names of files takes its images from what `mask_files` leaves, and
gets its masks from `pair`. So a mask is never an image, and there is one list of words.

A file is a mask by a word of its name or of a folder above it. Where a name says nothing, voxels
do: files whose names differ from others' by one word, and that hold few whole numbers where the
others hold many, are masks, whatever the word. A source whose files would all be masks is one of
shapes, which are its images.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import starmap
from pathlib import Path, PurePosixPath

import numpy as np

from vitaepp.data.splits import split_word
from vitaepp.errors import SubjectError
from vitaepp.ingest.layouts.modalities import CONTRAST, WORDS
from vitaepp.ingest.readers import (
    PICTURE_SUFFIXES,
    SCAN_SUFFIXES,
    Image,
    read_picture,
    read_scan,
    suffix_of,
    to_grey,
)

#: Words of masks that divide the whole image, and show no lesion.
REGIONS = ("aseg", "aparc", "parcellation", "superpixels")

#: Words that make a file a mask.
MASK_WORDS = frozenset(
    (
        *("seg", "segs", "segm", "segmentation", "segmentations", "dseg", "probseg"),
        *("mask", "masks", "msk", "msks", "defacemask", "label", "labels", "lbl", "lbls"),
        *("labelmap", "labelmaps", "roi", "rois", "gt", "gts", "truth", "groundtruth"),
        *("annotation", "annotations", "annot", "contour", "contours", "delineation", "manual"),
        *REGIONS,
    )
)

#: Words that make a file a mask only where its name has no other.
LONE_MASK_WORDS = frozenset(("lesion", "lesions", "tumor", "tumour", "tumors", "tumours"))

#: Words that say that a mask is of a lesion, and goes before others.
LESION = re.compile(r"lesion|tumou?r|infarct|stroke|\bl\b")

#: Words that make a mask one of the whole organ, and no place to centre on.
ORGAN_WORDS = frozenset(("brain", "head", "face", "defacemask", "bet", "skull"))

#: Words that say no more than that a file is an image.
IMAGE_WORDS = frozenset(
    (
        *("image", "images", "imaging", "img", "imgs", "im", "ims", "volume", "volumes", "vol"),
        *("scan", "scans", "picture", "pictures", "raw", "orig", "original"),
    )
)

#: A mask holds at most so many different values, and an image more.
FEW_VALUES = 32

#: Pairs of files whose voxels are looked at for a word, and words for which this is done.
LOOKS = 3
MOST_WORDS = 12


def words(name: str) -> list[str]:
    """The words of a name, in lower case: what is between separators.

    >>> words("P01_T1w-post (2)")
    ['p01', 't1w', 'post', '2']
    """
    return [word.lower() for word in re.split(r"[\W_]+", name) if word]


def stem(name: str | PurePosixPath) -> str:
    """A relative path without the image suffix.

    >>> stem("train/a.b.nii.gz")
    'train/a.b'
    """
    text = str(name)
    return text.removesuffix(suffix_of(text, (*SCAN_SUFFIXES, *PICTURE_SUFFIXES)))


def is_mask_name(name: str) -> bool:
    """Whether a name has a word of masks.

    >>> is_mask_name("p01_lesion-mask"), is_mask_name("label0001"), is_mask_name("ManualMask")
    (True, True, True)
    >>> is_mask_name("unlabelled_07")
    False
    """
    return not MASK_WORDS.isdisjoint(_pieces(name))


def is_organ_mask(name: str) -> bool:
    """Whether the name of a mask says that it is of the whole brain, head or face."""
    return not ORGAN_WORDS.isdisjoint(_pieces(name))


def mask_files(
    root: Path, files: Sequence[PurePosixPath], pattern: str | None
) -> frozenset[PurePosixPath]:
    """Which of the images of a source are masks.

    Args:
        root: the source's folder.
        files: its images, relative to it, all of one kind.
        pattern: the user's own, `*` for anything, over a file's name or its path; it alone counts.
    """
    if pattern is not None:
        return frozenset(
            f for f in files if fnmatch(f.name, pattern) or fnmatch(f.as_posix(), pattern)
        )
    named = {file for file in files if _is_mask(file)}
    rest = [file for file in files if file not in named]
    lone = {file for file in rest if LONE_MASK_WORDS.issuperset(words(stem(file.name)))}
    images = [file for file in rest if file not in lone]
    beside = {file.parent for file in images}
    found = named | {file for file in lone if file.parent in beside} | _by_voxels(root, images)
    return frozenset(found) if len(found) < len(files) else frozenset()


@dataclass(frozen=True)
class Pairs:
    """Masks and the images that they are of.

    Attributes:
        of: the mask that is taken of each subject.
        left_out: the other masks, each with why.
        apart: subjects that have several images, each with a mask of its own.
    """

    of: Mapping[str, PurePosixPath]
    left_out: Mapping[PurePosixPath, str]
    apart: frozenset[str]


def pair(images: Mapping[str, Sequence[PurePosixPath]], masks: Iterable[PurePosixPath]) -> Pairs:
    """Find out by names which mask is whose.

    A mask belongs to the subject whose files' names have the same words, less those that tell an
    image, a mask or a modality; else to the one whose words are all among the mask's, or the
    other way round, if there is just one. What fits none or several is left out.

    Args:
        images: the files of each subject, the first modality first.
        masks: all masks of the source.
    """
    index = _Index(images)
    found: dict[str, list[PurePosixPath]] = defaultdict(list)
    left_out: dict[PurePosixPath, str] = {}
    for mask in sorted(masks):
        owners = index.owners(mask)
        if len(owners) == 1:
            found[owners[0]].append(mask)
        elif owners:
            left_out[mask] = "a mask whose name fits several images"
        else:
            left_out[mask] = "a mask without an image"
    chosen = {}
    for subject, several in found.items():
        own = [mask for mask in several if not is_organ_mask(stem(mask.name))]
        ranks = {mask: _rank(mask, images[subject][0]) for mask in own}
        best = [mask for mask in own if ranks[mask] == min(ranks.values())]
        for mask in several:
            if mask not in own:
                left_out[mask] = "a mask of the brain, not of a lesion"
            elif len(best) > 1:
                left_out[mask] = f"one of {len(several)} masks; `mask_pattern` can name one"
            elif mask != best[0]:
                left_out[mask] = "another mask; the one of a lesion, or the plainer one, is taken"
        if len(best) == 1:
            chosen[subject] = best[0]
    apart = (subject for subject in found if _each_has_one(images[subject], found[subject]))
    return Pairs(chosen, left_out, frozenset(apart))


def _each_has_one(images: Sequence[PurePosixPath], masks: Sequence[PurePosixPath]) -> bool:
    """Whether images that no modality tells apart have masks of their own, as frames have."""
    own = {_key(image, modalities=True) for image in images}
    told = {_key(image) for image in images}
    return len(told) > 1 and len(own & {_key(mask, modalities=True) for mask in masks}) > 1


def _rank(mask: PurePosixPath, first: PurePosixPath) -> tuple[int, int, int]:
    """Masks of lesions first, then those of the first modality, then those of plain names."""
    name = " ".join(words(stem(mask.name)))
    of_first = _key(mask, modalities=True) == _key(first, modalities=True)
    kind = 0 if LESION.search(name) else 2 if any(word in name for word in REGIONS) else 1
    return kind, 0 if of_first else 1, len(name.split())


class _Index:
    """The subjects of a source by the words of their files' names."""

    def __init__(self, images: Mapping[str, Sequence[PurePosixPath]]) -> None:
        self._by_path: dict[tuple[str, ...], set[str]] = defaultdict(set)
        self._by_name: dict[tuple[str, ...] | None, set[str]] = defaultdict(set)
        self._by_word: dict[str, set[str]] = defaultdict(set)
        self._keys: dict[str, set[frozenset[str]]] = defaultdict(set)
        self._words: dict[str, list[set[str]]] = defaultdict(list)
        for subject, files in images.items():
            for file in files:
                self._words[subject].append(set(words(stem(file.name))))
                for key in {_key(file), _without_channel(_key(file))}:
                    self._by_path[key].add(subject)
                    self._keys[subject].add(frozenset(key))
                    for word in key:
                        self._by_word[word].add(subject)
                name = _key(PurePosixPath(file.name))
                for key in {name, _without_channel(name)}:
                    self._by_name[key].add(subject)

    def owners(self, mask: PurePosixPath) -> list[str]:
        """The subjects that a mask may be of, by the strictest rule that finds any."""
        name = PurePosixPath(mask.name)
        by_path = (self._by_path.get(_key(mask, numbered=n)) for n in (True, False))
        by_name = (self._by_name.get(_key(name, numbered=n) or None) for n in (True, False))
        found = next(filter(None, (*by_path, *by_name)), None) or self._containing(_key(mask))
        if len(found) < 2:
            return sorted(found)
        # One that has a word that the mask lacks is farther from it.
        own = set(words(stem(mask.name)))
        lacking = {s: min(len(every - own) for every in self._words[s]) for s in found}
        return sorted(s for s in found if lacking[s] == min(lacking.values()))

    def _containing(self, key: Sequence[str]) -> set[str]:
        """Subjects all of whose words the mask has, the most of them; or that have all of its."""
        mask = frozenset(key)
        near = {subject for word in mask for subject in self._by_word.get(word, ())}
        inside: dict[int, set[str]] = defaultdict(set)
        around = set()
        for subject in near:
            for own in self._keys[subject]:
                if own and own <= mask:
                    inside[len(own)].add(subject)
                elif mask < own:
                    around.add(subject)
        return inside[max(inside)] if inside else around


def _key(
    file: PurePosixPath, *, modalities: bool = False, numbered: bool = True
) -> tuple[str, ...]:
    """The words of a path that say whose it is.

    A folder whose words the next part begins with is told once.

    Args:
        file: of an image or a mask.
        modalities: whether words that tell a modality count.
        numbered: whether a number after the word of a mask counts.
    """
    key: list[str] = []
    last: list[str] = []
    for part in (*file.parent.parts, stem(file.name)):
        own = _telling(part, modalities, numbered)
        if last and own[: len(last)] == last:
            del key[-len(last) :]
        key += own
        last = own
    return tuple(key)


def _telling(part: str, modalities: bool, numbered: bool) -> list[str]:
    told: list[str] = []
    after_mask = False
    for word, pieces in _words_and_pieces(part):
        if word in WORDS or word in CONTRAST:
            told += [word] * modalities
            continue
        rest = ""
        for piece in pieces:
            after_mask = after_mask or piece in MASK_WORDS
            if piece in MASK_WORDS or piece in IMAGE_WORDS:
                told += [rest] if rest else []
                rest = ""
            elif numbered or not (after_mask and piece.isdigit()):
                rest += piece
        told += [rest] if rest else []
    return told


def _without_channel(key: tuple[str, ...]) -> tuple[str, ...]:
    """A key without nnU-Net's number of the modality, `_0000`."""
    return key[:-1] if len(key) > 1 and re.fullmatch(r"00\d\d", key[-1]) else key


def _words_and_pieces(name: str) -> Iterator[tuple[str, list[str]]]:
    """Words and their parts: `label`, `0001` of label0001, `manual`, `mask` of ManualMask."""
    for written in filter(None, re.split(r"[\W_]+", name)):
        parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\dA-Z_]+|\d+", written)
        word = written.lower()
        yield word, [word] if word in MASK_WORDS or len(parts) < 2 else [p.lower() for p in parts]


def _pieces(name: str) -> set[str]:
    return {piece for word, pieces in _words_and_pieces(name) for piece in (word, *pieces)}


def _is_mask(file: PurePosixPath) -> bool:
    return any(map(is_mask_name, (*file.parent.parts, stem(file.name))))


def _by_voxels(root: Path, files: Sequence[PurePosixPath]) -> set[PurePosixPath]:
    """Files that differ from others by a word that, as voxels of a few tell, stands for masks."""
    found: set[PurePosixPath] = set()
    partners = partners_by_word(files)
    often = max(2, len(files) // 10)
    usual = [word for word, pairs in partners.items() if len(pairs) >= often]
    if len(files) < 4:  # so few that one pair must do, if the word is added to the other's name
        usual = [w for w, pairs in partners.items() if any(starmap(_is_longer, pairs.items()))]
    for word in sorted(usual, key=lambda word: -len(partners[word]))[:MOST_WORDS]:
        pairs = list(partners[word].items())
        looks = pairs[:: max(1, len(pairs) // LOOKS)][:LOOKS]
        if all(_is_mask_of(root / file, root / other) for file, other in looks):
            found |= set(partners[word])
    return found


def partners_by_word(
    files: Sequence[PurePosixPath],
) -> dict[str, dict[PurePosixPath, PurePosixPath]]:
    """Words of at most half of the files: those that have it, each with one that only lacks it.

    The other file may have another word in its place. Words of modalities and splits, and numbers,
    tell no mask.
    """
    told = {file: _all_words(file) for file in files}
    counts = Counter(word for every in told.values() for word in set(every))
    like: dict[tuple[str, ...], dict[str, PurePosixPath]] = defaultdict(dict)
    for file, every in told.items():
        like[every].setdefault("", file)
        for i, word in enumerate(every):
            like[(*every[:i], *every[i + 1 :])].setdefault(word, file)
    partners: dict[str, dict[PurePosixPath, PurePosixPath]] = defaultdict(dict)
    for alike in like.values():
        for word, file in alike.items():
            other = next((f for w, f in alike.items() if w != word and f != file), None)
            if other is not None and _may_tell(word) and 2 * counts[word] <= len(files):
                partners[word][file] = other
    return partners


def _is_longer(file: PurePosixPath, other: PurePosixPath) -> bool:
    return len(_all_words(file)) > len(_all_words(other))


def _may_tell(word: str) -> bool:
    """Whether a word may be one for masks that we do not know."""
    known = word in WORDS or word in CONTRAST or split_word(word)
    return bool(word) and not word.isdigit() and not known


def _all_words(file: PurePosixPath) -> tuple[str, ...]:
    return tuple(w for part in (*file.parent.parts, stem(file.name)) for w in words(part))


def _is_mask_of(file: Path, other: Path) -> bool:
    """Whether a file holds few whole numbers on the grid on which another holds many values."""
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


def _read(file: Path) -> Image:
    if suffix_of(file.name, SCAN_SUFFIXES):
        return read_scan(file, file.name, constant=True)
    return read_picture(file, file.name, constant=True)
