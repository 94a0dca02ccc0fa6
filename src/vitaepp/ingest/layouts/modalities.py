"""Modalities: the words that files and data sets use for them, and the names that channels get."""

from __future__ import annotations

import re

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


def modality_in(name: str) -> str:
    """The modality that a name contains, or an empty string if it contains none or several.

    >>> modality_in("T2_FLAIR_brain"), modality_in("p01-T1w-post"), modality_in("t1_t2_ratio")
    ('flair', 't1ce', '')
    """
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    modalities = {WORDS[word] for word in words if word in WORDS}
    if "flair" in modalities:
        modalities -= {"t1", "t2"}  # these only describe the weighting of a FLAIR
    if "t1" in modalities and CONTRAST.intersection(words):
        modalities = modalities - {"t1"} | {"t1ce"}
    return modalities.pop() if len(modalities) == 1 else ""


def without_synonym(name: str) -> str:
    """This package's name for a modality; if it has none, the given name in lower case.

    >>> without_synonym("T1w"), without_synonym("t1gd"), without_synonym("T1map")
    ('t1', 't1ce', 't1map')
    """
    return WORDS.get(name.lower(), name.lower())
