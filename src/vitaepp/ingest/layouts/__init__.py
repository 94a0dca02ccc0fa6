"""Layouts: what kind of SOURCE this is, which subjects it holds, and where their files are.

`recognise` tries the known layouts in order. A new one is a file here with a function from a
`Source` to a `Cohort` or None, entered in `LAYOUTS` with the words that tell a user what would have
been recognised.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vitaepp.data.tables import join_labels
from vitaepp.errors import RecipeError, SourceError, SubjectError, nearest
from vitaepp.ingest.layouts.bids import bids_cohort
from vitaepp.ingest.layouts.brats import brats_cohort
from vitaepp.ingest.layouts.cifar import cifar_cohort
from vitaepp.ingest.layouts.cohort import SINGLE, Cohort, Kind, Source, SubjectFiles
from vitaepp.ingest.layouts.decathlon import decathlon_cohort
from vitaepp.ingest.layouts.dicom import dicom_cohort
from vitaepp.ingest.layouts.egd import egd_cohort
from vitaepp.ingest.layouts.folders import numbered_cohort, pictures_cohort, scans_cohort
from vitaepp.ingest.layouts.left_out import left_out_in_words, with_left_out
from vitaepp.ingest.layouts.manifest import manifest_cohort
from vitaepp.ingest.layouts.masks import pair
from vitaepp.ingest.layouts.medmnist import medmnist_cohort
from vitaepp.ingest.layouts.persons import with_persons
from vitaepp.ingest.layouts.subject_folders import (
    named_files_cohort,
    subject_folders_cohort,
)
from vitaepp.ingest.layouts.tiny_imagenet import tiny_imagenet_cohort
from vitaepp.ingest.readers import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of
from vitaepp.ingest.readers.items import Item, files_of, own_files
from vitaepp.system.paths import kind_of

__all__ = ["Cohort", "Kind", "SubjectFiles", "join_labels", "left_out_in_words", "recognise"]

#: Files of Python's and PyTorch's own, which run code when they are opened.
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")

#: Layouts that one file may be of.
PLAIN = ("scans", "pictures")

#: Layouts in the order in which they are tried: what `layout` calls it, what it looks for, and
#: whether masks are found by the names of files; the other layouts have rules of their own.
LAYOUTS: tuple[tuple[str, str, Callable[[Source], Cohort | None], bool], ...] = (
    (
        "manifest",
        "a manifest (CSV, TSV or XLSX: a subject column, a column of paths a modality)",
        manifest_cohort,
        False,
    ),
    ("medmnist", "a .npz with MedMNIST's keys (train_images, …)", medmnist_cohort, False),
    (
        "cifar",
        "CIFAR-10 or CIFAR-100 (cifar-10-python.tar.gz, …, or extracted)",
        cifar_cohort,
        False,
    ),
    ("tiny-imagenet", "Tiny ImageNet (wnids.txt, train/, val/)", tiny_imagenet_cohort, False),
    ("bids", "BIDS (sub-01/anat/sub-01_T1w.nii.gz, …)", bids_cohort, False),
    (
        "decathlon",
        "the Medical Segmentation Decathlon or nnU-Net (dataset.json, imagesTr/, labelsTr/)",
        decathlon_cohort,
        False,
    ),
    ("egd", "the Erasmus Glioma Database (EGD-0001/…/T1.nii.gz, …)", egd_cohort, False),
    ("nnunet", "nnU-Net's imagesTr/CASE_0000.nii.gz without dataset.json", numbered_cohort, True),
    (
        "brats",
        "one folder a subject in BraTS naming (<subject>/<subject>_t1.nii.gz, …)",
        brats_cohort,
        True,
    ),
    (
        "subject-folders",
        "one folder a subject (p01/T1.nii.gz, p01/FLAIR.nii.gz, …)",
        subject_folders_cohort,
        True,
    ),
    (
        "named-files",
        "files named by subject and modality (p01_T1.nii.gz, p01_FLAIR.nii.gz, …)",
        named_files_cohort,
        True,
    ),
    (
        "dicom",
        "DICOM (a folder a subject, or one study; folders below as they are)",
        dicom_cohort,
        False,
    ),
    ("scans", f"scans ({', '.join(SCAN_SUFFIXES)})", scans_cohort, True),
    (
        "pictures",
        f"pictures, as train/CLASS/*.jpeg ({', '.join(PICTURE_SUFFIXES)})",
        pictures_cohort,
        True,
    ),
)


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
    """Find out what a source is, and list its subjects.

    A single scan or picture is one subject, named by its file. If one modality is asked for, a
    scan is that.

    Args:
        source: manifest, folder in a known layout, .npz, or one scan or picture.
        modalities: names that the user asked for; in a manifest they may name columns.
        series: the user's own table of patterns that tell modalities of DICOM series.
        layout: the only layout to try, by its name. Unset: all, in order.
        mask_pattern: which files are masks, `*` for anything. Unset: told by names and voxels.
        id_column: the column of a manifest that names subjects. Unset: one of the usual names.
        show_series: name series that no pattern knows in the error where there is nothing else;
            descriptions may hold names, so that only who asks may be shown them.

    Raises:
        SourceError: nothing there, no known layout, or a broken manifest.
        RecipeError: no layout of this name.
    """
    path = Path(source)
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    if (own := kind_of(path)) in ("store", "run"):
        raise SourceError(
            f"{path}: is a {own} of vitaepp, and no scans; name the folder of the scans"
            + (", or pretrain on it" if own == "store" else "")
        )
    if path.is_dir() and not any(path.iterdir()):
        raise SourceError(
            f"{path}: no images found, it is an empty folder; name the folder of the scans"
        )
    known = [name for name, *_ in LAYOUTS]
    if layout is not None and layout not in known:
        raise RecipeError(f"prepare.layout={layout}: {nearest(layout, known)}")
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
    for _, _, take, by_names in tried:
        cohort = take(described)
        if cohort is not None and by_names:
            cohort = _with_masks(cohort, described)
        if cohort is not None and described.only is not None:
            return _of_one_file(cohort, described)
        if cohort is not None:
            if show_series and cohort.unknown_series and not cohort.subjects:
                names = "; ".join(sorted(set(cohort.unknown_series)))
                raise SourceError(
                    f"{path}: no pattern knows any of its series; list them in the column pattern "
                    f"of a table and pass `series=TABLE`: {names}"
                )
            _refuse_duplicates(cohort, path)
            _refuse_outside(cohort, described)
            told = replace(cohort, left_out=(*cohort.left_out, *described.left_out))
            return with_persons(with_left_out(told, described))
    if path.suffix.lower() in PICKLES:
        raise SourceError(
            f"{path}: is a pickle, which may run code, and is not opened; save the images as "
            ".nii.gz or .npz"
        )
    wanted = "; ".join(what for _, what, *_ in tried)
    left_out = _reasons(described.left_out)
    raise SourceError(f"{path}: no images found{left_out}; looked for {wanted}")


def _of_one_file(cohort: Cohort, source: Source) -> Cohort:
    """A cohort of one file, which is of the modality that was asked for, if it is one."""
    (subject,), kind = cohort.subjects, cohort.kind.removesuffix("s")
    asked = source.asked or ()
    name = asked[0] if kind == "scan" and len(asked) == 1 else SINGLE
    (item,) = subject.files.values()
    subjects = (replace(subject, files={name: item}),)
    return replace(cohort, layout=f"one {kind}", subjects=subjects, modalities=(name,))


def _with_masks(cohort: Cohort, source: Source) -> Cohort | None:
    """A cohort with its masks; None where they say that it is not one of this layout.

    Several images of a subject that no modality tells apart, each with a mask of its own, are
    subjects of their own, as frames of a heart are.
    """
    images = {
        subject.subject: [
            PurePosixPath(own_files(item)[0].relative_to(source.path).as_posix())
            for item in subject.files.values()
        ]
        for subject in cohort.subjects
    }
    pairs = pair(images, source.masks[cohort.kind])
    if 2 * len(pairs.apart) > len(images) and source.layout is None:
        return None
    subjects = tuple(
        replace(s, mask=source.path / pairs.of[s.subject]) if s.subject in pairs.of else s
        for s in cohort.subjects
    )
    left_out = (*cohort.left_out, *((f.as_posix(), why) for f, why in pairs.left_out.items()))
    return replace(cohort, subjects=subjects, left_out=left_out)


def _refuse_outside(cohort: Cohort, source: Source) -> None:
    """Refuse a layout's own table that names a file outside of the folder, or through a link."""
    if not source.path.is_dir():
        return
    known = {source.path / file for file in source.files}
    for subject in cohort.subjects:
        for item in (*subject.files.values(), *([] if subject.mask is None else [subject.mask])):
            for file in _files(item):
                if file not in known and file.exists():
                    raise SourceError(
                        f"{source.path}: {subject.subject} has a file that is not in this folder; "
                        "copy it there, or list it in a manifest"
                    )


def _files(item: Item) -> tuple[Path, ...]:
    try:
        return files_of(item)
    except SubjectError:  # a header that names its voxels oddly; it is told when its turn comes
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
    """Why some things are left out, to end a message with."""
    more = "; …" if len(left_out) > 3 else ""
    return "".join(f"; {name}: {reason}" for name, reason in left_out[:3]) + more
