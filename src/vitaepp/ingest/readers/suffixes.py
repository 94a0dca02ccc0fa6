"""File types, told by the ends of names."""

from __future__ import annotations

SCAN_SUFFIXES = (".nii.gz", ".nii")
PICTURE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff")


def suffix_of(name: str, suffixes: tuple[str, ...]) -> str:
    """The one of `suffixes` that a file name ends with, as written there, or an empty string.

    >>> suffix_of("T1.NII.GZ", SCAN_SUFFIXES)
    '.NII.GZ'
    """
    for suffix in suffixes:
        if name.lower().endswith(suffix):
            return name[-len(suffix) :]
    return ""
