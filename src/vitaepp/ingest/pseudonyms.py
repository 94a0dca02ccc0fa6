"""Pseudonyms: the name of each subject is replaced by a keyed hash with the user's secret.

The same secret gives the same pseudonyms, so that subjects can be added later. Without the secret,
nobody can recover a name, not even by trying all likely names, as would be possible with a plain
hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from vitaepp.data.storetable import PARTICIPANT
from vitaepp.errors import RecipeError
from vitaepp.ingest.layouts import Cohort

#: Least number of bytes of a secret; a shorter one could be guessed.
LEAST_BYTES = 16

#: Stands for the reason why a file is left out, which may contain names.
UNTOLD = "a dry run without the secret shows the reason"


def read_secret(path: str | Path) -> bytes:
    """Read the secret from a file, without white space around it.

    Raises:
        RecipeError: the file does not exist, or has fewer than 16 bytes.
    """
    try:
        secret = Path(path).read_bytes().strip()
    except OSError:
        raise RecipeError(f"`secret={path}`: cannot be read; give a file") from None
    if len(secret) < LEAST_BYTES:
        raise RecipeError(
            f"`secret={path}`: holds {len(secret)} bytes; at least {LEAST_BYTES} random "
            "bytes are needed, for example from `openssl rand -hex 32`"
        )
    return secret


def pseudonym(secret: bytes, name: str) -> str:
    """The pseudonym of a name: its HMAC-SHA-256 (RFC 2104), 64 bits in hexadecimal.

    >>> pseudonym(b"0123456789abcdef", "Ada") == pseudonym(b"0123456789abcdef", "Ada")
    True
    """
    return hmac.new(secret, name.encode(), hashlib.sha256).hexdigest()[:16]


def pseudonymized(cohort: Cohort, secret: bytes) -> Cohort:
    """A cohort with pseudonyms for its subjects and for the files that are left out."""
    subjects = tuple(
        replace(subject, subject=pseudonym(secret, subject.subject)) for subject in cohort.subjects
    )
    # Reasons are dropped, because they may name other files.
    left_out = tuple((pseudonym(secret, path), UNTOLD) for path, _ in cohort.left_out)
    return replace(cohort, subjects=subjects, left_out=left_out)


def pseudonymized_table(table: pd.DataFrame, secret: bytes) -> pd.DataFrame:
    """A cohort's table with pseudonyms for subjects and participants."""
    named = [name for name in ("subject", PARTICIPANT) if name in table]
    renamed = table[named].map(lambda name: pseudonym(secret, str(name)), na_action="ignore")
    return table.assign(**{name: renamed[name] for name in named})


def without_names(message: str, files: Iterable[Path], root: Path, secret: bytes) -> str:
    """A message with pseudonyms for the names of files, and of their folders below a root."""
    parts: set[str] = set()
    for file in files:
        inside = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
        parts.update(inside.parts, [inside.as_posix()])
    for part in sorted(parts, key=len, reverse=True):
        message = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", pseudonym(secret, part), message)
    return message
