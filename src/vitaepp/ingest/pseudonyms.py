"""Subjects under other names: a keyed hash of each, by a secret that only the user has.

The same secret gives the same names, so that subjects can be added later; without it a name cannot
be told, not even by trying all likely ones, as it could from a plain hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from vitaepp.data.store import PARTICIPANT
from vitaepp.errors import RecipeError
from vitaepp.ingest.layouts import Cohort

#: Bytes that a secret must have; fewer could be guessed.
LEAST_BYTES = 16

#: Instead of the reason why a file is left out.
UNTOLD = "a dry run without the secret says why"


def read_secret(path: str | Path) -> bytes:
    """The secret in a file, without white space around it.

    Raises:
        RecipeError: no such file, or fewer than 16 bytes.
    """
    try:
        secret = Path(path).read_bytes().strip()
    except OSError:
        raise RecipeError(f"prepare.secret={path}: cannot be read; give a file") from None
    if len(secret) < LEAST_BYTES:
        raise RecipeError(
            f"prepare.secret={path}: holds {len(secret)} bytes; at least {LEAST_BYTES} random ones "
            "are needed, as `openssl rand -hex 32` prints"
        )
    return secret


def pseudonym(secret: bytes, name: str) -> str:
    """HMAC-SHA-256 (RFC 2104) of a name, 64 bits in hexadecimal.

    >>> pseudonym(b"0123456789abcdef", "Ada") == pseudonym(b"0123456789abcdef", "Ada")
    True
    """
    return hmac.new(secret, name.encode(), hashlib.sha256).hexdigest()[:16]


def pseudonymized(cohort: Cohort, secret: bytes) -> Cohort:
    """A cohort whose subjects, and what is left out of it, have other names."""
    subjects = tuple(
        replace(subject, subject=pseudonym(secret, subject.subject)) for subject in cohort.subjects
    )
    # Reasons may name other files.
    left_out = tuple((pseudonym(secret, path), UNTOLD) for path, _ in cohort.left_out)
    return replace(cohort, subjects=subjects, left_out=left_out)


def pseudonymized_table(table: pd.DataFrame, secret: bytes) -> pd.DataFrame:
    """A cohort's table whose subjects and participants have other names."""
    named = [name for name in ("subject", PARTICIPANT) if name in table]
    renamed = table[named].map(lambda name: pseudonym(secret, str(name)), na_action="ignore")
    return table.assign(**{name: renamed[name] for name in named})


def without_names(told: str, files: Iterable[Path], root: Path, secret: bytes) -> str:
    """A message in which the names of files, and of folders below a root, are other names."""
    parts: set[str] = set()
    for file in files:
        inside = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
        parts.update(inside.parts, [inside.as_posix()])
    for part in sorted(parts, key=len, reverse=True):
        told = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", pseudonym(secret, part), told)
    return told
