"""plan: from a source or a store, and the machine, to a recipe with its reasons."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd

from vitaepp.data.loading import training_rows
from vitaepp.data.splits import canonical_splits
from vitaepp.data.store import Store
from vitaepp.data.storefiles import stored_info
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.ingest.planning.account import DryRun
from vitaepp.ingest.prepare import prepare
from vitaepp.presentation.notebook import Tabular
from vitaepp.recipe.choices import Choice, as_yaml
from vitaepp.recipe.recipe import Recipe, resolve
from vitaepp.recipe.sections import DataSettings
from vitaepp.system.devices import Machine
from vitaepp.system.files import write_text
from vitaepp.system.progress import counted, say
from vitaepp.training.hours import Clock, chosen_in_time, measured_speed
from vitaepp.training.propose import Images, in_order, names_of, proposed_recipe
from vitaepp.training.threads import free_threads

#: What it takes to keep something that a label may be.
KEPT = {
    "size": "no crops and no scaling, which would change sizes",
    "side": "left and right are not mirrored",
}


@dataclass(frozen=True)
class Plan(Tabular):
    """A recipe that suits a source and a machine.

    Attributes:
        choices: its settings, each with the reason.
        heading: what it was made for.
        dry_run: what was found in raw scans; None for a store.
    """

    choices: tuple[Choice, ...]
    heading: tuple[str, ...]
    dry_run: DryRun | None = None

    def recipe(self) -> Recipe:
        """The recipe, complete."""
        return resolve(settings={c.name: c.value for c in self.choices})

    def to_frame(self) -> pd.DataFrame:
        """A row a chosen setting: `name`, `value` and `reason`."""
        return pd.DataFrame([asdict(choice) for choice in self.choices])

    def to_yaml(self) -> str:
        """The chosen settings as a recipe file, with reasons as comments."""
        return as_yaml(self.choices, self.heading)

    def to_dict(self) -> dict[str, Any]:
        """What a program wants to know of it, JSON throughout."""
        return {
            "made_for": " ".join(self.heading[:-1]),
            "choices": [asdict(choice) for choice in self.choices],
            "dry_run": None if self.dry_run is None else self.dry_run.to_dict(),
        }

    def __str__(self) -> str:
        before = "" if self.dry_run is None else f"{self.dry_run}\n\n"
        return before + self.to_yaml().rstrip()


def plan(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    keep: Sequence[str] = (),
    hours: float | None = None,
    machine: Machine | None = None,
) -> Plan:
    """Propose a recipe for scans or a store on a machine.

    It is what `prepare` and `pretrain` choose themselves where they are given no settings: the
    paper's values where they fit the images, the memory and the time.

    Args:
        source: what `prepare` takes, or a prepared store.
        out: file to write the recipe to, which `recipe` of `prepare` and `pretrain` takes.
        keep: what the label may be, `size` or `side` or both. No view changes it then, which costs
            some of the augmentation: `views.keep`.
        hours: time of the training; the speed of this machine is measured, for some seconds. Unset:
            a night on a CPU, by an assumed speed.
        machine: what to train on. Unset: this one.

    Raises:
        SourceError: no known layout.
        StoreError: a store that is damaged or empty.
        RecipeError: no recipe fits these images.
    """
    machine = machine or Machine.here()
    dry_run, made = None, []
    rows: list[int]
    measured: Store | StoreInfo
    if stored_info(source) is not None:
        store = Store(source)
        rows, measured = training_rows(store, DataSettings()), store
        images = Images.of(store.info, trained=len(rows), stored=len(store))
        described = f"a store of {counted(len(store), 'subject')}"
    else:
        dry_run = prepare(source, dry_run=True).dry_run
        assert dry_run is not None
        splits = canonical_splits(dry_run.table["split"])
        train = int((splits == "train").sum()) or len(splits)
        rows, measured = [], dry_run.spec.info
        images = Images.of(dry_run.spec.info, trained=train, stored=len(splits))
        described = f"{dry_run.cohort.layout}, {counted(len(splits), 'subject')}"
        made = _prepare_choices(dry_run)
    wanted = (f"views.keep={','.join(keep)}",) if keep else ()
    if hours is None:
        recipe, choices = proposed_recipe(images, machine, wanted)
    else:
        Clock(hours)  # refuses no time at all
        with free_threads():
            recipe, choices = chosen_in_time(
                images,
                machine,
                resolve(settings=wanted),
                names_of(wanted),
                lambda: 3600 * hours,  # the time begins when the training does
                measured_speed(measured, rows),
            )
    if keep:
        kept = recipe.views.keep
        why = f"as asked: {' and '.join(KEPT[name] for name in kept)}"
        choices = in_order((*choices, Choice("views.keep", list(kept), why)))
    time = "" if hours is None else f", to train for {hours:g} hours"
    heading = (
        f"Proposed for {described}",
        f"({images.trained} to train on), on {machine}{time}.",
        "Give this file to prepare and pretrain, as their recipe.",
    )
    planned = Plan((*made, *choices), heading, dry_run)
    if out is not None:
        write_text(Path(out), planned.to_yaml())
        say(f"recipe written to {out}; give `recipe={quote(str(out))}` to `prepare` and `pretrain`")
    return planned


def _prepare_choices(dry_run: DryRun) -> list[Choice]:
    info, total = dry_run.spec.info, len(dry_run.cohort.subjects)
    lacking = {s for names in dry_run.fingerprint.missing.values() for s in names}
    have = "all" if not lacking else f"{total - len(lacking)}"
    choices = [
        Choice(
            "prepare.modalities",
            list(info.modalities),
            f"{have} of {counted(total, 'subject')} have all",
        ),
        *dry_run.choices,
    ]
    if info.center != "image":
        masks = sum(s.mask is not None for s in dry_run.cohort.subjects)
        choices.append(Choice("prepare.center", info.center, f"{masks} of {total} have a mask"))
    return choices
