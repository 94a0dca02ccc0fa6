"""DICOM as scanners and archives store it: studies with series, in folders of any depth.

`dicom_studies` finds the subject of each study. The description of a series decides its modality
(`series.tsv`); if it has none, the name of its folder does. If several series have one modality,
whole volumes are preferred, then series that are not derived from others, then the series with most
slices, then the one with the smallest pixels, then the first by path. Everything left out is listed
by folder and file names only, because descriptions are free text. If a source holds X-rays and no
volumes, each X-ray is a subject.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from vitaepp.data.storetable import PARTICIPANT
from vitaepp.data.suffixes import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts import dicom_series
from vitaepp.ingest.layouts.cohort import SINGLE, Cohort, Source, SubjectFiles, common_folder
from vitaepp.ingest.layouts.dicom_series import DICOM_SUFFIXES, LeftOut, Series
from vitaepp.ingest.layouts.dicom_studies import (
    Headers,
    are_several,
    identity,
    persons_of,
    same_persons,
    study_keys,
    subject_folders,
    telling,
)
from vitaepp.ingest.layouts.names import CLASS_NOTE, above_splits, class_of, split_of
from vitaepp.ingest.layouts.series import IGNORE, modality_of, series_rules
from vitaepp.ingest.readers.dicom_header import DicomHeader
from vitaepp.ingest.readers.items import SeriesItem

#: Folders of X-rays are classes if there are this many patients or studies for each, on average.
PERSONS_A_CLASS = 2


def dicom_cohort(source: Source) -> Cohort | None:
    """DICOM series by subject and modality, or X-rays, each of which is a subject.

    If a folder has more scans in other formats than DICOM series, this layout does not apply.

    Raises:
        SourceError: the source is a single DICOM file.
    """
    if source.path.is_file():
        if dicom_series.may_be_dicom(source.path):
            raise SourceError(f"{source.path}: is one DICOM file; give the folder that holds it")
        return None
    files = [f for f in source.files if dicom_series.may_be_dicom(source.path / f)]
    left_out: list[LeftOut] = []
    pictures: dict[PurePosixPath, DicomHeader] = {}
    headers, damaged = dicom_series.read_headers(source, files, left_out, pictures)
    modalities = _Modalities(source)
    keys = study_keys(headers, modalities.of_header)
    volumes = dicom_series.volumes_of(headers, keys, left_out)
    if len(source.ending_in(SCAN_SUFFIXES)) > len(volumes):
        return None
    if not volumes and (not files or (not pictures and source.ending_in(PICTURE_SUFFIXES))):
        return None
    if pictures and not volumes:
        return _pictures_cohort(source, pictures, damaged, left_out)
    left_out += [(str(f), "a 2D image; a volume has more slices") for f in pictures]
    series = dicom_series.with_damaged(source, volumes, damaged, left_out)
    folders, mixed = subject_folders({s.files[0]: keys[s.files[0]] for s in series})
    for folder, count in mixed.items():
        why = f"{count} studies lie in one folder; give each a folder of its own"
        left_out.append((folder.as_posix(), why))
    groups: dict[PurePosixPath, list[Series]] = defaultdict(list)
    for one in series:
        if one.files[0] in folders:
            groups[folders[one.files[0]]].append(one)
    named = {f: {s.header.patient for s in group} for f, group in groups.items()}
    for folder in [f for f, names in named.items() if are_several(names)]:
        why = "its headers name several patients; give each a folder of its own"
        left_out.append((folder.as_posix(), why))
        del groups[folder], named[folder]
    patients = {f: names.pop() if len(names) == 1 else "" for f, names in named.items()}
    root = source.path.absolute().name
    persons, doubts = persons_of(patients)
    subjects = []
    for folder, group in sorted(groups.items()):
        chosen = _chosen(folder, group, modalities, left_out)
        if chosen:
            name = folder.as_posix() if folder.name else root
            labels = {PARTICIPANT: persons.get(folder, name)} if persons else {}
            items = {m: SeriesItem(tuple(source.path / f for f in s.files)) for m, s in chosen}
            split = split_of(common_folder([f for s in group for f in s.files]))
            subjects.append(SubjectFiles(name, items, split=split, labels=labels))
    notes = [*modalities.notes, *_notes(headers, keys, groups, modalities), *doubts]
    return source.cohort(
        "DICOM series",
        subjects,
        left_out=left_out,
        notes=tuple(notes),
        unknown_series=tuple(modalities.unknown),
    )


class _Modalities:
    """Finds the modality of series.

    Attributes:
        notes: a note for the user, if a folder's name decided a modality.
        unknown: descriptions of the series that match no pattern.
    """

    def __init__(self, source: Source) -> None:
        self._rules = series_rules(source.series)
        self._known: dict[tuple[str, str, tuple[str, ...]], str] = {}
        self.notes: tuple[str, ...] = ()
        self.unknown: list[str] = []

    def _matching(self, description: str, header: DicomHeader) -> str:
        key = (description, header.modality, header.image_type)
        if key not in self._known:
            self._known[key] = modality_of(*key[:2], self._rules, header.image_type)
        return self._known[key]

    def of_header(self, header: DicomHeader) -> str:
        """The modality by a header's description; empty if it is unknown or ignored."""
        modality = self._matching(header.description, header)
        return "" if modality == IGNORE else modality

    def of_series(self, one: Series, subject: PurePosixPath) -> str:
        """The modality of a subject's series, `ignore`, or empty if it is unknown.

        If the series has no description, the names of its folders below the subject's folder
        decide, the deepest first.
        """
        modality = self._matching(one.header.description, one.header)
        if modality or one.header.description:
            return modality
        folder = one.folder
        while folder != subject and folder.name:
            if modality := self._matching(folder.name, one.header):
                self.notes = ("series without a description: modality taken from the folder name",)
                return modality
            folder = folder.parent
        return ""


def _chosen(
    subject: PurePosixPath,
    group: Sequence[Series],
    modalities: _Modalities,
    left_out: list[LeftOut],
) -> list[tuple[str, Series]]:
    """The best series of each modality of a subject; the others are left out with a reason."""
    by_modality: dict[str, list[Series]] = defaultdict(list)
    for one in group:
        modality = modalities.of_series(one, subject)
        if not modality:
            modalities.unknown.append(one.header.description)
            why = (
                "unknown series description; list it in a table and pass `series=TABLE` "
                "(`dry_run` `show_series` shows it)"
            )
            left_out.append((_path_of(one, group), why))
        elif modality == IGNORE:
            why = (
                "ignored: a localizer, a map, a subtraction or the like; `series=TABLE` can name it"
            )
            left_out.append((_path_of(one, group), why))
        else:
            by_modality[modality].append(one)
    best = {m: min(alike, key=lambda s: s.rank) for m, alike in by_modality.items()}
    # A subject that has only unreadable series keeps them, so that it is reported as failed.
    chosen = {m: s for m, s in best.items() if not s.several} or best
    for modality, alike in by_modality.items():
        for one in alike:
            if one.several and modality not in chosen:
                why = "several volumes in one series (b-values, echoes or times); a scan has one"
            elif one is chosen[modality]:
                continue
            elif one.fault:
                why = f"another {modality}, and not a whole volume"
            elif one.derived and not chosen[modality].derived:
                why = f"derived; the original {modality} is used"
            else:
                why = (
                    f"another {modality}; the one with more or finer slices, or the first, is used"
                )
            left_out.append((_path_of(one, group), why))
    return list(chosen.items())


def _notes(
    headers: Headers,
    keys: Mapping[PurePosixPath, str],
    groups: Mapping[PurePosixPath, Sequence[Series]],
    modalities: _Modalities,
) -> Iterator[str]:
    """How ids and folders were read as subjects, for the user to check."""
    of_id: dict[str, set[str]] = defaultdict(set)
    for file, key in keys.items():
        of_id[headers[file].study].add(key)
    if shared := sum(len(own) for uid, own in of_id.items() if uid and len(own) > 1):
        yield (
            f"subjects: {shared} folders share a study id, but their contents are of several "
            "persons or studies; each is a subject"
        )
    of_folder: dict[str, set[str]] = defaultdict(set)
    for one in groups.get(PurePosixPath(), ()):
        of_folder[one.files[0].parts[0]].add(modalities.of_header(one.header))
    if len(of_folder) > 1 and set.intersection(*of_folder.values()) - {""}:
        yield (
            f"subjects: {len(of_folder)} folders share a study id and are one subject; if they "
            "are several persons, list them in a manifest"
        )


def _pictures_cohort(
    source: Source,
    pictures: Headers,
    damaged: Iterable[PurePosixPath],
    left_out: Iterable[LeftOut],
) -> Cohort:
    """Every X-ray is a subject; those of one patient, or of one study, are of one person.

    Folders are classes, as those of other pictures are, unless they may be of one patient each, or
    have numbers of two digits or more, as folders of patients and shards do.
    """
    files = sorted((*pictures, *damaged))
    names = {
        file: PurePosixPath(str(file).removesuffix(suffix_of(file.name, DICOM_SUFFIXES)))
        for file in files
    }
    patients = telling({file: identity(header.patient) for file, header in pictures.items()})
    named = {names[file]: patients[file] or header.study for file, header in pictures.items()}
    persons, notes = same_persons(named, {})
    base = above_splits(common_folder(files))
    classes = {file: class_of(file.relative_to(base).parent) for file in files}
    several = len(set(filter(None, named.values()))) + sum(not who for who in named.values())
    numbered = any(re.search(r"\d\d", name) for name in classes.values())
    if numbered or several < PERSONS_A_CLASS * len(set(classes.values())):
        classes = dict.fromkeys(files, "")
    subjects = []
    for file, path in names.items():
        name = path.as_posix()
        labels = {PARTICIPANT: persons.get(path, name)} if persons else {}
        labels |= {"label": classes[file]} if classes[file] else {}
        image = {SINGLE: source.path / file}
        subjects.append(SubjectFiles(name, image, split=split_of(file), labels=labels))
    labelled = sorted(set(filter(None, classes.values())))
    return source.cohort(
        "2D DICOM images",
        subjects,
        kind="pictures",
        classes=tuple(labelled),
        left_out=left_out,
        notes=(*notes, *[CLASS_NOTE] * bool(labelled)),
    )


def _path_of(one: Series, group: Sequence[Series]) -> str:
    """The folder of a series, or its first file if the folder also holds other series."""
    shared = any(other is not one and other.folder.is_relative_to(one.folder) for other in group)
    if not shared:
        return one.folder.as_posix()
    more = f" and {len(one.files) - 1} more" if len(one.files) > 1 else ""
    return f"{one.files[0]}{more}"
