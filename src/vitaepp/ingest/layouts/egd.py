"""EGD, the Erasmus Glioma Database (van der Voort et al. 2021), from XNAT or its downloader.

    by XNAT          .../MR_EGD-0001/1_T1/NIFTI/T1.nii.gz, 2_T1GD, 3_T2, 4_FLAIR, 5_MASK, or with
                     XNAT's own levels, .../EGD-0001/scans/1_T1/resources/NIFTI/files/T1.nii.gz
    by egd-downloader  SUBJECTS/EGD-0001/{FLAIR,T1,T1GD,T2,MASK}.nii.gz with metadata.json

The genetic and histological labels `IDH`, `1p19q` and `Grade` come from the database's table
`Genetic_and_Histological_labels` (.xlsx or .csv) if it is in the folder, else from the
metadata.json of each subject. The database writes -1 for an unknown label; it counts as missing
here, and in a table given with `labels`.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from vitaepp.data.cells import TABLE_SUFFIXES, read_plain_table
from vitaepp.data.suffixes import SCAN_SUFFIXES
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts.cohort import Cohort, Source, SubjectFiles
from vitaepp.ingest.layouts.documents import read_json
from vitaepp.ingest.layouts.names import stem

FILES = ("flair", "t1", "t1gd", "t2", "mask")
LABELS = ("IDH", "1p19q", "Grade")
TABLE = "genetic_and_histological_labels"

#: Values by which the database's tables mark an unknown label.
UNLABELLED = (-1, "-1", "-1.0")


def egd_cohort(source: Source) -> Cohort | None:
    """Scans called T1, T1GD, T2, FLAIR and MASK below folders called EGD-0001 and so on."""
    by_subject: dict[str, dict[str, PurePosixPath]] = {}
    for file in source.ending_in(SCAN_SUFFIXES):
        subject, name = _subject(source, file), stem(file.name).lower()
        if subject and name in FILES:
            other = by_subject.setdefault(subject, {}).setdefault(name, file)
            if other != file:
                raise SourceError(
                    f"{source.path}: {subject} has {name.upper()} twice, {other} and {file}; "
                    "remove one of them"
                )
    if not by_subject:
        return None
    labels = _labels(source)
    subjects = []
    for subject, named in sorted(by_subject.items()):
        files = {m: source.path / f for m, f in named.items()}
        mask = files.pop("mask", None)
        subjects.append(SubjectFiles(subject, files, mask, labels=labels.get(subject, {})))
    return source.cohort("the Erasmus Glioma Database", subjects, unlabelled=UNLABELLED)


def _subject(source: Source, file: PurePosixPath) -> str:
    """`EGD-0001`, from the name of any folder above a file, including the source's own."""
    for part in (*reversed(file.parts[:-1]), source.path.absolute().name):
        if match := re.fullmatch(r"(?:MR_)?(EGD-\d+)", part, re.IGNORECASE):
            return match[1].upper()
    return ""


def _labels(source: Source) -> dict[str, dict[str, Any]]:
    tables = [
        f for f in source.files if TABLE in f.name.lower() and f.suffix.lower() in TABLE_SUFFIXES
    ]
    labels: dict[str, dict[str, Any]] = {}
    for file in tables[:1]:
        for row in read_plain_table(source.path / file):
            subject = next((v for k, v in row.items() if k.lower() == "subject"), "")
            labels[subject.removeprefix("MR_").upper()] = _known(row)
    if not tables:
        for file in source.files:
            if file.name == "metadata.json" and (subject := _subject(source, file)):
                labels[subject] = _known(_read_json(source.path / file))
    return labels


def _read_json(path: Path) -> dict[str, Any]:
    name = f"{path.parent.name}/{path.name}"
    values = read_json(path, name).get("Genetic_and_Histological_labels")
    if not isinstance(values, dict):
        raise SourceError(
            f"{name}: holds no Genetic_and_Histological_labels; download it again, or remove it"
        )
    return values


def _known(row: dict[str, Any]) -> dict[str, Any]:
    """The labels of one subject; empty and -1 are left out."""
    known: dict[str, Any] = {}
    for name in LABELS:
        text = str(row.get(name, "")).strip()
        if text and text not in UNLABELLED and text.lower() not in ("none", "nan", "na"):
            known[name] = int(float(text)) if re.fullmatch(r"\d+(\.0+)?", text) else text
    return known
