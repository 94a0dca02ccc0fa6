"""What happens around the steps: the table of epochs, checkpoints, progress."""

from __future__ import annotations

import math
import signal
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from datetime import timedelta
from types import FrameType
from typing import Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback

from vitaepp.data.loading import TrainingLoader
from vitaepp.data.runfolder import RunFolder
from vitaepp.errors import Stopped
from vitaepp.methods import Method
from vitaepp.system.files import atomic_path
from vitaepp.system.progress import SECONDS_BETWEEN_LINES, Bar, open_bar, say
from vitaepp.system.signals import STOPPING, signal_name
from vitaepp.training.module import Training

#: Processes ask each other whether one was signalled to stop, at most once in so many seconds.
SECONDS_BETWEEN_QUESTIONS = 2.0

#: Steps after which the terms of the loss are compared, less where an epoch has fewer.
FIRST_STEPS = 10

#: A warning says when one term is this many times all others together: they change nothing then.
DOMINANT = 100


class Monitor(ABC):
    """Looks at what is trained after each epoch, and leaves it as it is.

    Attributes:
        ended: whether it wants no further epoch.
    """

    ended = False

    def begin(self, method: Method) -> None:
        """Look at it before its first step; most have nothing to see then."""
        self.ended = False

    @abstractmethod
    def scores(
        self, method: Method, epoch: int, seconds: float, first: bool = True, last: bool = False
    ) -> dict[str, float]:
        """Its columns of metrics.csv for an epoch; NaN where there is no score.

        Args:
            method: what is trained.
            epoch: number of the epoch that has ended.
            seconds: how long it took.
            first: whether this is the one process that writes.
            last: whether training ends with it.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what a checkpoint kept."""


class History(Callback):
    """Writes metrics.csv, one row an epoch.

    Args:
        folder: the run.
        monitor: looks at what is trained, has columns of the table, and may end the training.

    Attributes:
        seconds: time of all epochs so far.
        waited: seconds of these in which training waited for data.
    """

    def __init__(self, folder: RunFolder, monitor: Monitor | None = None) -> None:
        self.folder = folder
        self.monitor = monitor
        self.rows: list[dict[str, float]] = []
        self.written = 0.0
        self.seconds = self.waited = 0.0
        self._started = self._waited_before = 0.0
        self._of_epoch = (0.0, 0.0)

    @property
    def waiting(self) -> float:
        """Share of all epochs' time that training waited for data."""
        return self.waited / self.seconds if self.seconds else 0.0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint in the middle of an epoch keeps of its clocks."""
        clocks = {"of_epoch": list(self._clocks()), "seconds": self.seconds, "waited": self.waited}
        return clocks | ({} if self.monitor is None else {"monitor": self.monitor.state_dict()})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the clocks to what the checkpoint kept."""
        seconds, waited = state_dict["of_epoch"]
        self._of_epoch = (seconds, waited)
        self.seconds, self.waited = state_dict["seconds"], state_dict["waited"]
        if self.monitor is not None and "monitor" in state_dict:
            self.monitor.load_state_dict(state_dict["monitor"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the rows that a resumed run had written before its checkpoint."""
        loader = trainer.train_dataloader
        assert isinstance(loader, TrainingLoader)
        self._loader = loader
        self._start_clocks()
        if trainer.ckpt_path is not None and self.folder.metrics_file.is_file():
            try:
                rows = pd.read_csv(self.folder.metrics_file).to_dict("records")
            except (pd.errors.EmptyDataError, pd.errors.ParserError):
                rows = []  # somebody has changed the file, as it is written whole or not at all
            self.rows = [
                {str(k): v for k, v in row.items()}
                for row in rows
                if row["step"] <= trainer.global_step
            ]
        if self.monitor is not None:
            if trainer.global_step == 0 and trainer.is_global_zero:
                assert isinstance(pl_module, Training)
                self.monitor.begin(pl_module.method)
            self._end_if_asked(trainer)

    def _end_if_asked(self, trainer: L.Trainer) -> None:
        """End the training of all processes after this epoch if the first one's monitor says so."""
        if self.monitor is not None and trainer.strategy.broadcast(self.monitor.ended):
            trainer.should_stop = True

    def _start_clocks(self) -> None:
        self._started, self._waited_before = time.monotonic(), self._loader.waited

    def _clocks(self) -> tuple[float, float]:
        """Seconds of this epoch, and of these waited for data."""
        seconds, waited = self._of_epoch
        if self._started:
            seconds += time.monotonic() - self._started
            waited += self._loader.waited - self._waited_before
        return seconds, waited

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the epoch's row."""
        assert isinstance(pl_module, Training)
        means = pl_module.epoch_means()
        seconds, waited = self._clocks()
        self._of_epoch = (0.0, 0.0)
        if self.monitor is not None:
            means |= self.monitor.scores(
                pl_module.method,
                trainer.current_epoch,
                seconds,
                trainer.is_global_zero,
                trainer.current_epoch + 1 >= pl_module.recipe.optim.epochs,
            )
            self._end_if_asked(trainer)
        self._start_clocks()
        self.seconds, self.waited = self.seconds + seconds, self.waited + waited
        row = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(seconds, 4),
            "waiting": round(waited / seconds, 4),
            **means,
        }
        self.rows.append(row)
        if trainer.logger is not None:
            defined = {name: value for name, value in means.items() if not math.isnan(value)}
            trainer.logger.log_metrics(defined, step=trainer.current_epoch)
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

    def on_exception(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Write what is left, if the disk is not what failed."""
        with suppress(OSError):
            self.write(trainer)


class Checkpoints(Callback):
    """Saves last.ckpt after an update, at most as often as the recipe says, and before a stop.

    The signals in `STOPPING` end the training after the update at hand; of several processes, some
    seconds later, after the update at which they next ask each other.

    Args:
        folder: the run.
        history: written first, so that no checkpoint is ahead of it.
    """

    def __init__(self, folder: RunFolder, history: History) -> None:
        self.folder = folder
        self.history = history
        self.saved = time.monotonic()
        self.signal: int | None = None
        self.signalled = 0.0
        self.last_question = time.monotonic()
        self.to_skip = self.skipped = 0
        self.first = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over; Lightning gives them back after the training.

        Lightning's own handlers write to the disk or to the other processes from within, in the
        middle of whatever is being done, and let the epoch end before the training stops.
        """
        self.last_question = time.monotonic()
        self.first = trainer.is_global_zero
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        # A terminal's Ctrl-C may come twice at once: to each process, and from the one above it.
        if number == signal.SIGINT and self.signal is not None and now - self.signalled > 1:
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal, self.signalled = number, now
            if self.first:
                again = "; Ctrl-C again stops at once, without" if number == signal.SIGINT else ""
                say(f"{signal_name(number)}: saving after the step at hand, then stopping{again}")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save if it is time; the last of an epoch waits until its row is in the table."""
        updated = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if updated and not trainer.is_last_batch:
            self._save_if_due(trainer, pl_module, last=False)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if it is time, or the last epoch."""
        assert isinstance(pl_module, Training)
        last = trainer.current_epoch + 1 >= pl_module.recipe.optim.epochs
        self._save_if_due(trainer, pl_module, last=last or trainer.should_stop)

    def _save_if_due(self, trainer: L.Trainer, pl_module: L.LightningModule, last: bool) -> None:
        assert isinstance(pl_module, Training)
        every = pl_module.recipe.trainer.checkpoint_every
        stop, due = self.signal is not None, time.monotonic() - self.saved >= every
        if trainer.world_size > 1 and not last:
            stop, due = self._agree(trainer, stop, due, every)
        if stop or due or last:
            pl_module.check_weights()
            self.history.write(trainer)
            trainer.save_checkpoint(self.folder.checkpoint)
            self.saved = time.monotonic()
        if stop and not last:
            asker = "a signal" if self.signal is None else signal_name(self.signal)
            raise Stopped(
                f"stopped after step {trainer.global_step} of "
                f"{int(trainer.estimated_stepping_batches)}, as asked by {asker}; all is saved, "
                "go on with `resume=True`"
            )

    def _agree(self, trainer: L.Trainer, stop: bool, due: bool, every: float) -> tuple[bool, bool]:
        """Whether any of the processes wants to stop or to save, so that all of them do.

        A collective operation is needed to find out, so most updates skip it. How many are skipped
        follows from how long the last updates took, and is also the same for all processes.
        """
        if self.skipped < self.to_skip:
            self.skipped += 1
            return False, False
        took = (time.monotonic() - self.last_question) / (self.skipped + 1)
        own = torch.tensor([stop, due, took], dtype=torch.float32)
        joint = trainer.strategy.reduce(own.to(trainer.strategy.root_device), reduce_op="sum")
        stops, dues, seconds = joint.tolist()
        between = min(SECONDS_BETWEEN_QUESTIONS, every)
        self.to_skip = int(between * trainer.world_size / max(seconds, 1e-6))
        self.skipped, self.last_question = 0, time.monotonic()
        return stops > 0, dues > 0


class LossBalance(Callback):
    """Says, once after the first steps, that one term of the loss is nearly all of it."""

    def __init__(self) -> None:
        self.looked = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A resumed training has had the warning when it began."""
        self.looked = trainer.global_step > 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Look once only, because reading the values waits for the device."""
        if self.looked or not (trainer.global_step >= FIRST_STEPS or trainer.is_last_batch):
            return
        self.looked = True
        assert isinstance(pl_module, Training)
        if trainer.is_global_zero and (message := dominant_term(pl_module)):
            say(message)


def dominant_term(training: Training) -> str:
    """A warning that one term is `DOMINANT` times all others together; empty if none is."""
    terms = {name: abs(value) for name, value in training.weighted_terms().items()}
    if len(terms) < 2:
        return ""
    name = max(terms, key=terms.__getitem__)
    others = sum(terms.values()) - terms[name]
    if terms[name] < DOMINANT * others:
        return ""
    weight = getattr(training.recipe.loss, name).weight
    equal = float(f"{weight * others / terms[name]:.1g}")
    message = (
        f"the {name} loss is {terms[name]:.4g} of {terms[name] + others:.4g} in the first steps, "
        f"so that the others hardly count; set loss.{name}.weight={equal:g} instead of "
        f"{weight:g} to make it as large as all of them together"
    )
    if name == "perceptual":
        message += ", or loss.perceptual.weights to a VGG whose features have the usual scale"
    return message


class TrainingProgress(Callback):
    """A bar over the whole training on a terminal and in a notebook, plain lines in a log.

    Args:
        history: has the loss.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.bar: Bar | None = None
        self.started = self.last = 0.0
        self.first_epoch = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar."""
        self.started = self.last = time.monotonic()
        self.first_epoch = trainer.current_epoch
        if trainer.is_global_zero:
            self.bar = open_bar("training", int(trainer.estimated_stepping_batches))

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.move(trainer.global_step)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the epoch and the time left, about every ten seconds."""
        assert isinstance(pl_module, Training)
        done, total = trainer.current_epoch + 1, pl_module.recipe.optim.epochs
        text = f"epoch {done} of {total}, loss {self.history.rows[-1]['loss']:.4g}"
        now = time.monotonic()
        if self.bar is not None:
            self.bar.move(trainer.global_step, text)
        elif trainer.is_global_zero and (
            now - self.last >= SECONDS_BETWEEN_LINES or done in (self.first_epoch + 1, total)
        ):
            left = (now - self.started) / (done - self.first_epoch) * (total - done)
            say(f"{text}, about {timedelta(seconds=round(left))} left" if done < total else text)
            self.last = now

    def on_fit_end(self, *_: Any, **__: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()

    on_exception = on_fit_end
