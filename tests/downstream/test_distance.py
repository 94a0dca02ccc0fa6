"""How far scans are from a cohort: percentiles that are calibrated, and directions that count."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from vitaepp.downstream.distance import Cohort
from vitaepp.errors import EvaluationError


def cohort_like(rng, count, width, rank):
    """Features that vary in some directions, with a little in all others."""
    return rng.normal(size=(count, rank)) @ np.random.default_rng(9).normal(
        size=(rank, width)
    ) + 0.3 * rng.normal(size=(count, width))


@pytest.mark.parametrize(("count", "width"), [(60, 200), (200, 60)])
def test_own_distances_are_residuals_of_a_pca_without_each_part(count, width):
    features = cohort_like(np.random.default_rng(0), count, width, 5).astype(np.float32)
    persons = np.repeat(np.arange(count // 2), 2)
    cohort = Cohort.of(features, persons)
    for k in range(5):
        out = cohort.fold == k
        assert not np.isin(persons[out], persons[~out]).any()
        scaler = StandardScaler().fit(features[~out].astype(float))
        kept = cohort.directions.shape[1]
        assert kept == min(64, count * 2 // 5, width // 2)
        pca = PCA(kept, svd_solver="full").fit(scaler.transform(features[~out].astype(float)))
        z = scaler.transform(features[out].astype(float))
        residual = np.linalg.norm(z - pca.inverse_transform(pca.transform(z)), axis=1)
        assert np.allclose(cohort.own[out], residual, rtol=1e-4)
    assert np.allclose(cohort.distances(features)[cohort.fold, np.arange(count)], cohort.own)


@pytest.mark.parametrize(("count", "width"), [(20, 300), (60, 300), (400, 8), (400, 1)])
def test_new_subjects_of_the_cohort_have_any_percentile_alike(count, width):
    means, beyond = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        cohort = Cohort.of(cohort_like(rng, count, width, 5).astype(np.float32), np.arange(count))
        alike = cohort.percentiles(cohort_like(rng, 200, width, 5))
        means.append(alike.mean())
        beyond.append(np.mean(alike > 99))
    assert 40 < np.mean(means) < 60
    # Of so few, the 99th percentile is beyond all of them, as one in `count + 1` is by chance.
    assert np.mean(beyond) < 0.02 + 2 / (count + 1)


def test_what_leaves_the_directions_of_the_cohort_is_far():
    rng = np.random.default_rng(1)
    cohort = Cohort.of(cohort_like(rng, 200, 100, 5).astype(np.float32), np.arange(200))
    elsewhere = rng.normal(size=(50, 5)) @ rng.normal(size=(5, 100))
    assert cohort.percentiles(elsewhere).min() == 100


def test_images_of_one_person_do_not_vouch_for_each_other():
    rng = np.random.default_rng(2)
    features = cohort_like(rng, 100, 80, 3).astype(np.float32)
    odd = 4 * rng.normal(size=80).astype(np.float32)
    features[:10] = odd + 0.1 * rng.normal(size=(10, 80))
    one_person = Cohort.of(features, np.r_[np.zeros(10, int), np.arange(1, 91)])
    strangers = Cohort.of(features, np.arange(100))
    assert one_person.own[:10].min() > one_person.own[10:].max()
    assert strangers.own[:10].mean() < one_person.own[:10].mean() / 2
    with pytest.raises(EvaluationError, match="10 subjects of 1 person: a distance to others"):
        Cohort.of(features[:10], np.zeros(10, int))


def test_features_that_do_not_vary_do_no_harm():
    flat = Cohort.of(np.ones((12, 5), np.float32), np.arange(12))
    assert flat.percentiles(np.ones((2, 5))).tolist() == [0, 0]
    features = np.random.default_rng(3).normal(size=(30, 6)).astype(np.float32)
    features[:, 5] = 7
    new = Cohort.of(features, np.arange(30)).distances(features[:3])
    assert np.isfinite(new).all()
    assert new.max() < 10
    assert len(Cohort.of(features[:2], np.arange(2)).own) == 2


def test_a_feature_that_one_subject_has_does_not_decide_alone():
    """As the edge of a background that is flat in all scans but one."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(60, 20)).astype(np.float32)
    features[:, -1] = 0
    features[7, -1] = 0.01
    cohort, persons = features[:50], np.arange(50)
    plain, edged = features[50:], features[50:].copy()
    edged[:, -1] = 1.0
    measured = Cohort.of(cohort, persons)
    usual = np.median(measured.own)
    assert measured.own.max() < 3 * usual
    assert (measured.distances(edged) < 5 * usual).all()
    assert (measured.distances(edged) > measured.distances(plain)).all()
