"""Formats whose voxels are in a file of their own, beside the header that names the image."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath

from vitaepp.errors import SubjectError

#: Where the header of a format names the file of its voxels.
FIELDS = {
    ".mhd": re.compile(rb"^\s*ElementDataFile\s*=\s*(.*?)\s*$", re.MULTILINE),
    ".mha": re.compile(rb"^\s*ElementDataFile\s*=\s*(.*?)\s*$", re.MULTILINE),
    ".nhdr": re.compile(rb"^data ?file\s*:=?\s*(.*?)\s*$", re.MULTILINE | re.IGNORECASE),
    ".nrrd": re.compile(rb"^data ?file\s*:=?\s*(.*?)\s*$", re.MULTILINE | re.IGNORECASE),
}

#: What ends a header: an empty line, or the field that says where the voxels are.
ENDS = {
    ".mhd": re.compile(rb"^\s*ElementDataFile\s*=.*\r?\n", re.MULTILINE),
    ".mha": re.compile(rb"^\s*ElementDataFile\s*=.*\r?\n", re.MULTILINE),
    ".nhdr": re.compile(rb"\r?\n\r?\n"),
    ".nrrd": re.compile(rb"\r?\n\r?\n"),
}

#: Headers are text of some hundred bytes; those with many comments are still far below this.
MOST_BYTES = 1 << 16


def voxel_files(header: Path) -> tuple[Path, ...]:
    """The files, besides itself, that a header keeps its voxels in.

    Analyze and NIfTI pairs have them in `.img` beside `.hdr`; MetaImage and NRRD name a file.

    Args:
        header: the file that names an image; it need not exist.

    Raises:
        SubjectError: a list or pattern of files, or one outside of the header's folder.
    """
    suffix = header.suffix.lower()
    if suffix == ".hdr":
        found = (header.with_suffix(s) for s in (".img", ".IMG", ".img.gz"))
        return (next((f for f in found if f.is_file()), header.with_suffix(".img")),)
    if suffix not in FIELDS or not header.is_file():
        return ()
    match = FIELDS[suffix].search(text_header(header)[0])
    if match is None or match[1].upper() == b"LOCAL":
        return ()
    name = match[1].decode("utf-8", "replace").removeprefix("./")
    # The name itself is not quoted: a header may hold anything.
    if name.upper().startswith("LIST") or "%" in name:
        raise SubjectError(
            f"{header.name}: keeps its voxels in a list of files, which is not read; save it as one"
        )
    if not name or name in (".", "..") or len(PureWindowsPath(name).parts) > 1 or "\0" in name:
        raise SubjectError(
            f"{header.name}: names a file of voxels outside of its own folder; put both in one "
            "folder"
        )
    return (header.parent / name,)


def text_header(path: Path) -> tuple[bytes, int]:
    """The text that a NRRD or MetaImage begins with, and where what follows it begins."""
    with open(path, "rb") as file:
        start = file.read(MOST_BYTES)
    end = ENDS[path.suffix.lower()].search(start)
    return (start, len(start)) if end is None else (start[: end.end()], end.end())
