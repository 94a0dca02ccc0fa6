"""The parts of an audit, each against a truth that is known or an independent computation."""

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter, zoom
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from vitaepp.auditing.answers import undecided
from vitaepp.auditing.facts import Fact, cut, facts_of, kind_of, usable
from vitaepp.auditing.images import (
    BITS,
    correlation,
    empty_border,
    near_duplicates,
    perceptual_hash,
    pictures,
)
from vitaepp.auditing.permutation import association_test, p_of, shuffles
from vitaepp.auditing.shortcuts import Association, targets
from vitaepp.auditing.subgroups import Decisions, errors_by, spread_test

PEOPLE = np.repeat(np.arange(30), [1, 2, 3] * 10)


def test_shuffles_keep_participants_together_and_in_their_stratum():
    strata = PEOPLE % 2
    for rows in shuffles(PEOPLE, seed=0, strata=strata, count=20):
        donors = pd.Series(PEOPLE[rows]).groupby(PEOPLE)
        assert (donors.nunique() == 1).all()
        first = donors.first()
        assert sorted(first) == sorted(set(PEOPLE))  # each gives once
        assert (first.to_numpy() % 2 == first.index.to_numpy() % 2).all()


def test_without_participants_a_shuffle_is_a_permutation():
    every = [tuple(rows) for rows in shuffles(np.arange(4), seed=1, count=400)]
    assert all(sorted(rows) == [0, 1, 2, 3] for rows in every)
    assert len(set(every)) == 24


def test_p_counts_what_was_observed():
    assert p_of(1.0, np.zeros(99)) == 0.01
    assert p_of(0.0, np.zeros(99)) == 1.0


@pytest.mark.parametrize("width", [3, 100])
def test_features_without_an_association_are_rarely_told(width):
    """100 cohorts without any: p <= 0.1 in about 10 % of them, also with several scans a person.

    The features of a person are alike, and so are the values: subjects shuffled one by one would
    find that in more than half of the cohorts.
    """
    found = 0
    for seed in range(100):
        random = np.random.default_rng([seed, width])
        features = random.normal(size=(30, width))[PEOPLE] + 0.3 * random.normal(size=(60, width))
        values = random.normal(size=(30, 1))[PEOPLE]
        found += association_test(features, values, PEOPLE, seed=seed, count=39) <= 0.1
    assert binomtest(found, 100, 0.1).pvalue > 0.01


@pytest.mark.parametrize(
    ("metric", "score", "p", "open_to"),
    [
        ("auc", 0.84, 0.54, True),
        ("auc", 0.60, 0.54, False),  # little, whether chance or not
        ("auc", 0.84, 0.01, False),  # shown
        ("spearman", 0.35, 0.06, True),
        ("spearman", 0.25, 0.06, False),
    ],
)
def test_what_too_few_subjects_cannot_exclude_is_not_called_harmless(metric, score, p, open_to):
    assert bool(undecided(Association(score, metric, p, n=30), p)) is open_to


def test_an_association_is_told():
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 200))
    values = features[:, :5].sum(axis=1, keepdims=True)
    assert association_test(features, values, np.arange(60), seed=0, count=199) <= 0.02


def decisions(random, lift, n=120):
    """Of two classes in two folds; scores that are `lift` apart, more or less of each subject."""
    codes = np.arange(n) % 2
    scores = random.normal(size=n) + lift * codes
    subjects = np.array([f"s{i}" for i in range(n)], object)
    return Decisions(subjects, np.arange(n), codes, np.arange(n) // 2 % 2, [(codes == 1, scores)])


def test_the_auc_of_rows_is_that_of_pairs_in_one_fold():
    given = decisions(np.random.default_rng(0), 1.0)
    rows = np.arange(120) % 3 == 0
    positive, scores = given.columns[0]
    won = pairs = 0
    for fold in (0, 1):
        inside = rows & (given.folds == fold)
        count = int(positive[inside].sum() * (~positive[inside]).sum())
        won += count * roc_auc_score(positive[inside], scores[inside])
        pairs += count
    assert given.auc(rows[None].astype(float))[0] == pytest.approx(won / pairs)


def test_errors_in_subgroups_without_a_difference_are_rarely_found():
    """100 cohorts, four subgroups of different sizes: p <= 0.1 in about 10 % of them."""
    found = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        given = decisions(random, 1.0)
        groups = random.choice(4, p=[0.4, 0.3, 0.2, 0.1], size=120)
        found += spread_test(given, np.eye(4)[:, groups], seed=seed, count=39) <= 0.1
    assert binomtest(found, 100, 0.1).pvalue > 0.01


def test_errors_that_gather_in_a_subgroup_are_found():
    random = np.random.default_rng(0)
    groups = np.array(["north", "south"])[np.arange(120) // 4 % 2]
    given = decisions(random, np.where(groups == "north", 0.0, 2.5))
    few = groups.astype(object)
    few[:3] = "west"
    errors = errors_by(given, pd.Series(few, index=given.subjects), seed=0, count=199)
    assert errors.p <= 0.01
    assert errors.worst.name == "north"
    assert errors.gap > 0.3
    alone = next(g for g in errors.groups if g.name == "west")
    assert (alone.n, alone.auc, alone.interval) == (3, None, None)
    south = next(g for g in errors.groups if g.name == "south")
    assert south.interval.low < south.auc < south.interval.high
    one = pd.Series("north", index=given.subjects)
    assert errors_by(given, one, seed=0, count=9) is None


def test_what_changes_little_changes_few_bits():
    random = np.random.default_rng(0)
    for shape in ((64, 64), (24, 32, 24)):
        images = random.normal(size=(6, *shape)).cumsum(axis=1).cumsum(axis=2)
        again = 0.7 * images + 5 + 0.02 * images.std() * random.normal(size=images.shape)
        before, after = perceptual_hash(images), perceptual_hash(again)
        assert (before != after).mean(axis=1).max() < 0.1
        different = (before[:, None] != before).mean(axis=2)
        assert different[~np.eye(6, dtype=bool)].min() > 0.2


def test_near_duplicates_by_features_are_found_at_any_scale():
    random = np.random.default_rng(0)
    features = random.normal(size=(1500, 16))
    features[1400] = features[3] + 0.01
    hashes = random.random((1500, 255)) < 0.5
    for scale in (1e-4, 1e4):
        pairs = near_duplicates(hashes, scale * features, lambda *_: 1.0)
        assert [(p.first, p.second, p.evidence) for p in pairs] == [(3, 1400, "embedding")]
    assert near_duplicates(hashes, np.ones((1500, 16)), lambda *_: 1.0) == []


def found_among(images):
    """The pairs among `(subject, *space)` whose hashes agree, and those that are one image."""
    shown = pictures(images[:, None])
    hashes, mean = perceptual_hash(shown), shown.mean(axis=0)
    agree = (hashes[:, None] != hashes).mean(axis=2) < BITS
    pairs = near_duplicates(
        hashes, np.ones((len(images), 4)), lambda i, j: correlation(shown[i], shown[j], mean)
    )
    return np.argwhere(np.triu(agree, 1)).tolist(), [[p.first, p.second] for p in pairs]


def test_small_lesions_at_about_one_place_are_not_one_image():
    """Low frequencies agree, by which hashes go; voxels do not."""
    lesions = np.zeros((10, 64, 64), np.float32)
    for i, lesion in enumerate(lesions[:9]):
        lesion[30 + i // 3 : 33 + i // 3, 30 + i % 3 : 33 + i % 3] = 255
    lesions[9] = 0.8 * lesions[0]
    agree, found = found_among(lesions)
    assert len(agree) > 5
    assert found == [[0, 9]]


@pytest.mark.parametrize("shape", [(64, 64), (32, 32, 32)])
def test_copies_are_found_brighter_blurred_and_of_half_the_resolution(shape):
    random, axes = np.random.default_rng(0), range(1, len(shape) + 1)
    images = gaussian_filter(random.normal(size=(12, *shape)), 2, axes=axes)
    images = np.float32(128 + 40 * images / images.std())
    way = {"order": 1, "grid_mode": True, "mode": "nearest"}
    halves = [zoom(zoom(image, 0.5, **way), 2, **way) for image in images[:3]]
    copies = [0.8 * images[:3] + 40, gaussian_filter(images[:3], 1, axes=axes), np.stack(halves)]
    for copy in copies:
        _, found = found_among(np.concatenate([images, copy.round().clip(0, 255)]))
        assert found == [[0, 12], [1, 13], [2, 14]]


def test_an_empty_border_is_of_all_sides():
    shown = np.zeros((2, 8, 6, 5), bool)
    shown[0, 2:7, 1:6, 0:5] = True
    assert empty_border(shown).tolist() == [[3, 1, 0], [8, 6, 5]]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("Center", "site"), ("site_id", "site"), ("ManufacturerModelName", "scanner")),
        *(("AcquisitionDate", "year"), ("age", "age"), ("PatientSex", "sex"), ("stage", "")),
        *(("volume_mm3", ""), ("survival_event_date", ""), ("ViewPosition", "view")),
    ],
)
def test_columns_are_known_by_the_words_of_their_names(name, kind):
    assert kind_of(name) == kind


def test_numbers_that_nearly_all_have_become_two_classes():
    values = pd.DataFrame({"row": [0.0] * 57 + [2.0, 3, 4, 5, 6, 7]})
    left, _ = usable(Fact("empty border", values), np.arange(63))
    assert left.columns["empty border"].value_counts().to_dict() == {"usual": 57, "other": 6}
    left, why = usable(Fact("empty border", values.iloc[:59]), np.arange(59))
    assert left is None
    assert "no two classes" in why


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        (range(9), {"0 to 2": 3, "3 to 5": 3, "6 to 8": 3}),
        ([1] * 8 + [2] * 2, {"1": 8, "2": 2}),
        ([1] * 2 + [2] * 8, {"1": 2, "2": 8}),
        ([1] * 7 + [2, 2, 3], {"1": 7, "2 to 3": 3}),
        ([1] * 4, {"1": 4}),
    ],
)
def test_numbers_are_cut_into_thirds_and_each_value_is_in_one(values, groups):
    found = cut(Fact("age", pd.DataFrame({"age": [*values, np.nan]}, dtype=float)))
    assert found.value_counts().to_dict() == groups
    assert found.iloc[-1] is None


def fact_named(name, store, **columns):
    """The fact of this name, where a store has these columns."""
    table, border = store.table.assign(**columns), np.zeros((len(store), 2), int)
    found = facts_of(table, store, border, np.arange(len(store)), "sick")
    return next(fact for fact in found.usable if fact.name == name)


@pytest.mark.parametrize(("usual", "name"), [(80, "row"), (94, "original spacing")])
def test_rounding_in_headers_makes_no_values(make_store, usual, name):
    """A number that more than nine in ten have is one of two classes."""
    store, random = make_store(subjects=100, size=(8, 8)), np.random.default_rng(0)
    spacing = np.where(np.arange(100) < usual, 1.0, 2.0)
    noisy = spacing * (1 + 1e-7 * random.normal(size=100))
    spacings = [[v, 3 + 1e-9 * v] for v in noisy]
    fact = fact_named("original spacing", store, source_spacing=spacings)
    assert [*fact.columns] == [name]
    assert sorted(cut(fact).value_counts()) == [100 - usual, usual]
    assert abs(np.corrcoef(targets(fact)[:, 0], spacing)[0, 1]) == pytest.approx(1)
    thickness = fact_named("slice_thickness", store, slice_thickness=noisy)
    counts = thickness.columns["slice_thickness"].value_counts().to_dict()
    assert counts == {"1": usual, "2": 100 - usual}


def test_sizes_that_lie_close_stay_apart(make_store):
    """Of photographs in any size, each is within a thousandth of the next."""
    store = make_store(subjects=40, size=(8, 8))
    wide = fact_named("original size", store, source_size=[[3000 + i, 8] for i in range(40)])
    assert wide.columns["row"].nunique() > 9
    assert wide.columns["row"].is_monotonic_increasing


def test_codes_keep_their_digits(make_store):
    store = make_store(subjects=30, size=(8, 8))
    for codes in (
        [1000001, 1000002, 2000001],
        ["12345678901234567", "12345678901234568"],
        [1.5, 2],
    ):
        fact = fact_named("site", store, site=np.resize(codes, 30))
        expected = {"1.5", "2"} if 1.5 in codes else {*map(str, codes)}
        assert {*fact.columns["site"]} == expected
    gaps = fact_named("station", store, station=[7.0] * 14 + [8.0] * 15 + [np.nan])
    assert {*gaps.columns["station"].dropna()} == {"7", "8"}


@pytest.mark.parametrize(
    "written",
    [
        *("2019/{:02d}/05", "2019.{:02d}.05", "2019:{:02d}:05 11:22:33", "2019-{}-5"),
        *("{:02d}/2019", "{:02d}.2019", "05.{:02d}.2019", "2019-{:02d}", "2019{:02d}05"),
        *("2019{:02d}05112233.00", "Scanned {}/2019"),
    ],
)
def test_dates_count_to_the_month_however_they_are_written(make_store, written):
    store = make_store(subjects=24, size=(8, 8))
    months = np.resize(np.arange(1, 13), 24)
    fact = fact_named("scan_date", store, scan_date=[written.format(month) for month in months])
    assert np.allclose(fact.columns["scan_date"], 2019 + (months - 1) / 12, atol=0.01)


def test_years_with_a_fraction_and_months_read_as_numbers_are_what_they_say(make_store):
    store = make_store(subjects=24, size=(8, 8))
    years = np.resize([2018.25, 2019.75, 2020.5], 24)
    assert fact_named("year", store, year=years).columns["year"].tolist() == [*years]
    # A table has 10.2019 and 07.2020 as numbers.
    fact = fact_named("year", store, year=np.resize([10.2019, 7.202, 1.2021], 24))
    assert fact.columns["year"].tolist() == [*np.resize([2019.75, 2020.5, 2021.0], 24)]
    # Nobody knows which is the month.
    unsure = np.resize(["5/7/2018", "5/7/2019", "31/12/2020"], 24)
    fact = fact_named("year", store, year=unsure)
    assert {*fact.columns["year"]} == {2018.0, 2019.0, 2020.0}


@pytest.mark.parametrize(
    ("name", "values", "classes"),
    [
        ("scan_year", [2017, 2018, 2019], False),
        ("scan_date", [f"2019-{month:02d}-03" for month in range(1, 13)], False),
        ("station", [45_010 + i for i in range(12)], True),  # a code, and no quantity
        ("weight", [70.0, 70.01] + [70.02 + i / 1000 for i in range(10)], False),
    ],
)
def test_what_differs_by_little_is_not_called_the_same_for_all(make_store, name, values, classes):
    store = make_store(subjects=6 * len(values) + 12, size=(8, 8))
    table = store.table.assign(**{name: np.resize(values, len(store))})
    found = facts_of(table, store, np.zeros((len(store), 2), int), np.arange(len(store)), "sick")
    (fact,) = [fact for fact in found.usable if fact.name == name]
    assert fact.is_classes == classes
    assert name not in found.constant
