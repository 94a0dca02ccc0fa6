"""What is fine-tuned in which folds, and its trainings; what is done is not done again."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.arrays import Indices
from vitaepp.data.participants import persons_of
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.splits import canonical_splits
from vitaepp.data.store import Store
from vitaepp.downstream.fold import TRAIN_FOLD, Job, Task, predictions_file, train_fold
from vitaepp.errors import EvaluationError, RecipeError
from vitaepp.evaluation.budget import nested_order
from vitaepp.evaluation.choice import HELD_OUT, hold_out
from vitaepp.evaluation.folds import Fold, require_apart
from vitaepp.recipe.effect import tuned_by
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.files import make_folder, read_json
from vitaepp.system.progress import counted, say
from vitaepp.system.signals import repeatable
from vitaepp.training.launch import devices_per_node, train_in_processes
from vitaepp.training.settle import updates_per_epoch

#: Where a training starts from, and how messages say it.
STARTS = {"pretrained": "fine-tuned", "scratch": "from scratch"}

#: What the control from random weights is.
SCRATCH = "the same network, trained from scratch"


@dataclass(frozen=True)
class Base:
    """What every fine-tuning has.

    Attributes:
        run: of the pre-training.
        store: prepared store.
        out: folder of the results.
        recipe: every setting.
        folds: of cross-validation.
        seed: draws the folds and the held-out parts.
    """

    run: RunFolder
    store: Store
    out: Path
    recipe: Recipe
    folds: int
    seed: int


@dataclass(frozen=True)
class Tuning(Base):
    """What is fine-tuned, on what, in which folds.

    Attributes:
        task: what is learned.
        table: rows of the store that have a label or a mask.
        targets: `(row,)`, the class from 0 or the value of each; zeros for masks.
        classes: number of classes, or of labels with the background; 1 for a value.
        parts: the folds, as positions in the table.

    Raises:
        RecipeError: to train on more subjects than a training part has, or on fewer than two of
            each class.
    """

    task: Task
    table: pd.DataFrame
    targets: npt.NDArray[Any]
    classes: int
    parts: Sequence[Fold]

    def __post_init__(self) -> None:
        if (drawn := self.recipe.finetune.subjects) is None:
            return
        if drawn > (least := min(len(part.train) for part in self.parts)):
            raise RecipeError(
                f"finetune.subjects={drawn}: a training part has {counted(least, 'subject')}; ask "
                "for fewer, or leave it out to train on all"
            )
        if self.task == "classification" and drawn < 2 * self.classes:
            raise RecipeError(
                f"finetune.subjects={drawn}: {self.classes} classes need {2 * self.classes} "
                "subjects, two of each, one of which is held out; ask for more"
            )

    @classmethod
    def of(cls, base: Base, **facts: Any) -> Tuning:
        """What every fine-tuning has, with what this one has."""
        return cls(**{f.name: getattr(base, f.name) for f in fields(base)}, **facts)

    @property
    def subjects(self) -> npt.NDArray[Any]:
        """Their names, in the order of the table."""
        return self.table["subject"].to_numpy()

    def folder(self, k: int, start: str) -> RunFolder:
        """Where a training is."""
        return RunFolder(self.out / "folds" / f"fold{k}" / start, must_exist=False)

    def predictions(self, k: int, start: str) -> npt.NDArray[Any]:
        """What a fold's test subjects are predicted to be; it is trained where it was not yet."""
        fold = "" if len(self.parts) == 1 else f"fold {k + 1} of {len(self.parts)}, "
        return self._trained(self.folder(k, start), self.job(k), start, fold)

    def kept(self) -> RunFolder:
        """A training on all labelled subjects, with its encoder and its head."""
        folder = RunFolder(self.out / "folds" / "all", must_exist=False)
        every = np.arange(len(self.table))
        job = replace(self._job(Fold(every, every[:1]), len(self.parts)), keep=True)
        self._trained(folder, job, "pretrained", "all labelled subjects, ")
        return folder

    def _trained(self, folder: RunFolder, job: Job, start: str, title: str) -> npt.NDArray[Any]:
        """The predictions of a training, which is made or ended where it was not yet."""
        if not predictions_file(folder).is_file():
            subjects = f"{counted(len(job.fit), 'subject')}, and {len(job.held)} held out"
            say(f"{title}{STARTS[start]}: {subjects}")
            make_folder(folder.path)
            job.save(folder)
            devices = devices_per_node(self.recipe.trainer, None)
            arguments: dict[str, Any] = {
                "folder": os.fspath(folder.path),
                "store": os.fspath(self.store.path),
                "run": os.fspath(self.run.path),
                "start": start,
                "recipe": self._recipe(start, len(job.fit), devices).model_dump(mode="json"),
            }
            with repeatable(self.out):
                if devices > 1:
                    train_in_processes(devices, TRAIN_FOLD, arguments, folder, resume=True)
                else:
                    train_fold(**arguments)
        return np.load(predictions_file(folder), allow_pickle=False)

    def _recipe(self, start: str, count: int, devices: int) -> Recipe:
        """The recipe of a training on so many subjects, with its length in epochs."""
        recipe = self.recipe
        if start == "scratch":
            # Layer decay keeps what the first blocks have learned; here it is nothing yet.
            lr = recipe.finetune.scratch_lr or recipe.optim.lr
            recipe = recipe.changed(finetune={"layer_decay": 1.0}, optim={"lr": lr})
        return recipe.changed(optim={"epochs": epochs_of(recipe, count, devices)})

    def epochs(self, start: str) -> list[int]:
        """The epoch of each fold whose weights were tested."""
        folders = [self.folder(k, start) for k in range(len(self.parts))]
        return [read_json(f.summary_file)["best_epoch"] for f in folders]

    def say_what_did_not_learn(self) -> None:
        """Say where no epoch was better than the start, so that the start is what was tested."""
        for start, rate in (("pretrained", "optim.lr"), ("scratch", "finetune.scratch_lr")):
            if still := self.epochs(start).count(0):
                folds = counted(len(self.parts), "fold")
                say(
                    f"{STARTS[start]}: in {still} of {folds} no epoch lowered the loss on the "
                    "held-out part, so the network is tested as it started; train longer "
                    f"(optim.epochs) or with a lower rate ({rate})"
                )

    def digest(self) -> str:
        """A digest of who is in which fold with which target, and of the masks."""
        persons = persons_of(self.table)
        parts = [[self.subjects[rows].tolist() for rows in (p.train, p.test)] for p in self.parts]
        masks = self.table.get("mask_checksum") if self.task == "segmentation" else None
        facts = [self.subjects.tolist(), self.targets.tolist(), persons.tolist(), parts]
        facts.append([] if masks is None else masks.tolist())
        if self.task == "segmentation" and self.store.ignored:
            facts.append([[*self.store.mask_labels], [*self.store.ignored]])
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def depth(self) -> str:
        """How much of the encoder is fine-tuned, in print."""
        blocks = self.recipe.finetune.blocks
        if isinstance(blocks, str):
            return "fine-tuned"
        return f"{counted(blocks, 'block')} fine-tuned" if blocks else "head fine-tuned"

    @property
    def sizes(self) -> list[dict[str, int]]:
        """Subjects that each fold trains on, those held out among them, and tests."""
        drawn = self.recipe.finetune.subjects
        return [{"train": drawn or len(p.train), "test": len(p.test)} for p in self.parts]

    @property
    def facts(self) -> dict[str, Any]:
        """What a metrics.json says of it."""
        return {
            "task": self.task,
            "n": sum(len(part.test) for part in self.parts),
            "name": f"{self.run.recipe().name}, {self.depth}",
            "epochs": self.epochs("pretrained"),
            "sizes": self.sizes,
            "seed": self.seed,
            "finetune": tuned_by(self.recipe, self.task),
        }

    def job(self, k: int) -> Job:
        """The subjects of a fold and their targets."""
        return self._job(self.parts[k], k)

    def _job(self, part: Fold, k: int) -> Job:
        train, test = part.train, part.test
        if self.recipe.finetune.subjects is not None:
            train = train[self._drawn(train, self.recipe.finetune.subjects, k)]
        persons = persons_of(self.table)[train]
        if self.task == "classification":
            inner, held = hold_out(self.targets[train], seed=[self.seed + k, 0], persons=persons)
        else:
            inner, held = _hold_out_persons(persons, [self.seed + k, 0])
        targets = dict(zip(self.subjects[train], self.targets[train].tolist(), strict=True))
        return Job(
            task=self.task,
            fit=self.subjects[train[inner]].tolist(),
            held=self.subjects[train[held]].tolist(),
            test=self.subjects[test].tolist(),
            targets={} if self.task == "segmentation" else targets,
            classes=self.classes,
        )

    def _drawn(self, train: Indices, count: int, k: int) -> Indices:
        """So many of a training part, sorted; fewer are among more. Classes keep their shares."""
        seed = [self.seed + k, 1]
        if self.task != "classification":
            return np.sort(np.random.default_rng(seed).permutation(len(train))[:count])
        persons = persons_of(self.table)[train]
        return np.sort(nested_order(self.targets[train], persons, seed)[:count])


def _hold_out_persons(persons: Indices, seed: Sequence[int]) -> tuple[Indices, Indices]:
    """Split rows into four fifths and a fifth of the persons."""
    unique = np.random.default_rng(seed).permutation(np.unique(persons))
    if len(unique) < 2:
        raise EvaluationError("one person to train on; some must be held out: label more")
    held = np.isin(persons, unique[: max(1, round(HELD_OUT * len(unique)))])
    return np.flatnonzero(~held), np.flatnonzero(held)


def person_folds(table: pd.DataFrame, folds: int, seed: int) -> list[Fold]:
    """Folds of subjects without classes: given train and test parts, or else drawn by persons.

    Args:
        table: `by_subject`.
        folds: of cross-validation; at least 2.
        seed: draws them.

    Raises:
        EvaluationError: fewer persons than folds.
    """
    splits = canonical_splits(table["split"]).to_numpy()
    if {"train", "test"} <= set(splits):
        sides = {side: np.flatnonzero(splits == side) for side in ("train", "test")}
        require_apart(table, sides)
        if others := len(table) - sum(map(len, sides.values())):
            say(f"{counted(others, 'subject')} in neither train nor test are left out")
        return [Fold(**sides)]
    persons = persons_of(table)
    unique = np.random.default_rng(seed).permutation(np.unique(persons))
    if not 2 <= folds <= len(unique):
        raise EvaluationError(
            f"folds={folds}: {counted(len(unique), 'person')} can be in 2 to {len(unique)} folds"
        )
    tested = [np.isin(persons, part) for part in np.array_split(unique, folds)]
    return [Fold(np.flatnonzero(~test), np.flatnonzero(test)) for test in tested]


def epochs_of(recipe: Recipe, count: int, devices: int = 1) -> int:
    """How long a training on so many subjects lasts: all epochs and all updates of its recipe."""
    optim = recipe.optim
    if optim.updates is None:
        return optim.epochs
    return max(optim.epochs, math.ceil(optim.updates / updates_per_epoch(recipe, count, devices)))
