"""One folder a subject, with files named by modality as people do."""

import pytest

from tests.ingest.trees import brats, mask, scan
from vitaepp.data.store import Store
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts import recognise
from vitaepp.ingest.layouts.names import WORDS, modality_in
from vitaepp.ingest.prepare import prepare


def taken(cohort):
    return {s.subject: {m: f.name for m, f in s.files.items()} for s in cohort.subjects}


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        *(("T1", "t1"), ("t1w_brain", "t1"), ("MPRAGE", "t1"), ("001-T1-post", "t1ce")),
        *(("T1Gd", "t1ce"), ("t1_ce_reg", "t1ce"), ("T2_FLAIR", "flair"), ("FLAIR", "flair")),
        *(("t2star", "t2star"), ("dwi", "dwi"), ("adc_map", "adc"), ("t1_t2_ratio", "")),
        *(("patient1", ""), ("st1", ""), ("", "")),
        *((f"T1_{w}", "t1") for w in ("without_contrast", "non_gd", "no_contrast", "ohne_KM")),
        *((f"T1_{w}", "t1") for w in ("pre_contrast", "precontrast", "post_op", "post-surgery")),
        *((f"T1_{w}", "t1ce") for w in ("gd", "+C", "contrast", "post_op_gd", "w_post", "km")),
        *((word, modality) for word, modality in WORDS.items()),
        *(("pre_T1_gd", "t1ce"), ("T1post_op", "t1"), ("non-contrast-T1", "t1")),
        *(("T1_FLAIR", "t1"), ("Ax_T1w_FLAIR_3mm", "t1"), ("T1_FLAIR_post", "t1ce")),
        *(("FLAIR_reg_T1", "flair"), ("sub-01_ses-T1_FLAIR", "flair"), ("MPRAGE_FLAIR", "flair")),
        *(("T2_star", "t2star"), ("T2*", "t2star"), ("T2_GRE", "t2star"), ("T2_star_map", "")),
        *(("T1_map", ""), ("T2_map", ""), ("T1_subtraction", ""), ("SWI_mIP", "")),
        *(("SWI_phase", ""), ("MAP_01_T1", "t1"), ("ct_portal_phase", "ct"), ("sub_01_T1", "t1")),
    ],
)
def test_a_name_tells_its_modality_by_its_words(name, modality):
    assert modality_in(name) == modality


def test_different_spellings_of_one_modality_are_one(tmp_path):
    for subject, names in {
        "p01": ("T1", "T1-post", "T2_FLAIR"),
        "p02": ("p02_t1w_brain", "t1ce", "flair"),
        "P 03": ("MPRAGE", "T1_Gd", "FLAIR_reg"),
    }.items():
        for i, name in enumerate(names):
            scan(tmp_path / "x" / subject / f"{name}.nii.gz", i)
    (tmp_path / "x" / "p01" / "notes.txt").write_text("x")
    cohort = recognise(tmp_path / "x")
    assert cohort.layout == "one folder per subject"
    assert cohort.modalities == ("flair", "t1", "t1ce")
    assert [s.subject for s in cohort.subjects] == ["P 03", "p01", "p02"]
    assert taken(cohort)["p02"] == {
        "t1": "p02_t1w_brain.nii.gz",
        "t1ce": "t1ce.nii.gz",
        "flair": "flair.nii.gz",
    }
    assert cohort.left_out == ()
    prepare(tmp_path / "x", tmp_path / "store", size=8)
    assert len(Store(tmp_path / "store")) == 3


def test_the_plain_file_is_taken_and_the_others_are_left_out_with_reasons(tmp_path):
    for name in ("T1", "T1_brain", "T1_brain_mask", "FLAIR", "lesion_seg", "localizer"):
        scan(tmp_path / "a" / f"{name}.nii.gz")
    for name in ("T1", "FLAIR", "tumour"):
        scan(tmp_path / "b" / f"{name}.nii.gz")
    mask(tmp_path / "c" / "seg.nii.gz")
    (tmp_path / "b" / "T2.mnc").write_bytes(b"x")
    (tmp_path / "b" / "screenshot.png").write_bytes(b"x")
    cohort = recognise(tmp_path)
    assert taken(cohort)["a"] == {"t1": "T1.nii.gz", "flair": "FLAIR.nii.gz"}
    assert [s.mask.name for s in cohort.subjects] == ["lesion_seg.nii.gz", "tumour.nii.gz"]
    assert dict(cohort.left_out) == {
        "a/T1_brain.nii.gz": "another t1; the one with the plainer name, or the first, is used",
        "a/T1_brain_mask.nii.gz": "a mask of the brain, not of a lesion",
        "a/localizer.nii.gz": "its name contains no modality",
        "b/T2.mnc": "its format is not read",
        "b/screenshot.png": "a picture",
        "c/seg.nii.gz": "a mask without an image",
    }


def test_folders_may_be_deep_or_tell_the_modality(tmp_path):
    for split in ("train", "test"):
        for subject in ("x1", "x2"):
            folder = tmp_path / split / f"{subject}{split}" / "nifti"
            scan(folder / "T1" / "image.nii.gz")
            scan(folder / "FLAIR" / "image.nii.gz")
    cohort = recognise(tmp_path)
    assert [s.subject for s in cohort.subjects] == [
        *("test/x1test", "test/x2test", "train/x1train", "train/x2train")
    ]
    assert [s.split for s in cohort.subjects] == ["test", "test", "train", "train"]
    assert cohort.modalities == ("flair", "t1")
    one = recognise(tmp_path / "train" / "x1train" / "nifti")
    assert [s.subject for s in one.subjects] == ["nifti"]


@pytest.mark.parametrize(
    "names",
    [
        ("{}_T1", "{}_T2_FLAIR", "{}_seg"),
        ("{}-t1w", "{}-flair", "{}-mask"),
        ("T1/{}-T1", "FLAIR/{}-FLAIR", "masks/{}-mask"),
        ("MPRAGE/{}", "FLAIR/{}", "seg/{}"),
    ],
)
def test_files_side_by_side_are_matched_by_the_rest_of_their_names(tmp_path, names):
    for subject in ("Pat_01", "Pat_02", "x-3 b"):
        for name in names:
            scan(tmp_path / f"{name.format(subject)}.nii.gz")
    scan(tmp_path / "Pat_02_unknown.nii.gz")
    mask(tmp_path / "Pat_09_mask.nii.gz")
    cohort = recognise(tmp_path)
    assert cohort.layout == "files named after subject and modality"
    assert [s.subject for s in cohort.subjects] == ["Pat_01", "Pat_02", "x-3 b"]
    assert cohort.modalities == ("flair", "t1")
    assert cohort.has_masks
    assert dict(cohort.left_out) == {
        "Pat_02_unknown.nii.gz": "its name contains no modality",
        "Pat_09_mask.nii.gz": "a mask without an image",
    }


@pytest.mark.parametrize(
    "names",
    [
        ("NORMAL/p1_t1", "NORMAL/p2_t1", "SICK/p3_t1", "SICK/p4_t1"),
        ("a/1", "a/2", "b/1", "b/2"),
    ],
)
def test_folders_of_many_subjects_are_not_taken_for_one(tmp_path, names):
    for name in names:
        scan(tmp_path / f"{name}.nii.gz")
    cohort = recognise(tmp_path)
    assert cohort.layout == "a folder of scans"
    assert len(cohort.subjects) == len(names)


def test_absence_of_contrast_is_no_contrast_in_folders_and_side_by_side(tmp_path):
    for subject in ("p01", "p02"):
        for name in ("T1+C", "T1_non_gd", "T2_star", "T2", "T1_map"):
            scan(tmp_path / "a" / subject / f"{name}.nii.gz")
            scan(tmp_path / "b" / f"{subject}_{name}.nii.gz")
    for folder in ("a", "b"):
        cohort = recognise(tmp_path / folder)
        assert [s.subject for s in cohort.subjects] == ["p01", "p02"]
        assert cohort.modalities == ("t1", "t1ce", "t2", "t2star")
        assert {why for _, why in cohort.left_out} == {"its name contains no modality"}


def test_maps_alone_are_asked_about(tmp_path):
    for subject in ("p01", "p02"):
        for name in ("T1_map", "T2_map"):
            scan(tmp_path / subject / f"{name}.nii.gz")
    with pytest.raises(SourceError, match=r"are t[12]map and t[12]map by their names"):
        recognise(tmp_path)


def test_a_visit_after_surgery_stays_in_the_name(tmp_path):
    for name in (f"p{i}_{v}_op_{m}" for i in (1, 2) for v in ("pre", "post") for m in ("T1", "T2")):
        scan(tmp_path / f"{name}.nii.gz")
    cohort = recognise(tmp_path)
    assert [s.subject for s in cohort.subjects] == [
        *("p1_post_op", "p1_pre_op", "p2_post_op", "p2_pre_op")
    ]
    assert [s.labels["participant"] for s in cohort.subjects] == ["p1", "p1", "p2", "p2"]


def test_brats_naming_in_any_case_and_its_leftovers(tmp_path):
    brats(tmp_path, ["a", "b"])
    brats(tmp_path, ["C"], names=("FLAIR", "T1", "T1CE", "T2"))
    scan(tmp_path / "a" / "a_t1_old.nii.gz")
    mask(tmp_path / "z" / "z_seg.nii.gz")
    cohort = recognise(tmp_path)
    assert cohort.modalities == ("flair", "t1", "t1ce", "t2")
    assert len(cohort.subjects) == 3
    assert all(len(s.files) == 4 for s in cohort.subjects)
    assert dict(cohort.left_out) == {
        "a/a_t1_old.nii.gz": "not in folders in BraTS naming",
        "z/z_seg.nii.gz": "a mask without an image",
    }


def test_a_t1_flair_beside_a_t2_flair_is_told_because_both_may_be_visits(tmp_path):
    for i, name in enumerate(f"p{k}_{m}" for k in range(3) for m in ("T1_FLAIR", "T2_FLAIR")):
        scan(tmp_path / "x" / f"{name}.nii.gz", i)
    cohort = recognise(tmp_path / "x")
    assert cohort.modalities == ("flair", "t1")
    assert any("if T1 and T2 are visits" in note for note in cohort.notes)
