"""Settings of a training that suit its images and the machine: the paper's where they fit."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from vitaepp.data.loading import training_rows
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.nn.vgg import known_weights
from vitaepp.recipe.choices import Choice
from vitaepp.recipe.fields import per_axis
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe, as_settings, resolve
from vitaepp.system.devices import Machine
from vitaepp.system.host import GIB
from vitaepp.system.progress import counted
from vitaepp.system.text import dimensions
from vitaepp.training.footprint import Footprint, step_footprint
from vitaepp.training.settle import updates_per_epoch

#: Patches an image may have, by its spatial axes. In 3D the paper's 96³ in patches of 8³ is 1728;
#: in 2D the usual 224² in patches of 16² is 196, and ViT-B/32's grid of 7 × 7 the coarsest.
PATCHES = {2: (49, 256), 3: (64, 2048)}

#: The paper's batch in 3D; in 2D, where it gives none, that of our recipe for X-rays.
BATCH = {2: 64, 3: 4}

#: Models from the paper's down. Only the last two are trained for fewer epochs than are wanted.
MODELS = ("base", "small", "tiny", "light")

#: Beside a smaller model, VGG-16 would take most of the time in 3D; one slice, drawn anew at each
#: step, still estimates the perceptual loss without bias.
SLICES, FEWER_SLICES = "loss.perceptual.slices", 1

#: Settings that define the model. If the user gives one of them, none of them is proposed.
MODEL_SETTINGS = tuple(
    f"model.{name}" for name in ("size", "embed_dim", "depth", "num_heads", "init")
)

#: A cohort is passed over often enough for so many updates, as far as time allows.
LEAST_UPDATES = 10_000

#: Learning rate for a batch of 16 or more and up to `LEAST_UPDATES`.
LEARNING_RATE, FULL_BATCH = 1e-3, 16

#: Factor of the contrastive loss; see docs/method.md.
CONTRASTIVE_WEIGHT = 0.1

#: Share of a memory that a step may take. The rest is for the process, libraries' workspaces, and
#: on the CPU whatever else the machine does.
MEMORY_SHARE = {"accelerator": 0.85, "cpu": 0.5}

#: Training on a CPU is limited to a night. The speed is assumed and not measured, because the
#: choice must not depend on what else runs on the machine. Today's cores reach more with
#: transformers; see docs/plan.md.
CPU_FLOPS_PER_CORE = 25e9
CPU_SECONDS = 12 * 3600


@dataclass(frozen=True)
class Images:
    """What is trained on.

    Attributes:
        info: shape and spacing of the images.
        trained: how many there are.
        stored: bytes of the whole store in memory.
    """

    info: StoreInfo
    trained: int
    stored: int

    @classmethod
    def of(cls, info: StoreInfo, trained: int, stored: int) -> Images:
        """Of `stored` images that a store holds, `trained` are trained on."""
        return cls(info, trained, stored * prod(info.shape) * np.dtype(info.dtype).itemsize)


@dataclass(frozen=True)
class Fit:
    """One model on this machine: what a step needs, and the batch and epochs that fit.

    Attributes:
        recipe: every setting.
        footprint: what a step needs.
        batch_size: the largest that was wanted and fits.
        enough_memory: whether even the smallest batch fits.
        epochs: of the training.
        seconds: that it takes, as assumed without an accelerator; None with one.
    """

    recipe: Recipe
    footprint: Footprint
    batch_size: int
    enough_memory: bool
    epochs: int
    seconds: float | None


def recipe_for(
    store: Store,
    recipe: Recipe | str | os.PathLike[str] | None,
    settings: str | Sequence[str],
    subjects: Sequence[str] | None,
) -> tuple[Recipe, tuple[Choice, ...]]:
    """The recipe that the user named, with their settings; without one, what suits the store.

    Args:
        store: what is trained on.
        recipe: a recipe, its name, or its file; None to propose one.
        settings: `name=value`, one or several.
        subjects: those that are trained on; all without it.

    Returns:
        The recipe, and the settings that were chosen for the store and this machine.

    Raises:
        RecipeError: settings that are unknown, or do not fit the images or each other.
    """
    settings = as_settings(settings)
    if isinstance(recipe, Recipe):
        return recipe.with_settings(settings), ()
    named = Recipe.load(recipe, settings)
    if recipe is not None:
        return named, ()
    rows = training_rows(store, named.data, subjects)
    images = Images.of(store.info, trained=len(rows), stored=len(store))
    return proposed_recipe(images, Machine.here(), settings)


def proposed_recipe(
    images: Images, machine: Machine, settings: Sequence[str]
) -> tuple[Recipe, tuple[Choice, ...]]:
    """The recipe of a training for which the user gave no more than `name=value` settings.

    Raises:
        RecipeError: settings that are unknown, or do not fit the images or each other.
    """
    recipe = Recipe.load(settings=settings)
    choices = propose_training(images, machine, recipe, names_of(settings))
    return resolve(recipe, {c.name: c.value for c in choices}), choices


def names_of(settings: Sequence[str]) -> set[str]:
    """The names in `name=value` settings."""
    return {setting.partition("=")[0].strip() for setting in settings}


def propose_training(
    images: Images, machine: Machine, recipe: Recipe, given: Collection[str] = ()
) -> tuple[Choice, ...]:
    """Choose what the user did not give: patch, precision, model, batch, epochs, learning rate.

    The paper's settings are kept if they fit the images and the memory and, without an accelerator,
    train within a night. Otherwise the batch is split first (and gradients accumulated), then the
    model is made smaller, then there are fewer epochs.

    Args:
        images: what is trained on.
        machine: what it is trained with.
        recipe: the defaults with what the user gave.
        given: dotted names of the settings that the user gave; none of them is touched.

    Returns:
        What was chosen, each with its reason, in the order of a recipe.

    Raises:
        RecipeError: given settings that do not fit the images or each other.
    """
    choices = []
    if recipe.model.backbone == "vit" and "model.patch_size" not in given:
        patch, why = _patch_size(images.info)
        choices.append(Choice("model.patch_size", list(patch), why))
        recipe = recipe.changed(model={"patch_size": patch})
    if METHODS[recipe.method].masked and "model.mask_ratio" not in given:
        choices.append(_mask_ratio(images.info, recipe))
    if "trainer.precision" not in given:
        precision, why = _precision(machine)
        choices.append(Choice("trainer.precision", precision, why))
        recipe = recipe.changed(trainer={"precision": precision})
    if recipe.optim.updates is not None:
        epochs = math.ceil(recipe.optim.updates / updates_per_epoch(recipe, images.trained))
        recipe = recipe.changed(optim={"epochs": epochs})
        given = {*given, "optim.epochs"}
    names_model = not set(MODEL_SETTINGS).isdisjoint(given)
    if not (names_model and {"optim.batch_size", "optim.epochs"} <= set(given)):
        choices += _model_and_schedule(images, machine, recipe, given)
    contrasts = METHODS[recipe.method].masked and recipe.loss.contrastive.weight
    if contrasts and "loss.contrastive.weight" not in given:
        why = "a tenth of the paper's; short trainings gave no clear difference between it and 0"
        choices.append(Choice("loss.contrastive.weight", CONTRASTIVE_WEIGHT, why))
    if not {"optim.lr", "optim.base_lr"} & set(given):
        whole = resolve(recipe, {choice.name: choice.value for choice in choices})
        choices.append(_learning_rate(images, whole))
    windows = {name for name, _, _ in images.info.window or ()}
    if "views.normalize" not in given and windows >= {*images.info.modalities}:
        why = "all modalities have a window, so that an intensity means the same in every scan"
        choices.append(Choice("views.normalize", "cohort", why))
    return in_order(choices)


def in_order(choices: Iterable[Choice]) -> tuple[Choice, ...]:
    """Choices of a training in the order of a recipe's sections."""
    sections = ("model", "loss", "views", "optim", "trainer")
    return tuple(sorted(choices, key=lambda c: sections.index(c.name.partition(".")[0])))


def _learning_rate(images: Images, recipe: Recipe) -> Choice:
    """An absolute learning rate: the paper's rule gives 1.6e-5 for a batch of four."""
    optim, trainer = recipe.optim, recipe.trainer
    devices = trainer.nodes * (1 if trainer.devices == "auto" else trainer.devices)
    updates = optim.epochs * updates_per_epoch(recipe, images.trained, devices)
    batch = min(optim.batch_size * optim.accumulate * devices, images.trained)
    rate = LEARNING_RATE * min(1.0, batch / FULL_BATCH) ** 0.5
    rate *= min(1.0, LEAST_UPDATES / updates) ** 0.25
    why = f"for {counted(updates, 'update')} of {counted(batch, 'image')}"
    return Choice("optim.lr", float(f"{rate:.2g}"), why)


def _patch_size(info: StoreInfo) -> tuple[tuple[int, ...], str]:
    """A patch size that divides the images and has about the same length in mm on every axis."""
    ndim = info.ndim
    least, most = PATCHES[ndim]
    default = Recipe().model.patch_size[0]
    spacing = np.array(info.spacing or (1.0,) * ndim)
    # Within a factor of two, axes are treated alike, as nnU-Net's pooling does.
    finer = 2.0 ** np.floor(np.log2(spacing / spacing.min() + 1e-9))

    def patch_of(side: int) -> tuple[int, ...]:
        return tuple(max(1, int(side / f)) for f in finer)

    def outside(side: int) -> float:
        patches = prod(n // p for n, p in zip(info.size, patch_of(side), strict=True))
        return max(0.0, math.log(least / patches), math.log(patches / most))

    sides = [
        side
        for side in range(1, 33)
        if all(n % p == 0 for n, p in zip(info.size, patch_of(side), strict=True))
    ]
    # Powers of two where they do, as published models have them; the nearest to the default.
    side = min(sides, key=lambda s: (outside(s), s & (s - 1) != 0, abs(math.log2(s / default))))
    patch = patch_of(side)
    patches = prod(n // p for n, p in zip(info.size, patch, strict=True))
    size = dimensions(info.size)
    reason = f"{patches} patches of {size}, within {least} to {most}"
    if len(set(patch)) > 1:
        reason += (
            f"; longer along the fine axes, as the spacing is {dimensions(info.spacing or ())}"
        )
    return patch, reason


def _mask_ratio(info: StoreInfo, recipe: Recipe) -> Choice:
    patch = per_axis(recipe.model.patch_size, info.ndim, "model.patch_size")
    patches = prod(n // p for n, p in zip(info.size, patch, strict=True))
    ratio = recipe.model.mask_ratio
    visible = int(patches * (1 - ratio))
    return Choice("model.mask_ratio", ratio, f"the paper's; {visible} of {patches} patches visible")


def _precision(machine: Machine) -> tuple[str, str]:
    device = machine.accelerator or "this CPU"
    if machine.bf16:
        return "bf16", f"{device} multiplies bf16 by itself"
    return "32", f"{device} does not multiply bf16 by itself"


def _model_and_schedule(
    images: Images, machine: Machine, recipe: Recipe, given: Collection[str]
) -> list[Choice]:
    tried: list[Fit] = []
    for variant in models_to_try(recipe, given):
        fit = fit_to(images, machine, variant, given)
        tried.append(fit)
        if fit.enough_memory and (_in_time(fit) or _long_enough(fit, images, given)):
            break
    tried[-1] = _with_fewer_epochs(tried[-1], given)
    if "optim.epochs" not in given:
        tried[-1] = _with_enough_updates(tried[-1], images, given)
    fit, paper = tried[-1], tried[0]
    model, optim = fit.recipe.model, fit.recipe.optim
    choices = []
    if not set(MODEL_SETTINGS) & set(given) and model.backbone == "vit":
        why = "the paper's" if fit is paper else _why_smaller(tried, machine)
        choices.append(Choice("model.size", model.size, why))
        choices += slice_choices(images, fit.recipe, recipe)
    if "optim.epochs" not in given:
        why = "the paper's"
        if fit.epochs < optim.epochs:
            why = f"{optim.epochs} would take {_time(fit.seconds or 0.0)}, {_assumed(machine)}"
        elif fit.epochs > optim.epochs:
            each = counted(_updates_each(images, fit.recipe, given), "update")
            why = f"the paper's {optim.epochs} of {each} each would train such a cohort too briefly"
        elif fit.seconds is not None:
            why += f"; {_time(fit.seconds)}, {_assumed(machine)}"
        choices.append(Choice("optim.epochs", fit.epochs, why))
    if "optim.batch_size" not in given:
        choices += _batch_choices(images, fit, machine, given)
    return choices


def slice_choices(images: Images, chosen: Recipe, before: Recipe) -> list[Choice]:
    """Fewer slices for the perceptual loss than before; nothing where that loss is off."""
    now, facts = chosen.loss.perceptual, METHODS[chosen.method]
    is_on = facts.masked and now.weight and known_weights(now.weights) != "none"
    if not is_on or images.info.ndim < 3 or now.slices == before.loss.perceptual.slices:
        return []
    why = f"beside {chosen.model.size}, VGG-16 would take most of the time; still unbiased"
    return [Choice(SLICES, now.slices, why)]


def models_to_try(recipe: Recipe, given: Collection[str]) -> Iterable[Recipe]:
    """The recipe with each model that may be proposed, from the paper's down."""
    if set(MODEL_SETTINGS) & set(given) or recipe.model.backbone != "vit":
        yield recipe
        return
    given_decoder = {
        f"decoder_{name}": getattr(recipe.model, f"decoder_{name}")
        for name in ("embed_dim", "depth", "num_heads")
    }
    for size in MODELS:
        light = size != "base" and SLICES not in given
        loss = {"perceptual": {"slices": FEWER_SLICES}} if light else {}
        yield recipe.changed(model={"size": size, **given_decoder}, loss=loss)


def fit_to(images: Images, machine: Machine, recipe: Recipe, given: Collection[str]) -> Fit:
    """What a recipe's steps need on a machine, with the batch that fits into its memory."""
    info = images.info
    footprint = step_footprint(
        recipe, len(info.modalities), info.size, bf16=recipe.trainer.precision == "bf16"
    )
    batch = _wanted_batch(images, recipe, given)
    least = batch if "optim.batch_size" in given else METHODS[recipe.method].smallest_batch
    budget = _budget(machine, images.stored)
    while batch > least and footprint.memory(batch) > budget:
        batch = max(least, batch // 2)
    seconds = None
    if machine.accelerator is None:
        operations = footprint.flops * images.trained * recipe.optim.epochs
        seconds = operations / (CPU_FLOPS_PER_CORE * machine.cores)
    return Fit(
        recipe, footprint, batch, footprint.memory(batch) <= budget, recipe.optim.epochs, seconds
    )


def _wanted_batch(images: Images, recipe: Recipe, given: Collection[str]) -> int:
    if "optim.batch_size" in given:
        return recipe.optim.batch_size
    least = METHODS[recipe.method].smallest_batch
    return max(least, min(BATCH[images.info.ndim], images.trained))


def _budget(machine: Machine, stored: int) -> float:
    """Bytes that a step may take beside the store, which is held in memory where it fits."""
    if machine.accelerator_memory:
        memory, share = machine.accelerator_memory, MEMORY_SHARE["accelerator"]
    else:
        memory, share = machine.memory, MEMORY_SHARE["cpu"]
    held = stored if 2 * stored < memory else 0
    return share * (memory - held)


def _in_time(fit: Fit) -> bool:
    return fit.seconds is None or fit.seconds <= CPU_SECONDS


def _with_fewer_epochs(fit: Fit, given: Collection[str]) -> Fit:
    if "optim.epochs" in given or _in_time(fit):
        return fit
    epochs = fit.epochs * CPU_SECONDS / (fit.seconds or 1)
    # Two figures are as much as the assumption of a speed allows.
    epochs = max(1, int(float(f"{epochs:.2g}")))
    return replace(fit, epochs=epochs)


def _long_enough(fit: Fit, images: Images, given: Collection[str]) -> bool:
    """Whether one of the two smallest models makes enough updates in the time there is."""
    updates = _with_fewer_epochs(fit, given).epochs * _updates_each(images, fit.recipe, given)
    return fit.recipe.model.size in MODELS[-2:] and updates >= LEAST_UPDATES


def _updates_each(images: Images, recipe: Recipe, given: Collection[str]) -> int:
    """Updates of an epoch, with the batch that is wanted, in as many parts as the machine needs."""
    batch = _wanted_batch(images, recipe, given)
    return updates_per_epoch(recipe.changed(optim={"batch_size": batch}), images.trained)


def _with_enough_updates(fit: Fit, images: Images, given: Collection[str]) -> Fit:
    """More epochs where they would be fewer than `LEAST_UPDATES`, as far as there is time."""
    wanted = math.ceil(LEAST_UPDATES / _updates_each(images, fit.recipe, given))
    if fit.seconds:
        wanted = min(wanted, int(fit.recipe.optim.epochs * CPU_SECONDS / fit.seconds))
    if wanted <= fit.recipe.optim.epochs:
        return fit
    return replace(fit, epochs=int(float(f"{wanted:.2g}")))


def _why_smaller(tried: Sequence[Fit], machine: Machine) -> str:
    """Why the model before the last was not taken."""
    fit = tried[-2]
    name = fit.recipe.model.size
    if not fit.enough_memory:
        return f"{name} needs {_gib(fit)} for a step, too much for {machine}"
    return f"{name} would take {_time(fit.seconds or 0.0)}, {_assumed(machine)}"


def _batch_choices(
    images: Images, fit: Fit, machine: Machine, given: Collection[str]
) -> list[Choice]:
    wanted = _wanted_batch(images, fit.recipe, given)
    usual = "the paper's" if images.info.ndim == 3 else "the usual in 2D"
    if wanted < BATCH[images.info.ndim]:
        usual = f"all {wanted} images"
    step = f"a step takes about {_gib(fit)}"
    choices = []
    if fit.batch_size == wanted:
        why = f"{usual}; {step}"
    else:
        why = f"{step}, more would not fit into {machine}"
    if not fit.enough_memory:
        why = f"{step}, which may be too much for {machine}"
    choices.append(Choice("optim.batch_size", fit.batch_size, why))
    steps = math.ceil(wanted / fit.batch_size)
    if steps > 1 and "optim.accumulate" not in given:
        why = f"so that an update still sees {steps * fit.batch_size} images"
        choices.append(Choice("optim.accumulate", steps, why))
    return choices


def _gib(fit: Fit) -> str:
    return f"{fit.footprint.memory(fit.batch_size) / GIB:.1f} GiB"


def _assumed(machine: Machine) -> str:
    return f"assuming {CPU_FLOPS_PER_CORE / 1e9:.0f} GFLOP/s on each of {machine.cores} cores"


def _time(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.0f} {unit}"
    return "some minutes" if seconds >= 60 else "less than a minute"
