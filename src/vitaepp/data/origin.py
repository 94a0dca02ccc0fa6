"""Whether embeddings and results still belong to the encoder of the run that they lie in.

Embeddings keep the id of the weights that made them (`runfolder.weights_id`), and an evaluation
keeps it too, with a digest of each file of embeddings. A run that is trained on gets other weights,
and embeddings that are written anew get another digest: what was made before is then outdated.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitaepp.data.runfolder import RunFolder, weights_id
from vitaepp.system.paths import kind_of
from vitaepp.system.progress import counted, warn


def run_around(path: str | os.PathLike[str]) -> Path | None:
    """The run that a file or folder lies in, the nearest one; None where there is none."""
    inside = Path(path).resolve()
    return next((p for p in (inside, *inside.parents) if kind_of(p) == "run"), None)


def other_encoder(made_with: Any, weights: str | None) -> str:
    """Why a result is not of the weights that a run has now; empty where it is.

    Args:
        made_with: the id of the weights that made it, a list where each fold has its own; None
            where the result does not say.
        weights: the id of the run's own.
    """
    if made_with is None:
        return "it does not say which encoder made it"
    if isinstance(made_with, list):
        return f"it was made with {len(made_with)} encoders, one a fold"
    return "" if made_with == weights else "it was made with another encoder than the run has now"


def outdated(path: str | os.PathLike[str], facts: Mapping[str, Any]) -> str:
    """Why embeddings or an evaluation do not belong to what lies around them; empty if they do.

    Args:
        path: of the file.
        facts: its provenance.
    """
    run = run_around(path)
    weights = None if run is None else weights_id(run)
    if run is not None and weights is not None:
        reason = other_encoder(facts.get("encoder"), weights)
        if reason:
            before, now = facts.get("epochs"), RunFolder(run).encoder_epochs()
            if None not in (before, now) and before != now:
                reason += f" (after {counted(int(before), 'epoch')}, now {now})"
            return reason
    return rewritten(path, facts)


def rewritten(metrics: str | os.PathLike[str], facts: Mapping[str, Any]) -> str:
    """Why an evaluation is not of the embeddings that are there; empty where that is not known."""
    files = facts.get("embeddings")
    for name, digest in files.items() if isinstance(files, Mapping) else ():
        file = Path(metrics).parent / name
        if file.is_file() and file_id(file) != digest:
            return f"{Path(name).name} has been written anew since it was made"
    return ""


def warn_outdated(path: str | os.PathLike[str], facts: Mapping[str, Any], remedy: str) -> None:
    """Warn of embeddings or an evaluation that are `outdated`, with what to do about it."""
    if reason := outdated(path, facts):
        warn(f"{path}: {reason}; {remedy}")


def file_id(file: str | os.PathLike[str]) -> str:
    """SHA-256 of a file."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def ids_from(folder: str | os.PathLike[str], files: list[Path]) -> dict[str, str]:
    """Digests of files, by their paths from a folder.

    A path leads up to what both lie in, a run or the file's own folder; where there is nothing of
    the kind, it is the file's name, because results are passed on.
    """
    inside, run = Path(folder).resolve(), run_around(folder)
    found = {}
    for file in files:
        name, own = file.name, file.resolve()
        if inside.is_relative_to(own.parent) or (run is not None and own.is_relative_to(run)):
            name = Path(os.path.relpath(own, inside)).as_posix()
        found[name] = file_id(file)
    return found
