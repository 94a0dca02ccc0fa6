"""BIDS data sets: modalities by suffix, sessions, participants, masks, and what is left out."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.ingest.trees import mask, scan
from vitaepp.data.store import Store
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts import recognise
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.pseudonyms import pseudonym
from vitaepp.recipe.sections import PrepareSettings

PARTICIPANTS = """participant_id\tage\tsex\tgroup\tsplit
sub-01\t34\tF\tpatient\ttrain
sub-02\tn/a\tM\tcontrol\ttest
sub-09\t50\tM\tcontrol\ttrain
"""


def description(folder: Path, kind: str = "raw") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    told = {"Name": "a study", "BIDSVersion": "1.9.0", "DatasetType": kind}
    (folder / "dataset_description.json").write_text(json.dumps(told))


def bids(root: Path, sessions=("",)) -> Path:
    """Two participants with T1w before and after contrast, T2w and FLAIR, and some more."""
    description(root)
    (root / "participants.tsv").write_text(PARTICIPANTS)
    (root / "participants.json").write_text("{}")
    seed = 0
    for sub in ("sub-01", "sub-02"):
        for ses in sessions:
            folder = root / sub / ses
            name = f"{sub}_{ses}" if ses else sub
            for what in ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR"):
                scan(folder / "anat" / f"{name}_{what}.nii.gz", seed := seed + 1)
                (folder / "anat" / f"{name}_{what}.json").write_text("{}")
            scan(folder / "dwi" / f"{name}_dwi.nii.gz")
    return root


def taken(cohort):
    return {s.subject: {m: f.name for m, f in s.files.items()} for s in cohort.subjects}


def test_modalities_by_suffix_and_contrast_by_its_entity(tmp_path):
    bids(tmp_path / "ds")
    for source in (tmp_path / "ds", tmp_path):
        cohort = recognise(source)
        assert cohort.layout == "a BIDS data set"
        assert cohort.modalities == ("flair", "t1", "t1ce", "t2")
        assert taken(cohort)["sub-01"] == {
            "flair": "sub-01_FLAIR.nii.gz",
            "t1": "sub-01_T1w.nii.gz",
            "t1ce": "sub-01_ce-gadolinium_T1w.nii.gz",
            "t2": "sub-01_T2w.nii.gz",
        }
    left_out = dict(recognise(tmp_path / "ds").left_out)
    assert left_out["sub-01/dwi/sub-01_dwi.nii.gz"] == "in dwi; only anat is used"


def test_participants_become_labels_and_their_split_the_split(tmp_path, capsys):
    source = bids(tmp_path / "ds")
    cohort = recognise(source)
    assert [s.split for s in cohort.subjects] == ["train", "test"]
    assert [dict(s.labels) for s in cohort.subjects] == [
        {"age": 34, "sex": "F", "group": "patient"},
        {"age": None, "sex": "M", "group": "control"},
    ]
    assert ("sub-09", "participants.tsv lists it, but it has no images") in cohort.left_out
    # The prefix is often forgotten, and one who is not listed has no labels.
    (source / "participants.tsv").write_text("subject_id\tparticipant_id\nx\t01\n")
    cohort = recognise(source)
    assert [dict(s.labels) for s in cohort.subjects] == [{"subject_id": "x"}, {}]
    assert "participants.tsv: no row for 1 of 2 participants; their" in capsys.readouterr().err


def test_sessions_are_subjects_of_one_participant(tmp_path):
    source = bids(tmp_path / "ds", sessions=("ses-pre", "ses-post"))
    cohort = recognise(source)
    assert list(taken(cohort)) == [
        *("sub-01_ses-post", "sub-01_ses-pre", "sub-02_ses-post", "sub-02_ses-pre")
    ]
    assert [s.labels["participant"] for s in cohort.subjects] == ["sub-01"] * 2 + ["sub-02"] * 2
    assert [s.split for s in cohort.subjects] == ["train"] * 2 + ["test"] * 2


def test_of_several_runs_the_first_plain_one_is_taken(tmp_path):
    source = bids(tmp_path / "ds")
    anat = source / "sub-01" / "anat"
    (anat / "sub-01_T1w.nii.gz").rename(anat / "sub-01_run-2_T1w.nii.gz")
    for name in ("run-10_T1w", "acq-fast_run-1_T1w", "rec-x_FLAIR", "part-phase_T2starw"):
        scan(anat / f"sub-01_{name}.nii.gz")
    cohort = recognise(source)
    files = taken(cohort)["sub-01"]
    assert files["t1"] == "sub-01_run-2_T1w.nii.gz"
    assert files["flair"] == "sub-01_FLAIR.nii.gz"
    assert "t2star" not in files
    left_out = {Path(f).name: why for f, why in cohort.left_out}
    assert left_out["sub-01_run-10_T1w.nii.gz"].startswith(
        "another t1; the one with the plainer name"
    )
    assert left_out["sub-01_part-phase_T2starw.nii.gz"] == "the phase part of a complex image"
    assert {"sub-01_acq-fast_run-1_T1w.nii.gz", "sub-01_rec-x_FLAIR.nii.gz"} < set(left_out)


def test_a_file_in_another_participants_folder_is_nobodys(tmp_path):
    source = bids(tmp_path / "ds")
    scan(source / "sub-02" / "anat" / "sub-01_PDw.nii.gz")
    cohort = recognise(source)
    assert not any("pd" in s.files for s in cohort.subjects)
    assert "another participant" in dict(cohort.left_out)["sub-02/anat/sub-01_PDw.nii.gz"]


def test_masks_are_of_lesions_and_in_the_images_own_space(tmp_path):
    source = bids(tmp_path / "ds")
    description(source / "derivatives" / "p", "derivative")
    anat = source / "derivatives" / "p" / "sub-01" / "anat"
    for name in (
        *("label-lesion_mask", "desc-brain_mask", "space-MNI152_label-lesion_mask"),
        *("dseg", "label-GM_probseg", "desc-preproc_T1w"),
    ):
        mask(anat / f"sub-01_{name}.nii.gz")
    mask(source / "derivatives" / "manual" / "sub-02" / "anat" / "sub-02_space-orig_dseg.nii.gz")
    mask(source / "derivatives" / "manual" / "sub-07" / "anat" / "sub-07_dseg.nii.gz")
    cohort = recognise(source)
    assert [s.mask.name for s in cohort.subjects] == [
        "sub-01_label-lesion_mask.nii.gz",
        "sub-02_space-orig_dseg.nii.gz",
    ]
    left_out = {Path(f).name: why for f, why in cohort.left_out}
    assert left_out["sub-01_desc-brain_mask.nii.gz"] == "a mask of the brain, not of a lesion"
    assert "in another space" in left_out["sub-01_space-MNI152_label-lesion_mask.nii.gz"]
    assert left_out["sub-01_dseg.nii.gz"].startswith("another mask; the one of a lesion")
    assert left_out["sub-07_dseg.nii.gz"] == "a mask without an image"
    assert {"sub-01_label-GM_probseg.nii.gz", "sub-01_desc-preproc_T1w.nii.gz"} < set(left_out)


def test_masks_that_could_all_be_meant_are_not_guessed_from(tmp_path):
    source = bids(tmp_path / "ds")
    for pipeline in ("a", "b"):
        anat = source / "derivatives" / pipeline / "sub-01" / "anat"
        mask(anat / "sub-01_label-lesion_mask.nii.gz")
    cohort = recognise(source)
    assert cohort.subjects[0].mask is None
    left_out = dict(cohort.left_out)
    for pipeline in ("a", "b"):
        path = f"derivatives/{pipeline}/sub-01/anat/sub-01_label-lesion_mask.nii.gz"
        assert left_out[path] == "one of 2 masks; a manifest can choose one"


@pytest.mark.parametrize(
    ("images", "masks", "used", "mask_used"),
    [
        (["run-1", "run-2"], ["run-2"], "run-2", "run-2"),
        (["run-01", "run-02"], ["run-2"], "run-02", "run-2"),
        (["run-1", "run-2"], ["run-1", "run-2"], "run-1", "run-1"),
        (["run-1", "run-2"], [""], "run-1", ""),
        (["", "run-2"], ["run-2"], "run-2", "run-2"),
        (["acq-a", "acq-b"], ["acq-b"], "acq-b", "acq-b"),
        (["acq-a"], ["acq-b"], "acq-a", "acq-b"),  # perhaps drawn on another sequence
        (["run-1", "run-2"], ["run-3"], "run-1", None),
        (["run-1"], ["run-2"], "run-1", None),
        ([""], ["run-2"], "", "run-2"),
    ],
)
def test_a_mask_goes_with_the_image_that_it_belongs_to(tmp_path, images, masks, used, mask_used):
    def named(entity, what):
        return "_".join(filter(None, ("sub-01", entity, what))) + ".nii.gz"

    description(tmp_path)
    for entity in images:
        scan(tmp_path / "sub-01" / "anat" / named(entity, "T1w"))
    for entity in masks:
        mask(tmp_path / "derivatives/m/sub-01/anat" / named(entity, "label-lesion_mask"))
    cohort = recognise(tmp_path)
    (subject,) = cohort.subjects
    assert subject.files["t1"].name == named(used, "T1w")
    expected = None if mask_used is None else named(mask_used, "label-lesion_mask")
    assert (subject.mask and subject.mask.name) == expected
    reasons = {Path(file).name: why for file, why in cohort.left_out}
    for entity in set(masks) - {mask_used}:
        assert reasons[named(entity, "label-lesion_mask")].startswith("a mask of another image")
    if used != images[0]:
        assert reasons[named(images[0], "T1w")].endswith("the one that the mask belongs to is used")


def test_a_mask_without_session_belongs_to_the_only_one(tmp_path):
    source = bids(tmp_path / "ds", sessions=("ses-1",))
    mask(source / "derivatives" / "m" / "sub-01" / "sub-01_label-lesion_mask.nii.gz")
    assert recognise(source).subjects[0].mask is not None
    scan(source / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_T1w.nii.gz")
    assert all(s.mask is None for s in recognise(source).subjects)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("age\n3\n", r"participants\.tsv: has no column participant_id; found age"),
        ("participant_id\tage\nsub-01\t1\nsub-01\t2\n", "subject sub-01 occurs 2 times"),
        ("participant_id\tage\nsub-01\t1\n01\t2\n", "subject sub-01 occurs 2 times"),
        ("participant_id\tchecksum\nsub-01\t1\n", "column checksum: a store has its own"),
    ],
)
def test_broken_participants_are_refused_in_one_line(tmp_path, rows, message):
    source = bids(tmp_path / "ds")
    (source / "participants.tsv").write_text(rows)
    with pytest.raises(SourceError, match=message) as caught:
        recognise(source)
    assert "\n" not in str(caught.value)


def test_a_data_set_without_anatomical_images_is_refused(tmp_path):
    description(tmp_path)
    scan(tmp_path / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz")
    with pytest.raises(SourceError, match="BIDS data set without anatomical images"):
        recognise(tmp_path)


def test_without_description_the_folders_tell(tmp_path):
    source = bids(tmp_path / "ds")
    (source / "dataset_description.json").unlink()
    assert recognise(source).layout == "a BIDS data set"


def test_with_a_secret_no_participant_is_named_anywhere(tmp_path, capsys):
    source = bids(tmp_path / "ds", sessions=("ses-1", "ses-2"))
    for name in ("sub-01_ses-1_run-2_T1w", "sub-02_ses-1_FLAIR"):
        scan(source / "sub-01" / "ses-1" / "anat" / f"{name}.nii.gz")
    (source / "participants.tsv").write_text("participant_id\tage\nsub-01\t1\nsub-88\t2\n")
    (tmp_path / "secret").write_text("0123456789abcdef")
    settings = PrepareSettings(secret=str(tmp_path / "secret"))
    prepare(source, tmp_path / "store", size=8, settings=settings)
    table = Store(tmp_path / "store").table
    assert table.participant.nunique() == 2
    assert table.participant[0] == pseudonym(b"0123456789abcdef", "sub-01")
    written = capsys.readouterr().err + table.to_csv()
    assert "left out" in written
    assert "sub-" not in written


def test_a_store_of_a_bids_data_set(tmp_path):
    source = bids(tmp_path / "ds")
    result = prepare(source, tmp_path / "store", size=8)
    assert (result.prepared, result.failures) == (2, ())
    store = Store(tmp_path / "store")
    assert store.info.modalities == ("flair", "t1", "t1ce", "t2")
    assert list(store.table.group) == ["patient", "control"]
    assert list(store.table.split) == ["train", "test"]
    assert store.table.source[0][1] == "sub-01/anat/sub-01_T1w.nii.gz"
    assert np.ptp(store.read([0])) > 0
