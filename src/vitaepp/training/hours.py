"""Hours: what to train in a given time, by the speed of real steps here, and keeping to it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from vitaepp.data.loading import training_rows
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import RGB, StoreInfo
from vitaepp.errors import RecipeError
from vitaepp.methods import build_method
from vitaepp.recipe.choices import Choice
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe, as_settings, resolve
from vitaepp.system.devices import Machine, chosen_device
from vitaepp.system.host import keep_freed_memory
from vitaepp.system.progress import counted, say
from vitaepp.training import propose
from vitaepp.training.launch import find_cluster
from vitaepp.training.module import Training
from vitaepp.training.pieces import in_pieces
from vitaepp.training.propose import LEAST_UPDATES, MODEL_SETTINGS, SLICES, Images
from vitaepp.training.step import prepare_for_training, timed_steps

#: Seconds of steps that are timed, after those that warm up; at least so many steps.
TIMED, WARM_UP, LEAST_STEPS = 4.0, 2, 3

#: Of a short time, the share that the steps of one recipe are timed for.
MEASURED = 0.02

#: Share of the time for what is not a step: checkpoints, the table of epochs, writing the encoder.
RESERVE = 0.03

#: Images that steps are timed on at most; they are taken again and again.
SAMPLE = 256

#: A larger model is timed where the operations that it needs promise so large a share of the
#: updates that it should make: large matrices are faster than small ones.
PROMISING = 1 / 3

#: The speed is taken over at least so many epochs, and so large a share of all hours or half of the
#: training.
LEAST_EPOCHS, LEAST_SHARE = 3, 0.05

#: Of all hours, by how much a training may end too late or too early before its length changes.
TOLERANCE = 0.08

#: A training that is so far is not made longer: its learning rate is nearly 0.
FAR = 0.8

#: Images per second of a recipe.
Speed = Callable[[Recipe], float]


class Clock:
    """The time that is left.

    Args:
        given: hours in all, from now on.
        share: of them, that may be used here: `hours`.

    Raises:
        RecipeError: not more than none.
    """

    def __init__(self, given: float, share: float = 1.0) -> None:
        if not 0 < given < math.inf:
            raise RecipeError(f"`hours`={given:g}: give more than 0, and an end")
        self.given, self.share, self.hours = given, share, given * share
        self._end = time.monotonic() + 3600 * self.hours

    def __call__(self) -> float:
        """Seconds that are left."""
        return self._end - time.monotonic()

    def __str__(self) -> str:
        return f"{self.hours:g} hours" if self.hours != 1 else "an hour"


def measured_speed(
    source: Store | StoreInfo, rows: Sequence[int] = (), whole: float | None = None
) -> Speed:
    """A function that trains some steps of a recipe and says how fast that was.

    Args:
        source: a store, or only what its images will be like; they are random then.
        rows: of the store, those that are trained on.
        whole: seconds that measuring and training have together; in a short time, fewer steps are
            timed. None where it takes no part of the time.
    """
    timed = TIMED if whole is None else min(TIMED, MEASURED * whole)
    device, info = chosen_device(), source.info if isinstance(source, Store) else source
    keep_freed_memory()
    if isinstance(source, Store):
        every = max(1, len(rows) // SAMPLE)
        taken = list(rows)[::every][:SAMPLE]
        images, present = torch.from_numpy(source.read(taken)), torch.from_numpy(source.present)
    else:
        taken = list(range(16))
        images = 255 * torch.rand(len(taken), *info.shape)
        present = torch.ones(len(taken), len(info.modalities), dtype=torch.bool)

    def speed(recipe: Recipe) -> float:
        views = recipe.views
        if views.normalize == "cohort" and views.cohort is None:  # its values do not cost time
            ones = [1.0] * len(info.modalities)
            recipe = resolve(recipe, {"views.cohort_mean": ones, "views.cohort_std": ones})
        method = build_method(
            recipe, len(info.modalities), info.size, rgb=info.modalities == RGB
        ).to(device)
        prepare_for_training(method, device)
        make = timed_steps(method, present, device)
        size, done, at, start = recipe.optim.batch_size, 0, 0, 0.0
        with in_pieces(method, device):
            for step in range(10**9):
                if step == WARM_UP:
                    start, done = time.perf_counter(), 0
                chosen = [(at + i) % len(taken) for i in range(size)]
                at += size
                make((images[chosen], [taken[i] for i in chosen], 1.0))
                done += size
                elapsed = time.perf_counter() - start
                if step >= WARM_UP + LEAST_STEPS - 1 and elapsed >= timed:
                    break
        method.replays = None  # the next model needs their memory
        return done / elapsed

    return speed


def recipe_in_hours(
    store: Store,
    recipe: Recipe | str | os.PathLike[str] | None,
    settings: str | Sequence[str],
    subjects: Sequence[str] | None,
    clock: Clock,
) -> tuple[Recipe, tuple[Choice, ...]]:
    """The recipe of a training that ends when the time does.

    Args:
        store: what is trained on.
        recipe: a recipe, its name, or its file, of which only the length is set; None to choose
            model and batch, too.
        settings: `name=value`, one or several.
        subjects: those that are trained on; all without it.
        clock: the time.

    Raises:
        RecipeError: a length is given, too, or settings do not fit.
    """
    settings = as_settings(settings)
    given = propose.names_of(settings)
    refuse_two_lengths(given, clock)
    wanted = resolve(recipe, settings)
    refuse_several_processes(wanted, clock)
    rows = training_rows(store, wanted.data, subjects)
    images = Images.of(store.info, trained=len(rows), stored=len(store))
    say(f"measuring the speed of this machine, to train for {clock}")
    speed = measured_speed(store, rows, 3600 * clock.hours)
    if recipe is not None:
        return with_length(wanted, images.trained, clock, speed(wanted))
    return chosen_in_time(images, Machine.here(), wanted, given, clock, speed)


def refuse_several_processes(recipe: Recipe, clock: Clock) -> None:
    """Refuse to measure one process where several will train.

    Raises:
        RecipeError: saying what would be right.
    """
    trainer = recipe.trainer
    if trainer.devices != 1 or trainer.nodes > 1 or find_cluster() is not None:
        raise RecipeError(
            f"`hours`={clock.given:g}: the speed is measured of one process, and several are to "
            "train; set optim.epochs or optim.updates instead"
        )


def refuse_two_lengths(given: Collection[str], clock: Clock) -> None:
    """Refuse a length that is given twice.

    Raises:
        RecipeError: naming the setting.
    """
    for name in ("optim.epochs", "optim.updates"):
        if name in given:
            raise RecipeError(
                f"`hours`={clock.given:g} and {name} both say how long to train; leave one out"
            )


def chosen_in_time(
    images: Images,
    machine: Machine,
    recipe: Recipe,
    given: Collection[str],
    left: Callable[[], float],
    speed: Speed,
) -> tuple[Recipe, tuple[Choice, ...]]:
    """Choose model, batch and length that use a time best.

    That is the largest model that makes `LEAST_UPDATES` in it. Where even the smallest makes fewer,
    its batch is halved, down to `FULL_BATCH`.

    Args:
        images: what is trained on.
        machine: what it is trained with.
        recipe: the defaults with what the user gave.
        given: names of the settings that the user gave; none of them is touched.
        left: seconds that are left.
        speed: of a recipe; it takes time itself.

    Returns:
        The recipe, and what was chosen, each with its reason.
    """
    basis = propose.propose_training(images, machine, recipe, given)
    timed = {*MODEL_SETTINGS, SLICES, "optim.epochs", "optim.batch_size", "optim.accumulate"}
    common = resolve(recipe, {c.name: c.value for c in basis if c.name not in {*timed, "optim.lr"}})
    fits = [
        propose.fit_to(images, machine, model, given)
        for model in propose.models_to_try(common, given)
    ]
    fits = [fit for fit in fits if fit.enough_memory] or fits[-1:]

    def made(changed: Recipe, rate: float) -> int:
        return int(
            max(0.0, left())
            * (1 - RESERVE)
            * rate
            / (changed.optim.batch_size * changed.optim.accumulate)
        )

    chosen, rate, flops, why = None, 0.0, 0.0, ""
    for number, fit in enumerate(reversed(fits)):
        candidate = resolve(fit.recipe, {"optim.batch_size": fit.batch_size})
        if chosen is not None:
            promised = made(chosen, rate) * flops / fit.footprint.flops
            if promised < PROMISING * LEAST_UPDATES:
                break
        measured = speed(candidate)
        updates = made(candidate, measured)
        if chosen is not None and updates < LEAST_UPDATES:
            why = f"; {fit.recipe.model.size} would make {updates:,}"
            break
        chosen, rate, flops = candidate, measured, fit.footprint.flops
        if number == 0 and updates < LEAST_UPDATES:
            break
    assert chosen is not None
    batch = chosen.optim.batch_size
    least = max(propose.FULL_BATCH, METHODS[chosen.method].smallest_batch)
    while made(chosen, rate) < LEAST_UPDATES and batch // 2 >= least:
        if "optim.batch_size" in given:
            break
        batch //= 2
        chosen = resolve(chosen, {"optim.batch_size": batch})
    if batch < fits[-1].batch_size and "optim.batch_size" not in given:
        rate = speed(chosen)  # smaller matrices are slower
    updates = made(chosen, rate)
    why_updates = f"{counted(updates, 'update')} in the time{why}"
    if updates < 1:
        why_updates = (
            "the time is too short to compare sizes" if len(fits) > 1 else "the time is too short"
        )
    choices = []
    if len(fits) > 1 or any(c.name == "model.size" for c in basis):
        choices.append(Choice("model.size", chosen.model.size, why_updates))
    choices += propose.slice_choices(images, chosen, recipe)
    if "optim.batch_size" not in given:
        choices.append(Choice("optim.batch_size", batch, why_updates))
    timed_recipe, (length,) = with_length(chosen, images.trained, left, rate)
    choices.append(length)
    names = {choice.name for choice in choices}
    rest = propose.propose_training(
        images, machine, timed_recipe, {*given, *names, *MODEL_SETTINGS}
    )
    choices += [choice for choice in rest if choice.name not in names]
    return resolve(recipe, {c.name: c.value for c in choices}), propose.in_order(choices)


def with_length(
    recipe: Recipe, images: int, left: Callable[[], float], rate: float
) -> tuple[Recipe, tuple[Choice, ...]]:
    """A recipe that trains for as many epochs as there is time, with the reason.

    Args:
        recipe: every setting.
        images: that are trained on.
        left: seconds that are left.
        rate: images per second.
    """
    seconds, one_pass = left(), images / rate
    epochs = int(seconds * (1 - RESERVE) / one_pass)
    why = f"what the time allows, at {rate:.3g} images per second, measured here"
    if epochs < 1:
        why = (
            f"the least: one pass over {counted(images, 'image')} takes {one_pass / 3600:.2g} "
            "hours, longer than there is time"
        )
        if isinstance(left, Clock):
            least = (left.hours - seconds / 3600) + one_pass / 3600 / (1 - RESERVE)
            why += f"; with measuring, {least:.2g} `hours` are the minimum here"
    changes: dict[str, Any] = {"optim.epochs": max(1, epochs)}
    choice = Choice("optim.epochs", max(1, epochs), why)
    return resolve(recipe, changes), (choice,)


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
        assert isinstance(pl_module, Training)
        # The first epoch of steps that are replayed is slower: they are recorded in it.
        recorded = pl_module.method.replays is not None
        self.length, self._ends = None, [] if recorded else [time.monotonic()]

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
