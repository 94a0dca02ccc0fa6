"""What happens around the steps: the table of epochs, checkpoints, progress."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

import lightning as L
import pandas as pd
from lightning.pytorch.callbacks import Callback

from vitaepp.files import atomic_path
from vitaepp.progress import SECONDS_BETWEEN_LINES, say
from vitaepp.runfolder import RunFolder
from vitaepp.training.checkpoints import load_checkpoint
from vitaepp.training.module import Training


class History(Callback):
    """Writes metrics.csv, one row an epoch.

    Args:
        folder: the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self.written = 0.0
        self.epoch_started = 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep what a resumed run had written before its checkpoint."""
        if trainer.ckpt_path is not None and self.folder.metrics_file.is_file():
            rows = pd.read_csv(self.folder.metrics_file).to_dict("records")
            done = int(load_checkpoint(self.folder.checkpoint)["epoch"])
            self.rows = [
                {str(k): v for k, v in row.items()} for row in rows if row["epoch"] <= done
            ]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self.epoch_started = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the epoch's row."""
        assert isinstance(pl_module, Training)
        means = pl_module.epoch_means()
        row = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.monotonic() - self.epoch_started, 4),
            **means,
        }
        self.rows.append(row)
        if trainer.logger is not None:
            trainer.logger.log_metrics(means, step=trainer.current_epoch)
        # Rewriting a long table after every short epoch would cost more than the epoch.
        if time.monotonic() - self.written > 5:
            self.write(trainer)

    def write(self, trainer: L.Trainer) -> None:
        """Write the table as it is now."""
        if trainer.is_global_zero and self.rows:
            with atomic_path(self.folder.metrics_file) as temporary:
                pd.DataFrame(self.rows).to_csv(temporary, index=False)
            self.written = time.monotonic()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what is left."""
        self.write(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Write what is left."""
        self.write(trainer)


class Checkpoints(Callback):
    """Saves last.ckpt at the end of an epoch, not oftener than the recipe says.

    Args:
        folder: the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.saved = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if it is time, or the last epoch."""
        assert isinstance(pl_module, Training)
        recipe = pl_module.recipe
        last = trainer.current_epoch + 1 >= recipe.optim.epochs
        due = last or time.monotonic() - self.saved >= recipe.trainer.checkpoint_every
        if trainer.strategy.broadcast(due):
            history = next(c for c in trainer.callbacks if isinstance(c, History))  # type: ignore[attr-defined]
            history.write(trainer)
            trainer.save_checkpoint(self.folder.checkpoint)
            self.saved = time.monotonic()


class TrainingProgress(Callback):
    """A bar over the whole training on a terminal, plain lines in a log."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.started = self.last = 0.0
        self.first_epoch = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar."""
        self.started = self.last = time.monotonic()
        self.first_epoch = trainer.current_epoch
        if sys.stderr.isatty() and trainer.is_global_zero:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.bar.start()
            self.task = self.bar.add_task("training", total=int(trainer.estimated_stepping_batches))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(self.task, completed=trainer.global_step)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how far it is, about every ten seconds."""
        assert isinstance(pl_module, Training)
        done, total = trainer.current_epoch + 1, pl_module.recipe.optim.epochs
        history = next(c for c in trainer.callbacks if isinstance(c, History))  # type: ignore[attr-defined]
        text = f"epoch {done} of {total}, loss {history.rows[-1]['loss']:.4g}"
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(self.task, description=text)
        elif trainer.is_global_zero and (
            now - self.last >= SECONDS_BETWEEN_LINES or done in (self.first_epoch + 1, total)
        ):
            left = (now - self.started) / (done - self.first_epoch) * (total - done)
            say(f"{text}, about {timedelta(seconds=round(left))} left" if done < total else text)
            self.last = now

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar."""
        self.on_fit_end(trainer, pl_module)
