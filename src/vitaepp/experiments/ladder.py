"""Is pre-training worth it for a cohort? One rung for each way to answer, in identical folds.

    OUT/
      ladder.json, .md, .csv, .png    the answer
      rungs/LABEL/KEY/                the evaluation of each rung on frozen features
      runs/VARIANT/seed0/             the trainings, shared with `vitaepp experiment` in OUT
      finetuned/LABEL/                fine-tuning, beside the same network from scratch

What is finished is not made again, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitaepp.data.store import Store
from vitaepp.downstream.finetune import tuned_recipe
from vitaepp.errors import EvaluationError, RecipeError, TrainingError, nearest, one_line
from vitaepp.evaluation.budget import ALL, Budget, checked_budget, parse_budget
from vitaepp.evaluation.folds import FOLDS, Shared, by_subject, share_out
from vitaepp.evaluation.tasks import read_target
from vitaepp.evaluation.tasks.base import Target
from vitaepp.experiments.catalogue import EXPERIMENTS, Experiment
from vitaepp.experiments.climber import RUNGS, Climber
from vitaepp.experiments.experiment import base_recipe
from vitaepp.experiments.hours import in_hours
from vitaepp.experiments.rungs import FILES, Ladder, Rung
from vitaepp.experiments.runs import Setup
from vitaepp.recipe.recipe import as_settings, changed_settings
from vitaepp.system.devices import Machine
from vitaepp.system.extras import require
from vitaepp.system.progress import say
from vitaepp.training.hours import Clock

#: Numbers of labels, unless others are asked for; those that the cohort does not have are left out.
BUDGET: tuple[Budget, ...] = (10, 20, 50, 100, 200, 500, ALL)

#: Of given hours, the share of the pre-trainings; the rest is for fine-tuning.
PRETRAINING = 0.7


def ladder(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    label: str,
    *,
    budget: Sequence[Budget] | str | None = None,
    task: str = "classification",
    protocol: str | None = None,
    recipe: str | os.PathLike[str] | None = None,
    settings: str | Sequence[str] = (),
    hours: float | None = None,
    public: str | os.PathLike[str] | None = None,
    rungs: Sequence[str] | None = None,
    folds: int = FOLDS,
    seed: int = 0,
) -> Ladder:
    """Measure every way to predict a label, from guessing to fine-tuning, and recommend one.

    All rungs go through the same folds. Each is compared with the rung below, by the test of
    `compare`, corrected for their number. The recommendation is the lowest rung that no higher one
    is shown to be better than.

    Args:
        store: prepared store.
        out: folder; trainings in it are shared with `experiment`.
        label: column to predict.
        budget: numbers of labels to fit on, as in `evaluate`; unset, 10 to 500 and `all`, as far as
            the cohort goes.
        task: `classification` or `regression`.
        protocol: as in `evaluate`.
        recipe: of the pre-trainings.
        settings: changes to it; those of `finetune.*` are for fine-tuning.
        hours: the time for pre-training and fine-tuning; unset, the recipe's own length.
        public: folder of a published 2D encoder, as in `embed_public`.
        rungs: keys of those to climb; unset, all.
        folds: of cross-validation.
        seed: draws the folds.

    Raises:
        EvaluationError, RecipeError, StoreError, RunError: label, settings or folder do not allow
            it; nothing has been trained then.
    """
    require("matplotlib", "report", "a ladder needs")
    for key in rungs or ():
        if key not in RUNGS:
            raise RecipeError(f"no rung {key!r}; {nearest(key, RUNGS)}")
    if task not in ("classification", "regression"):
        raise EvaluationError(f"a ladder is of classification or regression, not of {task}")
    opened, folder = Store(store), Path(out)
    FILES.check(folder)
    ordered = by_subject(opened.table)
    target = read_target(ordered, label, task)
    shared = share_out(target, ordered, protocol=protocol, folds=folds, seed=seed)
    sizes = _sizes(budget, target, shared)
    wanted = [key for key in RUNGS if rungs is None or key in rungs]
    if len(wanted) < 2:
        raise EvaluationError(f"a ladder needs two rungs, but there is {len(wanted)}; name more")
    changes = as_settings(settings)
    tuned = [s for s in changes if s.startswith("finetune.")]
    pretrained = [s for s in changes if s not in tuned]

    tuning = {"scratch", "finetuned"} & set(wanted)
    trainings = [k for k in ("vitae", "vitae++") if k in wanted or (k == "vitae++" and tuning)]
    if "untrained" in wanted and not trainings:
        trainings = ["vitae++"]
    before = base_recipe(None, recipe, pretrained)
    chosen = EXPERIMENTS["linear-probe"].choose(trainings or None)
    titles = {variant.key: variant.title(before) for variant in chosen.variants}
    climber = Climber(
        opened, ordered, folder, label, task, protocol, folds, seed, sizes, target, shared, titles
    )
    # Whatever does not fit is refused before anything is trained or measured.
    if "public" in wanted and public is not None:
        climber.check_public(public)
    for_tuning = None if hours is None else hours * (1 - PRETRAINING)
    if tuning:
        tuned_recipe(before, task, tuned)
    setup = Setup(opened, folder, before, "", None, False)
    if trainings:
        # Those of a ladder whose rungs needed no training, which FILES.check has looked at.
        setup.claim({"rungs", *FILES.signs, *FILES.unsigned})
        if hours is not None:
            clock = Clock(hours, PRETRAINING if tuning else 1.0)
            setup = in_hours(chosen, setup, clock, recipe, pretrained)
        setup.check(chosen.variants)
    if tuning:
        climber.check_tuning(setup.recipe_of(chosen.variants[-1], 0), tuned, for_tuning)
    left_out = _pretrain(setup, chosen) if trainings else {}
    trained = [key for key in trainings if key not in left_out]
    frozen = [key for key in wanted if key not in tuning and key not in left_out]
    measured = {key: climber.frozen(key, trained, public) for key in frozen}
    left_out |= {key: why for key, why in measured.items() if isinstance(why, str)}
    climbed = {key: rung for key, rung in measured.items() if isinstance(rung, Rung)}
    if tuning and "vitae++" not in left_out:
        climbed |= climber.tuned(tuned, for_tuning)
    reached = tuple(climbed[key] for key in wanted if key in climbed)
    if len(reached) < 2:
        raise EvaluationError(f"a ladder needs two rungs, but there is {len(reached)}; name more")
    given = _words(
        {
            "label": label,
            "task": task if task != "classification" else None,
            "budget": None if budget is None else ",".join(map(str, sizes)),
            "protocol": protocol,
            "recipe": None if recipe is None else Path(recipe).name,
            "hours": None if hours is None else f"{hours:g}",
            "public": None if public is None else Path(public).name,
            "rungs": None if rungs is None else ",".join(rungs),
            "folds": folds if folds != FOLDS else None,
            "seed": seed or None,
        },
        changes,
    )
    facts: dict[str, Any] = {
        "command": " ".join([f"vitaepp ladder {opened.name} OUT", *given]),
        "label": label,
        "task": task,
        "n": int(reached[0].evaluation["n"]),
        "folds": len(shared.folds),
        "store": opened.name,
        "protocol": shared.protocol,
        "seed": seed,
        "hours": hours,
        "machine": str(Machine.here()),
    }
    if trainings:
        facts["settings"] = changed_settings(setup.recipe)
    if {"scratch", "finetuned"} & climbed.keys():
        facts |= {"settings of fine-tuning": tuned, "epochs of fine-tuning": climber.lengths()}
    made = Ladder(reached, left_out, facts)
    made.save(folder)
    return made


def _sizes(budget: Sequence[Budget] | str | None, target: Target, shared: Shared) -> list[Budget]:
    """Numbers of labels to fit on: those asked for, or the usual ones that the cohort has."""
    if isinstance(budget, str):
        sizes = [*parse_budget(budget)]
    elif budget is not None:
        sizes = [*budget]
    else:
        least = max(10, 2 * len(np.unique(target.strata)))
        most = min(len(part.train) for part in shared.folds)
        sizes = [b for b in BUDGET if b == ALL or (isinstance(b, int) and least <= b <= most)]
    checked_budget(sizes, target, shared.folds)
    return sizes


def _words(options: Mapping[str, Any], changes: Sequence[str]) -> list[str]:
    """The options of a command as one would type them, without those that were not given."""
    given = [f"--{name} {value}" for name, value in options.items() if value is not None]
    return given + [f"--set {setting}" for setting in changes]


def _pretrain(setup: Setup, chosen: Experiment) -> dict[str, str]:
    """Train the encoders where that is not done yet; why one could not be trained, by its key."""
    failed = {}
    for variant in chosen.variants:
        say(f"\n{variant.title(setup.recipe)}")
        try:
            setup.trained(variant, 0)
        except TrainingError as error:
            failed[variant.key] = one_line(error)
    return failed
