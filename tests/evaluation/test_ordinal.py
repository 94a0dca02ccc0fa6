"""Ordinal labels: the model's own equation minimised by SciPy, scikit-learn's scores, and order."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from vitaepp.evaluation import ordinal
from vitaepp.evaluation.ordinal import fit_ordinal, ordinal_scores


def _drawn(random, n, features=6, cuts=(-1.0, 0.5, 1.5)):
    """A proportional-odds model: ranks cut a score with logistic noise."""
    x = random.normal(size=(n, features))
    return x, np.digitize(1.5 * x[:, 0] + random.logistic(size=n), cuts)


def test_the_fit_minimises_the_all_threshold_loss():
    x, codes = _drawn(np.random.default_rng(0), 150, features=3)
    above = codes[:, None] > np.arange(3)

    def loss(values):
        weights, thresholds = values[:3], values[3:]
        logits = (x @ weights)[:, None] - thresholds
        penalty = weights @ weights / 2
        return 0.5 * np.logaddexp(0, np.where(above, -logits, logits)).sum() + penalty

    best = minimize(loss, np.zeros(6), tol=1e-12).x
    weights, thresholds = ordinal._fit(x, codes, C=0.5)
    assert np.concatenate([weights, thresholds]) == pytest.approx(best, abs=1e-3)
    assert (np.diff(thresholds) > 0).all()


def test_more_features_than_subjects_are_fitted_in_what_these_span():
    random = np.random.default_rng(0)
    x, codes = random.normal(size=(30, 12)), np.arange(30) % 3
    turned = np.linalg.qr(random.normal(size=(50, 12)))[0]  # 12 directions among 50
    weights, thresholds = ordinal._fit(x, codes, 0.1)
    more, same = ordinal._fit(x @ turned.T, codes, 0.1)
    assert np.allclose(more, turned @ weights, atol=1e-5)
    assert np.allclose(same, thresholds, atol=1e-5)


def test_with_two_classes_it_is_logistic_regression():
    x, codes = _drawn(np.random.default_rng(1), 100, cuts=(0.3,))
    weights, thresholds = ordinal._fit(x, codes, C=0.1)
    expected = LogisticRegression(C=0.1, tol=1e-8).fit(x, codes)
    assert weights == pytest.approx(expected.coef_[0], abs=1e-4)
    assert -thresholds == pytest.approx(expected.intercept_, abs=1e-4)


def test_of_many_subjects_direction_and_thresholds_are_the_true_ones(monkeypatch):
    monkeypatch.setattr(ordinal, "GRID", (10.0,))
    x, codes = _drawn(np.random.default_rng(2), 6000)
    weights, thresholds = ordinal._fit(x, codes, C=10.0)
    assert weights == pytest.approx([1.5, 0, 0, 0, 0, 0], abs=0.1)
    assert thresholds == pytest.approx([-1.0, 0.5, 1.5], abs=0.1)


def test_probabilities_are_of_ranks_and_rise_with_the_score():
    x, codes = _drawn(np.random.default_rng(3), 200)
    fitted = fit_ordinal(x, codes, seed=0)
    p = fitted.decision(x)
    assert p.shape == (200, 4)
    assert p.min() >= 0
    assert p.sum(axis=1) == pytest.approx(1)
    expected = p @ np.arange(4)
    assert spearmanr(expected, fitted.score(x)).statistic == pytest.approx(1)
    assert p.mean(axis=0) == pytest.approx(np.bincount(codes) / 200, abs=0.05)


def test_scores_are_those_of_scikit_learn():
    random = np.random.default_rng(4)
    x, codes = _drawn(random, 260)
    fitted = fit_ordinal(x[:130], codes[:130], seed=0)
    p, truth = fitted.decision(x[130:]), codes[130:]
    found = ordinal_scores(truth, p)
    median = (np.cumsum(p, axis=1) < 0.5).sum(axis=1)
    expected = p @ np.arange(4)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(truth, median, weights="quadratic"))
    assert found["mae"] == pytest.approx(np.abs(truth - median).mean())
    assert found["accuracy"] == pytest.approx((truth == median).mean())
    assert found["spearman"] == pytest.approx(spearmanr(truth, expected).statistic)
    splits = [roc_auc_score(truth > k, p[:, k + 1 :].sum(axis=1)) for k in range(3)]
    assert found["auc"] == pytest.approx(np.mean(splits))


def test_order_helps_where_there_is_one_and_nothing_is_found_where_there_is_none():
    random = np.random.default_rng(5)
    x, codes = _drawn(random, 360)
    found = ordinal_scores(codes[160:], fit_ordinal(x[:160], codes[:160], seed=0).decision(x[160:]))
    assert found["kappa"] > 0.3
    assert found["spearman"] > 0.5
    blind = fit_ordinal(random.normal(size=(160, 6)), codes[:160], seed=0)
    assert blind.strength <= 1e-2
    found = ordinal_scores(codes[160:], blind.decision(x[160:]))
    assert abs(found["spearman"]) < 0.2
    assert abs(found["auc"] - 0.5) < 0.1


def test_all_rows_of_a_person_are_held_out_together():
    random = np.random.default_rng(6)
    four = np.repeat(np.arange(30), 4)
    x = random.normal(size=(30, 40))[four] + random.normal(0, 0.05, (120, 40))
    codes = (np.arange(30) % 3)[four]
    by_person = fit_ordinal(x, codes, seed=0, persons=four)
    assert by_person.strength < fit_ordinal(x, codes, seed=0).strength


def test_what_cannot_be_taken_is_nan():
    one = ordinal_scores(np.zeros(5, int), np.tile([1.0, 0, 0], (5, 1)))
    assert np.isnan([one["kappa"], one["spearman"], one["auc"]]).all()
    assert (one["mae"], one["accuracy"]) == (0, 1)
    constant = ordinal_scores(np.arange(6) % 3, np.full((6, 3), 1 / 3))
    assert np.isnan(constant["spearman"])
    assert constant["kappa"] == 0
    assert constant["auc"] == 0.5
