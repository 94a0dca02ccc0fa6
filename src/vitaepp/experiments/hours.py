"""Hours of an experiment: one length for all rows, so that the whole table is done in time."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vitaepp.data.loading import training_rows
from vitaepp.errors import RunError
from vitaepp.evaluation.folds import plan_folds
from vitaepp.experiments.catalogue import Experiment
from vitaepp.experiments.runs import Setup
from vitaepp.recipe.recipe import Recipe, flatten, resolve
from vitaepp.system.devices import Machine
from vitaepp.system.files import read_json, write_json
from vitaepp.system.progress import counted, say
from vitaepp.system.text import first_few
from vitaepp.training import hours
from vitaepp.training.hours import Clock, Speed
from vitaepp.training.propose import Images, names_of, propose_training
from vitaepp.training.threads import free_threads

#: Share of the time for what is no training and no embedding: classifiers, tables, figures.
RESERVE = 0.07

#: Embedding a store, with its untrained control, takes as long as training on it so often.
EMBEDDING = 3.0


def in_hours(
    experiment: Experiment,
    setup: Setup,
    clock: Clock,
    recipe: str | os.PathLike[str] | None,
    settings: Sequence[str],
    base: Mapping[str, Any] | None = None,
) -> Setup:
    """A setup whose recipe is done in time; once found, the folder keeps it.

    Where the user named no recipe, model and batch are chosen, too. Hours and settings must be the
    same when the experiment goes on. Rows and seeds may be added, and the share may be another; the
    length stays, and a line says what it was found for.

    Args:
        experiment: whose variants are trained.
        setup: with the recipe before its length is set; its folder is claimed.
        clock: the time that the user gave, and the share of it for these trainings.
        recipe: that the user named.
        settings: that the user gave.
        base: settings of all variants, of a file of variants.

    Raises:
        RecipeError: a length is given twice.
        RunError: the folder holds runs of another length.
    """
    file = setup.out / "hours.json"
    request = {"hours": clock.given, "recipe": setup.recipe.model_dump(mode="json")}
    each = f"{counted(trainings_of(setup), 'training')} of each row"
    rows_now, share = [variant.key for variant in experiment.variants], clock.share
    now = {"rows": rows_now, "trainings": each, "share": share}
    if file.is_file():
        kept = read_json(file)
        if kept["asked"] != request:
            raise RunError(
                f"{setup.out}: began with {_unlike(kept['asked'], request)}; repeat the command as "
                "it was, or choose another folder"
            )
        known, before = Recipe.parse(kept["recipe"]), kept["for"]
        share_before = before.get("share", 1.0)
        if {*rows_now} - {*before["rows"]} or each != before["trainings"] or share != share_before:
            of = f" in {share_before:.0%} of the time" if share != share_before else ""
            say(
                f"optim.epochs={known.optim.epochs} was found for "
                f"{counted(len(before['rows']), 'row')} and {before['trainings']}{of}, and "
                "stays, however many there are now; the whole takes more or less time than asked"
            )
        return replace(setup, recipe=known)
    if any((setup.out / name).exists() for name in ("runs", "folds")):
        raise RunError(f"{setup.out}: holds runs without `hours`; choose another folder")
    for variant in experiment.variants:  # all rows train equally long
        if isinstance(variant.settings, Mapping):
            hours.refuse_two_lengths(flatten(variant.settings), clock)
    say(f"measuring the speed of this machine, to make the whole table in {clock}")
    with free_threads():
        store = setup.store
        rows = training_rows(store, setup.recipe.data)
        speed = hours.measured_speed(store, rows)
        images = Images.of(store.info, trained=len(rows), stored=len(store))
        given = {*names_of(settings), *flatten(base or {})}
        timed, reasons = timed_recipe(
            experiment, setup, images, Machine.here(), given, clock, speed, choose=recipe is None
        )
    for reason in reasons:
        say(reason)
    write_json(file, {"asked": request, "for": now, "recipe": timed.model_dump(mode="json")})
    return replace(setup, recipe=timed)


def _unlike(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What an experiment began with, where that is not what is asked now."""
    one, other = ({"hours": v["hours"], **flatten(v["recipe"])} for v in (before, now))
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return first_few([f"{name}={one.get(name)} instead of {other.get(name)}" for name in names])


def trainings_of(setup: Setup) -> int:
    """How often each row is trained."""
    if not setup.per_fold:
        return setup.seeds
    return setup.seeds * len(plan_folds(setup.store.table, setup.label, setup.protocol))


def timed_recipe(
    experiment: Experiment,
    setup: Setup,
    images: Images,
    machine: Machine,
    given: Collection[str],
    left: Clock,
    speed: Speed,
    choose: bool,
) -> tuple[Recipe, list[str]]:
    """The recipe of all rows with the length that the time allows, and reasons.

    Args:
        experiment: whose variants are trained.
        setup: on what, how often.
        images: what is trained on.
        machine: what it is trained with.
        given: names of the settings that the user gave.
        left: seconds that are left.
        speed: of a recipe.
        choose: choose model and batch, too.
    """
    hours.refuse_two_lengths(given, left)
    hours.refuse_several_processes(setup.recipe, left)
    recipe, choices = setup.recipe, []
    trainings, trained = trainings_of(setup), images.trained
    if setup.per_fold:
        folds = trainings // setup.seeds
        trained = trained * (folds - 1) // folds
    if choose:
        runs = trainings * len(experiment.variants)
        recipe, proposed = hours.chosen_in_time(
            images, machine, recipe, given, lambda: left() * (1 - RESERVE) / runs, speed
        )
        choices += [c for c in proposed if c.name not in ("optim.epochs", "optim.lr")]
    rates = [speed(variant.recipe(recipe)) for variant in experiment.variants]
    seconds = left() * (1 - RESERVE)
    embedding = sum(trainings * EMBEDDING * len(setup.store) / rate for rate in rates)
    epoch = sum(trainings * trained / rate for rate in rates)
    epochs = max(1, int((seconds - embedding) / epoch))
    recipe = resolve(recipe, {"optim.epochs": epochs})
    if choose and not {"optim.lr", "optim.base_lr"} & set(given):
        names = {*given, *(c.name for c in choices), "optim.epochs", "optim.batch_size"}
        more = propose_training(images, machine, recipe, names)
        rate = [c for c in more if c.name == "optim.lr"]
        recipe = resolve(recipe, {c.name: c.value for c in rate})
        choices += rate
    reasons = [f"{choice}: {choice.reason}" for choice in choices]
    runs = trainings * len(rates)
    reasons.append(
        f"optim.epochs={epochs}: what the time allows for {counted(runs, 'training')}, at "
        f"{min(rates):.3g} to {max(rates):.3g} images per second, measured here"
    )
    return recipe, reasons
