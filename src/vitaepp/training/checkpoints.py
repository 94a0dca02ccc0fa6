"""Checkpoints: whole or not at all on disk, and nothing but tensors and plain values in them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from vitaepp.data.checkpoints import load_checkpoint
from vitaepp.data.runfolder import RunFolder
from vitaepp.system.files import atomic_path


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, and hold only tensors and plain values.

    Args:
        folder: the run, whose last two checkpoints are kept.
        damaged: the last checkpoint is damaged, and must not replace the one before.
    """

    def __init__(self, folder: RunFolder, damaged: bool = False) -> None:
        super().__init__()
        self.folder = folder
        self.damaged = damaged

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write beside, then rename; what was the last becomes the one before."""
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)
            if self.folder.checkpoint.is_file() and not self.damaged:
                with atomic_path(self.folder.checkpoint_before) as before:
                    _link(self.folder.checkpoint, before)
        self.damaged = False

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; no code in the file is run, whatever `weights_only` says."""
        return load_checkpoint(path)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy, where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
