"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the Python version, as an archive or extracted.

cifar-10-python.tar.gz   cifar-10-batches-py/{data_batch_1 … data_batch_5,test_batch,batches.meta}
cifar-100-python.tar.gz  cifar-100-python/{train,test,meta}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any

from vitaepp.errors import SourceError
from vitaepp.ingest.layouts.cohort import SINGLE, Cohort, Source, SubjectFiles
from vitaepp.ingest.readers.cifar import archive_members, images_of, is_archive, load_pickle
from vitaepp.ingest.readers.items import ArrayItem

ARCHIVES = ("cifar-10-python.tar.gz", "cifar-100-python.tar.gz")


@dataclass(frozen=True)
class _Version:
    """The names of the files of one CIFAR version, and of their content.

    Attributes:
        name: the name in messages.
        batches: file and split of each batch, in the order of the store.
        meta: the file with the names of the classes.
        labels: for each label column, its key in the batches and in the meta file.
    """

    name: str
    batches: tuple[tuple[str, str], ...]
    meta: str
    labels: dict[str, tuple[str, str]]


CIFAR10 = _Version(
    "CIFAR-10",
    (*((f"data_batch_{i}", "train") for i in range(1, 6)), ("test_batch", "test")),
    "batches.meta",
    {"label": ("labels", "label_names")},
)
CIFAR100 = _Version(
    "CIFAR-100",
    (("train", "train"), ("test", "test")),
    "meta",
    {
        "label": ("fine_labels", "fine_label_names"),
        "coarse_label": ("coarse_labels", "coarse_label_names"),
    },
)


@dataclass(frozen=True)
class _Batch:
    """One file of CIFAR: where it is, its number of images, and its labels by column as numbers."""

    key: str
    file: Path
    length: int
    values: dict[str, Any]


def holds_cifar(archive: Path) -> bool:
    """Whether an archive is one of CIFAR's, by its first ten files; CIFAR's have no more."""
    if not is_archive(archive):
        return False
    known = {n for v in (CIFAR10, CIFAR100) for n in (v.meta, *dict(v.batches))}
    try:
        return any(
            name.rpartition("/")[2] in known for name, _ in islice(archive_members(archive), 10)
        )
    except SourceError:
        return False


def cifar_cohort(source: Source) -> Cohort | None:
    """The downloaded archive, the folder inside it, or a folder that holds one of them."""
    if source.path.is_file():
        if not is_archive(source.path):
            return None
        return _cohort(source.path, _in_archive(source.path))
    for version in (CIFAR10, CIFAR100):
        wanted = {version.meta, version.batches[0][0], version.batches[-1][0]}
        folders = {f.parent for f in source.files if f.name in wanted}
        for folder in sorted(folders):
            inside = {f.name for f in source.files if f.parent == folder}
            if wanted <= inside:
                root = source.path / folder
                names = [n for n, _ in version.batches if n in inside]
                return _cohort(root, _in_folder(root, [*names, version.meta]))
    archives = [source.path / f for f in source.files if f.name in ARCHIVES]
    if len(archives) > 1:
        raise SourceError(f"{source.path}: holds {len(archives)} archives; prepare one of them")
    return _cohort(archives[0], _in_archive(archives[0])) if archives else None


def _in_folder(root: Path, names: Iterable[str]) -> Iterator[tuple[str, Path, str, BufferedReader]]:
    for name in names:
        with open(root / name, "rb") as file:
            yield name, root / name, "data", file


def _in_archive(path: Path) -> Iterator[tuple[str, Path, str, BufferedReader]]:
    for name, file in archive_members(path):
        yield name.rpartition("/")[2], path, name, file


def _cohort(root: Path, files: Iterable[tuple[str, Path, str, BufferedReader]]) -> Cohort:
    known = {n for v in (CIFAR10, CIFAR100) for n in (v.meta, *dict(v.batches))}
    batches: dict[str, _Batch] = {}
    for name, file, key, content in files:
        if name in known:
            values = load_pickle(content, name)
            # Only the number of images is kept, so that one batch at a time is in memory.
            length = len(images_of(values, name)) if "data" in values else 0
            values.pop("data", None)
            batches[name] = _Batch(key, file, length, values)
    version = next((v for v in (CIFAR10, CIFAR100) if v.meta in batches), None)
    if version is None:
        raise SourceError(
            f"{root.name}: neither CIFAR-10 nor CIFAR-100 in their Python version; extract it and "
            "give the folder"
        )
    missing = [n for n, _ in version.batches if n not in batches]
    if missing:
        raise SourceError(
            f"{root.name}: {version.name} without {', '.join(missing)}; download it again"
        )
    meta = batches[version.meta].values
    names = {column: _names(meta, key, root) for column, (_, key) in version.labels.items()}
    subjects: list[SubjectFiles] = []
    counts = {"train": 0, "test": 0}
    for file_name, split in version.batches:
        batch = batches[file_name]
        labels = {
            column: _labels(batch, key, names[column], file_name)
            for column, (key, _) in version.labels.items()
        }
        for i in range(batch.length):
            subjects.append(
                SubjectFiles(
                    f"{split}_{counts[split]:05d}",
                    {SINGLE: ArrayItem(batch.file, batch.key, i)},
                    split=split,
                    labels={column: values[i] for column, values in labels.items()},
                )
            )
            counts[split] += 1
    folder = root.absolute().parent
    return Cohort(version.name, "arrays", folder, tuple(subjects), classes=tuple(names["label"]))


def _names(meta: dict[str, Any], key: str, root: Path) -> list[str]:
    values = meta.get(key)
    if not isinstance(values, list) or not all(isinstance(v, bytes | str) for v in values):
        raise SourceError(f"{root.name}: its meta file names no classes ({key}); download it again")
    return [v.decode() if isinstance(v, bytes) else v for v in values]


def _labels(batch: _Batch, key: str, names: list[str], file: str) -> list[str]:
    values = batch.values.get(key)
    if (
        not isinstance(values, list)
        or len(values) != batch.length
        or not all(isinstance(v, int) and 0 <= v < len(names) for v in values)
    ):
        raise SourceError(f"{file}: its {key} do not fit its {batch.length} images and the classes")
    return [names[v] for v in values]
