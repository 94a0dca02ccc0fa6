"""File types: what reads a file is told by the end of its name."""

from __future__ import annotations

#: Ends of names of scans, and what reads each: nibabel, numpy or a reader of SimpleITK. DICOM is
#: not here: it is told by what a file begins with.
SCAN_READERS = {
    ".nii.gz": "nibabel",
    ".nii": "nibabel",
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
    ".mgz": "nibabel",
    ".mgh": "nibabel",
    ".hdr": "nibabel",  # of a pair with .img, NIfTI or Analyze 7.5
    ".npy": "numpy",
}
SCAN_SUFFIXES = tuple(SCAN_READERS)

#: Ends of names of pictures. Their format is told by content: many are misnamed.
PICTURE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".npy")


def suffix_of(name: str, suffixes: tuple[str, ...]) -> str:
    """The one of `suffixes` that a file name ends with, as written there, or an empty string.

    >>> suffix_of("T1.NII.GZ", SCAN_SUFFIXES)
    '.NII.GZ'
    """
    for suffix in suffixes:
        if name.lower().endswith(suffix):
            return name[-len(suffix) :]
    return ""
