"""Modalities by the names that files and data sets give them, in the words that channels have."""

from __future__ import annotations

import re

#: Words in a file's name, in lower case, and the modality that they tell.
WORDS = {
    **dict.fromkeys(("flair", "t2f", "t2flair"), "flair"),
    **dict.fromkeys(("t1", "t1w", "t1n", "mprage", "t1mprage"), "t1"),
    **dict.fromkeys(("t1ce", "t1gd", "t1c", "t1post", "t1wce", "t1km"), "t1ce"),
    **dict.fromkeys(("t2", "t2w"), "t2"),
    **dict.fromkeys(("pd", "pdw"), "pd"),
    **dict.fromkeys(("t2star", "t2starw"), "t2star"),
    **{word: word for word in ("adc", "dwi", "swi", "ct", "pet")},
}

#: Words that say that contrast agent was given.
CONTRAST = frozenset(("ce", "gd", "gad", "gado", "contrast", "post", "postcontrast", "km"))


def modality_in(name: str) -> str:
    """The one modality that a name tells, or an empty string where it tells none or several.

    >>> modality_in("T2_FLAIR_brain"), modality_in("p01-T1w-post"), modality_in("t1_t2_ratio")
    ('flair', 't1ce', '')
    """
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    told = {WORDS[word] for word in words if word in WORDS}
    if "flair" in told:
        told -= {"t1", "t2"}  # what a FLAIR is weighted by
    if "t1" in told and CONTRAST.intersection(words):
        told = told - {"t1"} | {"t1ce"}
    return told.pop() if len(told) == 1 else ""


def without_synonym(name: str) -> str:
    """A modality in the words of this package, where it has one, else in lower case.

    >>> without_synonym("T1w"), without_synonym("t1gd"), without_synonym("T1map")
    ('t1', 't1ce', 't1map')
    """
    return WORDS.get(name.lower(), name.lower())
