"""Checkpoints as a training leaves them, read without running any code in them."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitaepp.data.runfolder import RunFolder
from vitaepp.errors import RunError, RunNotFoundError, WeightsError
from vitaepp.system.tensors import read_tensors

FORMAT = 1


def newest_checkpoint(folder: RunFolder) -> Path | None:
    """The run's last checkpoint, or the one before where the last is damaged; None without one.

    What torch cannot read is damaged, too: not every part of an archive has a checksum.

    Raises:
        RunError: there are only damaged ones, or such as are not ours.
    """
    kept = [p for p in (folder.checkpoint, folder.checkpoint_before) if p.is_file()]
    why = "damaged, and no checkpoint from before is whole; remove it to start anew"
    problem = RunError(f"{folder.checkpoint}: {why}")
    for path in kept:
        try:
            if is_whole(path) and load_checkpoint(path):
                return path
        except RunError as error:
            problem = error
    if kept:
        raise problem
    return None


def is_whole(path: Path) -> bool:
    """Whether a checkpoint holds what was written; torch checks no sums when it reads."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # whatever zipfile makes of what is no longer an archive
        return False


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of ours without running any code in it.

    Raises:
        RunError: it is missing, damaged, or not one of ours.
    """
    if not Path(path).is_file():
        raise RunNotFoundError(f"{path}: no such checkpoint; make one with `pretrain(STORE, RUN)`")
    try:
        checkpoint = read_tensors(path)
    except WeightsError as error:
        raise RunError(f"{path}: {error}; use a checkpoint of vitaepp") from None
    if not isinstance(checkpoint, dict) or "vitaepp" not in checkpoint:
        raise RunError(f"{path}: not a checkpoint of vitaepp")
    if checkpoint["vitaepp"].get("format") != FORMAT:
        raise RunError(f"{path}: made by another version of vitaepp")
    return dict(checkpoint)


def progress_of(checkpoint: Mapping[str, Any]) -> tuple[int, int]:
    """How far a training was: whole epochs, and steps of the next one."""
    loop = checkpoint["loops"]["fit_loop"]
    epochs = loop["epoch_progress"]["current"]["processed"]
    # A checkpoint at the end of an epoch still counts that epoch's batches.
    inside = loop["epoch_progress"]["current"]["ready"] > epochs
    return epochs, loop["epoch_loop.batch_progress"]["current"]["ready"] if inside else 0
