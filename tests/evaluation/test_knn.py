"""Nearest neighbours: the definition by hand, plain votes of scikit-learn, and held-out persons."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from vitaepp.evaluation import knn
from vitaepp.evaluation.knn import TEMPERATURE, fit_knn
from vitaepp.evaluation.scores import fold_scores


def _drawn(random, n, classes=2, features=8, separation=2.0):
    codes = np.arange(n) % classes
    centres = separation * np.eye(classes, features)
    return centres[codes] + random.normal(size=(n, features)), codes


def _by_hand(train, codes, test, k):
    mean = train.mean(axis=0)
    a, b = ((v - mean) / np.linalg.norm(v - mean, axis=1, keepdims=True) for v in (train, test))
    shares = []
    for cosine in b @ a.T:
        nearest = np.argsort(-cosine)[:k]
        weight = np.exp(cosine[nearest] / TEMPERATURE)
        one = np.bincount(codes[nearest], weight, minlength=codes.max() + 1)
        shares.append(one / one.sum())
    return np.array(shares)


@pytest.mark.parametrize("classes", [2, 3])
def test_decisions_are_those_of_the_definition(classes):
    x, codes = _drawn(np.random.default_rng(0), 90, classes)
    fitted = fit_knn(x[:60], codes[:60], seed=0)
    expected = _by_hand(x[:60], codes[:60], x[60:], fitted.k)
    found = fitted.decision(x[60:])
    if classes == 2:
        found = np.stack([0.5 - found, 0.5 + found], axis=1)
    assert found == pytest.approx(expected)


def test_every_k_of_one_search_is_that_of_a_search_of_its_own():
    x, codes = _drawn(np.random.default_rng(1), 80, 3)
    x -= x[:50].mean(axis=0)
    found = knn._shares(x[:50], codes[:50], x[50:], [20, 5, 1])
    for k, shares in zip([20, 5, 1], found, strict=True):
        assert shares == pytest.approx(_by_hand(x[:50], codes[:50], x[50:], k), abs=0.02)
        alone = KNeighborsClassifier(k, weights=knn._weights, metric="cosine").fit(
            x[:50], codes[:50]
        )
        assert shares == pytest.approx(alone.predict_proba(x[50:]))


def test_with_a_high_temperature_it_is_a_plain_vote(monkeypatch):
    monkeypatch.setattr(knn, "TEMPERATURE", 1e6)
    x, codes = _drawn(np.random.default_rng(2), 120)
    fitted = fit_knn(x[:80], codes[:80], seed=0)
    centred = x - x[:80].mean(axis=0)
    plain = KNeighborsClassifier(fitted.k, metric="cosine").fit(centred[:80], codes[:80])
    assert fitted.decision(x[80:]) == pytest.approx(
        plain.predict_proba(centred[80:])[:, 1] - 0.5, abs=1e-5
    )


def test_an_effect_is_found_in_any_unit_and_nothing_where_there_is_none():
    random = np.random.default_rng(3)
    x, codes = _drawn(random, 300)
    fitted = fit_knn(x[:150], codes[:150], seed=0)
    found = fold_scores(codes[150:], fitted.decision(x[150:]))
    assert found["auc"] > 0.9
    moved = fit_knn(1e3 * x[:150] + 7, codes[:150], seed=0)
    assert moved.decision(1e3 * x[150:] + 7) == pytest.approx(fitted.decision(x[150:]))
    noise = random.normal(size=(300, 8))
    blind = fit_knn(noise[:150], codes[:150], seed=0).decision(noise[150:])
    assert abs(fold_scores(codes[150:], blind)["auc"] - 0.5) < 0.12


def test_all_rows_of_a_person_are_held_out_together():
    """Four images a person, labels by chance: only the next image of a person knows it."""
    random = np.random.default_rng(4)
    four = np.repeat(np.arange(40), 4)
    x = random.normal(size=(40, 20))[four] + random.normal(0, 0.05, (160, 20))
    codes = random.permutation(np.arange(40) % 2)[four]
    seen = []
    original = knn._macro_auc
    for persons in (None, four):
        values = []
        knn_auc = lambda c, s, kept=values: kept.append(original(c, s)) or kept[-1]  # noqa: E731
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(knn, "_macro_auc", knn_auc)
            fit_knn(x, codes, seed=0, persons=persons)
        seen.append(np.max(values))
    assert seen[0] > 0.95
    assert seen[1] < 0.9


def test_raw_intensities_are_reduced_but_not_whitened():
    random = np.random.default_rng(5)
    x, codes = _drawn(random, 60, features=300)
    fitted = fit_knn(x, codes, seed=0, pca=True)
    assert fitted.model[0].n_components_ == 30
    assert not fitted.model[0].whiten
    assert fitted.decision(x).shape == (60,)


def test_few_subjects_have_few_neighbours():
    x, codes = _drawn(np.random.default_rng(6), 6)
    fitted = fit_knn(x, codes, seed=0)
    assert fitted.strength == fitted.k <= 2
    assert np.isfinite(fitted.decision(np.zeros((2, 8)) + x.mean(axis=0))).all()
