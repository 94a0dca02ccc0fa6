"""The question that is put to features: a model of a target, fitted to training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Floats, Indices
from vitaepp.data.embeddings import CONTROLS
from vitaepp.data.participants import Persons
from vitaepp.evaluation.harmonize import SCALE, Harmonizer, fit_harmonizer
from vitaepp.evaluation.tasks.base import Constant, Fitted, Target, Training

Features = npt.NDArray[Any]

#: Features by the names of candidates, of which each training part chooses; one alone is "".
Candidates = Mapping[str, Features]
Sites = npt.NDArray[np.object_]

#: The control of values: what one says who knows the training part and nothing of a subject.
MEAN = "mean"

ALL_CONTROLS = {**CONTROLS, MEAN: "the mean of the training part"}


def one_of(candidates: Candidates) -> Candidates:
    """The first of several, where there is nothing to choose."""
    return {"": next(iter(candidates.values()))}


@dataclass(frozen=True)
class Question:
    """What is fitted to the labelled subjects of a cohort, in every fold alike.

    Attributes:
        target: what is predicted.
        protocol: the model.
        persons: `(labelled,)`, whose subjects stay together where a part is held out.
        sites: `(labelled,)`, whose features are harmonised; None if they are not.
        reduced: sets of features that PCA reduces first, inside each fold.
        harmonize: how, `scale` or `combat`, where there are sites.
    """

    target: Target
    protocol: str
    persons: Persons
    sites: Sites | None = None
    reduced: frozenset[str] = frozenset({"raw"})
    harmonize: str = SCALE

    def fit(self, name: str, features: Candidates, train: Indices, seed: int) -> Model:
        """A model of training rows of one set of features.

        Of several candidates it takes the one that loses least on held-out training rows, by what
        also chooses the strength; of equals the first.

        Args:
            name: of the set: `method` or a control.
            features: `(labelled, feature)` each; without a column, nothing is known of subjects but
                what is usual in the training part.
            train: positions among the labelled.
            seed: draws held-out parts, the same of each candidate.
        """
        if name == MEAN or not any(one.shape[1] for one in features.values()):
            return Model(self.target.usual(train), None, next(iter(features)))
        models = [self._of(name, one, values, train, seed) for one, values in features.items()]
        return min(models, key=lambda model: model.fitted.loss)

    def _of(
        self, name: str, candidate: str, features: Features, train: Indices, seed: int
    ) -> Model:
        """A model of training rows of one candidate."""
        rows = features[train]
        harmonizer = None
        if self.sites is not None:
            harmonizer = fit_harmonizer(self.harmonize, rows, self.sites[train])
            rows = harmonizer(rows, self.sites[train])
        part = Training(train, rows, self.persons[train], seed, pca=name in self.reduced)
        return Model(self.target.fit(self.protocol, part), harmonizer, candidate)

    def tested(
        self, name: str, features: Candidates, train: Indices, test: Indices, seed: int
    ) -> tuple[Model, Floats, dict[str, float]]:
        """Fit to training rows and test: the model, its decisions, and their metrics."""
        model = self.fit(name, features, train, seed)
        sites = None if self.sites is None else self.sites[test]
        decision = model.decision(features[model.candidate][test], sites)
        return model, decision, self.target.scores(test, decision, self.target, train)

    def learn(self, model: Model, features: Candidates, train: Indices, seed: int) -> Any:
        """What the training part says beside the model, as a threshold."""
        if isinstance(model.fitted, Constant):
            return None
        rows = features[model.candidate][train]
        if model.harmonizer is not None and self.sites is not None:
            rows = model.harmonizer(rows, self.sites[train])
        return self.target.learn(model.fitted, Training(train, rows, self.persons[train], seed))


@dataclass(frozen=True)
class Model:
    """A fitted model with what is done to features first.

    Attributes:
        fitted: to training rows.
        harmonizer: what takes sites out of features; None if that was not asked for.
        candidate: the name of the features that it is of.
    """

    fitted: Fitted | Constant
    harmonizer: Harmonizer | None
    candidate: str

    @property
    def strength(self) -> Any:
        """What was chosen on held-out rows: C, alpha or k; one a label, of several."""
        return self.fitted.strength

    def decision(self, features: Features, sites: Sites | None) -> Floats:
        """Scores of subjects, `(subject,)` or `(subject, class)`."""
        if self.harmonizer is not None and sites is not None:
            features = self.harmonizer(features, sites)
        return self.fitted.decision(features)
