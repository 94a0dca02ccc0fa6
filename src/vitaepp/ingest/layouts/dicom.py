"""DICOM as scanners and archives give it: studies of series, in folders of any depth.

Whose images they are, `dicom_studies` tells. A series becomes a modality by its description
(`series.tsv`), without one by its folder's name. Of several for one modality whole volumes come
first, then those that are not derived from others, then the one with most slices, then the one of
the smallest pixels, then the first by path. Whatever is left out is listed, by the names of folders
and files alone: descriptions are free text. A source without volumes but of X-rays is one of
pictures, each a subject.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from vitaepp.data.store import PARTICIPANT
from vitaepp.data.tables import TABLE_SUFFIXES
from vitaepp.errors import SourceError, SubjectError
from vitaepp.ingest.layouts.cohort import (
    SINGLE,
    Cohort,
    Source,
    SubjectFiles,
    common_folder,
    split_of,
    usual_modalities,
)
from vitaepp.ingest.layouts.dicom_studies import (
    Headers,
    persons_of,
    study_keys,
    subject_folders,
)
from vitaepp.ingest.layouts.series import IGNORE, modality_of, series_rules
from vitaepp.ingest.readers import (
    PICTURE_SUFFIXES,
    SCAN_SUFFIXES,
    DicomHeader,
    OtherObject,
    Slice,
    is_dicom,
    pixels_of,
    read_dicom_header,
    series_uid,
    stack,
    suffix_of,
)
from vitaepp.ingest.readers.items import SeriesItem
from vitaepp.system.progress import track

#: Files of these types are not looked into; DICOM often has no suffix, or digits as one.
OTHER_SUFFIXES = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES, *TABLE_SUFFIXES)

#: Names that say DICOM, whatever a file begins with.
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima", ".dcm.gz", ".dicom.gz", ".ima.gz")

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
        slices: where those of all files lie.
        damaged: whether one of the files cannot be read.
    """

    files: tuple[PurePosixPath, ...]
    header: DicomHeader
    slices: tuple[Slice, ...]
    damaged: bool = False

    @cached_property
    def folder(self) -> PurePosixPath:
        """The deepest folder that holds all files."""
        return common_folder(self.files)

    @cached_property
    def several(self) -> bool:
        """Whether most places are taken twice or more: by b-values, echoes or times."""
        return 2 * len({s.position for s in self.slices}) <= len(self.slices)

    @cached_property
    def fault(self) -> bool:
        """Whether it is known to be no whole volume."""
        return self.damaged or _fault(self.slices)

    @property
    def derived(self) -> bool:
        """Whether it was computed from other images, as a reformat is."""
        return self.header.image_type[0] == "DERIVED"

    @property
    def rank(self) -> tuple[bool, bool, bool, int, float, str]:
        """Order among series of one modality, the best first."""
        pixel = float(np.prod(self.header.slices[0].spacing))
        order = -len(self.slices), pixel, str(self.files[0])
        return self.several, self.fault, self.derived, *order


def dicom_cohort(source: Source) -> Cohort | None:
    """Series of DICOM files, by subject and modality; or X-rays, each a subject.

    A folder with more scans in other formats than series is left to other layouts.

    Raises:
        SourceError: the source is one DICOM file.
    """
    if source.path.is_file():
        if _may_be_dicom(source.path):
            raise SourceError(f"{source.path}: is one DICOM file; give the folder that holds it")
        return None
    files = [f for f in source.files if _may_be_dicom(source.path / f)]
    left: list[LeftOut] = []
    pictures: list[PurePosixPath] = []
    headers, damaged = _headers(source, files, left, pictures)
    names = _Names(source)
    keys = study_keys(headers, names.told)
    volumes = _volumes(headers, keys, left)
    if len(source.ending_in(SCAN_SUFFIXES)) > len(volumes):
        return None
    if not volumes and (not files or (not pictures and source.ending_in(PICTURE_SUFFIXES))):
        return None
    if pictures and not volumes:
        return _pictures_cohort(source, [*pictures, *damaged], left)
    left += [(str(f), "a 2D image; a volume has more slices") for f in pictures]
    series = _with_damaged(source, volumes, damaged, left)
    folders, mixed = subject_folders({s.files[0]: keys[s.files[0]] for s in series})
    for folder, count in mixed.items():
        why = f"{count} studies lie in one folder; give each a folder of its own"
        left.append((folder.as_posix(), why))
    groups: dict[PurePosixPath, list[_Series]] = defaultdict(list)
    for one in series:
        if one.files[0] in folders:
            groups[folders[one.files[0]]].append(one)
    patients = {f: _same({s.header.patient for s in group}) for f, group in groups.items()}
    root = source.path.absolute().name
    persons, unsure = persons_of(patients)
    subjects = []
    for folder, group in sorted(groups.items()):
        chosen = _chosen(folder, group, names, left)
        if chosen:
            name = folder.as_posix() if folder.name else root
            labels = {PARTICIPANT: persons.get(folder, name)} if persons else {}
            items = {m: SeriesItem(tuple(source.path / f for f in s.files)) for m, s in chosen}
            split = split_of(common_folder([f for s in group for f in s.files]))
            subjects.append(SubjectFiles(name, items, split=split, labels=labels))
    notes = [*names.notes, *_notes(headers, keys, groups, names)]
    if persons:
        notes.append(
            "participant: the folder above each study, where it holds several; if they are not "
            "one person's, say so in a participant column (`labels`)"
        )
    if unsure:
        notes.append(
            f"participant: {len(unsure)} folders hold several studies; if they are one person's, "
            "say so in a participant column (`labels`)"
        )
    return Cohort(
        "DICOM series",
        "scans",
        source.path.absolute(),
        tuple(subjects),
        usual_modalities(subjects),
        left_out=tuple(left),
        notes=tuple(notes),
        unknown_series=tuple(names.unknown),
    )


class _Names:
    """What series are, by the table of a source, and whether folders had to tell it."""

    def __init__(self, source: Source) -> None:
        self._rules = series_rules(source.series)
        self._known: dict[tuple[str, str, tuple[str, ...]], str] = {}
        self.notes: tuple[str, ...] = ()
        self.unknown: list[str] = []

    def _told(self, description: str, header: DicomHeader) -> str:
        key = (description, header.modality, header.image_type)
        if key not in self._known:
            self._known[key] = modality_of(*key[:2], self._rules, header.image_type)
        return self._known[key]

    def told(self, header: DicomHeader) -> str:
        """The modality that a header tells; empty also for what is ignored."""
        modality = self._told(header.description, header)
        return "" if modality == IGNORE else modality

    def of(self, one: _Series, subject: PurePosixPath) -> str:
        """The modality of a series of a subject, `ignore`, or empty if nothing tells it.

        Without a description, the folders below the subject's are asked, the deepest first.
        """
        modality = self._told(one.header.description, one.header)
        if modality or one.header.description:
            return modality
        folder = one.folder
        while folder != subject and folder.name:
            if modality := self._told(folder.name, one.header):
                self.notes = ("series without a description: their folders' names say what it is",)
                return modality
            folder = folder.parent
        return ""


def _chosen(
    subject: PurePosixPath, group: Sequence[_Series], names: _Names, left: list[LeftOut]
) -> list[tuple[str, _Series]]:
    """The best series of each modality of a subject; others are left out with why."""
    modalities: dict[str, list[_Series]] = defaultdict(list)
    for one in group:
        modality = names.of(one, subject)
        if not modality:
            names.unknown.append(one.header.description)
            why = (
                "unknown series description; list it in a table and pass `series=TABLE` "
                "(`dry_run` `show_series` shows it)"
            )
            left.append((_place(one, group), why))
        elif modality == IGNORE:
            why = (
                "ignored: a localizer, a map, a subtraction or the like; `series=TABLE` can name it"
            )
            left.append((_place(one, group), why))
        else:
            modalities[modality].append(one)
    best = {m: min(alike, key=lambda s: s.rank) for m, alike in modalities.items()}
    # A subject of nothing else keeps what cannot be read, so that it fails by name.
    chosen = {m: s for m, s in best.items() if not s.several} or best
    for modality, alike in modalities.items():
        for one in alike:
            if one.several and modality not in chosen:
                why = "several volumes in one series (b-values, echoes or times); a scan has one"
            elif one is chosen[modality]:
                continue
            elif one.fault:
                why = f"another {modality}, and no whole volume"
            elif one.derived and not chosen[modality].derived:
                why = f"derived; the original {modality} is taken"
            else:
                why = f"another {modality}; one of more or finer slices, or the first, is taken"
            left.append((_place(one, group), why))
    return list(chosen.items())


def _same(values: set[str]) -> str:
    """The one value of a set, or an empty string."""
    return next(iter(values)) if len(values) == 1 else ""


def _notes(
    headers: Headers,
    keys: Mapping[PurePosixPath, str],
    groups: Mapping[PurePosixPath, Sequence[_Series]],
    names: _Names,
) -> Iterator[str]:
    """What was made of ids and folders, for a user to check."""
    of_id: dict[str, set[str]] = defaultdict(set)
    for file, key in keys.items():
        of_id[headers[file].study].add(key)
    if shared := sum(len(own) for uid, own in of_id.items() if uid and len(own) > 1):
        yield (
            f"subjects: {shared} folders share a study's id, but are several persons' or studies' "
            "by what they hold; each is a subject"
        )
    of_folder: dict[str, set[str]] = defaultdict(set)
    for one in groups.get(PurePosixPath(), ()):
        of_folder[one.files[0].parts[0]].add(names.told(one.header))
    if len(of_folder) > 1 and set.intersection(*of_folder.values()) - {""}:
        yield (
            f"subjects: {len(of_folder)} folders of one study's id are one subject; if they are "
            "several persons, list them in a manifest"
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
    known: dict[Hashable, list[PurePosixPath]] = defaultdict(list)
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
        earlier = known[image] if header.slices and header.instance else []
        if any(_is_copy(source, file, other) for other in earlier):
            left.append((str(file), "the same image as an earlier file"))
        elif header.modality in PROJECTIONS and header.size[2] == 1:
            pictures.append(file)
        elif "LOCALIZER" in header.image_type:
            left.append((str(file), "a localizer"))
        elif "MOSAIC" in header.image_type:
            left.append((str(file), "a mosaic: many slices in one image, which is not read"))
        elif header.colours > 1:
            left.append((str(file), "in colour; a scan has one value a voxel"))
        elif len(header.slices) != header.size[2]:
            left.append((str(file), "does not say where its slices lie; a 2D image, or no scan"))
        else:
            known[image].append(file)
            headers[file] = header
    return headers, damaged


def _is_copy(source: Source, file: PurePosixPath, other: PurePosixPath) -> bool:
    """Whether files of one image's id are one image: persons may have got the same ids."""
    if file.parent == other.parent:
        return True
    try:
        return pixels_of(source.path / file) == pixels_of(source.path / other)
    except (OSError, ValueError):
        return False


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
    return [
        replace(s, files=(*s.files, *added[i]), damaged=bool(added[i]))
        for i, s in enumerate(series)
    ]


def _volumes(
    headers: Headers, keys: Mapping[PurePosixPath, str], left: list[LeftOut]
) -> list[_Series]:
    """Files grouped by series, and in it by size and direction; single slices are left out."""
    of_series: dict[tuple[str, str], list[dict[PurePosixPath, list[PurePosixPath]]]]
    of_series = defaultdict(list)
    for file, header in headers.items():
        # Where an anonymiser emptied the ids, folders must tell series apart.
        alike = of_series[keys[file], header.series or str(file.parent)]
        for group in alike:
            if _one_volume(header, headers[next(iter(group.values()))[0]]):
                group[file.parent].append(file)
                break
        else:
            alike.append(defaultdict(list, {file.parent: [file]}))
    series = []
    for group in (g for alike in of_series.values() for g in alike):
        for files in _parts(list(group.values()), headers):
            places = tuple(place for file in files for place in headers[file].slices)
            if len(places) < 2:
                left.append((str(files[0]), "a single slice; a volume has more"))
            else:
                series.append(_Series(tuple(files), headers[files[0]], places))
    return sorted(series, key=lambda s: s.files[0])


def _parts(folders: list[list[PurePosixPath]], headers: Headers) -> list[list[PurePosixPath]]:
    """The volumes of one series that lies in several folders.

    It is one where all make one, or where none of them is whole; slices of other folders in the
    same place are another one.
    """
    if len(folders) == 1:
        return folders
    everything = [file for files in folders for file in files]
    places = [[s for file in files for s in headers[file].slices] for files in folders]
    together = [s for part in places for s in part]
    if not _fault(together):
        return [everything]
    positions = [{s.position for s in part} for part in places]
    apart = len(set.union(*positions)) < sum(map(len, positions))
    return folders if apart or not any(map(_fault, places)) else [everything]


def _fault(slices: Sequence[Slice]) -> bool:
    """Whether slices make no volume."""
    try:
        stack(slices, "")
    except SubjectError:
        return True
    return False


def _one_volume(header: DicomHeader, other: DicomHeader) -> bool:
    mine, its = header.slices[0], other.slices[0]
    return (
        header.size == other.size
        and header.size[2] == 1  # files of several frames are volumes of their own
        and np.allclose(mine.orientation, its.orientation, rtol=0, atol=ALIKE)
        and np.allclose(mine.spacing, its.spacing, rtol=ALIKE, atol=0)
    )


def _place(one: _Series, group: Sequence[_Series]) -> str:
    """Folder of a subject's series, or its first file where the folder holds others, too."""
    shared = any(other is not one and other.folder.is_relative_to(one.folder) for other in group)
    if not shared:
        return one.folder.as_posix()
    more = f" and {len(one.files) - 1} more" if len(one.files) > 1 else ""
    return f"{one.files[0]}{more}"
