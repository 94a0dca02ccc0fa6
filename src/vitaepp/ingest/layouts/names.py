"""Words in the names of files and folders: modalities, and marks of masks, organs and images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from vitaepp.data.splits import split_word
from vitaepp.data.suffixes import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of
from vitaepp.ingest.layouts.series import modality_of, normalized, reading, shipped_rules

#: Words in a file's name, in lower case, and the modality that each stands for.
WORDS = {
    **dict.fromkeys(("flair", "t2f", "t2flair"), "flair"),
    **dict.fromkeys(("t1", "t1w", "t1n", "mprage", "t1mprage"), "t1"),
    **dict.fromkeys(("t1ce", "t1gd", "t1c", "t1post", "t1wce", "t1km"), "t1ce"),
    **dict.fromkeys(("t2", "t2w"), "t2"),
    **dict.fromkeys(("pd", "pdw"), "pd"),
    **dict.fromkeys(("t2star", "t2starw"), "t2star"),
    **{word: word for word in ("adc", "dwi", "swi", "ct", "pet")},
}

#: Words for a scan with contrast agent.
CONTRAST = frozenset(("ce", "gd", "gad", "gado", "contrast", "post", "postcontrast", "km"))

#: Words that turn a word for contrast agent behind them into its absence.
ABSENCE = frozenset(("without", "wo", "no", "non", "sans", "ohne", "senza", "pre"))

#: What is computed from scans and is none; a group says what.
COMPUTED = re.compile(
    r" (?:t1|t2|pd|swi) .*?\b(maps?|mapp?ing|relaxometry|subtr\w*|substr\w*|m(?:n|in|ax)?ip) "
    r"| swi .*?\b(phase|pha) "
)

#: GE's T1-weighted FLAIR; behind these words, T1 is a time point.
T1_FLAIR = re.compile(r"(?<! ses)(?<! visit)(?<! session)(?<! timepoint) t1 (?:w )?flair ")

#: Words for masks that divide the whole image into regions and show no lesion.
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

#: Words that make a file a mask only if its name has no other words.
LONE_MASK_WORDS = frozenset(("lesion", "lesions", "tumor", "tumour", "tumors", "tumours"))

#: Words for masks of a lesion, which are preferred to other masks.
LESION = re.compile(r"lesion|tumou?r|infarct|stroke|\bl\b")

#: Words for masks of the whole organ; crops are not centred on these.
ORGAN_WORDS = frozenset(("brain", "head", "face", "defacemask", "bet", "skull"))

#: Words that only say that a file is an image.
IMAGE_WORDS = frozenset(
    (
        *("image", "images", "imaging", "img", "imgs", "im", "ims", "volume", "volumes", "vol"),
        *("scan", "scans", "picture", "pictures", "raw", "orig", "original"),
    )
)

#: Tells the user where labels are from.
CLASS_NOTE = "label: the class, by the folder that is not a split"


def words(name: str) -> list[str]:
    """The words of a name, which separators divide, in lower case.

    >>> words("P01_T1w-post (2)")
    ['p01', 't1w', 'post', '2']
    """
    return [word.lower() for word in re.split(r"[\W_]+", name) if word]


def stem(name: str | PurePosixPath) -> str:
    """A relative path without its image suffix.

    >>> stem("train/a.b.nii.gz")
    'train/a.b'
    """
    text = str(name)
    return text.removesuffix(suffix_of(text, (*SCAN_SUFFIXES, *PICTURE_SUFFIXES)))


def split_of(path: PurePosixPath) -> str:
    """The split that some part of a path names, or an empty string."""
    return next(filter(None, map(split_word, path.parts)), "")


def says_image(part: str) -> bool:
    """Whether a folder's name only says that it holds images."""
    own = words(re.sub("(Tr|Ts|Val)$", "", part))
    return bool(own) and IMAGE_WORDS.issuperset(own)


def above_splits(folder: PurePosixPath) -> PurePosixPath:
    """The deepest folder at or above this one that is not inside a split."""
    while split_of(folder):
        folder = folder.parent
    return folder


def class_of(folder: PurePosixPath) -> str:
    """The first folder that names neither a split nor images; empty if there is none."""
    named = (p for p in folder.parts if not split_word(p) and not says_image(p))
    return next(named, "")


def is_mask_name(name: str) -> bool:
    """Whether a name contains a word for masks.

    >>> is_mask_name("p01_lesion-mask"), is_mask_name("label0001"), is_mask_name("ManualMask")
    (True, True, True)
    >>> is_mask_name("unlabelled_07")
    False
    """
    return not MASK_WORDS.isdisjoint(_pieces(name))


def is_organ_mask(name: str) -> bool:
    """Whether the name of a mask says that it covers the whole brain, head or face."""
    return not ORGAN_WORDS.isdisjoint(_pieces(name))


def words_and_pieces(name: str) -> Iterator[tuple[str, list[str]]]:
    """Each word with its parts: `label`, `0001` of label0001, or `manual`, `mask` of ManualMask."""
    for written in filter(None, re.split(r"[\W_]+", name)):
        parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\dA-Z_]+|\d+", written)
        word = written.lower()
        yield word, [word] if word in MASK_WORDS or len(parts) < 2 else [p.lower() for p in parts]


def _pieces(name: str) -> set[str]:
    return {piece for word, pieces in words_and_pieces(name) for piece in (word, *pieces)}


def modality_in(name: str) -> str:
    """The modality that a name contains, or an empty string if it contains none or several.

    What a scan was registered to, after `to`, `in` or `on`, is not its modality.

    >>> modality_in("T2_FLAIR_brain"), modality_in("p01-T1w-post"), modality_in("t1_t2_ratio")
    ('flair', 't1ce', '')
    >>> modality_in("T1_to_FLAIR"), modality_in("T2_in_T1_space")
    ('t1', 't2')
    """
    kind = kind_in(name)
    return kind if kind in WORDS.values() else ""


def kind_in(name: str) -> str:
    """The modality that a name contains, or what was computed of it, such as `t1map`.

    Words for contrast agent and its absence are those of the descriptions of DICOM series.

    >>> kind_in("T1_without_contrast"), kind_in("T1_FLAIR"), kind_in("T2_star"), kind_in("T1_map")
    ('t1', 't1', 't2star', 't1map')
    """
    scan = re.split(r"[^a-z0-9](?:to|in|on)[^a-z0-9]", name.lower())[0]
    parts = [part for part in re.split(r"[^a-z0-9]+", scan) if part]
    modalities = {WORDS[part] for part in parts if part in WORDS}
    if not modalities:
        return ""
    plain = normalized(scan)
    if "flair" in modalities:
        # The others only describe the weighting of a FLAIR.
        modalities -= {"flair", "t2"} if T1_FLAIR.search(plain) else {"t1", "t2"}
    if modalities == {"t1ce"} or ("t1" in modalities and CONTRAST.intersection(plain.split())):
        modalities = modalities - {"t1", "t1ce"} | {"t1ce" if " post " in reading(scan) else "t1"}
    if modalities == {"t2"} and modality_of(scan, "MR", shipped_rules()) == "swi":
        modalities = {"t2star"}
    if len(modalities) != 1:
        return ""
    computed = COMPUTED.search(plain)
    return modalities.pop() + (computed[1] or computed[2] if computed else "")


def says_modality(own: Sequence[str]) -> list[bool]:
    """Which words of a name only say of which kind a scan is.

    >>> says_modality(["p01", "t1", "without", "contrast"]), says_modality(["p01", "post", "op"])
    ([False, True, True, True], [False, False, False])
    """
    said = []
    for i, word in enumerate(own):
        before, after = own[i - 1] if i else "", own[i + 1] if i + 1 < len(own) else ""
        agent = word in CONTRAST and (after in WORDS or bool(reading(f"{word} {after}").strip()))
        absence = word in ABSENCE and after in CONTRAST
        said.append(word in WORDS or agent or absence or (word == "star" and before[:2] == "t2"))
    return said


def without_synonym(name: str) -> str:
    """This package's name for a modality; if it has none, the given name in lower case.

    >>> without_synonym("T1w"), without_synonym("t1gd"), without_synonym("T1map")
    ('t1', 't1ce', 't1map')
    """
    return WORDS.get(name.lower(), name.lower())


def other_modality(name: str, modality: str) -> str:
    """The modality that a name contains if it contradicts the one given, or an empty string.

    >>> other_modality("p01_T2", "t1"), other_modality("p01_T1w", "t1"), other_modality("p01", "t1")
    ('t2', '', '')
    >>> other_modality("p01_T1", "t1ce"), other_modality("p01_T2", "image")
    ('', '')
    >>> other_modality("PD_01", "t1")  # Parkinson's disease as well as proton density
    ''
    """
    own, named = without_synonym(modality), modality_in(name)
    less_exact = named == "pd" or (own == "t1ce" and named == "t1")
    return "" if own not in WORDS.values() or named == own or less_exact else named
