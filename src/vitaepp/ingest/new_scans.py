"""Prepares scans in memory exactly like the images of a store, so that an encoder can embed them.

`prepare` writes stores. This module runs the same code for scans of which no store is made, such as
those of a new patient. What a store's images are is known from its `StoreInfo`, which every encoder
keeps of its training.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.store import Store
from vitaepp.data.storeinfo import RGB, StoreInfo
from vitaepp.data.storetable import PARTICIPANT, Failure
from vitaepp.data.suffixes import suffix_of
from vitaepp.errors import SourceError, SubjectError, nearest
from vitaepp.ingest.layouts import Cohort, Kind, SubjectFiles, recognise
from vitaepp.ingest.layouts.cohort import SINGLE, another
from vitaepp.ingest.layouts.dicom_series import DICOM_SUFFIXES, item_at, series_item
from vitaepp.ingest.layouts.manifest import IMAGE_SUFFIXES
from vitaepp.ingest.layouts.names import stem
from vitaepp.ingest.planning.spec import arrays_of
from vitaepp.ingest.readers.arrays import space_of
from vitaepp.ingest.readers.items import GivenItem, Item
from vitaepp.ingest.sources.archives import opened
from vitaepp.ingest.subject import CUT_OFF, made
from vitaepp.ingest.task import ImageSpec, Task
from vitaepp.recipe.sections import PrepareSettings
from vitaepp.system.progress import counted, say, track
from vitaepp.system.text import dimensions

#: One image: a file, a folder of DICOM files, or values in memory.
OneImage = str | os.PathLike[str] | npt.NDArray[Any]

#: A subject's scan: one image, or the image of each modality; `mask` names its mask.
Scan = OneImage | Mapping[str, OneImage]

#: Voxel size in mm, one or one an axis, or a 4×4 affine.
Spacing = float | int | Sequence[float | int] | npt.NDArray[Any]

MASK = "mask"

#: In notes of a cohort that are about labels, masks and people: no image is another by them.
NOT_OF_IMAGES = ("label: ", "masks: ", PARTICIPANT)

#: The note on an image that the encoder has no channel for, where another channel is empty.
UNKNOWN = "{} is none of the encoder's modalities, and left out"

#: Channels of pictures that come from one file, whatever its modality is called.
OF_ONE_FILE = (("grey",), RGB)


@dataclass(frozen=True, eq=False)
class NewImage:
    """A subject's image as a store would hold it.

    Attributes:
        subject: its name, from its file or folder.
        image: `(channel, *space)`, intensities in [0, 255].
        missing: modalities that the subject lacks; they are zero.
        notes: what had to be decided about its files.
    """

    subject: str
    image: npt.NDArray[Any]
    missing: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def decisions(self) -> tuple[str, ...]:
        """What must be said of it, in words that are the same for other subjects."""
        return (*(f"{modality} is missing, and zero" for modality in self.missing), *self.notes)


def decisions_in(store: Store, modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """What was decided about each subject of a store, in the words of `NewImage.decisions`.

    Args:
        store: prepared store.
        modalities: those of the encoder.
    """
    own = store.info.modalities
    lacking = [m for m in modalities if m not in own]
    notes = store.table.get("prepare_notes", [()] * len(store))
    return [
        (
            *(f"{m} is missing, and the encoder does without it" for m in lacking),
            *(
                f"{m} is missing, and zero"
                for m, there in zip(own, present, strict=True)
                if not there
            ),
            *map(_plain, noted),
        )
        for present, noted in zip(store.present, notes, strict=True)
    ]


def images_of(
    info: StoreInfo, scans: Sequence[tuple[str, Scan]], spacing: Spacing | None, task: str
) -> Iterator[tuple[Scan, NewImage | Failure]]:
    """Prepare every subject of several sources, and show how many are through.

    Args:
        info: what their images must be like.
        scans: what a source without a path is called, and the source.
        spacing: of arrays, as in `new_images`.
        task: what is being done, for the progress.
    """
    each = ((scan, one) for name, scan in scans for one in new_images(info, scan, spacing, name))
    # Only files of images and values in memory tell beforehand of how many subjects they are.
    single = (
        not isinstance(scan, str | os.PathLike) or suffix_of(Path(scan).name, IMAGE_SUFFIXES)
        for _, scan in scans
    )
    yield from track(each, task, len(scans) if all(single) else None, unit="scans")


def say_decisions(images: Iterable[Sequence[str]], count: int) -> None:
    """Say what was decided about how many of the scans.

    Args:
        images: the decisions of each.
        count: how many scans there are.
    """
    for decision, times in Counter(d for decisions in images for d in decisions).items():
        say(f"{times} of {counted(count, 'scan')}: {decision}")


def one_image(
    info: StoreInfo, scan: Scan, spacing: Spacing | None = None, name: str = "the scan"
) -> NewImage:
    """Prepare one subject.

    Args:
        info: what its image must be like.
        scan: its image or images.
        spacing: of arrays, as in `new_images`.
        name: what it is called in errors if it has no path.

    Raises:
        SourceError: it holds several subjects, or is of another kind than the store's images.
        SubjectError: it cannot be read, or shows nothing.
    """
    images = list(new_images(info, scan, spacing, name, most=1))
    if isinstance(images[0], Failure):
        raise SubjectError(f"{images[0].subject}: {images[0].reason}")
    return images[0]


def new_images(
    info: StoreInfo,
    scan: Scan,
    spacing: Spacing | None = None,
    name: str = "the scan",
    most: int | None = None,
) -> Iterator[NewImage | Failure]:
    """Prepare every subject of a source.

    Args:
        info: what their images must be like.
        scan: a path of anything that `prepare` reads; values in memory; or one of these for each
            modality by its name. With several modalities, an array has a first axis of them.
        spacing: voxel size in mm of arrays, if the store has one. Their axes then run to the
            patient's right, front and head; a 4×4 affine (index to RAS world) says otherwise.
        name: what the subject is called if the scan has no path.
        most: the highest number of subjects that the source may hold.

    Yields:
        Each subject's image, or the reason why there is none.

    Raises:
        SourceError: no known layout, too many subjects, or another kind of images.
    """
    if not isinstance(scan, str | os.PathLike):
        yield from _made(info, _given(info, scan, spacing, name))
        return
    path = Path(scan)
    with opened(path, PrepareSettings()) as folder:
        cohort = _cohort_in(info, Path(folder))
        if most is not None and len(cohort.subjects) > most:
            raise SourceError(
                f"{path}: holds {len(cohort.subjects)} subjects, where one is needed; name its "
                "file or folder"
            )
        yield from _made(info, cohort)


def _made(info: StoreInfo, cohort: Cohort) -> Iterator[NewImage | Failure]:
    """The images of a cohort, one at a time."""
    subjects = [_named_as_trained(info, subject) for subject in cohort.subjects]
    of_all = [note for note in cohort.notes if not any(word in note for word in NOT_OF_IMAGES)]
    chosen = _chosen(info, cohort)
    kinds = ("scans",) if info.directed else ("pictures", "arrays")[info.ndim - 2 :]
    if cohort.kind not in kinds:
        one = len(subjects) == 1
        raise SourceError(
            f"{subjects[0].subject if one else cohort.root.name}: {cohort.layout} ({cohort.kind}), "
            f"but the encoder was trained on {kinds[0]}"
        )
    of_one_file = info.modalities in OF_ONE_FILE
    if not of_one_file:
        replace(cohort, subjects=tuple(subjects)).refuse_misnamed(info.modalities)
    arrays: Iterator[Any] = iter([None] * len(subjects))
    if cohort.kind == "arrays":
        arrays = arrays_of(item for subject in subjects for item in subject.files.values())
    info = replace(info, masks=None)  # masks of new scans are of use for centring alone
    for subject, array in zip(subjects, arrays, strict=True):
        files = (*subject.files,) if of_one_file else info.modalities
        spec = ImageSpec(
            info, Path(os.devnull), cohort.root, cohort.kind, files, without_masks=True
        )
        result = made(spec, Task(subject, array, None))
        if isinstance(result, Failure):
            yield result
            continue
        image, record, _ = result
        there = zip(info.modalities, record.modality_present, strict=True)
        missing = tuple(modality for modality, present in there if not present)
        notes = (
            *of_all,
            *subject.doubts,
            *chosen[subject.subject],
            *(UNKNOWN.format(m) for m in subject.files if m not in files and missing),
            *map(_plain, record.prepare_notes),
        )
        yield NewImage(subject.subject, image, missing, notes)


def _chosen(info: StoreInfo, cohort: Cohort) -> dict[str, list[str]]:
    """By subject, why another of its images is left out: it is of whom the path is most alike."""
    reasons: dict[str, list[str]] = {s.subject: [] for s in cohort.subjects}
    for place, reason in cohort.left_out:
        if (modality := another(reason)) is None:
            continue
        away = os.fspath(cohort.root / place)
        one = max(
            cohort.subjects, key=lambda s: max((_alike(away, f) for f in s.own_files), default=0)
        )
        used = one.files if len(one.files) == 1 else info.modalities
        of_mask = modality == MASK and info.center == "mask"
        if (modality in used or of_mask) and reason not in reasons[one.subject]:
            reasons[one.subject].append(reason)
    return reasons


def _alike(path: str, other: Path) -> int:
    """How many characters two paths begin with together."""
    pairs = zip(path, os.fspath(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _plain(note: str) -> str:
    """A note without advice for making a store: a new scan's crop is that of the training."""
    return note.partition(";")[0] if note == CUT_OFF else note


def _named_as_trained(info: StoreInfo, subject: SubjectFiles) -> SubjectFiles:
    """A subject whose only image, or whose store's only image, has no modality by its name."""
    own, have = info.modalities, (*subject.files,)
    if len(own) == len(have) == 1 and SINGLE in (*own, *have) and own not in OF_ONE_FILE:
        return replace(subject, files={own[0]: subject.files[have[0]]})
    if have == (SINGLE,) and SINGLE not in own and own not in OF_ONE_FILE:
        raise SourceError(
            f"{subject.subject}: is one image, and the encoder takes {', '.join(own)}; say which "
            "it is in a manifest (a subject column, and a column of paths for each modality)"
        )
    return subject


def _cohort_in(info: StoreInfo, path: Path) -> Cohort:
    """The subjects below a path."""
    own = info.modalities
    layout = None if own in OF_ONE_FILE else own
    if path.is_file() and suffix_of(path.name, DICOM_SUFFIXES):
        item = item_at(path) if info.directed else path
        return _of_one(info, path.parent, stem(path.name), {SINGLE: item})
    try:
        return recognise(path, layout)
    except SourceError:
        series = series_item(path) if path.is_dir() and info.directed and len(own) == 1 else None
        if series is None:
            raise
    note = f"the series is taken for {own[0]}, because its description is not known"
    return replace(_of_one(info, path, path.absolute().name, {SINGLE: series}), notes=(note,))


def _of_one(
    info: StoreInfo, root: Path, subject: str, files: Mapping[str, Item], mask: Item | None = None
) -> Cohort:
    kind: Kind = "scans" if info.directed else "pictures" if info.ndim == 2 else "arrays"
    return Cohort("one subject", kind, root.absolute(), (SubjectFiles(subject, files, mask),))


def _given(info: StoreInfo, scan: Any, spacing: Spacing | None, name: str) -> Cohort:
    """A subject whose images, or their paths, are in memory."""
    images = dict(scan) if isinstance(scan, Mapping) else _by_modality(info, np.asarray(scan), name)
    if info.modalities in OF_ONE_FILE:
        if len(images) != 1:
            raise SourceError(f"{name}: has {len(images)} images; the encoder takes one picture")
    else:
        for modality in images.keys() - {*info.modalities, MASK}:
            known = nearest(modality, (*info.modalities, MASK))
            raise SourceError(f"{name}: the encoder knows no modality {modality}; {known}")
    items = {m: _item(info, image, spacing, name, m) for m, image in images.items()}
    paths = [Path(image) for image in images.values() if isinstance(image, str | os.PathLike)]
    root = Path()
    if paths:
        # One path names the subject; of several, their folder does.
        root = Path(os.path.commonpath([p.absolute().parent for p in paths]))
        name = stem(paths[0].name) if len(paths) == 1 else root.name
    mask = items.pop(MASK, None) if MASK not in info.modalities else None
    return _of_one(info, root, name, items, mask)


def _by_modality(info: StoreInfo, values: npt.NDArray[Any], name: str) -> dict[str, Any]:
    """The image of each modality in an array that has a first axis of them, or is of one."""
    own = info.modalities
    axes = values.ndim if info.directed else len(space_of(values.shape))
    if axes == info.ndim + 1 and values.ndim == axes and own not in OF_ONE_FILE:
        if len(values) == len(own):
            return dict(zip(own, values, strict=True))
    elif axes == info.ndim and (len(own) == 1 or own in OF_ONE_FILE):
        return {own[0]: values}
    wanted = f"{info.ndim} axes of space"
    if len(own) > 1 and own not in OF_ONE_FILE:
        wanted = f"a first axis of {len(own)} ({', '.join(own)}) and {wanted}"
    raise SourceError(f"{name}: is {dimensions(values.shape)}; give an array of {wanted}")


def _item(info: StoreInfo, image: Any, spacing: Spacing | None, name: str, modality: str) -> Item:
    if isinstance(image, str | os.PathLike):
        if not Path(image).exists():
            raise SourceError(f"{image}: no such file or folder")
        item = item_at(Path(image)) if info.directed else Path(image)
        if isinstance(item, Path) and item.is_dir():
            raise SourceError(f"{image}: is a folder without DICOM files; name a file")
        return item
    values = np.asarray(image)
    if not info.directed:
        if spacing is not None:
            raise SourceError(f"{name}: the encoder's images have no spacing in mm; give none")
        if len(space_of(values.shape)) != info.ndim:
            raise SourceError(
                f"{name}: is {dimensions(values.shape)}; an image has {info.ndim} axes of space"
            )
        return GivenItem(values, None, modality)
    if spacing is None:
        raise SourceError(f"{name}: an array does not tell its voxel size; give `spacing` in mm")
    size = np.asarray(spacing, float)
    if size.shape not in ((), (3,), (4, 4)):
        raise SourceError(
            f"{name}: spacing of shape {size.shape}; give one number, three, or a 4×4 affine"
        )
    affine = size if size.ndim == 2 else np.diag([*np.broadcast_to(size, 3), 1.0])
    return GivenItem(values, affine, modality)
