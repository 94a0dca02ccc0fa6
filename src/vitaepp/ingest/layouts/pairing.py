"""Which subject each mask belongs to, found out by the names of the files."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vitaepp.ingest.layouts import names
from vitaepp.ingest.layouts.names import stem, words

#: Why masks are left out.
OF_ORGAN = "a mask of the brain, not of a lesion"
ANOTHER_MASK = "another mask; the one of a lesion, or with the plainer name, is used"

OF_UNUSED = "a mask of another image of the subject, which is not used"

#: Why an image is left out in favour of another that has a mask.
OF_MASK = "the one that the mask belongs to is used"


@dataclass(frozen=True)
class Pairs:
    """Which mask belongs to which subject.

    Attributes:
        masks: the mask that is used for each subject.
        left_out: the other masks, each with the reason.
        apart: subjects that have several images, each with its own mask.
    """

    masks: Mapping[str, PurePosixPath]
    left_out: Mapping[PurePosixPath, str]
    apart: frozenset[str]


def pair(
    images: Mapping[str, Sequence[PurePosixPath]],
    masks: Iterable[PurePosixPath],
    unused: Iterable[PurePosixPath] = (),
) -> Pairs:
    """Find out by file names to which subject each mask belongs.

    Words for images, masks and modalities are ignored. A mask belongs to the subject whose file
    names have the same words. If there is none, it belongs to the only subject whose words are all
    among the mask's, or the other way round. A mask that fits no subject, or several, is left out,
    and so is a mask of an image that is not used.

    Args:
        images: the files of each subject, the first modality first.
        masks: all masks of the source.
        unused: images that are left out, because their subject has another one of the modality.
    """
    index = _Index(images)
    others: dict[str, list[PurePosixPath]] = defaultdict(list)
    for image in unused:
        for subject in index.owners(image):
            others[subject].append(image)
    by_subject: dict[str, list[PurePosixPath]] = defaultdict(list)
    left_out: dict[PurePosixPath, str] = {}
    for mask in sorted(masks):
        owners = index.owners(mask)
        if len(owners) == 1:
            by_subject[owners[0]].append(mask)
        elif owners:
            left_out[mask] = "a mask whose name fits several images"
        else:
            left_out[mask] = "a mask without an image"
    chosen = {}
    for subject, several in by_subject.items():
        ranks = {}
        for mask in several:
            if names.is_organ_mask(stem(mask.name)):
                left_out[mask] = OF_ORGAN
            elif closest(mask, [*images[subject], *others[subject]]).isdisjoint(images[subject]):
                left_out[mask] = OF_UNUSED
            else:
                ranks[mask] = _rank(mask, images[subject][0])
        best = best_mask(ranks, "`mask_pattern` can name one", left_out)
        if best is not None:
            chosen[subject] = best
    apart = (s for s, several in by_subject.items() if _each_has_one(images[s], several))
    return Pairs(chosen, left_out, frozenset(apart))


def closest(mask: PurePosixPath, images: Iterable[PurePosixPath]) -> set[PurePosixPath]:
    """The images of a subject that a mask may belong to.

    These are the images whose words are all among the mask's, and of these the ones with the most
    words: T1_2_seg belongs to T1_2, although it also has the words of T1. If there is none, the
    mask may belong to any.
    """
    own = _words(mask)
    sizes = {image: (_words(image).total() if _words(image) <= own else 0) for image in images}
    return {image for image, size in sizes.items() if size == max(sizes.values())}


def _words(file: PurePosixPath) -> Counter[str]:
    """The words of a path and how often each occurs, without words for images."""
    return Counter(w for w in words(stem(file)) if w not in names.IMAGE_WORDS)


def best_mask(
    ranks: Mapping[PurePosixPath, Any], choice: str, left_out: dict[PurePosixPath, str]
) -> PurePosixPath | None:
    """The mask with the lowest rank, or None if several share it; the others are left out.

    Args:
        ranks: the masks of a subject, each with a sort key.
        choice: how the user can choose among masks of equal rank.
        left_out: masks that are not used are added here, each with the reason.
    """
    best = [mask for mask in ranks if ranks[mask] == min(ranks.values())]
    if len(best) == 1:
        others = (mask for mask in ranks if mask != best[0])
        left_out |= dict.fromkeys(others, ANOTHER_MASK)
        return best[0]
    left_out |= dict.fromkeys(ranks, f"one of {len(ranks)} masks; {choice}")
    return None


def _each_has_one(images: Sequence[PurePosixPath], masks: Sequence[PurePosixPath]) -> bool:
    """Whether images that differ in more than modality have their own masks, as frames do."""
    exact = {_key(image, modalities=True) for image in images}
    without_modality = {_key(image) for image in images}
    masked = exact & {_key(mask, modalities=True) for mask in masks}
    return len(without_modality) > 1 and len(masked) > 1


def _rank(mask: PurePosixPath, first: PurePosixPath) -> tuple[int, int, int]:
    """Order of preference: masks of lesions, then of the first modality, then with plain names."""
    name = " ".join(words(stem(mask.name)))
    of_first = _key(mask, modalities=True) == _key(first, modalities=True)
    kind = 0 if names.LESION.search(name) else 1 + any(word in name for word in names.REGIONS)
    return kind, 0 if of_first else 1, len(name.split())


class _Index:
    """Finds subjects by the words in the names of their files."""

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
        """The subjects that a mask may belong to, by the strictest rule that yields any."""
        name = PurePosixPath(mask.name)
        by_path = (self._by_path.get(_key(mask, numbered=n)) for n in (True, False))
        by_name = (self._by_name.get(_key(name, numbered=n) or None) for n in (True, False))
        owners = next(filter(None, (*by_path, *by_name)), None) or self._containing(_key(mask))
        if len(owners) < 2:
            return sorted(owners)
        # Prefer subjects whose file names have the fewest words that the mask's name lacks.
        own = set(words(stem(mask.name)))
        lacking = {s: min(len(name - own) for name in self._words[s]) for s in owners}
        return sorted(s for s in owners if lacking[s] == min(lacking.values()))

    def _containing(self, key: Sequence[str]) -> set[str]:
        """Subjects whose words are all in the mask's name, the most words; else the reverse."""
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
    """The words of a path that identify its subject.

    If a name begins with the words of its folder, they count once.

    Args:
        file: path of an image or a mask.
        modalities: whether words for modalities count.
        numbered: whether a number after a word for masks counts.
    """
    key: list[str] = []
    last: list[str] = []
    for part in (*file.parent.parts, stem(file.name)):
        own = _identifying(part, modalities, numbered)
        if last and own[: len(last)] == last:
            del key[-len(last) :]
        key += own
        last = own
    return tuple(key)


def _identifying(part: str, modalities: bool, numbered: bool) -> list[str]:
    """The words of one part of a path that may identify a subject."""
    kept: list[str] = []
    after_mask = False
    for word, pieces in names.words_and_pieces(part):
        if word in names.WORDS or word in names.CONTRAST:
            kept += [word] * modalities
            continue
        rest = ""
        for piece in pieces:
            after_mask = after_mask or piece in names.MASK_WORDS
            if piece in names.MASK_WORDS or piece in names.IMAGE_WORDS:
                kept += [rest] if rest else []
                rest = ""
            elif numbered or not (after_mask and piece.isdigit()):
                rest += piece
        kept += [rest] if rest else []
    return kept


def _without_channel(key: tuple[str, ...]) -> tuple[str, ...]:
    """A key without nnU-Net's number of the modality, such as `_0000`."""
    return key[:-1] if len(key) > 1 and re.fullmatch(r"00\d\d", key[-1]) else key
