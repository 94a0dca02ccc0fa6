"""Repeated cross-validation: the same question under several draws of the folds.

A cohort of a hundred subjects gives another AUC with each draw of its folds, by as much as methods
differ. Several draws take this luck out, and their test (`statistics.corrected_resampled_t_test`)
finds smaller leads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.difference import difference_between
from vitaepp.evaluation.folds import Shared
from vitaepp.evaluation.measured import measure, predicted
from vitaepp.evaluation.measures import leading_metric, spread
from vitaepp.evaluation.question import Candidates, Question
from vitaepp.evaluation.result import METHOD, Evaluation
from vitaepp.system.files import without_nan
from vitaepp.system.progress import counted, say, track

#: How often the folds are drawn where the user does not say it, of cohorts smaller than this. The
#: AUC of a hundred subjects changes with the draw by 0.02, as much as methods differ; larger
#: cohorts need it less, and there ten draws take minutes.
USUAL, SMALL = 10, 300


def known_repeats(repeats: int | None, shared: Shared, *, strict: bool, once: bool) -> int:
    """How often the folds are drawn: as asked for, or `USUAL` times of a small cohort.

    Args:
        repeats: that were asked for; None where the user did not say.
        shared: the folds that are drawn first.
        strict: an encoder a fold was trained for these folds.
        once: draw once if the user did not say: folds that keep few groups whole are nearly the
            same in each draw, and candidates take long.

    Raises:
        EvaluationError: fewer than one, or several where nothing is drawn.
    """
    why = why_drawn_once(shared, strict=strict)
    if repeats is not None:
        if repeats < 1:
            raise EvaluationError(f"repeats={repeats}: give at least 1")
        if repeats > 1 and why is not None:
            raise EvaluationError(f"repeats={repeats}: {why}; leave out `repeats`")
        return repeats
    return 1 if once or why is not None or _tested(shared) >= SMALL else USUAL


def _tested(shared: Shared) -> int:
    return sum(len(part.test) for part in shared.folds)


def why_drawn_once(shared: Shared, *, strict: bool) -> str | None:
    """Why these folds are the only ones; None where others can be drawn."""
    if shared.given:
        return "the table has a train and a test part, so that no folds are drawn"
    if shared.groups:
        return "each group is left out once, so that no folds are drawn"
    return "an encoder a fold was trained for these folds, and for no others" if strict else None


def other_draws(
    draw: Callable[[int], Shared], seeds: Sequence[int], first: Shared, *, asked: bool
) -> list[tuple[int, Shared]]:
    """Draws of other folds, each with its seed, without those that share the subjects out alike.

    Args:
        draw: folds by a seed.
        seeds: of the further draws.
        first: what was drawn first.
        asked: whether the user asked for so many; else a draw that cannot be made is left out.

    Raises:
        EvaluationError: a draw that was asked for cannot be made.
    """
    seen, draws = {_parts(first)}, []
    for seed in seeds:
        try:
            drawn = draw(seed)
        except EvaluationError:  # of few subjects, some draws cannot be scored
            if asked:
                raise
            continue
        if _parts(drawn) not in seen:
            seen.add(_parts(drawn))
            draws.append((seed, drawn))
    if asked and (alike := len(seeds) - len(draws)):
        say(f"{counted(alike, 'draw')} of the folds share the subjects out as another: not counted")
    elif not asked and draws:
        say(
            f"the folds are drawn {1 + len(draws)} times, because one draw of {_tested(first)} "
            "subjects is partly luck; `repeats`=1 draws them once"
        )
    return draws


def _parts(shared: Shared) -> frozenset[frozenset[int]]:
    """The test parts, in whatever order they were drawn."""
    return frozenset(frozenset(part.test.tolist()) for part in shared.folds)


def measure_again(
    first: Evaluation,
    question: Question,
    sets: Mapping[str, Candidates],
    draws: Sequence[tuple[int, Shared]],
    subjects: Any,
    people: Persons,
    *,
    asked: bool,
) -> Iterator[Evaluation]:
    """The first evaluation, and the same with other draws of the folds.

    Each is what `evaluate` measures with that seed, without thresholds and probabilities. A draw
    that nobody asked for, and whose models cannot be fitted, is left out.

    Args:
        first: with the folds that were drawn first.
        question: what is fitted.
        sets: `method` and the controls.
        draws: the seed of each further draw, and its folds.
        subjects: `(labelled,)`, their names.
        people: `(labelled,)`, the person of each.
    """
    yield first
    for seed, shared in track(draws, "further draws of the folds", len(draws), unit="draws"):
        parts = shared.folds
        inside = replace(question, persons=shared.persons)
        each = {name: [one] * len(parts) for name, one in sets.items()}
        try:
            measured = measure(inside, each, parts, seed, None, learn=False)
        except EvaluationError:
            if asked:
                raise
            continue
        folds = {name: one.folds for name, one in measured.items()}
        predictions = predicted(subjects, people, question.target, parts, measured)
        yield first.redrawn(seed, folds, predictions)


def summarised_repeats(
    draws: Sequence[Evaluation],
) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """What several draws of the folds say together.

    Returns:
        JSON: `number`, `seeds`, `metric`, `mean` and `std` over all folds, and under `controls` the
        same of each, with `difference`: the lead of the embedding by this metric, with interval and
        p. Then a row a draw, set of features and fold; and the predictions of all but the first.
    """
    metric = leading_metric(draws[0].metrics)
    controls: dict[str, Any] = {}
    for key in draws[0].metrics["controls"]:
        lead = difference_between(draws, draws, metric=metric, reference_key=key)
        controls[key] = _over_all(draws, key) | {"difference": without_nan(lead.to_json())}
    seeds = [draw.metrics["seed"] for draw in draws]
    facts = {"number": len(draws), "seeds": seeds, "metric": metric, **_over_all(draws, METHOD)}
    frames = [draw.to_frame().assign(seed=draw.metrics["seed"]) for draw in draws]
    further = [
        draw.predictions.assign(seed=draw.metrics["seed"])
        for draw in draws[1:]
        if draw.predictions is not None
    ]
    return (
        facts | {"controls": controls},
        pd.concat(frames, ignore_index=True),
        pd.concat(further, ignore_index=True),
    )


def _over_all(draws: Sequence[Evaluation], key: str) -> dict[str, Any]:
    mean, std = spread([fold for draw in draws for fold in draw.folds(key)])
    return {"mean": mean, "std": std}
