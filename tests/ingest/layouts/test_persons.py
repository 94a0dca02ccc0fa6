"""Splits and persons that folders and names tell."""

import pytest

from tests.ingest.trees import brats, picture, scan
from vitaepp.ingest.layouts import recognise
from vitaepp.ingest.prepare import prepare
from vitaepp.recipe.recipe import Recipe


@pytest.mark.parametrize(
    ("names", "persons"),
    [
        ([f"BraTS-GLI-0000{i // 2}-00{i % 2}" for i in range(4)], "BraTS-GLI-0000{}"),
        ([f"01{i // 2}_S_0413/MPRAGE/2019-0{i + 1}-02/I1" for i in range(4)], "01{}_S_0413"),
        ([f"patient_0{i // 2}_202{i}" for i in range(4)], "patient_0{}"),
        ([f"p{i // 2}_2019030{i + 1}" for i in range(4)], "p{}"),
        ([f"p{i // 2}/ses-{i}/x" for i in range(4)], "p{}"),
        ([f"p{i // 2}_{'followup' if i % 2 else 'baseline'}" for i in range(4)], "p{}"),
        ([f"p{i // 2}_week-00{i}" for i in range(4)], "p{}"),
        ([f"OAS3000{i // 2}_MR_d012{i}" for i in range(4)], "OAS3000{}"),
        ([f"TCGA-02-000{i // 2}_{i}" for i in range(4)], "TCGA-02-000{}"),
        ([f"pat{i // 2}_frame0{i}" for i in range(4)], "pat{}"),
    ],
)
def test_names_that_show_a_person_set_the_participant(tmp_path, names, persons):
    for i, name in enumerate(names):
        scan(tmp_path / "x" / f"{name}.nii.gz", i)
    cohort = recognise(tmp_path / "x")
    told = {s.subject: s.labels["participant"] for s in cohort.subjects}
    assert told == {name: persons.format(i // 2) for i, name in enumerate(names)}
    assert cohort.notes[-1].startswith("participant, whose scans evaluate keeps together: ")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["p01_1", "p01_2", "p02_1", "p02_2"], True),
        (["p01/a1", "p01/a2", "p02/a1"], True),
        (["p01_left", "p01_right", "p02_left"], True),
        (["p01_ED", "p01_ES", "p02_ED", "p02_ES"], True),
        (["p01/LCC", "p01/LMLO", "p01/RCC", "p02/LCC", "p02/LMLO", "p02/RCC"], True),
        (["p01_AD", "p02_CN", "p03_AD", "p04_CN"], False),
        (["c1/ada", "c1/bob", "c1/cid", "c2/ada", "c2/eve", "c2/fay"], False),
        (["p01", "p02", "p03"], False),
        (["scan_1", "scan_2", "scan_3"], False),
        (["A_01", "A_02", "B_01"], False),
        ([f"x_{i}" for i in range(1998, 2004)], False),
    ],
)
def test_names_that_may_show_one_are_told_and_nothing_else(tmp_path, names, told):
    for i, name in enumerate(names):
        scan(tmp_path / "x" / f"{name}.nii.gz", i)
    cohort = recognise(tmp_path / "x", layout="scans")
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
    assert "label: the class, by the folder that is not a split" in cohort.notes


def test_what_this_package_wrote_is_no_source(tmp_path):
    for name in ("a", "b"):
        scan(tmp_path / "x" / f"{name}.nii.gz")
    prepare(tmp_path / "x", tmp_path / "x" / "store", size=8)
    for folder, file, text in [
        ("run", "recipe.yaml", Recipe().to_yaml()),
        ("panels", "metrics.csv", "subject,psnr,ssim\na,1,1\n"),
    ]:
        scan(tmp_path / "x" / folder / "a.nii.gz")
        (tmp_path / "x" / folder / file).write_text(text)
    scan(tmp_path / "x" / "more" / "c.nii.gz")
    (tmp_path / "x" / "more" / "metrics.csv").write_text("subject,age\n")
    cohort = recognise(tmp_path / "x")
    assert [s.subject for s in cohort.subjects] == ["a", "b", "more/c"]
    assert dict(cohort.left_out) == {
        "panels": "is a reconstruction of vitaepp",
        "run": "is a run of vitaepp",
        "store": "is a store of vitaepp",
    }
