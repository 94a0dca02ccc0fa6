"""The whole model of a run, read from its checkpoint."""

from __future__ import annotations

import os

from vitaepp.data.checkpoints import load_checkpoint
from vitaepp.data.runfolder import RunFolder
from vitaepp.encoder.config import EncoderConfig
from vitaepp.errors import RunError, one_line
from vitaepp.methods import Method, build_method
from vitaepp.nn.backbones import Undrawn
from vitaepp.recipe.recipe import Recipe


def load_method(run: str | os.PathLike[str]) -> tuple[Method, EncoderConfig]:
    """The whole trained model of a run, with its decoder.

    Raises:
        RunError: no run, or a checkpoint that is not one of ours.
    """
    folder = RunFolder(run)
    checkpoint = load_checkpoint(folder.checkpoint)
    facts = checkpoint["vitaepp"]
    recipe = Recipe.of_run(facts["recipe"], str(folder.checkpoint))
    # Only the loss looks through VGG, and it is not computed here; its weights may not be at hand.
    plain = recipe.changed(loss={"perceptual": {"weights": "none"}})
    modalities, size = tuple(facts["modalities"]), tuple(facts["image_size"])
    with Undrawn():
        method = build_method(plain, len(modalities), size)
    state = {
        name.removeprefix("method."): value for name, value in checkpoint["state_dict"].items()
    }
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(f"{folder.checkpoint}: does not fit its recipe: {one_line(error)}") from None
    return method.eval(), EncoderConfig.of_checkpoint(checkpoint, folder.checkpoint)
