"""Splits and persons that folders and names tell."""

import pytest

from tests.ingest.trees import brats, picture, scan
from vitaepp.ingest.layouts import recognise

MONTHS = ("2019-03-01", "2020-11-20")


@pytest.mark.parametrize(
    ("names", "persons"),
    [
        (
            [f"BraTS-GLI-{i:05d}-00{v}" for i in (0, 2, 5) for v in (0, 1)],
            [f"BraTS-GLI-{i:05d}" for i in (0, 2, 5) for _ in (0, 1)],
        ),
        (
            [
                f"{s}/MPRAGE/{d}/I{i}"
                for s in ("002_S_0413", "011_S_0002")
                for i, d in enumerate(MONTHS)
            ],
            ["002_S_0413"] * 2 + ["011_S_0002"] * 2,
        ),
        (
            ["patient_01_2019", "patient_01_2021", "patient_02_2020"],
            ["patient_01"] * 2 + ["patient_02"],
        ),
        (["p1_20190301", "p1_20200101", "p2_20180505"], ["p1", "p1", "p2"]),
        (["p1/ses-1/x", "p1/ses-2/x", "p2/ses-1/x"], ["p1", "p1", "p2"]),
        (["p1_baseline", "p1_followup", "p2_baseline"], ["p1", "p1", "p2"]),
        (["p1_week-000", "p1_week-012", "p2_week-000"], ["p1", "p1", "p2"]),
        (
            ["OAS30001_MR_d0129", "OAS30001_MR_d0757", "OAS30002_MR_d0001"],
            ["OAS30001"] * 2 + ["OAS30002"],
        ),
        (
            ["TCGA-02-0003_1", "TCGA-02-0003_2", "TCGA-06-0119_1"],
            ["TCGA-02-0003"] * 2 + ["TCGA-06-0119"],
        ),
        (["pat7_frame01", "pat7_frame12", "pat8_frame01"], ["pat7", "pat7", "pat8"]),
    ],
)
def test_names_that_show_a_person_set_the_participant(tmp_path, names, persons):
    for i, name in enumerate(names):
        scan(tmp_path / "x" / f"{name}.nii.gz", i)
    cohort = recognise(tmp_path / "x")
    assert dict(zip(names, persons, strict=True)) == {
        s.subject: s.labels["participant"] for s in cohort.subjects
    }
    assert cohort.notes[-1].startswith("participant, whom evaluate never splits: ")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["p01_1", "p01_2", "p02_1", "p02_2"], True),
        (["p01/a1", "p01/a2", "p02/a1"], True),
        (["p01_left", "p01_right", "p02_left"], True),
        (["p01", "p02", "p03"], False),
        (["scan_1", "scan_2", "scan_3"], False),
        (["A_01", "A_02", "B_01"], False),
        ([f"x_{i}" for i in range(1998, 2004)], False),
    ],
)
def test_names_that_may_show_one_are_told_and_nothing_else(tmp_path, names, told):
    for i, name in enumerate(names):
        scan(tmp_path / "x" / f"{name}.nii.gz", i)
    cohort = recognise(tmp_path / "x")
    assert not any("participant" in s.labels for s in cohort.subjects)
    assert [note.split(",")[0] for note in cohort.notes] == (
        [f"{len(names)} subjects may be scans of 2 persons"] if told else []
    )


def test_time_points_of_brats_are_of_one_person(tmp_path):
    brats(tmp_path, ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"], "-")
    cohort = recognise(tmp_path)
    assert [s.labels["participant"][-1] for s in cohort.subjects] == ["1", "1", "2"]


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("Training", "Testing", "Validation"), ("train", "test", "val")),
        (("TRAIN", "Test", "val"), ("train", "test", "val")),
        (("train", "test", "dev"), ("train", "test", "val")),
        (("entrenamiento", "prueba", "Validierung"), ("train", "test", "val")),
    ],
)
def test_folders_of_splits_in_any_case_hold_classes(tmp_path, folders, splits):
    for folder in folders:
        for label in ("glioma", "no_tumor"):
            picture(tmp_path / "x" / folder / label / f"{folder}-{label}.png")
    cohort = recognise(tmp_path / "x")
    expected = {(s, label) for s in splits for label in ("glioma", "no_tumor")}
    assert {(s.split, s.labels["label"]) for s in cohort.subjects} == expected
    assert cohort.classes == ("glioma", "no_tumor")
    assert "label: the folder that is no split, as the class" in cohort.notes


def test_what_this_package_wrote_is_no_source(tmp_path):
    from vitaepp.ingest.prepare import prepare

    for name in ("a", "b"):
        scan(tmp_path / "x" / f"{name}.nii.gz")
    prepare(tmp_path / "x", tmp_path / "x" / "store", size=8)
    run = tmp_path / "x" / "run"
    scan(run / "reconstruction" / "a.nii.gz")
    (run / "recipe.yaml").write_text("x")
    (run / "metrics.csv").write_text("x")
    cohort = recognise(tmp_path / "x")
    assert [s.subject for s in cohort.subjects] == ["a", "b"]
    assert dict(cohort.left_out) == {"store": "is a store of vitaepp", "run": "is a run of vitaepp"}
