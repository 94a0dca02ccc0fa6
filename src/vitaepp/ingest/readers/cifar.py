"""CIFAR's pickles, read without running the code that a pickle may contain.

A pickle is a program that builds objects, and opening one the usual way runs it. CIFAR's files hold
only numbers, text, lists, dictionaries and one array of bytes. `_Unpickler` builds these, with
stand-ins for numpy's types, and refuses everything else.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from vitaepp.errors import SourceError
from vitaepp.ingest.readers.tar import BROKEN_TAR, tar_entries

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")

#: Most bytes of a pickle; CIFAR's have at most 155 MB.
MOST_BYTES = 1 << 30

#: Shape of CIFAR's images: three colour planes of 32 × 32 pixels.
CIFAR_SHAPE = (3, 32, 32)


def cifar_images(path: Path, key: str) -> npt.NDArray[np.uint8]:
    """The images `(image, row, column, colour)` of a CIFAR batch.

    Args:
        path: the file of the batch, or the `.tar.gz` that holds it.
        key: its name in the archive; ignored for a single file.

    Raises:
        SourceError: the batch is missing, damaged, not CIFAR's, or a pickle that would run code.
    """
    if not is_archive(path):
        with open(path, "rb") as batch:
            return images_of(load_pickle(batch, path.name), path.name)
    for name, file in archive_members(path):
        if name == key:
            return images_of(load_pickle(file, name), name)
    raise SourceError(f"{path.name}: has no {key}; download it again")


def is_archive(path: Path) -> bool:
    """Whether a path has the suffix of a tar archive."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def archive_members(path: Path) -> Iterator[tuple[str, BufferedReader]]:
    """The name and content of every file in a tar archive, in order; nothing is extracted.

    Raises:
        SourceError: the file is not a tar archive, or damaged.
    """
    try:
        for member, file in tar_entries(path):
            if file is not None:
                yield member.name, cast(BufferedReader, file)
    except (*BROKEN_TAR, OSError):
        raise SourceError(
            f"{path.name}: truncated, corrupt or not a tar archive; download it again"
        ) from None


def load_pickle(file: BufferedReader, name: str) -> dict[str, Any]:
    """The dictionary in one of CIFAR's files; no code in the file is run.

    Raises:
        SourceError: the file is damaged, not a dictionary, or names other objects than CIFAR's.
    """
    try:
        data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise SourceError("is larger than any file of CIFAR; download it again")
        values = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except SourceError as error:
        raise SourceError(f"{name}: {error}") from None
    except Exception:  # a damaged pickle may raise any exception
        values = None
    if not isinstance(values, dict):
        raise SourceError(f"{name}: truncated, corrupt or not a CIFAR file; download it again")
    return {_text(key): value for key, value in values.items()}


def images_of(batch: dict[str, Any], name: str) -> npt.NDArray[np.uint8]:
    """The images `(image, row, column, colour)` in the dictionary of a batch.

    Raises:
        SourceError: it holds no images of CIFAR's size.
    """
    data = batch.get("data")
    if not isinstance(data, _Array) or data.values.ndim != 2:
        raise SourceError(f"{name}: holds no images, so it is not a CIFAR batch")
    if data.values.shape[1] != np.prod(CIFAR_SHAPE):
        raise SourceError(
            f"{name}: its images have {data.values.shape[1]} values; CIFAR's have 3072"
        )
    return data.values.reshape(-1, *CIFAR_SHAPE).transpose(0, 2, 3, 1)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


class _Type:
    """A stand-in for `numpy.dtype` that stores its name."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = _text(name)

    def __setstate__(self, state: Any) -> None:
        pass  # the byte order, which has no meaning for pixels of one byte


class _Array:
    """A stand-in for `numpy.ndarray`, and for the function that creates an empty one."""

    values: npt.NDArray[np.uint8]

    def __init__(self, *_: Any) -> None:
        self.values = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        *_, shape, kind, by_column, data = state  # old numpy versions write no version number
        if not isinstance(kind, _Type) or kind.name not in ("u1", "uint8"):
            raise ValueError("pixels are bytes")
        values = np.frombuffer(data, np.uint8)
        self.values = values.reshape(shape, order="F" if by_column else "C")


def _encode(text: str, *_: Any) -> bytes:
    """A stand-in for `_codecs.encode`, which newer Pythons use for bytes in old pickles."""
    return text.encode("latin-1")


class _Unpickler(pickle.Unpickler):
    """Builds the objects of CIFAR's files and nothing else."""

    KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global name in a CIFAR file."""
        try:
            return self.KNOWN[module, name]
        except KeyError:
            raise SourceError(
                f"is not a CIFAR file: it asks to run {module}.{name}, which was refused; "
                "download it again from the official page"
            ) from None
