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
    ("names", "persons"),
    [
        (["p1", "p1_followup", "p2", "p2_followup"], ["p1", "p1", "p2", "p2"]),
        (["p1", "p1_visit2", "p2", "p3", "p4", "p5"], ["p1", "p1", "p2", "p3", "p4", "p5"]),
        (["p1_bl", "p1_fu", "p2", "p3", "p4", "p5"], ["p1", "p1", "p2", "p3", "p4", "p5"]),
        (["p1/T1", "p1/baseline/T1", "p2/T1", "p2/baseline/T1"], ["p1", "p1", "p2", "p2"]),
        (["train/p1_2019", "test/p1_2021", "train/p2_2019"], ["p1", "p1", "p2"]),
        (["train/p1", "test/p1_followup", "train/p2"], ["p1", "p1", "train/p2"]),
        (
            ["AD/p1_2019", "MCI/p1_2018", "AD/p2_2019", "AD/p3_2019", "MCI/p3_2018"],
            ["p1", "p1", "p2", "p3", "p3"],
        ),
        # Each folder has its own first visit of p1: they are different persons.
        (
            ["A/p1_bl", "A/p1_fu", "A/p2_bl", "A/p2_fu", "B/p1_bl", "B/p1_fu"],
            ["A/p1", "A/p1", "A/p2", "A/p2", "B/p1", "B/p1"],
        ),
        (
            ["train/p1_bl", "train/p1_fu", "test/p1_bl", "test/p1_fu"],
            ["train/p1", "train/p1", "test/p1", "test/p1"],
        ),
    ],
)
def test_a_name_beside_its_visits_is_of_the_same_person(tmp_path, names, persons):
    for i, name in enumerate(names):
        scan(tmp_path / "x" / f"{name}.nii.gz", i)
    cohort = recognise(tmp_path / "x")
    told = {s.subject: s.labels["participant"] for s in cohort.subjects}
    assert told == {name.removesuffix("/T1"): p for name, p in zip(names, persons, strict=True)}


def test_persons_of_several_sites_are_not_merged_but_asked_about(tmp_path):
    for i, name in enumerate(f"site{s}/p{p}_20{s}{p}0101" for s in (1, 2) for p in (1, 2, 3)):
        scan(tmp_path / "x" / f"{name}.nii.gz", i)
    cohort = recognise(tmp_path / "x")
    assert not any("participant" in s.labels for s in cohort.subjects)
    assert cohort.notes[-1].startswith("names of persons occur in several folders")


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (["p1", "p1_2", "p2", "p2_2"], "4 subjects may be scans of 2 persons"),
        (["p1", "p1 (1)", "p2", "p2 (1)"], "4 subjects may be scans of 2 persons"),
        (["p1", "p1 - Copy", "p2", "p3", "p4", "p5"], "2 subjects may be scans of 1 person"),
        ([f"case_{i}" for i in range(1, 13)], ""),
        (["img", *(f"img ({i})" for i in range(1, 9))], ""),
        ([f"{label}/img_00{i}" for label in ("NORMAL", "PNEUMONIA") for i in (1, 2, 3)], ""),
        ([f"{label}/img_00{i}" for label in ("train", "test") for i in (1, 2, 3)], ""),
        ([f"{label}/{i}_2019" for label in ("train", "test") for i in (1, 2, 3)], ""),
        (
            [
                f"{arm}/0{i}_{2010 + 3 * a + i}"
                for a, arm in enumerate(("well", "ill"))
                for i in range(1, 6)
            ],
            "names of persons occur in several folders",
        ),
        ([f"p{i}/{part}/20{i}0" for i in (11, 12, 13) for part in ("a", "b")], ""),
    ],
)
def test_what_may_be_a_second_scan_is_told_and_running_numbers_are_not(tmp_path, names, note):
    for i, name in enumerate(names):
        picture(tmp_path / "x" / f"{name}.png", i)
    cohort = recognise(tmp_path / "x")
    assert not any("participant" in s.labels for s in cohort.subjects)
    told = [n for n in cohort.notes if not n.startswith("label: ")]
    assert [n.split(",")[0] for n in told] == [note] * bool(note)


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
