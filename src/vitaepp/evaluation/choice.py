"""How the strength of a model is chosen: on held-out parts of the training rows, by person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.classifier import DRAWS, ENOUGH, hold_out
from vitaepp.system.progress import counted

Rows = npt.NDArray[np.intp]
T = TypeVar("T")


def choose(
    grid: Sequence[T],
    losses: Callable[[Rows, Rows], Sequence[float]],
    strata: Rows,
    *,
    seed: int,
    persons: Persons | None = None,
) -> T:
    """The value of a grid with the smallest mean loss on held-out rows; of equals, the first.

    Args:
        grid: values to try, the strongest regularisation first.
        losses: of rows to fit on and rows held out, the loss of each value.
        strata: `(subject,)`, codes whose shares are the same in both parts, as classes or events;
            zeros where there are none.
        seed: draws the held-out parts: five, or one from a thousand subjects on.
        persons: `(subject,)`, whose rows stay together; unset, every subject is another person.

    Raises:
        EvaluationError: fewer than two persons, or no finite loss.
    """
    people = len(strata) if persons is None else len(np.unique(persons))
    if people < 2:
        raise EvaluationError(
            f"{counted(people, 'participant')} to fit on; some must be held out to choose the "
            "strength of the model: label more"
        )
    drawn = []
    for draw in range(DRAWS if len(strata) < ENOUGH else 1):
        inner, held = hold_out(strata, seed=[seed, draw], persons=persons)
        drawn.append(losses(inner, held))
    # Rounded, so that the last digits of a sum do not decide between equals.
    mean = np.mean(drawn, axis=0).round(9)
    if not np.isfinite(mean).any():
        raise EvaluationError(
            "no strength of the model can be scored on held-out subjects; label more"
        )
    return grid[int(np.nanargmin(np.where(np.isfinite(mean), mean, np.nan)))]
