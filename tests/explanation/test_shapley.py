"""Shapley values against exact enumeration, and what holds in every sample."""

from itertools import combinations
from math import comb

import numpy as np
import pytest

from vitaepp.explanation.shapley import areas_of, curves_of, rank_correlation, shapley


def exact(game, players):
    """Shapley's formula: over all coalitions of the others."""
    values = np.zeros(players)
    for i in range(players):
        others = [j for j in range(players) if j != i]
        for size in range(players):
            for members in combinations(others, size):
                without = np.zeros(players, bool)
                without[list(members)] = True
                with_i = without.copy()
                with_i[i] = True
                added = np.diff(game(np.stack([without, with_i])))[0]
                values[i] += added / (players * comb(players - 1, size))
    return values


def any_game(seed, players):
    """A value of its own for each coalition."""
    table = np.random.default_rng(seed).normal(size=2**players)
    return lambda coalitions: table[coalitions @ (1 << np.arange(players))]


@pytest.mark.parametrize("seed", range(3))
def test_samples_come_near_the_exact_values_by_their_errors(seed):
    game = any_game(seed, 5)
    found = shapley(game, 5, pairs=400, seed=0)
    off = (found.values - exact(game, 5)) / found.errors
    assert np.abs(off).max() < 4
    assert 0.3 < np.sqrt(np.mean(off**2)) < 2  # neither too small nor too large


@pytest.mark.parametrize("pairs", [1, 2, 7])
def test_the_sum_is_the_difference_of_all_and_none_in_every_sample(pairs):
    game = any_game(3, 6)
    found = shapley(game, 6, pairs, seed=1)
    none, everyone = game(np.array([[False] * 6, [True] * 6]))
    assert (found.baseline, found.total) == (none, everyone)
    assert found.values.sum() == pytest.approx(everyone - none)
    assert np.isfinite(found.errors).all() == (pairs > 1)


def test_one_pair_is_exact_where_no_more_than_two_players_interact():
    random = np.random.default_rng(0)
    own, between = random.normal(size=5), np.triu(random.normal(size=(5, 5)), 1)

    def game(coalitions):
        inside = coalitions.astype(float)
        return inside @ own + np.einsum("ni,ij,nj->n", inside, between, inside)

    assert shapley(game, 5, 1, 0).values == pytest.approx(exact(game, 5))
    assert shapley(game, 5, 3, 0).errors == pytest.approx(np.zeros(5), abs=1e-12)


def test_a_single_player_gets_all():
    found = shapley(lambda s: 2.0 + 3.0 * s[:, 0], 1, 2, 0)
    assert (found.values.tolist(), found.baseline, found.total) == ([3.0], 2.0, 5.0)


def test_a_curve_is_the_value_of_the_first_players():
    curves = curves_of(lambda s: s @ np.array([1.0, 10.0, 100.0]), np.array([[2, 0, 1]]))
    assert curves.tolist() == [[0, 100, 101, 111]]
    assert areas_of(curves) == pytest.approx([(0 / 2 + 100 + 101 + 111 / 2) / 3])


def test_the_correlation_is_that_of_scipy_and_knows_nothing_of_constants():
    from scipy.stats import spearmanr

    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, 20).astype(float), random.normal(size=20)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4.0)))
    assert np.isnan(rank_correlation(np.arange(3.0), np.arange(3.0)))
