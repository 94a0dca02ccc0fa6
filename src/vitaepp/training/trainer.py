"""Lightning's trainer, as a recipe asks for it, with this library's errors and files."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, Strategy

from vitaepp.data.checkpoints import load_checkpoint
from vitaepp.data.loading import TrainingLoader
from vitaepp.data.runfolder import RunFolder
from vitaepp.errors import RecipeError, TrainingError, one_line
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.compat import compile_error
from vitaepp.system.devices import chosen_device, resolved_precision
from vitaepp.system.files import atomic_path, link_or_copy
from vitaepp.training.callbacks import Checkpoints, History, LossBalance, TrainingProgress
from vitaepp.training.module import Training
from vitaepp.training.sharding import ShardedStrategy

#: What Lightning calls a precision.
PRECISION: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class Processes:
    """The processes of a training.

    Attributes:
        cluster: what started this process as one of several; None if nothing did.
        devices: how many there are on each machine.
    """

    cluster: ClusterEnvironment | None
    devices: int


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
                    link_or_copy(self.folder.checkpoint, before)
        self.damaged = False

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; no code in the file is run, whatever `weights_only` says."""
        return load_checkpoint(path)


def build_trainer(
    recipe: Recipe,
    folder: RunFolder,
    history: History,
    processes: Processes,
    damaged: bool,
    more: Sequence[Callback] = (),
) -> L.Trainer:
    """A trainer that leaves in a run folder what this library leaves there, and no more.

    Args:
        recipe: every setting.
        folder: the run.
        history: writes the table of epochs.
        processes: of the training.
        damaged: the last checkpoint is damaged, and must not replace the one before.
        more: callbacks that may end the training.
    """
    progress = TrainingProgress(history)
    plugins: list[Any] = [AtomicCheckpoints(folder, damaged)]
    if processes.cluster is not None:
        plugins.append(processes.cluster)
    return L.Trainer(
        max_epochs=recipe.optim.epochs,
        accelerator="auto",
        devices=processes.devices,
        num_nodes=recipe.trainer.nodes,
        strategy=_strategy(recipe, processes.devices * recipe.trainer.nodes),
        precision=PRECISION[resolved_precision(recipe.trainer.precision, chosen_device())],
        accumulate_grad_batches=recipe.optim.accumulate,
        gradient_clip_val=recipe.optim.clip_norm,
        plugins=plugins,
        callbacks=[LossBalance(), history, *more, Checkpoints(folder, history), progress],
        logger=_tensorboard(folder),
        default_root_dir=folder.path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        benchmark=torch.cuda.is_available(),
    )


def _strategy(recipe: Recipe, processes: int) -> str | Strategy:
    if processes == 1:
        return "auto"
    if recipe.trainer.strategy == "fsdp":
        if recipe.trainer.compile != "none":
            raise RecipeError(
                f"trainer.compile={recipe.trainer.compile} does not go with trainer.strategy=fsdp; "
                "set one of them to none or ddp"
            )
        return ShardedStrategy(processes)
    return DDPStrategy(gradient_as_bucket_view=True)


def fit(
    trainer: L.Trainer, module: Training, loader: TrainingLoader, checkpoint: Path | None
) -> None:
    """Train, from a checkpoint where one is given.

    Raises:
        TrainingError: torch cannot compile the model, or another process has ended.
        KeyboardInterrupt: somebody pressed Ctrl-C twice.
    """
    try:
        with _errors_of_others(trainer.world_size):
            trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:
        # Lightning turns Ctrl-C into a silent exit.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except compile_error() as error:
        raise TrainingError(
            f"trainer.compile={module.recipe.trainer.compile}: torch could not compile the model "
            f"({one_line(error)[:200]}); a C++ compiler is needed. Set trainer.compile=none"
        ) from None


@contextmanager
def _errors_of_others(processes: int) -> Iterator[None]:
    """When a process fails, the others only see that it no longer answers."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if processes > 1 and lost:
            raise TrainingError(
                "another process of this training has ended; what it said before tells why"
            ) from None
        raise


def _tensorboard(folder: RunFolder) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return False
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder.path, name="tensorboard", version="")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's banners and hints say nothing that a user of this library could act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        yield
