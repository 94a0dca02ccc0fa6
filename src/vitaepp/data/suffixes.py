"""File types: the suffix of a file decides which library reads it."""

from __future__ import annotations

#: Suffixes of scans, and what reads each: nibabel, numpy or one of SimpleITK's readers. DICOM is
#: missing here because its files are recognised by their first bytes.
SCAN_READERS = {
    ".nii.gz": "nibabel",
    ".nii": "nibabel",
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
    ".mgz": "nibabel",
    ".mgh": "nibabel",
    ".hdr": "nibabel",  # the header of a NIfTI or Analyze 7.5 pair with .img
    ".npy": "numpy",
}
SCAN_SUFFIXES = tuple(SCAN_READERS)

#: Suffixes of pictures. The content decides their format, because many have a wrong suffix.
PICTURE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".npy")

#: Suffixes of archives that a source can be.
ARCHIVE_SUFFIXES = (
    ".zip",
    *(".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2"),
)


def suffix_of(name: str, suffixes: tuple[str, ...]) -> str:
    """The suffix of a file name that is among `suffixes`, as the name writes it; or empty.

    >>> suffix_of("T1.NII.GZ", SCAN_SUFFIXES)
    '.NII.GZ'
    """
    for suffix in suffixes:
        if name.lower().endswith(suffix):
            return name[-len(suffix) :]
    return ""
