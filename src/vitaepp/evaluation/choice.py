"""How the strength of a model is chosen: on held-out parts of the training rows, by person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from vitaepp.data.arrays import Indices
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
from vitaepp.system.progress import counted

T = TypeVar("T")

#: What a model lost on held-out rows, less is better; the second value parts those of equal first.
Loss = tuple[float, ...]

#: Share of the training part that is held out to choose C, and for nothing else.
HELD_OUT = 0.2

#: How often it is drawn anew, and from how many subjects on once is enough: a fifth of a hundred
#: subjects can hardly tell one C from another.
DRAWS, ENOUGH = 5, 1000


def choose(
    grid: Sequence[T],
    losses: Callable[[Indices, Indices], Sequence[float] | Sequence[Loss]],
    strata: Indices,
    *,
    seed: int,
    persons: Persons | None = None,
) -> tuple[T, Loss]:
    """The value of a grid with the smallest mean loss on held-out rows; of equals, the first.

    Args:
        grid: values to try, the strongest regularisation first.
        losses: of rows to fit on and rows held out, the loss of each value.
        strata: `(subject,)`, codes whose shares are the same in both parts, as classes or events;
            zeros where there are none.
        seed: draws the held-out parts: five, or one from a thousand subjects on.
        persons: `(subject,)`, whose rows stay together; unset, every subject is another person.

    Returns:
        The value and its loss, which can be compared with that of other features of the same rows.

    Raises:
        EvaluationError: fewer than two persons, or no finite loss.
    """
    from sklearn import config_context

    people = len(strata) if persons is None else len(np.unique(persons))
    if people < 2:
        raise EvaluationError(
            f"{counted(people, 'participant')} to fit on; some must be held out to choose the "
            "strength of the model: label more"
        )
    drawn = []
    for draw in range(DRAWS if len(strata) < ENOUGH else 1):
        inner, held = hold_out(strata, seed=[seed, draw], persons=persons)
        # To check parameters that are known takes an eighth of the time of hundreds of small fits.
        with config_context(skip_parameter_validation=True):
            drawn.append(np.reshape(losses(inner, held), (len(grid), -1)))
    # Rounded, so that the last digits of a sum do not decide between equals.
    means: list[Loss] = [tuple(row) for row in np.mean(drawn, axis=0).round(9).tolist()]
    known = [i for i, loss in enumerate(means) if np.isfinite(loss).all()]
    if not known:
        raise EvaluationError(
            "no strength of the model can be scored on held-out subjects; label more"
        )
    best = min(known, key=means.__getitem__)
    return grid[best], means[best]


def hold_out(
    codes: Indices, *, seed: int | Sequence[int], persons: Persons | None = None
) -> tuple[Indices, Indices]:
    """Split rows into 80 % and 20 % of each class, with every class in both parts.

    A class of few members gives at least one to the held-out part; scikit-learn's stratified split
    may give none, and the AUC there would be undefined. All rows of one person go to one part.

    Args:
        codes: `(subject,)`, classes.
        seed: shuffles.
        persons: `(subject,)`, the person of each; unset, every subject is another person.

    Returns:
        Rows to fit on and rows held out, both sorted.

    Raises:
        EvaluationError: a class has too few persons for two parts.
    """
    random = np.random.default_rng(seed)
    persons = np.arange(len(codes)) if persons is None else persons
    held = np.zeros(len(codes), bool)
    for c in np.unique(codes):
        members, counts = np.unique(persons[codes == c], return_counts=True)
        order = random.permutation(len(members))
        wanted = max(1, round(HELD_OUT * counts.sum()))
        enough = np.searchsorted(np.cumsum(counts[order]), wanted) + 1
        held |= np.isin(persons, members[order[: max(1, min(enough, len(order) - 1))]])
    if set(codes[held]) != set(codes[~held]):
        raise EvaluationError(
            "a class has too few participants to hold some of them out for the choice of C; join "
            "classes, or label more"
        )
    return np.flatnonzero(~held), np.flatnonzero(held)
