"""Shapley values of a game by sampling, with their errors; the game itself is a function.

A game gives each coalition, a set of players, a value. The Shapley value of a player is the mean of
what it adds to the players before it, over all orders in which they can come. The values of all
players sum to the value of all less that of none, in every sample and not only on average.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vitaepp.data.arrays import Flags, Floats

#: Values of coalitions, `(coalition, player)` to `(coalition,)`.
Game = Callable[[Flags], Floats]


@dataclass(frozen=True, eq=False)
class Shapley:
    """Shapley values by sampling.

    Attributes:
        values: `(player,)`; they sum to `total - baseline`.
        errors: `(player,)`, their standard errors; NaN with one pair of orders.
        baseline: the value of no player.
        total: the value of all.
        reliability: Spearman's correlation of the values from one half of the samples with those
            from the other; NaN with one pair.
        areas: `(order,)`, the area under the curve of values while the players of a random order
            come one by one.
    """

    values: Floats
    errors: Floats
    baseline: float
    total: float
    reliability: float
    areas: Floats


def shapley(game: Game, players: int, pairs: int, seed: int) -> Shapley:
    """Estimate Shapley values from random orders of the players.

    Each order is followed by its reverse (antithetic pairs): a player who comes early in the one
    comes late in the other, which makes the error smaller for the same work.

    Args:
        game: called once, with every coalition.
        players: how many there are, at least one.
        pairs: of orders.
        seed: of the orders; the same for the same players.

    Source:
        Castro et al. 2009 for the sampling; Mitchell et al. 2022, section 4, for the pairs.

    Example:
        >>> found = shapley(lambda s: s @ np.array([1.0, 2.0]), players=2, pairs=1, seed=0)
        >>> found.values
        array([1., 2.])
    """
    random = np.random.default_rng(seed)
    forward = np.array([random.permutation(players) for _ in range(pairs)])
    orders = np.stack([forward, forward[:, ::-1]], axis=1).reshape(2 * pairs, players)
    curves = curves_of(game, orders)
    added = np.empty((2 * pairs, players))
    np.put_along_axis(added, orders, np.diff(curves, axis=1), axis=1)
    each = added.reshape(pairs, 2, players).mean(axis=1)
    errors = np.full(players, np.nan)
    reliability = np.nan
    if pairs > 1:
        errors = each.std(axis=0, ddof=1) / np.sqrt(pairs)
        reliability = rank_correlation(each[::2].mean(axis=0), each[1::2].mean(axis=0))
    ends = float(curves[0, 0]), float(curves[0, -1])
    return Shapley(each.mean(axis=0), errors, *ends, reliability, areas_of(curves))


def curves_of(game: Game, orders: Int[np.ndarray, "order player"]) -> Float[np.ndarray, "order n"]:
    """The value of no player, of the first, of the first two, … and of all, for each order."""
    count, players = orders.shape
    rank = np.empty_like(orders)
    np.put_along_axis(rank, orders, np.arange(players)[None], axis=1)
    between = rank[:, None, :] < np.arange(1, players)[None, :, None]
    ends: Bool[np.ndarray, "two player"] = np.array([[False], [True]]).repeat(players, axis=1)
    values = game(np.concatenate([ends, between.reshape(-1, players)]))
    curves = np.empty((count, players + 1))
    curves[:, 0], curves[:, -1] = values[:2]
    curves[:, 1:-1] = values[2:].reshape(count, players - 1)
    return curves


def areas_of(curves: Float[np.ndarray, "order n"]) -> Float[np.ndarray, " order"]:
    """The area under each curve, where all players together are 1 wide."""
    return np.asarray(np.trapezoid(curves, dx=1 / (curves.shape[1] - 1), axis=1))


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's correlation; NaN where one of both is constant, or has fewer than four values."""
    from scipy.stats import rankdata

    ranks = rankdata(first), rankdata(second)
    if len(first) < 4 or any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])
