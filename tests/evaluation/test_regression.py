"""Regression: scores and fits against scikit-learn and SciPy, and simulations of known truth."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import pearsonr, spearmanr
from scipy.stats import t as student
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.preprocessing import StandardScaler

from vitaepp.errors import EvaluationError
from vitaepp.evaluation.bootstrap import bootstrap_folds
from vitaepp.evaluation.comparison import compare
from vitaepp.evaluation.features import evaluate_features
from vitaepp.evaluation.measures import TASKS
from vitaepp.evaluation.regression import (
    EPSILON,
    error_intervals,
    fit_regression,
    regression_scores,
    weighted,
)
from vitaepp.evaluation.standing import standing
from vitaepp.evaluation.summary import verdict


def _drawn(random, n, features=10, noise=1.0):
    x = random.normal(size=(n, features))
    return x, 40 + 10 * (x[:, 0] + noise * random.normal(size=n))


def intervals(truth, predicted, fold, persons=None, resamples=2000):
    """Of each metric, as `clinical` takes them."""

    def score(metric, rows):
        return lambda weights: weighted(metric, truth[rows], predicted[rows], weights)

    parts = [np.flatnonzero(fold == k) for k in np.unique(fold)]
    who = np.arange(len(truth)) if persons is None else persons
    found = error_intervals(truth, predicted, fold, who)
    for metric in ("pearson", "spearman"):
        folds = [(rows, score(metric, rows)) for rows in parts]
        found[metric] = bootstrap_folds(folds, who, resamples=resamples)
    assert set(found) == set(TASKS["regression"].names)
    return found


@pytest.mark.parametrize("protocol", ["linear", "svm"])
def test_values_follow_the_split_that_the_table_gives(protocol):
    features, values = _drawn(np.random.default_rng(0), 60)
    split = ["train"] * 40 + ["test"] * 20
    table = pd.DataFrame({"subject": range(60), "age": values, "split": split})
    found = evaluate_features(features, table, "age", task="regression", protocol=protocol)
    assert found["sizes"] == [{"train": 40, "test": 20}]


def test_values_in_a_small_unit_are_told_in_full(tmp_path):
    features, values = _drawn(np.random.default_rng(0), 60, noise=0.2)
    told = []
    for unit in (1.0, 1e-5):
        table = pd.DataFrame({"subject": range(60), "adc": unit * values})
        found = evaluate_features(features, table, "adc", task="regression", repeats=2)
        folder = tmp_path / str(unit)
        found.save(folder)
        compared = compare(folder, controls=True)
        told.append([verdict(found.metrics), str(standing(found)), *compared.sentences])
        assert "level" not in told[-1][0]
        assert not any("0.000 " in line or "0.000]" in line for line in told[-1])
    assert "0.0000" in told[1][0]


def test_scores_are_those_of_scikit_learn_and_scipy():
    random = np.random.default_rng(0)
    truth = np.round(random.normal(50, 5, 60))
    predicted = np.round(truth + random.normal(0, 3, 60))
    expected = {
        "mae": mean_absolute_error(truth, predicted),
        "rmse": root_mean_squared_error(truth, predicted),
        "r2": r2_score(truth, predicted),
        "pearson": pearsonr(truth, predicted).statistic,
        "spearman": spearmanr(truth, predicted).statistic,
    }
    found = regression_scores(truth, predicted)
    assert tuple(found) == TASKS["regression"].names
    assert found == pytest.approx(expected)


def test_what_is_constant_has_no_correlation():
    truth = np.array([0.1, 0.2, 0.3, 0.1])
    for constant in (0.1, 1e6 / 3):
        found = regression_scores(truth, np.full(4, constant))
        assert np.isnan([found["pearson"], found["spearman"]]).all()
        assert np.isfinite([found["mae"], found["rmse"], found["r2"]]).all()
        assert np.isnan(regression_scores(np.full(4, constant), truth)["r2"])


def test_a_ridge_is_scikit_learn_s_of_standardised_features_with_the_strength_it_tells():
    x, values = _drawn(np.random.default_rng(1), 80)
    fitted = fit_regression(x, values, seed=0)
    z = np.clip(StandardScaler().fit_transform(x), -3, 3)
    expected = Ridge(fitted.strength).fit(z, values).predict(z)
    assert fitted.decision(x) == pytest.approx(expected)


def test_a_support_vector_regression_minimises_its_equation():
    """Half the squared weights and C times the errors beyond epsilon, as SciPy minimises it."""
    x, values = _drawn(np.random.default_rng(10), 24, features=3)
    fitted = fit_regression(x, values, seed=0, kind="svr")
    z, y = (StandardScaler().fit_transform(v) for v in (x, values[:, None]))
    z = np.clip(z, -3, 3)

    def beyond(unknown):
        errors = y[:, 0] - z @ unknown[:3] - unknown[3]
        return np.concatenate([unknown[4:] + EPSILON - errors, unknown[4:] + EPSILON + errors])

    best = minimize(
        lambda unknown: unknown[:3] @ unknown[:3] / 2 + fitted.strength * unknown[4:].sum(),
        np.concatenate([np.zeros(4), np.abs(y[:, 0])]),
        bounds=[(None, None)] * 4 + [(0, None)] * 24,
        constraints={"type": "ineq", "fun": beyond},
        options={"ftol": 1e-12, "maxiter": 500},
    ).x
    expected = values.mean() + values.std() * (z @ best[:3] + best[3])
    assert fitted.decision(x) == pytest.approx(expected, abs=0.01 * values.std())


@pytest.mark.parametrize("kind", ["ridge", "svr"])
def test_an_effect_is_found_in_any_unit_and_nothing_where_there_is_none(kind):
    random = np.random.default_rng(2)
    x, values = _drawn(random, 220)
    train, test = np.arange(120), np.arange(120, 220)
    fitted = fit_regression(x[train], values[train], seed=0, kind=kind)
    found = regression_scores(values[test], fitted.decision(x[test]))
    assert 0.3 < found["r2"] < 0.7  # half of the variation is noise
    # In another unit, and with other units of the features, the prediction is the same.
    other = fit_regression(1000 * x[train] + 5, values[train] / 1e4, seed=0, kind=kind)
    again = other.decision(1000 * x[test] + 5) * 1e4
    assert again == pytest.approx(fitted.decision(x[test]), rel=1e-3)
    noise = random.normal(size=(220, 10))
    blind = fit_regression(noise[train], values[train], seed=0, kind=kind)
    assert regression_scores(values[test], blind.decision(noise[test]))["r2"] < 0.05
    if kind == "ridge":
        assert blind.strength > fitted.strength


def test_raw_intensities_are_reduced_first():
    x, values = _drawn(np.random.default_rng(3), 60, features=500)
    fitted = fit_regression(x, values, seed=0, pca=True)
    assert fitted.model[0].n_components_ == 30


def test_all_rows_of_a_person_are_held_out_together():
    """Each person's images share noise that tells its value, but no other person's.

    With rows held out one by one a weak ridge looks best, as it recognises persons.
    """
    random = np.random.default_rng(4)
    four = np.repeat(np.arange(30), 4)
    x = random.normal(size=(30, 40))[four] + random.normal(0, 0.05, (120, 40))
    values = random.normal(size=30)[four]
    by_person = fit_regression(x, values, seed=0, persons=four)
    by_row = fit_regression(x, values, seed=0)
    assert by_person.strength >= 1e3 * by_row.strength


def test_intervals_hold_the_truth_as_often_as_they_say():
    random = np.random.default_rng(5)
    truth = {"mae": np.sqrt(2 / np.pi), "rmse": 1.0, "r2": 0.5, "pearson": np.sqrt(0.5)}
    inside = {name: [] for name in truth}
    for _ in range(80):
        predicted = random.normal(size=100)
        values = predicted + random.normal(size=100)
        found = intervals(values, predicted, np.arange(100) % 2, resamples=300)
        for name, interval in found.items():
            if name in truth:
                inside[name].append(interval.low <= truth[name] <= interval.high)
    for name, each in inside.items():
        assert np.mean(each) >= 0.87, name


def test_intervals_of_errors_hold_the_truth_in_small_folds():
    """Percentiles of a bootstrap begin at -1.1 there, where R² is 0.1."""
    random, fold = np.random.default_rng(8), np.arange(60) % 5
    inside, lows = {"mae": [], "rmse": [], "r2": []}, []
    for _ in range(300):
        predicted = random.normal(size=60)
        values = predicted + 2 * random.normal(size=60)
        found = error_intervals(values, predicted, fold, np.arange(60))
        lows.append(found["r2"].low)
        # Means of folds of twelve, from 40,000 such folds.
        for name, truth in {"mae": 1.596, "rmse": 1.959, "r2": 0.076}.items():
            inside[name].append(found[name].low <= truth <= found[name].high)
    for name, each in inside.items():
        assert 0.88 <= np.mean(each) <= 0.98, name
    assert np.median(lows) > -0.5


def test_the_jackknife_is_what_a_little_more_of_each_person_changes():
    random = np.random.default_rng(9)
    truth, predicted = random.normal(size=(2, 40))
    fold, persons, little = np.arange(40) % 3, np.repeat(np.arange(20), 2), 1e-5
    more = 1 + little * (persons[None] == np.arange(20)[:, None])
    parts = [np.flatnonzero(fold == k) for k in range(3)]
    for metric, found in error_intervals(truth, predicted, fold, persons).items():

        def mean(weights, metric=metric):
            scores = [weighted(metric, truth[r], predicted[r], weights[:, r]) for r in parts]
            error = np.mean(scores, axis=0)
            return 1 - error if metric == "r2" else error

        error = mean(np.ones((1, 40)))
        deviation = np.sqrt(np.sum(((mean(more) - error) / little) ** 2) * 20 / 17)
        reach = np.exp(student.ppf(0.975, 17) * deviation / error)
        bounds = np.concatenate([error / reach, error * reach])
        bounds = 1 - bounds[::-1] if metric == "r2" else bounds
        assert (found.low, found.high) == pytest.approx(tuple(bounds), rel=1e-3)


def test_errors_have_no_interval_where_nothing_tells_it():
    rows = np.arange(6)
    same = error_intervals(np.ones(6), np.arange(6.0), rows % 2, rows)
    assert same["r2"] is None
    assert same["mae"].low < 2.0 < same["mae"].high
    few = error_intervals(np.arange(6.0), np.ones(6), rows % 2, rows % 2)
    assert set(few.values()) == {None}
    right = error_intervals(np.arange(6.0), np.arange(6.0), rows % 2, rows)
    assert (right["rmse"].low, right["r2"].high) == (0, 1)


def test_intervals_are_of_persons():
    random = np.random.default_rng(6)
    values, predicted = random.normal(size=(2, 40))
    four = np.repeat(np.arange(40), 4)
    once = intervals(values, predicted, np.zeros(40, int))["mae"]
    clustered = intervals(values[four], predicted[four], np.zeros(160, int), persons=four)
    naive = intervals(values[four], predicted[four], np.zeros(160, int))
    width = [i.high - i.low for i in (once, clustered["mae"], naive["mae"])]
    assert width[1] == pytest.approx(width[0], rel=0.1)
    assert width[2] == pytest.approx(width[0] / 2, rel=0.15)


def test_the_bootstrap_of_ranks_is_that_of_drawn_rows():
    random = np.random.default_rng(7)
    truth, predicted = np.round(random.normal(size=(2, 30)), 1)
    rows = random.integers(30, size=30)
    weights = np.bincount(rows, minlength=30)[None].astype(float)
    for metric, value in regression_scores(truth[rows], predicted[rows]).items():
        assert weighted(metric, truth, predicted, weights)[0] == pytest.approx(value)
    assert spearmanr(truth[rows], predicted[rows]).statistic == pytest.approx(
        weighted("spearman", truth, predicted, weights)[0]
    )


def test_what_cannot_be_fitted_is_refused():
    x = np.random.default_rng(8).normal(size=(6, 2))
    with pytest.raises(EvaluationError, match="all 6 values to fit on are the same"):
        fit_regression(x, np.ones(6), seed=0)
    with pytest.raises(EvaluationError, match="not finite"):
        fit_regression(x, np.array([1, 2, 3, 4, 5, np.nan]), seed=0)
    with pytest.raises(EvaluationError, match="1 participant to fit on"):
        fit_regression(x, np.arange(6.0), seed=0, persons=np.zeros(6, np.intp))
