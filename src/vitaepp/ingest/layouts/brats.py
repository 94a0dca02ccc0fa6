"""BraTS: one folder per subject, with files that are named after the folder.

    2018, 2019  .../HGG/Brats18_X/Brats18_X_{flair,t1,t1ce,t2,seg}.nii.gz, .../LGG/...
    2020        .../BraTS20_Training_001/BraTS20_Training_001_{flair,t1,t1ce,t2,seg}.nii.gz
    2021        .../BraTS2021_00000/BraTS2021_00000_{flair,t1,t1ce,t2,seg}.nii.gz
    since 2023  .../BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1c,t1n,t2f,t2w,seg}.nii.gz

The grade is the folder HGG or LGG above a subject (2018, 2019), or comes from `name_mapping.csv`
(2019, 2020). Age, survival and extent of resection come from `survival_data.csv` or
`survival_info.csv`. Releases since 2021 do not give the grade.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import PurePosixPath
from typing import Any

from vitaepp.data.cells import read_plain_table
from vitaepp.ingest.layouts.cohort import KNOWN_MODALITIES, Cohort, Source, SubjectFiles
from vitaepp.ingest.layouts.names import split_of, stem

GRADES = ("HGG", "LGG")

#: Columns of the survival tables, in lower case, and the label that each becomes.
SURVIVAL = {
    "age": "age",
    "survival": "survival_days",
    "survival_days": "survival_days",
    "resectionstatus": "resection",
    "extent_of_resection": "resection",
}


def brats_cohort(source: Source) -> Cohort | None:
    """Folders with files called `<folder>_<modality>`, and their labels in BraTS's own tables."""
    folders: dict[PurePosixPath, dict[str, PurePosixPath]] = {}
    for file in source.images("scans"):
        # If the source is the folder of one subject, its own name counts.
        folder = file.parent.name or source.path.absolute().name
        name = stem(file.name)
        match = re.fullmatch(rf"{re.escape(folder)}[_-](.+)", name, re.IGNORECASE)
        if match:
            folders.setdefault(file.parent, {})[match[1].lower()] = file
    shared = Counter(name for names in folders.values() for name in names)
    # A folder of numbered scans looks similar, but its numbers are not modalities.
    modalities = {
        name
        for name, count in shared.items()
        if name in KNOWN_MODALITIES or (count > 1 and not name.isdigit())
    }
    tables = _tables(source)
    subjects = []
    for parent, named in folders.items():
        files = {m: source.path / f for m, f in named.items() if m in modalities}
        if files:
            subject = parent.name or source.path.absolute().name
            grade = [("grade", part) for part in parent.parts if part in GRADES][:1]
            subjects.append(
                SubjectFiles(
                    subject=subject,
                    files=files,
                    split=split_of(parent),
                    labels=tables.get(subject, {}) | dict(grade),
                )
            )
    if not subjects:
        return None
    return source.cohort("folders in BraTS naming", subjects)


def _tables(source: Source) -> dict[str, dict[str, Any]]:
    """The labels of each subject, under its names of all years, from the tables BraTS ships."""
    labels: dict[str, dict[str, Any]] = defaultdict(dict)
    for file in source.files:
        if re.fullmatch(r"name_mapping.*\.csv", file.name, re.IGNORECASE):
            for row in read_plain_table(source.path / file):
                names = [v for k, v in row.items() if k.lower().endswith("subject_id") and v]
                if row.get("Grade") in GRADES:
                    for name in names:
                        labels[name]["grade"] = row["Grade"]
        elif re.fullmatch(r"survival_(data|info).*\.csv", file.name, re.IGNORECASE):
            for row in read_plain_table(source.path / file):
                name = next((v for k, v in row.items() if k.lower().endswith("id")), "")
                for column, value in row.items():
                    label = SURVIVAL.get(column.lower())
                    if name and label and (known := _value(label, value)) is not None:
                        labels[name][label] = known
    return labels


def _value(label: str, text: str) -> str | float | None:
    if label == "resection":
        return text or None
    try:
        return float(text)
    except ValueError:  # "ALIVE (361 days later)"
        return None
