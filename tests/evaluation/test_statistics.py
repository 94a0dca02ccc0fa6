"""Tests and intervals: published examples, independent formulas, and what holds under chance."""

import itertools
import math
from functools import cache

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import make_moons
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.svm import SVC

from vitaepp.errors import EvaluationError
from vitaepp.evaluation import bootstrap, ordinal, regression
from vitaepp.evaluation.bootstrap import Predictions, bootstrap_difference, weighted_score
from vitaepp.evaluation.measures import TASKS
from vitaepp.evaluation.scores import fold_scores
from vitaepp.evaluation.statistics import (
    corrected_resampled_t_test,
    crossed_t_test,
    holm,
    mcnemar,
    paired_difference,
    sign_flip_test,
)

METRICS = TASKS["classification"].names


def test_the_published_example_of_scikit_learn():
    """Its page prints t = 0.750 and one-sided p = 0.227 (uncorrected 2.611 and 0.005).

    scikit-learn, "Statistical comparison of models using grid search".
    """
    X, y = make_moons(noise=0.352, random_state=1, n_samples=100)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    rbf, linear = (
        cross_val_score(SVC(kernel=kernel, random_state=0), X, y, scoring="roc_auc", cv=folds)
        for kernel in ("rbf", "linear")
    )
    found = corrected_resampled_t_test(rbf - linear, train=90, test=10)
    assert f"{found.t:.3f} {found.p / 2:.3f}" == "0.750 0.227"
    plain = paired_difference(rbf, linear, resamples=10).t
    assert f"{plain.t:.3f} {plain.p / 2:.3f}" == "2.611 0.005"


def test_without_overlap_the_corrected_test_is_the_ordinary_one():
    differences = np.random.default_rng(0).normal(0.3, 1, 12)
    found = corrected_resampled_t_test(differences, train=1e12, test=1)
    ordinary = stats.ttest_1samp(differences, 0)
    assert (found.t, found.df, found.p) == pytest.approx(
        (ordinary.statistic, ordinary.df, ordinary.pvalue)
    )
    # As many as 1 / (1/12 + 1/4) = 3 independent differences would tell.
    folds = corrected_resampled_t_test(differences, train=4, test=1)
    assert folds.t == pytest.approx(ordinary.statistic * math.sqrt(3 / 12))
    assert corrected_resampled_t_test(-differences, train=4, test=1).p == folds.p


@pytest.mark.parametrize("test", [corrected_resampled_t_test, crossed_t_test])
def test_differences_that_do_not_vary(test):
    shape = (5,) if test is corrected_resampled_t_test else (3, 5)
    level = test(np.zeros(shape), train=4, test=1)
    assert (level.t, level.p) == (0, 1)
    ahead = test(np.full(shape, -0.1), train=4, test=1)
    assert (ahead.t, ahead.p) == (-math.inf, 0)
    assert ahead.to_json()["t"] is None


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(EvaluationError, match="at least two"):
        corrected_resampled_t_test(np.array([0.1]), train=4, test=1)
    with pytest.raises(EvaluationError, match="not finite"):
        corrected_resampled_t_test(np.array([0.1, np.nan]), train=4, test=1)
    with pytest.raises(EvaluationError, match="4 values against 5"):
        paired_difference(np.zeros(4), np.zeros(5))


def test_under_chance_the_corrected_test_keeps_its_level_and_others_do_not():
    """AUCs of equally good classifiers on 300 cohorts, by 10 × 5 folds of the same 80 subjects."""
    random, codes = np.random.default_rng(0), np.arange(80) % 2
    p = []
    for _ in range(300):
        features = random.normal(size=(2, 80, 8)) + 0.3 * codes[:, None]
        differences = []
        for _ in range(10):
            fold_of = np.empty(80, int)
            for c in (0, 1):
                fold_of[codes == c] = random.permutation(40) % 5
            differences += [_lead(*features, codes, fold_of == k) for k in range(5)]
        d = np.array(differences)
        every = corrected_resampled_t_test(d, train=64, test=16)
        one = corrected_resampled_t_test(d, train=64, test=16, repetitions=10)
        p.append([one.p, every.p, stats.ttest_1samp(d, 0).pvalue])
    found = (np.array(p) < 0.05).mean(axis=0)
    assert found[0] <= 0.05
    # Folds of ten draws are not fifty folds of other subjects, nor independent of each other.
    assert found[1] >= 0.07
    assert found[2] > 0.5


def _lead(first, second, codes, test):
    """The AUC of one set of features less that of the other, by the axis between the centroids."""
    areas = []
    for x in (first, second):
        high, low = (x[~test & (codes == c)].mean(axis=0) for c in (1, 0))
        score = x[test] @ (high - low)
        areas.append(np.mean(score[codes[test] == 1][:, None] > score[codes[test] == 0]))
    return areas[0] - areas[1]


@pytest.mark.parametrize(("fold", "seed", "rest"), [(1, 0.1, 0.1), (0.1, 1, 0.1), (0, 0, 1)])
def test_seeds_on_the_same_folds_are_not_taken_for_more_folds(fold, seed, rest):
    """Whether folds differ, seeds, or neither: the level is kept; pooled, it is not."""
    random = np.random.default_rng(0)
    crossed, pooled = [], []
    for _ in range(500):
        # Folds that share training subjects correlate by test / (test + train) = 0.2.
        folds = math.sqrt(0.8) * random.normal(size=5) + math.sqrt(0.2) * random.normal()
        d = fold * folds + seed * random.normal(size=(3, 1)) + rest * random.normal(size=(3, 5))
        crossed.append(crossed_t_test(d, train=4, test=1).p)
        if rest < 1:
            pooled.append(corrected_resampled_t_test(d.ravel(), train=4, test=1).p)
    assert np.mean(np.array(crossed) < 0.05) <= 0.075
    if rest < 1:
        assert np.mean(np.array(pooled) < 0.05) > 0.1


def test_one_seed_crossed_with_its_folds_is_the_corrected_test():
    d = np.random.default_rng(0).normal(size=5)
    assert crossed_t_test(d[None], train=80, test=20) == corrected_resampled_t_test(
        d, train=80, test=20
    )


def test_mcnemar_is_the_binomial_of_those_who_disagree():
    first = np.array([True] * 10 + [False] * 3 + [True] * 20 + [False] * 5)
    second = np.array([False] * 10 + [True] * 3 + [True] * 20 + [False] * 5)
    found = mcnemar(first, second)
    assert (found.first_only, found.second_only) == (10, 3)
    assert found.p == pytest.approx(2 * stats.binom.cdf(3, 13, 0.5))
    assert mcnemar(second, first).p == found.p
    assert mcnemar(first, first).p == 1
    assert sign_flip_test(first.astype(int) - second.astype(int)) == pytest.approx(found.p)


def test_the_sign_flip_test_counts_every_choice_of_signs():
    random = np.random.default_rng(0)
    for _ in range(5):
        d = random.integers(-3, 4, size=9)
        sums = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=9)]
        assert sign_flip_test(d) == pytest.approx(np.mean(np.array(sums) >= abs(d.sum())))
    assert sign_flip_test(np.zeros(4, int)) == 1
    # A test set of ten thousand under three seeds.
    assert 0 <= sign_flip_test(random.integers(-3, 4, size=10_000)) <= 1


def test_holm_rejects_what_its_step_down_rule_rejects():
    p = np.random.default_rng(0).uniform(0, 0.1, size=8)
    corrected = np.array(holm(list(p)))
    for level in np.linspace(0.001, 0.6, 200):
        rejected = set()
        for rank, i in enumerate(np.argsort(p)):
            if p[i] * (8 - rank) > level:
                break
            rejected.add(i)
        assert set(np.flatnonzero(corrected <= level)) == rejected
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
    assert max(holm([0.5, 0.9])) == 1


def test_a_paired_difference_has_scipys_tests_and_an_interval_that_holds_the_mean():
    random = np.random.default_rng(0)
    first = random.normal(20, 3, size=40)
    second = first + random.normal(0.5, 1, size=40)
    found = paired_difference(first, second)
    t = stats.ttest_rel(first, second)
    assert (found.t.t, found.t.p) == pytest.approx((t.statistic, t.pvalue))
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(first, second).pvalue)
    other = stats.bootstrap((first - second,), np.mean, method="percentile", rng=random)
    assert (found.interval.low, found.interval.high) == pytest.approx(
        tuple(other.confidence_interval), abs=0.05
    )
    same = paired_difference(first, first)
    assert (same.mean, same.t.p, same.wilcoxon_p) == (0, 1, 1)
    assert (same.interval.low, same.interval.high) == (0, 0)


def random_predictions(n, folds, classes, seeds, random, tied=False):
    """Two methods on the same subjects, and new folds for every seed."""
    codes = random.permutation(n) % classes
    sides = [], []
    for _ in range(seeds):
        fold_of = np.empty(n, int)
        for c in range(classes):
            members = np.flatnonzero(codes == c)
            fold_of[members] = random.permutation(len(members)) % folds
        order = np.argsort(fold_of, kind="stable")
        for side in sides:
            scores = random.normal(size=(n, classes)) + 0.7 * np.eye(classes)[codes]
            scores = scores[:, 1] - scores[:, 0] if classes == 2 else scores
            scores = np.round(scores) if tied else scores
            side.append(Predictions(order, fold_of[order], codes[order], scores[order]))
    return sides


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_with_every_subject_once_the_scores_are_those_of_the_evaluation(classes, tied, metric):
    (part,), _ = random_predictions(60, 1, classes, 1, np.random.default_rng(0), tied)
    found = weighted_score(part.codes, part.scores, np.ones((3, 60)), metric)
    assert found.tolist() == [fold_scores(part.codes, part.scores)[metric]] * 3


@pytest.mark.parametrize("classes", [2, 3])
def test_an_unknown_metric_has_no_bootstrap(classes):
    (part,), _ = random_predictions(20, 1, classes, 1, np.random.default_rng(0))
    ranks = np.eye(classes)[part.codes]
    for score in (
        lambda: weighted_score(part.codes, part.scores, np.ones((3, 20)), "mcc"),
        lambda: ordinal.weighted("mcc", part.codes, ranks, np.ones((3, 20))),
        lambda: regression.weighted("mcc", ranks[:, 0], ranks[:, 1], np.ones((3, 20))),
    ):
        with pytest.raises(ValueError, match="no bootstrap of 'mcc'"):
            score()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_weight_is_so_many_copies_of_a_subject(classes, metric):
    random = np.random.default_rng(0)
    (part,), _ = random_predictions(40, 1, classes, 1, random, tied=True)
    weights = random.integers(0, 4, size=(8, 40))
    for row in weights:
        codes, scores = np.repeat(part.codes, row), np.repeat(part.scores, row, axis=0)
        chosen = (scores > 0).astype(int) if classes == 2 else scores.argmax(axis=1)
        if classes == 2:
            auc = roc_auc_score(codes, scores)
            recalls = recall_score(codes, chosen), recall_score(codes, chosen, pos_label=0)
        else:
            auc = np.mean([roc_auc_score(codes == c, scores[:, c]) for c in range(3)])
            rest = [recall_score(codes != c, chosen != c) for c in range(3)]
            recalls = recall_score(codes, chosen, average="macro"), np.mean(rest)
        expected = dict(zip(METRICS, (auc, *recalls, accuracy_score(codes, chosen)), strict=True))
        found = weighted_score(part.codes, part.scores, row[None].astype(float), metric)
        assert found[0] == pytest.approx(expected[metric])


@cache
def looped(classes):
    """Predictions of two methods, and by metric the ends that a plain loop gives."""
    random = np.random.default_rng(1)
    first, second = random_predictions(60, 2, classes, 2, random)
    codes = np.empty(60, int)
    codes[first[0].subjects] = first[0].codes
    values = []
    for _ in range(250):
        drawn = [random.choice(np.flatnonzero(codes == c), (codes == c).sum()) for c in set(codes)]
        count = np.bincount(np.concatenate(drawn), minlength=60)
        folds = []
        for one, other in zip(first, second, strict=True):
            for k in range(2):
                rows = np.repeat(
                    np.flatnonzero(one.folds == k), count[one.subjects[one.folds == k]]
                )
                a, b = (fold_scores(p.codes[rows], p.scores[rows]) for p in (one, other))
                folds.append([a[metric] - b[metric] for metric in METRICS])
        values.append(np.mean(folds, axis=0))
    ends = np.quantile(values, [0.025, 0.975], axis=0)
    return first, second, dict(zip(METRICS, ends.T, strict=True))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_bootstrap_is_a_loop_over_subjects_drawn_with_replacement(classes, metric):
    """A plain loop, with numbers of its own: the ends agree as far as 2000 resamples go."""
    first, second, ends = looped(classes)
    low, high = ends[metric]
    found = bootstrap_difference(first, second, metric, seed=3)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * (high - low))
    assert bootstrap_difference(first, second, metric, seed=3) == found
    swapped = bootstrap_difference(second, first, metric, seed=3)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))


def test_memory_does_not_decide_what_is_drawn(monkeypatch):
    first, second = random_predictions(30, 3, 2, 1, np.random.default_rng(0))
    whole = bootstrap_difference(first, second, "auc", resamples=100)
    monkeypatch.setattr(bootstrap, "CHUNK", 30 * 7)
    assert bootstrap_difference(first, second, "auc", resamples=100) == whole


def test_resamples_keep_the_size_of_each_class():
    codes = np.array([0] * 30 + [1] * 5 + [2] * 12)
    counts = np.concatenate(list(bootstrap.resampled_counts(codes, 500, 0)))
    for c, n in enumerate((30, 5, 12)):
        assert set(counts[:, codes == c].sum(axis=1)) == {n}
    assert counts.mean(axis=0) == pytest.approx(np.ones(47), abs=0.2)
    # Drawn with replacement: each count is binomial, with variance 1 - 1/n.
    assert counts[:, :30].var() == pytest.approx(1 - 1 / 30, abs=0.05)


def test_a_fold_without_a_class_takes_no_part_and_a_perfect_tie_has_no_width():
    # One positive a fold: most resamples lack it in one fold or the other.
    codes = np.array([0, 0, 0, 1, 0, 0, 0, 1])
    part = Predictions(np.arange(8), np.repeat([0, 1], 4), codes, codes - 0.5)
    blind = Predictions(part.subjects, part.folds, codes, np.zeros(8))
    found = bootstrap_difference([part], [blind], "auc")
    assert (found.low, found.high) == (0.5, 0.5)
    same = bootstrap_difference([part], [part], "sensitivity")
    assert (same.low, same.high) == (0, 0)


def test_predictions_that_do_not_belong_together_are_refused():
    first, second = random_predictions(30, 3, 2, 2, np.random.default_rng(0))
    with pytest.raises(EvaluationError, match="no metric 'acc'"):
        bootstrap_difference(first, second, "acc")
    with pytest.raises(EvaluationError, match="2 repetitions against 1"):
        bootstrap_difference(first, second[:1], "auc")
    with pytest.raises(EvaluationError, match="differ in their subjects"):
        bootstrap_difference(first, second[::-1], "auc")


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says():
    """100 cohorts of one test split; two scores of known, equal AUC."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        (first,), (second,) = random_predictions(80, 1, 2, 1, random)
        found = bootstrap_difference([first], [second], "auc", resamples=400)
        covered += found.low <= 0 <= found.high
    assert 88 <= covered <= 99
