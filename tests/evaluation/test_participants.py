"""Images of one person are never on both sides of a split."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitaepp.data.embeddings import Embeddings
from vitaepp.data.participants import persons_of
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.choice import hold_out
from vitaepp.evaluation.classifier import outer_folds
from vitaepp.evaluation.difference import difference_between
from vitaepp.evaluation.evaluation import evaluate
from vitaepp.evaluation.folds import plan_folds
from vitaepp.evaluation.result import Evaluation
from vitaepp.evaluation.summary import summary_table

properties = settings(max_examples=60, deadline=None, derandomize=True)


def table(people=30, images=2, split=""):
    rows = [
        {
            "subject": f"sub-{p:02d}_ses-{i}",
            "participant": f"sub-{p:02d}",
            "grade": p % 2,
            "split": split,
        }
        for p in range(people)
        for i in range(images)
    ]
    return pd.DataFrame(rows)


def people(subjects):
    return {s.partition("_")[0] for s in subjects}


def test_folds_keep_the_images_of_a_participant_together():
    for train, test in plan_folds(table(), "grade", seed=3):
        assert len(train) + len(test) == 60
        assert not people(train) & people(test)
    apart = table().drop(columns="participant")
    assert any(people(train) & people(test) for train, test in plan_folds(apart, "grade", seed=3))


def test_subjects_without_a_participant_are_their_own():
    given = table(2).assign(participant=["sub-00", "sub-00", None, None])
    assert persons_of(given).tolist() == [0, 0, 1, 2]
    assert persons_of(given.drop(columns="participant")).tolist() == [0, 1, 2, 3]


@properties
@given(
    st.lists(st.integers(1, 4), min_size=10, max_size=30),
    st.integers(2, 3),
    st.integers(0, 1000),
)
def test_what_is_held_out_has_whole_persons_of_every_class(images, classes, seed):
    persons = np.repeat(np.arange(len(images)), images)
    codes = persons % classes
    inner, held = hold_out(codes, seed=seed, persons=persons)
    assert sorted([*inner, *held]) == list(range(len(codes)))
    assert not set(persons[inner]) & set(persons[held])
    assert set(codes[inner]) == set(codes[held]) == set(range(classes))
    # Not more than the share that is asked for, and one person a class more.
    assert len(held) <= 0.2 * len(codes) + classes * (0.5 + max(images))


@properties
@given(st.integers(0, 1000), st.integers(20, 60))
def test_without_several_images_of_anybody_persons_change_nothing(seed, n):
    codes = np.random.default_rng(seed).permutation(np.arange(n) % 2)
    persons = np.arange(n)
    for ours, plain in zip(
        hold_out(codes, seed=seed, persons=persons), hold_out(codes, seed=seed), strict=True
    ):
        assert np.array_equal(ours, plain)
    ours = outer_folds(codes, folds=5, seed=seed, persons=persons)
    assert np.array_equal(ours, outer_folds(codes, folds=5, seed=seed))


def test_a_split_with_one_person_on_both_sides_is_refused(tmp_path):
    given = table(6)
    given["split"] = ["train", "test"] * 6
    Embeddings(given, np.zeros((12, 3), np.float32), {}).save(tmp_path / "e.parquet")
    message = r"sub-00_ses-0 in train and sub-00_ses-1 in test are of one participant \(6 such\)"
    with pytest.raises(EvaluationError, match=message):
        evaluate(tmp_path / "e.parquet", "grade", tmp_path / "out")


def test_too_few_participants_are_refused():
    # Each class has five persons, but one has images of both.
    both = table(10, 2).assign(participant=[*"aabbccddeeffgghhiiaa"], grade=[0] * 10 + [1] * 10)
    with pytest.raises(EvaluationError, match=r"cannot be split into 5 folds"):
        plan_folds(both, "grade")
    with pytest.raises(EvaluationError, match="too few participants"):
        hold_out(np.array([0, 0, 1, 1]), seed=0, persons=np.array([0, 0, 1, 1]))


def embedded(table, tmp_path, d=24, seed=0):
    """Embeddings that tell persons apart and nothing else."""
    random = np.random.default_rng(seed)
    persons = pd.factorize(table["subject"].str.partition("_")[0])[0]
    features = random.normal(size=(persons.max() + 1, d))[persons]
    features += 0.3 * random.normal(size=features.shape)
    Embeddings(table, features.astype(np.float32), {}).save(tmp_path / "e.parquet")
    return tmp_path / "e.parquet"


@pytest.mark.slow
def test_random_labels_of_persons_with_several_scans_are_at_chance(tmp_path):
    together, apart = [], []
    for seed in range(6):
        random = np.random.default_rng(seed)
        labels = random.permutation(np.arange(40) % 2).repeat(3)
        given = table(40, 3).assign(grade=labels)
        path = embedded(given, tmp_path, seed=seed)
        metrics = evaluate(path, "grade", tmp_path / "out", seed=seed)
        assert (metrics["n"], metrics["persons"], metrics["persons_by"]) == (120, 40, "participant")
        together.append(metrics["mean"]["auc"])
        path = embedded(given.drop(columns="participant"), tmp_path, seed=seed)
        metrics = evaluate(path, "grade", tmp_path / "out", seed=seed)
        assert (metrics["persons"], metrics["persons_by"]) == (120, "subject")
        apart.append(metrics["mean"]["auc"])
    assert abs(np.mean(together) - 0.5) < 0.08
    assert np.mean(apart) > 0.75  # what the same features give where nobody says who is who


def test_several_scans_of_those_trained_on_leave_the_tests_of_the_others(tmp_path):
    """Of a split whose tested subjects are a person each, predictions need not tell persons."""
    given = table(30).drop(index=range(1, 40, 2)).reset_index(drop=True)  # one each of the first 20
    given["split"] = np.where(given.index < 20, "test", "train")
    random, made = np.random.default_rng(0), []
    for name, signal in (("a", 2.0), ("b", 0.5)):
        features = random.normal(size=(40, 3)) + signal * given["grade"].to_numpy()[:, None]
        Embeddings(given, features.astype(np.float32), {}).save(tmp_path / f"{name}.parquet")
        made.append(evaluate(tmp_path / f"{name}.parquet", "grade", tmp_path / name))
    assert (made[0]["n"], made[0]["persons"]) == (40, 30)
    loaded = [Evaluation.load(tmp_path / name) for name in "ab"]
    assert loaded[0].persons() is None
    found = difference_between(*([one] for one in loaded))
    assert found.test == "DeLong's test"
    assert None not in (found.p, found.interval)
    accuracy = difference_between(*([one] for one in loaded), metric="accuracy")
    assert accuracy.test == "McNemar's exact test"
    # Versions that did not tell persons kept no doubts.
    old = Evaluation({k: v for k, v in made[0].items() if k != "doubts"}, made[0].predictions)
    with pytest.raises(EvaluationError, match="do not tell which subjects are of one person"):
        old.persons()


def test_how_many_persons_there_are_is_said(tmp_path):
    metrics = evaluate(embedded(table(12), tmp_path), "grade", tmp_path / "out")
    assert "\n24 subjects of 12 persons\n" in summary_table(metrics)
    path = embedded(table(12).drop(columns="participant"), tmp_path)
    told = "\n24 subjects; without a column participant, each counts as a person of its own\n"
    assert told in summary_table(evaluate(path, "grade", tmp_path / "out"))


def test_blank_participants_are_missing_and_accents_do_not_part_a_person():
    given = table(2).assign(participant=["M\u00fc", "Mu\u0308 ", "", " "])
    assert persons_of(given).tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(("people", "folds", "hint"), [(6, 5, r" \(`folds=3`\)"), (3, 2, "")])
def test_fewer_participants_than_folds_are_one_line(people, folds, hint):
    message = rf"has \d participants?, but the folds need at least [45] of each class; .*{hint}$"
    with pytest.raises(EvaluationError, match=message) as caught:
        plan_folds(table(people, 10), "grade", folds=folds)
    assert ("`folds" in str(caught.value)) == bool(hint)
    assert len(plan_folds(table(6, 10), "grade", folds=3)) == 3
