"""DICOM series of a source: which files are DICOM, and which of them make one volume together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path, PurePosixPath

import numpy as np

from vitaepp.data.arrays import Floats
from vitaepp.data.cells import TABLE_SUFFIXES
from vitaepp.data.geometry import array_of
from vitaepp.data.suffixes import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of
from vitaepp.errors import SubjectError
from vitaepp.ingest.layouts.cohort import Source, common_folder
from vitaepp.ingest.layouts.dicom_studies import Headers
from vitaepp.ingest.readers.dicom import MISSING, alike, stack
from vitaepp.ingest.readers.dicom_elements import is_dicom, pixels_of, read_elements, series_uid
from vitaepp.ingest.readers.dicom_header import (
    DicomHeader,
    OtherObject,
    Slice,
    read_dicom_header,
)
from vitaepp.ingest.readers.image import DICOM_READER, read_image
from vitaepp.ingest.readers.items import Item, SeriesItem
from vitaepp.system.progress import track

#: Files of these types are not opened. DICOM files often have no suffix, or digits as one.
OTHER_SUFFIXES = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES, *TABLE_SUFFIXES)

#: Files with these suffixes count as DICOM, however they begin.
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima", ".dcm.gz", ".dicom.gz", ".ima.gz")

#: DICOM's Modality of X-rays, which are pictures: they have no position in space.
PROJECTIONS = ("CR", "DX", "IO", "MG", "PX", "RG", "RF", "XA")

#: The least cosine between the normals of slices of one stack whose direction changes.
LEAST_COSINE = 0.7

#: Above this number of files, reading their headers (a millisecond each) shows its progress.
MANY = 3000

#: A path relative to the source, and why it is left out.
LeftOut = tuple[str, str]


@dataclass(frozen=True)
class Series:
    """The files of one volume. They have one series id, and one size and direction if it is whole.

    Attributes:
        files: paths relative to the source.
        header: the header of the first file; the others differ only in position.
        slices: the positions of the slices of all files.
        damaged: whether one of the files cannot be read.
        mixed: whether its slices differ in size, so that they do not make a volume.
    """

    files: tuple[PurePosixPath, ...]
    header: DicomHeader
    slices: tuple[Slice, ...]
    damaged: bool = False
    mixed: bool = False

    @cached_property
    def folder(self) -> PurePosixPath:
        """The deepest folder that holds all files."""
        return common_folder(self.files)

    @cached_property
    def several(self) -> bool:
        """Whether most positions occur more than once: for b-values, echoes or times."""
        return 2 * len({s.position for s in self.slices}) <= len(self.slices)

    @cached_property
    def fault(self) -> bool:
        """Whether the slices are known not to make a whole volume."""
        return self.damaged or self.mixed or _fault(self.slices)

    @property
    def derived(self) -> bool:
        """Whether it was computed from other images, as a reformatted series is."""
        return self.header.image_type[0] == "DERIVED"

    @property
    def rank(self) -> tuple[bool, bool, bool, int, float, str]:
        """Sort key among series of one modality; the best comes first."""
        pixel = float(np.prod(self.header.slices[0].spacing))
        order = -len(self.slices), pixel, str(self.files[0])
        return self.several, self.fault, self.derived, *order


def series_item(path: Path) -> SeriesItem | None:
    """The DICOM files directly in a folder, or one DICOM file, as a series; None without any."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    dicom = tuple(f for f in files if f.is_file() and may_be_dicom(f))
    return SeriesItem(dicom) if dicom else None


def item_at(path: Path) -> Item:
    """An image file, or the DICOM series of a folder or file."""
    if not path.is_dir() and not suffix_of(path.name, DICOM_SUFFIXES):
        return path
    return series_item(path) or path


def may_be_dicom(file: Path) -> bool:
    """Whether a file is DICOM by its suffix, or by its content if it has no other known suffix."""
    if suffix_of(file.name, DICOM_SUFFIXES):
        return True
    return not suffix_of(file.name, OTHER_SUFFIXES) and is_dicom(file)


def read_headers(
    source: Source,
    files: Sequence[PurePosixPath],
    left_out: list[LeftOut],
    pictures: dict[PurePosixPath, DicomHeader],
) -> tuple[dict[PurePosixPath, DicomHeader], dict[PurePosixPath, str]]:
    """Read the headers of DICOM files.

    Args:
        source: the source.
        files: its DICOM files, relative to it.
        left_out: files that cannot be part of a volume are added here, with the reason.
        pictures: X-rays are added here, with their headers.

    Returns:
        Headers of the files that can be part of a volume, and the files that cannot be read, with
        the reason.
    """
    headers: dict[PurePosixPath, DicomHeader] = {}
    damaged: dict[PurePosixPath, str] = {}
    known: dict[Hashable, list[PurePosixPath]] = defaultdict(list)
    pixels = cache(_pixels)
    for file in (
        track(files, "reading headers", len(files), "files") if len(files) > MANY else files
    ):
        try:
            header = read_dicom_header(source.path / file, "")
        except OtherObject as error:
            left_out.append((str(file), str(error).removeprefix(": ")))
            continue
        except SubjectError as error:
            damaged[file] = str(error).removeprefix(": ")
            continue
        # Some anonymisers give all images the same id, but they do not change positions.
        image = (header.study, header.series, header.instance, header.slices)
        earlier = known[image] if header.slices and header.instance else []
        if any(_is_copy(source.path / file, source.path / other, pixels) for other in earlier):
            left_out.append((str(file), "the same image as an earlier file"))
        elif header.modality in PROJECTIONS and header.size[2] == 1:
            pictures[file] = header
        elif "LOCALIZER" in header.image_type:
            left_out.append((str(file), "a localizer"))
        elif "MOSAIC" in header.image_type:
            left_out.append((str(file), "a mosaic (many slices in one image), which is not read"))
        elif header.colours > 1:
            left_out.append((str(file), "in colour; a scan has one value per voxel"))
        elif len(header.slices) != header.size[2]:
            left_out.append((str(file), "has no slice positions; it is a 2D image, or no scan"))
        else:
            known[image].append(file)
            headers[file] = header
    return headers, damaged


def _pixels(file: Path) -> tuple[bool, bytes]:
    """Whether a file's pixels are not compressed, and a digest of them."""
    return read_elements(file).native, sha256(pixels_of(file)).digest()


def _is_copy(file: Path, other: Path, pixels: Callable[[Path], tuple[bool, bytes]]) -> bool:
    """Whether two files with one image id hold the same image; ids are not always unique."""
    try:
        (native, mine), (other_native, its) = pixels(file), pixels(other)
        if mine == its:
            return True
        if native and other_native:
            return False
        # One image may be there twice, compressed in two ways.
        one, two = (array_of(read_image(path, "", DICOM_READER)) for path in (file, other))
    except (OSError, ValueError, SubjectError):
        return False
    return np.array_equal(one, two)


def volumes_of(
    headers: Headers, keys: Mapping[PurePosixPath, str], left_out: list[LeftOut]
) -> list[Series]:
    """Group files by series, then by size and direction; single slices are left out."""
    of_series: dict[tuple[str, str], list[dict[PurePosixPath, list[PurePosixPath]]]]
    of_series = defaultdict(list)
    for file, header in headers.items():
        # If an anonymiser removed the ids, every folder is a series.
        groups = of_series[keys[file], header.series or str(file.parent)]
        for group in groups:
            if _one_volume(header, headers[next(iter(group.values()))[0]]):
                group[file.parent].append(file)
                break
        else:
            groups.append(defaultdict(list, {file.parent: [file]}))
    series = []
    for parts in (p for groups in of_series.values() for p in _stacks(groups, headers)):
        folders = [files for part in parts for files in part.values()]
        # Parts that differ and make up one stack are kept together, so that the series is refused.
        whole = [[file for files in folders for file in files]]
        for files in whole if len(parts) > 1 else _parts(folders, headers):
            slices = tuple(one for file in files for one in headers[file].slices)
            if len(slices) < 2:
                left_out.append((str(files[0]), "a single slice; a volume has more"))
            else:
                mixed = len({headers[file].size[:2] for file in files}) > 1
                series.append(Series(tuple(files), headers[files[0]], slices, mixed=mixed))
    return sorted(series, key=lambda s: s.files[0])


def _stacks(
    parts: Sequence[Mapping[PurePosixPath, list[PurePosixPath]]], headers: Headers
) -> list[list[Mapping[PurePosixPath, list[PurePosixPath]]]]:
    """The parts of a series that differ in size or direction, by the stack that they are part of.

    Such are the slices before and after a change of the gantry's tilt or the field of view. Other
    parts, such as a scout or reformatted images, are volumes by themselves.
    """
    if len(parts) == 1:
        return [list(parts)]
    planes = [_planes([f for files in part.values() for f in files], headers) for part in parts]
    stacks: list[list[int]] = []
    for i, own in enumerate(planes):
        touching = [one for one in stacks if any(_continues(own, planes[j]) for j in one)]
        stacks = [one for one in stacks if one not in touching]
        stacks.append([*(j for one in touching for j in one), i])
    return [[parts[i] for i in stack] for stack in stacks]


def _planes(files: Sequence[PurePosixPath], headers: Headers) -> tuple[Floats, Floats]:
    """The normal of the slices of files, and the middle of each slice."""
    axes = np.reshape(headers[files[0]].slices[0].orientation, (2, 3))
    middles = [
        np.array(one.position)
        + (np.array(headers[file].size[:2]) - 1) / 2 * one.spacing[::-1] @ axes
        for file in files
        for one in headers[file].slices
    ]
    return np.cross(*axes), np.array(middles)


def _continues(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> bool:
    """Whether slices follow others, or lie evenly between them, as those of one stack do."""
    (normal, longer), (tilted, shorter) = sorted((one, other), key=lambda p: -len(p[1]))
    if len(longer) < 2 or abs(normal @ tilted) < LEAST_COSINE:
        return False
    gaps = np.diff(np.sort(np.concatenate([longer, shorter]) @ normal))
    usual = float(np.median(gaps))
    if gaps.min() > usual / 2 and gaps.max() < MISSING * usual:
        return True
    along = [np.sort(middles @ normal) for middles in (longer, shorter)]
    first, then = sorted(along, key=lambda a: (a[0], a[-1]))
    usual = max(float(np.median(np.diff(a))) for a in along if len(a) > 1)
    return bool(then[-1] > first[-1] and abs(then[0] - first[-1]) < MISSING * usual)


def _parts(folders: list[list[PurePosixPath]], headers: Headers) -> list[list[PurePosixPath]]:
    """The volumes of one series whose files lie in several folders.

    They are one volume if their slices together make one. Otherwise each folder is a volume if
    some position occurs in several folders, or if every folder holds a whole volume.
    """
    if len(folders) == 1:
        return folders
    everything = [file for files in folders for file in files]
    slices = [[s for file in files for s in headers[file].slices] for files in folders]
    together = [s for part in slices for s in part]
    if not _fault(together):
        return [everything]
    positions = [{s.position for s in part} for part in slices]
    apart = len(set.union(*positions)) < sum(map(len, positions))
    return folders if apart or not any(map(_fault, slices)) else [everything]


def _fault(slices: Sequence[Slice]) -> bool:
    """Whether slices do not make a volume."""
    try:
        stack(slices, "")
    except SubjectError:
        return True
    return False


def _one_volume(header: DicomHeader, other: DicomHeader) -> bool:
    # A file with several frames is a volume by itself.
    same_size = header.size == other.size and header.size[2] == 1
    return same_size and alike(header.slices[0], other.slices[0])


def with_damaged(
    source: Source,
    series: list[Series],
    damaged: Mapping[PurePosixPath, str],
    left_out: list[LeftOut],
) -> list[Series]:
    """Add files that cannot be read to their series: the volume is refused and not cut short.

    If the series id of a file is damaged too, it is added to every series of its folder. Those of
    no series are left out, with their reasons.
    """
    in_folder: dict[PurePosixPath, set[int]] = defaultdict(set)
    of_uid: dict[str, set[int]] = defaultdict(set)
    for i, one in enumerate(series):
        of_uid[one.header.series].add(i)
        for file in one.files:
            in_folder[file.parent].add(i)
    added: dict[int, list[PurePosixPath]] = defaultdict(list)
    for file, reason in damaged.items():
        uid = series_uid(source.path / file)
        neighbours, same_id = in_folder.get(file.parent, set()), of_uid.get(uid, set())
        owners = (neighbours & same_id or same_id) if uid else neighbours
        if not owners:
            left_out.append((str(file), reason))
        for i in owners:
            added[i].append(file)
    return [
        replace(s, files=(*s.files, *added[i]), damaged=bool(added[i]))
        for i, s in enumerate(series)
    ]
