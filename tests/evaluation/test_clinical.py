"""Clinical measures: DeLong's own data, scikit-learn's figures, and simulations of known truth."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve as sklearn_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    roc_auc_score,
)

from vitaepp.errors import EvaluationError
from vitaepp.evaluation.calibration import calibration, calibration_curve, net_benefit
from vitaepp.evaluation.classifier import fit
from vitaepp.evaluation.clinical import average_precision, clinical_report
from vitaepp.evaluation.delong import delong, delong_test
from vitaepp.evaluation.knn import fit_knn
from vitaepp.evaluation.thresholds import (
    GOALS,
    Learned,
    choose_threshold,
    learn,
    learn_from,
    refits,
)

#: Albumin, total protein, K-G score, and whether surgery helped: DeLong et al. 1988, 43 patients.
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0
1.6 5.6 5 1  3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1
4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1
3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1
3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1
3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1
3.6 6.6 5 1
"""


def _ovarian():
    albumin, protein, kg, helped = np.array(OVARIAN.split(), float).reshape(-1, 4).T
    return helped.astype(int), {"albumin": albumin, "protein": protein, "kg": -kg}


def _rounded(found, *names):
    return [round(found[name], 4) for name in names]


def test_the_published_example_of_delong():
    """SAS/STAT prints these of the same data.

    Example "Comparing Receiver Operating Characteristic Curves" of PROC LOGISTIC.
    """
    helped, scores = _ovarian()
    names = ("value", "se", "low", "high")
    assert _rounded(delong(helped, scores["albumin"]), *names) == [0.7366, 0.0927, 0.5549, 0.9182]
    assert _rounded(delong(helped, scores["kg"]), *names) == [0.7258, 0.1028, 0.5243, 0.9273]
    assert _rounded(delong(helped, scores["protein"]), *names) == [0.6478, 0.1000, 0.4518, 0.8439]
    names = ("difference", "se", "low", "high", "p")
    found = delong_test(helped, scores["albumin"], scores["kg"])
    assert _rounded(found, *names) == [0.0108, 0.0953, -0.1761, 0.1976, 0.9102]
    found = delong_test(helped, scores["protein"], scores["kg"])
    assert _rounded(found, *names) == [-0.0780, 0.1046, -0.2830, 0.1271, 0.4561]


def _pairs(positive, score):
    """DeLong's structural components by their definition, over all pairs."""
    wins = (score[positive][:, None] > score[~positive]) + 0.5 * (
        score[positive][:, None] == score[~positive]
    )
    return wins.mean(axis=1), wins.mean(axis=0)


def test_delong_over_folds_is_the_mean_of_independent_aucs():
    random = np.random.default_rng(1)
    codes, fold = random.integers(2, size=90), np.arange(90) % 3
    score = np.round(codes + random.normal(size=90), 1)
    areas, variances = [], []
    for k in range(3):
        first, second = _pairs(codes[fold == k] == 1, score[fold == k])
        areas.append(first.mean())
        variances.append(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))
    found = delong(codes, score, fold)
    assert found["value"] == pytest.approx(np.mean(areas))
    assert found["se"] == pytest.approx(np.sqrt(np.sum(variances)) / 3)


def _drawn(random, n, separation=1.0):
    codes = np.arange(n) % 2
    return codes, codes * separation + random.normal(size=n)


def test_intervals_of_delong_and_bootstrap_hold_the_truth_as_often_as_they_say():
    from scipy.stats import norm

    truth, inside, bootstrapped = norm.cdf(1 / np.sqrt(2)), [], []
    random = np.random.default_rng(2)
    for i in range(200):
        codes, score = _drawn(random, 80)
        found = delong(codes, score)
        inside.append(found["low"] <= truth <= found["high"])
        if i < 60:
            auc = clinical_report(codes, score, np.zeros(80, int), resamples=200)["auc"]
            bootstrapped.append(auc["low"] <= truth <= auc["high"])
    assert 0.91 <= np.mean(inside) <= 0.99
    assert 0.88 <= np.mean(bootstrapped) <= 1.0


def test_with_several_images_a_person_the_interval_is_of_persons():
    """Four images that hardly differ say as much as one: DeLong's would be half as wide."""
    from scipy.stats import norm

    truth, clustered, naive = norm.cdf(1 / np.sqrt(2)), [], []
    random = np.random.default_rng(3)
    for _ in range(150):
        codes, score = _drawn(random, 60)
        persons = np.repeat(np.arange(60), 4)
        codes, score = np.repeat(codes, 4), np.repeat(score, 4) + random.normal(0, 0.01, 240)
        for kept, found in (
            (clustered, delong(codes, score, persons=persons)),
            (naive, delong(codes, score)),
        ):
            kept.append(found["low"] <= truth <= found["high"])
    assert np.mean(clustered) >= 0.90
    assert np.mean(naive) <= 0.80


def test_equal_aucs_are_found_different_at_the_stated_rate_and_others_more_often():
    random = np.random.default_rng(4)
    rates = []
    for effect in (1.0, 0.2):
        p = []
        for _ in range(200):
            codes, common = np.arange(80) % 2, random.normal(size=80)
            first, second = (
                effect_of * codes + common + random.normal(size=80) for effect_of in (1.0, effect)
            )
            p.append(delong_test(codes, first, second)["p"])
        rates.append(np.mean(np.array(p) < 0.05))
    assert rates[0] <= 0.10
    assert rates[1] > 0.4


@pytest.mark.parametrize("classes", [2, 3])
def test_values_are_those_of_scikit_learn(classes):
    random = np.random.default_rng(5)
    codes, fold = random.integers(classes, size=120), np.arange(120) // 60
    decision = np.round(random.normal(size=(120, classes)) + np.eye(classes)[codes], 1)
    decision = decision[:, 1] - decision[:, 0] if classes == 2 else decision
    learned = [learn_from(codes[fold != k], decision[fold != k]) for k in range(2)]
    report = clinical_report(codes, decision, fold, learned, resamples=20)
    json.dumps(report, allow_nan=False)
    expected = {"auc": [], "average_precision": [], "balanced_accuracy": []}
    for k in range(2):
        y, s = codes[fold == k], decision[fold == k]
        columns = [(y == 1, s)] if classes == 2 else [(y == c, s[:, c]) for c in range(3)]
        expected["auc"].append(np.mean([roc_auc_score(*c) for c in columns]))
        expected["average_precision"].append(
            np.mean([average_precision_score(*c) for c in columns])
        )
        called = (s > 0).astype(int) if classes == 2 else s.argmax(axis=1)
        expected["balanced_accuracy"].append(balanced_accuracy_score(y, called))
    for name, values in expected.items():
        assert report[name]["value"] == pytest.approx(np.mean(values))
        assert report[name]["low"] <= report[name]["value"] <= report[name]["high"]
    p = np.concatenate(
        [one.calibration.probabilities(decision[fold == k]) for k, one in enumerate(learned)]
    )
    briers = [brier_score_loss(codes == c, p[:, c]) for c in range(classes)]
    assert report["brier"]["value"] == pytest.approx(np.mean(briers))
    assert report["auc"]["delong"]["value"] == pytest.approx(report["auc"]["value"])
    assert report["reasons"] == {}


def test_average_precision_with_weights_is_that_of_scikit_learn():
    random = np.random.default_rng(6)
    positive, score = random.random(50) < 0.3, np.round(random.normal(size=50), 1)
    weights = random.integers(0, 4, size=(5, 50)).astype(float)
    expected = [average_precision_score(positive, score, sample_weight=w) for w in weights]
    assert average_precision(positive, score, weights) == pytest.approx(np.array(expected))


def test_a_threshold_reaches_its_goal_where_it_is_chosen_and_gives_the_least_away():
    random = np.random.default_rng(7)
    positive = random.random(200) < 0.4
    score = np.round(positive + random.normal(size=200), 1)
    candidates = np.concatenate([np.unique(score), [score.min() - 1]])
    for goal, wanted in GOALS.items():
        found = choose_threshold(positive, score, goal)
        called = score > found.value
        assert called[positive].mean() == pytest.approx(found.sensitivity)
        assert (~called)[~positive].mean() == pytest.approx(found.specificity)
        rates = np.array(
            [((score > t)[positive].mean(), (score <= t)[~positive].mean()) for t in candidates]
        )
        if wanted is None:
            assert found.sensitivity + found.specificity == pytest.approx(rates.sum(axis=1).max())
            continue
        side = ("sensitivity", "specificity").index(wanted[0])
        enough = rates[rates[:, side] >= wanted[1] - 1e-12]
        assert (found.sensitivity, found.specificity)[side] >= wanted[1] - 1e-12
        assert (found.sensitivity, found.specificity)[1 - side] == enough[:, 1 - side].max()
    with pytest.raises(EvaluationError, match="no goal 'specificity'"):
        choose_threshold(positive, score, "specificity")
    with pytest.raises(EvaluationError, match="both classes"):
        choose_threshold(positive | True, score, "balanced")


def test_the_calibration_error_is_that_of_ten_equal_groups():
    random = np.random.default_rng(3)
    probability = random.uniform(size=200)
    positive = random.uniform(size=200) < probability**2
    table = pd.DataFrame({"p": probability, "y": positive})
    groups = table.groupby(pd.qcut(table["p"], 10), observed=True)
    gaps = (groups["p"].mean() - groups["y"].mean()).abs()
    expected = (gaps * groups.size()).sum() / len(table)
    assert calibration(positive, probability)["ece"] == pytest.approx(expected)


@pytest.mark.parametrize("kind", [fit, fit_knn])
def test_thresholds_and_probabilities_of_the_training_part_carry_over(kind, every_draw):
    """Of many new subjects, the specificity is near the one asked for, and the slope near 1."""
    random = np.random.default_rng(8)
    features = random.normal(size=(1200, 5))
    codes = (features[:, 0] + random.normal(0, 1, 1200) > 0.5).astype(int)
    train, test = np.arange(300), np.arange(300, 1200)
    arguments = {"seed": 0} if kind is fit_knn else {"protocol": "linear", "seed": 0}
    fitted = kind(features=features[train], codes=codes[train], **arguments)
    learned = learn(refits(fitted, features[train], codes[train]), codes[train], seed=0)
    fold = np.zeros(900, int)
    report = clinical_report(
        codes[test], fitted.decision(features[test]), fold, [learned], resamples=50
    )
    for goal in ("specificity_90", "sensitivity_90"):
        side = GOALS[goal][0]
        assert report["operating"][goal]["training"][side] >= 0.9
        assert abs(report["operating"][goal][side]["value"] - 0.9) < 0.06
    slope = report["calibration"]["slope"]
    assert slope["low"] < 1.1
    assert slope["high"] > 0.9
    assert report["calibration"]["ece"] < 0.08
    assert report["brier"]["high"] < report["brier"]["prior"]


def test_slope_and_intercept_are_of_logistic_regressions():
    random = np.random.default_rng(9)
    logit = random.normal(0, 1.5, 4000)
    positive = random.random(4000) < 1 / (1 + np.exp(-(0.5 * logit + 0.7)))
    found = calibration(positive, 1 / (1 + np.exp(-logit)))
    free = LogisticRegression(C=1e10, tol=1e-10, max_iter=1000).fit(logit[:, None], positive)
    assert found["slope"]["value"] == pytest.approx(free.coef_[0, 0], abs=1e-4)
    assert found["slope"]["low"] < 0.5 < found["slope"]["high"]
    # The intercept beside a slope held at 1 makes the mean probability the share of positives.
    moved = 1 / (1 + np.exp(-(logit + found["intercept"]["value"])))
    assert moved.mean() == pytest.approx(positive.mean())


def test_the_interval_of_the_slope_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(10)
    inside = []
    for _ in range(150):
        logit = random.normal(0, 1.5, 150)
        positive = random.random(150) < 1 / (1 + np.exp(-logit))
        slope = calibration(positive, 1 / (1 + np.exp(-logit)))["slope"]
        inside.append(slope["low"] <= 1 <= slope["high"])
    assert 0.90 <= np.mean(inside) <= 0.99


def test_the_calibration_curve_is_that_of_scikit_learn():
    random = np.random.default_rng(11)
    probability = random.random(200)
    positive = random.random(200) < probability
    found = calibration_curve(positive, probability)
    observed, predicted = sklearn_curve(positive, probability, n_bins=10, strategy="quantile")
    assert found["observed"] == pytest.approx(observed.tolist())
    assert found["predicted"] == pytest.approx(predicted.tolist())
    assert sum(found["n"]) == 200
    assert calibration_curve(positive, np.full(200, 0.5))["n"] == [200]


def test_net_benefit_of_acting_on_everybody_meets_the_model_at_low_thresholds():
    random = np.random.default_rng(12)
    probability = random.uniform(0.05, 1, 300)
    positive = random.random(300) < probability
    found = net_benefit(positive, probability)
    assert found["model"][:4] == pytest.approx(found["all"][:4])
    called = probability >= 0.3
    by_hand = ((called & positive).sum() - (called & ~positive).sum() * 0.3 / 0.7) / 300
    assert found["model"][29] == pytest.approx(by_hand)
    assert max(found["all"][60:]) < max(found["model"][60:])


def test_what_cannot_be_taken_is_none_with_a_reason_and_never_a_crash():
    codes, fold = np.array([0, 1] * 20), np.repeat([0, 1], 20)
    constant = clinical_report(codes, np.zeros(40), fold, [learn_from(codes, np.zeros(40))] * 2)
    assert constant["auc"]["delong"]["low"] is None
    assert "all subjects have the same score" in constant["reasons"]["delong"]
    assert constant["calibration"]["slope"] is None
    assert "all probabilities are the same" in constant["reasons"]["calibration of 1"]
    perfect = clinical_report(codes, codes - 0.5, fold, [learn_from(codes, codes - 0.5)] * 2)
    assert perfect["auc"]["value"] == 1
    assert perfect["auc"]["delong"]["high"] is None
    assert "without an error" in perfect["reasons"]["calibration of 1"]
    one_class = np.where(fold == 0, 1, codes)
    found = clinical_report(one_class, np.arange(40.0), fold, resamples=50)
    assert "fold 0" in found["reasons"]["delong"]
    assert found["auc"]["value"] == roc_auc_score(codes[20:], np.arange(20))
    assert "nothing was learned" in found["reasons"]["brier"]
    why = clinical_report(one_class, np.arange(40.0), fold, resamples=50, unlearned="so it is")
    assert why["reasons"]["operating"] == "so it is"
    nobody = clinical_report(np.ones(40, int), np.arange(40.0), fold, resamples=50)
    assert nobody["auc"]["value"] is None
    assert "one class only" in nobody["reasons"]["delong"]
    for report in (constant, perfect, found, nobody):
        json.dumps(report, allow_nan=False)
    same = delong_test(codes, codes * 1.0, codes * 2.0)
    assert same["p"] is None
    assert "order all pairs alike" in same["reason"]


def test_a_training_part_that_is_too_small_says_so():
    codes = np.array([0, 0, 0, 1])
    learned = learn(lambda _, held: np.zeros(len(held)), codes, seed=0)
    assert learned == Learned(reason=learned.reason)
    assert "one participant only" in learned.reason
    x = np.random.default_rng(13).normal(size=(12, 3))
    crowded = fit_knn(x, np.arange(12) % 2, seed=0)
    crowded.model[-1].set_params(n_neighbors=11)
    told = learn(refits(crowded, x, np.arange(12) % 2), np.arange(12) % 2, seed=0)
    assert "nothing could be held out" in told.reason
    report = clinical_report(codes, np.arange(4.0), np.zeros(4, int), [learned], resamples=10)
    assert report["operating"] is None
    assert "one participant only" in report["reasons"]["operating"]


def test_arrays_that_do_not_fit_are_refused():
    codes = np.array([0, 1])
    with pytest.raises(EvaluationError, match="2 classes, 3 decisions and 2 folds"):
        clinical_report(codes, np.zeros(3), np.zeros(2, int))
    with pytest.raises(EvaluationError, match="not finite"):
        clinical_report(codes, np.array([0, np.nan]), np.zeros(2, int))
    with pytest.raises(EvaluationError, match="1 learned for 2 folds"):
        clinical_report(codes, np.zeros(2), np.array([0, 1]), [Learned()])
