"""Labels and files that may not mean what they say are asked about, or refused."""

import errno
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitaepp.data.embeddings import Embeddings
from vitaepp.data.participants import person_doubts
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.features import evaluate_features
from vitaepp.evaluation.folds import by_subject
from vitaepp.evaluation.labels import codes_among, doubts, read_labels
from vitaepp.evaluation.result import Evaluation
from vitaepp.evaluation.tasks.regression import far_values, numbers_of, other_unit
from vitaepp.reporting.contents import Evaluation as ShownEvaluation
from vitaepp.reporting.sections.results import comparisons

UNKNOWN = ("unk", "not known", "Not Done", "n.d.", "ND", "nd", "n. a.")

SKEWED = np.random.default_rng(0).lognormal(2.6, 1.5, size=300)
NORMAL = np.random.default_rng(0).normal(scale=1.3, size=54)
AGES = np.random.default_rng(0).integers(39, 79, size=54)


def table(labels, **columns):
    return pd.DataFrame(
        {"subject": [f"s{i:02d}" for i in range(len(labels))], "grade": labels, **columns}
    )


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["high", "low "], []),
        ([0, 1], []),
        (["High", "high", "low"], ["'High' and 'high' are 2 classes here"]),
        (["\u00e9", "e\u0301", "low"], ["are 2 classes here"]),
        (["1", "1.0", "0"], ["'1' and '1.0' are 2 classes here"]),
        (["True", "1", "0"], ["'1' and 'True' are 2 classes here"]),
        (["y", "Yes", "n"], ["'Yes' and 'y' are 2 classes here"]),
        (["M", "F", "male"], ["'M' and 'male' are 2 classes here"]),
        ([-1, 0, 1], ["-1 (4 subjects) counts as a class; if it means missing"]),
        ([1, 2, 9], ["9 (4 subjects) counts as a class; if it means missing"]),
        ([1, 0, 99], ["99 (4 subjects) counts as a class; if it means missing"]),
        ([-1, 1], []),
        ([-2, -1, 0, 1], []),
        ([-2, -1, 0, 1, 2], []),
        ([-4, -2, 0, 2, 4], []),
        ([-4, -1, 0, 1], ["-4 (4 subjects) counts as a class", "-1 (4 subjects) counts as a"]),
        ([-9, -8, 0, 1], ["-9 (4 subjects) counts as a class", "-8 (4 subjects) counts as a"]),
        ([0, 1, 88, 99], ["88 (4 subjects) counts as a class", "99 (4 subjects) counts as a"]),
        ([0, 1, 98], ["98 (4 subjects) counts as a class"]),
        ([-9, 0, 1, 99], ["-9 (4 subjects) counts as a class", "99 (4 subjects) counts as a"]),
        ([0, 3, 6, 9], []),
        ([6, 7, 9], []),
        ([7, 8, 9], []),
        (["unknown", "high", "low"], ["'unknown' (4 subjects) counts as a class; if it means"]),
        *(([w, "high", "low"], [f"{w!r} (4 subjects) counts as a class"]) for w in UNKNOWN),
        (["-9", "a", "b"], ["-9 (4 subjects) counts as a class; if it means missing"]),
        (["99", "high", "low"], ["99 (4 subjects) counts as a class; if it means missing"]),
        (["0", "1", "2", "99", "other"], ["99 (4 subjects) counts as a class"]),
        ([0, 0.5, 1, -9], ["-9 (4 subjects) counts as a class; if it means missing"]),
        (["0", "A", "B", "C"], []),
        (["A", "B", "AB", "0"], []),
        (["0", "M", "F"], ["0 (4 subjects) counts as a class"]),
        (["99", "A", "B", "C"], ["99 (4 subjects) counts as a class"]),
        (["0", "1", "2", "3+"], []),
        (["0", "1+", "2+", "3+"], []),
        (["0", "+", "++"], []),
        (["0", "Ia", "II", "III"], []),
        (["4", "4A", "4B", "5"], []),
    ],
)
def test_classes_that_may_not_be_meant_are_asked_about(labels, told):
    found = doubts(read_labels(table(labels * 4), "grade"))
    assert len(found) == len(told)
    for text, line in zip(told, found, strict=True):
        assert text in line


GRADES = (
    *("I,II,III", "IA,IB,II,III", "Stage I,Stage II", "T1,T2,T3", "T1a,T1b", "G1,G2,G3", "M0,M1"),
    *("grade1,grade2", "1+,2+,3+", "0,1+,2+,3+", "0,+,++", "4,4A,4B,5", "1,2,3,4A,4B", "A,B,AB"),
    *("A,B,C", "healthy,G1,G2", "0.5,1.5,2.5", "20-29,30-39,40-49", "3+3,3+4,4+3"),
)


@pytest.mark.parametrize("grades", GRADES)
@pytest.mark.parametrize("codes", ["99", "999", "88", "77", "-9", "-9,99", "-99,-9", "88,99"])
def test_codes_are_asked_about_beside_grades_of_any_kind_and_a_grade_is_not(grades, codes):
    names, codes = sorted({"0", *grades.split(",")}), codes.split(",")
    assert doubts(read_labels(table(names), "grade")) == []
    lines = doubts(read_labels(table([*names, *codes]), "grade"))
    assert sorted(line.split()[2] for line in lines) == sorted(codes)


@pytest.mark.parametrize(
    "grades", ["I,II,III", "G1,G2,G3", "0,1+,2+,3+", "M0,M1", "A,B", "T1a,T1b"]
)
def test_a_9_is_a_code_beside_low_grades_and_none_where_they_reach_it(grades):
    (line,) = doubts(read_labels(table([*grades.split(","), "9"]), "grade"))
    assert "9 (1 subject) counts as a class" in line
    for reached in (["3+3", "3+4", "4+4", "9"], ["G7", "G8", "9"], ["IX", "VIII", "9"]):
        assert doubts(read_labels(table(reached), "grade")) == []


@given(
    most=st.integers(2, 5),
    step=st.integers(1, 4),
    middle=st.booleans(),
    codes=st.sets(st.sampled_from([-999, -99, -88, 88, 99, 999])),
)
def test_a_scale_around_0_has_no_code_but_what_stands_apart(most, step, middle, codes):
    scale = {step * k for k in range(-most, most + 1) if k or middle}
    assert codes_among(scale | codes) == sorted(codes)
    if middle:  # it may reach further up than down
        assert codes_among((scale - {-step * most} if most > 2 else scale) | codes) == sorted(codes)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["p1", "P1 ", "p2", "p3"], "P1 and p1 count as different people"),
        (["01", "1.0", "2", "3"], "01 and 1.0 count as different people"),
        (["p1", "p2", "p10", "1_0"], ""),
        (["unknown", "unknown", "p1", None], "'unknown' (2 subjects) counts as one person"),
        (["unknown", "p1", "p2", "p3"], ""),
    ],
)
def test_people_who_may_not_be_meant_are_asked_about(names, told):
    rows = pd.DataFrame({"subject": list("abcd"), "participant": names})
    lines = person_doubts(rows)
    assert told in "".join(lines)
    assert bool(lines) == bool(told)
    if None not in names and len(set(names)) == len(names):
        as_subjects = person_doubts(pd.DataFrame({"subject": names}))
        assert bool(as_subjects) == bool(told)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([*range(1, 9), -1, -1], "-1 is the only value below 0, in 2 of 10 subjects"),
        ([*range(1, 9), -9, -9, -8], "-9 and -8 are the only values below 0, in 3 of 11 subjects"),
        ([0] * 9 + [3, 4, 5, 4, 3, 5, 990], "990 where the median apart from 0 is 4"),
        ([0] * 9 + [3, 4, 5, 4, 3, 5, 6], ""),
        ([90] * 20 + [3, 4, 5, 4, 3, 5, 6], ""),
        ([*range(1, 9), -1, -2], ""),
        ([*range(17, 89), -9], "-9 is the only value below 0, in 1 of 73 subjects"),
        ([*range(1, 9), -1.0], "-1 is the only value below 0, in 1 of 9 subjects"),
        ([*range(17, 89), -9, -8], "-9 and -8 are the only values below 0, in 2 of 74 subjects"),
        ([*range(1, 9), -2], ""),
        ([0.3, 0.1, 2.1, 1.7, 0.9, 1.1, -0.999], ""),
        ([-3, -1.0, 0.2, 1.9, -0.4, 2.5], ""),
        ([*range(1, 9), 900], "1 value of 9 lie far from the others"),
        ([*NORMAL, *[-9] * 6], "-9, in 6 of 60 subjects, is apart from all other values; a code"),
        ([*NORMAL, *[9] * 6], "9, in 6 of 60 subjects, is apart from all other values"),
        ([*NORMAL, *[-9] * 3, *[-8] * 3], "-9 and -8, in 6 of 60 subjects, are apart from all"),
        ([*NORMAL, *[-9] * 3, *[9] * 3], "-9 and 9, in 6 of 60 subjects, are apart from all"),
        ([*AGES, *[0] * 6], "0, in 6 of 60 subjects, is apart from all other values; a code for"),
        ([1, 2, 3, 4, 5] * 8 + [9] * 4, "9, in 4 of 44 subjects, is apart from all other"),
        ([*range(7)] * 9 + [9] * 4, "9, in 4 of 67 subjects, is apart from all other values"),
        ([*range(7)] * 9 + [88, 99] * 4, "88 and 99, in 8 of 71 subjects, are apart from all"),
        ([*range(7)] * 9 + [9], "9, in 1 of 64 subjects, is apart from all other values"),
        ([*range(7)] * 9 + [9, 9], "9, in 2 of 65 subjects, is apart from all other values"),
        ([*range(36)] * 3 + [99], "99, in 1 of 109 subjects, is apart from all other values"),
        ([*range(36)] * 3 + [88, 99], "88 and 99, in 2 of 110 subjects, are apart from all"),
        ([*range(3, 16)] * 5 + [0] * 6, "0, in 6 of 71 subjects, is apart from all other values"),
        ([*SKEWED[:194], *[999] * 6], "999, in 6 of 200 subjects, is apart from all other"),
        ([*SKEWED[:194], *[99] * 6], "99, in 6 of 200 subjects, is there more often than any"),
        ([*SKEWED[:190], *[0] * 90, *[99] * 6], "99, in 6 of 286 subjects, is there more often"),
        ([*SKEWED[:194], *[5] * 6], ""),
        ([*SKEWED[:190], *[99] * 4, *[31.4] * 2], ""),
        ([-2, -1, 0, 1, 1, 1, 2, 2, 2] * 9, ""),
        ([-2, -1, 0, 1, 1, 1, 2, 2, 2] * 9 + [-9], "-9, in 1 of 82 subjects, is apart from"),
        ([-2, -1, *range(8)] * 9, ""),
        ([*SKEWED, -1, -8, -9], "-9, -8 and -1 are the only values below 0, in 3 of 303 subj"),
        ([*AGES, -1, *[0] * 6], "0, in 6 of 61 subjects, is apart from all other values"),
        (SKEWED, ""),
        ([*SKEWED[15:], *1000 * SKEWED[:15]], " of 300 lie far from the others"),
        ([*NORMAL, *[-9] * 2], ""),
        ([*range(1, 10)] * 9, ""),
        ([*[0] * 30, *[1] * 40, *[2] * 9, 3, 4, 5, 5, 9], ""),
        ([0] * 20 + [100] * 30 + [200] * 20 + [300] * 20, ""),
        ([0] * 15 + [90] * 30 + [100] * 20 + [110] * 20, ""),
        ([*[0] * 20, *np.exp(NORMAL / 2 + 3)], ""),
        ([*[0] * 10, *(60 + 20 * NORMAL).clip(0, 100), *[100] * 5], ""),
    ],
)
def test_values_that_may_be_codes_are_asked_about(values, told):
    lines = far_values(np.array(values, float), "label 'volume'")
    assert told in "".join(lines)
    assert bool(lines) == bool(told)


HONEST = {
    "severity": lambda random, n: random.negative_binomial(1.2, 0.15, n).clip(0, 42),
    "lesions": lambda random, n: random.negative_binomial(0.5, 0.1, n),
    "falls": lambda random, n: random.poisson(2, n),
    "age": lambda random, n: random.normal(62, 14, n).clip(18, 103).round(),
    "percent": lambda random, n: random.normal(70, 25, n).clip(0, 100).round(),
    "crp": lambda random, n: random.lognormal(1, 1.4, n).clip(0.6).round(1),
    "volume": lambda random, n: random.lognormal(2.5, 1.5, n).round(2),
    "handicap": lambda random, n: random.choice(7, n, p=[0.15, 0.2, 0.15, 0.15, 0.12, 0.08, 0.15]),
    "coma": lambda random, n: random.integers(3, 16, n),
    "agreement": lambda random, n: random.choice(5, n, p=[0.15, 0.15, 0.2, 0.25, 0.25]) - 2,
    "sodium": lambda random, n: random.normal(140, 4, n).round(),
}


@pytest.mark.parametrize("kind", HONEST)
def test_hardly_any_column_without_a_code_is_asked_about_one(kind):
    drawn = (HONEST[kind](np.random.default_rng(s), (40, 100, 300)[s % 3]) for s in range(300))
    lines = (far_values(values.astype(float), kind) for values in drawn)
    assert sum("far from the" not in line for asked in lines for line in asked) <= 3


@given(seed=st.integers(0, 2**32), times=st.integers(1, 3))
@settings(deadline=None)
@pytest.mark.parametrize(
    ("kind", "code"),
    [("severity", 999), ("percent", 999), ("coma", 99), ("handicap", 99), ("agreement", -9)],
)
def test_a_rare_code_is_found_in_any_score(kind, code, seed, times):
    values = HONEST[kind](np.random.default_rng(seed), 150)
    lines = far_values(np.append(values, [code] * times).astype(float), kind)
    assert any(f" {code}" in line and "for missing" in line for line in lines)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["50", "unknown", "62", ""], "1 value of 4 is no number, such as 'unknown'; where they"),
        (["old", "young", "62"], "2 values of 3 are no numbers, such as 'old'; use task class"),
        (["50,0", "61,5", "62"], "such as '50,0'; write a decimal point: commas are decimal only"),
        (["1,711", "1,250", "0,98"], "such as '1,711'; write a decimal point: commas are decimal"),
        (["1,711", "1,250", "62"], "write 1711 if it is thousands, 1.711 if it has decimals: com"),
    ],
)
def test_what_to_do_about_values_that_are_no_numbers_is_told(values, told):
    with pytest.raises(EvaluationError, match=told):
        numbers_of(pd.Series(values), "age")


@pytest.mark.parametrize("factor", [1, 1000])
def test_another_unit_is_asked_about_where_most_have_none(factor):
    volumes = np.array([0.0] * 12 + [2, 3, 4, 5, 3, 4])
    lines = other_unit(volumes, factor * volumes, "label 'volume'")
    assert bool(lines) == (factor > 1)
    assert factor == 1 or "the median apart from 0 is 3500 outside and 3.5 inside" in lines[0]


@pytest.mark.parametrize("shares", [(0.55, 0.48), (0.48, 0.55), (0.3, 0.6)])
def test_one_unit_is_not_asked_about_whatever_share_has_none(shares):
    random = np.random.default_rng(0)
    drawn = [random.lognormal(2.5, 1.5, 100) * (np.arange(100) >= 100 * s) for s in shares]
    assert other_unit(*drawn, "label 'volume'") == []


def test_what_is_asked_is_kept_with_the_result_and_shown_in_a_report(capsys):
    features = np.random.default_rng(0).normal(size=(24, 3))
    persons = [f"{'pP'[i % 2]}{i // 2}" for i in range(24)]
    found, said = evaluated(capsys, features, participant=persons)
    (line,) = found["doubts"]
    assert line in said
    assert "count as different people" in line
    evaluation = ShownEvaluation(Path("e"), None, dict(found.metrics), None, None)
    (shown,) = comparisons([], [evaluation])
    assert shown["doubts"] == [line]


def test_features_beyond_single_precision_are_refused():
    features = np.random.default_rng(0).normal(size=(24, 3)) * 1e300
    with pytest.raises(EvaluationError, match="features of subject s00 are not finite"):
        evaluate_features(features, table([0, 1] * 12), "grade")


def evaluated(capsys, features, **columns):
    rows = table([0, 1] * 12, **columns)
    found = evaluate_features(features, rows, "grade", folds=3)
    return found, capsys.readouterr().err


def test_splits_that_are_not_used_are_told(capsys):
    features = np.random.default_rng(0).normal(size=(24, 3))
    told = "splits tests, train are not used"
    split = ["train"] * 12 + ["tests"] * 12
    assert told in evaluated(capsys, features, split=split)[1]
    assert told not in evaluated(capsys, features, split="train")[1]
    assert (
        evaluated(capsys, features, split=[*split[:12], *["test"] * 12])[0]["protocol"] == "linear"
    )


def test_images_that_are_there_twice_are_told_unless_they_are_of_one_person(capsys):
    features = np.random.default_rng(0).normal(size=(24, 3))
    features[5] = features[2]
    told = "2 subjects have exactly the same features as another"
    assert told in evaluated(capsys, features)[1]
    persons = [f"p{i}" for i in range(24)]
    persons[5] = persons[2]
    assert told not in evaluated(capsys, features, participant=persons)[1]
    assert "all subjects have the same features" in evaluated(capsys, np.ones((24, 3)))[1]


def test_features_with_a_gap_are_refused_rather_than_cut(tmp_path):
    embedded = Embeddings(table([0, 1] * 6), np.eye(12, dtype=np.float32))
    embedded.to_frame().drop(columns="f5").to_csv(tmp_path / "e.csv", index=False)
    with pytest.raises(EvaluationError, match="has a column f6, but no f5"):
        Embeddings.load(tmp_path / "e.csv")
    whole = embedded.to_frame()
    whole[whole.columns[::-1]].to_csv(tmp_path / "other.csv", index=False)
    np.testing.assert_array_equal(Embeddings.load(tmp_path / "other.csv").features, np.eye(12))


def test_a_subject_is_not_two_by_a_blank():
    with pytest.raises(EvaluationError, match="subject 's00 ' is there twice"):
        by_subject(table([0, 1]).assign(subject=["s00", "s00 "]))


def test_a_mean_that_is_not_of_its_folds_is_refused(tmp_path, capsys):
    found, _ = evaluated(capsys, np.random.default_rng(0).normal(size=(24, 3)))
    file = found.save(tmp_path / "e").path
    Evaluation.load(file)
    metrics = json.loads(file.read_text())
    metrics["mean"]["auc"] = 0.99
    file.write_text(json.dumps(metrics))
    with pytest.raises(EvaluationError, match="the mean of 'method' is not that of its folds"):
        Evaluation.load(file)


def test_a_full_disk_leaves_the_evaluation_before_whole(tmp_path, capsys, monkeypatch):
    found, _ = evaluated(capsys, np.random.default_rng(0).normal(size=(24, 3)))
    found.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other, _ = evaluated(capsys, np.random.default_rng(1).normal(size=(24, 3)))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)  # the predictions are written before
    with pytest.raises(OSError, match="No space left") as raised:
        other.save(tmp_path)
    assert raised.value.filename == str(tmp_path / "map.csv")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("site", "told"),
    [
        (["A", "A", "B", "B"], []),
        (["A", "A", "a", "B"], ["column 'site': 'A' and 'a' are 2 groups here"]),
        (["A", "B", "A", "B"], ["each site has one class of grade alone"]),
    ],
)
def test_sites_that_may_not_be_meant_or_tell_the_label_are_asked_about(site, told):
    labelled = table([0, 1] * 12, site=site * 6)
    features = np.random.default_rng(0).normal(size=(24, 5))
    found = evaluate_features(features, labelled, "grade", folds=2, harmonize=True, sites="site")
    assert [text in doubt for text, doubt in zip(told, found["doubts"], strict=True)] == [
        True for _ in told
    ]
