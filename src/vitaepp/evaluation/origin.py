"""Whether an evaluation is still of the embeddings that lie where it found them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitaepp.data.embeddings import Embeddings
from vitaepp.data.origin import outdated, run_around
from vitaepp.errors import EvaluationError
from vitaepp.system.progress import warn


def digests(
    folder: str | os.PathLike[str], paths: Sequence[Path], every: Sequence[Embeddings]
) -> dict[str, str]:
    """Digests of embeddings by the paths of their files, as an evaluation keeps them.

    Args:
        folder: of the evaluation. Paths begin there and stay in the run around it, or lead up from
            it; of other files it is the name, because results are passed on.
        paths: of the files.
        every: the embeddings in them.
    """
    inside, run = Path(folder).resolve(), run_around(folder)
    by_name = {}
    for path, embedded in zip(paths, every, strict=True):
        name, own = path.name, path.resolve()
        if inside.is_relative_to(own.parent) or (run is not None and own.is_relative_to(run)):
            name = Path(os.path.relpath(own, inside)).as_posix()
        by_name[name] = embedded.digest
    return by_name


def rewritten(folder: str | os.PathLike[str], facts: Mapping[str, Any]) -> str:
    """Why an evaluation is not of the embeddings that are there; empty if it is, or none are.

    Args:
        folder: of the evaluation.
        facts: its provenance.
    """
    known = facts.get("embeddings")
    for name, digest in known.items() if isinstance(known, Mapping) else ():
        file = Path(folder) / name
        try:
            if file.is_file() and Embeddings.load(file).digest != digest:
                return f"{file.name} has been written anew since it was made"
        except EvaluationError:
            return f"{file.name} cannot be read any more"
    return ""


def warn_of_other(metrics: Path, facts: Mapping[str, Any]) -> None:
    """Warn of an evaluation whose run has another encoder now, or other embeddings."""
    if reason := outdated(metrics, facts):
        warn(f"{metrics}: {reason}; embed and evaluate again for the run as it is")
    elif reason := rewritten(metrics.parent, facts):
        warn(f"{metrics}: {reason}; evaluate again")
