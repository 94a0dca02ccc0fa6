"""What an experiment measures: one way to run a variant, and one way to show what came out.

`classification`, `losses` and `reconstructions` are the kinds there are; `experiment.KINDS` names
them as the catalogue does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vitaepp.errors import RecipeError
from vitaepp.experiments.catalogue import Experiment, Variant
from vitaepp.experiments.results import Row
from vitaepp.experiments.runs import Setup
from vitaepp.presentation.drawing import Drawing

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
    """

    def __init__(self, experiment: Experiment, setup: Setup) -> None:
        self.experiment = experiment
        self.setup = setup
        self.names = {v.key: v.title(setup.recipe) for v in experiment.variants}

    def check(self) -> None:
        """Refuse, before anything is trained, a setup that cannot be measured.

        Of a kind without a classifier, that is the strict protocol, and a number of labels.

        Raises:
            VitaeppError: saying why.
        """
        if self.setup.per_fold:
            raise RecipeError(
                f"experiment {self.experiment.key} evaluates no classifier, so that there are no "
                "folds; leave out `pretrain_per_fold`"
            )
        if self.setup.budget:
            raise RecipeError(
                f"experiment {self.experiment.key} evaluates no classifier, so that no labels are "
                "needed; leave out `budget`"
            )

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
