"""Checkpoints: whole or not at all on disk, and nothing but tensors and plain values in them."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from vitaepp.encoder import EncoderConfig
from vitaepp.errors import RunError, one_line
from vitaepp.files import atomic_path
from vitaepp.methods import Method, ViTAE, build_method
from vitaepp.recipe import Recipe
from vitaepp.runfolder import RunFolder
from vitaepp.store import StoreInfo

FORMAT = 1


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
        raise RunError(f"{path}: no such checkpoint; make one with vitaepp pretrain")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        raise RunError(
            f"{path}: not a checkpoint that can be read safely, without running code in it; use "
            "one that vitaepp pretrain wrote"
        ) from None
    if not isinstance(checkpoint, dict) or "vitaepp" not in checkpoint:
        raise RunError(f"{path}: not a checkpoint of vitaepp pretrain")
    if checkpoint["vitaepp"].get("format") != FORMAT:
        raise RunError(f"{path}: made by another version of vitaepp")
    return dict(checkpoint)


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
    # An older version's checkpoint does not tell how its store was prepared.
    prepared = StoreInfo.parse(facts["prepared"]) if "prepared" in facts else None
    config = EncoderConfig.of(recipe, modalities, size, prepared)
    return method.eval(), config
