"""Layouts: how the files of a source are arranged, and which subjects they belong to.

`recognise` tries the known layouts in order. To add one, write a file here with a function that
takes a `Source` and returns a `Cohort`, or None if the source is not in this layout. Enter it in
`LAYOUTS` with a description, which is shown to users whose source is not recognised.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vitaepp.data.suffixes import ARCHIVE_SUFFIXES, PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of
from vitaepp.errors import RecipeError, SourceError, SubjectError, nearest
from vitaepp.ingest.layouts.bids import bids_cohort
from vitaepp.ingest.layouts.brats import brats_cohort
from vitaepp.ingest.layouts.cifar import cifar_cohort
from vitaepp.ingest.layouts.cohort import (
    SINGLE,
    Cohort,
    Kind,
    Source,
    SubjectFiles,
    another,
)
from vitaepp.ingest.layouts.decathlon import decathlon_cohort
from vitaepp.ingest.layouts.dicom import dicom_cohort
from vitaepp.ingest.layouts.dicom_series import DICOM_SUFFIXES
from vitaepp.ingest.layouts.egd import egd_cohort
from vitaepp.ingest.layouts.folders import numbered_cohort, pictures_cohort, scans_cohort
from vitaepp.ingest.layouts.manifest import manifest_cohort
from vitaepp.ingest.layouts.medmnist import medmnist_cohort
from vitaepp.ingest.layouts.pairing import pair
from vitaepp.ingest.layouts.persons import with_persons
from vitaepp.ingest.layouts.subject_folders import named_files_cohort, subject_folders_cohort
from vitaepp.ingest.layouts.tiny_imagenet import tiny_imagenet_cohort
from vitaepp.ingest.readers.items import Item, SeriesItem, files_of, own_files, place_of
from vitaepp.system.paths import kind_of

__all__ = ["Cohort", "Kind", "SubjectFiles", "left_out_in_words", "recognise"]

#: File types of Python and PyTorch that run code when they are opened.
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")

#: The layouts that a single file can have.
PLAIN = ("scans", "pictures")

#: Layouts in the order in which they are tried: the name for `layout`, a description, the function.
LAYOUTS: tuple[tuple[str, str, Callable[[Source], Cohort | None]], ...] = (
    (
        "manifest",
        "a manifest (CSV, TSV or XLSX: a subject column, and a column of paths for each modality)",
        manifest_cohort,
    ),
    ("medmnist", "a .npz with MedMNIST's keys (train_images, …)", medmnist_cohort),
    ("cifar", "CIFAR-10 or CIFAR-100 (cifar-10-python.tar.gz, …, or extracted)", cifar_cohort),
    ("tiny-imagenet", "Tiny ImageNet (wnids.txt, train/, val/)", tiny_imagenet_cohort),
    ("bids", "BIDS (sub-01/anat/sub-01_T1w.nii.gz, …)", bids_cohort),
    (
        "decathlon",
        "the Medical Segmentation Decathlon or nnU-Net (dataset.json, imagesTr/, labelsTr/)",
        decathlon_cohort,
    ),
    ("egd", "the Erasmus Glioma Database (EGD-0001/…/T1.nii.gz, …)", egd_cohort),
    ("nnunet", "nnU-Net's imagesTr/CASE_0000.nii.gz without dataset.json", numbered_cohort),
    (
        "brats",
        "one folder per subject in BraTS naming (<subject>/<subject>_t1.nii.gz, …)",
        brats_cohort,
    ),
    (
        "subject-folders",
        "one folder per subject (p01/T1.nii.gz, p01/FLAIR.nii.gz, …)",
        subject_folders_cohort,
    ),
    (
        "named-files",
        "files named after subject and modality (p01_T1.nii.gz, p01_FLAIR.nii.gz, …)",
        named_files_cohort,
    ),
    (
        "dicom",
        "DICOM (one folder per subject, or one study; its subfolders may be arranged in any way)",
        dicom_cohort,
    ),
    ("scans", f"scans ({', '.join(SCAN_SUFFIXES)})", scans_cohort),
    (
        "pictures",
        f"pictures, as train/CLASS/*.jpeg ({', '.join(PICTURE_SUFFIXES)})",
        pictures_cohort,
    ),
)

#: Layouts whose masks are found by file names; the others find masks themselves.
MASKS_BY_NAME = ("nnunet", "brats", "subject-folders", "named-files", "scans", "pictures")

#: Suffixes of image formats that cannot be read.
FOREIGN_FORMATS = (
    *(".head", ".brik", ".mnc", ".mif", ".gipl", ".par", ".rec", ".vtk", ".vti", ".h5", ".hdf5"),
    *(".czi", ".svs", ".ndpi", ".lif", ".nd2", ".vsi", ".mrxs", ".scn", ".lsm", ".fits", ".jxl"),
    *(".pgm", ".ppm", ".pnm", ".jp2", ".j2k", ".jfif", ".heic", ".avif", ".avi", ".mp4", ".mov"),
)

#: Suffixes of images that are read.
READ_SUFFIXES = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES, *DICOM_SUFFIXES)

#: Suffixes of files with images that cannot be read.
FOREIGN_SUFFIXES = (
    *FOREIGN_FORMATS,
    *(
        suffix + packed
        for suffix in (*READ_SUFFIXES, ".img", *FOREIGN_FORMATS)
        for packed in (".gz", ".bz2", ".xz", ".zst", ".z")
        if suffix + packed not in READ_SUFFIXES
    ),
)

#: Suffixes of archives, also of those that a source cannot be.
ALL_ARCHIVES = (
    *(*ARCHIVE_SUFFIXES, ".tar.zst", ".tar.lz4", ".tar.z", ".tbz", ".7z", ".rar", ".zipx"),
    *(".zip.001", ".7z.001", ".tar.001", ".iso"),
)

#: Suffixes that browsers and copying programs give a file until all of it is there.
INCOMPLETE_SUFFIXES = (
    *(".part", ".partial", ".crdownload", ".opdownload", ".filepart", ".aria2"),
    *(
        suffix + unfinished
        for suffix in (*READ_SUFFIXES, *ALL_ARCHIVES)
        for unfinished in (".tmp", ".download")
    ),
)

#: Why files that may hold images are not used, whatever the layout is, by their suffixes.
NOT_READ = {
    "its format is not read": FOREIGN_SUFFIXES,
    "arrays inside the source; name the file itself as SOURCE": (".npz",),
    "an archive inside the source; extract it": ALL_ARCHIVES,
    "an incomplete download; download it again": INCOMPLETE_SUFFIXES,
}


def recognise(
    source: str | os.PathLike[str],
    modalities: Sequence[str] | None = None,
    series: str | os.PathLike[str] | None = None,
    *,
    layout: str | None = None,
    mask_pattern: str | None = None,
    id_column: str | None = None,
    show_series: bool = False,
) -> Cohort:
    """Find out in which layout a source is, and list its subjects.

    A single scan or picture is one subject, named after its file. If the user requests exactly one
    modality, a single scan counts as that modality.

    Args:
        source: manifest, folder in a known layout, .npz, or one scan or picture.
        modalities: names that the user requests; in a manifest they may name columns.
        series: the user's own table of patterns, which map DICOM series to modalities.
        layout: name of the only layout to try. Unset: all are tried in order.
        mask_pattern: pattern of the names of masks, `*` for anything. Unset: file names and voxels
            decide.
        id_column: the column of a manifest that names subjects. Unset: one of the usual names.
        show_series: if no series matches a pattern, list the descriptions in the error.
            Descriptions may hold patients' names, so they are shown only on request.

    Raises:
        SourceError: the path does not exist, its layout is not known, or its manifest is broken.
        RecipeError: there is no layout of this name.
    """
    path = Path(source)
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    if (own := kind_of(path)) in ("store", "run"):
        raise SourceError(
            f"{path}: is a {own} of vitaepp and holds no raw scans; name the folder of the scans"
            + (", or pretrain on it" if own == "store" else "")
        )
    if path.is_dir() and not any(path.iterdir()):
        raise SourceError(
            f"{path}: no images found, the folder is empty; name the folder of the scans"
        )
    known = [name for name, *_ in LAYOUTS]
    if layout is not None and layout not in known:
        raise RecipeError(f"`layout={layout}`: {nearest(layout, known)}")
    described = Source(
        path,
        tuple(modalities) if modalities is not None else None,
        Path(series) if series is not None else None,
        mask_pattern,
        layout,
        id_column,
    )
    tried = [row for row in LAYOUTS if layout in (None, row[0])]
    if path.is_file() and suffix_of(path.name, (*SCAN_SUFFIXES, *PICTURE_SUFFIXES)):
        described = replace(described, path=path.parent, only=path.name)
        tried = [row for row in tried if row[0] in PLAIN]
    for name, _, take in tried:
        cohort = take(described)
        if cohort is not None and name in MASKS_BY_NAME:
            cohort = _with_masks(cohort, described)
        if cohort is not None and described.only is not None:
            return _of_one_file(cohort, described)
        if cohort is not None:
            if show_series and cohort.unknown_series and not cohort.subjects:
                names = "; ".join(sorted(set(cohort.unknown_series)))
                raise SourceError(
                    f"{path}: no pattern matches any of its series; list them in the column "
                    f"pattern of a table and pass `series=TABLE`: {names}"
                )
            _refuse_duplicates(cohort, path)
            _refuse_outside(cohort, described)
            cohort = replace(cohort, left_out=(*cohort.left_out, *described.left_out))
            return with_persons(with_left_out(cohort, described))
    if path.suffix.lower() in PICKLES:
        raise SourceError(
            f"{path}: is a pickle, which may run code, and is not opened; save the images as "
            ".nii.gz or .npz"
        )
    wanted = "; ".join(description for _, description, _ in tried)
    unread = ((file.as_posix(), why) for file, why in _not_read(described).items())
    left_out = _reasons((*described.left_out, *unread))
    raise SourceError(f"{path}: no images found{left_out}; looked for {wanted}")


def _of_one_file(cohort: Cohort, source: Source) -> Cohort:
    """The cohort of a single file; a scan gets the requested modality, if there is exactly one."""
    (subject,), kind = cohort.subjects, cohort.kind.removesuffix("s")
    requested = source.requested or ()
    name = requested[0] if kind == "scan" and len(requested) == 1 else SINGLE
    (item,) = subject.files.values()
    subjects = (replace(subject, files={name: item}),)
    return replace(cohort, layout=f"one {kind}", subjects=subjects, modalities=(name,))


def _with_masks(cohort: Cohort, source: Source) -> Cohort | None:
    """A cohort with its masks; None if the masks show that this layout is the wrong one.

    It is wrong if most subjects have several images without a modality, each with its own mask:
    then every image is a subject, as the frames of a heart are.
    """
    images = {
        subject.subject: [
            PurePosixPath(own_files(item)[0].relative_to(source.path).as_posix())
            for item in subject.files.values()
        ]
        for subject in cohort.subjects
    }
    unused = [PurePosixPath(file) for file, why in cohort.left_out if another(why)]
    pairs = pair(images, source.masks[cohort.kind], unused)
    if 2 * len(pairs.apart) > len(images) and source.layout is None:
        return None
    subjects = tuple(
        replace(s, mask=source.path / pairs.masks[s.subject]) if s.subject in pairs.masks else s
        for s in cohort.subjects
    )
    left_out = (*cohort.left_out, *((f.as_posix(), why) for f, why in pairs.left_out.items()))
    return replace(cohort, subjects=subjects, left_out=left_out)


def _refuse_outside(cohort: Cohort, source: Source) -> None:
    """Refuse a table of the data set that names a file outside the folder, or through a link."""
    if not source.path.is_dir():
        return
    known = {source.path / file for file in source.files}
    for subject in cohort.subjects:
        for item in subject.items:
            for file in _files(item):
                if file not in known and file.exists():
                    raise SourceError(
                        f"{source.path}: {subject.subject} has a file that is not in this folder; "
                        "copy it there, or list it in a manifest"
                    )


def _files(item: Item) -> tuple[Path, ...]:
    try:
        return files_of(item)
    except SubjectError:  # the header names no usable voxel file; reading it reports that later
        return own_files(item)


def _refuse_duplicates(cohort: Cohort, path: Path) -> None:
    counts = Counter(s.subject for s in cohort.subjects)
    for subject, count in counts.items():
        if count > 1:
            raise SourceError(
                f"{path}: {count} files or folders are named {subject}; rename them, or list them "
                "in a manifest"
            )
    if not cohort.subjects:
        raise SourceError(f"{path}: holds no subject{_reasons(cohort.left_out)}")


def _reasons(left_out: Sequence[tuple[str, str]]) -> str:
    """The end of a message: the first three files that are left out, and why."""
    more = "; …" if len(left_out) > 3 else ""
    return "".join(f"; {name}: {reason}" for name, reason in left_out[:3]) + more


def with_left_out(cohort: Cohort, source: Source) -> Cohort:
    """A cohort in which every image of its source is either used or left out with a reason."""
    reasons = dict(cohort.left_out)
    for path, why in (*_rare_modalities(cohort, source), *_unused_files(cohort, source)):
        reasons.setdefault(path, why)
    return replace(cohort, left_out=tuple(sorted(reasons.items())))


def left_out_in_words(cohort: Cohort) -> str:
    """One line for the user: how many files are left out, and one of them as an example.

    Args:
        cohort: one that leaves out at least one file.
    """
    path, why = cohort.left_out[0]
    number = len(cohort.left_out)
    if number == 1:
        return f"1 left out ({path}: {why})"
    return f"{number} left out ({path}: {why}, …); prepare `dry_run` lists more of them"


def _rare_modalities(cohort: Cohort, source: Source) -> Iterator[tuple[str, str]]:
    """Images of modalities that do not become channels, because most subjects lack them."""
    if source.requested is not None:
        return
    counts = Counter(m for s in cohort.subjects for m in s.files)
    for subject in cohort.subjects:
        for modality, item in subject.files.items():
            if modality not in cohort.modalities:
                why = f"modality {modality}: {counts[modality]} of {len(cohort.subjects)} subjects "
                yield place_of(item, source.path), f"{why}have it; `modalities` can include it"


def _not_read(source: Source) -> dict[PurePosixPath, str]:
    """Files that may hold images and are read in no layout, with the reason."""
    headers = {file.with_suffix("") for file in source.ending_in((".hdr", ".nhdr", ".mhd"))}
    alone = [f for f in source.ending_in((".img",)) if f.with_suffix("") not in headers]
    unread = {f: why for why, suffixes in NOT_READ.items() for f in source.ending_in(suffixes)}
    return unread | dict.fromkeys(alone, "without its header (.hdr)")


def _unused_files(cohort: Cohort, source: Source) -> Iterator[tuple[str, str]]:
    """Files that may hold images and belong to no subject."""
    items = [item for subject in cohort.subjects for item in subject.items]
    used = {file for subject in cohort.subjects for file in subject.own_files}
    reasons = {"scans": "a scan", "pictures": "a picture", cohort.kind: f"not in {cohort.layout}"}
    candidates = {
        **_not_read(source),
        **dict.fromkeys(source.ending_in(PICTURE_SUFFIXES), reasons["pictures"]),
        **dict.fromkeys(source.ending_in(SCAN_SUFFIXES), reasons["scans"]),
    }
    # The layout of DICOM lists itself what it leaves out.
    if not any(isinstance(item, SeriesItem) for item in items):
        candidates |= dict.fromkeys(source.ending_in(DICOM_SUFFIXES), "DICOM beside other images")
    for file, reason in candidates.items():
        if source.path / file not in used:
            yield file.as_posix(), reason
