"""Locations: paths of this machine, and URLs that fsspec opens.

https://filesystem-spec.readthedocs.io
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitaepp.errors import StorageError, one_line
from vitaepp.system.extras import install

Location = str | os.PathLike[str]


def is_url(location: Location) -> bool:
    """Whether a location is a URL, and not a path on this machine.

    >>> is_url("s3://bucket/store"), is_url("folder/store"), is_url("file:///folder")
    (True, False, True)
    """
    return isinstance(location, str) and "://" in location


def location_of(location: Location) -> Path | str:
    """A location as a path of this machine where it is one, else its URL.

    Raises:
        StorageError: a URL that cannot be opened.
    """
    text = os.fspath(location)
    return (local_path(text) or text) if is_url(text) else Path(text)


def in_one_process(location: Path | str) -> bool:
    """Whether only the process that puts something there can see it."""
    return isinstance(location, str) and "memory://" in location


def local_path(url: str) -> Path | None:
    """The path that a `file://` URL means; None for others.

    Raises:
        StorageError: a URL that cannot be opened.
    """
    from fsspec.implementations.local import LocalFileSystem

    system, path = filesystem(url)
    return Path(path) if isinstance(system, LocalFileSystem) else None


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path there.

    Raises:
        StorageError: unknown protocol, a package that is missing, or a password in the URL.
    """
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0]
    if re.search(r"[*?\[]", url):
        raise StorageError(f"{url}: * ? and [ have no place in the URL of a folder; rename it")
    if re.search(r"//[^/@]*:[^/@]*@", url):
        raise StorageError(
            f"{protocol}://: the URL holds a password, which would be written into runs; give it "
            "by fsspec's configuration or the protocol's environment variables"
        )
    try:
        with storage_errors(url):
            system, path = url_to_fs(url)
    except ImportError as error:
        remedy = install("hub") if protocol == "hf" else one_line(error)
        raise StorageError(f"{url}: a package is missing; {remedy}, and try again") from None
    return system, path.rstrip("/")


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn the errors of any protocol's library into a `StorageError`; an OSError stays one.

    Those of the network do not, because they name no place.
    """
    try:
        yield
    except (socket.gaierror, ConnectionError, TimeoutError) as error:
        raise StorageError(f"{url}: cannot be reached: {one_line(error)}") from error
    except (OSError, ImportError, StorageError):
        raise
    except Exception as error:  # each library has its own
        raise StorageError(f"{url}: {one_line(error)}") from error
