"""What an experiment measures: one way to run a variant, and one way to show what came out.

`classification`, `losses` and `reconstructions` are the kinds there are; `experiment.KINDS` names
them as the catalogue does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from vitaepp.errors import RecipeError
from vitaepp.experiments.catalogue import Experiment, Variant
from vitaepp.experiments.results import Row
from vitaepp.experiments.runs import Setup
from vitaepp.presentation.drawing import Drawing
from vitaepp.system.progress import say

#: The folders of each variant's finished runs, by its key, one a seed.
Folders = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        metrics: columns of the table, the compared one first.
        rows: variants that have a result, then controls.
        samples: results of single subjects by variant, as text.
        figure: the paper's figure, where it has one.
        facts: how it was measured, by name.
    """

    metrics: tuple[str, ...]
    rows: Sequence[Row]
    samples: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    figure: Drawing | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


class Kind(ABC):
    """Measures the variants of one experiment.

    Attributes:
        experiment: what is compared.
        setup: on which store, under which recipe, and where.
        names: of the variants in print, by their keys.
        what: it measures, in words.
        takes: options of `experiment` that not every kind takes.
    """

    what: ClassVar[str]
    takes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, experiment: Experiment, setup: Setup) -> None:
        self.experiment = experiment
        self.setup = setup
        self.names = {v.key: v.title(setup.recipe) for v in experiment.variants}

    def check(self) -> None:
        """Refuse, before anything is trained, a setup that cannot be measured.

        That is, too, one with options that the kind does not take: the table would name them. A
        label alone, which one line for all experiments may give, is told.

        Raises:
            VitaeppError: saying why.
        """
        setup = self.setup
        given = {
            "protocol": setup.protocol,
            "pretrain_per_fold": setup.per_fold,
            "budget": setup.budget,
            "subjects": setup.subjects,
        }
        if unused := [f"`{name}`" for name in given if given[name] and name not in self.takes]:
            raise RecipeError(
                f"experiment {self.experiment.key} measures {self.what}, on which some options "
                f"have no effect; leave out {' and '.join(unused)}"
            )
        if setup.label and "label" not in self.takes:
            say(f"experiment {self.experiment.key} measures {self.what}: `label` has no effect")

    @abstractmethod
    def run(self, variant: Variant, seed: int) -> Path:
        """Train and measure a variant where that is not done yet; the folder with its result."""

    def after_failure(self, variant: Variant, seed: int) -> Path | None:
        """The folder of a training that failed, for kinds that show how it failed."""
        return None

    @abstractmethod
    def measured(self, folders: Folders) -> Measured:
        """What came out of the runs in these folders; variants that failed are missing there."""

    def done(self, folders: Folders) -> list[Variant]:
        """The variants that have a result."""
        return [variant for variant in self.experiment.variants if variant.key in folders]
