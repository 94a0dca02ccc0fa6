"""BIDS, the Brain Imaging Data Structure: anatomical images, participants.tsv, masks.

    dataset_description.json, participants.tsv
    sub-01/[ses-pre/]anat/sub-01_[ses-pre_][acq-x_][ce-gd_][run-1_]T1w.nii.gz
    derivatives/PIPELINE/sub-01/[ses-pre/]anat/sub-01_label-lesion_mask.nii.gz

A subject is a participant, or one session of a participant (`sub-01_ses-pre`); then the label
`participant` keeps the sessions of one person together. Modalities are the suffixes: T1w is `t1`,
or `t1ce` if an entity `ce-` marks contrast agent. If there are several images of one modality, the
one that the best mask belongs to is used, then the one with the fewest entities, and of these the
first in order: run-1 before run-2.

Source:
    Gorgolewski et al. 2016, The brain imaging data structure, Scientific Data 3:160044; the
    specification, version 1.10, on anatomical images and on masks and segmentations.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vitaepp.data.labels import as_known, as_labels
from vitaepp.data.storetable import PARTICIPANT
from vitaepp.data.suffixes import SCAN_SUFFIXES
from vitaepp.data.tables import as_objects, read_table, refuse_repeated
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts.cohort import PLAINER, Cohort, Source, SubjectFiles, below
from vitaepp.ingest.layouts.names import LESION, is_mask_name, is_organ_mask, stem, without_synonym
from vitaepp.ingest.layouts.pairing import OF_MASK, OF_ORGAN, OF_UNUSED, best_mask
from vitaepp.system.progress import say

DESCRIPTION = "dataset_description.json"
PARTICIPANTS = "participants.tsv"

#: Values of `space-` for masks that lie in the space of the subject's own images.
OWN_SPACES = ("", "orig", "individual", "native", "t1w", "t2w", "flair", "pdw")

#: Entities that tell images of one modality apart; a mask that has one belongs to such an image.
OF_IMAGE = ("run", "acq", "ce", "rec", "dir", "echo", "flip", "inv", "mt")

#: The rank of an image without a mask; masks have lower ones.
UNMASKED = 4

#: Parts of complex images that do not show anatomy.
COMPLEX_PARTS = ("phase", "real", "imag")


@dataclass(frozen=True)
class _Scan:
    """A file and the parts of its name; `key` is the participant and the session of its folders."""

    file: PurePosixPath
    key: tuple[str, str]
    datatype: str
    entities: Mapping[str, str]
    suffix: str

    @property
    def mask_entities(self) -> tuple[str, ...]:
        """The entities that say what a mask shows."""
        return tuple(self.entities.get(name, "") for name in ("label", "desc"))

    def value(self, name: str) -> str:
        """The value of an entity, without leading zeros; empty if the name lacks it."""
        value = self.entities.get(name, "").lower()
        return value.lstrip("0") or value

    @property
    def order(self) -> tuple[int, list[tuple[int, str]]]:
        """Sort key: names with fewer entities come first, and numbers are in numerical order."""
        words = re.split(r"(\d+)", self.file.name)
        return len(self.entities), [(int(w), "") if w.isdigit() else (-1, w) for w in words]


def bids_cohort(source: Source) -> Cohort | None:
    """A data set whose sub-* folders hold anat folders, or the folder above it."""
    root = _root(source)
    if root is None:
        return None
    scans = [_scan(root, f) for f in below(root, source.ending_in(SCAN_SUFFIXES))]
    named = [scan for scan in scans if scan is not None]
    left_out: dict[PurePosixPath, str] = {}
    candidates = _candidates(named, left_out)
    if not candidates:
        raise SourceError(
            f"{source.path}: a BIDS data set without anatomical images "
            "(sub-*/anat/sub-*_T1w.nii.gz, …); list other images in a manifest"
        )
    masks = _masks(named, candidates, left_out)
    rows = _participants(source, root, sorted({sub for sub, _ in candidates}))
    sessions = any(session for _, session in candidates)
    subjects = []
    for key in sorted(candidates):
        labels = dict(rows.get(key[0], {}))
        split = labels.pop("split", None)
        images, mask = _chosen(candidates[key], masks.get(key, ()), left_out)
        subjects.append(
            SubjectFiles(
                subject="_".join(filter(None, key)),
                files={m: source.path / f for m, f in images.items()},
                mask=None if mask is None else source.path / mask,
                split="" if split is None else str(split),
                labels=labels | ({PARTICIPANT: key[0]} if sessions else {}),
            )
        )
    for sub in sorted(set(rows) - {sub for sub, _ in candidates}):
        left_out[PurePosixPath(sub)] = f"{PARTICIPANTS} lists it, but it has no images"
    return source.cohort("a BIDS data set", subjects, left_out=left_out)


def _root(source: Source) -> PurePosixPath | None:
    """The highest folder that holds participants' folders; derivatives inside it do not count."""
    roots = {
        PurePosixPath(*file.parts[:i])
        for file in source.ending_in(SCAN_SUFFIXES)
        if "anat" in file.parts[:-1]
        for i, part in enumerate(file.parts[:-1])
        if part.startswith("sub-")
    }
    roots |= {f.parent for f in source.files if f.name == DESCRIPTION}
    shallow = sorted(roots, key=lambda r: (len(r.parts), r))[:1]
    if not shallow or not any(
        f.relative_to(shallow[0]).parts[0].startswith("sub-")
        for f in below(shallow[0], source.files)
    ):
        return None
    return shallow[0]


def _scan(root: PurePosixPath, file: PurePosixPath) -> _Scan | None:
    """A file with the parts of its name and folders; None if it is in no participant's folder."""
    folders = file.relative_to(root).parts[:-1]
    sub = next((part for part in folders if part.startswith("sub-")), None)
    if sub is None:
        return None
    session = next((part for part in folders if part.startswith("ses-")), "")
    *pairs, suffix = stem(file.name).split("_")
    entities = {name: value for name, _, value in (pair.partition("-") for pair in pairs)}
    datatype = folders[-1] if folders[0] == sub else ""
    return _Scan(file, (sub, session), datatype, entities, suffix)


def _candidates(
    scans: Sequence[_Scan], left_out: dict[PurePosixPath, str]
) -> Mapping[tuple[str, str], Mapping[str, Sequence[_Scan]]]:
    """The images of each participant and session by modality; other files are left out."""
    candidates: dict[tuple[str, str], dict[str, list[_Scan]]]
    candidates = defaultdict(lambda: defaultdict(list))
    for scan in scans:
        if not scan.datatype or is_mask_name(scan.suffix):
            continue
        why = _no_image(scan)
        if why:
            left_out[scan.file] = why
        else:
            name = without_synonym(scan.suffix) + "ce" * ("ce" in scan.entities)
            candidates[scan.key][name].append(scan)
    return candidates


def _chosen(
    candidates: Mapping[str, Sequence[_Scan]],
    masks: Sequence[_Scan],
    left_out: dict[PurePosixPath, str],
) -> tuple[dict[str, PurePosixPath], PurePosixPath | None]:
    """One image per modality of a subject, and the mask of one of them; the others are left out."""
    everything = [scan for several in candidates.values() for scan in several]
    owners = {mask.file: _images_of(mask, everything) for mask in masks}
    ranks = {
        scan.file: min((_rank(m) for m in masks if scan.file in owners[m.file]), default=UNMASKED)
        for scan in everything
    }
    images = {}
    for modality, several in candidates.items():
        first = min(several, key=lambda s: (ranks[s.file], s.order))
        plainest = min(several, key=lambda s: s.order)
        why = PLAINER if first is plainest else OF_MASK
        left_out |= {s.file: f"another {modality}; {why}" for s in several if s is not first}
        images[modality] = first.file
    fitting = {}
    for mask in masks:
        if owners[mask.file].isdisjoint(images.values()):
            left_out[mask.file] = OF_UNUSED
        else:
            fitting[mask.file] = _rank(mask)
    return images, best_mask(fitting, "a manifest can choose one", left_out)


def _images_of(mask: _Scan, images: Sequence[_Scan]) -> set[PurePosixPath]:
    """The images that a mask may belong to: those whose entities differ least from the mask's.

    Entities that only the image has do not count. A mask of one run belongs to no other run.
    """
    own = {name: mask.value(name) for name in OF_IMAGE if mask.value(name)}
    differences = {}
    for image in images:
        its = {name: image.value(name) for name in own}
        if not its.get("run") or its["run"] == own["run"]:
            # Another value differs more than none.
            differences[image.file] = sum((its[n] != own[n]) * (1 + bool(its[n])) for n in own)
    return {file for file, count in differences.items() if count == min(differences.values())}


def _no_image(scan: _Scan) -> str:
    """The reason why a file of a participant is not an anatomical image, or an empty string."""
    if scan.datatype != "anat":
        return f"in {scan.datatype}; only anat is used"
    named = (scan.entities.get("sub"), scan.entities.get("ses"))
    folders = tuple(part.partition("-")[2] or None for part in scan.key)
    if named != folders:
        return "its name has another participant or session than its folder"
    if scan.entities.get("part") in COMPLEX_PARTS:
        return f"the {scan.entities['part']} part of a complex image"
    return ""


def _masks(
    scans: Sequence[_Scan],
    images: Mapping[tuple[str, str], Any],
    left_out: dict[PurePosixPath, str],
) -> Mapping[tuple[str, str], Sequence[_Scan]]:
    """The masks of each subject that may show a lesion, in the space of its images."""
    masks: dict[tuple[str, str], list[_Scan]] = defaultdict(list)
    for scan in scans:
        if not is_mask_name(scan.suffix):
            continue
        key = _owner(scan, images)
        if key is None:
            left_out[scan.file] = "a mask without an image"
        elif scan.entities.get("space", "").lower() not in OWN_SPACES:
            left_out[scan.file] = "a mask in another space"
        elif any(map(is_organ_mask, (*scan.mask_entities, scan.suffix))):
            left_out[scan.file] = OF_ORGAN
        else:
            masks[key].append(scan)
    return masks


def _owner(scan: _Scan, images: Mapping[tuple[str, str], Any]) -> tuple[str, str] | None:
    """The subject of a mask; a mask without a session belongs to the participant's only session."""
    if scan.key in images:
        return scan.key
    sessions = [key for key in images if key[0] == scan.key[0]]
    return sessions[0] if len(sessions) == 1 and not scan.key[1] else None


def _rank(scan: _Scan) -> int:
    """Order of preference of a mask: a lesion's, then a plain one, then a dseg."""
    if any(LESION.search(word.lower()) for word in scan.mask_entities):
        return 0
    return {"dseg": 2, "probseg": 3}.get(scan.suffix, 1)


def _participants(
    source: Source, root: PurePosixPath, subjects: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The columns of participants.tsv by participant; some participants may have no row."""
    if root / PARTICIPANTS not in source.files:
        return {}
    path = source.path / root / PARTICIPANTS
    table = read_table(path, subject_columns=("participant_id",))
    # Against the specification, some tables leave out the prefix; spreadsheets then drop zeros.
    known, named = (
        [s.removeprefix("sub-") for s in names] for names in (subjects, table["subject"].tolist())
    )
    table["subject"] = [f"sub-{s}" for s in as_known(known, named, path)]
    refuse_repeated(table["subject"], path)
    labels = [c for c in map(str, table.columns) if c not in ("subject", "split")]
    table[labels] = as_labels(table, labels, path)
    rows = {row.pop("subject"): row for row in as_objects(table)}
    without = sum(s not in rows for s in subjects)
    if without:
        say(
            f"{path.name}: no row for {without} of {len(subjects)} participants; their labels are "
            "empty"
        )
    return rows
