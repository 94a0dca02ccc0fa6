"""DICOM as scanners and archives give it: studies of series, in folders of any depth.

A source of one study is one subject; else each folder at the top is a subject, and where one holds
several studies, each study's folder is. A series becomes a modality by its description
(`series.tsv`); of several for one modality the one with most slices is taken, then the one of the
smallest pixels, then the first by path. Whatever is left out is listed, by the names of folders and
files alone: descriptions are free text. A source without volumes but of X-rays is one of pictures,
each a subject.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path, PurePosixPath

import numpy as np

from vitaepp.errors import SubjectError
from vitaepp.ingest.items import SeriesItem
from vitaepp.ingest.layouts.cohort import (
    SINGLE,
    Cohort,
    Source,
    SubjectFiles,
    common_folder,
    split_of,
    usual_modalities,
)
from vitaepp.ingest.layouts.series import IGNORE, modality_of, series_rules
from vitaepp.ingest.layouts.tables import TABLE_SUFFIXES
from vitaepp.ingest.readers import (
    PICTURE_SUFFIXES,
    SCAN_SUFFIXES,
    DicomHeader,
    OtherObject,
    is_dicom,
    read_dicom_header,
    series_uid,
    suffix_of,
)
from vitaepp.progress import track

#: Files of these types are not looked into; DICOM often has no suffix, or digits as one.
OTHER_SUFFIXES = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES, *TABLE_SUFFIXES)

#: Names that say DICOM, whatever a file begins with.
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

#: DICOM's Modality of X-rays, which are pictures: they do not lie in space.
PROJECTIONS = ("CR", "DX", "IO", "MG", "PX", "RG", "RF", "XA")

#: Directions of slices of one volume differ by less than this, their voxels by less of their size.
ALIKE = 1e-3

#: Files whose headers take so long, about a millisecond each, that progress is shown.
MANY = 3000

LeftOut = tuple[str, str]


@dataclass(frozen=True)
class _Series:
    """Files of one volume: of one series, one size and one direction.

    Attributes:
        files: relative to the source.
        header: of the first; it stands for all but the position.
        slices: of all files together.
    """

    files: tuple[PurePosixPath, ...]
    header: DicomHeader
    slices: int

    @cached_property
    def folder(self) -> PurePosixPath:
        """The deepest folder that holds all files."""
        return common_folder(self.files)

    @property
    def rank(self) -> tuple[int, float, str]:
        """Order among series of one modality, the best first."""
        pixel = float(np.prod(self.header.slices[0].spacing))
        return -self.slices, pixel, str(self.files[0])


def dicom_cohort(source: Source) -> Cohort | None:
    """Series of DICOM files, by subject and modality; or X-rays, each a subject.

    A folder with more scans in other formats than series is left to other layouts.
    """
    files = [f for f in source.files if _may_be_dicom(source.path / f)]
    if not any(is_dicom(source.path / f) for f in files):
        return None
    left: list[LeftOut] = []
    pictures: list[PurePosixPath] = []
    headers, damaged = _headers(source, files, left, pictures)
    volumes = _volumes(headers, left)
    if len(source.ending_in(SCAN_SUFFIXES)) > len(volumes):
        return None
    if pictures and not volumes:
        return _pictures_cohort(source, [*pictures, *damaged], left)
    left += [(str(f), "a 2D image; a volume has more slices") for f in pictures]
    series = _with_damaged(source, volumes, damaged, left)
    rules = series_rules(source.series)
    subjects = []
    for subject, group in _subjects(source, series, left):
        modalities: dict[str, list[_Series]] = defaultdict(list)
        for one in group:
            modality = modality_of(one.header.description, one.header.modality, rules)
            if not modality or modality == IGNORE:
                why = "its kind of series is ignored" if modality else "no pattern tells what it is"
                left.append((_place(one, group), f"{why}; prepare.series=FILE can name it"))
            else:
                modalities[modality].append(one)
        chosen = {}
        for modality, alike in modalities.items():
            best, *others = sorted(alike, key=lambda s: s.rank)
            chosen[modality] = SeriesItem(tuple(source.path / f for f in best.files))
            why = f"another {modality}; one of more or finer slices, or the first, is taken"
            left += [(_place(s, group), why) for s in others]
        if chosen:
            split = split_of(common_folder([f for s in group for f in s.files]))
            subjects.append(SubjectFiles(subject, chosen, split=split))
    return Cohort(
        "DICOM series",
        "scans",
        source.path.absolute(),
        tuple(subjects),
        usual_modalities(subjects),
        left_out=tuple(left),
    )


def _pictures_cohort(
    source: Source, files: Iterable[PurePosixPath], left: Iterable[LeftOut]
) -> Cohort:
    subjects = []
    for file in sorted(files):
        subject = str(file).removesuffix(suffix_of(file.name, DICOM_SUFFIXES))
        split = split_of(file)
        subjects.append(SubjectFiles(subject, {SINGLE: source.path / file}, split=split))
    root = source.path.absolute()
    return Cohort("2D DICOM images", "pictures", root, tuple(subjects), left_out=tuple(left))


def series_item(path: Path) -> SeriesItem | None:
    """The DICOM files right in a folder, or a DICOM file, as one series; None if there are none."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = tuple(f for f in files if f.is_file() and _may_be_dicom(f))
    return SeriesItem(found) if found else None


def _may_be_dicom(file: Path) -> bool:
    if suffix_of(file.name, DICOM_SUFFIXES):
        return True
    return not suffix_of(file.name, OTHER_SUFFIXES) and is_dicom(file)


def _headers(
    source: Source,
    files: Sequence[PurePosixPath],
    left: list[LeftOut],
    pictures: list[PurePosixPath],
) -> tuple[dict[PurePosixPath, DicomHeader], list[PurePosixPath]]:
    """Headers of the files that can be part of a volume, and the files that are damaged.

    X-rays are put among the pictures. Others are left out, with why.
    """
    headers: dict[PurePosixPath, DicomHeader] = {}
    damaged: list[PurePosixPath] = []
    known = set()
    for file in (
        track(files, "reading headers", len(files), "files") if len(files) > MANY else files
    ):
        try:
            header = read_dicom_header(source.path / file, "")
        except OtherObject as error:
            left.append((str(file), str(error).removeprefix(": ")))
            continue
        except SubjectError:
            damaged.append(file)
            continue
        # Some anonymisers give all images one id, but they do not move them.
        image = (header.study, header.series, header.instance, header.slices)
        if header.slices and header.instance and image in known:
            left.append((str(file), "the same image as an earlier file"))
        elif header.modality in PROJECTIONS and header.size[2] == 1:
            pictures.append(file)
        elif "LOCALIZER" in header.image_type:
            left.append((str(file), "a localizer"))
        elif header.colours > 1:
            left.append((str(file), "in colour; a scan has one value a voxel"))
        elif not header.slices:
            left.append((str(file), "does not say where its slices lie; a 2D image, or no scan"))
        else:
            known.add(image)
            headers[file] = header
    return headers, damaged


def _with_damaged(
    source: Source,
    series: list[_Series],
    damaged: Iterable[PurePosixPath],
    left: list[LeftOut],
) -> list[_Series]:
    """Damaged files put where they belong, so that a volume is refused rather than cut short.

    Where the header is damaged, too, that is every series of the folder.
    """
    in_folder: dict[PurePosixPath, set[int]] = defaultdict(set)
    of_uid: dict[str, set[int]] = defaultdict(set)
    for i, one in enumerate(series):
        of_uid[one.header.series].add(i)
        for file in one.files:
            in_folder[file.parent].add(i)
    added: dict[int, list[PurePosixPath]] = defaultdict(list)
    for file in damaged:
        uid = series_uid(source.path / file)
        here, its = in_folder.get(file.parent, set()), of_uid.get(uid, set())
        owners = (here & its or its) if uid else here
        if not owners:
            left.append((str(file), "truncated, corrupt or not a DICOM image"))
        for i in owners:
            added[i].append(file)
    return [replace(s, files=(*s.files, *added[i])) for i, s in enumerate(series)]


def _volumes(headers: dict[PurePosixPath, DicomHeader], left: list[LeftOut]) -> list[_Series]:
    """Files grouped by series, and in it by size and direction; single slices are left out."""
    groups: list[list[PurePosixPath]] = []
    of_series: dict[tuple[str, str], list[list[PurePosixPath]]] = defaultdict(list)
    for file, header in headers.items():
        # Where an anonymiser emptied the ids, folders must tell series apart.
        alike = of_series[header.study, header.series or str(file.parent)]
        for group in alike:
            if _one_volume(header, headers[group[0]]):
                group.append(file)
                break
        else:
            alike.append([file])
            groups.append(alike[-1])
    series = []
    for group in groups:
        header = headers[group[0]]
        slices = len(group) * header.size[2]
        if slices < 2:
            left.append((str(group[0]), "a single slice; a volume has more"))
        else:
            series.append(_Series(tuple(group), header, slices))
    return series


def _one_volume(header: DicomHeader, other: DicomHeader) -> bool:
    mine, its = header.slices[0], other.slices[0]
    return (
        header.size == other.size
        and header.size[2] == 1  # files of several frames are volumes of their own
        and np.allclose(mine.orientation, its.orientation, rtol=0, atol=ALIKE)
        and np.allclose(mine.spacing, its.spacing, rtol=ALIKE, atol=0)
    )


def _subjects(
    source: Source, series: Sequence[_Series], left: list[LeftOut]
) -> list[tuple[str, list[_Series]]]:
    """Subjects, in the order of their names, and the series of each."""
    studies = {s.header.study for s in series}
    tops: dict[str, list[_Series]] = defaultdict(list)
    for one in series:
        tops[one.files[0].parts[0] if len(one.files[0].parts) > 1 else ""].append(one)
    deep = all(len(f.parts) > 2 for s in series for f in s.files)
    if len(studies) == 1 and "" not in studies and not (len(tops) == 1 and deep):
        return [(source.path.absolute().name, list(series))]
    return [named for top in sorted(tops) for named in _of_studies(top, tops[top], left)]


def _of_studies(
    top: str, series: list[_Series], left: list[LeftOut]
) -> list[tuple[str, list[_Series]]]:
    """A folder of one study is a subject; of several, each study's folder is."""
    by_study: dict[str, list[_Series]] = defaultdict(list)
    for one in series:
        by_study[one.header.study].append(one)
    if len(by_study) == 1 and top:
        return [(top, series)]
    files = [[f for s in group for f in s.files] for group in by_study.values()]
    folders = [_own_folder(own, files) for own in files]
    apart = all(
        a.name and (i == j or not a.is_relative_to(b))
        for (i, a), (j, b) in product(enumerate(folders), repeat=2)
    )
    if not apart:
        why = f"{len(by_study)} studies lie in one folder; give each a folder of its own"
        left.append((top or ".", why))
        return []
    named = zip((f.as_posix() for f in folders), by_study.values(), strict=True)
    return sorted(named, key=lambda pair: pair[0])


def _own_folder(
    own: Sequence[PurePosixPath], all_files: Sequence[Sequence[PurePosixPath]]
) -> PurePosixPath:
    """The highest folder that holds all of a study's files and none of another's."""
    others = [f for files in all_files if files is not own for f in files]
    folder = common_folder(own)
    while folder.name and not any(f.is_relative_to(folder.parent) for f in others):
        folder = folder.parent
    return folder


def _place(one: _Series, group: Sequence[_Series]) -> str:
    """Folder of a subject's series, or its first file where the folder holds others, too."""
    shared = any(other is not one and other.folder.is_relative_to(one.folder) for other in group)
    if not shared:
        return one.folder.as_posix()
    more = f" and {len(one.files) - 1} more" if len(one.files) > 1 else ""
    return f"{one.files[0]}{more}"
