"""Cox regression with ridge, by scikit-survival (extra `survival`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vitaepp.data.arrays import Flags, Floats, Indices, Numbers
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.choice import Loss, choose
from vitaepp.evaluation.followup import Survival
from vitaepp.evaluation.front import front
from vitaepp.system.extras import require
from vitaepp.system.progress import counted

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

#: Strengths that are tried, the strongest first, times the number of features: alpha of the ridge.
GRID = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)

#: Fewest persons with an event that a model is fitted on.
EVENTS = 5


@dataclass(frozen=True)
class FittedSurvival:
    """A Cox regression fitted on the whole training part.

    Attributes:
        model: the scikit-learn pipeline.
        alpha: the strength of its ridge that was chosen.
        middle: the median risk of the training part, which parts the halves of others.
        loss: on held-out training rows, with this alpha.
    """

    model: Pipeline
    alpha: float
    middle: float
    loss: Loss = ()

    @property
    def strength(self) -> float:
        """alpha."""
        return self.alpha

    def decision(self, features: Numbers) -> Floats:
        """The log relative hazard of each, `(subject,)`: higher is earlier."""
        return np.asarray(self.model.predict(features.astype(np.float64, copy=False)), np.float64)

    def learned(self, train: Survival) -> Learned:
        """What its training part says of others beside their risk."""
        baseline = self.model[-1].baseline_survival_
        return Learned(train, self.middle, np.asarray(baseline.x), np.asarray(baseline.y))


@dataclass(frozen=True)
class Learned:
    """What a training part decides for its test part.

    Attributes:
        train: its times.
        middle: the median of its risks.
        at: `(time,)`, rising, where the baseline curve steps.
        curve: `(time,)`, the probability of no event until then of a subject whose risk is 0.
    """

    train: Survival
    middle: float
    at: Floats
    curve: Floats

    def survival(self, risk: Floats, times: Floats) -> Floats:
        """The probability of no event until each time, `(subject, time)`.

        Before the first time of the training part it is 1; after its last, that of the last.
        """
        index = np.searchsorted(self.at, times, side="right")
        return np.power(np.concatenate([[1.0], self.curve])[index], np.exp(risk)[:, None])


def fit_survival(
    features: Numbers,
    time: Floats,
    event: Flags,
    *,
    seed: int,
    pca: bool = False,
    persons: Persons | None = None,
) -> FittedSurvival:
    """Cox regression with ridge, its strength chosen on held-out parts of the training rows.

    Ties are Efron's. The criterion is the cross-validated partial likelihood: by how much the held
    out subjects raise the log partial likelihood of all. Of equally good values the strongest
    regularisation wins.

    Args:
        features: `(subject, feature)`, training rows only.
        time: `(subject,)`, above zero.
        event: `(subject,)`.
        seed: draws the held-out parts.
        pca: reduce the features by PCA first, as for raw intensities.
        persons: `(subject,)`, the person of each; unset, every subject is another person.

    Raises:
        MissingPackageError: the extra `survival` is not installed.
        EvaluationError: fewer than five persons with an event.

    Source:
        Cox 1972; Verweij and van Houwelingen 1993, "Cross-validation in survival analysis", for the
        criterion, and 1994, "Penalized likelihood in Cox regression".
    """
    require("sksurv", "survival", "survival needs")
    x: Floats = features.astype(np.float64, copy=False)
    times = Survival(time.astype(np.float64, copy=False), event.astype(np.bool_, copy=False))
    who = np.arange(len(time)) if persons is None else persons
    if (few := len(np.unique(who[times.event]))) < EVENTS:
        raise EvaluationError(
            f"{counted(few, 'participant')} with an event to fit on; Cox regression needs at least "
            f"{EVENTS}: follow up longer, join parts, or ask for fewer `folds`"
        )

    def losses(inner: Indices, held: Indices) -> list[float]:
        values = []
        for model in _fit_grid(x[inner], times[inner], GRID, pca):
            risk = np.asarray(model.predict(x), np.float64)
            gained = _log_likelihood(times, risk) - _log_likelihood(times[inner], risk[inner])
            values.append(-gained / max(1, int(times.event[held].sum())))
        return values

    # Of a single censored person none could be held out and another fitted on.
    both = len(np.unique(who[~times.event])) > 1
    strata = times.event.astype(np.intp) if both else np.zeros(len(times), np.intp)
    best, loss = choose(GRID, losses, strata, seed=seed, persons=persons)
    model = _fit_grid(x, times, (best,), pca)[0]
    middle = float(np.median(model.predict(x)))
    return FittedSurvival(model, float(model[-1].alpha), middle, loss)


def _log_likelihood(times: Survival, risk: Floats) -> float:
    """The log partial likelihood of a risk, ties as Breslow's."""
    order = np.argsort(-times.time, kind="stable")
    time, event, risk = times.time[order], times.event[order], risk[order]
    at_risk = np.logaddexp.accumulate(risk)
    # All of one time are at risk together: the last of them in this order has the sum.
    last = len(time) - 1 - np.searchsorted(time[::-1], time, side="left")
    return float(np.sum((risk - at_risk[last])[event]))


def _fit_grid(
    features: Floats, times: Survival, grid: Sequence[float], pca: bool
) -> list[Pipeline]:
    """A Cox regression for each strength; what comes before it is the same and fitted once."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import Pipeline
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    steps = front(features, pca=pca)
    reduced = steps.fit_transform(features)
    n, d = reduced.shape
    if d >= n:
        # Ridge does not change under rotation, and n subjects span n - 1 directions: the same
        # model, many times faster.
        rotation = PCA(n - 1, svd_solver="full")
        reduced = rotation.fit_transform(reduced)
        steps.steps.append(("rotation", rotation))
    fitted = []
    for strength in grid:
        cox = CoxPHSurvivalAnalysis(alpha=strength * d, ties="efron")
        cox.fit(reduced, times.structured())
        fitted.append(Pipeline([*steps.steps, ("cox", cox)]))
    return fitted
