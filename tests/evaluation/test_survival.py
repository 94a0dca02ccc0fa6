"""Survival: R's published figures, independent formulas, bad tables, and simulations."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from vitaepp.errors import EvaluationError, MissingPackageError
from vitaepp.evaluation import cox
from vitaepp.evaluation.cox import fit_survival
from vitaepp.evaluation.followup import Survival, event_words, read_survival, survival_doubts
from vitaepp.evaluation.measures import TASKS
from vitaepp.evaluation.survival import (
    auc_times,
    concordance_interval,
    integrated_brier,
    over_time,
    survival_halves,
    survival_scores,
    time_dependent_auc,
)

pytest.importorskip("sksurv")

#: Weeks until relapse of 23 patients with acute myelogenous leukaemia, `aml` of R's survival.
AML = Survival(
    np.array(
        [9.0, 13, 13, 18, 23, 28, 31, 34, 45, 48, 161, 5, 5, 8, 8, 12, 16, 23, 27, 30, 33, 43, 45]
    ),
    np.array(list("11011011010111110111111")) == "1",
)
MAINTAINED = np.arange(23) < 11


def _drawn(random, n, effect=1.0, features=5):
    """The hazard depends on the first feature; two fifths are censored."""
    x = random.normal(size=(n, features))
    time, end = random.exponential(np.exp(-effect * x[:, 0])), random.exponential(1.5, n)
    return x, Survival(np.minimum(time, end) + 1e-6, time < end)


def test_the_log_rank_test_and_curves_are_those_of_r():
    """`survdiff` prints Chisq= 3.4, p= 0.0653; `survfit` 0.614 at 23 weeks, maintained."""
    found = survival_halves(AML, ~MAINTAINED)
    assert round(found["logrank"]["chi2"], 1) == 3.4
    assert round(found["logrank"]["p"], 4) == 0.0653
    low = found["low"]
    assert round(dict(zip(low["time"], low["survival"], strict=True))[23.0], 3) == 0.614
    assert (low["n"], low["events"], found["high"]["n"], found["high"]["events"]) == (11, 7, 12, 11)
    assert low["survival"][0] == 1
    assert low["at_risk"][:2] == [11, 11]
    json.dumps(found, allow_nan=False)


def test_halves_that_are_never_at_risk_together_have_no_log_rank_test():
    times = Survival(np.array([30.0, 35, 40, 5, 6, 7]), np.array([1, 1, 0, 0, 0, 0], bool))
    found = survival_halves(times, np.array([1, 1, 1, 0, 0, 0], bool))
    assert (found["logrank"], found["reason"]) == (None, "at no event are both halves at risk")


def test_halves_are_of_persons():
    rows, persons = np.repeat(np.arange(23), 3), np.repeat(np.arange(23), 3)
    found = survival_halves(AML[rows], ~MAINTAINED[rows], persons)
    assert found == survival_halves(AML, ~MAINTAINED)


def test_concordance_and_its_error_are_those_of_r():
    """`summary(coxph(Surv(time, status) ~ x, aml))` prints Concordance= 0.619 (se = 0.063)."""
    found = concordance_interval(AML, 1.0 - MAINTAINED, np.zeros(23, int))
    assert round(found["value"], 3) == 0.619
    assert round(found["se"], 3) == 0.063


def test_without_ridge_the_regression_is_that_of_r(monkeypatch):
    """`coxph(Surv(time, status) ~ x, aml)` prints 0.9155, with Efron's ties as R has them."""
    monkeypatch.setattr(cox, "GRID", (1e-9,))
    x = (1.0 - MAINTAINED)[:, None]
    fitted = fit_survival(x, AML.time, AML.event, seed=0)
    assert np.ptp(fitted.decision(x)) == pytest.approx(0.9155, abs=1e-4)


def test_ridge_maximises_the_penalised_likelihood(monkeypatch):
    monkeypatch.setattr(cox, "GRID", (2.0,))
    random = np.random.default_rng(0)
    x, times = _drawn(random, 80, features=4)
    z = np.clip((x - x.mean(0)) / x.std(0), -3, 3)

    def loss(w):
        risk = z @ w
        at_risk = times.time >= times.time[:, None]
        sums = np.log(np.where(at_risk, np.exp(risk), 0).sum(axis=1))
        return -np.sum((risk - sums)[times.event]) + 2.0 * 4 / 2 * w @ w

    best = z @ minimize(loss, np.zeros(4), tol=1e-10).x
    found = fit_survival(x, times.time, times.event, seed=0).decision(x)
    assert found - found.mean() == pytest.approx(best - best.mean(), abs=1e-4)


def test_more_features_than_subjects_give_the_same_model_rotated_or_not():
    random = np.random.default_rng(1)
    x, times = _drawn(random, 60, features=80)
    fitted = cox._fit_grid(x, times, (3.0,), pca=False)[0]
    assert "rotation" in fitted.named_steps
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    z = np.clip((x - x.mean(0)) / x.std(0), -3, 3)
    whole = CoxPHSurvivalAnalysis(alpha=3.0 * 80, ties="efron").fit(z, times.structured())
    found, expected = fitted.predict(x), whole.predict(z)
    assert found - found.mean() == pytest.approx(expected - expected.mean(), abs=1e-6)


def test_the_log_likelihood_is_that_of_the_definition():
    risk = np.random.default_rng(2).normal(size=23)
    expected = 0.0
    for i in np.flatnonzero(AML.event):
        expected += risk[i] - np.log(np.exp(risk[AML.time >= AML.time[i]]).sum())
    assert cox._log_likelihood(AML, risk) == pytest.approx(expected)


def test_concordance_is_that_of_scikit_survival_in_pieces_or_at_once(monkeypatch):
    from sksurv.metrics import concordance_index_censored

    random = np.random.default_rng(3)
    x, times = _drawn(random, 70)
    times = Survival(np.ceil(times.time * 10), times.event)
    risk = np.round(x[:, 0], 1)
    expected = concordance_index_censored(times.event, times.time, risk, tied_tol=0)[0]
    whole = concordance_interval(times, risk, np.zeros(70, int))
    assert whole["value"] == pytest.approx(expected)
    monkeypatch.setattr("vitaepp.evaluation.survival.PAIRS", 100)
    assert concordance_interval(times, risk, np.zeros(70, int)) == pytest.approx(whole)


def _censoring(train, t):
    """The probability of being followed beyond t, by Kaplan and Meier, up to and with t."""
    value = 1.0
    for c in np.unique(train.time[~train.event]):
        if c <= t:
            ended = ((train.time == c) & ~train.event).sum()
            value *= 1 - ended / (train.time >= c).sum()
    return value


def test_uno_s_concordance_and_the_auc_are_those_of_their_definitions():
    random = np.random.default_rng(4)
    x, times = _drawn(random, 120)
    train, test, risk = times[:80], times[80:], x[80:, 0]
    found = survival_scores(train, test, risk)
    end = train.time.max()
    # Weights of censoring are taken just before the end of follow-up, where they exist.
    event = test.event & (test.time <= end)
    time = np.minimum(test.time, np.nextafter(end, 0))
    above = below = 0.0
    for i in np.flatnonzero(event):
        weight = 1 / _censoring(train, time[i]) ** 2
        later = time > time[i]
        above += weight * ((risk[i] > risk[later]) + 0.5 * (risk[i] == risk[later])).sum()
        below += weight * later.sum()
    assert found["c_uno"] == pytest.approx(above / below)

    each = time_dependent_auc(train, test, risk)
    assert [one["time"] for one in each] == auc_times(train, test).tolist()
    for one in each:
        case, control = event & (time <= one["time"]), time > one["time"]
        weight = np.array([1 / _censoring(train, t) for t in time[case]])
        wins = (risk[case][:, None] > risk[control]).sum(axis=1)
        assert one["auc"] == pytest.approx((weight * wins).sum() / (weight.sum() * control.sum()))
        assert one["events"] == (test.event & (test.time <= one["time"])).sum()
    assert min(o["auc"] for o in each) <= found["auc"] <= max(o["auc"] for o in each)


def test_an_effect_is_found_and_the_strength_follows_it():
    random = np.random.default_rng(5)
    x, times = _drawn(random, 400, effect=1.5)
    fitted = fit_survival(x[:150], times.time[:150], times.event[:150], seed=0)
    risk = fitted.decision(x[150:])
    found = survival_scores(times[:150], times[150:], risk)
    assert tuple(found) == TASKS["survival"].names
    assert min(found.values()) > 0.75
    halves = survival_halves(times[150:], risk > fitted.middle)
    assert halves["logrank"]["p"] < 1e-4
    brier, everybody = integrated_brier(fitted.learned(times[:150]), times[150:], risk)
    assert 0 < brier < 0.2
    assert everybody > brier + 0.03
    noise = random.normal(size=(150, 5))
    blind = fit_survival(noise, times.time[:150], times.event[:150], seed=0)
    assert blind.strength > fitted.strength
    unrelated = blind.decision(random.normal(size=(250, 5)))
    assert integrated_brier(blind.learned(times[:150]), times[150:], unrelated)[0] > brier + 0.03
    over = over_time([fitted.learned(times[:150])], times[150:], risk, np.zeros(250, int))
    each = time_dependent_auc(times[:150], times[150:], risk)
    assert [one["auc"] for one in over["auc"]] == [one["auc"] for one in each]
    assert (over["brier"]["value"], over["brier"]["reference"]) == (brier, everybody)
    assert over["brier"]["std"] is None


def test_predicted_survival_is_that_of_scikit_survival():
    random = np.random.default_rng(6)
    x, times = _drawn(random, 60)
    fitted = fit_survival(x, times.time, times.event, seed=0)
    at = np.array([0.05, 0.3, 0.9])
    functions = fitted.model.predict_survival_function(x[:4])
    learned, risk = fitted.learned(times), fitted.decision(x)
    assert learned.survival(risk[:4], at) == pytest.approx(np.stack([f(at) for f in functions]))
    assert learned.survival(risk[:2], np.array([0.0])) == pytest.approx(1.0)


def test_the_brier_score_is_that_of_scikit_survival_and_of_the_formula_without_censoring():
    from sksurv.metrics import integrated_brier_score

    random = np.random.default_rng(12)
    x, times = _drawn(random, 200)
    fitted = fit_survival(x[:120], times.time[:120], times.event[:120], seed=0)
    risk = fitted.decision(x[120:])
    train, test = times[:120], times[120:]
    low, high = np.quantile(train.time[train.event], [0.1, 0.9])
    at = np.linspace(low, high, 50)
    curves = np.stack([f(at) for f in fitted.model.predict_survival_function(x[120:])])
    expected = integrated_brier_score(train.structured(), test.structured(), curves, at)
    assert integrated_brier(fitted.learned(train), test, risk)[0] == pytest.approx(expected)
    # Nobody censored: the squared distance of what was predicted from what came.
    train, test = (Survival(t.time, np.ones(len(t), bool)) for t in (train, test))
    learned = fitted.learned(train)
    at = np.linspace(*np.quantile(train.time, [0.1, 0.9]), 50)
    each = ((test.time[:, None] > at) - learned.survival(risk, at)) ** 2
    plain = np.trapezoid(each.mean(axis=0), at) / np.ptp(at)
    assert integrated_brier(learned, test, risk)[0] == pytest.approx(plain)


def test_what_no_fold_gives_over_time_is_none():
    x, times = _drawn(np.random.default_rng(13), 60)
    fitted = fit_survival(x[:40], times.time[:40], times.event[:40], seed=0)
    without = Survival(times.time[40:], np.zeros(20, bool))
    found = over_time([fitted.learned(times[:40])], without, x[40:, 0], np.zeros(20, int))
    assert [one["auc"] for one in found["auc"]] == [None] * 3
    assert found["auc"][0]["folds"] == 0


@pytest.mark.parametrize(("persons", "folds", "least"), [(90, 1, 0.9), (90, 3, 0.9), (40, 5, 0.88)])
def test_the_interval_of_concordance_holds_the_truth_as_often_as_it_says(persons, folds, least):
    random = np.random.default_rng(7)
    x, times = _drawn(random, 4000)
    truth = concordance_interval(times, x[:, 0], np.zeros(4000, int))["value"]
    inside, of_persons = [], []
    for _ in range(150):
        x, times = _drawn(random, persons)
        found = concordance_interval(times, x[:, 0], np.arange(persons) % folds)
        inside.append(found["low"] <= truth <= found["high"])
        twice = np.tile(np.arange(persons), 2)
        again = concordance_interval(
            times[twice], x[twice, 0], twice % folds, persons=twice.astype(np.intp)
        )
        of_persons.append(again["se"] / found["se"])
    assert least <= np.mean(inside) <= 0.99
    # Every image twice is no more people: ties of equal times apart, the error stays.
    assert np.mean(of_persons) == pytest.approx(1, abs=0.05)


def test_all_rows_of_a_person_are_held_out_together():
    """A person's own noise tells its time; only held out by person is it seen to tell nothing."""
    random = np.random.default_rng(8)
    x, times = _drawn(random, 40, effect=0, features=30)
    four = np.repeat(np.arange(40), 4)
    x, times = x[four] + random.normal(0, 0.01, (160, 30)), times[four]
    by_person = fit_survival(x, times.time, times.event, seed=0, persons=four)
    by_row = fit_survival(x, times.time, times.event, seed=0)
    assert by_person.strength > by_row.strength


def _table(**columns):
    base = {"subject": ["a", "b", "c", "d"], "months": [1, 2.5, 3, 4], "dead": [1, 0, 1, 0]}
    return pd.DataFrame(base | columns)


@pytest.mark.parametrize(
    "events",
    [
        [1, 0, 1, 0],
        [1.0, 0.0, 1.0, 0.0],
        [True, False, True, False],
        ["dead", "Alive", "DEAD", "alive"],
        ["deceased", "living", "Yes", "censored"],
        ["1", "0", " 1.0", "0.0"],
    ],
)
def test_events_are_read_as_people_write_them(events):
    rows, found = read_survival(_table(dead=events), "months", "dead")
    assert rows.tolist() == [0, 1, 2, 3]
    assert found.event.tolist() == [True, False, True, False]
    assert found.time.tolist() == [1, 2.5, 3, 4]


def test_subjects_without_a_time_or_an_event_are_left_out():
    rows, found = read_survival(
        _table(months=[1, None, 3, 4], dead=["1", "0", "", "0"]), "months", "dead"
    )
    assert rows.tolist() == [0, 3]
    assert found.time.tolist() == [1, 4]


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({"months": [1, -2, 3, 0]}, "'-2' of subject b is no time above 0 (2 such subjects)"),
        ({"months": ["1", "soon", "3", "4"]}, "'soon' of subject b is no time above 0"),
        ({"months": [1, np.inf, 3, 4]}, "'inf' of subject b is no time above 0"),
        ({"dead": [1, 2, 1, 2]}, "'2' of subject b is neither an event nor none (2 such"),
        ({"dead": ["dead", "lost", "alive", "x"]}, "'lost' of subject b is neither"),
        ({"dead": [0, 0, 0, 0]}, "none of 4 subjects has an event"),
        ({"dead": [None] * 4}, "no subject has both 'months' and 'dead'"),
        ({"months": [2, 2, 2, 2]}, "all 4 subjects have the same time 2"),
    ],
)
def test_a_bad_table_gets_its_line(columns, line):
    with pytest.raises(EvaluationError) as error:
        read_survival(_table(**columns), "months", "dead")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_column_that_is_not_there_names_the_nearest():
    with pytest.raises(
        EvaluationError, match="no column 'month' for survival; did you mean months"
    ):
        read_survival(_table(), "month", "dead")


def test_events_of_one_kind_are_asked_about():
    assert survival_doubts(Survival(np.ones(2), np.array([True, False])), "dead") == []
    (line,) = survival_doubts(Survival(np.ones(2), np.array([True, True])), "dead")
    assert "all 2 subjects have an event, none is censored" in line


@pytest.mark.parametrize(
    ("event", "words", "told"),
    [
        ("censored", [1, 0], "1 counts as an event, but the column is called censored"),
        ("isAlive", [True, False], "true counts as an event, but the column is called alive"),
        ("censored", ["event", "censored"], ""),
        ("dead", [1.0, 0.0], ""),
        ("dead", ["yes", "None"], "'none' (1 subject) counts as censored"),
    ],
)
def test_events_that_may_be_meant_the_other_way_are_asked_about(event, words, told):
    times = Survival(np.ones(2), np.array([True, False]))
    lines = survival_doubts(times, event, event_words(pd.Series(words, dtype=object)))
    assert told in "".join(lines)
    assert bool(lines) == bool(told)


@pytest.mark.parametrize("censored", [0, 1])
def test_hardly_anybody_need_be_censored(censored):
    x, times = _drawn(np.random.default_rng(9), 30)
    fitted = fit_survival(x, times.time, np.arange(30) >= censored, seed=0)
    assert np.isfinite(fitted.decision(x)).all()


def test_too_few_events_are_refused():
    x, times = _drawn(np.random.default_rng(9), 30)
    rare = times.event & (np.cumsum(times.event) <= 4)
    with pytest.raises(EvaluationError, match="4 participants with an event to fit on"):
        fit_survival(x, times.time, rare, seed=0)


def test_what_cannot_be_scored_is_nan_or_none():
    x, times = _drawn(np.random.default_rng(10), 60)
    train, test = times[:40], Survival(times.time[40:], np.zeros(20, bool))
    assert all(np.isnan(v) for v in survival_scores(train, test, x[40:, 0]).values())
    assert time_dependent_auc(train, test, x[40:, 0]) == []
    found = concordance_interval(test, x[40:, 0], np.zeros(20, int))
    assert found["value"] is None
    assert "no pair" in found["reason"]
    assert "one half" in survival_halves(test, np.zeros(20, bool))["reason"]
    assert "no subject has an event" in survival_halves(test, np.arange(20) < 9)["reason"]
    # A test part that was followed for longer than the training part, or hardly at all.
    late = Survival(times.time[40:] + 100, np.ones(20, bool))
    assert np.isnan(survival_scores(train, late, x[40:, 0])["c_uno"])
    constant = concordance_interval(times, np.zeros(60), np.zeros(60, int))
    assert constant["value"] == 0.5
    assert constant["low"] is None


def test_without_the_package_the_line_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sksurv", None)
    with pytest.raises(MissingPackageError, match=r"survival needs sksurv.*vitaepp\[survival\]"):
        fit_survival(np.zeros((4, 2)), np.ones(4), np.ones(4, bool), seed=0)
