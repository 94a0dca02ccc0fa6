"""Formats with a header in one file and the voxels in another file."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath

from vitaepp.errors import SubjectError

#: The field of a header that names the file of its voxels.
FIELDS = {
    ".mhd": re.compile(rb"^\s*ElementDataFile\s*=\s*(.*?)\s*$", re.MULTILINE),
    ".nhdr": re.compile(rb"^data ?file\s*:=?\s*(.*?)\s*$", re.MULTILINE | re.IGNORECASE),
}
FIELDS |= {".mha": FIELDS[".mhd"], ".nrrd": FIELDS[".nhdr"]}

#: The end of a header: an empty line, or the field that says where the voxels are.
ENDS = {
    ".mhd": re.compile(rb"^\s*ElementDataFile\s*=.*\r?\n", re.MULTILINE),
    ".nhdr": re.compile(rb"\r?\n\r?\n"),
}
ENDS |= {".mha": ENDS[".mhd"], ".nrrd": ENDS[".nhdr"]}

#: Most bytes of a header; headers are text of some hundred bytes, even with many comments.
MOST_BYTES = 1 << 16


def voxel_files(header: Path) -> tuple[Path, ...]:
    """The other files that hold the voxels of a header.

    Analyze and NIfTI pairs have a `.img` beside the `.hdr`; MetaImage and NRRD name a file.

    Args:
        header: the file with the header; it need not exist.

    Raises:
        SubjectError: the header names a list or pattern of files, or a file outside its folder.
    """
    suffix = header.suffix.lower()
    if suffix == ".hdr":
        candidates = (header.with_suffix(s) for s in (".img", ".IMG", ".img.gz"))
        return (next((f for f in candidates if f.is_file()), header.with_suffix(".img")),)
    if suffix not in FIELDS or not header.is_file():
        return ()
    match = FIELDS[suffix].search(text_header(header)[0])
    if match is None or match[1].upper() == b"LOCAL":
        return ()
    name = match[1].decode("utf-8", "replace").removeprefix("./")
    # The name itself is not quoted, because a header may hold patient data.
    if name.upper().startswith("LIST") or "%" in name:
        raise SubjectError(
            f"{header.name}: its voxels are in a list of files, which is not read; save them in "
            "one file"
        )
    if not name or name in (".", "..") or len(PureWindowsPath(name).parts) > 1 or "\0" in name:
        raise SubjectError(
            f"{header.name}: names a file of voxels outside its own folder; put both into one "
            "folder"
        )
    return (header.parent / name,)


def text_header(path: Path) -> tuple[bytes, int]:
    """The text at the beginning of a NRRD or MetaImage, and the offset of its end."""
    with open(path, "rb") as file:
        start = file.read(MOST_BYTES)
    end = ENDS[path.suffix.lower()].search(start)
    return (start, len(start)) if end is None else (start[: end.end()], end.end())
