"""Keep a training in its hours: another length where the speed of the machine changes."""

from __future__ import annotations

import time

import lightning as L
from lightning.pytorch.callbacks import Callback

from vitaepp.system.progress import say
from vitaepp.training.hours import RESERVE, Clock
from vitaepp.training.module import Training

#: The speed is taken over at least so many epochs, and so large a share of all hours or half of the
#: training.
LEAST_EPOCHS, LEAST_SHARE = 3, 0.05

#: Of all hours, by how much a training may end too late or too early before its length changes.
TOLERANCE = 0.08

#: A training that is so far is not made longer: its learning rate is nearly 0.
FAR = 0.8


class Pace(Callback):
    """Ends a training after an epoch, if its length does not fit the time that is left.

    Args:
        clock: the time that is left.

    Attributes:
        length: epochs with which the training should go on; None while its length fits.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.length: int | None = None
        self._ends: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the speed from here on."""
        self.length, self._ends = None, [time.monotonic()]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare what is left of the training with what is left of the time."""
        assert isinstance(pl_module, Training)
        self._ends.append(time.monotonic())
        done, total = trainer.current_epoch + 1, pl_module.recipe.optim.epochs
        whole = 3600 * self.clock.hours
        epochs, seconds = len(self._ends) - 1, self._ends[-1] - self._ends[0]
        early = seconds < LEAST_SHARE * whole and done < total / 2
        if done >= total or epochs < LEAST_EPOCHS or early:
            return
        left = self.clock() * (1 - RESERVE)
        each = seconds / epochs
        late = (total - done) * each - left
        length = done + max(1, int(left / each))
        too_far = length > total and done / total > FAR
        if abs(late) <= TOLERANCE * whole or length == total or too_far:
            self._ends = self._ends[-epochs // 2 - 1 :]  # the speed of late is what counts
            return
        self.length = length
        trainer.should_stop = True
        say(
            f"the machine is {'slower' if late > 0 else 'faster'} than it was measured to be: "
            f"{each:.3g} s an epoch"
        )
