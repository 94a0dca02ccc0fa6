"""Checkpoints: whole or not at all on disk, and nothing but tensors and plain values in them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from vitaepp.checkpoints import load_checkpoint
from vitaepp.encoder import EncoderConfig
from vitaepp.errors import RunError, one_line
from vitaepp.files import atomic_path
from vitaepp.methods import Method, ViTAE, build_method
from vitaepp.recipe import Recipe
from vitaepp.runfolder import RunFolder


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, and hold only tensors and plain values.

    Args:
        folder: the run, whose last two checkpoints are kept.
        damaged: the last one is, and shall not take the place of the one before.
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
        """Read; whatever is asked for, no code in the file is run."""
        return load_checkpoint(path)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy, where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def load_method(run: str | os.PathLike[str]) -> tuple[Method, EncoderConfig]:
    """The whole trained model of a run, with its decoder.

    Raises:
        RunError: no run, or a checkpoint that is not one of ours.
    """
    folder = RunFolder(run)
    checkpoint = load_checkpoint(folder.checkpoint)
    facts = checkpoint["vitaepp"]
    recipe = Recipe.parse(facts["recipe"])
    # Only the loss looks through VGG, and it is not computed here; its weights may not be at hand.
    plain = recipe.changed(loss={"perceptual": {"weights": "random"}})
    modalities, size = tuple(facts["modalities"]), tuple(facts["image_size"])
    method = build_method(plain, len(modalities), size)
    if isinstance(method, ViTAE):
        method.perceptual = None
    state = {
        name.removeprefix("method."): value for name, value in checkpoint["state_dict"].items()
    }
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(f"{folder.checkpoint}: does not fit its recipe: {one_line(error)}") from None
    return method.eval(), EncoderConfig.of_checkpoint(checkpoint)
