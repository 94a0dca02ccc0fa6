"""Whether embeddings and results still belong to the encoder of the run that they lie in.

Embeddings keep the id of the weights that made them (`runfolder.weights_id`), and evaluations and
reconstructions do so, too. A run that is trained on gets other weights, and what was made before is
outdated.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitaepp.data.runfolder import RunFolder, weights_id
from vitaepp.system.paths import kind_of
from vitaepp.system.progress import counted, warn

#: The method of embeddings by an encoder that others trained and published.
PUBLIC = "public"


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
    """Why embeddings or an evaluation are not of the encoder of the run around; empty if they are.

    It is empty, too, where no run is around, or none that has been trained, and of a public
    encoder, which is no run's.

    Args:
        path: of the file.
        facts: its provenance.
    """
    run = run_around(path)
    weights = None if run is None else weights_id(run)
    if run is None or weights is None or facts.get("method") == PUBLIC:
        return ""
    reason = other_encoder(facts.get("encoder"), weights)
    before, now = facts.get("epochs"), RunFolder(run).encoder_epochs()
    if reason and isinstance(before, int) and now is not None and before != now:
        reason += f" (after {counted(before, 'epoch')}, now {now})"
    return reason


def warn_outdated(path: str | os.PathLike[str], facts: Mapping[str, Any], remedy: str) -> None:
    """Warn of embeddings or an evaluation that are `outdated`, with what to do about it."""
    if reason := outdated(path, facts):
        warn(f"{path}: {reason}; {remedy}")
